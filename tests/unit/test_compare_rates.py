"""The rate that a strategy gets: the best of short runs, walked to where the best lies inside."""

import math

import pytest

from steepest.comparison.runs import AROUND, FARTHEST, STEP, measured_rate


def measured(result, own=1e-3):
    """(evidence, the rates that were tried, in their order) where a run at a rate comes to `result(rate)`."""
    tried = []

    def trial(lr):
        tried.append(lr)
        return result(lr), 7.0

    return measured_rate("sgd", own, trial, {"budget": "20 steps"}), tried


def bowl(best):
    return lambda lr: math.log(lr / best) ** 2


def test_the_best_of_five_is_taken_where_it_lies_inside():
    found, tried = measured(bowl(2e-3))
    assert found.decided == pytest.approx(1e-3 * STEP)
    assert len(tried) == 2 * AROUND + 1


@pytest.mark.parametrize("best", [0.5, 1e-6])
def test_the_search_walks_on_while_an_end_is_best(best):
    found, tried = measured(bowl(best))
    assert abs(math.log(found.decided / best)) <= math.log(STEP) / 2 + 1e-9
    assert len(tried) > 2 * AROUND + 1


def test_the_walk_ends():
    found, tried = measured(lambda lr: -lr)
    assert found.decided == pytest.approx(1e-3 * STEP**FARTHEST)
    assert len(tried) == AROUND + FARTHEST + 1


def test_a_rate_that_fails_is_never_taken_and_the_search_goes_below_it():
    found, _ = measured(lambda lr: math.inf if lr > 1e-5 else 1.0)
    assert found.decided <= 1e-5


def test_where_nothing_works_the_rules_own_rate_stands_and_the_reason_is_told():
    found, tried = measured(lambda lr: math.inf)
    assert found.decided == 1e-3
    assert "none of" in found.why
    assert len(tried) == AROUND + FARTHEST + 1


def test_equal_results_are_settled_by_nearness_to_the_rules_own_rate():
    assert measured(lambda lr: 1.0)[0].decided == 1e-3


def test_the_evidence_holds_every_trial_and_its_price():
    found, tried = measured(bowl(1e-3))
    assert [one["lr"] for one in found.candidates] == sorted(tried)
    assert found.gradients == 7 * len(tried)
    assert found.choice == "lr of sgd"
    assert "budget 20 steps" in found.why
    assert found.picture is not None
    assert found.picture["kind"] == "range"
