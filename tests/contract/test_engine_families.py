"""Weights of one formula move together: sums over models and over weights, moments, groups, what is read."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from steepest import rules
from steepest.optim.engines import on_numba, on_numpy
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.engines.torch.weight_group import WeightGroup
from steepest.optim.errors import UserError
from steepest.optim.maths import lerp
from steepest.optim.rule import Number, Rule

STEPS = 6
SIZES = (7, 0, 1, 100, 70_000)  # the last has more than one piece
KINDS = (torch.float32, torch.float64, torch.float32, torch.float64, torch.float32)
ATOL = 64 * STEPS * float(torch.finfo(torch.float32).eps)


@dataclass(frozen=True)
class Travelled(Rule):
    """Steps as long as the model's way and gradient say, with what they said first kept for good."""

    lr: Number = 0.5
    eps: Number = 1e-3
    weight_decay: Number = 0.0

    slots = ("w0", "m")
    shared: ClassVar[Mapping[str, float]] = {"longest": 0.0}
    sums = ("way", "square")

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        return 1.0 * w, xp.zeros_like(w)

    def scalars(self, xp: Any, t: Any, longest: Any) -> dict[str, Any]:
        return {"c": 1 / t}

    @staticmethod
    def measure(xp: Any, k: Any, w: Any, g: Any, w0: Any, m: Any) -> tuple[Any, ...]:
        return (w - w0) * (w - w0), k.c * g * g

    def finalize(self, xp: Any, t: Any, n: Any, way: Any, square: Any, longest: Any) -> dict[str, Any]:
        longest = xp.maximum(longest, xp.sqrt(way / n) + self.eps)
        return {"longest": longest, "rate": longest / xp.sqrt(square / n + self.eps)}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, w0: Any, m: Any) -> tuple[Any, ...]:
        m = lerp(m, g, 0.5)
        return k.rate * m, w0, m


@dataclass(frozen=True)
class Each(Travelled):
    """The same for each weight on its own."""

    scope = "weight"


@dataclass(frozen=True)
class Reading(Rule):
    """Divides by an array that comes with the gradient."""

    lr: Number = 0.5

    slots = ("m",)
    extra_inputs = ("d",)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, d: Any, m: Any) -> tuple[Any, ...]:
        m = lerp(m, g, 0.5)
        return m / (1 + d * d), m


@dataclass(frozen=True)
class Rows(Rule):
    """Sees its weight whole, and keeps a number a row."""

    lr: Number = 0.5

    slots = ("r",)
    whole = True

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        return (xp.zeros_like(w[:, 0]),)

    def direction(self, xp: Any, k: Any, w: Any, g: Any, r: Any) -> tuple[Any, ...]:
        r = r + (g * g).sum(1)
        return g / (1 + r[:, None]), r


