"""The state of an optimizer in dicts that note when somebody reaches into them.

Looking at every tensor of the state before a step costs as much as the step of a small network. Whoever
replaces one, or moves its memory, gets hold of it through these dicts first.

A limit: a tensor that was taken out at some step, and is still held, is looked at in the next step and then
no more. Whoever gives it other memory later (`held.data = …`, `held.set_(…)`) must take it from the state
again, or steps go on in the memory of before, which is kept alive. Writing into it is always seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any


class Watch:
    """`touched`: whether anybody has reached into the state since this was last set to False."""

    __slots__ = ("touched",)

    def __init__(self) -> None:
        self.touched = True


class Entry(dict[str, Any]):
    """The state of one weight."""

    __slots__ = ("watch",)

    def __init__(self, watch: Watch, entries: Mapping[str, Any] | None = None) -> None:
        super().__init__(entries or {})
        self.watch = watch

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


class Entries(defaultdict[Any, Any]):
    """The state of all weights. Copies and pickles are plain dicts in a plain defaultdict, as torch's are."""

    def __init__(self, state: Mapping[Any, dict[str, Any]]) -> None:
        watch = Watch()
        super().__init__(lambda: Entry(watch), {w: Entry(watch, entry) for w, entry in state.items()})
        self.watch = watch

    def __reduce__(self) -> Any:
        return defaultdict, (dict,), None, None, iter(list(self.items()))

    def hush(self) -> None:
        """Note from now on who reaches in; a plain dict that was put in cannot be watched."""
        self.watch.touched = any(type(entry) is not Entry for entry in dict.values(self))


def _noting(method: Callable[..., Any]) -> Callable[..., Any]:
    def noted(self: Any, *arguments: Any, **named: Any) -> Any:
        self.watch.touched = True
        return method(self, *arguments, **named)

    return noted


for _kind in (Entry, Entries):
    for _name in (
        "__getitem__", "__setitem__", "__delitem__", "__ior__", "__iter__", "get", "pop", "popitem",
        "setdefault", "update", "clear", "items", "values", "copy",
    ):  # fmt: skip
        setattr(_kind, _name, _noting(getattr(_kind, _name)))
