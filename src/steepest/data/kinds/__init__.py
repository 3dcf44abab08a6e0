"""Kinds of data: all there is to know of a kind of field, each in a file of its own, found by name.

Another package brings one under the entry point group "steepest.kinds": a module or object with the functions
of `Kind`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steepest.data.kinds.encoder import Encoder, Kind, Settings
from steepest.data.source import Source
from steepest.optim.errors import UserError
from steepest.optim.registry import Registry

__all__ = ["KINDS", "Encoder", "Kind", "Settings", "fit", "opened", "recognised", "restore"]

KINDS: Registry[Any] = Registry(
    "kind of data",
    "steepest.kinds",
    {
        name: f"steepest.data.kinds.{name}"
        for name in ("table", "flag", "date", "number", "category", "integers", "picture", "array")
    },
)
"""A field is of the first kind that recognises it, those of other packages before the house's."""


def recognised(field: Any, name: str, settings: Settings) -> tuple[str, Any]:
    """(name, kind) of a field: the one that kind_args asks for, else the first that recognises it."""
    asked = settings.args.get(name, {}).get("kind")
    if asked is not None:
        return asked, KINDS[asked]
    for kind, one in KINDS.items():
        if one.recognise(field, settings) is not None:
            return kind, one
    held = f"{getattr(field, 'dtype', type(field).__name__)} {getattr(field, 'shape', '')}".strip()
    raise UserError(
        f"Input {name!r} ({held}) is of no known kind of data: "
        f"{', '.join(KINDS.names())}. Name one: kind_args={{{name!r}: {{'kind': …}}}}."
    )


def opened(data: Any, target: Any = None) -> Source | None:
    """Data of a form that a kind of its own reads; None where none does."""
    for _, kind in KINDS.items():
        if hasattr(kind, "open") and (source := kind.open(data, target)) is not None:
            return source
    return None


def fit(field: Any, name: str, settings: Settings) -> Encoder:
    """The encoder of an array, by its training examples."""
    _, kind = recognised(field, name, settings)
    return kind.fit(field, name, settings)


def restore(config: Mapping[str, Any]) -> Encoder:
    """The encoder that `{"kind": name, …}` describes."""
    return KINDS[config["kind"]].restore(config)
