"""`read`: data in any of the forms that people have them in, as one `Source`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from steepest.data import arrays, bundled, files, kinds, objects, tables
from steepest.data.batches import in_memory, is_stream
from steepest.data.source import Source, fingerprint
from steepest.data.tables import Roles, names
from steepest.data.tree import apply
from steepest.optim.errors import UserError, did_you_mean


def read(
    data: Any,
    target: str | Sequence[str] | None = None,
    *,
    features: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    sample_weight: Any = None,
    split_by: Any = None,
) -> Source:
    """Data as a Source.

    data           "digits", "iris", "wine", "breast_cancer", "diabetes"; a path (.csv .tsv .parquet
                   .json .jsonl .npz); (X, y) or (X, y, weight), X an array, a frame, or a dict or tuple of
                   arrays; a pandas or polars frame; a torch Dataset; a DataLoader or iterable of batches
    target         column or columns to predict; the array's name in an .npz
    features       columns to predict from (default: all that are left); drop: columns to leave out
    sample_weight  a column, or an array with one weight an example
    split_by       a column, or an array, that decides the split: a group or a time; not an input
    """
    named = {"sample_weight": sample_weight, "split_by": split_by}
    roles = Roles(
        target=names(target),
        features=None if features is None else names(features),
        drop=names(drop),
        **{role: value for role, value in named.items() if isinstance(value, str)},
    )
    beside = {
        role: arrays.numpy(value)
        for role, value in named.items()
        if value is not None and not isinstance(value, str)
    }
    if (own := kinds.opened(data, target)) is not None:
        return _checked_weight(_with_arrays(own, **beside))
    loaded, name, roles = _loaded(data, roles)
    frame, answers = _frame(loaded)
    if frame is not None:
        source = tables.source(*tables.joined(frame, roles, answers | beside), name=name)
    else:
        source = _with_arrays(_arrays_or_object(loaded, name, roles), **beside)
    return _checked_weight(source)


def inputs(data: Any) -> Any:
    """Inputs alone, to predict for: a frame, or an array or tree of arrays."""
    if (own := kinds.opened(data)) is not None:
        return own.inputs
    loaded, _, _ = _loaded(data, Roles())
    frame = tables.frame_of(loaded)
    if frame is not None:
        return frame
    if isinstance(data, str | Path):
        loaded = loaded[0] if isinstance(loaded, tuple) else arrays.without_label(loaded)
    return arrays.inputs_of(loaded)


def _loaded(data: Any, roles: Roles) -> tuple[Any, str, Roles]:
    """What a name or a path stands for; anything else as it is."""
    if not isinstance(data, str | Path):
        return data, type(data).__name__, roles
    if str(data) in bundled.TARGETS:
        usual, loaded = (bundled.TARGETS[str(data)],), bundled.load(str(data))
        if isinstance(loaded, tuple) and [*(roles.target or usual)] != [*usual]:
            raise UserError(f"{str(data)!r} has no columns to choose from: its target is {usual[0]!r}.")
        return loaded, str(data), replace(roles, target=roles.target or usual)
    path = Path(data).expanduser()
    if not path.suffix and not path.exists():
        raise UserError(
            f"There is no data set or file {str(data)!r}.{did_you_mean(str(data), bundled.TARGETS)}"
        )
    return files.read(path), path.name, roles


def _frame(data: Any) -> tuple[pl.DataFrame | None, dict[str, Any]]:
    """(frame, what stands beside it by role) where the inputs are a frame; else (None, {})."""
    if not isinstance(data, tuple) or len(data) not in (2, 3):
        return tables.frame_of(data), {}
    frame = tables.frame_of(data[0])
    return frame, {} if frame is None else dict(zip(("target", "sample_weight"), data[1:], strict=False))


def _arrays_or_object(data: Any, name: str, roles: Roles) -> Source:
    _no_columns(roles)
    target = roles.target[0] if roles.target else None
    if isinstance(data, dict):
        return arrays.from_named({key: arrays.numpy(value) for key, value in data.items()}, target, name)
    if is_stream(data):
        return objects.stream(data)
    if isinstance(data, tuple) and len(data) in (2, 3):
        return arrays.source(*data, name="arrays" if name == "tuple" else name, named=target or "target")
    return _dataset(data)


def _dataset(data: Any) -> Source:
    """A torch Dataset: its arrays where it is made of them, else the object itself."""
    plain = isinstance(data, tuple | list | np.ndarray) or hasattr(data, "to_numpy")
    held = None if plain else in_memory(data)
    if isinstance(held, tuple) and len(held) in (2, 3):
        return arrays.source(*apply(arrays.numpy, held), name=type(data).__name__)
    if not plain and hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return objects.dataset(data)
    raise UserError(
        f"Cannot tell what to predict from {type(data).__name__}. Give (X, y), a frame or file with target=, "
        "a torch Dataset of (input, target), or a DataLoader."
    )


def _with_arrays(source: Source, sample_weight: Any = None, split_by: Any = None) -> Source:
    """The source with weights and groups that were given as arrays, one entry an example."""
    if sample_weight is not None and not source.view.held:
        raise UserError(
            f"sample_weight cannot be joined to a {source.view.word}. Let it hand out (input, target, "
            "weight)."
        )
    given = {"weight": sample_weight, "groups": split_by}
    given = {field: array for field, array in given.items() if array is not None}
    for field, array in given.items():
        if array.shape != (source.examples,):
            raise UserError(
                f"{field} must have shape ({source.examples},), one entry an example; got {array.shape}."
            )
    if not given:
        return source
    return replace(source, **given, fingerprint=fingerprint(source.fingerprint, *given.values()))


def _checked_weight(source: Source) -> Source:
    """Weights must be numbers ≥ 0, and not all 0."""
    if source.weight is None:
        return source
    weight = arrays.numbers(source.weight, "sample_weight").astype(np.float64)
    if not np.isfinite(weight).all() or (weight < 0).any() or not weight.any():
        worst = weight[~(np.isfinite(weight) & (weight >= 0))]
        got = f"{worst[0]} among them" if len(worst) else "only zeros"
        raise UserError(f"Sample weights must be finite, at least 0 and not all 0; got {got}.")
    return replace(source, weight=weight)


def _no_columns(roles: Roles) -> None:
    for setting in ("features", "drop", "sample_weight", "split_by"):
        if getattr(roles, setting):
            raise UserError(
                f"{setting}={getattr(roles, setting)!r} names columns, but the data are arrays without "
                "names. "
                "Give a DataFrame or a file."
            )
