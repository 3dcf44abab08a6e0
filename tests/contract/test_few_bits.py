"""Weights and state in few bits: as close to the reference as their formats allow, in every engine."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from each import each
from steepest import rules
from steepest.optim.engines import on_numba, on_numpy
from steepest.optim.engines.precision.formats import BLOCK, POSITIVE_8, SIGNED_8, Format
from steepest.optim.engines.precision.memory import Memory, layout, slots_in_full
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.engines.torch.watched_state import slot_keys
from steepest.optim.rule import Rule

SIZES = (0, 1, 5, 16, 33, 255, 256, 257, 1000)
NAMES = ["adamw", "amsgrad", "lamb", "lion", "momentum", "rmspropcentered", "schedulefreeadamw"]
FORMATS: dict[str, dict[str, Any]] = {
    "bfloat16 moments": {"state_dtype": "bfloat16"},
    "8-bit moments": {"state_dtype": "8bit"},
    "nearest": {},
    "stochastic": {"rounding": "stochastic"},
    "compensated": {"rounding": "compensated"},
    "all at once": {"rounding": "compensated", "state_dtype": "8bit", "average": 0.9},
}
DTYPES = ("bfloat16", "float16", "float32", "float64")
CASES = [("adamw", form, dtype) for form in FORMATS for dtype in DTYPES]
CASES += [(name, "all at once", "bfloat16") for name in NAMES[1:]]
CASES += [(name, "8-bit moments", "float32") for name in NAMES[1:]]
EPS = float(torch.finfo(torch.float32).eps)


def rule_of(name: str) -> Rule:
    """The rule with decay on, and eps large enough that no denominator is pure rounding error."""
    knobs = {"weight_decay": 0.1, "eps": 1e-3, "lr": 0.01}
    return rules.named(
        name, **{knob: x for knob, x in knobs.items() if knob in rules.registry()[name].numbers()}
    )


def gradient(shape: Any, step: int, dtype: torch.dtype) -> torch.Tensor:
    """Numbers of several orders of magnitude that keep their signs: none cancel, where a sign would be a
    rounding error."""
    draw = np.random.default_rng([math.prod(shape), step])
    size = draw.uniform(0.5, 2, shape) * 10.0 ** draw.integers(-3, 1, shape)
    signs = np.random.default_rng(math.prod(shape)).random(shape)
    return torch.tensor(size * np.where(signs < 0.4, -1, 1)).to(dtype)


def started(
    rule: Rule, dtype: torch.dtype, steps: int, **kept: Any
) -> tuple[list[torch.nn.Parameter], RuleOptimizer]:
    draw = np.random.default_rng(1)
    weights = [torch.nn.Parameter(torch.tensor(draw.normal(size=size)).to(dtype)) for size in SIZES]
    optimizer = RuleOptimizer(weights, rule, **kept)
    for step in range(steps):
        optimizer.step(gradients=[gradient(w.shape, step, dtype) for w in weights])
    return weights, optimizer


def numbers(rule: Rule, optimizer: RuleOptimizer, w: torch.Tensor) -> list[np.ndarray]:
    """What a weight and its slots stand for, in float64."""
    entry = optimizer.state[w]
    lost = entry["lost"].double() if "lost" in entry else 0.0
    slots = slots_in_full(entry, slot_keys(rule), type(rule))
    return [(w.detach().double() + lost).numpy(), *(slot.double().numpy() for slot in slots)]


def last_place(one: Format, exact: np.ndarray, dtype: torch.dtype, scale: Any = None) -> np.ndarray:
    """The distance of the numbers of a format around each of these."""
    if one.foot:
        floor = np.repeat(scale.double().numpy() * one.foot, BLOCK)[: exact.size]
        least = np.where(np.abs(exact) < floor, floor if one is SIGNED_8 else 8 * 1.125 * floor, 0.0)
        return np.maximum(2.0 ** np.floor(np.log2(np.maximum(np.abs(exact), 1e-300))), least) / 8
    info = torch.finfo(one.dtype or dtype)
    return np.maximum(2.0 ** np.floor(np.log2(np.maximum(np.abs(exact), 1e-300))), info.tiny) * info.eps


def one_step(rule: Rule, dtype: torch.dtype, kept: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """For each weight and slot: its name, its format, what the reference makes of it, what there is, and the
    size of what was added up."""
    weights, optimizer = started(rule, dtype, 5, **kept)
    before = [numbers(rule, optimizer, w) for w in weights]
    shared = [{name: float(optimizer.state[w][name]) for name in rule.shared} for w in weights]
    given = [gradient(w.shape, 5, dtype) for w in weights]
    arrays = [(w, g.double().numpy(), *slots) for (w, *slots), g in zip(before, given, strict=True)]
    wanted, _ = on_numpy.step_all(rule, 6, 6, arrays, shared)
    optimizer.step(gradients=given)
    form = layout(type(rule), Memory(**kept), dtype)
    for w, row, old, (_, g, *_) in zip(weights, wanted, before, arrays, strict=True):
        formats = zip(("w", *slot_keys(rule)), (form.weight, *form.slots), strict=True)
        columns = zip(formats, row, old, numbers(rule, optimizer, w), strict=True)
        for (key, one), exact, last, found in columns:
            terms = np.abs(exact) + np.abs(last) + np.abs(g) + g**2
            yield key, one, exact, found, terms, optimizer.state[w]


@each(("name", "form", "dtype"), CASES, push=3)
def test_a_step_is_the_reference_rounded_once(name: str, form: str, dtype: str) -> None:
    kind = getattr(torch, dtype)
    arithmetic = 32 * float(torch.finfo(torch.float64 if dtype == "float64" else torch.float32).eps)
    for key, one, exact, found, terms, entry in one_step(rule_of(name), kind, FORMATS[form]):
        if key == "w" and "lost" in entry:
            lost = entry["lost"]
            unit = last_place(Format(lost.dtype), lost.double().numpy(), kind)
        else:
            unit = last_place(one, exact, kind, entry.get(f"{key}_scale"))
        rounding = (1.0 if one.draws else 0.5) * unit if one.dtype else 0.0
        off = np.abs(found - exact)
        allowed = rounding + arithmetic * terms
        assert (off <= allowed).all(), (key, (off / np.maximum(allowed, 1e-300)).max())


@each(("name", "form", "dtype"), CASES, push=3)
def test_the_plain_engine_makes_the_same_numbers(
    name: str, form: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for a few, where a difference in the last bit of the arithmetic tipped the scales of a rounding."""
    rule, kind = rule_of(name), getattr(torch, dtype)
    found = []
    for plain in (False, True):
        if plain:
            monkeypatch.setattr(on_numba, "table", lambda *_: None)
        weights, optimizer = started(rule, kind, 8, **FORMATS[form])
        engine = type(optimizer._plan.weight_groups[0].engines[0]).__name__
        assert engine == ("Leaves" if plain else "Table")
        rows = [numbers(rule, optimizer, w) for w in weights]
        found.append([np.concatenate(column) for column in zip(*rows, strict=True)])
    eps = float(torch.finfo(torch.float64 if dtype == "float64" else torch.float32).eps)
    for one, other in zip(*found, strict=True):
        near = np.abs(one - other) <= 64 * eps * (1 + np.abs(one))
        assert near.mean() >= 0.97


