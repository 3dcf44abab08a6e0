"""A rule over a tree of JAX arrays: state that is a tree of the same form, one step, the weights to ship."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from steepest.optim.engines import on_jax
from steepest.optim.engines.named_state import Array, Names, State, Weight, read, turned, written
from steepest.optim.engines.pure import Shared, holding
from steepest.optim.errors import UnsupportedGradient, UserError
from steepest.optim.rule import Rule


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


_LAST = jnp.iinfo(jnp.int32).max


class RuleState(NamedTuple):
    """What a rule carries from step to step: arrays alone, so that no value is built into compiled code.

    count        updates done
    hyperparams  the rule's numbers in force; writing to one changes it from the next step on
    factor       multiplies the learning rate
    shared       the rule's scalars; a tree of each, one scalar a weight, where the rule keeps them apart
    slots        by name, a tree like the weights
    lost         what rounding took from 16-bit weights, where that is kept: a tree like the weights"""

    count: jax.Array
    hyperparams: dict[str, jax.Array]
    factor: jax.Array
    shared: dict[str, Any]
    slots: dict[str, Any]
    lost: Any = None


@dataclass(frozen=True)
class OfTree:
    """A rule over trees of weights.

    turns: kernels lie as (…, in, out), and the rule, which looks at rows and columns, sees (out, in, …).
    compensated: what rounding takes from 16-bit weights is kept, and none of it is lost."""

    rule: Rule
    turns: bool = False
    compensated: bool = False

    def init(self, params: Any) -> RuleState:
        """The state before the first step."""
        leaves, rule = leaves_of(params), self.rule
        named = zip(leaves.names, leaves.weights, strict=True)
        return RuleState(
            count=jnp.zeros((), jnp.int32),
            hyperparams=on_jax.numbers_of(rule, 1),
            factor=on_jax.scalar(1.0),
            shared=self._kept(leaves, [on_jax.scalars(rule.shared) for _ in leaves.names]),
            slots=self._trees(leaves, [on_jax.start(rule, name, self._seen(w)) for name, w in named]),
            lost=self._nothing_lost(leaves),
        )

    def step(
        self, grads: Any, state: RuleState, params: Any, extra: Mapping[str, Any]
    ) -> tuple[Leaves, list[Any], RuleState]:
        """(weights, each after the step in the dtype of arithmetic or None where it stays, new state)."""
        if params is None:
            raise UserError(f"{type(self.rule).__name__} needs the weights: update(grads, state, params).")
        leaves, t = leaves_of(params), jnp.minimum(state.count, _LAST - 1) + 1
        hyper = state.hyperparams | on_jax.scheduled(self.rule, t)
        rule = holding(self.rule, hyper | {"lr": hyper["lr"] * state.factor})
        arrays = self._arrays(rule, leaves, grads, extra)
        rows, shared = self._moved(rule, t, leaves, arrays, state)
        new = [None if row is None else self._shown(row[0]) for row in rows]
        new, lost = self._rounded(leaves, new, state)
        slots = [
            old if row is None else row[1:] for row, old in zip(rows, self.slots(leaves, state), strict=True)
        ]
        kept = {"shared": self._kept(leaves, shared), "slots": self._trees(leaves, slots), "lost": lost}
        return leaves, new, state._replace(count=t, hyperparams=hyper, **kept)

    def evaluate(self, state: RuleState, params: Any) -> Any:
        """The weights to test and to ship."""
        leaves, rule = leaves_of(params), holding(self.rule, state.hyperparams)
        rows = zip(leaves.weights, self.slots(leaves, state), self.shared(leaves, state), strict=True)
        return leaves.tree([self._shipped(rule, state.count, *row) for row in rows])

    def state_by_name(self, state: RuleState, params: Any) -> dict[str, Array]:
        """A copy of the state as arrays by name."""
        leaves = leaves_of(params)
        slots = [list(map(np.asarray, own)) for own in self.slots(leaves, state)]
        shared = [{word: float(value) for word, value in own.items()} for own in self.shared(leaves, state)]
        named = dict(zip(leaves.names, slots, strict=True)), dict(zip(leaves.names, shared, strict=True))
        pairs = zip(leaves.names, self._lost(leaves, state), strict=True)
        lost = {name: np.asarray(x, np.float32) for name, x in pairs if x is not None}
        return written(self._weights(leaves), State(int(state.count), float(state.factor), *named, lost))

    def load_state_by_name(self, params: Any, arrays: Mapping[str, Any], names: Names | None) -> RuleState:
        """The state that such arrays hold; hyperparameters are the rule's."""
        leaves = leaves_of(params)
        found, new = read(arrays, self._weights(leaves), names), self.init(params)
        pairs = zip(leaves.names, self.slots(leaves, new), strict=True)
        slots = [
            [jnp.asarray(x, old.dtype) for x, old in zip(found.slots[name], own, strict=True)]
            for name, own in pairs
        ]
        return new._replace(
            count=jnp.asarray(found.count, jnp.int32),
            factor=on_jax.scalar(found.factor),
            shared=self._kept(leaves, [on_jax.scalars(found.shared[name]) for name in leaves.names]),
            slots=self._trees(leaves, slots),
            lost=self._nothing_lost(leaves, found.lost),
        )

    def _weights(self, leaves: Leaves) -> dict[str, Weight]:
        return {
            name: Weight(self.rule, self._seen(w).shape, self.turns, self._loses(w))
            for name, w in zip(leaves.names, leaves.weights, strict=True)
        }

    def slots(self, leaves: Leaves, state: RuleState) -> list[tuple[Any, ...]]:
        """The slots of each weight."""
        if set(state.slots) != set(self.rule.slots):
            raise UserError(
                f"{type(self.rule).__name__} keeps {', '.join(self.rule.slots) or 'nothing'}, and this state "
                f"is of a rule that keeps {', '.join(state.slots) or 'nothing'}. Make one by init(params)."
            )
        try:
            columns = [leaves.of(state.slots[slot]) for slot in self.rule.slots]
        except ValueError as error:
            raise UserError(
                f"The state was made for a tree of another form than the weights: {error}"
            ) from error
        return list(zip(*columns, strict=True)) if columns else [()] * len(leaves.names)

    def shared(self, leaves: Leaves, state: RuleState) -> list[Shared]:
        """The scalars of each weight; the very same for all where the rule has them in common."""
        if self.rule.scope == "model":
            return [state.shared] * len(leaves.names)
        columns = {name: leaves.of(tree) for name, tree in state.shared.items()}
        return [{name: column[i] for name, column in columns.items()} for i in range(len(leaves.names))]

    def _trees(self, leaves: Leaves, slots: Sequence[Sequence[Any]]) -> dict[str, Any]:
        return {slot: leaves.tree([own[i] for own in slots]) for i, slot in enumerate(self.rule.slots)}

    def _kept(self, leaves: Leaves, shared: Sequence[Shared]) -> dict[str, Any]:
        if self.rule.scope == "model":
            return shared[0] if shared else on_jax.scalars(self.rule.shared)
        return {name: leaves.tree([own[name] for own in shared]) for name in self.rule.shared}

    def _arrays(self, rule: Rule, leaves: Leaves, grads: Any, extra: Mapping[str, Any]) -> list[list[Any]]:
        """The gradients and what else the rule reads, each by weight."""
        gradients = leaves.alike("gradients", grads)
        if rule.perturb is not None:
            up = on_jax.uphill(rule, leaves.weights, gradients)
            gradients = leaves.alike("gradients", _extra(rule, extra, "gradient")(leaves.tree(up)))
        return [gradients, *(leaves.alike(name, _extra(rule, extra, name)) for name in rule.extra_inputs)]

    def _moved(
        self, rule: Rule, t: Any, leaves: Leaves, arrays: list[list[Any]], state: RuleState
    ) -> tuple[list[Any], list[Shared]]:
        """Rows (w, *slots) and shared scalars after the step; None for a weight without gradient."""
        slots, shared = self.slots(leaves, state), self.shared(leaves, state)
        live = [i for i, gradient in enumerate(arrays[0]) if gradient is not None]
        exact = [on_jax.exact(w, x) for w, x in zip(leaves.weights, self._lost(leaves, state), strict=True)]
        given = [[*map(self._seen, (exact[i], *(x[i] for x in arrays))), *slots[i]] for i in live]
        rows: list[Any] = [None] * len(slots)
        if live:
            moved, following = on_jax.step(rule, t, given, [shared[i] for i in live])
            shared = following[:1] * len(slots) if rule.scope == "model" else shared
            for i, row, own in zip(live, moved, following, strict=True):
                rows[i], shared[i] = row, own
        return rows, shared

    def _rounded(self, leaves: Leaves, new: Sequence[Any], state: RuleState) -> tuple[list[Any], Any]:
        """The new weights as their dtypes hold them, where what is lost is kept; and that."""
        if not self.compensated:
            return list(new), None
        columns = zip(leaves.weights, new, self._lost(leaves, state), strict=True)
        rows = [(x, old) if x is None or old is None else on_jax.rounded(x, w) for w, x, old in columns]
        return [x for x, _ in rows], leaves.tree([lost for _, lost in rows])

    def _loses(self, w: Any) -> bool:
        return self.compensated and w.dtype in (jnp.bfloat16, jnp.float16)

    def _lost(self, leaves: Leaves, state: RuleState) -> list[Any]:
        return leaves.of(state.lost) if self.compensated else [None] * len(leaves.names)

    def _nothing_lost(self, leaves: Leaves, found: Mapping[str, Any] | None = None) -> Any:
        """What is lost before the first step, or what was found to be."""
        if not self.compensated:
            return None
        pairs, found = zip(leaves.names, leaves.weights, strict=True), found or {}
        zeros = [(name, jnp.zeros_like(w) if self._loses(w) else None) for name, w in pairs]
        return leaves.tree([x if x is None else jnp.asarray(found.get(n, x), x.dtype) for n, x in zeros])

    def _shipped(self, rule: Rule, t: Any, w: Any, slots: tuple[Any, ...], shared: Shared) -> Any:
        if any(slot is None for slot in slots):
            return w
        return on_jax.narrow(self._shown(on_jax.shipped(rule, t, self._seen(w), slots, shared)), w)

    def _seen(self, x: Any) -> Any:
        return turned(x) if self.turns else x

    def _shown(self, x: Any) -> Any:
        return turned(x, back=True) if self.turns else x


def _extra(rule: Rule, extra: Mapping[str, Any], name: str) -> Any:
    if name not in extra:
        what = "a function of the weights" if name == "gradient" else "a tree like the weights"
        raise UserError(
            f"{type(rule).__name__} needs {name!r}, {what}: update(grads, state, params, {name}=…)."
        )
    return extra[name]
