"""`Tuner`: looks at hypergradients between the updates of an optimizer, and turns its hyperparameters."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from steepest.data.rng import preserved
from steepest.optim.engines.on_torch import real
from steepest.optim.engines.torch import hypergradient
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError
from steepest.train import gate
from steepest.train.knobs import Knob, OfLoss, Reading

ASIDE = 0.1
"""How far a dial is turned up and down, on its line, to see what the gradient does."""


@dataclass(frozen=True)
class Pace:
    """Steps from decision to decision and from look to look, those of a warm-up, the longest move."""

    window: int
    every: int
    validate_every: int
    warmup: int
    gain: float

    def __post_init__(self) -> None:
        least = {"window": 1, "every": 1, "validate_every": 1, "warmup": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < low:
                raise UserError(f"{name} is a number of steps, a whole one of at least {low}; got {value!r}.")
        if not isinstance(self.gain, Real) or not 0 < self.gain <= 0.5:
            raise UserError(
                f"gain must lie in (0, 0.5], got {self.gain!r}. It is the longest move: 0.05 is 5 %."
            )

    def check(self, knobs: Iterable[Knob]) -> None:
        """Refuse a window in which one of these could not be told from noise."""
        slowest = max(self.of(knob) for knob in knobs)
        if self.window < gate.LEAST * slowest:
            raise UserError(
                f"A window of {self.window} steps holds fewer than {gate.LEAST} looks, one in {slowest} "
                "steps, and nothing can be said of their noise. Lengthen window, or look more often: every, "
                "validate_every."
            )

    def of(self, knob: Knob) -> int:
        """Steps from one look at a knob to the next."""
        return self.validate_every if knob.held_out else self.every


@dataclass
class Losses:
    """Losses to look at besides that of the update. count: how many of each were looked at, so that a run
    that is resumed goes on with the same batches."""

    net: nn.Module
    validation: Callable[[int], Tensor] | None
    training: Callable[[int], Tensor] | None
    validated: int = 0
    trained: int = 0

    def state_dict(self) -> list[int]:
        """How many of each were looked at."""
        return [self.validated, self.trained]

    def load_state_dict(self, state: Sequence[int]) -> None:
        """Take over what `state_dict` gave."""
        self.validated, self.trained = state

    def held_out(self, weights: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradient of the next validation loss, in test mode; the network is afterwards as before."""
        assert self.validation is not None
        with preserved(self.net, training=False), torch.enable_grad():
            found = _gradient(self.validation(self.validated), weights)
        self.validated += 1
        return found

    def pushes(self, knob: OfLoss, weights: Sequence[Tensor]) -> list[Tensor | None]:
        """The derivative of the next training loss' gradient by the place of a dial: the difference of two
        gradients on one batch, with the same random numbers."""
        assert self.training is not None
        sides = []
        for by in (ASIDE, -ASIDE):
            with knob.dial.turned(by), preserved(self.net), torch.enable_grad():
                sides.append(_gradient(self.training(self.trained), weights))
        self.trained += 1
        return [
            None if a is None or b is None else (a - b) / (2 * ASIDE) for a, b in zip(*sides, strict=True)
        ]


