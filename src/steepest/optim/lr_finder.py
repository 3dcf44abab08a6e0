"""The learning-rate range test: the largest rate at which a loss still falls, found by a rate that grows.

`edge` walks the rates, whatever it is that trains, and reads the curve; `find_rate` lets it train a copy of a
network of one's own, and says which rate to train with. It is one file because the walk, the reading of its
curve, the copy that is trained and the picture serve each other alone."""

from __future__ import annotations

import inspect
import math
import os
import random
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from numbers import Real
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from steepest.optim import rules
from steepest.optim.engines.torch import passes
from steepest.optim.engines.torch.of_model import optimizer
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule

GROWTH = 1.15
"""Factor from one rate of a range test to the next; more where the budget is short."""

SUGGESTED = 10.0
"""What the edge is divided by where nothing else is known."""

FIRST = 5
"""Losses at the start that others are measured against."""

SMOOTHED = (1.5, 1.2)
"""Largest growth at which a loss is the median with its neighbours on either side, and with those next to
them; further apart they belong to other rates."""

FELL, GONE = 0.02, 0.1
"""Shares of the first loss by which a loss must change to count as fallen, and as gone: less is how the
weights happen to suit a batch."""

IN_A_ROW = 3
"""Losses above the bound that make a divergence: one may be a hard batch."""

START, MOST = 1e-6, 1e4
"""First and last rate. Edges of steps in units of w lie below 1, of gradients anywhere, and before batch
norms, which take no notice of the length of a weight, above 10."""

AT_ONCE = 10
"""Updates within which a loss that never fell has left too early for the first rate to be a small one."""

RISEN = 2.0
"""Times the first loss from which on a loss is on its way out; one that is not finite before that came of bad
values in its batch, as like as not."""

BY_HEART = 4
"""Times that a batch is met, on average, above which a loss falls by learning the batches by heart."""

LEAST = FIRST + IN_A_ROW
"""Rates below which a curve has no end beside its beginning."""

FORMS = (".png", ".svg", ".pdf")
"""What a curve is drawn into."""


@dataclass(frozen=True)
class Edge:
    """What a range test has found.

    rate      the largest at which the loss still fell; the last tried where it never rose
    diverged  whether the loss was seen to leave for good; else `rate` is only a lower bound
    fell      whether the loss fell at all
    rates, losses  the curve: the loss of each update, before it, and its rate
    why       the same as a clause"""

    rate: float
    diverged: bool
    fell: bool
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    why: str

    @property
    def suggestion(self) -> float:
        """A rate to train with, as far below the edge as what the test has not seen asks for."""
        return self.rate / SUGGESTED


def edge(
    step: Callable[[float], float], *, start: float = 1e-6, growth: float = GROWTH, most: float = 10.0
) -> Edge:
    """The edge of divergence of whatever `step` trains.

    step    makes one update at the rate that it is given and returns the loss before it, on a fresh batch
    start, growth, most  the first rate, the factor to the next, and the last

    A rate shows in the loss of the update after it, and smoothing looks both ways, so that nothing lags."""
    rates: list[float] = []
    losses: list[float] = []
    rate = start
    while rate <= most * growth and not _gone(losses):  # the last one shows the effect of `most`
        losses.append(step(rate))
        rates.append(rate)
        rate *= growth
    return read_off(rates, losses)


