"""What every rule promises: no dead knob, nothing written in place, NaN in sight, the same everywhere.

Rules come in kinds, by what they declare: most see each coordinate alone, some see sums over a weight or the
model (`sums`), some see whole arrays (`whole`). What holds for one kind only says so.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import Field, dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from each import each
from steepest import rules, schedule
from steepest.optim.engines import on_numpy
from steepest.optim.engines.on_torch import TORCH
from steepest.optim.errors import UserError
from steepest.optim.maths import HOST
from steepest.optim.rule import QUANTITIES, Rule, descend, descend_and_decay

STEPS = 50
SHAPE = (4, 3)
EPS = np.finfo(np.float64).eps
NUMPY = on_numpy.NUMPY
EVERY = list(rules.registry().values())


def over(chosen: list[type[Rule]]) -> Any:
    return each("rule", chosen, ids=lambda rule: rule.__name__)


RULES = over(EVERY)
ALONE = over([rule for rule in EVERY if not rule.sums and not rule.whole])
ELEMENTWISE = over([rule for rule in EVERY if not rule.whole])
CURVED = over([rule for rule in EVERY if "d" in rule.extra_inputs])


def numeric(rule: type[Rule]) -> list[Field[Any]]:
    """The fields that hold numbers; the others are structure."""
    return [field for field in fields(rule) if field.type in ("Number", "float", "int")]


def over_knobs(switches: bool) -> Any:
    knobs = [
        (rule, field.name)
        for rule in EVERY
        for field in fields(rule)
        if field in numeric(rule) or (switches and field.type == "bool")
    ]
    return each(("rule", "knob"), knobs, ids=lambda of: getattr(of, "__name__", of))


def start(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


def noise(t: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(t).normal(size=shape)


def curvature(rule: Rule | type[Rule], t: int, shape: tuple[int, ...] = SHAPE) -> list[np.ndarray]:
    """What a rule reads beside the gradient: estimates of a curvature of 1000, or another gradient."""
    return [
        noise(1000 + t, shape) if name == "p" else 1000 * noise(1000 + t, shape) ** 2
        for name in rule.extra_inputs
    ]


@dataclass
class Path:
    """A weight on its way, with its state."""

    rule: Rule
    w: Any
    slots: Any = ()
    shared: Any = None
    t: int = 0

    def __post_init__(self) -> None:
        self.slots = self.slots or self.rule.init(NUMPY, self.w)
        self.shared = dict(self.rule.shared)

    def step(self, g: Any, reads: Any = ()) -> None:
        self.t += 1
        self.w, self.slots, self.shared = on_numpy.step(
            self.rule, self.t, self.t, self.w, g, self.slots, self.shared, reads
        )

    def shipped(self) -> np.ndarray:
        """The weights that would be tested."""
        k, _ = self.rule.at(self.t).constants(HOST, self.t, self.shared)
        return self.rule.evaluate(NUMPY, k, self.w, *self.slots)

    def seen(self) -> np.ndarray:
        """Where weight or state is no number, coordinate by coordinate."""
        same = [array for array in (self.w, *self.slots) if array.shape == self.w.shape]
        return ~np.isfinite(np.stack(same)).all(0)


def walk(rule: Rule, steps: int = STEPS, shape: tuple[int, ...] = SHAPE) -> Path:
    """50 steps, with gradients ½w + noise."""
    path = Path(rule, start(shape))
    for t in range(1, steps + 1):
        path.step(0.5 * path.w + noise(t, shape), curvature(rule, t, shape))
    return path


def trajectory(rule: Rule, steps: int = STEPS) -> np.ndarray:
    return walk(rule, steps).w


def outcomes(rule: Rule) -> Iterator[np.ndarray]:
    """Weights trained and shipped, from weights of several shapes."""
    for shape in (SHAPE, (2, 3, 4)):
        if rule.takes(shape):
            path = walk(rule, shape=shape)
            yield from (path.w, path.shipped())


def plain(rule: type[Rule]) -> Rule:
    """The rule with its own numbers, but for a rate that is no round one."""
    return rule(lr=0.7 * rule().lr)


def others(rule: Rule, knob: str) -> Iterator[Rule]:
    """The same with other values of a knob, those that it takes."""
    default, kind = getattr(rule, knob), rule.__dataclass_fields__[knob].type
    numbers = (0.5 * default + 0.05, 0.02, 0.3, 1.5, default + 1, 20.0)
    counts = (default + 1, default + 3, 1, 2)
    for value in {"bool": (not default,), "int": counts}.get(str(kind), numbers):
        with suppress(UserError):
            yield replace(rule, **{knob: value})


def awake(rule: Rule, knob: str) -> Iterator[Rule]:
    """The rule, and the rule with one count small: some knobs act after many steps only, or in low rank."""
    yield rule
    for field in fields(rule):
        if field.type == "int" and field.name != knob:
            with suppress(UserError):
                yield replace(rule, **{field.name: 1})


def differ(rule: Rule, other: Rule) -> bool:
    pairs = zip(outcomes(rule), outcomes(other), strict=False)
    return not all(np.array_equal(a, b) for a, b in pairs)


@over_knobs(switches=True)
def test_every_knob_moves_the_weights(rule: type[Rule], knob: str) -> None:
    pairs = ((base, other) for base in awake(plain(rule), knob) for other in others(base, knob))
    assert any(differ(base, other) for base, other in pairs), f"{knob} has no effect"


@over_knobs(switches=False)
def test_a_knob_out_of_range_is_refused_with_its_meaning(rule: type[Rule], knob: str) -> None:
    with pytest.raises(UserError, match=rf"{rule.__name__}'s {knob} must lie in [\[(]\d.*got -1\. It is "):
        rule(**{knob: -1})


@over_knobs(switches=False)
def test_a_knob_may_be_written_as_a_whole_number(rule: type[Rule], knob: str) -> None:
    made = []
    for value in (0, 1, 2):
        with suppress(UserError):
            made.append(rule(**{knob: value}))
    kind = {"int": int}.get(str(rule.__dataclass_fields__[knob].type), float)
    assert {type(getattr(one, knob)) for one in made} == ({kind} if made else set())


@RULES
def test_every_number_may_be_a_schedule(rule: type[Rule]) -> None:
    constant = {name: lambda step, value=value: value for name, value in vars(rule()).items()}
    scheduled = rule(**{name: constant[name] for name in rule.numbers()})
    assert np.array_equal(trajectory(scheduled), trajectory(rule()))


@over_knobs(switches=False)
def test_a_change_of_tomorrow_does_not_move_the_weights_of_today(rule: type[Rule], knob: str) -> None:
    if knob in rule.numbers():
        before, after = getattr(plain(rule), knob), getattr(next(others(plain(rule), knob)), knob)
        changing = replace(plain(rule), **{knob: lambda step: before if step <= 5 else after})
        assert np.array_equal(trajectory(changing, 5), trajectory(plain(rule), 5))


@RULES
def test_a_schedule_is_read_at_the_global_step(rule: type[Rule]) -> None:
    falling = rule(lr=schedule.Polynomial(1e-2, total=10))
    assert [falling.at(step).lr for step in (1, 6, 11)] == [1e-2, 1e-2 * 0.5, 0.0]


@RULES
def test_a_schedule_that_leaves_the_range_is_refused_at_that_step(rule: type[Rule]) -> None:
    sinking = rule(lr=lambda step: 2.0 - step)
    assert sinking.at(2).lr == 0.0
    with pytest.raises(UserError, match=r"lr must lie in \[0, ∞\), got -1"):
        sinking.at(3)


@RULES
def test_nothing_is_written_in_place(rule: type[Rule]) -> None:
    path, g, reads = Path(rule(), start()), noise(1), curvature(rule, 1)
    given = (path.w, g, *reads, *path.slots)
    before = [array.copy() for array in given]
    for array in given:
        array.setflags(write=False)
    first = on_numpy.step(path.rule, 1, 1, path.w, g, path.slots, path.shared, reads)
    again = on_numpy.step(path.rule, 1, 1, path.w, g, path.slots, path.shared, reads)
    assert all(np.array_equal(old, now) for old, now in zip(before, given, strict=True))
    assert np.array_equal(first[0], again[0])
    assert path.shared == dict(rule.shared)


@RULES
def test_state_begins_as_declared_and_apart_from_the_weights(rule: type[Rule]) -> None:
    w = start()
    slots = rule().init(NUMPY, w)
    assert len(slots) == len(rule.slots)
    assert not any(np.shares_memory(slot, w) for slot in slots)
    assert {*rule.signed, *rule.positive} <= {*rule.slots}
    assert not {*rule.signed} & {*rule.positive}


@RULES
def test_positive_slots_are_never_below_zero(rule: type[Rule]) -> None:
    path = walk(rule())
    assert all((path.slots[rule.slots.index(name)] >= 0).all() for name in rule.positive)


@ALONE
def test_each_coordinate_goes_its_own_way(rule: type[Rule]) -> None:
    path = Path(rule(), start()[::-1])
    for t in range(1, STEPS + 1):
        path.step(0.5 * path.w + noise(t)[::-1], [d[::-1] for d in curvature(rule, t)])
    assert np.array_equal(path.w, trajectory(rule())[::-1])


@over([rule for rule in EVERY if rule.scope == "weight" or not rule.sums])
def test_each_weight_goes_its_own_way(rule: type[Rule]) -> None:
    apart = Path(rule(), start())
    rows = [[start(), noise(1), *curvature(rule, 1), *apart.slots]]
    rows.append([7 * row for row in rows[0]])
    (first, _), _ = on_numpy.step_all(rule(), 1, 1, rows, [rule.shared, rule.shared])
    apart.step(noise(1), curvature(rule, 1))
    assert np.array_equal(first[0], apart.w)


@over([rule for rule in EVERY if rule.scope == "model" and rule.sums and not rule.whole])
def test_a_model_in_two_pieces_goes_the_way_of_the_whole(rule: type[Rule]) -> None:
    """One rounding an element and step: sums are taken in another order."""
    pieces = [(start()[rows], *rule().init(NUMPY, start()[rows])) for rows in (slice(1), slice(1, None))]
    shared = [dict(rule.shared)] * 2
    for t in range(1, STEPS + 1):
        g, d = 0.5 * np.concatenate([piece[0] for piece in pieces]) + noise(t), curvature(rule, t)
        cut = [[x[:1] for x in (g, *d)], [x[1:] for x in (g, *d)]]
        rows = [[w, *beside, *slots] for (w, *slots), beside in zip(pieces, cut, strict=True)]
        pieces, shared = on_numpy.step_all(rule(), t, t, rows, shared)
    together = np.concatenate([piece[0] for piece in pieces])
    np.testing.assert_allclose(together, trajectory(rule()), rtol=0, atol=STEPS * together.size * EPS)


@RULES
def test_a_mirrored_problem_has_a_mirrored_path(rule: type[Rule]) -> None:
    """State of either sign begins mirrored too; curvature has no sign to mirror."""
    path = Path(rule(), -start())
    path.slots = [
        -slot if name in rule.signed else mirrored
        for name, slot, mirrored in zip(rule.slots, rule().init(NUMPY, start()), path.slots, strict=True)
    ]
    for t in range(1, STEPS + 1):
        reads = [
            -x if name == "p" else x for name, x in zip(rule.extra_inputs, curvature(rule, t), strict=True)
        ]
        path.step(0.5 * path.w - noise(t), reads)
    atol = STEPS * 10 * EPS if rule.whole else 0
    np.testing.assert_allclose(path.w, -trajectory(rule()), rtol=0, atol=atol)


@RULES
def test_without_gradient_and_decay_the_weights_stay(rule: type[Rule]) -> None:
    """With means of gradients at 0. Or they go to 0, where they are made of sums of gradients (FTRL)."""
    pulls = [name for name in rule.numbers() if "the pull" in str(rule.quantity(name))]
    path = Path(rule(**dict.fromkeys(pulls, 0.0)), start())
    path.slots = [
        0 * slot if name in rule.signed else slot for name, slot in zip(rule.slots, path.slots, strict=True)
    ]
    for _ in range(STEPS):
        path.step(np.zeros(SHAPE), [np.zeros(SHAPE) for _ in rule.extra_inputs])
    assert np.array_equal(path.w, start()) or not path.w.any()


@RULES
def test_a_rate_of_zero_leaves_numbers(rule: type[Rule]) -> None:
    """As at the end of a schedule; and the weights where they were, if the rate multiplies steps alone."""
    path = walk(rule(), 3)
    before = path.w
    path.rule = rule(lr=0.0)
    path.step(noise(4), curvature(rule, 4))
    assert all(np.isfinite(array).all() for array in (path.w, path.shipped(), *path.slots))
    if rule.follow in (descend, descend_and_decay) and not rule.shared:
        assert np.array_equal(path.w, before)
    assert np.isfinite(trajectory(rule(lr=0.0))).all()


@pytest.mark.filterwarnings("ignore:.*Did you mean:UserWarning")
@over_knobs(switches=False)
def test_a_knob_at_the_end_of_its_range_is_taken(rule: type[Rule], knob: str) -> None:
    """There may be no numbers left, as with eps = 0; but no error either."""
    quantity = rule.quantity(knob)
    assert quantity is not None
    ends = (quantity.low, quantity.low + 1e-12, min(quantity.high, 100.0) - 1e-12, min(quantity.high, 100.0))
    if rule.__dataclass_fields__[knob].type != "int":
        for end in ends:
            with suppress(UserError), np.errstate(all="ignore"):
                walk(rule(**{knob: end}), 3)


@RULES
def test_a_gradient_that_is_no_number_shows(rule: type[Rule]) -> None:
    """In its own coordinate alone, where coordinates are alone. Decompositions of NaN may refuse."""
    path, g = Path(rule(), start()), noise(1)
    g[2, 1] = np.nan
    with np.errstate(invalid="ignore"), suppress(np.linalg.LinAlgError):
        for t in (1, 2):
            path.step(g, curvature(rule, t))
        assert path.seen()[2, 1]
        assert rule.sums or rule.whole or path.seen().sum() == 1


@ALONE
def test_an_infinite_gradient_shows_or_makes_a_step_like_others(rule: type[Rule]) -> None:
    """A sign is ±1 of infinity too: then the coordinate moves by lr, and all others as ever."""
    path, g = Path(rule(), start()), noise(1)
    g[2, 1] = np.inf
    with np.errstate(invalid="ignore"):
        for t in (1, 2):
            path.step(g, curvature(rule, t))
    seen = path.seen()
    moved = np.abs(path.w - start())
    assert seen[2, 1] or moved[2, 1] <= 1.01 * moved.max(where=np.arange(12).reshape(SHAPE) != 7, initial=0)
    assert seen.sum() == seen[2, 1]


@CURVED
def test_a_curvature_that_is_no_number_shows(rule: type[Rule]) -> None:
    path = Path(rule(), start())
    reads = curvature(rule, 1)
    reads[0][2, 1] = np.nan
    path.step(noise(1), reads)
    assert np.argwhere(path.seen()).tolist() == [[2, 1]]


@RULES
def test_every_rule_descends(rule: type[Rule]) -> None:
    """On ½w², from w = ±1, with the rule's own numbers (lr at least 0.005, so that 50 steps show)."""
    path = Path(rule(lr=max(rule().lr, 0.005)), np.sign(start()))
    for _ in range(STEPS):
        path.step(path.w, [np.ones(SHAPE) for _ in rule.extra_inputs])
    assert (np.abs(path.w) < 1).all()
    assert (np.abs(path.shipped()) < 1).all()


