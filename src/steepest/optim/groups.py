"""Groups of weights by the names of parameters: ordered patterns, the first that matches claims."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from steepest.optim.errors import UserError, did_you_mean
from steepest.optim.quantity import Quantity

LR_SCALE = Quantity("what the learning rate of some weights is multiplied by", "times")


def matches(name: str, pattern: str) -> bool:
    """Whether a name fits one of the globs between the bars, as in "embed*|head*|*bias"."""
    return any(fnmatchcase(name, glob.strip()) for glob in pattern.split("|"))


def split(names: Sequence[str], patterns: Sequence[str]) -> list[list[str]]:
    """The names that each pattern claims, in order, and last those that none does.

    A name goes to the first pattern that it fits. A pattern that claims nothing is a UserError."""
    groups: list[list[str]] = [[] for _ in range(len(patterns) + 1)]
    for name in names:
        first = next((i for i, pattern in enumerate(patterns) if matches(name, pattern)), len(patterns))
        groups[first].append(name)
    for pattern, claimed in zip(patterns, groups, strict=False):
        if not claimed:
            raise UserError(_nothing_claimed(pattern, names))
    return groups


def first_match(names: Iterable[str], by_pattern: Mapping[str, Any], otherwise: Any) -> dict[str, Any]:
    """For each name what belongs to the first pattern that it fits."""
    claims = split(list(names), list(by_pattern))
    values = [*by_pattern.values(), otherwise]
    return {name: value for claimed, value in zip(claims, values, strict=True) for name in claimed}


def checked_factors(lr_scale: Mapping[str, Any] | None) -> dict[str, float]:
    """Patterns → factors of the learning rate, every one a number."""
    return {pattern: LR_SCALE.number("lr_scale", by) for pattern, by in (lr_scale or {}).items()}


def no_decay(name: str, shape: Sequence[int], module_kind: str) -> bool:
    """Whether weight decay should pass a weight by: biases, gains and shifts of norms, embeddings.

    module_kind: class name of the module that holds it, such as "LayerNorm". A weight with fewer than two
    axes counts as a bias or gain: it scales or shifts, and pulling it to zero restrains no function."""
    leaf = name.rpartition(".")[2]
    return len(shape) < 2 or "Norm" in module_kind or "Embedding" in module_kind or "embed" in leaf


def _nothing_claimed(pattern: str, names: Sequence[str]) -> str:
    fitting = [name for name in names if matches(name, pattern)]
    if fitting:
        return (
            f"The pattern {pattern!r} claims no weight: earlier ones claim all {len(fitting)} that fit it, "
            f"such as {fitting[0]!r}. Put it before them."
        )
    return f"The pattern {pattern!r} fits no weight.{did_you_mean(pattern, names)}"
