"""∂w⁺/∂h is the derivative of the step that is taken: beside finite differences, for every rule and number.

The differences are of the float64 reference engine, another path through the rule than the one under test."""

import gc
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from each import each
from steepest import rules
from steepest.optim.engines import on_numpy
from steepest.optim.engines.on_numpy import NUMPY
from steepest.optim.engines.torch import hypergradient
from steepest.optim.engines.torch.hypergradient import dots, tangents
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule

REGISTRY = rules.registry()
PAIRS = [(name, number) for name in sorted(REGISTRY) for number in REGISTRY[name].numbers()]
SHAPES = ((4, 3), (3, 5))
WITHIN = 1e-6
"""How far a slope may be from the difference, as a share of the largest slope."""
DOUBLE = torch.float64
EPS = 2.0**-52

JUMPS = "its part in the step is a sign, which moves by jumps: zero almost everywhere"
LATER = "it acts on what is kept: the weights feel it from the next step on"
SWITCH = "it says when something is done: zero almost everywhere"

ZERO = {
    ("adamuon", "momentum"): JUMPS,
    ("adopt", "beta2"): LATER,
    ("asgd", "t0"): LATER,
    ("dadaptadam", "growth"): LATER,
    ("dion", "momentum"): LATER,
    ("klshampoo", "beta2"): LATER,
    ("klshampoo", "damping"): LATER,
    ("klshampoo", "initial"): LATER,
    ("kron", "fall"): SWITCH,
    ("lion", "beta1"): JUMPS,
    ("lion", "beta2"): LATER,
    ("rprop", "shrink"): LATER,
    ("signum", "momentum"): JUMPS,
}
"""The numbers that one step cannot tell anything about, and why."""

VALUES = {
    "lr": (0.7, 0.05),
    "beta2": (0.95, 0.6),
    "eps": (0.1, 1.0),
    "eps1": (0.1, 3.0),
    "eps2": (0.1, 3.0),
    "weight_decay": (0.3,),
    "threshold": (0.4, 1.0),
    "growth": (20.0, 1.02),
    "growth_limit": (1.01,),
    "clip": (2.0, 0.01),
    "longest": (50.0, 0.06),
    "shortest": (1e-6, 0.9),
    "l1": (0.2,),
    "peak": (0.9,),
    "momentum_decay": (0.1,),
    "lr_decay": (0.2,),
    "cap": (0.999, 0.3),
    "trust": (0.1,),
    "kappa": (0.05,),
    "damping": (0.1,),
    "grow": (1.2,),
    "shrink": (0.5,),
    "t0": (2.5,),
    "fall": (0.1,),
    "coefficient": (1.3,),
}
"""Where each number is looked at, and before that, where it stands for the others: away from its ends, and
where it counts. Those not named: 0.6."""

FIXED = {"every": 1, "rank": 2, "steps": 3, "initial": 0.1, "reps": 0.1}
"""Structure that lets numbers count in a few steps, and distances that are no rounding errors beside w."""


