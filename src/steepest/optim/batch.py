"""`BatchPolicy`: how many examples an update takes, as a pure function of the step and of what was recorded.

64 · "full" · "stochastic 32 to 128" · "growing 64 to 1024" · "following 64 to 1024"
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from steepest.optim.errors import UserError, did_you_mean
from steepest.optim.noise import Critical, Pair, critical_batch

FIRST = 64
"""Examples of an update, or of the first one, unless somebody says otherwise."""

JOINS = 0.5
"""Of a batch: a smaller rest of an epoch takes no update of its own where the rate is that of a whole one."""

SPAN = 16
"""Times the first batch that a growing one may reach unless somebody says otherwise: Smith et al. 2018,
arXiv:1711.00489, meet no loss up to there."""

WRITTEN = re.compile(r"([a-z]+)(?:\s+(\d+)\s+to\s+(\d+))?")


@dataclass(frozen=True)
class BatchPolicy:
    """How many examples an update takes; abstract.

    even      whether all updates take as many
    measures  whether it goes by the noise of gradients, and so must be told it
    joins     share of a batch below which what is left of an epoch joins the update before it
    power     the rate that suits a batch is proportional to batch^(1/power): 1 for SGD, 2 for Adam's kind"""

    even: ClassVar[bool] = False
    measures: ClassVar[bool] = False
    joins: ClassVar[float] = 0.0
    power = 1.0

    @property
    def held(self) -> int:
        """The most examples that are computed at once, so that memory stays where it was at first."""
        return self.size(1)

    @property
    def usual(self) -> int:
        """Examples of an update that epochs are reckoned by before a run has begun."""
        return self.size(1)

    def size(self, step: int) -> int:
        """Examples of update 1, 2, …; abstract."""
        raise NotImplementedError

    def within(self, examples: int) -> BatchPolicy:
        """The same for data of so many examples: no update takes more."""
        raise NotImplementedError

    def factor(self, step: int) -> float:
        """What the rate of an update is multiplied by for its batch to be what it is."""
        return (self.size(step) / self.size(1)) ** (1 / self.power)


@dataclass(frozen=True)
class Fixed(BatchPolicy):
    """So many examples, always."""

    examples: int
    even: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _whole("batch_size", self.examples)

    def __str__(self) -> str:
        return str(self.examples)

    def size(self, step: int) -> int:
        return self.examples

    def within(self, examples: int) -> BatchPolicy:
        return Fixed(min(self.examples, examples))


@dataclass(frozen=True)
class Full(BatchPolicy):
    """All examples: descent without noise."""

    even: ClassVar[bool] = True

    def __str__(self) -> str:
        return "full"

    def size(self, step: int) -> int:
        raise UserError('How many a "full" batch takes depends on the data: ask within(examples).size(step).')

    def within(self, examples: int) -> BatchPolicy:
        return Fixed(examples)


@dataclass(frozen=True)
class Stochastic(BatchPolicy):
    """A random number of examples, its logarithm uniform between two ends, by a count: it depends on (seed,
    step) alone. The rate stays: this is about batches that vary, not about more or less of them."""

    low: int = FIRST // 2
    high: int = FIRST * 2
    seed: int = 0

    def __post_init__(self) -> None:
        _ends("stochastic", self.low, self.high)

    def __str__(self) -> str:
        return f"stochastic {self.low} to {self.high}"

    @property
    def held(self) -> int:
        """The most."""
        return self.high

    @property
    def usual(self) -> int:
        """The geometric mean."""
        return round(math.sqrt(self.low * self.high))

    def size(self, step: int) -> int:
        """⌊low·((high + 1)/low)^x⌋ with x uniform in [0, 1)"""
        drawn = hashlib.sha256(f"{self.seed}/batch/{step}".encode()).digest()[:8]
        x = int.from_bytes(drawn, "little") / 2**64
        return min(int(self.low * ((self.high + 1) / self.low) ** x), self.high)

    def within(self, examples: int) -> BatchPolicy:
        return Stochastic(min(self.low, examples), min(self.high, examples), self.seed)

    def factor(self, step: int) -> float:
        """1: the rate stays."""
        return 1.0


@dataclass(frozen=True)
class Growing(BatchPolicy):
    """More examples in place of a lower rate. Where the schedule stands at a share f of its height so far,
    the batch is least·f^-power, up to `most`; `factor` gives back to the rate what the batch has taken.

    A step's noise goes as rate/batch for SGD and as rate/√batch for Adam's kind, so that both ways anneal it
    alike (Smith et al. 2018, arXiv:1711.00489; Malladi et al. 2022, arXiv:2205.10287), but this one in fewer
    updates. Without a schedule, nothing falls and nothing grows.

    schedule  step → rate, as it would be under a fixed batch"""

    least: int = FIRST
    most: int = FIRST * SPAN
    schedule: Callable[[int], float] | None = None
    power: float = 1.0
    joins: ClassVar[float] = JOINS
    _heights: list[float] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _ends("growing", self.least, self.most)

    def __str__(self) -> str:
        return f"growing {self.least} to {self.most}"

    def size(self, step: int) -> int:
        if self.schedule is None:
            return self.least
        rate = self.schedule(step)
        if rate <= 0:
            return self.most
        return min(round(self.least * (self._height(step) / rate) ** self.power), self.most)

    def within(self, examples: int) -> BatchPolicy:
        least, most = min(self.least, examples), min(self.most, examples)
        return Growing(least, most, self.schedule, self.power)

    def _height(self, step: int) -> float:
        """The highest rate up to this step: what is no fall is a warm-up."""
        assert self.schedule is not None
        while len(self._heights) < step:
            before = self._heights[-1] if self._heights else 0.0
            self._heights.append(max(before, self.schedule(len(self._heights) + 1)))
        return self._heights[step - 1]