def numbers(size: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng([size, seed]).uniform(0.5, 2, size).astype(np.float32)
    return draw.astype(np.float64)


def moved(rule: Rule, steps: int = STEPS, **options: Any) -> RuleOptimizer:
    pairs = list(zip(SIZES, KINDS, strict=True))
    weights = [torch.nn.Parameter(torch.tensor(numbers(size, 0), dtype=kind)) for size, kind in pairs]
    groups = [{"params": weights[:2]}, {"params": weights[2:], "lr": rule.lr * 0.5}]
    optimizer = RuleOptimizer(groups, rule)
    for step in range(1, steps + 1):
        gradients = [torch.tensor(numbers(w.numel(), step), dtype=w.dtype) for w in weights]
        optimizer.step(gradients=gradients, **{key: of(weights) for key, of in options.items()})
    return optimizer


def expected(rule: Rule, reads: int = 0) -> list[np.ndarray]:
    arrays = [(numbers(n, 0), *rule.init(np, numbers(n, 0))) for n in SIZES]
    shared = [dict(rule.shared) for _ in SIZES]
    own = [replace(rule, lr=rule.lr * (1 if n < 2 else 0.5)) for n in range(len(SIZES))]
    for t in range(1, STEPS + 1):
        rows = [
            (w, numbers(n, t), *[numbers(n, 99)] * reads, *slots)
            for n, (w, *slots) in zip(SIZES, arrays, strict=True)
        ]
        found = [on_numpy.step_all(one, t, t, rows, shared) for one in own]
        arrays = [found[n][0][n] for n in range(len(SIZES))]
        shared = [found[n][1][n] for n in range(len(SIZES))]
    return [w for w, *_ in arrays]


def assert_near(optimizer: RuleOptimizer, wanted: list[np.ndarray]) -> None:
    weights = [w for group in optimizer.param_groups for w in group["params"]]
    for w, value in zip(weights, wanted, strict=True):
        np.testing.assert_allclose(w.detach().double().numpy(), value, rtol=0, atol=ATOL)


def engines(optimizer: RuleOptimizer) -> list[str]:
    return [type(engine).__name__ for family in optimizer._plan.weight_groups for engine in family.engines]


@pytest.mark.parametrize("rule", [Travelled(), Each()])
@pytest.mark.parametrize("plain", [(), (torch.float64,), (torch.float32, torch.float64)])
def test_sums_run_over_all_engines(rule: Rule, plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    table = on_numba.table
    monkeypatch.setattr(on_numba, "table", lambda *a: None if a[1] in plain else table(*a))
    optimizer = moved(rule)
    assert sorted(engines(optimizer)) == ["Leaves"] * len(plain) + ["Table"] * (2 - len(plain))
    assert_near(optimizer, expected(rule))


BY_WEIGHT = [
    *(rules.named(name) for name in ("lamb", "lars", "mars", "stableadamw", "novograd", "ldog")),
    *(rules.named(name) for name in ("cautious+adamw", "cautious_clamped+lion", "trust_ratio+momentum")),
]


def by_weight(rule: Rule) -> tuple[list[torch.Tensor], WeightGroup]:
    """Weights and state after steps with gradients of zero, missing ones, and one that is not finite."""
    draw = torch.Generator().manual_seed(0)
    own = [torch.nn.Parameter(torch.randn(n, generator=draw)) for n in (7, 5, 1, 100, 9, 8)]
    own[1].data.zero_()
    optimizer = RuleOptimizer([{"params": own[:3]}, {"params": own[3:], "lr": 0.01}], rule)
    for t in range(STEPS):
        for n, w in enumerate(own):
            w.grad = None if t == 2 and n % 2 else torch.randn(w.shape, generator=draw) * (n != 4)
        if t == STEPS - 1:
            own[0].grad = torch.full_like(own[0], torch.inf)
        optimizer.step()
    assert optimizer._plan is not None
    state = [x.nan_to_num(7.0) for w in own for x in optimizer.state[w].values()]
    return [w.detach().nan_to_num(7.0) for w in own] + state, optimizer._plan.weight_groups[0]


@pytest.mark.parametrize("rule", BY_WEIGHT, ids=lambda rule: type(rule).__name__)
def test_constants_made_together_are_those_of_each_weight(
    rule: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, family = by_weight(rule)
    assert bool(family.alike) == (not rule.shared)
    monkeypatch.setattr(WeightGroup, "_alike", lambda self: [])
    assert all(map(torch.equal, together, by_weight(rule)[0]))


def test_what_is_read_beside_the_gradient_has_a_column() -> None:
    extra = lambda weights: {"d": [torch.tensor(numbers(w.numel(), 99), dtype=w.dtype) for w in weights]}  # noqa: E731
    optimizer = moved(Reading(), reads=extra)
    assert engines(optimizer) == ["Table", "Table"]
    assert_near(optimizer, expected(Reading(), reads=1))


@pytest.mark.parametrize(
    "reads", [None, {}, {"d": []}, {"d": [None]}, {"d": [torch.ones(3)]}, {"d": [torch.eye(2).to_sparse()]}]
)
def test_missing_and_misshapen_reads_are_refused_before_anything_moves(reads: Any) -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    given = {"gradients": [torch.ones(2, 2)]}
    optimizer = RuleOptimizer([weight], Reading())
    with pytest.raises(UserError, match=r"'d'|A d of shape|has a d in"):
        optimizer.step(**given, reads=reads)
    assert torch.equal(weight.detach(), torch.ones(2, 2))
    assert not optimizer.state
    optimizer.step(**given, reads={"d": [torch.ones(2, 2)]})
    with pytest.raises(UserError, match=r"'d'|A d of shape|has a d in"):
        optimizer.step(**given, reads=reads)
    assert int(optimizer.state[weight]["step"]) == 1


def test_a_rule_of_whole_arrays_has_state_of_its_own_shape() -> None:
    weight = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = RuleOptimizer([weight], Rows())
    w, r = np.ones((3, 2)), np.zeros(3)
    for step in range(1, STEPS):
        g = numbers(6, step).reshape(3, 2)
        optimizer.step(gradients=[torch.tensor(g, dtype=torch.float32)])
        w, (r,), _ = on_numpy.step(Rows(), step, step, w, g, (r,), {})
    assert optimizer.state[weight]["r"].shape == (3,)
    np.testing.assert_allclose(weight.detach().numpy(), w, rtol=0, atol=ATOL)
    with pytest.raises(UserError, match="complex"):
        RuleOptimizer([torch.nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))], Rows()).step(
            gradients=[torch.ones(2, 2, dtype=torch.complex64)]
        )


@dataclass(frozen=True)
class Handing(Rule):
    """Gradients handed on from slot to slot, in whole arrays: nothing is computed where one is."""

    lr: Number = 0.5
    slots = ("first", "second", "third")
    whole = True

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, first: Any, second: Any, third: Any) -> tuple[Any, ...]:
        return third, g, first, second

    @staticmethod
    def follow(xp: Any, k: Any, w: Any, u: Any) -> Any:
        return u


