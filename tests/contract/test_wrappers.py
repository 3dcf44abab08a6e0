"""What every wrapper promises, around rules of every kind: nothing written in place, no dead knob, one
kernel, the same weights from every engine, and after a resume the same bits."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from each import each
from steepest import rules, schedule, wrap
from steepest.optim.engines import on_numba, on_numpy
from steepest.optim.engines.kernels.inline import XP, Body, K
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError
from steepest.optim.maths import HOST
from steepest.optim.rule import Rule

STEPS = 11
SHAPE = (3, 4)
EPS = np.finfo(np.float64).eps
PLAIN = (
    "sgd",
    "momentum",
    "adamw",
    "nadam",
    "lion",
    "rmsproptf",
    "adahessian",
    "lamb",
    "prodigy",
    "schedulefreeadamw",
    "muon",
)
"""Rules with every kind of decay, state that all weights share, arrays beyond the gradient, sums over a
weight and over the model, other weights to test, and matrices."""
NESTED = (
    "averaged+sam+adamw",
    "averaged+schedulefreeadamw",
    "cautious+grokfastwindow+sgd",
    "grokfast+lookahead+fixeddecay+adam",
    "lookahead+cautious+lion",
    "lookahead+trustratio+decoupleddecay+momentum",
    "schedulefree+grokfast+momentum",
    "schedulefree+cautious+nadam",
)


def fits(name: str) -> bool:
    try:
        rules.named(name)
    except UserError:
        return False
    return True


NAMES = sorted(filter(fits, (f"{wrapper}+{plain}" for wrapper in wrap.WRAPPERS for plain in PLAIN)))
ALL = each("name", [*NAMES, *NESTED])
COMPILED = each(
    "name", [name for name in (*(f"{w}+adamw" for w in sorted(wrap.WRAPPERS)), *NESTED) if "sam+" not in name]
)
KNOBS = [(name, knob) for name in sorted(wrap.WRAPPERS) for knob in wrap.WRAPPERS[name].knobs]


def rule_of(name: str) -> Rule:
    """The rule with few steps between events, so that all of them come about in a test."""
    short = {"sync_every": 3, "grok_window": 4, "weight_decay": 0.1, "initial": 0.01, "eps": 1e-3}
    known = {field.name for field in fields(rules.named(name))}
    return rules.named(name, **{knob: value for knob, value in short.items() if knob in known})


def start(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SHAPE)


def given(rule: Rule, w: np.ndarray, t: int) -> list[np.ndarray]:
    """Gradient and what else a rule reads: ½w and noise."""
    draw = np.random.default_rng([t, w.size])
    return [0.5 * w + draw.normal(size=w.shape) for _ in range(1 + len(rule.extra_inputs))]


def path(rule: Rule, steps: int = STEPS) -> list[list[np.ndarray]]:
    """(weight, *slots) before and after each step."""
    rows, shared = [[start(), *rule.init(on_numpy.NUMPY, start())]], dict(rule.shared)
    for t in range(1, steps + 1):
        w, *slots = rows[-1]
        g, *reads = given(rule, w, t)
        w, slots, shared = on_numpy.step(rule, t, t, w, g, slots, shared, reads)
        rows.append([w, *slots])
    return rows


@ALL
def test_nothing_is_written_in_place_and_a_step_repeats(name: str) -> None:
    rule, w = rule_of(name), start()
    arrays = [w, *given(rule, w, 1), *rule.init(on_numpy.NUMPY, w)]
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.setflags(write=False)
    g, *rest = arrays[1:]
    reads, slots = rest[: len(rule.extra_inputs)], rest[len(rule.extra_inputs) :]
    first, again = (on_numpy.step(rule, 1, 1, w, g, slots, dict(rule.shared), reads) for _ in range(2))
    assert all(np.array_equal(old, now) for old, now in zip(before, arrays, strict=True))
    assert all(map(np.array_equal, (first[0], *first[1]), (again[0], *again[1])))


@ALL
def test_state_is_as_declared(name: str) -> None:
    rule = rule_of(name)
    inner = rules.named(name.rpartition("+")[2])
    w = start()
    slots = rule.init(on_numpy.NUMPY, w)
    assert len(set(rule.slots)) == len(rule.slots) == len(slots)
    assert rule.slots[: len(inner.slots)] == inner.slots, "a wrapper's own state comes last"
    assert {*rule.signed, *rule.positive} <= {*rule.slots}
    assert not any(np.shares_memory(slot, w) for slot in slots)
    assert [field.name for field in fields(rule)][: len(fields(inner))] == [
        field.name for field in fields(inner)
    ]


@ALL
def test_a_body_is_inlined_as_one(name: str) -> None:
    rule = rule_of(name)
    if rule.whole:
        pytest.skip("rules that see whole arrays have no kernel of their own")
    slots = [f"slot{n}" for n in range(len(rule.slots))]
    given = [XP, K, "w", "g", *(f"read{n}" for n in range(len(rule.extra_inputs))), *slots]
    assert len(Body(rule).call(rule.update, given)) == 1 + len(slots)
    assert not rule.sums or len(Body(rule).call(rule.addends, given)) == len(rule.sums)
    assert isinstance(Body(rule).call(rule.evaluate, [XP, K, "w", *slots]), str)


@ALL
def test_the_weights_to_test_are_of_the_size_of_the_weights_trained(name: str) -> None:
    rule = rule_of(name)
    k, _ = rule.constants(HOST, STEPS, dict.fromkeys(rule.shared, 1.0))
    w, *slots = path(rule)[-1]
    tested = rule.evaluate(on_numpy.NUMPY, k, w, *slots)
    assert tested.shape == w.shape
    assert rule.evaluates() != np.array_equal(tested, w)


@ALL
def test_two_weights_share_what_is_shared_alone(name: str) -> None:
    """A second weight changes the path of the first only through sums over the model."""
    rule, other = rule_of(name), start(1)
    alone = path(rule)[-1]
    rows = [[w, *rule.init(on_numpy.NUMPY, w)] for w in (start(), other)]
    shared = [dict(rule.shared) for _ in rows]
    for t in range(1, STEPS + 1):
        full = [(w, *given(rule, w, t), *slots) for w, *slots in rows]
        rows, shared = on_numpy.step_all(rule, t, t, full, shared)
    alike = all(map(np.array_equal, alone, rows[0]))
    assert alike == (not rule.sums or rule.scope == "weight")


@each(("name", "knob"), KNOBS)
def test_every_knob_of_a_wrapper_moves_the_weights(name: str, knob: str) -> None:
    rule = rule_of(f"{name}+momentum")
    value = getattr(rule, knob)
    moved = replace(rule, **{knob: value + 2 if isinstance(value, int) else 0.5 * value + 0.07})
    if knob == "radius":
        assert rule.perturb is not None, "the engine goes up the slope by it, before the step"
        return
    w, *slots = (np.array([row[place] for row in path(rule)]) for place in range(1 + len(rule.slots)))
    others = [np.array([row[place] for row in path(moved)]) for place in range(1 + len(rule.slots))]
    shipped = slots[-1] if name == "averaged" else w
    assert not np.array_equal(shipped, others[-1] if name == "averaged" else others[0])


@each(("name", "knob"), KNOBS)
def test_a_knob_out_of_range_is_refused_with_its_meaning(name: str, knob: str) -> None:
    title = wrap.WRAPPERS[name].prefix + "Momentum"
    with pytest.raises(UserError, match=rf"{title}'s {knob} must .*got -1.*It is "):
        rules.named(f"{name}+momentum", **{knob: -1})


@each("name", sorted(wrap.WRAPPERS))
def test_every_number_may_be_a_schedule(name: str) -> None:
    plain = rule_of(f"{name}+adamw")
    constant = {knob: schedule.Constant(getattr(plain, knob)) for knob in plain.numbers()}
    assert all(map(np.array_equal, path(replace(plain, **constant))[-1], path(plain)[-1]))


def trained(rule: Rule, stop: int | None = None, sizes: tuple[int, ...] = (5, 33)) -> list[torch.Tensor]:
    """Weights and state after 11 steps of the torch engine; with `stop`, saved and loaded after that many."""
    draw = torch.Generator().manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(n, generator=draw, dtype=torch.float64)) for n in sizes]
    optimizer = RuleOptimizer(weights, rule)
    for t in range(1, STEPS + 1):
        for w in weights:
            w.grad = 0.5 * w.detach() + torch.randn(w.shape, generator=draw, dtype=torch.float64)
        optimizer._step()
        if t == stop:
            saved = optimizer.state_dict()
            weights = [torch.nn.Parameter(w.detach().clone()) for w in weights]
            optimizer = RuleOptimizer(weights, rule)
            optimizer.load_state_dict(saved)
    slots = (slot for w in weights for slot in optimizer.state[w].values())
    return [w.detach() for w in weights] + [slot for slot in slots if slot.dim()]


@COMPILED
def test_a_run_goes_on_to_the_same_bits_from_its_kernel(name: str) -> None:
    rule = rule_of(name)
    assert all(map(torch.equal, trained(rule), trained(rule, stop=5)))


@COMPILED
def test_kernels_agree_with_plain_operations(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = rule_of(name)
    compiled = trained(rule)
    monkeypatch.setattr(on_numba, "table", lambda *_: None)
    for one, other in zip(compiled, trained(rule), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=32 * STEPS * EPS)