def read_off(rates: Sequence[float], losses: Sequence[float]) -> Edge:
    """The edge in a curve that was measured."""
    finite = [loss if math.isfinite(loss) else math.inf for loss in losses]
    wide = sum(rates[1] <= rates[0] * growth for growth in SMOOTHED) if len(rates) > 1 else 0
    smooth = [median(finite[max(0, i - wide) : i + wide + 1]) for i in range(len(finite))]
    lowest = min(range(len(smooth)), key=smooth.__getitem__)
    first, noise = _start(finite)
    drop, least = first - smooth[lowest], max(noise, FELL * abs(first))
    fell = drop > least
    rose = smooth[-1] - smooth[lowest] > max(least, drop / 2)
    diverged = _gone(losses) or (fell and rose)
    # The loss at `lowest` is what the rate before it has done. Without noise it falls on for some steps while
    # the steepest direction grows back from nearly nothing: 2 to 4 times the true edge, as measured.
    if diverged and not fell:
        lowest = _last_at_start(finite, first + least)
    rate = rates[max(lowest - 1, 0)] if diverged else rates[max(len(rates) - 2, 0)]
    how = "the loss fell up to" if fell else "the loss stayed up to"
    how = how if diverged else "the loss did not leave up to"
    return Edge(rate, diverged, fell, tuple(rates), tuple(losses), f"{how} a rate of {rate:.2g}")


def _gone(losses: Sequence[float]) -> bool:
    """Whether a curve ends in divergence: not finite, or clearly above its start for some steps.

    bound = start + max(noise, 0.3·drop, 0.1·|start|)"""
    if losses and not math.isfinite(losses[-1]):
        return True
    if len(losses) < FIRST + IN_A_ROW:
        return False
    begin, noise = _start(losses)
    bound = begin + max(noise, 0.3 * max(0.0, begin - min(losses)), GONE * abs(begin))
    return all(loss > bound for loss in losses[-IN_A_ROW:])


def _start(losses: Sequence[float]) -> tuple[float, float]:
    """Median and range of the first losses; the range of five is 2.3 standard deviations."""
    first = losses[:FIRST]
    return median(first), max(first) - min(first)


def _last_at_start(losses: Sequence[float], bound: float) -> int:
    """The last place at which the loss was no higher than at the start."""
    return max((i for i, loss in enumerate(losses) if loss <= bound), default=0)