@over([rule for rule in EVERY if rule.evaluates()])
def test_weights_to_ship_are_others_and_pure(rule: type[Rule]) -> None:
    walked = [walk(other) for field in numeric(rule) for other in others(rule(), field.name)]
    assert any(not np.array_equal(path.shipped(), path.w) for path in walked)
    path = walked[0]
    before = [array.copy() for array in (path.w, *path.slots)]
    assert path.shipped().shape == path.w.shape
    assert all(np.array_equal(a, b) for a, b in zip(before, (path.w, *path.slots), strict=True))


def on_torch(rule: Rule, dtype: torch.dtype) -> torch.Tensor:
    """The same walk by torch operations; sums over elements in float64, as engines do."""
    w, shared = torch.from_numpy(start()).to(dtype), dict(rule.shared)
    slots = rule.init(TORCH, w)
    for t in range(1, STEPS + 1):
        g, *reads = (torch.from_numpy(x).to(dtype) for x in (noise(t), *curvature(rule, t)))
        arrays = (w, 0.5 * w + g, *reads, *slots)
        k, following = rule.constants(HOST, t, shared)
        if rule.sums:
            sums = [float(x.double().sum()) for x in rule.addends(TORCH, k, *arrays)]
            k, following = rule.constants(HOST, t, shared, w.numel(), sums)
        w, *slots = rule.update(TORCH, k, *arrays)
        shared = following
    assert {array.dtype for array in (w, *slots)} == {dtype}
    return w


