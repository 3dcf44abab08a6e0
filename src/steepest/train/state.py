"""`TrainState`: everything of a run that changes, as a mapping of names to parts with a `state_dict`.

A checkpoint is that mapping on disk; a rewind, a trial, the hand-over from a search and a resumed run all
take their part of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from steepest.data.rng import Generators
from steepest.optim.errors import UserError
from steepest.train.evaluation import Average
from steepest.train.optimizer_adapter import OptimizerAdapter
from steepest.train.packing import from_bytes, to_bytes
from steepest.train.stopping import PlateauState
from steepest.world import ALONE, World


class Stateful(Protocol):
    """What a checkpoint can hold: torch's own two words.

    `state_dict` gives a tree of mappings, sequences, tensors, numbers and text."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


@dataclass(frozen=True)
class Snapshot:
    """The run after `step` updates, in memory of its own.   parts: the state of each part, by its name"""

    step: int
    parts: dict[str, Any]

    @property
    def model(self) -> dict[str, Tensor]:
        """The network's weights and buffers."""
        return self.parts["network"]

    @property
    def progress(self) -> dict[str, Any]:
        """Where the run stood."""
        return self.parts["progress"]

    @property
    def needs(self) -> list[int]:
        """Steps of the snapshots that this one may go back to."""
        return sorted({self.progress[kind] for kind in ("best", "good") if self.progress[kind] is not None})

    @property
    def finite(self) -> bool:
        """Whether every number of the model is finite."""
        return are_finite(self.model.values())

    def having(self, **parts: Any) -> Snapshot:
        """The same with the states of these parts; None takes one out."""
        kept = {name: part for name, part in {**self.parts, **parts}.items() if part is not None}
        return replace(self, parts=kept)


@dataclass
class Progress:
    """Where a run stands, in plain numbers.

    done       updates; withheld ones count too, so that step and place in the data are one number
    evaluated  step of the last evaluation
    seconds    spent, over all processes
    best, good steps that the run may go back to
    per_epoch  updates an epoch, where known
    stopping   state of the plateau schedule
    ended      "" | "budget" | "deadline" | "plateau" | "asked"
    why        the same as a clause"""

    done: int = 0
    evaluated: int = 0
    seconds: float = 0.0
    best: int | None = None
    good: int | None = None
    per_epoch: int | None = None
    stopping: PlateauState = field(default_factory=PlateauState)
    ended: str = ""
    why: str = ""

    @property
    def factor(self) -> float:
        """What the plateau schedule multiplies the learning rate by."""
        return self.stopping.factor

    def count(self) -> None:
        """One more update is over."""
        self.done += 1

    def spent(self, seconds: float) -> None:
        """So many seconds have been spent in all."""
        self.seconds = seconds

    def end(self, word: str, why: str) -> None:
        """The run is over; "" and "": it goes on."""
        self.ended, self.why = word, why

    def reopen(self) -> None:
        """A run that has ended goes on, with fresh patience."""
        self.end("", "")
        self.stopping = self.stopping.reopened()

    def epoch_known(self, per_epoch: int | None) -> None:
        """Updates an epoch, once they are known."""
        self.per_epoch = per_epoch

    def evaluate(self, stopping: PlateauState) -> None:
        """An evaluation at this step has led to this state of the plateau schedule."""
        self.evaluated, self.stopping = self.done, stopping

    def lower(self, factor: float) -> None:
        """The guard has multiplied the learning rate."""
        self.stopping = replace(self.stopping, factor=self.stopping.factor * factor)

    def remember(self, *, best: bool, good: bool) -> None:
        """The run may go back to this step."""
        self.best = self.done if best else self.best
        self.good = self.done if good else self.good

    def state_dict(self) -> dict[str, Any]:
        """All numbers by name."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        vars(self).update({**state, "stopping": PlateauState(**state["stopping"])})


class SameData:
    """What of the data must be the same where a run goes on; None is what is not known."""

    def __init__(self, now: Mapping[str, Any]) -> None:
        self._now = dict(now)

    def state_dict(self) -> dict[str, Any]:
        """What is known of these data."""
        return dict(self._now)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises UserError where these are other data."""
        pairs = [(name, before, self._now.get(name)) for name, before in state.items()]
        changed = [
            f"{name} was {before} and is {now}"
            for name, before, now in pairs
            if None not in (before, now) and before != now
        ]
        if changed:
            raise UserError(
                "This folder holds a run over other data: " + "; ".join(changed) + ". "
                "Go on with the same data and batch size, or train into another folder."
            )