@dataclass(frozen=True)
class FoundRate:
    """What `find_rate` has measured.

    edge     the range test: every rate with its loss
    rule     what moved the weights
    updates  made on the copy, each with the loss and gradient of a fresh batch;   seconds  that they took
    batches  how many there were to take in turn, those that were met where more were left"""

    edge: Edge
    rule: str
    updates: int
    seconds: float
    batches: int

    @property
    def rate(self) -> float:
        """The edge of divergence: the largest rate at which the loss still fell. Not one to train with."""
        return self.edge.rate

    @property
    def suggestion(self) -> float:
        """A rate to train with."""
        return self.edge.suggestion

    @property
    def curve(self) -> list[tuple[float, float]]:
        """(rate, loss) of every update; the loss is that of its batch before the update."""
        return list(zip(self.edge.rates, self.edge.losses, strict=True))

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw the curve into a .png, .svg or .pdf file; its path."""
        marks = {"edge": self.rate, "suggestion": self.suggestion}
        return save(Path(path), self.edge.rates, self.edge.losses, marks, self.rule)

    @property
    def by_heart(self) -> bool:
        """Whether batches came so often that the edge is of learning them by heart, not of training."""
        return self.updates > BY_HEART * self.batches

    def __str__(self) -> str:
        few = (
            f"; {self.batches} batch{'es were' if self.batches > 1 else ' was'} met again and again, and the "
            "edge is of learning by heart, which bears larger rates than training: give more batches"
        )
        return (
            f"{self.rule}: lr {_short(self.suggestion)} — {self.edge.why}; "
            f"{self.updates} updates, {self.seconds:.1f}s{few if self.by_heart else ''}"
        )


def find_rate(
    model: nn.Module,
    loss: Callable[..., Any] | None,
    batches: Iterable[Any],
    rule: str | Rule | torch.optim.Optimizer = "adamw",
    *,
    compute: Callable[[nn.Module, Any], Any] | None = None,
    start: float = START,
    growth: float = GROWTH,
    most: float = MOST,
    clip_norm: float | None = None,
) -> FoundRate:
    """Train a copy of the model, at a rate that grows with every update, until its loss leaves for good.

    The model, its gradients and buffers, the optimizer, and the generators of Python, NumPy, torch and the
    DataLoader are afterwards as they were, to the bit.

    model     as it stands: a fresh one, or one in the midst of training
    loss      function (outputs, target) → the mean over a batch; called with a third part where there is one
    batches   an iterable of (inputs, target), such as a DataLoader; read again where it is short. Of what can
              be read only once, what was read is kept and used again
    rule      the name of a rule, a Rule, or the optimizer of this model, which is copied with its state and
              the ratios of its groups' rates; the rates here are then those of its largest
    compute   for batches of another form, in the place of `loss`: function (model, batch) → loss
    start, growth, most   the first rate, the factor from one to the next, and the last
    clip_norm the largest norm of a gradient, where the training to come clips

    Raises UserError where the loss never leaves, leaves at once, or never falls."""
    _check(model, loss, batches, compute)
    _check_numbers(start, growth, most, clip_norm)
    plain = getattr(model, "_orig_mod", model)  # what torch.compile was given
    began = time.perf_counter()
    with _undisturbed(plain, batches):
        test = _Test(plain, _of_batch(loss) if compute is None else compute, batches, rule, clip_norm)
        with warnings.catch_warnings():  # rates that no person has typed
            warnings.filterwarnings("ignore", ".*Did you mean", UserWarning)
            found = edge(test, start=start, growth=growth, most=most)
    _judge(found, start, most)
    return FoundRate(found, test.name, test.updates, time.perf_counter() - began, test.batches)


class _Test:
    """A copy of a model with an optimizer of its own, which makes one update at the rate it is called with.

    name    of the rule;   updates  made so far;   batches  as in FoundRate"""

    def __init__(
        self,
        model: nn.Module,
        compute: Callable[[nn.Module, Any], Any],
        batches: Iterable[Any],
        rule: Any,
        clip_norm: float | None,
    ) -> None:
        self._own, self._compute, self._clip_norm, self.updates = model, compute, clip_norm, 0
        if isinstance(rule, torch.optim.Optimizer):  # copied with its state
            _check_own(model, rule)
            self._model, self._optimizer = _copied(model, rule)
            self.name = type(rule).__name__
        else:
            chosen = rules.chosen(rule)
            self._model, _ = _copied(model, None)
            self._optimizer, self.name = optimizer(self._model, chosen), rules.name_of(chosen)
        self._ratios = _ratios(self._optimizer)
        if not model.training:  # as after a test: nothing would be dropped, and batch norms stand still
            self._model.train()
        self._source = _Endless(batches)
        self._read = iter(self._source)

    @property
    def batches(self) -> int:
        """How many there are to take in turn; those that were met where more are left."""
        return self._source.apart or self.updates

    def __call__(self, rate: float) -> float:
        """One update at this rate; the loss of its batch before it."""
        batch = next(self._read)
        if not self.updates:
            self._look(batch)
        self.updates += 1
        for group, ratio in zip(self._optimizer.param_groups, self._ratios, strict=True):
            group["lr"] = rate * ratio
        self._optimizer.zero_grad()
        step = self._by_rule if isinstance(self._optimizer, RuleOptimizer) else self._by_closure
        loss = step(lambda: self._compute(self._model, batch))
        for group, ratio in zip(self._optimizer.param_groups, self._ratios, strict=True):
            if float(group["lr"]) != rate * ratio:  # a schedule in the optimizer has written its own
                raise UserError(
                    "A schedule gives the rate of this optimizer itself, so that no other can be tried. Give "
                    "one whose lr is a number."
                )
        return loss

    def _by_rule(self, compute: Callable[[], Any]) -> float:
        """Rules may take more than one pass over the batch."""
        moves: Any = self._optimizer
        labels = any(map(passes.by_labels, moves.rules))
        loss, gradients, reads = passes.look(moves, compute if labels else lambda: _loss_in(compute()))
        self._clip()
        moves.step(gradients=gradients, reads=reads)
        return float(loss)

    def _by_closure(self, compute: Callable[[], Any]) -> float:
        """An optimizer that is none of ours is given the closure where it must have one."""
        losses: list[float] = []

        def closure() -> Any:
            self._optimizer.zero_grad()
            loss = _loss_in(compute())
            loss.backward()
            self._clip()
            losses.append(float(loss.detach()))
            return loss

        asks = inspect.signature(self._optimizer.step).parameters.get("closure")
        if asks is not None and asks.default is inspect.Parameter.empty:
            self._optimizer.step(closure)
        else:
            closure()
            self._optimizer.step()
        return losses[0]

    def _clip(self) -> None:
        if self._clip_norm is not None:
            moved = [weight for group in self._optimizer.param_groups for weight in group["params"]]
            nn.utils.clip_grad_norm_(moved, self._clip_norm)

    def _look(self, batch: Any) -> None:
        """UserError where the loss is none of the copy's: nothing else may be moved or get a gradient."""
        value = _loss_in(self._compute(self._model, batch))
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise UserError(f"The loss must be one number, as a tensor; got {got}. Give the mean of a batch.")
        if not math.isfinite(float(value.detach())):
            raise UserError(
                f"The loss is {float(value.detach())} before the first update. Look for bad values in the "
                "batches, and scale inputs and targets."
            )
        own, copied = ([w for w in m.parameters() if w.requires_grad] for m in (self._own, self._model))
        reached = (
            torch.autograd.grad(value, [*own, *copied], allow_unused=True) if value.requires_grad else ()
        )
        if any(g is not None for g in reached[: len(own)]):
            raise UserError(
                "The loss goes by weights of the model itself, and a copy of it is trained here. Take the "
                "model as an argument: compute=lambda model, batch: …"
            )
        if not any(g is not None for g in reached):
            raise UserError("The loss does not depend on any weight of the model that is trained.")
        if not any(g.any() for g in reached if g is not None):
            raise UserError(
                "The gradient of the loss is zero at every weight, so that no rate moves any. Look for "
                "units that are all off, outputs that do not depend on inputs, and a loss that is constant."
            )


