"""The state of an optimizer as arrays by name, alike in torch, Keras and JAX, and the way to another.

"<weight>/<slot>"    what the weight carries; arrays of its shape have its framework's axes
"<weight>/step"      its updates so far; Keras and optax have one count for all weights
"<weight>/<scalar>"  the rule's shared scalars
"<weight>/lost"      what rounding took from a 16-bit weight, where that is kept
"steps", "factor"    updates of the whole, and what multiplies the learning rate

A kernel's inputs and outputs lie as (…, in, out) in Keras and flax, as (out, in, …) in torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from steepest.optim.engines.on_numpy import NUMPY
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule


def outputs_first(axes: int) -> tuple[int, ...]:
    """The permutation that takes (…, in, out) to (out, in, …); with fewer than two axes nothing moves."""
    return (axes - 1, axes - 2, *range(axes - 2)) if axes > 1 else tuple(range(axes))


def outputs_last(axes: int) -> tuple[int, ...]:
    """The way back."""
    return (*range(2, axes), 1, 0) if axes > 1 else tuple(range(axes))


def turned(x: Any, back: bool = False) -> Any:
    """An array seen as torch keeps its kernels, or back again."""
    return x.transpose((outputs_last if back else outputs_first)(x.ndim))


Array: TypeAlias = "np.ndarray[Any, Any]"
Names: TypeAlias = Mapping[str, tuple[str, Literal["same", "transpose", "conv"]]]
"""{their name of a weight: (our name, layout)}: "transpose" where a dense kernel lies as (in, out) here
and (out, in) there, "conv" for (…, in, out) and (out, in, …)."""

LOST = "lost"
LAYOUTS = ("same", "transpose", "conv")


class Weight(NamedTuple):
    """What moves a weight, and its shape as the rule sees it.

    turned: it lies the other way round.   loses: what rounding takes from it is kept."""

    rule: Rule
    shape: tuple[int, ...]
    turned: bool = False
    loses: bool = False


class State(NamedTuple):
    """A state by weight: slots in the order of the rule's, as the rule sees them; scalars; what was lost."""

    count: int
    factor: float
    slots: dict[str, list[Array]]
    shared: dict[str, dict[str, float]]
    lost: dict[str, Array]


def written(weights: Mapping[str, Weight], state: State) -> dict[str, Array]:
    """The state by name."""
    found = {"steps": np.asarray(state.count, np.int64), "factor": np.asarray(state.factor, np.float64)}
    for name, weight in weights.items():
        alike = shaped_alike(weight.rule, weight.shape)
        for slot, array in zip(weight.rule.slots, state.slots[name], strict=True):
            shown = array.transpose(outputs_last(array.ndim)) if weight.turned and slot in alike else array
            found[f"{name}/{slot}"] = np.array(shown, np.float64 if array.dtype == np.float64 else np.float32)
        if name in state.lost:
            found[f"{name}/{LOST}"] = state.lost[name]
        for word, value in ({"step": state.count} | state.shared[name]).items():
            found[f"{name}/{word}"] = np.asarray(value, np.float64)
    return found


def read(arrays: Mapping[str, Any], weights: Mapping[str, Weight], names: Names | None = None) -> State:
    """The way back; a UserError lists whatever does not fit."""
    given = renamed(arrays, weights, names, to_torch=False)
    problems = [*_missing(given, weights), *_counted_apart(given, weights)]
    if problems:
        raise UserError(f"The saved state does not fit, nothing was loaded: {'; '.join(problems)}.")
    slots, shared = {}, {}
    for name, (rule, shape, turned, _) in weights.items():
        alike = shaped_alike(rule, shape) if turned else set[str]()
        kept = [(slot, given[f"{name}/{slot}"]) for slot in rule.slots]
        slots[name] = [x.transpose(outputs_first(x.ndim)) if slot in alike else x for slot, x in kept]
        shared[name] = {word: float(given[f"{name}/{word}"]) for word in rule.shared}
    lost = {name: given[f"{name}/{LOST}"] for name in weights if f"{name}/{LOST}" in given}
    return State(int(given["steps"]), float(given["factor"]), slots, shared, lost)