class NetworkState:
    """Weights and buffers of the network under its own names, see `plain`."""

    def __init__(self, net: nn.Module) -> None:
        self._net = plain(net)

    def state_dict(self) -> dict[str, Tensor]:
        """Copies by name. Raises UserError for state that is no tensor."""
        held = self._net.state_dict()
        strange = [name for name, value in held.items() if not isinstance(value, Tensor)]
        if strange:
            raise UserError(
                f"The network keeps state that is no tensor ({', '.join(strange)}) and that cannot be saved "
                "without executing code on loading. Keep it in a buffer."
            )
        whole = torch.contiguous_format
        return {name: value.detach().clone(memory_format=whole) for name, value in held.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy weights in, in place. Raises UserError that lists all misfits, loading nothing."""
        held = self._net.state_dict()
        differ = [f"{name} is not in the network" for name in state if name not in held]
        differ += [f"{name} is not in the saved state" for name in held if name not in state]
        differ += [
            f"{name} has shape {tuple(held[name].shape)} in the network, {tuple(tensor.shape)} in the saved "
            "state"
            for name, tensor in state.items()
            if name in held and held[name].shape != tensor.shape
        ]
        if differ:
            raise UserError(
                "The saved weights are not this network's: " + "; ".join(differ) + ". Nothing was loaded. "
                "Build the network as it was, or train into another folder."
            )
        for name, tensor in state.items():
            held[name].copy_(tensor)

    @property
    def finite(self) -> bool:
        """Whether every weight and buffer is finite."""
        return are_finite([*self._net.parameters(), *self._net.buffers()])

    @torch.no_grad()
    def mend_buffers(self, good: Mapping[str, Tensor]) -> None:
        """Running statistics that a forward pass over bad numbers has reached become the good ones."""
        for name, buffer in self._net.named_buffers():
            if name in good and not are_finite([buffer]):
                buffer.copy_(good[name])

    @torch.no_grad()
    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Put these weights, and no others, into the network."""
        for name, weight in self._net.named_parameters():
            if name in weights:
                weight.copy_(weights[name])


class OfEveryRank:
    """A part that each process has for itself: the states of all are saved, and each takes its own back."""

    def __init__(self, part: Stateful, world: World) -> None:
        self._part, self._world = part, world

    def state_dict(self) -> dict[str, Any]:
        """The states of all processes, by rank."""
        own = self._part.state_dict()
        if self._world.size == 1:
            return {"ranks": [own]}
        return {"ranks": [from_bytes(one) for one in self._world.gather(to_bytes(own))]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take this process's own. Raises UserError where there were more processes, or fewer."""
        held = state["ranks"]
        if len(held) != self._world.size:
            raise UserError(
                f"This folder holds a run of {len(held)} processes, and this one is of {self._world.size}. "
                "Start as many, or train into another folder."
            )
        self._part.load_state_dict(held[self._world.rank])


class Carried:
    """A further object of the user's, such as a scheduler of torch.optim, whose tensors are copied."""

    def __init__(self, one: Stateful) -> None:
        self._one = one

    def state_dict(self) -> dict[str, Any]:
        """What the object gives, in memory of its own."""
        return copied(self._one.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give the object its state back."""
        self._one.load_state_dict(copied(state))


class TrainState(Mapping[str, Stateful]):
    """The parts of a run by name, in the order in which they are loaded: what refuses comes first.

    carry   the user's further objects
    world   the processes that share the run
    others  further parts by name"""

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerAdapter,
        average: Average | None,
        data: Mapping[str, Any],
        carry: Mapping[str, Stateful],
        losses: Stateful,
        world: World = ALONE,
        **others: Stateful,
    ) -> None:
        self.progress = Progress()
        self._network, self._optimizer, self._average = NetworkState(net), optimizer, average
        self._parts: dict[str, Stateful] = {
            "data": OfEveryRank(SameData(data), world),
            "network": self._network,
            "optimizer": optimizer,
            **({} if average is None else {"average": average}),
            "rng": OfEveryRank(Generators(), world),
            "losses": OfEveryRank(losses, world),
            "progress": self.progress,
            **others,
            **{f"carry/{name}": Carried(one) for name, one in carry.items()},
        }

    def __getitem__(self, name: str) -> Stateful:
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def add(self, name: str, part: Stateful) -> None:
        """One more part, to be saved and loaded with the others."""
        self._parts[name] = part

    def snapshot(self) -> Snapshot:
        """The states of all parts, in memory of their own."""
        return Snapshot(self.progress.done, {name: part.state_dict() for name, part in self.items()})

    def load(self, snapshot: Snapshot) -> None:
        """Become what the snapshot shows, to the bit. Raises UserError where data or network are others."""
        self._check_carried(snapshot)
        for name, part in self.items():
            part.load_state_dict(snapshot.parts[name])

    def rewind(self, snapshot: Snapshot) -> None:
        """Only weights, their state in the optimizer and their average become the snapshot's.

        Time and schedules go on, and what a person has set in the optimizer's groups since then stays."""
        self._network.load_state_dict(snapshot.model)
        self._optimizer.load_slots(snapshot.parts["optimizer"]["slots"])
        if self._average is not None:
            self._average.load_state_dict(snapshot.parts["average"])

    def ship(self, snapshot: Snapshot) -> None:
        """Only the network changes: to the snapshot's evaluation weights."""
        self._network.load_state_dict(snapshot.model)
        if self._average is not None:
            self._average.load_state_dict(snapshot.parts["average"])
            self._network.put(snapshot.parts["average"]["weights"])
        else:
            self._optimizer.ship(snapshot.parts["optimizer"])

    @property
    def finite(self) -> bool:
        """Whether every weight and buffer of the network is finite."""
        return self._network.finite

    def mend_buffers(self, good: Snapshot) -> None:
        """Running statistics that are not finite become the snapshot's."""
        self._network.mend_buffers(good.model)

    def _check_carried(self, snapshot: Snapshot) -> None:
        before, now = (
            sorted(name.removeprefix("carry/") for name in parts if name.startswith("carry/"))
            for parts in (snapshot.parts, self)
        )
        if before != now:
            raise UserError(
                f"This folder holds a run that carries {before or 'nothing'}; got {now}. "
                "Give the same objects as carry=, or train into another folder."
            )
        missing = [name for name in self if name not in snapshot.parts and name != "trial"]
        if missing:
            raise UserError(
                f"The saved run has no {', '.join(missing)}, and this one has. Go on with the same settings, "
                "or train into another folder."
            )


def copied(tree: Any) -> Any:
    """A tree of mappings and sequences with copies of its tensors."""
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if type(tree) is dict:
        return {name: copied(one) for name, one in tree.items()}
    return type(tree)(map(copied, tree)) if type(tree) in (list, tuple) else tree


def plain(net: nn.Module) -> nn.Module:
    """The network itself, out of the wrappings of torch.compile and of replicas, which change its names."""
    while True:
        if isinstance(net, DistributedDataParallel | DataParallel):
            net = cast("nn.Module", net.module)
        elif (inside := getattr(net, "_orig_mod", None)) is not None:
            net = inside
        else:
            return net


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every number in these tensors is finite."""
    return all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point())
