"""`steepest rules`: the list, the card of a rule, and its path in letters."""

from dataclasses import replace

import numpy as np
import pytest

from steepest import rules
from steepest.commands import rule_path, show_rules
from steepest.commands.rule_path import SADDLE, VALLEY

LANDS = pytest.mark.parametrize("land", [VALLEY, SADDLE], ids=lambda land: land.name.split()[0])
NAMES = sorted(rules.registry())


@LANDS
def test_a_landscape_has_the_gradient_and_the_curvature_of_its_function(land: rule_path.Landscape) -> None:
    step, (x, y) = 1e-4, (0.3, -0.7)
    error = 100 * step**2  # of central differences, with third and fourth derivatives of at most a few dozen
    for axis, (a, b) in enumerate(((step, 0), (0, step))):
        up, here, down = land.f(x + a, y + b), land.f(x, y), land.f(x - a, y - b)
        assert land.gradient(x, y)[axis] == pytest.approx((up - down) / (2 * step), abs=error)
        assert land.curvature(x, y)[axis] == pytest.approx((up - 2 * here + down) / step**2, abs=error)


def test_the_path_of_steepest_descent_is_its_closed_form() -> None:
    """On the valley w decays by 1 - 2·lr along (1, 1) and by 1 - 40·lr across it."""
    points = rule_path.path(rules.SGD(lr=0.01), VALLEY, 20)
    along = (VALLEY.begin[0] + VALLEY.begin[1]) / 2 * 0.98 ** np.arange(21)
    across = (VALLEY.begin[1] - VALLEY.begin[0]) / 2 * 0.6 ** np.arange(21)
    expected = np.stack([along - across, along + across], axis=1)
    np.testing.assert_allclose(points, expected, rtol=0, atol=100 * np.finfo(float).eps)


def test_a_path_that_leaves_all_bounds_is_cut() -> None:
    points = rule_path.path(rules.SGD(lr=1.0), VALLEY)
    assert len(points) < rule_path.STEPS
    assert np.isfinite(points).all()


def test_the_rate_of_a_picture_is_the_best_of_those_tried() -> None:
    chosen = rule_path.suited(rules.SGD(), VALLEY)
    heights = {}
    for rate in rule_path.RATES:
        points = rule_path.path(replace(rules.SGD(), lr=rate), VALLEY)
        if len(points) > rule_path.STEPS:
            heights[rate] = VALLEY.f(*points.T).mean()
    assert heights[chosen.lr] == min(heights.values())


@LANDS
def test_a_picture_shows_where_the_path_begins_and_ends(land: rule_path.Landscape) -> None:
    lines = rule_path.drawn(rule_path.path(rules.SGD(lr=0.02), land), land, 30, 10)
    assert [len(line) for line in lines] == [30] * 10
    row = int((1 - (land.begin[1] - land.low[1]) / (land.high[1] - land.low[1])) * 10)
    assert "S" in lines[row]
    assert sum(line.count("E") for line in lines) == 1


def test_the_list_names_every_rule_once() -> None:
    lines = list(show_rules.listing())
    assert [line.split()[0] for line in lines[1 : 1 + len(NAMES)]] == list(rules.registry())


@pytest.mark.parametrize("name", NAMES)
def test_the_card_of_every_rule_tells_formula_numbers_and_path(name: str) -> None:
    text = "\n".join(show_rules.card(name))
    assert "State: " in text
    for number in rules.registry()[name].numbers():
        assert f"\n{number}" in text
    assert "S to E" in text or "No picture" in text
