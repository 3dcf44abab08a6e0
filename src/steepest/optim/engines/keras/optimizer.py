"""`RuleOptimizer`: a rule as a keras.optimizers.Optimizer, its state by name, its configuration as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import chain
from typing import Any, Literal

import keras
import numpy as np

from steepest.optim import rules, schedule
from steepest.optim.engines.keras.part import Part, assigned, step
from steepest.optim.engines.named_state import Array, Names, State, Weight, read, written
from steepest.optim.engines.on_keras import as_it_is, ops, vocabulary
from steepest.optim.engines.pure import form
from steepest.optim.errors import UnsupportedGradient, UserError, did_you_mean
from steepest.optim.groups import checked_factors, no_decay
from steepest.optim.rule import QUANTITIES, Rule
from steepest.optim.schedule import Schedule, valued


def refuse(gradient: Any, w: Any) -> None:
    """UserError where a gradient is not one of this variable; it may be a symbol in compiled code."""
    dtype = keras.backend.standardize_dtype(gradient.dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise UnsupportedGradient(
            f"The variable {w.path!r} has a gradient in {dtype}. Gradients are real floats."
        )
    if keras.backend.backend() == "torch":
        _refuse_tensor(gradient, w)
    given = tuple(gradient.shape)
    if None not in given and given != tuple(w.shape):
        raise UserError(f"A gradient of shape {given} was given for {w.path!r} of shape {tuple(w.shape)}.")


def _refuse_tensor(gradient: Any, w: Any) -> None:
    if gradient.is_sparse:
        raise UnsupportedGradient(f"The gradient of {w.path!r} is sparse: make it dense, by to_dense().")
    if gradient.device != w.value.device:
        raise UserError(f"{w.path!r} lies on {w.value.device}, its gradient on {gradient.device}.")


def collect(optimizer: Any) -> dict[str, Array]:
    """A copy of every slot, counter and shared scalar."""
    slots, shared, lost = {}, {}, {}
    for part, number, name in _all(optimizer):
        slots[name] = [np.array(ops.convert_to_numpy(slot)) for slot in part.slots[number]]
        shared[name] = {word: float(value) for word, value in part.scalars()[number].items()}
        if number in part.lost:
            lost[name] = np.asarray(ops.convert_to_numpy(part.lost[number]), np.float32)
    state = State(int(optimizer.iterations), float(optimizer.factor), slots, shared, lost)
    return written(_weights(optimizer), state)


def restore(optimizer: Any, arrays: Mapping[str, Any], names: Names | None) -> None:
    """Take over arrays by name; a UserError lists whatever does not fit, and nothing is loaded."""
    state = read(arrays, _weights(optimizer), names)
    for part, number, name in _all(optimizer):
        for variable, array in zip(part.slots[number], state.slots[name], strict=True):
            variable.assign(array)
        if number in part.lost:
            nothing = np.zeros(tuple(part.lost[number].shape), np.float32)
            part.lost[number].assign(state.lost.get(name, nothing))
    own = {number: state.shared[name] for _, number, name in _all(optimizer)}
    for part in optimizer.parts():
        part.share(own, lambda variable, value: variable.assign(value))
    optimizer.factor.assign(state.factor)
    optimizer._iterations.assign(state.count * (optimizer.gradient_accumulation_steps or 1))


def _weights(optimizer: Any) -> dict[str, Weight]:
    return {
        name: Weight(part.rule, part.seen_shape(part.weights[number]), part.rule.whole, number in part.lost)
        for part, number, name in _all(optimizer)
    }


def _all(optimizer: Any) -> Iterator[tuple[Part, int, str]]:
    if not optimizer.built:
        raise UserError(
            "The optimizer has no state yet. Call optimizer.build(model.trainable_variables) first."
        )
    for part in optimizer.parts():
        for number, w in part.weights.items():
            yield part, number, w.path


@keras.saving.register_keras_serializable(package="steepest")
class Curve(keras.optimizers.schedules.LearningRateSchedule):
    """A steepest schedule as one of Keras: read at the updates done plus one.

    every: batches an update, where the optimizer accumulates gradients."""

    def __init__(self, curve: Any, every: int = 1) -> None:
        self.curve, self.every = curve, every

    def __call__(self, step: Any) -> Any:
        """The value after so many batches."""
        done = ops.floor_divide(step, self.every)
        value = valued(self.curve, vocabulary("float32"), ops.cast(done, "float32") + 1)
        return ops.convert_to_tensor(value, "float32")

    def get_config(self) -> dict[str, Any]:
        """The curve as data; a UserError where it is a function of the user's."""
        return {"curve": curve_data(self.curve), "every": self.every}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Curve:
        """The curve that `get_config` wrote down."""
        return cls(curve_of(config["curve"]), config["every"])