def _loss_in(value: Any) -> Any:
    """The loss of what a function gives that may give (loss, outputs)."""
    return value[0] if isinstance(value, tuple) else value


def _copied(model: nn.Module, own: torch.optim.Optimizer | None) -> tuple[nn.Module, Any]:
    """Deep copies of both together, so that the one moves the other."""
    memo: dict[int, Any] = {}
    try:
        copied, moves = deepcopy(model, memo), deepcopy(own, memo)
        if own is not None and not isinstance(
            own, RuleOptimizer
        ):  # torch copies the groups and the state alone
            left = {name: value for name, value in vars(own).items() if name not in vars(moves)}
            vars(moves).update({k: deepcopy(v, memo) for k, v in left.items() if not callable(v)})
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"The model cannot be copied ({error}), and find_rate trains a copy only. Remove from it what "
            "was computed from weights, or give a model made anew."
        ) from error
    return copied, moves


def _check_own(model: nn.Module, own: torch.optim.Optimizer) -> None:
    weights = {id(weight) for weight in model.parameters()}
    if any(id(weight) not in weights for group in own.param_groups for weight in group["params"]):
        raise UserError("The optimizer moves weights that are not the model's. Give it with its own model.")
    if any("lr" not in group for group in own.param_groups):
        raise UserError(f"{type(own).__name__} has groups without an 'lr', so that no rate can be tried.")


def _ratios(moves: torch.optim.Optimizer) -> tuple[float, ...]:
    """Rates of the groups in shares of the largest; where all are 0, as before a warm-up, all alike."""
    rates = [float(group["lr"]) for group in moves.param_groups]
    return tuple(rate / max(rates) for rate in rates) if any(rates) else (1.0,) * len(rates)