@dataclass(frozen=True)
class Following(BatchPolicy):
    """As many examples as the gradients' noise is worth: the critical batch is measured on every `every`
    updates, by the norms of a part of each batch's gradient and of the whole; where its interval lies above
    twice the batch, the batch doubles, and where it lies below half of it, the batch halves.

    What was decided is recorded: `state_dict` is all that a resumed run needs.

    changes   (first update under it, examples), in order"""

    least: int = FIRST
    most: int = FIRST * SPAN
    every: int = 100
    power: float = 1.0
    changes: list[tuple[int, int]] = field(default_factory=list, init=False, compare=False)
    _pairs: list[Pair] = field(default_factory=list, init=False, repr=False, compare=False)
    measures: ClassVar[bool] = True
    joins: ClassVar[float] = JOINS

    def __post_init__(self) -> None:
        _ends("following", self.least, self.most)
        _whole("every", self.every, least=20)

    def __str__(self) -> str:
        return f"following {self.least} to {self.most}"

    def size(self, step: int) -> int:
        return next((size for begin, size in reversed(self.changes) if begin <= step), self.least)

    def within(self, examples: int) -> BatchPolicy:
        return Following(min(self.least, examples), min(self.most, examples), self.every, self.power)

    def observe(self, step: int, pair: Pair) -> tuple[int, Critical] | None:
        """Take in what the gradients of update `step` tell. At the end of a window that ends in a change:
        (the new size, from the next update on; the measured critical batch)."""
        self._pairs.append(pair)
        if len(self._pairs) < self.every:
            return None
        found, now = critical_batch(self._pairs), self.size(step)
        self._pairs.clear()
        to = now * 2 if found.low > 2 * now else now // 2 if found.high < now / 2 else now
        to = min(max(to, self.least), self.most)
        if to == now:
            return None
        self.changes.append((step + 1, to))
        return to, found

    def state_dict(self) -> dict[str, Any]:
        """What was recorded, to be saved."""
        seen = [[pair.small, pair.large, pair.less, pair.more] for pair in self._pairs]
        return {"changes": [list(change) for change in self.changes], "pairs": seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.changes[:] = [(begin, size) for begin, size in state["changes"]]
        self._pairs[:] = [Pair(*four) for four in state["pairs"]]


KINDS: Mapping[str, Callable[..., BatchPolicy]] = {
    "stochastic": Stochastic,
    "growing": Growing,
    "following": Following,
}
"""Policies that are written as a word, or as a word and two ends: "growing 64 to 1024"."""


@dataclass(frozen=True)
class Compensated:
    """A schedule for the rate under batches that vary.   rate(step)·policy.factor(step)"""

    rate: Callable[[int], float] | float
    policy: BatchPolicy

    def __call__(self, step: int) -> float:
        rate = self.rate(step) if callable(self.rate) else self.rate
        return rate * self.policy.factor(step)


def named(value: BatchPolicy | int | str) -> BatchPolicy:
    """The policy that a number or a text stands for; a policy is taken as it is."""
    if isinstance(value, BatchPolicy):
        return value
    if not isinstance(value, str):
        return Fixed(_whole("batch_size", value))
    if value == "full":
        return Full()
    found = WRITTEN.fullmatch(value.strip().lower())
    if value.isdecimal():
        return Fixed(int(value))
    if found is None or found[1] not in KINDS:
        nearest = did_you_mean(value.partition(" ")[0], ("full", *KINDS))
        raise UserError(
            'batch_size must be a whole number of at least 1, "full", or a policy such as '
            f'"growing 64 to 1024", got {value!r}.{nearest}'
        )
    return KINDS[found[1]](*(int(end) for end in found.groups()[1:] if end is not None))


def _whole(name: str, value: object, least: int = 1) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    also = ', "full" or a policy such as "growing"' if name == "batch_size" else ""
    raise UserError(f"{name} must be a whole number of at least {least}{also}, got {value!r}.")


def _ends(name: str, low: object, high: object) -> None:
    """Both ends are numbers of examples, in order."""
    if _whole(f"the first end of {name!r}", low) > _whole(f"the second end of {name!r}", high):
        raise UserError(f"A {name} batch goes from the smaller to the larger size, got {low} to {high}.")