@keras.saving.register_keras_serializable(package="steepest")
class RuleOptimizer(keras.optimizers.Optimizer):
    """Moves variables by a rule; `steepest.keras.optimizer` makes it and says what its arguments mean."""

    def __init__(
        self,
        rule: Rule | str,
        groups: Mapping[str, Rule | str] | None = None,
        *,
        rest: Rule | str | None = None,
        decay_all: bool = False,
        lr_scale: Mapping[str, float] | None = None,
        rounding: Literal["compensated", "nearest"] = "compensated",
        learning_rate: Any = None,
        **options: Any,
    ) -> None:
        rule = rules.chosen(rule)
        _refuse(options, rounding, [rule, *map(rules.chosen, filter(None, (rest, *(groups or {}).values())))])
        every = options.get("gradient_accumulation_steps") or 1
        super().__init__(learning_rate=_rate(learning_rate, rule, every), **options)
        self.rule, self.rest = rule, None if rest is None else rules.chosen(rest)
        self.groups = {pattern: rules.chosen(one) for pattern, one in (groups or {}).items()}
        self.decay_all, self.lr_scale, self.rounding = decay_all, checked_factors(lr_scale), rounding
        self.factor = self.add_variable((), "ones", dtype="float32", name="factor")
        self._families: list[list[Part]] = []
        self.evaluating = False

    def build(self, variables: Sequence[Any]) -> None:
        """Make the variables of state for these weights."""
        if self.built:
            return
        super().build(variables)
        weights = {i: w for i, w in enumerate(variables) if not self._overwrite_variable_with_gradient(w)}
        rounds = self.rounding == "compensated"
        parts = assigned(weights, *self._rules(), self.lr_scale, self._decays, rounds)
        for part in parts:
            part.build(self.add_variable)
        forms = dict.fromkeys(form(part.rule) for part in parts)
        self._families = [[part for part in parts if form(part.rule) == one] for one in forms]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Move one variable, by a rule that looks at no other."""
        if any(part.rule.sums or part.rule.shared for part in self.parts()):
            raise UserError(
                f"{type(self.rule).__name__} looks at all weights at once, and here they are updated one by "
                f"one. Train without tf.distribute, or by another rule."
            )
        self._move({self._get_variable_index(variable): gradient}, learning_rate)

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        """Move the whole list at once, so that a rule may look at all of it."""
        if _spread():
            super()._backend_update_step(grads, trainable_variables, learning_rate)
        else:
            numbers = map(self._get_variable_index, trainable_variables)
            self._move(dict(zip(numbers, grads, strict=True)), learning_rate)

    @as_it_is
    def _move(self, gradients: dict[int, Any], learning_rate: Any) -> None:
        for number, gradient in gradients.items():
            refuse(gradient, self._trainable_variables[number])
        for parts in self._families:
            if any(number in gradients for part in parts for number in part.weights):
                step(parts, gradients, learning_rate, self.factor, self.iterations, self.assign)

    def parts(self) -> Iterator[Part]:
        """Weights with the rules that move them."""
        return chain.from_iterable(self._families)

    def state_by_name(self) -> dict[str, Array]:
        """A copy of all state as arrays: "<path>/<slot>", "<path>/step", …, and "steps" and "factor"."""
        return collect(self)

    def load_state_by_name(self, arrays: Mapping[str, Any], names: Names | None = None) -> None:
        """Take over what `state_by_name` gave, here or elsewhere; a UserError lists what does not fit.

        names: {their name of a weight: (our path, "same", "transpose" or "conv")}; none where names agree."""
        restore(self, arrays, names)

    @as_it_is
    def shipped(self) -> list[Any]:
        """The weights to test and to ship, in the order in which the optimizer was built with them."""
        pairs = [(part, number) for part in self.parts() for number in part.weights]
        found = {number: part.shipped(number, self.iterations) for part, number in pairs}
        return [found.get(number, w) for number, w in enumerate(self._trainable_variables)]

    @contextmanager
    def evaluate(self) -> Iterator[None]:
        """Within it the model has the weights to test and to ship, where the rule trains others.

        with optimizer.evaluate():
            model.evaluate(x, y)
            model.save("best.keras")

        One such block in another changes nothing."""
        if self.evaluating:
            yield
            return
        self.evaluating = True
        trained = [ops.convert_to_numpy(w) for w in self._trainable_variables]
        try:
            for w, shipped in zip(self._trainable_variables, self.shipped(), strict=True):
                w.assign(ops.cast(shipped, w.dtype))
            yield
        finally:
            self.evaluating = False
            for w, value in zip(self._trainable_variables, trained, strict=True):
                w.assign(value)

    def get_config(self) -> dict[str, Any]:
        """Rules, numbers and curves as data."""
        config = super().get_config()
        del config["weight_decay"]
        return config | {
            "rule": rule_data(_at_first(self.rule)),
            "groups": {pattern: rule_data(rule) for pattern, rule in self.groups.items()},
            "rest": None if self.rest is None else rule_data(self.rest),
            "decay_all": self.decay_all,
            "lr_scale": dict(self.lr_scale),
            "rounding": self.rounding,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> RuleOptimizer:
        """The optimizer that `get_config` wrote down, without its state."""
        read: dict[str, Any] = {"rule": rule_of(config["rule"])}
        read["groups"] = {pattern: rule_of(data) for pattern, data in config["groups"].items()}
        read["rest"] = None if config["rest"] is None else rule_of(config["rest"])
        return super().from_config(config | read, custom_objects)

    def _rules(self) -> tuple[Rule, Rule | None, dict[str, Rule]]:
        """What moves which weights, without a schedule where Keras keeps the rate."""
        return _at_first(self.rule), self.rest, dict(self.groups)

    def _decays(self, w: Any) -> bool:
        return self._use_weight_decay(w) and (self.decay_all or not no_decay(w.name, w.shape, ""))


def _rate(learning_rate: Any, rule: Rule, every: int) -> Any:
    """What Keras takes for a learning rate: a number, a schedule of its own, a function without arguments."""
    rate = rule.lr if learning_rate is None else learning_rate
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return rate
    if isinstance(rate, Schedule) or (callable(rate) and learning_rate is None):
        return Curve(rate, every)
    return rate if callable(rate) else QUANTITIES["lr"].number("learning_rate", rate)


def _refuse(options: Mapping[str, Any], rounding: str, every: Sequence[Rule]) -> None:
    if options.get("weight_decay") is not None:
        raise UserError("weight_decay is the rule's own: write AdamW(weight_decay=…) in its place.")
    if rounding not in ("compensated", "nearest"):
        raise UserError(f"rounding must be 'compensated' or 'nearest', got {rounding!r}.")
    for rule in every:
        if rule.extra_inputs or rule.perturb is not None:
            raise UserError(
                f"{type(rule).__name__} needs more than one gradient a step, and Keras gives its optimizers "
                f"one. Take steepest.torch or steepest.optax."
            )


def _spread() -> bool:
    """True within a tf.distribute strategy, which updates one variable at a time."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return tf.distribute.has_strategy()