def _check(model: Any, loss: Any, batches: Any, compute: Any) -> None:
    if not isinstance(model, nn.Module):
        raise UserError(f"find_rate trains a copy of a torch.nn.Module, got {type(model).__name__}.")
    if (loss is None) == (compute is None) or not callable(loss or compute):
        raise UserError(
            "Give the loss, a function (outputs, target); or, with loss None, compute=, a function "
            "(model, batch); one of the two."
        )
    single = isinstance(batches, Dataset) and not isinstance(batches, IterableDataset)
    if single or isinstance(batches, Tensor) or not isinstance(batches, Iterable):
        raise UserError(
            f"batches must be an iterable of batches, such as a DataLoader; got {type(batches).__name__}. "
            "Of arrays make one batch: [(X, y)]."
        )


def _check_numbers(start: Any, growth: Any, most: Any, clip_norm: Any) -> None:
    given = {"start": start, "growth": growth, "most": most, "clip_norm": clip_norm}
    for name, value in given.items():
        if not isinstance(value, Real) and not (name == "clip_norm" and value is None):
            raise UserError(f"{name} must be a number, got {value!r}.")
    if clip_norm is not None and not clip_norm > 0:
        raise UserError(
            f"clip_norm must be above 0, got {clip_norm!r}: it is the largest norm of a gradient. None clips "
            "nothing."
        )
    if not (0 < start < most < math.inf and 1 < growth < math.inf):
        raise UserError(
            f"Rates must rise from start to most, by a factor above 1; got start={start}, growth={growth}, "
            f"most={most}."
        )
    rates = 1 + int(math.log(most / start) / math.log(growth) * (1 + 1e-12))
    if rates < LEAST:
        raise UserError(
            f"From start={start:g} to most={most:g} by a factor of {growth:g} there are {rates} rates, and "
            f"an edge takes {LEAST} to be told from noise. Give a smaller growth=, or a wider range."
        )


def _of_batch(loss: Any) -> Callable[[nn.Module, Any], Any]:
    """(loss, outputs) of a batch (inputs, target) or (inputs, target, weight), as a function of the model."""
    loss = deepcopy(loss) if isinstance(loss, nn.Module) else loss  # which may hold buffers of its own

    def compute(model: nn.Module, batch: Any) -> Any:
        if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
            got = (
                f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, tuple | list) else type(batch)
            )
            raise UserError(
                f"A batch must be (inputs, target) or (inputs, target, weight), got {got}. For another form "
                "give loss None and compute=, a function (model, batch)."
            )
        inputs, *rest = (_moved(part, _device(model)) for part in batch)
        outputs = _outputs(model, inputs)
        return loss(outputs, *rest), outputs

    return compute


def _outputs(model: nn.Module, inputs: Any) -> Any:
    """The model's outputs for inputs of several arrays too: a tuple by place, a dict by name."""
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def _device(model: nn.Module) -> torch.device | None:
    return next((weight.device for weight in model.parameters()), None)


def _moved(part: Any, device: torch.device | None) -> Any:
    """Tensors and arrays of a batch, nested as one likes, as tensors on a device; anything else as it is."""
    if isinstance(part, Mapping):
        return {name: _moved(one, device) for name, one in part.items()}
    if isinstance(part, tuple) and hasattr(part, "_fields"):
        return type(part)(*(_moved(one, device) for one in part))
    if isinstance(part, tuple | list):
        return type(part)(_moved(one, device) for one in part)
    return torch.as_tensor(part).to(device) if isinstance(part, Tensor | np.ndarray) else part


class _Endless:
    """Batches without end: read again where they end; of what can be read once, what was read.

    apart  batches of one reading; None before the first has ended"""

    def __init__(self, batches: Iterable[Any]) -> None:
        self._batches = batches
        self.apart: int | None = None

    def __iter__(self) -> Iterator[Any]:
        batches = self._batches
        kept: list[Any] | None = [] if isinstance(batches, Iterator) else None
        while True:
            read = 0
            for batch in batches:
                read += 1
                if kept is not None:
                    kept.append(batch)
                yield batch
            self.apart = self.apart or read
            if kept:
                batches, kept = kept, None
            elif not read:
                raise UserError(
                    "batches holds no batch, or none any more. Give what can be read from the start."
                )


