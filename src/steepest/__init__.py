"""Gradient descent for deep learning, written once and carried the whole way."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from steepest.optim import PUBLIC

if TYPE_CHECKING:
    from steepest.commands.compare import compare
    from steepest.commands.fit import fit
    from steepest.commands.resume import resume
    from steepest.commands.tune import tune
    from steepest.comparison.comparison import Comparison
    from steepest.evidence import Evidence
    from steepest.optim import batch, rules, schedule
    from steepest.optim import wrappers as wrap
    from steepest.optim.errors import UserError
    from steepest.recipe import Recipe
    from steepest.run import Run

    __version__: str

__all__ = [
    "Comparison",
    "Evidence",
    "Recipe",
    "Run",
    "UserError",
    "__version__",
    "batch",
    "compare",
    "fit",
    "resume",
    "rules",
    "schedule",
    "tune",
    "wrap",
]

_HOMES = {
    "Comparison": "steepest.comparison.comparison",
    "Evidence": "steepest.evidence",
    "Recipe": "steepest.recipe",
    "Run": "steepest.run",
    "UserError": "steepest.optim.errors",
    "compare": "steepest.commands.compare",
    "fit": "steepest.commands.fit",
    "resume": "steepest.commands.resume",
    "tune": "steepest.commands.tune",
}
"""Where each public name lives; it is imported when first asked for: `import steepest` costs nothing."""

_MOVED = {
    "errors": "optim.errors",
    "gradient": "optim.clipping",
    "group": "optim.groups",
    "maths": "optim.maths",
    "quantity": "optim.quantity",
    "rule": "optim.rule",
}
"""Modules that have moved: their old path works for one version, with a warning that names the new one."""

_PICKLED = {"engine": "optim.engines", "folder": "files", "torch.drop_ins": "optim.engines.torch.drop_ins"}
"""Modules whose former paths stand in pickles of optimizers and runs."""


class _Aliases:
    """Finds the modules of these tables, and all below them, by the paths that pickles and people write."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """A spec that hands out the module itself, not a copy; None for any other name."""
        package, _, inside = name.partition(".")
        if package != "steepest":
            return None
        for old, home in (PUBLIC | _MOVED | _PICKLED).items():
            if inside == old or inside.startswith(f"{old}."):
                if inside in _MOVED:
                    import warnings

                    told = f"steepest.{old} is now steepest.{home}; the old path goes with the next version."
                    warnings.warn(told, FutureWarning, stacklevel=2)
                real = f"steepest.{home}{inside.removeprefix(old)}"
                loader = _Alias(import_module(real))
                return ModuleSpec(name, loader, origin=real)  # pyright: ignore[reportArgumentType]
        return None


class _Alias:
    """The loader of a module that is there already."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module itself."""
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is run twice; the module keeps the spec of its own place."""
        module.__spec__ = self._spec


sys.meta_path.insert(0, _Aliases)  # ahead of the finder of files, which would load them a second time


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in PUBLIC:
        value = import_module(f"steepest.{PUBLIC[name]}")
    elif name == "__version__":
        value = import_module("importlib.metadata").version("steepest")
    else:
        raise AttributeError(f"module 'steepest' has no attribute {name!r}; it has {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