def _at_first(rule: Rule) -> Rule:
    """The rule with a number for its learning rate: Keras keeps the one in force."""
    return replace(rule, lr=rule.lr(1)) if callable(rule.lr) else rule


Data = dict[str, Any]


def rule_data(rule: Rule) -> Data:
    """{"rule": its name, and every hyperparameter}; a curve is a table of its own."""
    name = rules.name_of(rule)
    if not rules.repeats(rule):
        raise UserError(
            f"{type(rule).__name__} is no rule of steepest, so that its name alone would not bring it back. "
            f"Save the model without its optimizer."
        )
    return {"rule": name} | {field.name: _data(getattr(rule, field.name)) for field in fields(rule)}


def rule_of(data: Mapping[str, Any]) -> Rule:
    """The rule that `rule_data` gave."""
    hyper = {name: _value(value) for name, value in data.items() if name != "rule"}
    return rules.named(data["rule"], **hyper)


def curve_data(curve: Any) -> Data:
    """{"schedule": the name of its class, and every field}."""
    if type(curve) not in vars(schedule).values():
        raise UserError(
            f"{curve!r} cannot be written down: a file holds no code. Take a curve of steepest.schedule "
            f"where a rule is to be saved."
        )
    return {
        "schedule": type(curve).__name__,
        **{field.name: _data(getattr(curve, field.name)) for field in fields(curve)},
    }


def curve_of(data: Mapping[str, Any]) -> schedule.Schedule:
    """The curve that `curve_data` gave."""
    kinds = {kind.__name__: kind for kind in vars(schedule).values() if _is_curve(kind)}
    if data["schedule"] not in kinds:
        raise UserError(f"There is no curve {data['schedule']!r}.{did_you_mean(data['schedule'], kinds)}")
    return kinds[data["schedule"]](
        **{name: _value(value) for name, value in data.items() if name != "schedule"}
    )


def _is_curve(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, schedule.Schedule)


def _data(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_data(each) for each in value]
    return curve_data(value) if callable(value) else value


def _value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_value(each) for each in value)
    return curve_of(value) if isinstance(value, Mapping) else value