NAMING = [name for name, rule in sorted(rules.registry().items()) if rule.signed or rule.positive]


@each("name", NAMING, push=3)
def test_every_rule_that_names_moving_averages_moves_with_them_in_few_bits(name: str) -> None:
    """In one of the two formats, by turns: compiling is what takes the time."""
    rule, shape, moved, found = rule_of(name), (24, 32), {}, {}
    few = ("bfloat16", "8bit")[NAMING.index(name) % 2]
    for form in ("float32", few):
        start = torch.tensor(np.random.default_rng(2).normal(size=shape), dtype=torch.float32)
        weight = torch.nn.Parameter(start.clone())
        optimizer = RuleOptimizer([weight], rule, state_dtype=form)
        for step in range(10):
            own = gradient(shape, step % 3, torch.float32)
            optimizer.step(gradients=[own], reads={read: [own.abs()] for read in rule.extra_inputs} or None)
        moved[form] = torch.linalg.vector_norm(weight.detach() - start)
        found[form] = [optimizer.state[weight][key] for key in slot_keys(rule)]
        kept = {"bfloat16": torch.bfloat16, "8bit": torch.uint8}.get(form, torch.float32)
        named = [slot for name, slot in zip(rule.slots, found[form], strict=True) if name in _named(rule)]
        assert all(slot.dtype is kept for slot in named)
    signs = zip(rule.slots, found["float32"], strict=True)
    assert all((slot >= 0).all() for name, slot in signs if name in rule.positive)
    # Noise of up to an eighth in every average, and the length of a sum of steps of either sign:
    assert 0.5 < moved[few] / moved["float32"] < 2


