"""One rule in one library, and why it differs where it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


@dataclass(frozen=True)
class Cause:
    """Why a library's path is not the paper's, in words; and what shows that nothing else is the matter.

    path     the paper's path with the library's term in the place of the paper's
    numbers  what that path is given where it is not the rule's own hyperparameters
    patch    a context in which the library follows the paper, or that path
    """

    words: str
    path: Callable[..., Iterator[Any]] | None = None
    numbers: Callable[[SimpleNamespace], dict[str, Any]] = vars
    patch: Callable[[], AbstractContextManager[Any]] | None = None


@dataclass(frozen=True)
class Peer:
    """A rule of ours, the name of another's, and how to make it.

    make     (parameters, our numbers) → the library's optimiser
    cause    of its disagreement, if there is one
    decays   False where it takes no weight decay
    given    numbers of ours that are not our defaults, so that small weights show what the rule does
    """

    rule: str
    name: str
    make: Callable[[Any, SimpleNamespace], Any]
    cause: Cause | None = None
    decays: bool = True
    shapes: tuple[tuple[int, ...], ...] = ()
    given: dict[str, Any] = field(default_factory=dict)

    @property
    def library(self) -> str:
        return self.name.partition(".")[0]