class Tuner:
    """What `hypertune` gives. history: a row a move: step, name, cosine, error, values.

    It listens to the optimizer: before every update it is called with what that is made of."""

    def __init__(self, opt: RuleOptimizer, knobs: Sequence[Knob], losses: Losses, pace: Pace) -> None:
        pace.check(knobs)
        self.opt, self.knobs, self.losses, self.pace = opt, list(knobs), losses, pace
        self.history: list[dict[str, Any]] = []
        self._pending: dict[str, list[Tensor | None]] = {}  # of the update before: ∂w⁺/∂x by knob
        self._lengths: list[float] = []  # of its gradient, by group
        self._at = -1  # its step
        self._felt: set[str] = set()  # the knobs that some step has depended on
        self._blind: set[str] = set()  # those of which some look of this window was not finite
        opt.listeners.append(self)

    def stop(self) -> None:
        """Tune no more; everything stays where it is."""
        if self in self.opt.listeners:
            self.opt.listeners.remove(self)

    def forget(self) -> None:
        """Other weights have been put in: what was looked ahead to has not come."""
        self._pending = {}

    def __call__(self, scale: float, gradients: Any, reads: Any) -> None:
        """Before an update: see what the last one's hyperparameters have done, decide, look ahead."""
        step = self.opt.steps
        weights = self._weights()
        given = [weight.grad for weight in weights] if gradients is None else list(gradients)
        if self._pending and self._at == step - 1:
            self._see(given, scale)
        self._pending = {}
        if step and step % self.pace.window == 0:
            self._decide(step)
        due = [knob for knob in self.knobs if not knob.settled and step % self.pace.of(knob) == 0]
        if due:
            self._look_ahead(due, step, scale, given, reads)

    def state_dict(self) -> dict[str, Any]:
        """All that it goes on from: tensors by name, and "numbers"."""
        numbers = {
            "knobs": {knob.name: knob.state_dict() for knob in self.knobs},
            "at": self._at,
            "lengths": list(self._lengths),
            "looks": self.losses.state_dict(),
            "felt": sorted(self._felt),
            "history": [dict(row) for row in self.history],
        }
        return {"numbers": numbers} | {
            f"{name}/{place}": slope.clone()
            for name, column in self._pending.items()
            for place, slope in enumerate(column)
            if slope is not None
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, hyperparameters too. UserError where other ones were tuned."""
        numbers = state["numbers"]
        names = [knob.name for knob in self.knobs]
        if sorted(numbers["knobs"]) != sorted(names):
            raise UserError(
                f"The saved state tunes {sorted(numbers['knobs'])}, this run {sorted(names)}. Tune the same."
            )
        for knob in self.knobs:
            knob.load_state_dict(numbers["knobs"][knob.name])
        self._at, self._lengths = numbers["at"], list(numbers["lengths"])
        self.losses.load_state_dict(numbers["looks"])
        self._felt = set(numbers["felt"])
        self.history = [dict(row) for row in numbers["history"]]
        self._pending = self._columns(state)

    def _columns(self, state: Mapping[str, Any]) -> dict[str, list[Tensor | None]]:
        found: dict[str, list[Tensor | None]] = {}
        for key, slope in state.items():
            name, _, place = key.rpartition("/")
            if isinstance(slope, Tensor):
                found.setdefault(name, [None] * len(self._weights()))[int(place)] = slope.clone()
        return found

    def _see(self, given: Sequence[Tensor | None], scale: float) -> None:
        """A sample for each knob that was looked at before the last update."""
        validates = any(knob.held_out and knob.name in self._pending for knob in self.knobs)
        validated = self.losses.held_out(self._weights()) if validates else []
        for knob in self.knobs:
            slopes = self._pending.get(knob.name)
            if slopes is None:
                continue
            source = validated if knob.held_out else given
            # In lengths of the gradient that made the step: 1 - lr·h is left of it on a parabola, and nothing
            # where the step was right. In lengths of its own what is left is ±1, however little it is.
            lengths, factor = (self._norms(validated), 1.0) if knob.held_out else (self._lengths, scale)
            found = self._by_group(hypergradient.dots(source, slopes))
            dots = [turn * factor * dot for turn, dot in zip(self._turns(), found, strict=True)]
            norms = self._norms(slopes)
            if any(norms):
                self._felt.add(knob.name)
            if all(map(math.isfinite, [*dots, *lengths])):
                knob.sample(Reading(dots, lengths, norms))
            else:
                self._blind.add(knob.name)

    def _decide(self, step: int) -> None:
        warming = step <= self.pace.warmup or self._rate_rises()
        for knob in self.knobs:
            if knob.turn(self.pace.gain, warming):
                mean, error = gate.mean_and_error([row[0] for row in knob.samples])
                row = {"step": step, "name": knob.name, "cosine": mean, "error": error}
                self.history.append(row | {"values": knob.shown()})
            elif len(knob.samples) >= gate.LEAST and knob.name not in self._felt:
                knob.settle()
                warnings.warn(
                    f"hypertune leaves {knob.name} at {knob.shown()}: a step does not depend on it, or by "
                    "jumps alone, as in rules of the gradient's sign.",
                    stacklevel=4,
                )
            elif not knob.samples and knob.name in self._blind:
                warnings.warn(
                    f"hypertune saw nothing of {knob.name}: the {'validation ' * knob.held_out}loss or its "
                    "gradient was not finite at any look of a window.",
                    stacklevel=4,
                )
            knob.begin_window()
        self._blind = set()

    def _look_ahead(
        self, due: Sequence[Knob], step: int, scale: float, given: Sequence[Tensor | None], reads: Any
    ) -> None:
        """What the hyperparameters will have done to the weights after the coming update."""
        rules = [self.opt.rule_of(group) for group in self.opt.param_groups]
        for knob in due:
            pushes = self.losses.pushes(knob, self._weights()) if isinstance(knob, OfLoss) else None
            slopes = hypergradient.tangents(
                self.opt, knob.speeds(rules), pushes, scale=scale, gradients=given, reads=reads
            )
            self._pending[knob.name] = slopes
        self._at, self._lengths = step, [abs(scale) * length for length in self._norms(given)]

    def _rate_rises(self) -> bool:
        """Whether a schedule is still warming up."""
        step, count = self.opt.steps, range(len(self.opt.param_groups))
        rates = [self.opt.template(k).lr for k in count if callable(self.opt.template(k).lr)]
        return any(rate(step + 1) > rate(step) for rate in rates)

    def _weights(self) -> list[Tensor]:
        return list(chain.from_iterable(group["params"] for group in self.opt.param_groups))

    def _turns(self) -> list[float]:
        return [-1.0 if group.get("maximize") else 1.0 for group in self.opt.param_groups]

    def _by_group(self, column: Sequence[float]) -> list[float]:
        """Sums over the weights of each group."""
        rest = iter(column)
        return [math.fsum(next(rest) for _ in group["params"]) for group in self.opt.param_groups]

    def _norms(self, column: Sequence[Tensor | None]) -> list[float]:
        """Euclidean norms over each group."""
        squares = [
            0.0 if x is None else float(torch.linalg.vector_norm(real(x.detach()))) ** 2 for x in column
        ]
        return [math.sqrt(total) for total in self._by_group(squares)]


def _got(loss: Any) -> str:
    return "a tensor without one" if isinstance(loss, Tensor) else type(loss).__name__


def _gradient(loss: Any, weights: Sequence[Tensor]) -> list[Tensor | None]:
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        raise UserError(
            "A function that hypertune calls must give the loss as a tensor with a gradient to the weights, "
            f"without backward(), detach() or no_grad(); got {_got(loss)}."
        )
    moving = [weight for weight in weights if weight.requires_grad]
    found = iter(torch.autograd.grad(loss, moving, allow_unused=True))
    return [next(found) if weight.requires_grad else None for weight in weights]
