"""What the pictures of a comparison show of its runs."""

import math
from dataclasses import replace

import numpy as np
import pytest

from steepest.comparison.page import band, figures, profile
from steepest.comparison.runs import Result
from steepest.comparison.verdict import judged
from steepest.report.figures import TONES, look

pytestmark = pytest.mark.charts


def run(at, values, failed=False):
    return Result("a", 0, "a-seed-0", "", "", None if failed else 0.0, at, values, {}, {}, None)


def test_the_band_is_the_middle_half_between_two_evaluations():
    at, low, middle, high = band([run([0, 10], [height, height - 1]) for height in (1.0, 2.0, 3.0, 4.0, 5.0)])
    half = np.abs(at - 5).argmin()
    assert (at[0], at[-1]) == (0, 10)
    assert middle[half] == pytest.approx(3 - at[half] / 10)
    assert (low[half], high[half]) == (pytest.approx(middle[half] - 1), pytest.approx(middle[half] + 1))


def test_a_run_that_has_ended_stays_at_its_last_value():
    """Else the median would jump to the runs that go on, as if all had got better or worse."""
    at, _, middle, _ = band([run([0, 10], [9, 1]), run([0, 4], [9, 5]), run([0, 4], [9, 5])])
    assert at[-1] == 10
    assert set(middle[at > 4]) == {5}


def test_the_band_ends_where_fewer_than_half_of_the_runs_have_not_failed():
    at, *_ = band([run([0, 10], [1, 0]), run([0, 4], [1, 0], True), run([0, 4], [1, 0], True)])
    assert at[-1] <= 4
    at, *_ = band([run([0, 10], [1, 0]), run([0, 4], [1, 0], True)])
    assert at[-1] == 10


@pytest.mark.parametrize("runs", [[], [run([], [])], [run([1, 2], [math.nan, math.nan], failed=True)]])
def test_runs_without_a_number_have_no_band_and_are_drawn_all_the_same(runs):
    assert all(len(part) == 0 for part in band(runs))
    held = [*runs, replace(run([0, 1], [2, 1]), strategy="b")]
    verdict = judged(["a", "b"], "b", held, metric="val/loss", falls=True, asked=len(held))
    drawn = figures(verdict, held, "step")
    assert [len(figure.legend) for figure in drawn] == [2, 2]
    assert all("<path" in figure.drawing.inside for figure in drawn)


def test_the_profile_rises_at_each_run_that_comes_to_the_target_and_misses_stay_away():
    runs = [
        run([0, 10, 20], [1, 0, 0]),
        run([0, 10, 20], [1, 1, 0]),
        run([0, 10, 20], [1, 1, 1]),
        run([], [], True),
    ]
    at, share = profile(runs, 0.5, True, 20)
    assert list(at) == [0, 5, 15, 20]
    assert list(share) == [0, 0.25, 0.5, 0.5]


def test_a_metric_that_is_to_rise_has_its_profile_the_other_way_round():
    at, _ = profile([run([0, 10], [0.0, 1.0])], 0.5, False, 20)
    assert list(at) == [0, 5, 20]


def test_strategies_are_told_apart_by_colour_and_then_by_line():
    assert len({look(place) for place in range(2 * len(TONES))}) == 2 * len(TONES)
