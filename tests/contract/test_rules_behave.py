"""What every rule promises: no dead knob, nothing written in place, each coordinate alone, NaN in sight."""

import importlib
import inspect
import pkgutil
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from steepest import rules, schedule
from steepest.engine import on_numpy
from steepest.errors import UserError
from steepest.maths import HOST
from steepest.rule import QUANTITIES, Rule

STEPS = 50
SIZE = 5
EPS = np.finfo(np.float64).eps
RULES = pytest.mark.parametrize("rule", rules.registry().values(), ids=lambda rule: rule.__name__)
KNOBS = pytest.mark.parametrize(
    ("rule", "knob"),
    [(rule, field.name) for rule in rules.registry().values() for field in fields(rule)],
    ids=lambda value: getattr(value, "__name__", value),
)


def start() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SIZE)


def noise(t: int) -> np.ndarray:
    return np.random.default_rng(t).normal(size=SIZE)


def trajectory(rule: Rule, sign: float = 1.0, order: slice = slice(None)) -> np.ndarray:
    """Weights after 50 steps from ±start, with gradients ½w ± noise, coordinates in an order."""
    w = sign * start()[order]
    slots, shared = rule.init(np, w), dict(rule.shared)
    for t in range(1, STEPS + 1):
        g = 0.5 * w + sign * noise(t)[order]
        w, slots, shared = on_numpy.step(rule, t, t, w, g, slots, shared)
    return w


@KNOBS
def test_every_knob_moves_the_weights(rule: type[Rule], knob: str) -> None:
    default = rule()
    moved = replace(default, **{knob: 0.5 * getattr(default, knob) + 0.05})
    assert not np.array_equal(trajectory(default), trajectory(moved)), f"{knob} has no effect"


@KNOBS
def test_a_knob_out_of_range_is_refused_with_its_meaning(rule: type[Rule], knob: str) -> None:
    with pytest.raises(UserError, match=rf"{rule.__name__}'s {knob} must lie in \[0, .*got -1.*It is "):
        rule(**{knob: -1})


@KNOBS
def test_a_knob_may_be_written_as_a_whole_number(rule: type[Rule], knob: str) -> None:
    assert type(getattr(rule(**{knob: 0}), knob)) is float


@RULES
def test_every_number_may_be_a_schedule(rule: type[Rule]) -> None:
    plain = rule()
    constant = {name: schedule.Constant(getattr(plain, name)) for name in rule.numbers()}
    assert np.array_equal(trajectory(rule(**constant)), trajectory(plain))


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
    w, g = start(), noise(1)
    slots, shared = rule().init(np, w), dict(rule.shared)
    before = [array.copy() for array in (w, g, *slots)]
    for array in (w, g, *slots):
        array.setflags(write=False)
    first = on_numpy.step(rule(), 1, 1, w, g, slots, shared)
    again = on_numpy.step(rule(), 1, 1, w, g, slots, shared)
    assert all(np.array_equal(old, now) for old, now in zip(before, (w, g, *slots), strict=True))
    assert np.array_equal(first[0], again[0])
    assert shared == dict(rule.shared)


@RULES
def test_each_coordinate_goes_its_own_way(rule: type[Rule]) -> None:
    backwards = slice(None, None, -1)
    assert np.array_equal(trajectory(rule(), order=backwards), trajectory(rule())[backwards])


@RULES
def test_a_mirrored_problem_has_a_mirrored_path(rule: type[Rule]) -> None:
    assert np.array_equal(trajectory(rule(), sign=-1.0), -trajectory(rule()))


@RULES
def test_without_gradient_and_decay_the_weights_stay(rule: type[Rule]) -> None:
    plain, w = rule(weight_decay=0.0), start()
    slots, shared = plain.init(np, w), dict(rule.shared)
    for t in range(1, STEPS + 1):
        w, slots, shared = on_numpy.step(plain, t, t, w, np.zeros(SIZE), slots, shared)
    assert np.array_equal(w, start())


@RULES
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_no_number_shows_in_its_weight_alone(rule: type[Rule], bad: float) -> None:
    w, g = start(), noise(1)
    g[2] = bad
    slots, shared = rule().init(np, w), dict(rule.shared)
    with np.errstate(invalid="ignore"):
        for t in (1, 2):
            w, slots, shared = on_numpy.step(rule(), t, t, w, g, slots, shared)
    seen = ~np.isfinite(np.stack([w, *slots])).all(0)
    assert seen.tolist() == [False, False, True, False, False]


@RULES
def test_every_rule_descends(rule: type[Rule]) -> None:
    """On ½w², from w = ±1, with the rule's own numbers (lr at least 0.005, so that 50 steps show)."""
    w = np.sign(start())
    plain = rule(lr=max(rule().lr, 0.005))
    slots, shared = plain.init(np, w), dict(rule.shared)
    for t in range(1, STEPS + 1):
        w, slots, shared = on_numpy.step(plain, t, t, w, w, slots, shared)
    assert (np.abs(w) < 1).all()


@RULES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_same_lines_run_on_torch(rule: type[Rule], dtype: torch.dtype) -> None:
    """Ten roundings a step, of weights of order one."""
    plain, w, shared = rule(), torch.from_numpy(start()).to(dtype), dict(rule.shared)
    slots = plain.init(torch, w)
    for t in range(1, STEPS + 1):
        g = 0.5 * w + torch.from_numpy(noise(t)).to(dtype)
        k, shared = plain.constants(HOST, t, shared)
        u, *slots = plain.direction(torch, k, w, g, *slots)
        w = plain.follow(torch, k, w, u)
    assert {array.dtype for array in (w, *slots)} == {dtype}
    np.testing.assert_allclose(w, trajectory(plain), rtol=0, atol=10 * STEPS * torch.finfo(dtype).eps)


@RULES
def test_the_same_lines_run_on_single_numbers(rule: type[Rule]) -> None:
    plain, w, g = rule(), start(), noise(1)
    slots, shared = plain.init(np, w), dict(rule.shared)
    together, *_ = on_numpy.step(plain, 1, 1, w, g, slots, shared)
    k, _ = plain.constants(HOST, 1, shared)
    for i in range(SIZE):
        u, *_ = plain.direction(HOST, k, float(w[i]), float(g[i]), *(float(slot[i]) for slot in slots))
        assert plain.follow(HOST, k, float(w[i]), u) == pytest.approx(together[i], rel=10 * EPS, abs=0)


def test_the_reference_engine_answers_in_float64() -> None:
    w = start().astype(np.float32)
    new, slots, _ = on_numpy.step(rules.AdamW(), 1, 1, w, w, rules.AdamW().init(np, w), {})
    assert {array.dtype for array in (new, *slots)} == {np.dtype(np.float64)}


def test_no_rule_is_forgotten() -> None:
    names = [f"{rules.__name__}.{module.name}" for module in pkgutil.iter_modules(rules.__path__)]
    modules = [importlib.import_module(name) for name in names]
    classes = {
        item
        for module in modules
        for _, item in inspect.getmembers(module, inspect.isclass)
        if issubclass(item, Rule) and item is not Rule
    }
    assert set(rules.registry().values()) == classes
    assert all(getattr(rules, item.__name__) is item for item in classes)


def test_no_quantity_is_forgotten_or_left_over() -> None:
    assert {field.name for rule in rules.registry().values() for field in fields(rule)} == QUANTITIES.keys()
