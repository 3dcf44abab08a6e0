"""`check_rule`: whether a rule is plain mathematics that every engine runs alike, and that resumes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from steepest.optim.engines import on_numpy
from steepest.optim.engines.kernels.inline import NotInlinable
from steepest.optim.engines.kernels.source import source, source_of_sums
from steepest.optim.engines.on_numpy import NUMPY
from steepest.optim.engines.precision.memory import Memory, layout
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.rule import Rule

STEPS = 6
SHAPES = ((4, 3), (6,))
ENGINES = ("torch", "numba", "jax")
"""What is held against the reference in NumPy; JAX where it is installed."""

Oracle = Callable[[list[np.ndarray], list[list[np.ndarray]]], Sequence[Sequence[np.ndarray]]]
Path = list[list[np.ndarray]]
"""The weights after each step."""


def check_rule(
    kind: type[Rule],
    *,
    oracle: Oracle | None = None,
    engines: Sequence[str] = ENGINES,
    **hyper: Any,
) -> None:
    """Hold a class of rules to all that the optimizers rely on; AssertionError lists what does not hold.

    kind     a frozen dataclass, a subclass of Rule
    oracle   function (weights, gradients of each step) → weights after each step, in float64, derived from
             the paper and not from the rule: the path that the rule must take
    engines  which engines to hold against the reference: "torch", "numba", "jax"
    hyper    hyperparameters to check it with, where the defaults are not meant

    Checked: frozen dataclass, docstring, a Quantity for every number; names of slots; functions that write
    to nothing and give the same twice; the vocabulary, so that a kernel can be made; the same path in every
    engine, to rounding; state that is saved and loaded by name and in torch's form, and goes on to the bit;
    finite steps for gradients from 1e-6 to 1e6 and for none."""
    problems = list(_of_class(kind))
    if not problems:
        rule = kind(**hyper)
        shapes = [shape for shape in SHAPES if rule.takes(shape)]
        if not shapes:
            problems.append(f"takes() refuses weights of the shapes {SHAPES}")
        else:
            for check in (_of_functions, _of_vocabulary, _of_scales, _of_resuming):
                problems += check(rule, shapes)
            problems += _of_engines(rule, shapes, engines)
            if oracle is not None:
                problems += _of_oracle(rule, shapes, oracle)
    if problems:
        name = getattr(kind, "__name__", repr(kind))
        raise AssertionError("\n".join([f"{name} is no rule that engines can run:", *problems]))


def _of_class(kind: Any) -> Iterator[str]:
    if not (isinstance(kind, type) and issubclass(kind, Rule)):
        yield f"it must be a subclass of Rule, got {kind!r}"
        return
    own = "__dataclass_fields__" in vars(kind)
    if not own or not kind.__dataclass_params__.frozen:  # pyright: ignore[reportAttributeAccessIssue]
        yield "it must be a dataclass of its own with frozen=True"
        return
    if not vars(kind).get("__doc__") or vars(kind)["__doc__"].startswith(f"{kind.__name__}("):
        yield "it has no docstring: say the formula, the unit of lr, its state and where it comes from"
    for name in kind.numbers():
        if kind.quantity(name) is None:
            yield f"nobody says what {name!r} means: add it to `quantities`, with its unit and range"
    for part in ("signed", "positive", "momenta"):
        unknown = set(getattr(kind, part) or ()) - set(kind.slots)
        if unknown:
            yield f"`{part}` names {sorted(unknown)}, which are no slots"
    if len(set(kind.slots)) < len(kind.slots) or "step" in (*kind.slots, *kind.shared):
        yield f"the slots {kind.slots} must be different names, and none of them 'step'"
    yield from _of_arguments(kind)


def _of_arguments(kind: type[Rule]) -> Iterator[str]:
    for function in (kind.direction, *([kind.measure] if kind.sums else [])):
        parameters = inspect.signature(function).parameters.values()
        names = [one.name for one in parameters if one.kind is not one.VAR_POSITIONAL and one.name != "self"]
        wanted = ["xp", "k", "w", "g", *kind.extra_inputs, *kind.slots]
        starred = any(one.kind is one.VAR_POSITIONAL for one in parameters)
        if names != (wanted[: len(names)] if starred else wanted):
            yield f"{function.__name__} takes {names}, and is called with {wanted}"


def _numbers(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, 7])).standard_normal(shape)


def _start(shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    return [_numbers(n, shape) for n, shape in enumerate(shapes)]


def _gradients(shapes: Sequence[tuple[int, ...]], step: int, scale: float = 1.0) -> list[np.ndarray]:
    return [scale * _numbers(1000 * step + n, shape) for n, shape in enumerate(shapes)]


def _reference(rule: Rule, shapes: Sequence[tuple[int, ...]], scale: float = 1.0, nudge: float = 0.0) -> Path:
    """The path in float64, nothing written in place. nudge: a relative error of what goes in."""
    errors = [1 + nudge * _numbers(99 + n, shape) for n, shape in enumerate(shapes)]
    weights = [w * error for w, error in zip(_start(shapes), errors, strict=True)]
    slots = [[np.asarray(slot, np.float64) for slot in rule.init(NUMPY, w)] for w in weights]
    shared: Any = [dict(rule.shared) for _ in shapes]
    path: Path = []
    for t in range(1, STEPS + 1):
        gradients = [g * error for g, error in zip(_gradients(shapes, t, scale), errors, strict=True)]
        rows = [
            (w, g, *(g * g for _ in rule.extra_inputs), *own)
            for w, g, own in zip(weights, gradients, slots, strict=True)
        ]
        moved, shared = on_numpy.step_all(rule, t, t, rows, shared)
        weights, slots = [row[0] for row in moved], [list(row[1:]) for row in moved]
        path.append(weights)
    return path


def _optimizer(rule: Rule, shapes: Sequence[tuple[int, ...]], dtype: torch.dtype, engine: str) -> Any:
    weights = [torch.nn.Parameter(torch.tensor(w, dtype=dtype)) for w in _start(shapes)]
    named = [(f"weight{n}", w) for n, w in enumerate(weights)]
    return RuleOptimizer(named, rule, engine=engine)


def _step(optimizer: Any, rule: Rule, shapes: Sequence[tuple[int, ...]], t: int) -> None:
    weights = optimizer.param_groups[0]["params"]
    gradients = [torch.tensor(g).to(w.dtype) for g, w in zip(_gradients(shapes, t), weights, strict=True)]
    reads = {name: [g * g for g in gradients] for name in rule.extra_inputs}
    optimizer.step(gradients=gradients, reads=reads or None)


def _of_functions(rule: Rule, shapes: Sequence[tuple[int, ...]]) -> Iterator[str]:
    for shape in shapes:
        w, g = _numbers(1, shape), _numbers(2, shape)
        slots = [np.asarray(slot, np.float64) for slot in rule.init(NUMPY, w)]
        if len(slots) != len(rule.slots):
            yield f"init gives {len(slots)} arrays of {shape}, and there are {len(rule.slots)} slots"
            return
        arrays = [w, g, *(g * g for _ in rule.extra_inputs), *slots]
        before = [x.copy() for x in arrays]
        found = [on_numpy.step_all(rule, 1, 1, [arrays], [dict(rule.shared)]) for _ in range(2)]
        if not all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True)):
            yield "its functions write to the arrays that they are given; they must make new ones"
        (first, _), (second, _) = found
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first[0], second[0], strict=True)):
            yield "the same step twice is not the same: it must depend on its arguments alone"
        if len(first[0]) != 1 + len(rule.slots):
            yield f"direction gives {len(first[0]) - 1} slots, and there are {len(rule.slots)}"


def _of_vocabulary(rule: Rule, shapes: Sequence[tuple[int, ...]]) -> Iterator[str]:
    if rule.whole:
        return
    plain = layout(type(rule), Memory(), torch.float32)
    try:
        source(rule, torch.float32, plain)
        if rule.sums:
            source_of_sums(rule, torch.float32, plain)
    except NotInlinable as error:
        yield f"no kernel can be made of it: {error}. Write it in the vocabulary of steepest.optim.maths"


def _of_scales(rule: Rule, shapes: Sequence[tuple[int, ...]]) -> Iterator[str]:
    for scale in (0.0, 1e-6, 1e6):
        path = _reference(rule, shapes, scale)
        if not all(np.isfinite(w).all() for weights in path for w in weights):
            yield f"gradients of about {scale:g} make weights that are not finite"


def _of_resuming(rule: Rule, shapes: Sequence[tuple[int, ...]]) -> Iterator[str]:
    ways = {
        "state_by_name": lambda a, b: b.load_state_by_name(a.state_by_name()),
        "state_dict": lambda a, b: b.load_state_dict(a.state_dict()),
    }
    whole = _optimizer(rule, shapes, torch.float32, "torch")
    broken = _optimizer(rule, shapes, torch.float32, "torch")
    for t in range(1, STEPS + 1):
        _step(whole, rule, shapes, t)
        if t <= STEPS // 2:
            _step(broken, rule, shapes, t)
    for name, hand_over in ways.items():
        resumed = _optimizer(rule, shapes, torch.float32, "torch")
        pairs = zip(resumed.param_groups[0]["params"], broken.param_groups[0]["params"], strict=True)
        for w, own in pairs:
            w.data.copy_(own.data)
        hand_over(broken, resumed)
        for t in range(STEPS // 2 + 1, STEPS + 1):
            _step(resumed, rule, shapes, t)
        ends = zip(whole.param_groups[0]["params"], resumed.param_groups[0]["params"], strict=True)
        if not all(torch.equal(a, b) for a, b in ends):
            yield f"a path that goes on from {name}() is not, to the bit, the one that was not broken off"


def _of_engines(rule: Rule, shapes: Sequence[tuple[int, ...]], engines: Sequence[str]) -> Iterator[str]:
    for engine in engines:
        if engine == "jax":
            if find_spec("jax") is None or find_spec("optax") is None or rule.perturb or rule.extra_inputs:
                continue
            dtype, found = torch.float32, _in_jax(rule, shapes)
        else:
            if engine == "numba" and rule.whole:
                continue
            dtype = torch.float32 if engine == "numba" else torch.float64
            optimizer = _optimizer(rule, shapes, dtype, engine)
            found = []
            for t in range(1, STEPS + 1):
                _step(optimizer, rule, shapes, t)
                found.append([w.detach().numpy().copy() for w in optimizer.param_groups[0]["params"]])
        wanted, eps = _reference(rule, shapes), float(torch.finfo(dtype).eps)
        nudged = _reference(rule, shapes, nudge=eps)
        for t, (ours, theirs, other) in enumerate(zip(found, wanted, nudged, strict=True), 1):
            for a, b, c in zip(ours, theirs, other, strict=True):
                allowed = 64 * t * (np.abs(b - c).max() + eps * max(1.0, np.abs(b).max()))
                off = np.abs(a - b).max()
                if not off <= allowed:
                    yield (
                        f"after {t} steps {engine} is {off:.2g} from the reference in NumPy, and roundings "
                        f"explain {allowed:.2g}"
                    )
                    break
            else:
                continue
            break


def _in_jax(rule: Rule, shapes: Sequence[tuple[int, ...]]) -> Path:
    import jax.numpy as jnp

    from steepest.optim.engines.jax.of_tree import OfTree

    engine = OfTree(rule)
    weights = [jnp.asarray(w, jnp.float32) for w in _start(shapes)]
    state, path = engine.init(weights), []
    for t in range(1, STEPS + 1):
        gradients = [jnp.asarray(g, jnp.float32) for g in _gradients(shapes, t)]
        _, weights, state = engine.step(gradients, state, weights, {})
        path.append([np.asarray(w, np.float64) for w in weights])
    return path


def _of_oracle(rule: Rule, shapes: Sequence[tuple[int, ...]], oracle: Callable[..., Any]) -> Iterator[str]:
    gradients = [_gradients(shapes, t) for t in range(1, STEPS + 1)]
    wanted = oracle(_start(shapes), gradients)
    for t, (ours, theirs) in enumerate(zip(_reference(rule, shapes), wanted, strict=True), 1):
        for a, b in zip(ours, theirs, strict=True):
            if not np.allclose(a, b, rtol=1e-9, atol=1e-12):
                yield f"after {t} steps the rule is {np.abs(a - b).max():.2g} from the oracle"
                return
