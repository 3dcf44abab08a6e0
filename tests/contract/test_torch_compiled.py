"""The compiled engine, with inductor for the CPU: the reference's numbers, one compilation."""

import math
import os
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

import steepest.torch as ours
from each import each
from steepest import rules
from steepest.optim.engines import on_inductor, on_numpy, on_torch
from steepest.optim.engines.on_inductor import Flat
from steepest.optim.engines.on_numpy import NUMPY
from steepest.optim.engines.torch import weight_group
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule

COMPILER = os.environ.get("CXX", "g++")
needs_compiler = pytest.mark.skipif(
    shutil.which(COMPILER) is None,
    reason=f"torch.compile for the CPU needs a C++ compiler, and {COMPILER} is not there",
)
STEPS = 30
SHAPES = ((0,), (1,), (5,), (33,), (3, 4))
SAMPLE = ("adamw", "ftrl", "lion", "madgrad", "nadam", "rprop", "schedulefreeadamw", "sophiag")
"""Among them what is read beside gradients, shared scalars, powers and signs; all rules by elements are in
`benchmarks/conformance.py engines`."""


def drawn(shape: tuple[int, ...], t: int) -> np.ndarray:
    """Numbers that float32 holds exactly, away from zero, where a sign would be a rounding error."""
    size = math.prod(shape)
    values = np.random.default_rng([size, t]).uniform(0.5, 2, size) * np.where(np.arange(size) % 3, 1, -1)
    return values.astype(np.float32).astype(np.float64).reshape(shape)


def rule_of(name: str) -> Rule:
    knobs = {"weight_decay": 0.1, "eps": 1e-3, "lr": 0.01}
    known = rules.registry()[name].numbers()
    return rules.named(name, **{knob: value for knob, value in knobs.items() if knob in known})


def weights(dtype: torch.dtype = torch.float32, shapes: Any = SHAPES) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.tensor(drawn(shape, 0), dtype=dtype)) for shape in shapes]


def move(optimizer: RuleOptimizer, steps: range, absent: Any = ()) -> None:
    """Steps t with gradients of time t; absent: pairs (t, number of the weight) without one."""
    for t in steps:
        own = [w for group in optimizer.param_groups for w in group["params"]]
        for number, w in enumerate(own):
            w.grad = None if (t, number) in absent else torch.tensor(drawn(tuple(w.shape), t), dtype=w.dtype)
        optimizer.step()


def engines(optimizer: RuleOptimizer) -> set[type]:
    assert optimizer._plan is not None
    return {type(engine) for family in optimizer._plan.weight_groups for engine in family.engines}


def twins(rule: Rule, dtype: torch.dtype = torch.float32, **kept: Any) -> tuple[RuleOptimizer, RuleOptimizer]:
    a, b = (RuleOptimizer(weights(dtype), rule, engine=one, **kept) for one in ("compiled", "torch"))
    return a, b


def values(optimizer: RuleOptimizer) -> list[torch.Tensor]:
    return [w.detach() for group in optimizer.param_groups for w in group["params"]]


def few_roundings(dtype: torch.dtype, steps: int = STEPS) -> dict[str, Any]:
    """A few roundings a step, of numbers of size one, which later steps pass on a few times."""
    return {"rtol": 0, "atol": 32 * steps * float(torch.finfo(dtype).eps)}


def assert_near(a: RuleOptimizer, b: RuleOptimizer, dtype: torch.dtype = torch.float32) -> None:
    torch.testing.assert_close(values(a), values(b), **few_roundings(dtype))


@needs_compiler
@each("name", SAMPLE, push=2)
def test_it_agrees_with_the_reference(name: str) -> None:
    rule, dtype = rule_of(name), torch.float64 if name == "adamw" else torch.float32
    optimizer = RuleOptimizer(weights(dtype), rule, engine="compiled")
    rows = [(drawn(shape, 0), *rule.init(NUMPY, drawn(shape, 0))) for shape in SHAPES]
    shared = [dict(rule.shared) for _ in SHAPES]
    for t in range(1, STEPS + 1):
        gs = [drawn(shape, t) for shape in SHAPES]
        read = [[np.abs(g)] * len(rule.extra_inputs) for g in gs]
        arrays = [(w, g, *x, *slots) for (w, *slots), g, x in zip(rows, gs, read, strict=True)]
        rows, shared = on_numpy.step_all(rule, t, t, arrays, shared)
        gradients = [torch.tensor(g, dtype=dtype) for g in gs]
        optimizer.step(
            gradients=gradients, reads={one: [g.abs() for g in gradients] for one in rule.extra_inputs}
        )
    assert engines(optimizer) == {Flat}
    for w, (wanted, *_) in zip(values(optimizer), rows, strict=True):
        np.testing.assert_allclose(w.double().numpy(), wanted, **few_roundings(dtype))


