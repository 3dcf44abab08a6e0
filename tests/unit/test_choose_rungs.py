"""Who goes on: worse arms are dropped, the default stays, and what cannot be told apart is not."""

import math
from itertools import pairwise

import numpy as np
import pytest
from torch import nn

from steepest.recipe import Recipe
from steepest.rules import AdamW
from steepest.tuning.candidates import (
    Candidate,
    below,
    beyond,
    default,
    families,
    initial,
    leader,
    lowest,
    protected,
)
from steepest.tuning.constants import CANDIDATES, CLIMBS, LARGEST_SHARE, LED, LONGER, REMEMBERED, TAU
from steepest.tuning.halving import Standing, credited, expected, lower, peak, standings, survivors, winner
from steepest.tuning.plan import Plan, going_on, plan
from steepest.tuning.resolve import weight_decay

draw = np.random.default_rng(0)
HARD = np.abs(draw.normal(size=400)) + 0.5
"""Losses of examples, some hard for everybody: what pairing takes out."""


def scored(*levels: float) -> dict[int, list[float]]:
    """An arm a level, on the same examples."""
    return {
        candidate: (HARD * level + 0.01 * draw.normal(size=400)).tolist()
        for candidate, level in enumerate(levels)
    }


def test_pairing_tells_arms_apart_that_means_do_not() -> None:
    ranked = standings(scored(1.0, 1.02))
    alone = np.std(HARD) / np.sqrt(len(HARD)) * np.sqrt(2)
    assert [one.trial for one in ranked] == [0, 1]
    assert ranked[1].behind < alone  # within one standard error, were the examples not the same
    assert ranked[1].z > 2


def test_what_cannot_be_told_apart_goes_on() -> None:
    ranked = standings(scored(1.0, 1.0001, 1.0002, 1.5, 2.0))
    assert set(survivors(ranked, [0], 3.0, 4)) >= {0, 1, 2}
    assert not {3, 4} & set(survivors(ranked, [0], 3.0, 4))


def test_the_default_always_goes_on() -> None:
    ranked = standings(scored(2.0, 1.0, 1.0001, 1.0002, 1.0003))
    assert 0 in survivors(ranked, [0], 3.0, 4)
    assert ranked[0].trial in survivors(ranked, [0], 3.0, 4)


def test_at_most_half_go_on() -> None:
    ranked = standings(scored(*np.linspace(1, 1.001, 8)))
    assert len(survivors(ranked, [0], 3.0, 4)) == 4


def test_the_lower_rate_and_the_best_of_another_rule_go_on() -> None:
    candidates = [
        Candidate("adamw", 1e-3),
        Candidate("adamw", 3e-3),
        Candidate("muon", 1e-2),
        Candidate("muon", 3e-2),
        Candidate("muon", 3e-3),
    ]
    assert protected(candidates, [3, 2, 4, 1, 0]) == [0, 2, 1]
    assert protected(candidates, [1, 0, 4, 2, 3]) == [0, 4]
    ranked = standings(scored(3.0, 2.5, 1.1, 1.0, 2.9))
    assert survivors(ranked, [0, 2, 1], 3.0, 4)[:4] == [3, 0, 2, 1]


def test_an_arm_is_expected_to_go_on_as_it_came() -> None:
    falls, stays = expected([0.5, 0.7], [1.0, 1.4]), expected([0.5, 0.6], [0.5, 0.6])
    assert falls == pytest.approx([0.5 * 0.5**0.5, 0.7 * 0.5**0.5])
    assert stays == [0.5, 0.6]
    assert expected([-1.0], [2.0]) == [-1.0], "a loss without a lower bound has no such trend"


def test_credit_counts_from_the_start() -> None:
    found = credited({0: [0.5, 1.5], 1: [math.inf], 2: [1.0]}, {0: 2.0, 1: 2.0, 2: 1.0}, 3.0)
    assert found == {0: pytest.approx([0.5 / 3, 1.5 / 3]), 1: [math.inf], 2: [1.0]}


