"""From data to updates: `batches(data, …)` hands out, for every update, its microbatches.

A position is the number of updates done. What comes at a position depends on (seed, position) alone: not on
workers, processes, nor on what was drawn before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal, Protocol

import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from steepest.data import augment as augmentation
from steepest.data.examples import loader
from steepest.data.order import Plan
from steepest.data.stream import StreamBatches
from steepest.data.tree import Tree, count, cut, gather, is_tree, leaves, tensors, zipped
from steepest.data.varied import VariedPlan
from steepest.optim.batch import BatchPolicy, named
from steepest.optim.errors import UserError

__all__ = ["ArrayBatches", "Batches", "DatasetBatches", "Held", "batches", "count"]


SLAB = 1 << 20
"""Numbers that are encoded at a time."""


@dataclass(frozen=True)
class Held:
    """Examples in memory that are encoded batch by batch, as what was read takes less room than features do.

    data    (inputs as they were read, target) or (inputs, target, weight): tensors
    encode  inputs of a batch → features"""

    data: tuple[Tree, ...]
    encode: Callable[[Tree], Tree]

    def __len__(self) -> int:
        return count(self.data)

    def whole(self) -> tuple[Tree, ...]:
        """All examples with their inputs encoded, by pieces, so that wide copies stay small."""
        wide = max(1, sum(leaf[:1].numel() for leaf in leaves(self.data[0])))
        pieces = [self.encode(piece) for piece in cut(self.data[0], max(1, SLAB // wide))]
        features = pieces[0] if len(pieces) == 1 else zipped(lambda *parts: torch.cat(parts), *pieces)
        return (features, *self.data[1:])


class Batches(Protocol):
    """Updates in order.

    examples    examples an epoch, or None where a stream does not say
    per_epoch   updates an epoch, or None where a stream does not say (known after its first pass)
    epoch       epoch (0, 1, …) of the update handed out last
    resumes_by  "position": any position is reached at once; "skipping": by reading what comes before it
    varied      the plan of updates that differ in size, by which epochs are reckoned; None where they do not
    """

    examples: int | None
    per_epoch: int | None
    epoch: int
    resumes_by: Literal["position", "skipping"]

    @property
    def varied(self) -> VariedPlan | None: ...

    def start(self, position: int = 0) -> Iterator[list[Tree]]:
        """The microbatches of update `position`, `position` + 1, … without end."""
        ...

    def once(self) -> Iterator[list[Tree]]:
        """The same from position 0, for one pass over the data."""
        ...


def batches(
    data: Any,
    batch_size: int | str | BatchPolicy = 64,
    *,
    accumulate: int = 1,
    seed: int = 0,
    shuffle: bool = True,
    augment: str | augmentation.Augmentation | None = None,
    num_workers: int = 0,
) -> Batches:
    """Batches of a tree of arrays, a map-style Dataset, a DataLoader or an iterable of batches.

    batch_size  examples an update, "full", or a policy ("growing 64 to 1024"); a DataLoader or iterable keeps
                its own
    accumulate  microbatches that an update is cut into, the first one under a policy; what grows beyond it
                is cut into more of the same size. Changes memory, not the update
    augment     "shift", "flip" or a function (inputs, generator) → inputs
    num_workers processes that read a map-style Dataset; what they read does not depend on their number
    """
    how, policy = augmentation.named(augment), named(batch_size)
    if is_stream(data):
        _check_own_size(policy)
        return StreamBatches(data, _whole(accumulate), seed, how)
    encode = data.encode if isinstance(data, Held) else None
    whole = data.data if isinstance(data, Held) else in_memory(data)
    examples = count(whole) if whole is not None else _length(data)
    if examples < 1:
        raise UserError("There are no examples to train on: the data have length 0.")
    plan = planned(policy, examples, seed, shuffle)
    micro = _micro(policy.within(examples), _whole(accumulate))
    if whole is not None:
        return ArrayBatches(whole, plan, micro, how, encode)
    return DatasetBatches(data, plan, micro, how, num_workers)


def planned(policy: BatchPolicy, examples: int, seed: int = 0, shuffle: bool = True) -> Plan | VariedPlan:
    """Which examples make which update under a policy."""
    fitted = policy.within(examples)
    if fitted.even:
        return Plan(examples, fitted.size(1), seed, shuffle)
    return VariedPlan(examples, fitted, seed, shuffle)


def under(source: Batches, policy: BatchPolicy) -> Batches:
    """The same batches under a policy that has learnt of its schedule; other sources are left as they are."""
    if not isinstance(source, ArrayBatches | DatasetBatches) or source.varied is None:
        return source
    return replace(source, plan=planned(policy, source.plan.examples, source.plan.seed, source.plan.shuffle))


@dataclass
class ArrayBatches:
    """Batches gathered from memory, a whole update at a time; then encoded, then augmented."""

    data: Tree
    plan: Plan | VariedPlan
    micro: int
    augment: augmentation.Augmentation | None = None
    encode: Callable[[Tree], Tree] | None = None
    epoch: int = field(default=0, init=False)
    resumes_by: Literal["position", "skipping"] = field(default="position", init=False)

    def __post_init__(self) -> None:
        self.examples: int | None = self.plan.examples
        self.per_epoch: int | None = self.plan.per_epoch
        self._device = next(leaves(self.data)).device

    @property
    def varied(self) -> VariedPlan | None:
        """The plan, where updates differ in size."""
        return self.plan if isinstance(self.plan, VariedPlan) else None

    def start(self, position: int = 0) -> Iterator[list[Tree]]:
        """The microbatches of update `position`, `position` + 1, … without end."""
        for step, epoch, index in self.plan.updates(position):
            self.epoch = epoch
            batch = gather(self.data, torch.from_numpy(index).to(self._device))
            if self.encode is not None:
                batch = (self.encode(batch[0]), *batch[1:])
            yield cut(augmentation.augmented(batch, self.augment, self.plan.seed, step), self.micro)

    def once(self) -> Iterator[list[Tree]]:
        """The same from position 0, for one pass over the data."""
        return islice(self.start(), self.plan.first_pass)


@dataclass
class DatasetBatches:
    """Batches read example by example from a map-style Dataset, by worker processes if asked.

    Every example is read under a seed made of (seed, epoch, index); global generators stay as they were."""

    dataset: Any
    plan: Plan | VariedPlan
    micro: int
    augment: augmentation.Augmentation | None = None
    num_workers: int = 0
    epoch: int = field(default=0, init=False)
    resumes_by: Literal["position", "skipping"] = field(default="position", init=False)

    def __post_init__(self) -> None:
        self.examples: int | None = self.plan.examples
        self.per_epoch: int | None = self.plan.per_epoch

    @property
    def varied(self) -> VariedPlan | None:
        """The plan, where updates differ in size."""
        return self.plan if isinstance(self.plan, VariedPlan) else None

    def start(self, position: int = 0) -> Iterator[list[Tree]]:
        """The microbatches of update `position`, `position` + 1, … without end."""
        return self._read(position, None)

    def once(self) -> Iterator[list[Tree]]:
        """The same from position 0, for one pass over the data."""
        return self._read(0, self.plan.first_pass)

    def _read(self, position: int, updates: int | None) -> Iterator[list[Tree]]:
        planned = islice(self.plan.updates(position), updates)
        ahead = ([(epoch, int(i)) for i in index] for _, epoch, index in planned)
        read = loader(self.dataset, ahead, self.plan.seed, self.num_workers)
        for step, batch in enumerate(read, start=position):
            self.epoch = self.plan.epoch_of(step)
            yield cut(augmentation.augmented(batch, self.augment, self.plan.seed, step), self.micro)


def is_stream(data: Any) -> bool:
    """Whether data come in an order of their own: a DataLoader or any iterable of batches."""
    if isinstance(data, DataLoader | IterableDataset):
        return True
    by_index = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    return hasattr(data, "__iter__") and not by_index and not is_tree(data)


def in_memory(data: Any) -> Tree | None:
    """The tree of tensors that holds the data, or None where examples must be asked for one by one."""
    if isinstance(data, TensorDataset):
        return tensors(data.tensors)
    if isinstance(data, Subset):
        inner = in_memory(data.dataset)
        return None if inner is None else gather(inner, torch.as_tensor(data.indices))
    if isinstance(data, list) and data and isinstance(data[0], tuple | list | dict):
        raise UserError(
            "A list of tuples may mean examples or batches. Give a tuple of arrays (X, y), a torch Dataset "
            "of examples, or a DataLoader or generator of batches."
        )
    return tensors(data) if is_tree(data) else None


def _micro(policy: BatchPolicy, accumulate: int) -> int:
    """The most examples of a microbatch; two parts of the first update where its noise is to be measured."""
    return -(-policy.held // max(accumulate, 2 if policy.measures else 1))


def _check_own_size(policy: BatchPolicy) -> None:
    """UserError where batches that come as they are should vary in size."""
    if not policy.even:
        raise UserError(
            f"A DataLoader or iterable keeps its own batches, which cannot be {str(policy)!r}. Give arrays "
            "or a Dataset, or leave batch_size out."
        )


def _whole(accumulate: object) -> int:
    """`accumulate` when it is a whole number of at least one."""
    if isinstance(accumulate, int) and not isinstance(accumulate, bool) and accumulate >= 1:
        return accumulate
    raise UserError(f"accumulate must be a whole number of at least 1, got {accumulate!r}.")


def _length(data: Any) -> int:
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return len(data)
    raise UserError(
        f"Cannot make batches of {type(data).__name__}. Give arrays or tensors as (X, y), a dict of them, "
        "a torch Dataset, a DataLoader or an iterable of batches."
    )
