"""Trees of arrays: a tensor, or a tuple, list or dict of trees, nested as one likes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import torch

from steepest.data.fields import Field
from steepest.data.order import parts
from steepest.optim.errors import UserError

Tree: TypeAlias = Any
"""torch.Tensor | tuple[Tree, ...] | list[Tree] | dict[str, Tree]"""


def leaves(tree: Tree) -> Iterator[Any]:
    """Every leaf, left to right."""
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if isinstance(tree, tuple | list):
        for branch in tree:
            yield from leaves(branch)
    else:
        yield tree


def apply(function: Callable[[Any], Any], tree: Tree) -> Tree:
    """The same tree with `function` of every leaf."""
    if isinstance(tree, dict):
        return {name: apply(function, branch) for name, branch in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(apply(function, branch) for branch in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(apply(function, branch) for branch in tree)
    return function(tree)


def moved(tree: Tree, device: torch.device) -> Tree:
    """The same tensors on a device, without waiting for it; as they are where it is the CPU's, which all come
    from."""
    if device.type == "cpu":
        return tree
    return apply(lambda tensor: tensor.to(device, non_blocking=True), tree)


def pair(function: Callable[[Any, Any], Any], form: Tree, data: Tree) -> Tree:
    """The tree of function(form, data), leaf by leaf; the trees must agree in names and number."""
    if isinstance(form, dict):
        if not isinstance(data, dict) or set(data) != set(form):
            raise UserError(f"These inputs must be a dict of {', '.join(form)}; got {_names(data)}.")
        return {name: pair(function, branch, data[name]) for name, branch in form.items()}
    if isinstance(form, tuple):
        if not isinstance(data, tuple | list) or len(data) != len(form):
            raise UserError(f"These inputs must be a tuple of {len(form)} arrays; got {_names(data)}.")
        return tuple(pair(function, one, other) for one, other in zip(form, data, strict=True))
    return function(form, data)


def zipped(function: Callable[..., Any], *trees: Tree) -> Tree:
    """The tree of function(leaf of the first, leaf of the second, …) over trees of one form."""
    first = trees[0]
    if isinstance(first, dict):
        return {name: zipped(function, *(tree[name] for tree in trees)) for name in first}
    if isinstance(first, tuple | list):
        return type(first)(zipped(function, *branches) for branches in zip(*trees, strict=True))
    return function(*trees)


def is_tree(data: Any) -> bool:
    """Whether every leaf is a tensor or an array (and there is one)."""
    kinds = [isinstance(leaf, torch.Tensor | np.ndarray) for leaf in leaves(data)]
    return bool(kinds) and all(kinds)


def tensor(array: Any) -> Any:
    """The array as a tensor, sharing memory where it is writable and laid out plainly; a field as it is."""
    if isinstance(array, torch.Tensor | Field):
        return array
    if array.dtype.kind not in "biufc":
        raise UserError(
            f"An array of {array.dtype} cannot become a tensor. Give numbers; text and dates come in through "
            "a DataFrame or a file, where they are encoded."
        )
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(np.require(native, requirements=["C", "W"]))


def tensors(tree: Tree) -> Tree:
    """The same tree with every array as a tensor; all must have one length."""
    tree = apply(tensor, tree)
    lengths = [len(leaf) if leaf.ndim else None for leaf in leaves(tree)]
    if len(set(lengths)) != 1 or lengths[0] is None:
        shapes = ", ".join(
            str(tuple(leaf.shape)) if hasattr(leaf, "shape") else f"({len(leaf)},)" for leaf in leaves(tree)
        )
        raise UserError(f"All arrays need the same first dimension (examples); got shapes {shapes}.")
    return tree


def count(batch: Tree) -> int:
    """Examples in a batch: the length of its first leaf."""
    return len(next(leaves(batch)))


def gather(tree: Tree, index: torch.Tensor) -> Tree:
    """The examples at these places, in fresh memory, one call a leaf."""
    return apply(
        lambda leaf: leaf.take(index) if isinstance(leaf, Field) else leaf.index_select(0, index), tree
    )


def cut(batch: Tree, size: int) -> list[Tree]:
    """The batch as parts of about `size` examples, as even as can be."""
    examples = count(batch)
    pieces = parts(examples, size)
    if pieces <= 1:
        return [batch]
    ends = [examples * i // pieces for i in range(pieces + 1)]
    return [apply(lambda leaf, a=begin, b=end: leaf[a:b], batch) for begin, end in pairwise(ends)]


def _names(data: Any) -> str:
    return ", ".join(map(str, data)) if isinstance(data, dict) else type(data).__name__