@pytest.mark.parametrize("loss", [1e-6, 0.01, 2.9])
def test_credit_takes_no_loss_below_nothing(loss: float) -> None:
    """In differences, a tenth of the way more would be a loss of -0.2 for one that has come all of it."""
    assert 0 < credited({0: [loss]}, {0: 1.1}, 3.0)[0][0] < loss


def test_a_dead_arm_is_last_and_out() -> None:
    scores = scored(1.0, 1.1) | {2: [math.inf]}
    ranked = standings(scores)
    assert ranked[-1].trial == 2
    assert 2 not in survivors(ranked, [0], 3.0, 4)
    assert standings({0: [math.inf], 1: [math.inf]})[0].loss == math.inf


RATES = [
    Candidate("adamw", 1e-3),
    Candidate("adamw", 1e-2),
    Candidate("adamw", 1e-1),
    Candidate("nesterov", 1e-3),
]


def test_the_best_wins_and_what_is_not_told_from_the_default_loses_to_it() -> None:
    assert winner(RATES, standings(scored(1.1, 1.0, 1.05)), 0, 3.0) == 1
    assert winner(RATES, standings(scored(1.0001, 1.0, 1.0001)), 0, 3.0) == 0


def test_where_nothing_was_learnt_the_default_stays() -> None:
    assert winner(RATES, standings(scored(1.2, 1.0, 1.1)), 0, 0.5) == 0


def test_of_equal_rates_at_the_upper_end_the_lower_wins() -> None:
    """What lies beyond the highest was not seen; beside a higher one the best is the best."""
    noisy = {0: [1.5] * 40, 1: [1.0 + 0.3 * (-1) ** k for k in range(40)], 2: [0.98] * 40}
    assert standings(noisy)[0].trial == 2
    assert winner(RATES, standings(noisy), 0, 3.0) == 1
    assert winner(RATES, standings(noisy | {0: noisy[1]}), 3, 3.0) == 1, "the next lower one"
    assert winner(RATES, standings(noisy | {1: noisy[0], 0: noisy[1]}), 3, 3.0) == 0
    assert winner(RATES, standings(scored(1.5, 1.0, 0.5)), 0, 3.0) == 2, "it is not as good"
    higher = [*RATES, Candidate("adamw", 1.0)]
    assert winner(higher, standings(noisy | {4: [2.0] * 40}), 3, 3.0) == 2


# --- the rate between ---


def parabola(lr: float, lowest_at: float) -> float:
    return 1.0 + 0.1 * math.log(lr / lowest_at) ** 2


@pytest.mark.parametrize("lowest_at", [5e-3, 1e-2, 1.7e-2])
def test_the_rate_is_read_off_a_parabola_through_three(lowest_at: float) -> None:
    losses = {candidate: parabola(RATES[candidate].lr, lowest_at) for candidate in range(3)} | {3: 0.5}
    assert peak(RATES, 1, losses) == pytest.approx(lowest_at, rel=1e-6)


def test_the_outermost_rate_and_one_beside_a_dead_arm_stay_as_they_are() -> None:
    assert peak(RATES, 2, {0: 3.0, 1: 2.0, 2: 1.0}) == 1e-1
    assert peak(RATES, 1, {0: 3.0, 1: 2.0, 2: math.inf}) == 1e-2
    assert peak(RATES, 3, {0: 3.0, 1: 2.0, 3: 1.0}) == 1e-3
    assert peak(RATES, 1, {0: 1.0, 1: 2.0, 2: 3.0}) == 1e-2, "it is not the lowest of the three"


def test_rates_climb_outwards_from_the_outermost_only() -> None:
    assert beyond(RATES, 2) == Candidate("adamw", pytest.approx(10**-0.5))
    assert beyond(RATES, 0) == Candidate("adamw", pytest.approx(10**-3.5))
    assert beyond(RATES, 1) is None


