"""The face for loops of one's own: drop-in optimizers, `optimizer` for a model, and `loop`.

Every class of torch.optim under its own name, and every other rule under the rule's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from steepest.optim.engines.torch.drop_ins import (
    ASGD,
    LBFGS,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Muon,
    NAdam,
    RAdam,
    RMSprop,
    Rprop,
    SparseAdam,
    class_of,
)
from steepest.optim.engines.torch.in_backward import in_backward
from steepest.optim.engines.torch.of_model import optimizer
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.rules import RULES

if TYPE_CHECKING:
    from steepest.optim.lr_finder import find_rate
    from steepest.train.hypertune import Dial, hypertune
    from steepest.train.loop import loop

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Dial",
    "Muon",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "RuleOptimizer",
    "SparseAdam",
    "find_rate",
    "hypertune",
    "in_backward",
    "loop",
    "optimizer",
]

__path__: list[str] = []
"""Nothing lies below; pickles name modules that once did, and `steepest` finds them."""

_OF_RULES = {rule.__name__: rule for rule in RULES if rule.__name__ not in __all__}
__all__ += list(_OF_RULES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "loop":
        from steepest.train.loop import loop

        return loop
    if name == "find_rate":
        from steepest.optim.lr_finder import find_rate

        return find_rate
    if name in ("Dial", "hypertune"):
        from steepest.train import hypertune

        return getattr(hypertune, name)
    if name not in _OF_RULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = globals()[name] = class_of(_OF_RULES[name])
    return made


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
