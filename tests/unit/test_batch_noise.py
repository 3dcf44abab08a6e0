"""The critical batch, measured on a problem whose gradient noise is known, and its interval's coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from steepest.optim.errors import UserError
from steepest.optim.noise import Pair, critical_batch, quantile

FEATURES, PART, PARTS = 12, 4, 8
BATCH = PART * PARTS


def linear_regression(draw, distance, noise, steps):
    """Pairs from gradients (x·δ - ε)·x of the squared error ½(x·w - y)², at weights off by δ, ‖δ‖ = distance.

    x ~ N(0, I), ε ~ N(0, noise²), so that ‖G‖² = distance² and S = distance²(d + 1) + noise²·d."""
    delta = np.full(FEATURES, distance / math.sqrt(FEATURES))
    x = draw.standard_normal((steps, PARTS, PART, FEATURES))
    residual = x @ delta - noise * draw.standard_normal((steps, PARTS, PART))
    means = (residual[..., None] * x).mean(axis=2)
    small = (means**2).sum(axis=-1).mean(axis=1)
    large = (means.mean(axis=1) ** 2).sum(axis=-1)
    return [Pair(a, c, PART, BATCH) for a, c in zip(small.tolist(), large.tolist(), strict=True)]


def true_critical(distance, noise):
    return FEATURES + 1 + noise**2 * FEATURES / distance**2


def test_the_estimates_are_without_bias():
    pairs = linear_regression(np.random.default_rng(0), 0.7, 2.0, 20000)
    for seen, truth in (
        ([pair.signal for pair in pairs], 0.7**2),
        ([pair.noise for pair in pairs], 0.7**2 * (FEATURES + 1) + 4 * FEATURES),
    ):
        assert abs(np.mean(seen) - truth) < 4 * np.std(seen) / math.sqrt(len(seen))


@pytest.mark.full
@pytest.mark.parametrize(("distance", "noise"), [(1.0, 0.0), (1.0, 2.0), (0.5, 2.0), (0.3, 2.0)])
@pytest.mark.parametrize("steps", [12, 60])
def test_the_interval_covers_the_truth_as_often_as_it_says(distance, noise, steps):
    draw, repeats = np.random.default_rng(1), 1000
    truth = true_critical(distance, noise)
    held = [critical_batch(linear_regression(draw, distance, noise, steps)) for _ in range(repeats)]
    covered = sum(one.low <= truth <= one.high for one in held)
    # Few steps and skew squares cost up to three points; chance among 1000 repeats another 1.4, twice.
    assert 0.90 < covered / repeats < 0.99


def test_the_value_is_near_the_truth_where_the_interval_is_narrow():
    found = critical_batch(linear_regression(np.random.default_rng(2), 1.0, 2.0, 400))
    assert found.value == pytest.approx(true_critical(1.0, 2.0), rel=0.2)
    assert found.low < found.value < found.high < 2 * found.low


@pytest.mark.full
def test_without_signal_the_batch_is_unbounded_about_as_often_as_the_level_says():
    draw = np.random.default_rng(3)
    held = [critical_batch(linear_regression(draw, 1e-9, 1.0, 60)) for _ in range(400)]
    unbounded = sum(math.isinf(one.value) for one in held)
    assert unbounded / 400 > 0.93
    assert all(one.high == math.inf for one in held if math.isinf(one.value))


def test_without_noise_the_batch_is_none():
    found = critical_batch([Pair(1.0 + 1e-3 * (i % 2), 1.0 + 1e-3 * (i % 2), 4, 32) for i in range(20)])
    assert found.value == found.low == found.high == 0.0


def test_the_unit_of_gradients_does_not_matter():
    pairs = linear_regression(np.random.default_rng(4), 1.0, 1.0, 30)
    scaled = [Pair(1e-12 * p.small, 1e-12 * p.large, p.less, p.more) for p in pairs]
    one, other = critical_batch(pairs), critical_batch(scaled)
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


def test_few_updates_are_refused():
    with pytest.raises(UserError, match="5 updates or more, got 4"):
        critical_batch([Pair(2.0, 1.0, 1, 2)] * 4)


@pytest.mark.parametrize("freedom", [5, 11, 59, 1000])
def test_quantiles_are_students(freedom):
    assert quantile(0.95, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=0.01)