@needs_compiler
def test_one_compilation_whatever_rate_betas_step_and_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_inductor, "_updates", {})
    counters.clear()
    rule = rules.AdamW(lr=lambda step: 0.01 / step)  # type: ignore[arg-type]
    groups = [{"params": weights()[:2], "weight_decay": 0.0}, {"params": weights()[2:]}]
    optimizer = RuleOptimizer(groups, rule, engine="compiled")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for t in range(1, STEPS + 1):
            optimizer.param_groups[1]["betas"] = (0.9 - t / 100, 0.99)
            move(optimizer, range(t, t + 1), absent={(7, 3)})
            assert counters["stats"]["unique_graphs"] == 1
        assert engines(optimizer) == {Flat}
        other = RuleOptimizer(weights(shapes=((7, 11), (2,))), rules.AdamW(), engine="compiled")
        move(other, range(1, 4))
    assert counters["stats"]["unique_graphs"] == 1
    assert optimizer.param_groups[0]["lr"] == 0.01 / STEPS


@needs_compiler
def test_changing_numbers_act() -> None:
    a, b = twins(rules.AdamW(lr=0.1))
    for optimizer in (a, b):
        for t in range(1, 6):
            optimizer.param_groups[0].update(lr=0.1 / t, betas=(0.5 + t / 100, 0.9), maximize=t == 3)
            move(optimizer, range(t, t + 1))
    assert_near(a, b)


@needs_compiler
def test_a_missing_gradient_leaves_a_weight_and_its_count_behind() -> None:
    a, b = twins(rules.AdamW(lr=0.01))
    for optimizer in (a, b):
        move(optimizer, range(1, 8), absent={(1, 3), (3, 2), (4, 2), (6, 4)})
    assert_near(a, b)
    assert [float(a.state[w]["step"]) for w in a.param_groups[0]["params"]] == [7, 7, 5, 6, 6]


@needs_compiler
def test_slots_of_small_weights_lie_in_one_buffer_and_weights_stay_where_they_are() -> None:
    own = weights()
    places = [w.data_ptr() for w in own]
    optimizer = RuleOptimizer(own, rules.AdamW(), engine="compiled")
    move(optimizer, range(1, 4))
    assert [w.data_ptr() for w in own] == places
    keys = ("exp_avg", "exp_avg_sq")
    grounds = [{optimizer.state[w][key].untyped_storage().data_ptr() for w in own} for key in keys]
    assert [len(one) for one in grounds] == [1, 1]
    assert grounds[0] != grounds[1]


@needs_compiler
def test_slots_stay_where_they_are_while_weights_take_turns() -> None:
    optimizer = RuleOptimizer(weights(), rules.AdamW(), engine="compiled")
    move(optimizer, range(1, 2))
    before = [optimizer.state[w]["exp_avg"].data_ptr() for w in optimizer.param_groups[0]["params"]]
    move(optimizer, range(2, 6), absent={(2, 1), (3, 2), (4, 3), (5, 4)})
    assert [optimizer.state[w]["exp_avg"].data_ptr() for w in optimizer.param_groups[0]["params"]] == before


@needs_compiler
def test_a_large_weight_moves_in_place_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for least in (on_inductor.DIRECT, 5):
        monkeypatch.setattr(on_inductor, "DIRECT", least)
        own = weights()
        optimizer = RuleOptimizer(own, rules.AdamW(lr=0.01), engine="compiled")
        versions = [w._version for w in own]
        move(optimizer, range(1, 5))
        stretches = optimizer._plan.weight_groups[0].engines[0].stretches  # type: ignore[union-attr]
        assert sum(one.direct for one in stretches) == (3 if least == 5 else 0)
        assert all(w._version > before for w, before in zip(own, versions, strict=True))
        found.append(values(optimizer))
    torch.testing.assert_close(*found, rtol=0, atol=0)


