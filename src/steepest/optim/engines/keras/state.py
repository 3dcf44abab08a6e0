"""The state of a Keras optimizer by name, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from steepest.optim.engines.keras.part import Part
from steepest.optim.engines.named_state import Array, Names, State, Weight, read, written
from steepest.optim.engines.on_keras import ops
from steepest.optim.errors import UserError


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
