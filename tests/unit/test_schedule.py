"""Schedules against torch's, step by step; their names; what they refuse."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from steepest import schedule
from steepest.optim.errors import UserError

PEAK = 0.3
TOTAL = 20
Maker = Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]

EQUALS_TORCH: list[tuple[schedule.Schedule, Maker]] = [
    (schedule.Step(PEAK, every=6, factor=0.5), lambda o: lr_scheduler.StepLR(o, 6, 0.5)),
    (schedule.Exponential(PEAK, factor=0.9), lambda o: lr_scheduler.ExponentialLR(o, 0.9)),
    (schedule.Polynomial(PEAK, TOTAL, power=2.0), lambda o: lr_scheduler.PolynomialLR(o, TOTAL, 2.0)),
    (
        schedule.Polynomial(PEAK, 10, floor=0.1 * PEAK),
        lambda o: lr_scheduler.LinearLR(o, start_factor=1.0, end_factor=0.1, total_iters=10),
    ),
    (schedule.Cosine(PEAK, TOTAL, floor=0.01), lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL, 0.01)),
    (
        schedule.WarmRestarts(PEAK, first=3, growth=2, floor=0.01),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2, 0.01),
    ),
    (
        schedule.WarmRestarts(PEAK, first=7, growth=1),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 7, 1),
    ),
    (
        schedule.Cyclic(PEAK, up=3, down=4, floor=0.01),
        lambda o: lr_scheduler.CyclicLR(o, 0.01, PEAK, 3, 4, cycle_momentum=False),
    ),
    (
        schedule.Cyclic(PEAK, up=3, down=4, floor=0.01, shrink=0.5),
        lambda o: lr_scheduler.CyclicLR(o, 0.01, PEAK, 3, 4, mode="triangular2", cycle_momentum=False),
    ),
    (
        schedule.OneCycle(PEAK, TOTAL),
        lambda o: lr_scheduler.OneCycleLR(o, PEAK, TOTAL, cycle_momentum=False),
    ),
    (
        schedule.OneCycle(PEAK, TOTAL, rise=0.45, start_divisor=10, end_divisor=100),
        lambda o: lr_scheduler.OneCycleLR(
            o, PEAK, TOTAL, pct_start=0.45, cycle_momentum=False, div_factor=10, final_div_factor=100
        ),
    ),
    (
        schedule.Join((schedule.Constant(PEAK), schedule.Exponential(PEAK, 0.5)), ends=(5,)),
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.ConstantLR(o, factor=1.0), lr_scheduler.ExponentialLR(o, 0.5)], milestones=[5]
        ),
    ),
]


def torchs(maker: Maker) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    scheduler, rates = maker(optimizer), []
    for _ in range(TOTAL):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < TOTAL:
            scheduler.step()
    return rates


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")
@pytest.mark.parametrize(("curve", "maker"), EQUALS_TORCH, ids=lambda case: type(case).__name__)
def test_a_schedule_equals_torchs(curve: schedule.Schedule, maker: Maker) -> None:
    """torch multiplies its way from step to step: some roundings each."""
    found = [curve(step) for step in range(1, TOTAL + 1)]
    np.testing.assert_allclose(found, torchs(maker), rtol=0, atol=4 * TOTAL * PEAK * np.finfo(float).eps)


def test_a_warm_up_is_a_line_to_the_first_value_and_then_the_curve_from_its_start() -> None:
    curve = schedule.WarmUp(schedule.Exponential(1.0, factor=0.5), warmup=4)
    assert [curve(step) for step in range(1, 8)] == [0.25, 0.5, 0.75, 1.0, 1.0, 0.5, 0.25]


def test_a_warm_up_of_nothing_changes_nothing() -> None:
    curve = schedule.Cosine(1.0, 10)
    assert [schedule.WarmUp(curve, 0)(step) for step in range(1, 12)] == [curve(s) for s in range(1, 12)]


def test_inverse_square_root_is_that_of_the_transformer() -> None:
    """Vaswani et al. 2017, equation 3, with width d: d^-½·min(step^-½, step·warmup^-³ᐟ²)"""
    width, warmup = 512, 4000
    curve = schedule.InverseSqrt(peak=(width * warmup) ** -0.5, warmup=warmup)
    for step in (1, 100, 4000, 4001, 100_000):
        assert curve(step) == pytest.approx(width**-0.5 * min(step**-0.5, step * warmup**-1.5), rel=1e-14)


def test_warm_up_stable_decay_has_three_parts() -> None:
    curve = schedule.WarmupStableDecay(1.0, warmup=2, total=10, decay=0.4, floor=0.2)
    rates = [curve(step) for step in range(1, 13)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0.2])


def test_join_gives_each_part_its_own_first_step() -> None:
    curve = schedule.Join((float, lambda step: 10.0 * step, lambda step: 100.0 * step), ends=(2, 3))
    assert [curve(step) for step in range(1, 6)] == [1, 2, 10, 100, 200]


def test_schedules_compare_by_value() -> None:
    assert schedule.Cosine(1, 10) == schedule.Cosine(1.0, 10)
    assert len({schedule.Cosine(1, 10), schedule.Cosine(1.0, 10), schedule.Cosine(1.0, 11)}) == 2


@pytest.mark.parametrize("name", [*schedule.FALLING, *schedule.RISING])
@pytest.mark.parametrize("warmup", [0, 5])
def test_a_named_schedule_reaches_the_peak_and_goes_no_further(name: str, warmup: int) -> None:
    curve = schedule.named(name, PEAK, total=100, warmup=warmup)
    rates = [curve(step) for step in range(1, 101)]
    assert max(rates) == pytest.approx(PEAK, rel=0.02)
    assert max(rates) <= PEAK
    assert min(rates) > 0


@pytest.mark.parametrize("name", [*sorted(schedule.FALLING.keys() - {"cyclic"}), *schedule.RISING])
def test_a_named_schedule_rises_as_long_as_it_should(name: str) -> None:
    rates = [schedule.named(name, PEAK, total=100, warmup=10)(step) for step in range(1, 11)]
    assert all(a < b for a, b in pairwise(rates))
    assert rates[-1] == pytest.approx(PEAK, rel=1e-14)


def test_plateau_is_constant_until_stopping_says_else() -> None:
    assert schedule.named("plateau", PEAK, 100) == schedule.Constant(PEAK)


def test_an_unknown_name_is_met_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no schedule 'cosin'\. Did you mean 'cosine'"):
        schedule.named("cosin", PEAK, 100)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: schedule.Cosine(1.0, 0),
            r"Cosine's total must lie in \[1, ∞\), got 0\. .*curve \(steps\)",
        ),
        (lambda: schedule.Cosine(1.0, 2.5), r"total must be a whole number in \[1, ∞\), got 2\.5"),
        (lambda: schedule.Cosine(-1.0, 10), r"peak must lie in \[0, ∞\), got -1"),
        (lambda: schedule.Constant(float("nan")), r"value must lie in \[0, ∞\), got nan"),
        (lambda: schedule.Constant("fast"), r"value must be a number in \[0, ∞\), got 'fast'"),
        (lambda: schedule.Step(1.0, every=3, factor=0), r"factor must lie in \(0, ∞\), got 0"),
        (lambda: schedule.OneCycle(1.0, 10, rise=1.0), r"rise must lie in \(0, 1\), got 1\.0"),
        (lambda: schedule.WarmUp(schedule.Constant(1.0), -1), r"warmup must lie in \[0, ∞\), got -1"),
        (
            lambda: schedule.WarmupStableDecay(1.0, 9, 10),
            r"warmup \(9 steps\) and decay .* into total",
        ),
        (lambda: schedule.Join((float, float), ()), r"one rising end .*got 2 parts and the ends \(\)"),
        (lambda: schedule.Join((float, float, float), (5, 5)), r"rising end .*\(5, 5\)"),
        (lambda: schedule.named("cosine", 1.0, 10, 10), r"warm-up of 10 steps leaves nothing of a run of 10"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make()


@pytest.mark.parametrize("warmup", [0, 5])
@pytest.mark.parametrize("name", [*schedule.FALLING, *schedule.RISING])
def test_the_height_of_a_schedule_is_the_most_of_all_its_steps(name: str, warmup: int) -> None:
    curve = schedule.named(name, PEAK, 60, warmup)
    assert schedule.height(curve) == max(map(curve, range(1, 61)))


def test_the_height_of_several_is_that_of_the_highest_and_of_what_grows_nobody_knows_it() -> None:
    several = schedule.Join((schedule.Constant(0.1), schedule.WarmUp(schedule.Cosine(PEAK, 9), 3)), (5,))
    assert schedule.height(several) == max(map(several, range(1, 30))) == PEAK
    assert schedule.height(schedule.Exponential(PEAK, factor=1.1)) == 0
    assert schedule.height(lambda step: 0.1) == schedule.height(0.1) == 0