@needs_compiler
@pytest.mark.parametrize("least", [on_inductor.DIRECT, 2])
def test_strided_weights_and_gradients(least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_inductor, "DIRECT", least)
    ground = torch.tensor(drawn((4, 6, 2), 0), dtype=torch.float32)
    before, found = ground[..., 1].clone(), []
    for engine in ("compiled", "torch"):
        memory = ground.clone()
        own = [memory[..., 0].requires_grad_(), ground[..., 0].t().clone().t(), ground[..., 0].contiguous()]
        optimizer = RuleOptimizer(own, rules.AdamW(lr=0.01), engine=engine)
        for t in range(1, 5):
            optimizer.step(gradients=[torch.tensor(drawn((6, 4), t), dtype=torch.float32).t()] * 3)
        torch.testing.assert_close(memory[..., 1], before, rtol=0, atol=0)
        found.append(values(optimizer))
    torch.testing.assert_close(*found, **few_roundings(torch.float32))


@needs_compiler
def test_16_bit_weights_are_rounded_once_and_keep_full_state() -> None:
    a, b = twins(rules.AdamW(lr=0.01), torch.bfloat16)
    for optimizer in (a, b):
        move(optimizer, range(1, 11))
    assert engines(a) == {Flat}
    assert {x.dtype for entry in a.state.values() for x in entry.values()} == {torch.float32}
    # Two float32 numbers a rounding apart may lie on two sides of a half: one place of the last bit a step.
    eps = float(torch.finfo(torch.bfloat16).eps)
    torch.testing.assert_close(values(a), values(b), rtol=10 * eps, atol=0)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("least", [on_inductor.DIRECT, 2])