def _named(rule: Rule) -> tuple[str, ...]:
    return *rule.signed, *rule.positive


def test_a_mean_square_does_not_drift() -> None:
    """Over thousands of steps: unbiased where rounding by chance, of the noise that its variance predicts."""
    count, steps, beta = 64 * BLOCK, 3000, 0.999
    for moments, mantissa in (("bfloat16", 7), ("8bit", 3)):
        weight = torch.nn.Parameter(torch.zeros(count))
        optimizer = RuleOptimizer([weight], rules.RMSprop(lr=0.0, alpha=beta), state_dtype=moments)
        size = 10 ** torch.linspace(-1, 1, count)
        for _ in range(steps):
            optimizer.step(gradients=[size])
        v = slots_in_full(optimizer.state[weight], ["square_avg"], rules.RMSprop)[0].double()
        ratio = v / ((1 - beta**steps) * size.double() ** 2)
        # A step moves v by at most (1-β) of v's end; chance adds at most that times a unit of the last place
        # to the variance, and the average forgets a share of 1-β.
        sd = math.sqrt(2.0**-mantissa / 2)
        assert abs(float(ratio.mean()) - 1) < 5 * sd / math.sqrt(count)
        assert float(ratio.std()) < sd


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_in_16_bits_learn(dtype: str) -> None:
    """Of a constant gradient Adam moves by lr a step; rounded to nearest, a weight near one stands still."""
    steps, lr, kind = 3000, 1e-3, getattr(torch, dtype)
    ends = {}
    for rounding in ("nearest", "stochastic", "compensated"):
        weight = torch.nn.Parameter(torch.full((1000,), 0.5, dtype=kind))
        optimizer = RuleOptimizer([weight], rules.Adam(lr=lr), rounding=rounding)
        for _ in range(steps):
            optimizer.step(gradients=[torch.full((1000,), 0.25, dtype=kind)])
        ends[rounding] = weight.detach().double()
    far, unit = 0.5 - lr * steps, 4 * float(torch.finfo(kind).eps) / 2  # of numbers up to 4
    assert (ends["compensated"] - far).abs().max() <= unit + steps * EPS
    sd = math.sqrt(steps * lr * unit)  # each step: lr·(unit - lr) at most
    assert abs(ends["stochastic"].mean() - far) < 5 * sd / math.sqrt(1000) + steps * EPS
    assert (ends["stochastic"] - far).abs().max() < 6 * sd
    if dtype == "bfloat16":
        assert (ends["nearest"] > far + 1).all()


@pytest.mark.parametrize(("form", "most"), [("bfloat16", 0.5), ("8bit", 0.26)])
def test_the_state_is_as_small_as_declared(form: str, most: float) -> None:
    count = 100_000
    weight = torch.nn.Parameter(torch.zeros(count))
    optimizer = RuleOptimizer([weight], rules.AdamW(), state_dtype=form)
    optimizer.step(gradients=[torch.ones(count)])
    assert sum(x.nbytes for x in optimizer.state[weight].values() if x.dim()) <= most * 8 * count


