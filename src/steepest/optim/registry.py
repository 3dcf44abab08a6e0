"""`Registry`: objects by name, those of the house and those that other packages bring by entry points."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from steepest.optim.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


class Registry(Generic[T]):
    """What is known by name, in order: the house's own first.

    noun    what is registered, for errors ("task")
    group   group of entry points under which other packages register theirs, such as "steepest.tasks"
    own     name → "module" or "module:object" of the house's, imported when first asked for"""

    def __init__(self, noun: str, group: str, own: Mapping[str, str]) -> None:
        self.noun, self.group = noun, group
        self._own = dict(own)
        self._loaded: dict[str, T] = {}

    def add(self, name: str, thing: T) -> None:
        """Register an object in this process alone, for a notebook or a test; its name must be free."""
        if name in self:
            raise UserError(f"There is a {self.noun} named {name!r} already. Give yours another name.")
        self._own[name], self._loaded[name] = "", thing

    def names(self) -> tuple[str, ...]:
        """All names, the house's first, then those of other packages by the alphabet."""
        return (*self._own, *sorted(self._others().keys() - self._own.keys()))

    def __getitem__(self, name: str) -> T:
        """The object of that name. Raises UserError for a name that is none, and where its package fails."""
        if name in self._own:
            if name not in self._loaded:
                module, _, attribute = self._own[name].partition(":")
                loaded: Any = import_module(module)
                self._loaded[name] = getattr(loaded, attribute) if attribute else loaded
            return self._loaded[name]
        if name not in (others := self._others()):
            near = did_you_mean(str(name), self.names())
            raise UserError(f"There is no {self.noun} named {name!r}.{near}")
        return self._load(others[name])

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._others()

    def items(self) -> Iterator[tuple[str, T]]:
        """(name, object) of all, those of other packages first: they know their own data best."""
        added = [name for name, place in self._own.items() if not place]
        own = [name for name, place in self._own.items() if place]
        for name in (*added, *self.names()[len(self._own) :], *own):
            yield name, self[name]

    def _others(self) -> Mapping[str, EntryPoint]:
        return {entry.name: entry for entry in _entries(tuple(sys.path)).select(group=self.group)}

    def _load(self, entry: EntryPoint) -> T:
        try:
            return entry.load()
        except Exception as problem:  # whatever another package's import may raise
            raise UserError(
                f"The {self.noun} {entry.name!r} of {entry.value!r}{_package(entry)} cannot be imported: "
                f"{problem}. Mend or remove the package that registers it."
            ) from problem


def _package(entry: EntryPoint) -> str:
    return f" (package {entry.dist.name})" if entry.dist else ""


@cache
def _entries(path: tuple[str, ...]) -> Any:
    """The entry points of all packages, looked up once for each search path."""
    from importlib.metadata import entry_points  # it takes time, and nobody may ask

    return entry_points()
