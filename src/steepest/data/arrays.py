"""From arrays in memory to a `Source`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from steepest.data.source import Source, fingerprint
from steepest.data.tree import Tree, apply, leaves
from steepest.data.view import Rows
from steepest.optim.errors import UserError

LABELS = ("y", "target", "targets", "label", "labels")
"""Names under which an .npz keeps what is to be predicted."""


def source(
    inputs: Any, target: Any, weight: Any = None, name: str = "arrays", named: str = "target"
) -> Source:
    """Inputs (an array, or a dict or tuple of arrays) and a target as a Source."""
    tree = inputs_of(inputs)
    answers = answers_of(target, named)
    weight = None if weight is None else numbers(weight, "sample_weight").astype(np.float64)
    _one_length(tree, answers, weight)
    return Source(
        view=Rows(len(answers)),
        name=name,
        inputs=tree,
        target=answers,
        targets=target_names(answers, named),
        weight=weight,
        labelled=is_pictures(tree),
        fingerprint=fingerprint(tree, answers, weight),
    )


def from_named(arrays: dict[str, np.ndarray], target: str | None, name: str) -> Source:
    """The arrays of an .npz: one is the target, the others are inputs."""
    label = target or next((known for known in LABELS if known in arrays), None)
    if label not in arrays:
        raise UserError(
            f"{name} holds no {label or 'y'!r}: its arrays are {', '.join(arrays)}. Name one as target=."
        )
    inputs = {key: array for key, array in arrays.items() if key != label}
    if not inputs:
        raise UserError(
            f"{name} holds {label!r} alone. Save the inputs beside it: numpy.savez(path, X=X, y=y)."
        )
    return source(_single(inputs), arrays[label], name=name, named=label)


def without_label(arrays: dict[str, np.ndarray]) -> Any:
    """The inputs among the arrays of an .npz that is to be predicted for."""
    return _single({name: array for name, array in arrays.items() if name not in LABELS})


def _single(inputs: dict[str, np.ndarray]) -> Any:
    return next(iter(inputs.values())) if len(inputs) == 1 else inputs


def inputs_of(inputs: Any) -> Tree:
    """Inputs as a NumPy array with at least two dimensions, pictures as (n, channels, height, width);
    a dict or a tuple of inputs keeps its form."""
    if isinstance(inputs, dict | tuple):
        return apply(lambda leaf: numbers(leaf, "an input"), inputs)
    array = numbers(inputs, "X")
    if array.ndim == 3 and array.dtype == np.uint8:
        return array[:, None]
    if array.ndim == 4 and array.shape[1] > 4 >= array.shape[3]:
        return np.ascontiguousarray(np.moveaxis(array, 3, 1))
    return array[:, None] if array.ndim == 1 else array


def answers_of(target: Any, name: str) -> np.ndarray:
    """A target as (n,), (n, targets), or whole numbers at positions: (n, t), (n, h, w)."""
    array = numpy(target)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2) and (array.ndim == 0 or array.dtype.kind not in "iub"):
        raise UserError(
            f"{name} must have shape (n,) or (n, targets), or hold whole numbers at positions, (n, height, "
            f"width); got {array.dtype} of shape {array.shape}."
        )
    if array.dtype.kind in "cV" or (array.dtype == object and any(np.ndim(entry) for entry in array.flat)):
        raise UserError(
            f"{name} must hold one number or label an entry, got {array.dtype}: {array.flat[0]!r}."
        )
    return array


def target_names(target: np.ndarray, name: str = "target") -> tuple[str, ...]:
    """The name of a target, or a name for each of several."""
    return tuple(f"{name}{i}" for i in range(target.shape[1])) if target.ndim == 2 else (name,)


def numbers(data: Any, name: str) -> np.ndarray:
    """An array of numbers; text and rows of different size are refused."""
    array = numpy(data)
    if array.dtype.kind in "biuf" and array.ndim:
        if 0 in array.shape[1:]:
            raise UserError(f"{name} has shape {array.shape}: there is no number to learn from.")
        return array
    if array.dtype.kind == "O" and len({np.shape(entry) for entry in array.flat}) > 1:
        raise UserError(_mixed(array, name))
    got = f"text such as {str(array.flat[0])!r}" if array.dtype.kind in "US" else str(array.dtype)
    raise UserError(
        f"{name} must hold numbers, got {got}. Give a DataFrame, where text is encoded, or numbers."
    )


def numpy(data: Any) -> np.ndarray:
    """Any array-like as a NumPy array, without copying where that can be."""
    if hasattr(data, "toarray"):
        raise UserError("A sparse matrix cannot be trained on directly. Give X.toarray(), or fewer columns.")
    if isinstance(data, torch.Tensor):
        return data.detach().cpu().numpy()
    if hasattr(data, "to_numpy"):
        return data.to_numpy()
    if isinstance(data, list) and len({np.shape(entry) for entry in data}) > 1:
        array = np.empty(len(data), dtype=object)
        array[:] = [np.asarray(entry) for entry in data]
        return array
    return np.asarray(data)


def is_pictures(tree: Tree) -> bool:
    """Whether the inputs are one array (n, channels, height, width) with 1 to 4 channels."""
    return isinstance(tree, np.ndarray) and tree.ndim == 4 and tree.shape[1] <= 4


def _mixed(array: np.ndarray, name: str) -> str:
    shapes = sorted({str(np.shape(entry)) for entry in array.flat})
    shown = ", ".join(shapes[:3]) + (", …" if len(shapes) > 3 else "")
    return (
        f"{name} holds entries of {len(shapes)} different sizes ({shown}). Pictures and rows of one data set "
        "must "
        "have one size: resize, crop or pad them first."
    )


def _one_length(tree: Tree, answers: np.ndarray, weight: np.ndarray | None) -> None:
    lengths = (
        [len(leaf) for leaf in leaves(tree)] + [len(answers)] + ([] if weight is None else [len(weight)])
    )
    if len(set(lengths)) > 1:
        raise UserError(
            f"Inputs, target and weights must have one entry an example each; got lengths {lengths}."
        )
    if not lengths[0]:
        raise UserError("There are no examples: the arrays have length 0.")