@contextmanager
def _undisturbed(model: nn.Module, batches: Iterable[Any]) -> Generator[None]:
    """Global generators, and those of a DataLoader, are afterwards as before."""
    names = ("sampler", "batch_sampler", "batch_sampler.sampler", "dataset")
    parts = (batches, *(reduce(_part, name.split("."), batches) for name in names))
    own = [g for part in parts if isinstance(g := getattr(part, "generator", None), torch.Generator)]
    before = [generator.get_state() for generator in own]
    devices = sorted({w.device.index for w in model.parameters() if w.device.type == "cuda"})  # not run there
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for generator, state in zip(own, before, strict=True):
            generator.set_state(state)


def _part(whole: Any, name: str) -> Any:
    return getattr(whole, name, None)


def _judge(found: Edge, start: float, most: float) -> None:
    """UserError for a curve that no rate can be read off."""
    if not found.diverged:
        raise UserError(
            f"The loss did not leave for good at any rate from {start:g} to {most:g}, so that there is no "
            "edge. Give a larger most=; a rule that finds its own rate (Prodigy, DoG) needs none."
        )
    early = not found.fell and len(found.rates) <= AT_ONCE
    if early and not math.isfinite(found.losses[-1]) and found.losses[-2] <= RISEN * abs(found.losses[0]):
        raise UserError(
            f"The loss is {found.losses[-1]} at update {len(found.rates)}, at the rate "
            f"{found.rates[-1]:.2g}, and {found.losses[-2]:.4g} right before. Look for numbers in that batch "
            "that are not finite or far too large; if there are none, the rates are too large: give a "
            "smaller start=."
        )
    if early:
        raise UserError(
            f"The loss left for good at the rate {found.rates[-1]:.2g}, {len(found.rates)} updates from the "
            f"first one, {start:g}: every rate that was tried is too large. Give a smaller start=, and scale "
            "inputs and targets."
        )
    if not found.fell:
        raise UserError(
            f"The loss never fell by more than its noise before it left at {found.rates[-1]:.2g}. A network "
            "that has been trained already is near where it can come to: keep its rate. A fresh one does not "
            "train at any of these rates: give larger batches, and look whether gradients reach the weights "
            "and targets belong to their inputs."
        )


def save(
    path: Path, rates: Sequence[float], losses: Sequence[float], marks: Mapping[str, float], title: str
) -> Path:
    """Draw the losses over the rates, with named rates as vertical lines.

    The view ends a little above the start: how far a loss has left is of no interest."""
    from matplotlib.figure import Figure

    if path.suffix not in FORMS:
        raise UserError(f"A picture is written as {', '.join(FORMS)}; got {str(path)!r}.")
    y = np.array(losses, float)
    y[~np.isfinite(y)] = np.nan
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.semilogx(rates, y)
    for place, (name, rate) in enumerate(marks.items()):
        axes.axvline(rate, color=f"C{place + 1}", linestyle="dashed", label=f"{name} {rate:.2g}")
    start, low = float(np.nanmedian(y[:5])), float(np.nanmin(y))
    fall = max(start - low, 1e-3 * abs(start), 1e-12)
    axes.set(
        xlabel="learning rate",
        ylabel="training loss",
        title=title,
        ylim=(low - 0.1 * fall, start + 0.6 * fall),
    )
    axes.legend()
    try:
        figure.savefig(path)
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error
    return path


def _short(rate: float) -> str:
    """Three digits of a rate, small ones as 3.1e-3."""
    if rate >= 0.01:
        return f"{rate:.3g}"
    mantissa, exponent = f"{rate:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
