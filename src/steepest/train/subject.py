"""`Subject`: what a snapshot is a picture of, the whole changing state of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from steepest.data import rng
from steepest.optim.errors import UserError
from steepest.train.average import Average
from steepest.train.descent import Descent
from steepest.train.division import Division
from steepest.train.record import MeanLoss, Record
from steepest.train.state import Snapshot, are_finite, into_model, of_model, plain, under
from steepest.train.stopping import State
from steepest.train.update import Update


class Stateful(Protocol):
    """An object of the user's that is saved with the run, such as a scheduler of torch."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


@dataclass
class Progress:
    """Where a run stands, in plain numbers.

    done       updates; withheld ones count too, so that step and place in the data are one number
    evaluated  step of the last evaluation
    seconds    spent, over all processes
    best, good steps that the run may go back to
    per_epoch  updates an epoch, where known
    stopping   state of the machine in train/stopping.py
    ended      "" | "budget" | "deadline" | "plateau" | "asked"
    why        the same as a clause"""

    done: int = 0
    evaluated: int = 0
    seconds: float = 0.0
    best: int | None = None
    good: int | None = None
    per_epoch: int | None = None
    stopping: State = field(default_factory=State)
    ended: str = ""
    why: str = ""

    @classmethod
    def of(cls, numbers: Mapping[str, Any]) -> Progress:
        """The inverse of `asdict`."""
        return cls(**{**numbers, "stopping": State(**numbers["stopping"])})


@dataclass
class Subject:
    """Everything of a run that changes.   data: what of the data must not change between processes"""

    net: nn.Module
    descent: Descent
    update: Update
    losses: MeanLoss
    record: Record
    average: Average | None
    carry: Mapping[str, Stateful]
    data: Mapping[str, Any]
    division: Division
    progress: Progress = field(default_factory=Progress)

    def take(self) -> Snapshot:
        """A snapshot, in memory of its own."""
        moved, hyper = self.descent.state()
        drawn, draws = _drawn()
        averaged = {} if self.average is None else {k: t.clone() for k, t in self.average.state().items()}
        kept, carried = _carried(self.carry)
        state = under("optimizer", moved) | under("random", drawn) | under("average", averaged)
        state |= under("carry", kept)
        progress = asdict(self.progress)
        numbers = {
            "best": self.progress.best,
            "good": self.progress.good,
            "progress": progress,
            "optimizer": hyper,
            "random": draws,
            "losses": self.losses.numbers(),
            "rows": len(self.record.rows),
            "update": self.update.numbers(),
            "carry": carried,
            "division": self.division.numbers(),
            "data": dict(self.data),
        }
        return Snapshot(self.progress.done, of_model(self.net), state, numbers)

    def put(self, snapshot: Snapshot) -> None:
        """Become what the snapshot shows, to the bit. Raises UserError where data or network are others."""
        self._same_data(snapshot.numbers["data"])
        self._same_carry(snapshot.numbers["carry"])
        numbers = snapshot.numbers
        into_model(self.net, snapshot.model)
        self.descent.load(snapshot.part("optimizer"), numbers["optimizer"])
        if self.average is not None:
            self.average.load_state(snapshot.part("average"))
        _draw(snapshot.part("random"), numbers["random"])
        self.progress = Progress.of(numbers["progress"])
        self.losses.load(numbers["losses"])
        self.record.resume(numbers["rows"])
        self.update.load(numbers["update"])
        self.division.load(numbers["division"])
        for name, one in self.carry.items():
            one.load_state_dict({**numbers["carry"][name], **snapshot.part(f"carry/{name}")})

    def rewind(self, snapshot: Snapshot) -> None:
        """Only weights, optimizer state and average become the snapshot's; time and schedules go on."""
        into_model(self.net, snapshot.model)
        self.descent.rewind(snapshot.part("optimizer"), snapshot.numbers["optimizer"])
        if self.average is not None:
            self.average.load_state(snapshot.part("average"))

    @torch.no_grad()
    def mend_buffers(self, good: Snapshot) -> None:
        """Running statistics that a forward pass over bad numbers has reached become the snapshot's."""
        for name, buffer in plain(self.net).named_buffers():
            if name in good.model and not are_finite([buffer]):
                buffer.copy_(good.model[name])

    def ship(self, snapshot: Snapshot) -> None:
        """Only the network changes: to the snapshot's weights, or to their average where one is kept."""
        into_model(self.net, snapshot.model)
        self.descent.ship(snapshot.part("optimizer"), snapshot.numbers["optimizer"])
        if self.average is not None:
            self.average.load_state(snapshot.part("average"))
            self._average_into_net(self.average.state())

    @torch.no_grad()
    def _average_into_net(self, averages: Mapping[str, Tensor]) -> None:
        for name, weight in plain(self.net).named_parameters():
            if name in averages:
                weight.copy_(averages[name])

    def _same_data(self, before: Mapping[str, Any]) -> None:
        # What is None is not known: the length of an epoch before the first has ended.
        now = {key: self.data.get(key) for key in before}
        known = [key for key, value in before.items() if None not in (value, now[key])]
        changed = [f"{key} was {before[key]} and is {now[key]}" for key in known if before[key] != now[key]]
        if changed:
            raise UserError(
                "This folder holds a run over other data: " + "; ".join(changed) + ". "
                "Go on with the same data and batch size, or train into another folder."
            )

    def _same_carry(self, before: Mapping[str, Any]) -> None:
        if before.keys() != self.carry.keys():
            raise UserError(
                f"This folder holds a run that carries {sorted(before) or 'nothing'}; "
                f"got {sorted(self.carry)}. Give the same objects as carry=, or train into another folder."
            )


def _carried(carry: Mapping[str, Stateful]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What further objects go on from: (copies of the tensors in their states, the rest)."""
    states = {name: one.state_dict() for name, one in carry.items()}
    tensors = {
        f"{name}/{key}": value.detach().clone()
        for name, state in states.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
    rest = {
        name: {key: value for key, value in state.items() if not isinstance(value, Tensor)}
        for name, state in states.items()
    }
    return tensors, rest


def _drawn() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, numbers) of the global generators."""
    held = rng.Generators().state_dict()
    cuda = {f"cuda{i}": state for i, state in enumerate(held.pop("cuda"))}
    tensors = {name: value for name, value in held.items() if isinstance(value, Tensor)}
    return tensors | cuda, {"numpy": held["numpy place"], "python": held["python spare"]}


def _draw(tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    cuda = [tensors[f"cuda{i}"] for i in range(len(tensors)) if f"cuda{i}" in tensors]
    held = {"cuda": cuda, "numpy place": numbers["numpy"], "python spare": numbers["python"]}
    rng.Generators().load_state_dict({**tensors, **held})