@pytest.mark.parametrize(("edge", "first"), [(0.05, 1e-3), (1e-3, 1e-3 / 3), (10.0, 0.1)])
def test_the_edge_corrects_a_default(edge: float, first: float) -> None:
    assert lowest(Candidate("sgd", 1e-3), edge, 1.0) == pytest.approx(first)


@pytest.mark.parametrize(("edge", "first"), [(5.0, 5e-3), (0.4, 1e-3), (1e-3, 1e-3), (3e-5, 1e-4)])
def test_that_of_adam_s_kind_by_orders_of_magnitude_only(edge: float, first: float) -> None:
    assert lowest(Candidate("adamw", 1e-3), edge, 2.0) == pytest.approx(first)


def test_where_all_arms_have_died_the_next_is_below_the_lowest() -> None:
    candidates = [Candidate("adamw", 1e-3), Candidate("adamw", 1e-4), Candidate("muonmatched", 1e-2)]
    assert below(candidates) == Candidate("adamw", pytest.approx(10**-4.5))
    assert below([candidates[0], candidates[2].at(1e-5)]) == Candidate("muonmatched", pytest.approx(10**-5.5))


def test_two_losses_of_zero_are_a_tie_and_no_error() -> None:
    ranked = standings({0: [0.0] * 10, 1: [0.0] * 10})
    assert winner(RATES, ranked, 0, 1.0) == 0


# --- arms ---


CONTROL = default(Recipe.of({"data": "digits", "lr": 1e-3, "weight_decay": 0.01}))


def test_an_arm_is_not_run_twice() -> None:
    candidates = initial(CONTROL, [CONTROL.at(1.1e-3)], True, 8)
    assert candidates[0] == CONTROL
    rates = sorted(candidate.lr for candidate in candidates)
    assert all(b / a >= 1.5 for a, b in pairwise(rates))


def test_a_rate_that_is_given_stays() -> None:
    other = Candidate("nesterov", 0.1)
    candidates = initial(CONTROL, [CONTROL, other], False, 8)
    assert {candidate.lr for candidate in candidates} == {CONTROL.lr}
    assert {candidate.rule for candidate in candidates} == {"adamw", "nesterov"}


def test_a_free_rule_brings_several_families() -> None:
    candidates = initial(CONTROL, [CONTROL, Candidate("nesterov", 1e-3)], True, 8)
    assert {candidate.rule for candidate in candidates} == {"adamw", "nesterov"}
    assert len({candidate.name for candidate in candidates}) == len(candidates)


def test_where_a_rule_of_matrices_races_it_is_the_one_to_beat() -> None:
    """Three rates of it, and one of the default rule, which climbs where it is best."""
    net = nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 9), nn.Linear(9, 2))
    first = families(CONTROL, True, net)
    led = leader(first)
    assert (led.rule, led.lr) == ("muonmatched", pytest.approx(0.01))
    begin = [first[0], first[1].at(10**-2.5)]
    candidates = initial(led, begin, True, LED - CLIMBS)
    tried = [("muonmatched", -2.0), ("adamw", -2.5), ("muonmatched", -1.5), ("muonmatched", -2.5)]
    assert [(candidate.rule, math.log10(candidate.lr)) for candidate in candidates] == [
        (rule, pytest.approx(lr)) for rule, lr in tried
    ]
    assert beyond(candidates, 1) == candidates[1].at(pytest.approx(1e-2))


def test_elsewhere_the_default_is_the_one_to_beat() -> None:
    assert leader([CONTROL]) == leader(families(CONTROL, True, nn.Linear(3, 2))) == CONTROL
    alone = Candidate("muonmatched", 1e-3)
    assert leader([alone]) == alone, "a rule that a person has named"


@pytest.mark.parametrize(
    "net", [nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 9), nn.Linear(9, 2))]
)
def test_a_decay_that_is_given_is_that_of_all_families(net: nn.Module) -> None:
    usual, given = families(CONTROL, True, net), families(CONTROL, True, net, 0.02)
    assert usual[1].rule == given[1].rule
    assert usual[1].weight_decay != given[1].weight_decay == 0.02


