"""Gradient descent for deep learning, written once and carried the whole way."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steepest import batch, rules, schedule, wrap
    from steepest.comparison.comparison import Comparison
    from steepest.errors import UserError
    from steepest.evidence import Evidence
    from steepest.recipe import Recipe
    from steepest.run import Run
    from steepest.verbs.compare import compare
    from steepest.verbs.fit import fit
    from steepest.verbs.resume import resume
    from steepest.verbs.tune import tune

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
    "UserError": "steepest.errors",
    "compare": "steepest.verbs.compare",
    "fit": "steepest.verbs.fit",
    "resume": "steepest.verbs.resume",
    "tune": "steepest.verbs.tune",
}
"""Where each public name lives; it is imported when first asked for: `import steepest` costs nothing."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in ("batch", "rules", "schedule", "wrap"):
        value = import_module(f"steepest.{name}")
    elif name == "__version__":
        value = import_module("importlib.metadata").version("steepest")
    else:
        raise AttributeError(f"module 'steepest' has no attribute {name!r}; it has {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
