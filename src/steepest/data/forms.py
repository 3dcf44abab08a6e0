"""A tree of forms as plain JSON, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from steepest.data.columns import Columns
from steepest.data.scaling import Scaling
from steepest.data.tree import Tree


def to_plain(form: Tree) -> Any:
    """A tree of forms or shapes as JSON's own types, each under the name of its kind."""
    if isinstance(form, dict):
        return {"dict": {name: to_plain(branch) for name, branch in form.items()}}
    if isinstance(form, tuple) and not all(isinstance(part, int) for part in form):
        return {"tuple": [to_plain(branch) for branch in form]}
    if isinstance(form, Scaling):
        return {"scaling": asdict(form)}
    if isinstance(form, Columns):
        return {"columns": asdict(form)}
    return {"shape": list(form)} if isinstance(form, tuple) else {"kept": None}


def from_plain(plain: Any) -> Tree:
    """The tree that `to_plain` took apart."""
    ((kind, content),) = plain.items()
    readers: dict[str, Callable[[Any], Any]] = {
        "dict": lambda parts: {name: from_plain(part) for name, part in parts.items()},
        "tuple": lambda parts: tuple(from_plain(part) for part in parts),
        "scaling": _scaling,
        "columns": _columns,
        "shape": tuple,
        "kept": lambda _: None,
    }
    return readers[kind](content)


def _scaling(content: dict[str, Any]) -> Scaling:
    fill = content["fill"]
    return Scaling(None if fill is None else tuple(fill), tuple(content["shift"]), tuple(content["scale"]))


def _columns(content: dict[str, Any]) -> Columns:
    return Columns(
        numbers=tuple(content["numbers"]),
        scaling=_scaling(content["scaling"]),
        categories={name: tuple(values) for name, values in content["categories"].items()},
        left_out=tuple(content["left_out"]),
    )
