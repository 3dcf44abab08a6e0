"""A tree of JAX arrays taken apart: its leaves, their names, and what other trees hold for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from steepest.optim.errors import UnsupportedGradient, UserError


class Leaves(NamedTuple):
    """The weights of a tree, in order."""

    form: Any
    names: list[str]
    weights: list[jax.Array]

    def of(self, tree: Any) -> list[Any]:
        """What another tree of this form holds for each weight; None where it holds nothing."""
        whole = jax.tree.broadcast(tree, self.tree(self.weights), is_leaf=_is_nothing)
        found = [None if _is_nothing(leaf) else leaf for leaf in self.form.flatten_up_to(whole)]
        if len(jax.tree.leaves(tree)) != len(jax.tree.leaves(found)):
            raise ValueError("one array would stand for several weights")
        return found

    def alike(self, what: str, tree: Any) -> list[Any]:
        """The same, of arrays that have their weights' shapes; `what` names them in the error."""
        try:
            arrays = self.of(tree)
        except ValueError as error:
            raise UserError(f"The {what} are no tree of the same form as the weights: {error}") from error
        for name, w, x in zip(self.names, self.weights, arrays, strict=True):
            if x is not None and jnp.shape(x) != w.shape:
                raise UserError(f"The {what} of {name!r} have shape {jnp.shape(x)}, and it has {w.shape}.")
            if x is not None and not _apt(x, w):
                raise UnsupportedGradient(
                    f"The {what} of {name!r} are {jnp.result_type(x)}, and it is {w.dtype}. They must be "
                    "floats, complex where the weight is."
                )
        return arrays

    def tree(self, leaves: Sequence[Any]) -> Any:
        """A tree of this form."""
        return self.form.unflatten(leaves)


def leaves_of(params: Any) -> Leaves:
    """The weights of a tree, named by the keys that lead to them, such as "dense.kernel"."""
    pairs, form = jax.tree_util.tree_flatten_with_path(params)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") or "0" for path, _ in pairs]
    return Leaves(form, names, [jnp.asarray(w) for _, w in pairs])


def _apt(x: Any, w: jax.Array) -> bool:
    """Whether an array holds floats, and complex ones only where its weight does."""
    real, complex_ = jnp.issubdtype(jnp.result_type(x), jnp.floating), jnp.iscomplexobj(x)
    return real or (complex_ and jnp.iscomplexobj(w))


def _is_nothing(leaf: Any) -> bool:
    """True of None, and of the empty tuple that optax.masked puts in the place of what it leaves out."""
    return leaf is None or (isinstance(leaf, tuple) and not leaf)
