"""What holds for schedules of any size: bounds, ends, steadiness."""

from collections.abc import Callable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from steepest import schedule
from steepest.schedule import Schedule

EPS = 2.0**-52

values = st.floats(1e-6, 1e3)
totals = st.integers(1, 500)
shares = st.floats(0.01, 0.99)
any_name = st.sampled_from([*schedule.FALLING, *schedule.RISING])

falling = st.one_of(
    st.builds(schedule.Polynomial, values, totals, st.floats(0.2, 5), values),
    st.builds(schedule.Cosine, values, totals, values),
)
"""From the peak to the floor over `total` steps."""

bounded = st.one_of(
    falling,
    st.builds(schedule.WarmRestarts, values, totals, st.integers(1, 4), values),
    st.builds(schedule.Cyclic, values, totals, totals, values, st.floats(0.1, 1)),
)
"""Never beyond the peak and the floor."""


def between(low: float, value: float, high: float) -> bool:
    """Up to a few roundings."""
    return low * (1 - 8 * EPS) <= value <= high * (1 + 8 * EPS)


@given(bounded, st.integers(1, 2000))
def test_values_stay_between_floor_and_peak(curve: Schedule, step: int) -> None:
    low, high = sorted((curve.peak, curve.floor))
    assert between(low, curve(step), high + 8 * EPS * high)


@given(falling, st.integers(1, 1000))
def test_a_fall_begins_at_the_peak_and_ends_at_the_floor_for_good(curve: Schedule, later: int) -> None:
    largest = max(curve.peak, curve.floor)
    assert abs(curve(1) - curve.peak) <= 4 * EPS * largest
    assert abs(curve(curve.total + later) - curve.floor) <= 4 * EPS * largest


@given(falling, st.integers(1, 600))
def test_a_fall_never_turns(curve: Schedule, step: int) -> None:
    way = curve.floor - curve.peak
    assert (curve(step + 1) - curve(step)) * way >= -8 * EPS * max(curve.peak, curve.floor) * abs(way)


@given(values, totals, values, st.integers(1, 600))
def test_a_wave_moves_less_in_a_step_than_its_steepest_slope(
    peak: float, total: int, floor: float, step: int
) -> None:
    curve = schedule.Cosine(peak, total, floor)
    steepest = abs(peak - floor) * 3.1416 / 2 / total
    assert abs(curve(step + 1) - curve(step)) <= steepest + 8 * EPS * max(peak, floor)


@given(values, st.integers(0, 200), totals, shares)
def test_warm_up_stable_decay_never_jumps(peak: float, warmup: int, rest: int, decay: float) -> None:
    total = 200 + rest
    warmup = min(warmup, total - max(1, round(decay * total)))
    curve = schedule.WarmupStableDecay(peak, warmup, total, decay)
    slope = peak / min(max(warmup, 1), max(1, round(decay * total)))
    rates = [curve(step) for step in range(1, total + 2)]
    assert all(abs(b - a) <= slope * (1 + 1e-9) for a, b in pairwise(rates))
    assert max(rates) == peak
    assert rates[-1] == 0


@given(values, totals, shares, st.floats(1, 100), st.floats(1, 1e5))
def test_one_cycle_ends_where_it_says(peak: float, total: int, rise: float, start: float, end: float) -> None:
    curve = schedule.OneCycle(peak, total, rise, start, end)
    last = peak / start / end
    for step in (total, total + 1, 10 * total):
        assert abs(curve(step) - last) <= 8 * EPS * peak
    assert all(between(last, curve(step) + 8 * EPS * peak, peak * (1 + 16 * EPS)) for step in range(1, total))


@given(values, st.integers(0, 300), st.integers(1, 300))
def test_inverse_square_root_peaks_where_it_turns(peak: float, warmup: int, step: int) -> None:
    curve = schedule.InverseSqrt(peak, warmup)
    assert curve(max(warmup, 1)) == peak
    assert between(0, curve(step), peak)


@given(falling, st.integers(0, 300), st.integers(1, 300))
def test_a_warm_up_shifts_what_follows(curve: Schedule, warmup: int, step: int) -> None:
    whole = schedule.WarmUp(curve, warmup)
    assert whole(warmup + step) == curve(step)
    assert all(whole(early) <= curve(1) for early in (1, warmup // 2, warmup) if 1 <= early <= warmup)


@given(any_name, values, st.integers(2, 500), st.data())
def test_any_named_schedule_is_positive_and_at_most_the_peak(
    name: str, peak: float, total: int, data: st.DataObject
) -> None:
    warmup = data.draw(st.integers(0, max(0, int(0.7 * total) - 1)))
    curve: Callable[[int], float] = schedule.named(name, peak, total, warmup)
    assert all(0 < curve(step) <= peak * (1 + 8 * EPS) for step in range(1, total + 1))