def test_threads_do_not_change_a_bit() -> None:
    count = 3 * (1 << 18) + 77
    own = torch.randn(count, generator=torch.Generator().manual_seed(0)).bfloat16()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            weight = torch.nn.Parameter(torch.linspace(-1, 1, count).bfloat16())
            optimizer = RuleOptimizer(
                [weight], rules.AdamW(), state_dtype="8bit", rounding="stochastic", average=0.9
            )
            for _ in range(3):
                optimizer.step(gradients=[own])
            found.append([weight, *optimizer.state[weight].values()])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("moments", ["8bit", "bfloat16"])
def test_chance_is_another_for_each_seed_weight_and_step(moments: str) -> None:
    ends = []
    for seed in (0, 0, 1):
        weights = [torch.nn.Parameter(torch.zeros(1000)) for _ in range(2)]
        optimizer = RuleOptimizer(weights, rules.Momentum(), state_dtype=moments, seed=seed)
        for _ in range(4):
            optimizer.step(gradients=[torch.linspace(1, 2, 1000)] * 2)
        ends.append([w.detach() for w in weights])
    assert torch.equal(ends[0][0], ends[1][0])
    assert not torch.equal(ends[0][0], ends[2][0])
    assert not torch.equal(ends[0][0], ends[0][1])


def test_strides_go_through_the_plain_engine_to_the_same_numbers() -> None:
    shape = (30, 40)
    start = torch.tensor(np.random.default_rng(0).normal(size=shape)).bfloat16()
    laid = [torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.t().contiguous().t())]
    for weight in laid:
        optimizer = RuleOptimizer([weight], rules.AdamW(), state_dtype="8bit", rounding="stochastic")
        for step in range(5):
            optimizer.step(gradients=[gradient(shape, step, torch.bfloat16)])
    assert laid[1].stride() == (1, 30)
    off = (laid[0] - laid[1]).detach().float().abs()
    assert (off <= float(torch.finfo(torch.bfloat16).eps) * laid[0].detach().float().abs()).all()
    assert (off > 0).float().mean() < 0.05


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("form", sorted(FORMATS))
def test_what_is_not_finite_is_seen_where_it_is_and_nowhere_else(form: str, bad: float) -> None:
    weight = torch.nn.Parameter(torch.ones(600, dtype=torch.bfloat16))
    optimizer = RuleOptimizer([weight], rules.AdamW(), **FORMATS[form])
    for step in range(3):
        own = gradient((600,), step, torch.bfloat16)
        own[300] = bad if step == 1 else own[300]
        optimizer.step(gradients=[own])
    assert weight[300].isnan()
    assert torch.isfinite(weight[:300]).all()
    assert torch.isfinite(weight[301:]).all()
    slots = slots_in_full(optimizer.state[weight], ["exp_avg", "exp_avg_sq"], rules.AdamW)
    assert not any(torch.isfinite(slot[300]) for slot in slots)


def test_a_step_stays_small_where_gradients_of_a_block_differ_by_powers_of_ten() -> None:
    """8 bits of m and v could make a large step of nothing; they are made so that they cannot."""
    size = 10.0 ** torch.linspace(-12, 0, BLOCK)
    weight = torch.nn.Parameter(torch.zeros(BLOCK))
    optimizer = RuleOptimizer([weight], rules.Adam(lr=1.0, eps=1e-30), state_dtype="8bit")
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        before = weight.detach().clone()
        optimizer.step(gradients=[size * torch.randn(BLOCK, generator=generator)])
        # |m̂|/√v̂ is at most √(1-β₁)/√(1-β₂) = 10 in exact arithmetic; half as much again for the rounding
        assert (weight - before).abs().max() < 15


def test_rules_name_what_the_formats_ask_for() -> None:
    form = layout(rules.AdamW, Memory(state_dtype="8bit"), torch.float32)
    assert form.slots == (SIGNED_8, POSITIVE_8)
    assert form.keys(slot_keys(rules.AdamW)) == ("exp_avg", "exp_avg_sq", "exp_avg_scale", "exp_avg_sq_scale")