def test_gradients_of_another_dtype_compile_nothing_in_a_step(
    least: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compilation that failed there would have moved some weights and not others."""
    monkeypatch.setattr(on_inductor, "DIRECT", least)
    monkeypatch.setattr(on_inductor, "_updates", {})
    a, b = twins(rules.SGD(lr=0.01), dtype)
    for optimizer in (a, b):
        move(optimizer, range(1))
    assert engines(a) == {Flat}
    with torch._dynamo.config.patch(error_on_recompile=True):
        for given in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
            gradients = [torch.from_numpy(drawn(tuple(w.shape), 1)).to(given) for w in values_of(a)]
            a.step(gradients=gradients)
            b.step(gradients=gradients)
    assert_near(a, b, dtype)


def values_of(optimizer: RuleOptimizer) -> list[torch.Tensor]:
    return [w for group in optimizer.param_groups for w in group["params"]]


@needs_compiler
def test_a_run_resumes_to_the_same_bits() -> None:
    absent = {(3, 2), (9, 4)}
    straight = RuleOptimizer(weights(), rules.AdamW(lr=0.01), engine="compiled")
    move(straight, range(1, 13), absent)
    first = RuleOptimizer(weights(), rules.AdamW(lr=0.01), engine="compiled")
    move(first, range(1, 7), absent)
    own = [torch.nn.Parameter(w.clone()) for w in values(first)]
    second = RuleOptimizer(own, rules.AdamW(lr=0.01), engine="compiled")
    second.load_state_dict(first.state_dict())
    move(second, range(7, 13), absent)
    torch.testing.assert_close(values(second), values(straight), rtol=0, atol=0)
    for a, b in zip(second.state.values(), straight.state.values(), strict=True):
        torch.testing.assert_close(dict(a), dict(b), rtol=0, atol=0)


@needs_compiler
def test_a_weight_that_becomes_of_another_kind_is_planned_anew() -> None:
    weight = torch.nn.Parameter(torch.ones(5))
    optimizer = RuleOptimizer([weight], rules.AdamW(), engine="compiled")
    move(optimizer, range(1, 3))
    weight.grad, weight.data = None, torch.full((5,), 1 + 1e-12, dtype=torch.float64)
    optimizer.param_groups[0]["lr"] = 0.0
    move(optimizer, range(3, 4))
    assert weight.tolist() == [1 + 1e-12] * 5


@needs_compiler
def test_the_weights_to_ship_and_an_average() -> None:
    for rule, average in ((rule_of("schedulefreeadamw"), None), (rules.AdamW(lr=0.01), 0.9)):
        a, b = twins(rule, average=average)
        shipped = []
        for optimizer in (a, b):
            move(optimizer, range(1, 8))
            trained = [w.clone() for w in values(optimizer)]
            with optimizer.evaluate():
                shipped.append([w.clone() for w in values(optimizer)])
            assert not torch.equal(shipped[-1][-1], trained[-1])
            torch.testing.assert_close(values(optimizer), trained, rtol=0, atol=0)
        assert engines(a) == {Flat}
        torch.testing.assert_close(*shipped, **few_roundings(torch.float32))


@needs_compiler
def test_masks_of_decay_hold() -> None:
    found = []
    for engine in ("compiled", "torch"):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 3))
        optimizer = ours.optimizer(net, rules.AdamW(lr=0.01, weight_decay=10.0), engine=engine)
        for _ in range(4):
            optimizer.step(gradients=[torch.zeros_like(w) for w in values(optimizer)])
        found.append(dict(net.named_parameters()))
    assert engines(optimizer) != {Flat}
    torch.testing.assert_close(*found, **few_roundings(torch.float32))
    torch.testing.assert_close(found[0]["1.weight"].detach(), torch.ones(4), rtol=0, atol=0)


@needs_compiler
def test_gradients_are_zeroed_where_asked_for_and_scaled() -> None:
    a, b = twins(rules.AdamW(lr=0.01, eps=0.1))
    for optimizer, scale in ((a, 0.5), (b, 0.5)):
        for w in optimizer.param_groups[0]["params"]:
            w.grad = torch.ones_like(w)
        optimizer.step(scale=scale, zero_grad=True)
        assert all(not w.grad.any() for w in optimizer.param_groups[0]["params"])
    assert_near(a, b)


@needs_compiler
def test_updates_in_backward() -> None:
    found = []
    for within in (True, False):
        own = weights()
        optimizer = RuleOptimizer(own, rules.AdamW(lr=0.01), engine="compiled")
        held = ours.in_backward(optimizer) if within else None
        for _ in range(3):
            sum((w**2).sum() for w in own).backward()  # type: ignore[union-attr]
            optimizer.step()
            optimizer.zero_grad()
        assert (held is not None) == within
        found.append(values(optimizer))
    torch.testing.assert_close(*found, **few_roundings(torch.float32))


@pytest.mark.parametrize("name", ["lamb", "prodigy", "adafactor"])
def test_rules_with_sums_and_of_whole_arrays_go_through_plain_torch(name: str) -> None:
    optimizer = RuleOptimizer(weights(shapes=((3, 4),)), rules.named(name), engine="compiled")
    move(optimizer, range(1, 3))
    assert engines(optimizer) == {on_torch.Leaves}


def test_weights_that_share_memory_move_one_after_the_other() -> None:
    memory = torch.ones(40)
    optimizer = RuleOptimizer([memory[:30], memory[10:]], rules.SGD(lr=1.0), engine="compiled")
    optimizer.step(gradients=[torch.ones(30), torch.ones(30)])
    assert engines(optimizer) == {on_torch.Leaves}
    assert memory.tolist() == [0.0] * 10 + [-1.0] * 20 + [0.0] * 10


@pytest.mark.parametrize(
    "kept", [{"state_dtype": "8bit"}, {"rounding": "stochastic"}, {"rounding": "compensated"}]
)
def test_few_bits_go_through_plain_torch(kept: dict[str, str]) -> None:
    optimizer = RuleOptimizer(weights(torch.bfloat16), rules.AdamW(), engine="compiled", **kept)  # type: ignore[arg-type]
    move(optimizer, range(1, 3))
    assert engines(optimizer) == {on_torch.Leaves}


def test_without_a_compiler_it_warns_once_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(on_inductor, "_updates", {})
    monkeypatch.setattr(torch, "compile", fails)
    a, b = twins(rules.AdamW(lr=0.01))
    with pytest.warns(
        RuntimeWarning, match="weight by weight: torch.compile failed.*no compiler here"
    ) as seen:
        move(a, range(1, 6), absent={(2, 2)})
    move(b, range(1, 6), absent={(2, 2)})
    assert len(seen) == 1
    assert engines(a) == {on_torch.Leaves}
    torch.testing.assert_close(values(a), values(b), rtol=0, atol=0)


def test_the_engine_goes_by_the_device_unless_it_is_named() -> None:
    assert [weight_group.of_device(None, one) for one in ("cpu", "cuda", "mps")] == [
        "numba",
        "compiled",
        "compiled",
    ]
    assert weight_group.of_device("torch", "cuda") == "torch"
    with pytest.raises(UserError, match=r"'numba', 'torch', 'compiled'.*got 'fast'"):
        ours.optimizer(torch.nn.Linear(2, 2), "adamw", engine="fast")