def test_a_slot_that_takes_over_another_takes_what_it_was() -> None:
    w = torch.nn.Parameter(torch.zeros(3, 3))
    optimizer = RuleOptimizer([w], Handing())
    for t in range(1, 7):
        w.grad = torch.full_like(w, t)
        optimizer.step()
        found = [float(x[0, 0]) for x in (*(optimizer.state[w][name] for name in Handing.slots), w.detach())]
        assert found == [max(0, t - back) for back in range(4)]


def test_decay_groups_and_late_weights_share_one_call() -> None:
    """What each group has of its own is a row of constants, and each count of updates another."""
    weights = [torch.nn.Parameter(torch.ones(n + 1)) for n in range(4)]
    alone = [torch.nn.Parameter(torch.ones(n + 1)) for n in range(4)]
    rule = rules.AdamW(lr=0.1)
    groups = [{"params": weights[:2], "weight_decay": 0.5}, {"params": weights[2:], "maximize": True}]
    optimizer = RuleOptimizer(groups, rule)
    lonely = [RuleOptimizer([{**groups[n // 2], "params": [w]}], rule) for n, w in enumerate(alone)]
    for step in range(STEPS):
        for n, (w, a, own) in enumerate(zip(weights, alone, lonely, strict=True)):
            w.grad = a.grad = None if (step, n) in ((0, 1), (2, 3)) else torch.full((n + 1,), 1.0 + step)
            own.step()
        optimizer.step()
        assert len(optimizer._plan.weight_groups) == len(optimizer._plan.weight_groups[0].engines) == 1
    assert len(optimizer._plan.weight_groups[0].moments) == 4
    for w, a in zip(weights, alone, strict=True):
        assert torch.equal(w, a)


def test_the_scalars_of_a_model_advance_for_all_of_its_weights() -> None:
    first, second, late = (torch.nn.Parameter(torch.full((5,), 2.0)) for _ in range(3))
    optimizer = RuleOptimizer([first, second], Travelled())
    for step in range(STEPS):
        first.grad = torch.ones(5)
        second.grad = None if step in (2, 3) else torch.ones(5)
        optimizer.step()
        longest = {float(optimizer.state[w]["longest"]) for w in (first, second)}
        assert len(longest) == 1
    assert [int(optimizer.state[w]["step"]) for w in (first, second)] == [STEPS, STEPS - 2]
    optimizer.add_param_group({"params": [late]})
    late.grad = torch.ones(5)
    optimizer.step()
    assert float(optimizer.state[late]["longest"]) == float(optimizer.state[first]["longest"]) >= max(longest)


def test_state_before_the_first_step_is_made_by_the_rule_of_that_step() -> None:
    @dataclass(frozen=True)
    class Starting(Rule):
        slots = ("s",)

        def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
            return (xp.full_like(w, self.lr),)

        @staticmethod
        def direction(xp: Any, k: Any, w: Any, g: Any, s: Any) -> tuple[Any, ...]:
            return s * g, s

    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = RuleOptimizer([weight], Starting(lr=lambda step: 2.0**step))
    optimizer.steps = 2
    optimizer.step(gradients=[torch.ones(3)])
    assert torch.equal(optimizer.state[weight]["s"], torch.full((3,), 8.0))