def noise(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


@dataclass
class Situation:
    """A rule and its state before step t, for all weights together."""

    rule: Rule
    t: int

    def walked(self) -> tuple[list[Any], list[dict[str, float]]]:
        """(rows, shared) before the step: arrays (w, *slots) of each weight."""
        rows = [(noise(0, shape), *self.rule.init(NUMPY, noise(0, shape))) for shape in self.shapes]
        shared = [dict(self.rule.shared) for _ in rows]
        for t in range(1, self.t):
            arrays = [(w, *self.inputs(t, w.shape), *slots) for w, *slots in rows]
            rows, shared = on_numpy.step_all(self.rule, t, t, arrays, shared)
        return rows, shared

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        shapes = [*SHAPES, *(() if self.rule.whole and not self.rule.takes((6,)) else ((6,),))]
        return [shape for shape in shapes if self.rule.takes(shape)]

    def inputs(self, t: int, shape: tuple[int, ...]) -> list[np.ndarray]:
        """The gradient of step t, part of which is the same in all, and what a rule reads besides."""
        return [
            noise(t, shape) + noise(99, shape),
            *(noise(100 + t, shape) ** 2 + 0.1 for _ in self.rule.extra_inputs),
        ]


def situations(name: str, number: str) -> Iterator[Situation]:
    kind = REGISTRY[name]
    awake = {one: VALUES.get(one, (0.6,))[0] for one in kind.numbers()}
    fixed = {one: value for one, value in FIXED.items() if one in kind.__dataclass_fields__}
    for value in VALUES.get(number, (0.6,)):
        for t in (1, 2, 8):
            yield Situation(kind(**{**awake, **fixed, number: value}), t)


def after(situation: Situation, number: str, value: float, walked: Any) -> np.ndarray:
    rows, shared = walked
    changed = replace(situation.rule, **{number: value})
    arrays = [(w, *situation.inputs(situation.t, w.shape), *slots) for w, *slots in rows]
    moved, _ = on_numpy.step_all(changed, situation.t, situation.t, arrays, shared)
    return np.concatenate([w.ravel() for w, *_ in moved])


def difference(situation: Situation, number: str) -> tuple[np.ndarray, float, float]:
    """(the slope of every weight, how far off it may be, the same by rounding alone).

    Central differences, extrapolated twice: what the last two differ by bounds the error of the last."""
    value, walked = getattr(situation.rule, number), situation.walked()
    width = 2.0**-7 * min(value, 1 - value if 0 < value < 1 else value, 0.5)
    widths = [width / 2**n for n in range(4)]
    central = [
        (after(situation, number, value + h, walked) - after(situation, number, value - h, walked)) / (2 * h)
        for h in widths
    ]
    rounding = 64 * EPS * float(np.abs(after(situation, number, value, walked)).max()) / widths[-1]
    once = [(4 * b - a) / 3 for a, b in pairwise(central)]
    twice = [(16 * b - a) / 15 for a, b in pairwise(once)]
    return twice[-1], float(np.abs(twice[-1] - twice[-2]).max()) + rounding, rounding


def slope(situation: Situation, number: str) -> np.ndarray:
    """The same by the tangents of an optimizer that has made the same steps."""
    optimizer, columns = placed(situation)
    found = tangents(optimizer, {0: {number: 1.0}}, **columns)
    return np.concatenate([x.numpy().ravel() for x in found if x is not None])


def placed(situation: Situation) -> tuple[RuleOptimizer, dict[str, Any]]:
    """(an optimizer with the state before the step, what its `step` would be given)."""
    rows, shared = situation.walked()
    weights = [torch.nn.Parameter(torch.tensor(w)) for w, *_ in rows]
    optimizer = RuleOptimizer(weights, situation.rule, engine="torch")
    tensors: dict[str, torch.Tensor] = {}
    if situation.t > 1:
        for n, ((_, *slots), own) in enumerate(zip(rows, shared, strict=True)):
            kept = dict(zip(situation.rule.slots, slots, strict=True)) | own | {"step": situation.t - 1}
            tensors |= {f"{n}/{key}": torch.as_tensor(value, dtype=DOUBLE) for key, value in kept.items()}
    counts = {"steps": torch.tensor(situation.t - 1), "factor": torch.tensor(1.0, dtype=DOUBLE)}
    optimizer.load_state_by_name(tensors | counts)
    inputs = [list(map(torch.tensor, situation.inputs(situation.t, w.shape))) for w, *_ in rows]
    gradients, *reads = map(list, zip(*inputs, strict=True))
    return optimizer, {
        "gradients": gradients,
        "reads": dict(zip(situation.rule.extra_inputs, reads, strict=True)),
    }


@cache
def compared(name: str, number: str) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """(slope, difference, tolerance) where the difference can be trusted: no kink is near."""
    made = []
    for situation in situations(name, number):
        wanted, error, rounding = difference(situation, number)
        largest = float(np.abs(wanted).max())
        if largest <= rounding:
            made.append((slope(situation, number), wanted, 2 * rounding))
        elif 2 * error <= WITHIN * largest:
            made.append((slope(situation, number), wanted, WITHIN * largest))
    return made


@each(("name", "number"), PAIRS, push=3)
def test_a_tangent_is_the_derivative_of_the_step(name: str, number: str) -> None:
    pairs = compared(name, number)
    assert pairs, "no situation away from kinks"
    for found, wanted, atol in pairs:
        np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


@each(("name", "number"), PAIRS, push=3)
def test_only_the_numbers_that_are_named_are_without_a_slope(name: str, number: str) -> None:
    flat = all(not found.any() for found, _, _ in compared(name, number))
    assert flat == ((name, number) in ZERO), ZERO.get((name, number), "no slope anywhere")


@each("name", sorted(REGISTRY))
def test_a_tangent_by_the_gradient_is_the_derivative_too(name: str) -> None:
    """What loss weights and augmentation work through; zero for rules of the gradient's sign."""
    situation = next(s for s in situations(name, "lr") if s.t == 8)
    optimizer, columns = placed(situation)
    pushes = [torch.tensor(noise(50, tuple(w.shape))) for w in optimizer.param_groups[0]["params"]]
    found = [x for x in tangents(optimizer, {}, pushes, **columns) if x is not None]
    rows, shared = situation.walked()

    def after(h: float) -> np.ndarray:
        arrays = []
        for (w, *slots), push in zip(rows, pushes, strict=True):
            g, *reads = situation.inputs(situation.t, w.shape)
            arrays.append((w, g + h * push.numpy(), *reads, *slots))
        moved, _ = on_numpy.step_all(situation.rule, situation.t, situation.t, arrays, shared)
        return np.concatenate([w.ravel() for w, *_ in moved])

    h = 2.0**-16
    central = [(after(by) - after(-by)) / (2 * by) for by in (h, h / 2)]
    wanted = (4 * central[1] - central[0]) / 3
    # Third differences of a smooth step over h, and rounding; the decompositions amplify both.
    atol = 2.0**-20 * max(float(np.abs(wanted).max()), 2.0**-16)
    np.testing.assert_allclose(np.concatenate([x.numpy().ravel() for x in found]), wanted, rtol=0, atol=atol)
    assert bool(np.any(wanted)) == (name not in ("signsgd", "signum", "lion", "rprop", "adamuon"))


def one(lr: float, curvature: float, **more: Any) -> tuple[torch.nn.Parameter, RuleOptimizer]:
    w = torch.nn.Parameter(torch.tensor([2.0], dtype=DOUBLE))
    return w, RuleOptimizer([w], rules.SGD(lr=lr), engine="torch", **more)


@each("curvature", [0.1, 1.0, 30.0])
def test_on_a_parabola_the_slope_by_the_rate_turns_at_one_over_the_curvature(curvature: float) -> None:
    slopes = []
    for lr in (0.9 / curvature, 1.0 / curvature, 1.1 / curvature):
        w, optimizer = one(lr, curvature)
        w.grad = curvature * w.detach()
        (slope,) = tangents(optimizer, {0: {"lr": 1.0}})
        optimizer.step()
        slopes += dots([curvature * w.detach()], [slope])
    scale = curvature**2 * 4
    assert slopes == pytest.approx([-0.1 * scale, 0.0, 0.1 * scale], rel=1e-12, abs=64 * EPS * scale)


def test_the_rate_in_force_counts_with_factor_scale_and_sign() -> None:
    w, optimizer = one(0.5, 1.0)
    optimizer.factor = 0.5
    optimizer.param_groups[0].update(lr_scale=3.0, maximize=True)
    w.grad = torch.tensor([1.0], dtype=DOUBLE)
    rate = optimizer.rule_of(optimizer.param_groups[0]).lr
    (slope,) = tangents(optimizer, {0: {"lr": rate}}, scale=0.25)
    assert rate == 0.75
    assert slope.item() == 0.75 * 0.25


def test_a_group_that_does_not_move_has_no_slope() -> None:
    weights = [torch.nn.Parameter(torch.ones(3, dtype=DOUBLE)) for _ in range(3)]
    optimizer = RuleOptimizer(
        [{"params": weights[:1]}, {"params": weights[1:]}], rules.AdamW(), engine="torch"
    )
    weights[0].grad, weights[1].grad = torch.ones(3, dtype=DOUBLE), torch.ones(3, dtype=DOUBLE)
    first, second, third = tangents(optimizer, {1: {"lr": 1.0}})
    assert not first.any()
    assert second.all()
    assert third is None


@each("name", sorted(REGISTRY))
def test_what_never_had_a_gradient_has_a_slope_of_its_decay_alone(name: str) -> None:
    """Dead units have v = 0, where a root has no slope: not a number would spread to all sums."""
    rule = next(situations(name, "lr")).rule
    rule = replace(rule, weight_decay=0.0) if hasattr(rule, "weight_decay") else rule
    w = torch.nn.Parameter(torch.tensor(noise(0, (4, 3))))
    optimizer = RuleOptimizer([w], rule, engine="torch")
    gradient = torch.tensor(noise(1, (4, 3)))
    gradient[1] = 0.0
    reads = {one: [gradient * gradient] for one in rule.extra_inputs}
    for number in rule.numbers():
        (slope,) = tangents(optimizer, {0: {number: 1.0}}, gradients=[gradient], reads=reads)
        assert slope.isfinite().all(), number


@each("kept", [{"state_dtype": "8bit"}, {"state_dtype": "bfloat16"}, {"rounding": "compensated"}])
@each("dtype", [torch.bfloat16, torch.float32])
def test_what_is_kept_in_few_bits_is_read_as_the_step_reads_it(kept: Any, dtype: torch.dtype) -> None:
    w = torch.nn.Parameter(torch.linspace(-1, 1, 512).to(dtype))
    optimizer = RuleOptimizer([w], rules.AdamW(lr=0.1), engine="torch", **kept)
    for t in range(3):
        w.grad = torch.tensor(noise(t, (512,))).to(dtype)
        optimizer.step()
    before = w.detach().float().clone()
    if "lost" in optimizer.state[w]:
        before = before + optimizer.state[w]["lost"].float()
    (slope,) = tangents(optimizer, {0: {"lr": 0.1}})
    optimizer.step()
    after = w.detach().float()
    if "lost" in optimizer.state[w]:
        after = after + optimizer.state[w]["lost"].float()
    # The step is linear in lr; what is left is the rounding of the weight itself.
    atol = float(torch.finfo(dtype).eps) if "lost" not in optimizer.state[w] else 2.0**-14
    torch.testing.assert_close(slope, after - before, rtol=1e-5, atol=atol)


@each("name", ["hypergradientsgd", "hypergradientadam"])
def test_rules_whose_rate_learns_learn_it_by_this_slope(name: str) -> None:
    """gained ← gained - kappa·⟨g, ∂w/∂lr⟩, w that of the step before."""
    rule = rules.named(name, lr=0.1, kappa=1e-3)
    weights = [torch.nn.Parameter(torch.tensor(noise(0, shape))) for shape in SHAPES]
    optimizer = RuleOptimizer(weights, rule, engine="torch")
    gained, slopes = 0.0, None
    for t in range(1, 6):
        gradients = [torch.tensor(noise(t, shape)) for shape in SHAPES]
        if slopes is not None:
            gained -= rule.kappa * math.fsum(dots(gradients, slopes))
        slopes = tangents(optimizer, {0: {"lr": 1.0}}, gradients=gradients)
        optimizer.step(gradients=gradients)
        kept = float(optimizer.state[weights[0]]["gained"])
        assert kept == pytest.approx(gained, rel=1e-12, abs=64 * EPS)
    assert gained != 0.0


def test_nothing_is_written_and_no_graph_is_kept() -> None:
    w, optimizer = one(0.1, 1.0, average=0.9)
    w.grad = torch.ones(1, dtype=DOUBLE)
    optimizer.step()
    before = [x.clone() for x in (w, w.grad, *optimizer.state[w].values())]
    (slope,) = tangents(optimizer, {0: {"lr": 1.0}})
    assert slope.grad_fn is None
    assert not slope.requires_grad
    after = (w, w.grad, *optimizer.state[w].values())
    assert all(map(torch.equal, before, after))


def test_memory_is_flat_over_steps() -> None:
    weights = [torch.nn.Parameter(torch.ones(50)) for _ in range(2)]
    optimizer = RuleOptimizer(weights, rules.AdamW(), engine="torch")

    def held() -> tuple[int, int]:
        gc.collect()
        found = [x for x in gc.get_objects() if type(x) in (torch.Tensor, torch.nn.Parameter)]
        found = [x for x in found if x.layout is torch.strided]  # others, of other tests, have no nbytes
        return len(found), sum(x.nbytes for x in found)

    slopes = None
    for t in range(301):
        gradients = [torch.full_like(w, math.sin(t)) for w in weights]
        if slopes is not None:
            dots(gradients, slopes)
        slopes = tangents(optimizer, {0: {"lr": 1.0, "beta1": 0.5}}, gradients=gradients)
        optimizer.step(gradients=gradients)
        if t == 10:
            early = held()
    number, size = held()
    assert number <= early[0]  # tests before this one may have left some behind that go meanwhile
    assert size <= early[1]


def test_complex_weights_count_as_pairs() -> None:
    w = torch.nn.Parameter(torch.tensor([1 + 2j, -1j], dtype=torch.complex128))
    optimizer = RuleOptimizer([w], rules.SGD(lr=0.5), engine="torch")
    w.grad = torch.tensor([3 - 1j, 2j], dtype=torch.complex128)
    (slope,) = tangents(optimizer, {0: {"lr": 1.0}})
    assert slope.tolist() == [[-3.0, 1.0], [0.0, -2.0]]
    assert dots([w.grad], [slope]) == [-14.0]


def test_a_number_that_the_rule_has_not_is_refused_with_a_guess() -> None:
    w, optimizer = one(0.1, 1.0)
    w.grad = torch.ones(1, dtype=DOUBLE)
    with pytest.raises(UserError, match=r"SGD has no number 'weightdecay'\. Did you mean 'weight_decay'"):
        tangents(optimizer, {0: {"weightdecay": 1.0}})


def test_weights_of_two_devices_are_not_laid_end_to_end() -> None:
    """Played by rows that lie nowhere: what is together has one k. No machine with two devices ran this."""
    rule = rules.AdamW()
    places = [torch.device(name) for name in ("cpu", "cuda:0", "cuda:0", "cuda:1")]
    rows = [
        hypergradient.Row(n, 0, 1, {}, [SimpleNamespace(dtype=DOUBLE, device=place)])  # type: ignore[list-item]
        for n, place in enumerate(places)
    ]
    first, second, third, fourth = hypergradient._made([rule], rows, [1] * 4, [()] * 4)
    assert second is third
    assert len({id(k) for k in (first, second, fourth)}) == 3


def test_sums_of_several_weights_meet_on_the_cpu() -> None:
    """A number of another device cannot be added to one of this: it is brought here, with its slope."""
    asked = []

    class Elsewhere(torch.Tensor):
        def to(self, *to: Any, **more: Any) -> torch.Tensor:
            asked.append(to)
            return self.as_subclass(torch.Tensor)

    total = hypergradient._summed(torch.ones(3).as_subclass(Elsewhere))
    assert asked == [("cpu", torch.float64)]
    assert float(total) == 3.0
