"""`find_rate`: where a network of one's own diverges, and a rate below that, measured on a copy of it."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from steepest.data import randomness
from steepest.data.tree import apply as over_tree
from steepest.data.tree import is_tree
from steepest.evidence import shown
from steepest.models.probe import apply
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule
from steepest.tuning.constants import GROWTH
from steepest.tuning.edge import FIRST, IN_A_ROW, Edge, edge
from steepest.tuning.rehearsal import Rehearsal, loss_in

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
        from steepest.report.range_test import save

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
            f"{self.rule}: lr {shown(self.suggestion)} — {self.edge.why}; "
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
    return FoundRate(found, test.copy.name, test.updates, time.perf_counter() - began, test.batches)


class _Test:
    """A copy that makes one update at the rate it is called with, and gives the loss before it."""

    def __init__(
        self,
        model: nn.Module,
        compute: Callable[[nn.Module, Any], Any],
        batches: Iterable[Any],
        rule: Any,
        clip_norm: float | None,
    ) -> None:
        self._own, self._compute, self.updates = model, compute, 0
        self.copy = Rehearsal.of(model, rule, clip_norm)
        if not model.training:  # as after a test: nothing would be dropped, and batch norms stand still
            self.copy.model.train()
        self._source = _Endless(batches)
        self._read = iter(self._source)

    @property
    def batches(self) -> int:
        """How many there are to take in turn; those that were met where more are left."""
        return self._source.apart or self.updates

    def __call__(self, rate: float) -> float:
        batch = next(self._read)
        if not self.updates:
            self._look(batch)
        self.updates += 1
        return self.copy.step(rate, lambda: self._compute(self.copy.model, batch))

    def _look(self, batch: Any) -> None:
        """UserError where the loss is none of the copy's: nothing else may be moved or get a gradient."""
        value = loss_in(self._compute(self.copy.model, batch))
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise UserError(f"The loss must be one number, as a tensor; got {got}. Give the mean of a batch.")
        if not math.isfinite(float(value.detach())):
            raise UserError(
                f"The loss is {float(value.detach())} before the first update. Look for bad values in the "
                "batches, and scale inputs and targets."
            )
        own, copied = ([w for w in m.parameters() if w.requires_grad] for m in (self._own, self.copy.model))
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
        inputs, *rest = (_moved(part, model) for part in batch)
        outputs = apply(model, inputs)
        return loss(outputs, *rest), outputs

    return compute


def _moved(part: Any, model: nn.Module) -> Any:
    """Tensors where the model is."""
    device = next((weight.device for weight in model.parameters()), None)
    return over_tree(lambda leaf: torch.as_tensor(leaf).to(device), part) if is_tree(part) else part


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
    try:
        with randomness.undisturbed(), torch.random.fork_rng(devices):
            yield
    finally:
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
