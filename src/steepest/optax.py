"""The face for JAX: a rule as an optax gradient transformation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from steepest.optim import rules
from steepest.optim.errors import MissingExtra, UserError, did_you_mean
from steepest.optim.rule import Rule

try:
    import jax
    import optax
except ImportError as error:
    raise MissingExtra(
        "steepest.optax needs JAX and optax, which are not installed: pip install 'steepest[jax]'"
    ) from error

from steepest.optim.engines.jax.of_tree import OfTree, RuleState
from steepest.optim.engines.named_state import Array, Names
from steepest.optim.engines.on_jax import narrow, scalars, wide

__all__ = ["RuleState", "Transformation", "evaluate", "transformation"]


class Transformation(optax.GradientTransformationExtraArgs):
    """A rule as an optax gradient transformation; `transformation` makes it."""

    rule: Rule
    engine: OfTree

    def __new__(cls, engine: OfTree) -> Transformation:
        """From the engine that runs the rule."""
        made = super().__new__(cls, engine.init, partial(_update, engine))
        made.rule, made.engine = engine.rule, engine
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (self.engine,)

    def apply(self, state: RuleState, params: Any, grads: Any, **extra: Any) -> tuple[Any, RuleState]:
        """(weights, state) after a step. `update` gives differences, which adding them rounds once more."""
        leaves, new, state = self.engine.step(grads, state, params, extra)
        pairs = zip(new, leaves.weights, strict=True)
        return leaves.tree([w if x is None else narrow(x, w) for x, w in pairs]), state

    def evaluate(self, state: Any, params: Any) -> Any:
        """The weights to test and to ship, where the rule trains others (schedule-free, averages)."""
        return self.engine.evaluate(_found(self.rule, state), params)

    def state_by_name(self, state: Any, params: Any) -> dict[str, Array]:
        """A copy of the state as arrays: "<weight>/<slot>", "<weight>/step", …, and "steps" and "factor"."""
        return self.engine.state_by_name(_found(self.rule, state), params)

    def load_state_by_name(
        self, params: Any, arrays: Mapping[str, Any], names: Names | None = None
    ) -> RuleState:
        """The state that `state_by_name` gave, here or elsewhere; a UserError lists what does not fit.

        names: {their name of a weight: (our name, "same", "transpose" or "conv")}; none where names agree."""
        return self.engine.load_state_by_name(params, arrays, names)

    def with_hyperparams(self, state: Any, **numbers: float) -> Any:
        """A state with other hyperparameters from the next step on; nothing is compiled anew.

        state: that of this rule, alone or within that of a chain."""
        for name in numbers:
            if name not in self.rule.numbers():
                kind, hint = type(self.rule).__name__, did_you_mean(name, self.rule.numbers())
                raise UserError(f"{kind} has no number {name!r}.{hint}")
            if callable(getattr(self.rule, name)):
                raise UserError(f"{name} follows {getattr(self.rule, name)!r}, which would overwrite it.")
        checked = replace(self.rule, **numbers)
        new = scalars({name: getattr(checked, name) for name in numbers})
        _found(self.rule, state)
        return _mapped(state, lambda own: own._replace(hyperparams=own.hyperparams | new))


def transformation(
    rule: Rule | str,
    *,
    kernels: Literal["in_out", "out_in"] = "in_out",
    rounding: Literal["nearest", "compensated"] = "nearest",
) -> Transformation:
    """The rule as an optax.GradientTransformationExtraArgs.

    tx = transformation(rules.AdamW(lr=3e-4))
    state = tx.init(params)
    updates, state = tx.update(grads, state, params)      # needs the weights
    params = optax.apply_updates(params, updates)

    It stands in optax.chain, masked, partition, MultiSteps, apply_if_finite and the like; jits, shards and
    donates. Hyperparameters are arrays in the state, as optax.inject_hyperparams would make them, which is
    not for rules: `with_hyperparams` (or optax.tree.set) changes them and nothing is compiled anew;
    optax.tree.get reads the rate in force. Schedules are read at the updates done
    plus one; a curve of steepest.schedule, or any function that jax can trace. There is one count of updates
    for all weights: one whose gradient is None stays where it is, and its debiasing goes on.

    16-bit weights are computed in float32 and keep float32 state. A complex weight is a pair of real ones
    (its gradient must point uphill: the conjugate of what jax.grad gives). What a rule reads (curvature d;
    p, the gradient of the same batch at the weights of before) and the gradient function that SAM calls are
    given by name: update(grads, state, params, d=…, gradient=…).

    kernels: how a kernel's axes lie, for rules that look at rows and columns: (…, in, out) as in flax, haiku
    and Keras, or (out, in, …) as in equinox and torch.
    rounding: of 16-bit weights. "compensated" keeps what rounding takes away (2 bytes a weight), so that
    steps smaller than a rounding add up; it needs `apply`: differences are rounded before they are added.
    State: the rule's, in float32 or wider, and one scalar a hyperparameter."""
    rule = rules.chosen(rule)
    if kernels not in ("in_out", "out_in"):
        raise UserError(f"kernels must be 'in_out' or 'out_in', got {kernels!r}.")
    if rounding not in ("nearest", "compensated"):
        raise UserError(f"rounding must be 'nearest' or 'compensated', got {rounding!r}.")
    return Transformation(OfTree(rule, rule.whole and kernels == "in_out", rounding == "compensated"))


def evaluate(rule: Rule | Transformation, state: Any, params: Any) -> Any:
    """The weights to test and to ship, from the rule's state, alone or within that of a chain."""
    made = rule if isinstance(rule, Transformation) else transformation(rule)
    return made.evaluate(state, params)


def _update(engine: OfTree, updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
    if engine.compensated:
        raise UserError(
            "rounding='compensated' writes weights: params, state = tx.apply(state, params, grads). "
            "Differences would be rounded before they are added."
        )
    leaves, new, state = engine.step(updates, state, params, extra)
    return leaves.tree([_difference(x, w) for x, w in zip(new, leaves.weights, strict=True)]), state


def _difference(new: Any, w: jax.Array) -> jax.Array:
    return jax.numpy.zeros_like(w) if new is None else narrow(new - wide(w), w)


def _found(rule: Rule, state: Any) -> RuleState:
    """The one state of a rule within that of a chain, mask, or accumulation."""
    found = [leaf for leaf in jax.tree.leaves(state, is_leaf=_is_rules) if _is_rules(leaf)]
    if len(found) != 1 or found[0].slots.keys() != set(rule.slots):
        raise UserError(
            f"The state holds {len(found)} states of rules, and one of {type(rule).__name__} is wanted. "
            f"Pass that part of the state."
        )
    return found[0]


def _mapped(state: Any, change: Callable[[RuleState], RuleState]) -> Any:
    return jax.tree.map(lambda leaf: change(leaf) if _is_rules(leaf) else leaf, state, is_leaf=_is_rules)


def _is_rules(leaf: Any) -> bool:
    return isinstance(leaf, RuleState)