# --- what it costs ---


def dearest(drawn: Plan) -> int:
    """Updates of all arms where every one that may go on does, less those of the winner, which are kept."""
    running, steps, before = drawn.candidates, 0, 0
    for end in drawn.rungs:
        steps += running * (end - before)
        protected_ones = 3 if drawn.rules == 2 else 2
        running, before = max(going_on(running), min(running, 1 + protected_ones)), end
    return steps - max(drawn.rungs, default=0)


@pytest.mark.parametrize(("rules", "candidates"), [(1, CANDIDATES[1]), (2, CANDIDATES[1]), (2, LED)])
@pytest.mark.parametrize("range_tests", [0, 1, 2])
@pytest.mark.parametrize("updates", [200, 300, 400, 500, 999, 3000, 20_000])
def test_the_dearest_search_keeps_to_its_share(
    updates: int, range_tests: int, rules: int, candidates: int
) -> None:
    """All stages as planned."""
    drawn = plan(updates, range_tests=range_tests, rules=rules, candidates=candidates)
    assert drawn.candidates <= candidates
    preflight_check = 21 if updates >= 2000 else 1
    spent = dearest(drawn) + range_tests * 4 / 3 * drawn.range_test + drawn.scores + preflight_check
    assert spent / updates <= LARGEST_SHARE


def test_the_rates_of_one_rule_race_for_longer() -> None:
    """For as long as that leaves arms to look around with."""
    assert plan(2000, rules=1).rungs == tuple(LONGER * end for end in plan(2000, rules=2).rungs)
    assert plan(2000, rules=1).candidates > CANDIDATES[0] + 1
    assert plan(210, rules=1).rungs == plan(210, rules=2).rungs


def test_more_updates_hold_more_arms() -> None:
    assert [plan(updates).candidates for updates in (100, 300, 1000, 10_000)] == [0, 5, 8, 8]


def test_scores_that_cost_more_than_their_share_leave_fewer_arms() -> None:
    """Batch norms are measured anew for each, which a short budget feels."""
    cheap, dear = plan(432), plan(432, renewal=3.0)
    assert 0 < dear.candidates < cheap.candidates
    assert dearest(dear) + dear.scores + dear.times * 3.0 + dear.range_test * 4 / 3 <= LARGEST_SHARE * 432


def test_a_smaller_share_shrinks_all_stages() -> None:
    usual, small = plan(10_000), plan(10_000, 0.1)
    assert small.range_test == round(0.4 * usual.range_test)
    assert small.rungs == tuple(round(0.4 * end) for end in usual.rungs)


# --- what follows ---


def test_weights_are_remembered_for_a_share_of_the_run_and_a_few_epochs_at_most() -> None:
    lr, updates = 0.01, 10_000
    short, long = (weight_decay(AdamW(), lr, updates, epochs) for epochs in (4.0, 100.0))
    assert 1 / (lr * short.decided) == pytest.approx(TAU * updates)
    assert 1 / (lr * long.decided) == pytest.approx(REMEMBERED * updates / 100)
    assert "epochs" in long.why
    assert "epochs" not in short.why


def test_after_a_single_rung_the_next_lower_rate_is_taken_where_it_is_hardly_behind() -> None:
    candidates = [
        Candidate("adamw", 1e-3),
        Candidate("adamw", 3e-3),
        Candidate("adamw", 1e-2),
        Candidate("muonmatched", 5e-3),
    ]

    def ranked(z: float) -> list[Standing]:
        return [
            Standing(2, 1.0, 0.0, 1.0),
            Standing(3, 1.1, 0.1, 1.0),
            Standing(1, 1.2, z, 1.0),
            Standing(0, 2.0, 0.5, 1.0),
        ]

    assert lower(candidates, ranked(2.9), best=2) == 1
    assert lower(candidates, ranked(3.1), best=2) == 2, "the next lower one, not any lower one"
    assert lower(candidates, ranked(0.0), best=0) == 0, "nothing is below the lowest"