def shaken(rule: Rule, eps: float) -> np.ndarray:
    """The walk with the weights off by eps of themselves at every step, as rounding leaves them."""
    path = Path(rule, start())
    for t in range(1, STEPS + 1):
        path.w = path.w * (1 + eps * np.sign(noise(2000 + t)))
        path.step(0.5 * path.w + noise(t), curvature(rule, t))
    return path.w


@RULES
@each("dtype", [torch.float32, torch.float64], ids=str)
def test_the_same_lines_run_on_torch(rule: type[Rule], dtype: torch.dtype) -> None:
    """Ten roundings a step, of weights of order one; and ten times what one rounding a step does."""
    expected, eps = trajectory(rule()), torch.finfo(dtype).eps
    atol = 10 * (STEPS * eps + np.abs(shaken(rule(), eps) - expected).max())
    np.testing.assert_allclose(on_torch(rule(), dtype), expected, rtol=0, atol=atol)


@ELEMENTWISE
def test_the_same_lines_run_on_single_numbers(rule: type[Rule]) -> None:
    path, g, reads = walk(rule(), steps=3), noise(4), curvature(rule, 4)
    arrays = [path.w, g, *reads, *path.slots]
    k, _ = path.rule.constants(HOST, 4, path.shared)
    if rule.sums:
        sums = [float(np.sum(x)) for x in path.rule.addends(NUMPY, k, *arrays)]
        k, _ = path.rule.constants(HOST, 4, path.shared, g.size, sums)
    path.step(g, reads)
    for place in np.ndindex(SHAPE):
        w, *slots = path.rule.update(HOST, k, *(float(array[place]) for array in arrays))
        expected = [array[place] for array in (path.w, *path.slots)]
        assert [w, *slots] == pytest.approx(expected, rel=10 * EPS, abs=10 * EPS)


