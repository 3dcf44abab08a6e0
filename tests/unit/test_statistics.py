"""Statistics of comparisons, against known values and against simulated truth."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from steepest.comparison.statistics import (
    EVERY,
    FLIPS,
    _of_every_sign,
    bca,
    holm,
    improvement,
    interquartile_mean,
    sign_flip,
    stratified,
    time_to,
)

CURVE = (100, 200, 300, 400)


@pytest.mark.full
def test_bca_covers_the_mean_of_a_skewed_distribution_as_often_as_it_says() -> None:
    chance, trials, n = np.random.default_rng(1), 400, 30
    covered = 0
    for _ in range(trials):
        low, high = bca(chance.exponential(size=n), level=0.9, draws=500)
        covered += low <= 1.0 <= high
    # three standard errors of the share itself, and the few hundredths that n = 30 of a skewed sample costs
    assert abs(covered / trials - 0.9) < 3 * math.sqrt(0.09 / trials) + 0.04


@pytest.mark.full
def test_bca_of_a_few_values_is_too_short_by_as_much_as_its_docstring_says() -> None:
    chance, trials = np.random.default_rng(2), 400
    found = [bca(chance.normal(size=5), draws=500) for _ in range(trials)]
    assert 0.75 < np.mean([low <= 0 <= high for low, high in found]) < 0.92


def test_bca_is_the_formula_of_its_paper() -> None:
    values = np.random.default_rng(6).exponential(size=12)
    means = np.random.default_rng(7).choice(values, (100_000, 12)).mean(1)
    bias = norm.ppf(np.mean(means < values.mean()))
    left_out = (values.sum() - values) / 11
    gap = left_out.mean() - left_out
    acceleration = (gap**3).sum() / (6 * (gap**2).sum() ** 1.5)
    ends = bias + norm.ppf([0.025, 0.975])
    expected = np.quantile(means, norm.cdf(bias + ends / (1 - acceleration * ends)))
    # an end is a quantile of 10,000 draws: three standard errors of its probability, over the density there
    assert bca(values) == pytest.approx(expected, abs=0.02 * np.ptp(expected))
    plain = np.quantile(means, 0.975)
    assert abs(plain - expected[1]) > 0.04 * np.ptp(expected)


def test_bca_shifts_with_the_values_and_knows_nothing_of_equal_ones() -> None:
    values = np.array([1.0, 2.0, 4.0, 8.0])
    assert bca(values + 10) == pytest.approx(np.add(bca(values), 10))
    assert all(map(math.isnan, bca([3.0, 3.0, 3.0])))
    assert all(map(math.isnan, bca([3.0])))


@pytest.mark.parametrize("n", [5, 6, 10, 14, 20, 40])
def test_all_of_one_sign_gives_the_smallest_p_there_is(n: int) -> None:
    assert sign_flip(np.arange(1.0, n + 1)) == pytest.approx(2 / 2**n)


def test_sign_flip_counts_the_signs_by_hand() -> None:
    # |±1 ±2 ±4| ≥ 1 + 2 - 4 holds for all 8; ≥ 5 = -1 + 2 + 4 for ±(1+2+4) and ±(-1+2+4)
    assert sign_flip([1.0, 2.0, -4.0]) == pytest.approx(1.0)
    assert sign_flip([-1.0, 2.0, 4.0]) == pytest.approx(4 / 8)


@pytest.mark.full
def test_sign_flip_errs_as_often_as_it_says_where_nothing_differs() -> None:
    chance, trials = np.random.default_rng(3), 600
    p = np.array([sign_flip(chance.normal(size=8)) for _ in range(trials)])
    # 12 of 256 signs are the most that stay at or below 0.05
    assert abs(np.mean(p <= 0.05) - 12 / 256) < 3 * math.sqrt(0.05 / trials)


@given(st.lists(st.sampled_from([-2.0, -1.0, -0.3, 0.0, 0.1, 0.3, 1.0, 7.5]), min_size=2, max_size=9))
def test_sign_flip_counts_all_signs_ties_included(differences: list[float]) -> None:
    signs = np.array(list(product((-1.0, 1.0), repeat=len(differences))))
    away = np.abs(signs @ np.array(differences))
    seen = abs(math.fsum(differences))
    expected = 1.0 if seen < 1e-9 else np.mean(away >= seen - 1e-9)
    assert sign_flip(differences) == pytest.approx(expected)


def test_sign_flip_draws_signs_where_there_are_too_many() -> None:
    differences = np.random.default_rng(4).normal(0.2, 1, EVERY + 2)
    drawn = sign_flip(differences)
    assert drawn == pytest.approx(sign_flip(differences, draws=4000), abs=0.02)
    assert drawn == pytest.approx(_of_every_sign(differences), abs=3 * math.sqrt(0.25 / FLIPS))
    assert sign_flip([1.0]) == 1.0


def test_holm_of_known_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_and_keeps_their_order(ps: list[float]) -> None:
    adjusted = holm(ps)
    assert (adjusted >= np.minimum(ps, 1)).all()
    assert (np.diff(adjusted[np.argsort(ps, kind="stable")]) >= 0).all()


def test_time_is_read_between_two_points() -> None:
    assert time_to(CURVE, (4.0, 3.0, 1.0, 1.0), 2.0) == 250.0
    assert time_to(CURVE, (4.0, 3.0, 2.0, 1.0), 2.0) == 300.0


def test_a_point_below_the_target_counts_only_with_the_next() -> None:
    assert time_to(CURVE, (4.0, 1.0, 3.0, 1.0), 2.0) == 350.0
    assert time_to(CURVE, (4.0, 1.0, 3.0, 3.0), 2.0) == math.inf


def test_the_ends_of_a_curve() -> None:
    assert time_to(CURVE, (1.0, 1.0, 3.0, 3.0), 2.0) == 100.0
    assert time_to(CURVE, (4.0, 4.0, 4.0, 1.0), 2.0) == pytest.approx(300 + 100 * 2 / 3)
    assert time_to((), (), 2.0) == math.inf


def test_points_that_are_not_finite_are_not_below() -> None:
    assert time_to(CURVE, (math.nan, math.nan, 1.0, 1.0), 2.0) == 300.0
    assert time_to(CURVE, (math.inf, 1.0, math.nan, 1.0), 2.0) == 400.0
    assert time_to(CURVE, (4.0, 4.0, 1.0, math.inf), 2.0) == math.inf


def test_the_middle_half() -> None:
    assert interquartile_mean([0.0, 1.0, 2.0, 1000.0]) == 1.5
    assert interquartile_mean([5.0]) == 5.0


def test_the_chance_of_improvement_counts_pairs() -> None:
    assert improvement([1.0, 3.0], [2.0, 3.0]) == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert improvement([1.0], [math.inf]) == 1.0


def test_a_stratified_interval_resamples_each_sample_by_itself() -> None:
    constant = [np.full(5, 1.0), np.full(3, 9.0)]
    assert stratified(constant, lambda strata: float(np.mean([x.mean() for x in strata])), draws=50) == (
        5.0,
        5.0,
    )


def test_a_stratified_interval_is_as_wide_as_theory_says() -> None:
    strata = list(np.random.default_rng(5).normal(size=(4, 50)))
    low, high = stratified(strata, lambda drawn: float(np.mean([x.mean() for x in drawn])), draws=2000)
    deviation = math.sqrt(sum(x.var() / len(x) for x in strata)) / len(strata)
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.1)
