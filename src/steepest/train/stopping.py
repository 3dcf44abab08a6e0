"""When to lower the rate, raise it, go back and stop: the plateau schedule.

    plateau → rewind to the best weights and optimizer state → decay → … → stop when decays no longer help

Patience is counted in evaluations. It minimises: give it -value where more is better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum

from steepest.optim.errors import UserError
from steepest.optim.quantity import Quantity

RANGES = {
    "patience": Quantity("evaluations without gain before something happens", "evaluations", low=1),
    "min_delta": Quantity("the smallest change of the monitored value that counts as gain", "that value's"),
    "decay_factor": Quantity("the factor on the rate at a plateau", high=1.0, open=True),
    "max_decays": Quantity("decays in a row without gain before training stops", "decays"),
    "raise_after": Quantity("gains in a row before the rate is raised", "evaluations", low=1),
    "raise_factor": Quantity("the factor on the rate when things go clearly well", low=1.0),
}
COUNTS = ("patience", "max_decays", "raise_after")
LOSSES = ("loss", "error", "mse", "mae", "rmse", "perplexity")


class Action(Enum):
    """What the run is to do after an evaluation; the value is the word in the column `event`."""

    WAIT = ""
    IMPROVED = "improved"
    DECAY = "decay"
    RAISE = "raise"
    STOP = "stop"


@dataclass(frozen=True)
class PlateauState:
    """Where the plateau schedule stands; plain numbers, so that it can be saved.

    best    least value so far           waited  evaluations since the best, or since the last decay
    decays  decays since the best        streak  gains in a row
    factor  on the rate of every group   ever    decays in all"""

    best: float = math.inf
    waited: int = 0
    decays: int = 0
    streak: int = 0
    ever: int = 0
    factor: float = 1.0
    stopped: bool = False

    def reopened(self) -> PlateauState:
        """The state of a stopped run that is given more to do: it may wait and decay anew."""
        return replace(self, stopped=False, waited=0, decays=0)


@dataclass(frozen=True)
class Stopping:
    """The plateau schedule's settings.

    patience      evaluations without gain before the rate decays or training stops; None: neither happens
    min_delta     smallest change that counts as gain, in the monitored value's unit
    decay_factor  factor on the rate at a plateau, in (0, 1)
    max_decays    decays in a row without gain after which the next plateau stops training
    raise_after   gains in a row after which the rate is raised, until the first decay; None: never
    raise_factor  factor on the rate at a raise"""

    patience: int | None = None
    min_delta: float = 0.0
    decay_factor: float = 0.3
    max_decays: int = 2
    raise_after: int | None = None
    raise_factor: float = 1.5

    def __post_init__(self) -> None:
        for name, quantity in RANGES.items():
            if (value := getattr(self, name)) is not None:
                (quantity.count if name in COUNTS else quantity.number)(name, value)

    def observe(self, state: PlateauState, value: float) -> tuple[PlateauState, Action]:
        """The state after one more evaluation, and what to do. A value that is not finite is no gain."""
        if value < state.best - (self.min_delta if math.isfinite(state.best) else 0.0):
            return self._gained(replace(state, best=value, waited=0, decays=0, streak=state.streak + 1))
        state = replace(state, waited=state.waited + 1, streak=0)
        if self.patience is None or state.waited < self.patience:
            return state, Action.WAIT
        if state.decays >= self.max_decays:
            return replace(state, stopped=True), Action.STOP
        decayed = replace(
            state,
            waited=0,
            decays=state.decays + 1,
            ever=state.ever + 1,
            factor=state.factor * self.decay_factor,
        )
        return decayed, Action.DECAY

    def _gained(self, state: PlateauState) -> tuple[PlateauState, Action]:
        if self.raise_after is None or state.streak < self.raise_after or state.ever:
            return state, Action.IMPROVED
        return replace(state, streak=0, factor=state.factor * self.raise_factor), Action.RAISE


def sign(monitor: str, mode: str) -> float:
    """Factor that makes less better: 1 or -1. mode "auto": losses and errors are to fall, others to rise."""
    if mode not in ("auto", "min", "max"):
        raise UserError(f"mode must be auto, min or max, got {mode!r}.")
    falls = mode == "min" or (mode == "auto" and monitor.lower().rsplit("/")[-1].endswith(LOSSES))
    return 1.0 if falls else -1.0