def renamed(
    arrays: Mapping[str, Any], weights: Mapping[str, Weight], names: Names | None, *, to_torch: bool
) -> dict[str, Array]:
    """Arrays of another framework under our names, those shaped like their weights with our axes.

    A UserError lists the names that the map does not hold, or that it leads to nowhere."""
    found = {key: _array(value) for key, value in arrays.items()}
    if names is None:
        return found
    _refuse_unmapped(found, weights, names)
    made = {}
    for key, array in found.items():
        name, _, word = key.rpartition("/")
        ours, layout = names.get(name, ("", "same"))
        if layout != "same" and word in (*shaped_alike(weights[ours].rule, weights[ours].shape), LOST):
            array = array.transpose((outputs_first if to_torch else outputs_last)(array.ndim))
        made[f"{ours}/{word}" if name else key] = array
    return made


def shaped_alike(rule: Rule, shape: tuple[int, ...]) -> set[str]:
    """The slots that have their weight's shape, and not by chance."""
    if not rule.whole:
        return set(rule.slots)
    longer = (2 * shape[0], *shape[1:]) if shape else shape
    each = [(one, _shapes(rule, one)) for one in (shape, longer)]
    return {slot for i, slot in enumerate(rule.slots) if all(shapes[i] == one for one, shapes in each)}


def _shapes(rule: Rule, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [np.shape(slot) for slot in rule.init(NUMPY, np.broadcast_to(np.float32(0), shape))]


def _array(value: Any) -> Array:
    """A NumPy array of an array or tensor of any framework; NumPy itself has no bfloat16."""
    value = value.detach().cpu() if hasattr(value, "detach") else value
    short = "bfloat16" in str(getattr(value, "dtype", ""))
    return np.asarray(
        value.float() if short and hasattr(value, "float") else value, np.float32 if short else None
    )


def _refuse_unmapped(arrays: Mapping[str, Any], weights: Mapping[str, Any], names: Names) -> None:
    theirs = dict.fromkeys(key.rpartition("/")[0] for key in arrays if "/" in key)
    problems = [f"{name!r} is not in the map" for name in theirs if name not in names]
    for name, (ours, layout) in names.items():
        if ours not in weights:
            known = ", ".join(map(repr, weights))
            problems.append(f"{name!r} is mapped to {ours!r}, which is no weight here (these are: {known})")
        if layout not in LAYOUTS:
            problems.append(f"{name!r} has the layout {layout!r}; there are 'same', 'transpose' and 'conv'")
    if problems:
        raise UserError(f"The map of names does not fit, nothing was loaded: {'; '.join(problems)}.")


def _missing(arrays: Mapping[str, Array], weights: Mapping[str, Weight]) -> Iterator[str]:
    wanted: dict[str, tuple[int, ...]] = {"steps": (), "factor": ()}
    for name, weight in weights.items():
        alike = shaped_alike(weight.rule, weight.shape)
        for slot, shape in zip(weight.rule.slots, _shapes(weight.rule, weight.shape), strict=True):
            back = weight.turned and slot in alike
            wanted[f"{name}/{slot}"] = (
                tuple(shape[axis] for axis in outputs_last(len(shape))) if back else shape
            )
        wanted |= {f"{name}/{word}": () for word in weight.rule.shared}
    for key, shape in wanted.items():
        if key not in arrays:
            yield f"{key!r} is missing"
        elif arrays[key].shape != shape:
            yield f"{key!r} is {arrays[key].shape}, not {shape}"
    known = wanted.keys() | {f"{name}/step" for name in weights}
    known |= {f"{name}/{LOST}" for name, weight in weights.items() if weight.loses}
    yield from (f"{key!r} is nothing of it" for key in arrays if key not in known)


def _counted_apart(arrays: Mapping[str, Array], weights: Mapping[str, Weight]) -> Iterator[str]:
    """What one count of updates for all weights cannot hold."""
    for name in weights:
        own = arrays.get(f"{name}/step")
        if own is not None and "steps" in arrays and float(own) != float(arrays["steps"]):
            yield f"{name!r} has had {own:g} updates of {arrays['steps']:g}, and here all have one count"
