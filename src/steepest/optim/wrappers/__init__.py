"""Wrappers: functions from a rule to a rule, whose hyperparameters lie beside those of the rule within."""

from steepest.optim.wrappers.averages import averaged, lookahead
from steepest.optim.wrappers.decay import decayed
from steepest.optim.wrappers.free import schedule_free
from steepest.optim.wrappers.gradients import asam, grokfast, grokfast_window, sam
from steepest.optim.wrappers.making import WRAPPERS, layers, within
from steepest.optim.wrappers.masks import cautious, cautious_clamped, trust_ratio

FUNCTIONS = (
    "cautious",
    "cautious_clamped",
    "trust_ratio",
    "grokfast",
    "grokfast_window",
    "lookahead",
    "averaged",
    "schedule_free",
    "sam",
    "asam",
    "decayed",
)
"""Names of the wrappers of this package, as they are called in Python."""

__all__ = [
    "FUNCTIONS",
    "WRAPPERS",
    "asam",
    "averaged",
    "cautious",
    "cautious_clamped",
    "decayed",
    "grokfast",
    "grokfast_window",
    "layers",
    "lookahead",
    "sam",
    "schedule_free",
    "trust_ratio",
    "within",
]