def test_the_reference_engine_answers_in_float64() -> None:
    w = start().astype(np.float32)
    new, slots, _ = on_numpy.step(rules.AdamW(), 1, 1, w, w, rules.AdamW().init(np, w), {})
    assert {array.dtype for array in (new, *slots)} == {np.dtype(np.float64)}


def is_complete(kind: type[Rule]) -> bool:
    """False of what several rules have in common: it has no direction, or a name of its module alone."""
    return kind.direction is not Rule.direction and not kind.__name__.startswith("_")


def test_no_rule_is_forgotten() -> None:
    names = [f"{rules.__name__}.{module.name}" for module in pkgutil.iter_modules(rules.__path__)]
    modules = [importlib.import_module(name) for name in names]
    classes = {
        item
        for module in modules
        for _, item in inspect.getmembers(module, inspect.isclass)
        if issubclass(item, Rule) and is_complete(item)
    }
    assert set(rules.registry().values()) == classes
    assert all(getattr(rules, item.__name__) is item for item in classes)


def test_no_quantity_is_forgotten_or_left_over() -> None:
    used = {(rule, field.name) for rule in EVERY for field in numeric(rule)}
    assert [(rule.__name__, name) for rule, name in used if rule.quantity(name) is None] == []
    assert {name for rule, name in used if name not in rule.quantities} >= QUANTITIES.keys()
