"""The verdict of a comparison: what pairs of runs allow to be said, and what they do not."""

import math

import numpy as np
import pytest

from steepest.comparison import page, words
from steepest.comparison.plan import LEVEL
from steepest.comparison.runs import Result
from steepest.comparison.statistics import least_pairs, pairs_needed, sign_flip
from steepest.comparison.verdict import Pairs, findings, judged, level_of

draw = np.random.default_rng(0)


def run(strategy, seed, value, *, at=(10, 20, 30), values=None, metrics=None):
    """A run that came to `value`, along a line from 1 unless its curve is given; None where it failed."""
    if values is None:
        values = [] if value is None else list(np.linspace(1.0, value, len(at)))
    return Result(
        strategy=strategy,
        seed=seed,
        folder=f"{strategy}-seed-{seed}",
        status="failed" if value is None else "finished",
        why="",
        value=value,
        at=list(at) if values else [],
        values=values,
        spent={"steps": 30.0, "seconds": 1.0, "gradients": 30.0},
        metrics=metrics or {},
        lr=0.1,
    )


def of(values, falls=True, reference=None, asked=None):
    """The verdict on {strategy: [value a seed]}."""
    results = [run(name, seed, value) for name, held in values.items() for seed, value in enumerate(held)]
    names = list(values)
    return judged(
        names,
        reference or names[0],
        results,
        metric="val/loss" if falls else "val/accuracy",
        falls=falls,
        asked=asked or len(results),
    )


def noisy(mean, n, spread=0.01):
    return list(mean + spread * draw.standard_normal(n))


# --- findings ---


def test_a_clear_difference_in_eight_pairs_is_separable():
    (found,) = findings([Pairs("a", "b", [-0.2 + 0.01 * k for k in range(8)])])
    assert found.separable
    assert found.high < 0
    assert found.p == pytest.approx(2 / 2**8)
    assert found.more is None


def test_five_pairs_separate_nothing_however_clear_they_are():
    (found,) = findings([Pairs("a", "b", [-1.0, -1.1, -0.9, -1.05, -0.95])])
    assert found.high < 0
    assert found.adjusted == pytest.approx(2 / 2**5)
    assert not found.separable
    assert found.more == 1


def test_holm_asks_more_of_several_strategies():
    clear = [-1.0, -1.1, -0.9, -1.05, -0.95, -1.2]  # 6 pairs: p = 0.031
    alone = findings([Pairs("a", "b", clear)])
    among = findings([Pairs("a", "b", clear), Pairs("a", "c", clear), Pairs("b", "c", clear)])
    assert alone[0].separable
    assert not any(found.separable for found in among)
    assert [found.adjusted for found in among] == pytest.approx([3 * 2 / 2**6] * 3)


@pytest.mark.full
def test_false_claims_are_as_rare_as_the_level_says():
    """Of 400 comparisons of equal strategies no more than 5 %, and what chance adds, find a difference."""
    groups = [[Pairs("a", "b", list(draw.standard_normal(8)))] for _ in range(400)]
    wrong = sum(findings(group)[0].separable for group in groups)
    assert wrong <= 400 * LEVEL + 3 * math.sqrt(400 * LEVEL * (1 - LEVEL))


@pytest.mark.full
def test_the_seeds_that_are_named_would_be_enough():
    """Drawn anew with that many seeds, a difference as seen is found about as often as the power says."""
    seen = np.array([0.9, -0.5, 1.4, 0.2, 0.7, -0.1])
    more = findings([Pairs("a", "b", list(seen))])[0].more
    assert more is not None
    scale, n = seen.std(ddof=1), len(seen) + more
    drawn = (seen.mean() + scale * draw.standard_normal((200, n))).tolist()
    found = sum(findings([Pairs("a", "b", values)])[0].separable for values in drawn)
    assert 0.65 <= found / 200 <= 0.95


def test_one_pair_says_how_many_are_needed_at_least():
    (found,) = findings([Pairs("a", "b", [0.3])])
    assert (found.separable, found.known, found.more) == (False, False, least_pairs(LEVEL) - 1)
    assert math.isnan(found.low)


def test_no_pair_at_all_is_no_finding():
    (found,) = findings([Pairs("a", "b", [], lost=3)])
    assert not found.separable
    assert math.isnan(found.mean)


def test_what_is_the_same_in_every_pair_is_told_from_what_is_unknown():
    same, apart = findings([Pairs("a", "b", [0.0] * 4), Pairs("a", "c", [0.1] * 4)])
    assert same.same
    assert same.more is None
    assert not apart.same
    assert not apart.separable


def test_pairs_that_are_alike_to_the_digit_are_left_to_the_test():
    few, enough = (findings([Pairs("a", "b", [1 / 15] * n)])[0] for n in (5, 6))
    assert (few.separable, few.more) == (False, 1)
    assert enough.separable
    assert enough.more is None
    assert math.isnan(enough.low)


def test_the_fewest_pairs_are_those_that_the_sign_flip_test_needs():
    assert [least_pairs(level) for level in (0.05, 0.05 / 3, 0.05 / 6, 0.5)] == [6, 7, 8, 2]


def test_pairs_needed_grow_with_the_spread_and_end_somewhere():
    values = np.array([1.0, 1.2, 0.8, 1.1])
    few, many = pairs_needed(values), pairs_needed(values + np.array([3.0, -3.0, 3.0, -3.0]))
    assert few == least_pairs()
    assert many is not None
    assert many > 20
    assert pairs_needed([1.0, -1.0]) is None
    assert pairs_needed([1.0, -0.999]) is None
    assert pairs_needed([]) is None


def test_pairs_needed_are_those_of_the_t_test():
    """Known case: an effect of half a standard deviation, 80 % power, two-sided 5 %: 34 pairs."""
    values = 0.5 + np.array([-1.0, 1.0]) / math.sqrt(2)  # mean 0.5, sd 1
    assert pairs_needed(values) == 34


# --- the verdict ---


def test_every_two_strategies_are_compared_and_times_are_against_the_reference():
    verdict = of({"a": noisy(0.5, 4), "b": noisy(0.4, 4), "c": noisy(0.3, 4)}, reference="b")
    assert [(one.first, one.second) for one in verdict.differences] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [(one.first, one.second) for one in verdict.times] == [("a", "b"), ("c", "b")]


def test_pairs_are_those_of_one_seed():
    """Seeds differ by far more than strategies do; the differences do not show it."""
    seeds = draw.uniform(0, 10, 8)
    verdict = of({"a": list(seeds), "b": list(seeds + 0.1 + 0.001 * draw.standard_normal(8))})
    (found,) = verdict.differences
    assert found.separable
    assert found.mean == pytest.approx(-0.1, abs=0.002)
    assert verdict.standings[0].spread > 1


def test_the_target_is_the_median_of_the_references_last_evaluations():
    verdict = of({"a": [0.5, 0.3, 0.4], "b": [0.2, 0.2, 0.2]})
    assert verdict.target == pytest.approx(0.4)
    assert [one.reached for one in verdict.standings] == [2, 3]


def test_the_time_to_the_target_lies_between_two_evaluations_and_must_hold():
    runs = [run("a", 0, 0.5, values=[1.0, 0.8, 0.5]), run("b", 0, 0.3, values=[0.9, 0.4, 0.3])]
    verdict = judged(["a", "b"], "a", runs, metric="val/loss", falls=True, asked=2)
    assert verdict.standings[0].time == pytest.approx(30)
    assert verdict.standings[1].time == pytest.approx(10 + 10 * 0.4 / 0.5)
    dip = [run("a", 0, 0.5, values=[1.0, 0.8, 0.5]), run("b", 0, 0.4, values=[0.4, 0.9, 0.6])]
    assert judged(["a", "b"], "a", dip, metric="val/loss", falls=True, asked=2).standings[1].reached == 0


def test_a_miss_has_the_whole_time_and_is_counted():
    verdict = of({"a": [0.5] * 6, "b": [0.7] * 6})
    away = verdict.standings[1]
    assert (away.reached, away.runs, away.time) == (0, 6, 30)
    assert "b reached it in 0 of 6 seeds" in " ".join(words.sentences(verdict))


def test_a_failure_is_a_miss_even_where_the_run_had_been_at_the_target():
    failed = run("b", 0, None, values=[0.1, 0.1, math.nan])
    verdict = judged(["a", "b"], "a", [run("a", 0, 0.5), failed], metric="val/loss", falls=True, asked=2)
    assert (verdict.standings[1].reached, verdict.standings[1].failed) == (0, 1)
    assert verdict.differences[0].lost == 1


def test_a_metric_that_is_to_rise_is_judged_the_other_way_round():
    verdict = of({"a": noisy(0.6, 8), "b": noisy(0.9, 8)}, falls=False)
    assert words.winner(verdict) == "b"
    assert verdict.standings[1].reached == 8


def test_the_winner_is_named_only_where_every_other_is_beaten():
    clear = of({"a": noisy(0.9, 8), "b": noisy(0.5, 8), "c": noisy(0.7, 8)})
    assert words.winner(clear) == "b"
    assert words.headline(clear) == "b is better than a and c."
    close = of({"a": noisy(0.9, 8), "b": noisy(0.5, 8), "c": noisy(0.5, 8)})
    assert words.winner(close) is None
    assert "not separable from" in words.headline(close)
    assert "better than a" in words.headline(close)


def test_where_nothing_is_sure_the_headline_says_so():
    verdict = of({"a": [0.5, 0.4, 0.6, 0.5], "b": [0.51, 0.39, 0.6, 0.5]})
    assert words.headline(verdict).startswith("Nothing is decided")


def test_the_headline_gives_the_best_mean_to_no_strategy_that_has_it_not():
    """The one that failed least often leads; of means it claims nothing that the table gainsays."""
    near = of({"a": [0.5, 0.4, 0.6, 0.5], "b": [None, 0.39, 0.58, 0.51]})
    assert words.headline(near) == (
        "Nothing is decided: a failed least often; b has the better mean where both ended."
    )
    clear = of({"a": noisy(0.9, 8), "b": [None, *noisy(0.1, 7)], "c": noisy(2.0, 8)})
    assert clear.differences[0].separable
    assert words.headline(clear) == "a is better than c; b has the better mean where both ended."
    hard = of({"a": [9.0, 0.4, 0.6, 0.5], "b": [None, 0.41, 0.61, 0.5]})
    assert words.headline(hard) == "Nothing is decided: a failed least often, not separable from b."


def test_what_is_the_same_in_every_seed_is_called_so_in_the_headline():
    seen = [0.5, 0.4, 0.6]
    assert words.headline(of({"a": seen, "b": seen})) == (
        "Nothing is decided: a and b did the same in every seed."
    )
    assert words.headline(of({"a": seen, "b": seen, "c": [0.7, 0.3, 0.7]})) == (
        "Nothing is decided: a has the best mean, not separable from c; a and b did the same in every seed."
    )


def test_a_strategy_that_failed_is_not_called_better_for_its_other_seeds():
    verdict = of({"a": noisy(0.9, 8), "b": [None, *noisy(0.1, 7)]})
    said = " ".join(words.sentences(verdict))
    assert words.winner(verdict) is None
    assert words.leader(verdict).strategy == "a"
    assert "b failed in 1 of 8 seeds" in said
    assert "But b failed more often" in said


def test_a_strategy_that_always_failed_leaves_the_others_to_be_judged():
    verdict = of({"a": noisy(0.9, 8), "b": [None] * 8, "c": noisy(0.5, 8)})
    said = " ".join(words.sentences(verdict))
    assert "a and b: no seed in which both came to a number" in said
    assert "c is better than a" in said
    assert words.headline(verdict) == "c is better than a. b failed in every seed."
    assert words.winner(verdict) == "c"
    alone = of({"a": [0.5], "b": [None]})
    assert words.headline(alone) == "Only a came to a number: b failed in every seed."
    assert words.winner(alone) is None


def test_where_the_reference_always_failed_there_is_no_target():
    verdict = of({"a": [None] * 3, "b": [0.5] * 3})
    assert verdict.target is None
    assert verdict.times == []
    assert "a sets no target" in " ".join(words.sentences(verdict))


def test_where_every_run_failed_nothing_is_claimed():
    assert words.headline(of({"a": [None], "b": [None]})) == "Every run failed: there is nothing to compare."


def test_one_seed_runs_and_is_told_to_separate_nothing():
    said = " ".join(words.sentences(of({"a": [0.1], "b": [0.9]})))
    assert "One pair separates nothing" in said
    assert "at least 5 more seeds" in said


def test_the_page_promises_no_more_than_the_sentences():
    """Seeds do not help where one always fails, and of one pair nobody knows how many would."""
    always, one = of({"a": noisy(0.9, 3), "b": [None] * 3}), of({"a": [0.1], "b": [0.9]})
    same, five = of({"a": [0.5] * 2, "b": [0.5] * 2}), of({"a": noisy(0.1, 5), "b": noisy(0.9, 5)})
    told = [
        "no seed in which both came to a number",
        "one pair separates nothing, as its spread is unknown: take at least 5 more seeds",
        "the same in every seed",
        "were the difference as seen, 1 more seed would separate them (power 80 %)",
    ]
    for verdict, words_of_it in zip((always, one, same, five), told, strict=True):
        (found,) = verdict.differences
        assert page._cells(found, str, " − ")[-1] == f"not separable; {words_of_it}"
        assert words_of_it in words.difference(verdict, found).replace(". One", ". one").replace(
            ". Were", ". were"
        )


def test_too_few_seeds_are_told_that_no_difference_would_have_shown():
    said = " ".join(words.sentences(of({"a": noisy(0.1, 5), "b": noisy(0.9, 5)})))
    assert "1 more seed would separate them" in said
    assert said.count("Fewer than 6 pairs separate nothing") == 1


def test_an_unfinished_comparison_says_that_it_is_one():
    assert words.headline(of({"a": [0.1], "b": [0.2]}, asked=12)).startswith("2 of 12 runs are done")


def test_an_unfinished_comparison_has_no_winner():
    seen = {"a": noisy(0.9, 8), "b": noisy(0.5, 8)}
    assert words.winner(of(seen)) == "b"
    assert words.winner(of(seen, asked=20)) is None


def test_means_of_what_was_measured_stand_beside_what_is_judged():
    runs = [
        run("a", 0, 0.5, metrics={"test/accuracy": 0.8}),
        run("a", 1, 0.5, metrics={"test/accuracy": 0.9}),
        run("b", 0, None),
    ]
    verdict = judged(["a", "b"], "a", runs, metric="val/loss", falls=True, asked=4)
    assert verdict.standings[0].metrics == {"test/accuracy": pytest.approx(0.85)}
    assert verdict.standings[1].metrics == {}


@pytest.mark.parametrize(("metric", "falls", "of_b"), [("val/loss", True, 0.2), ("val/accuracy", False, 0.9)])
def test_a_test_part_that_points_the_other_way_is_named(metric, falls, of_b):
    def said(other):
        own, better = ({f"test/{metric[4:]}": value} for value in (0.5, other))
        lead = run("a", 0, 0.1 if falls else 0.9, metrics=own)
        runs = [lead, run("b", 0, 0.5, metrics=better)]
        return words.sentences(judged(["a", "b"], "a", runs, metric=metric, falls=falls, asked=2))

    assert f"points the other way: {of_b:g} for b, 0.5 for a" in said(of_b)[-1]
    assert not [line for line in said(0.5) if "the other way" in line]


def test_the_test_alone_is_not_enough_the_interval_must_agree(monkeypatch):
    clear = [Pairs("a", "b", [-0.2 + 0.01 * k for k in range(8)])]
    monkeypatch.setattr("steepest.comparison.verdict.bca", lambda values: (-0.3, 0.01))
    assert not findings(clear)[0].separable


def test_the_target_is_where_the_reference_ends_not_where_it_was_best():
    runs = [run("a", 0, 0.2, values=[0.9, 0.2, 0.4]), run("b", 0, 0.3)]
    assert judged(["a", "b"], "a", runs, metric="val/loss", falls=True, asked=2).target == 0.4


# --- seeds that are added ---


@pytest.mark.full
def test_adding_seeds_until_they_are_separable_is_bounded():
    """Of strategies that are the same, by the test alone. At 5 % each time far more would be claimed."""
    chance, looks = np.random.default_rng(11), range(6, 16, 2)
    levels = [level_of(list(looks)[:k], 2) for k in range(len(looks))]
    groups = [chance.standard_normal(14) for _ in range(150)]
    ps = [[sign_flip(group[:n]) for n in looks] for group in groups]
    wrong = sum(any(p < level for p, level in zip(row, levels, strict=True)) for row in ps)
    assert wrong <= 150 * 2 * LEVEL < sum(min(row) < LEVEL for row in ps)


def test_a_verdict_halves_the_level_of_the_next_where_it_could_have_claimed():
    assert [level_of(earlier, 2) for earlier in ([], [6], [6, 8], [8, 6, 10])] == [
        0.05,
        0.025,
        0.0125,
        0.00625,
    ]
    assert level_of([1, 2, 5], 2) == LEVEL
    assert level_of([6, 6], 2) == 0.025  # six pairs cannot fall below it
    assert (level_of([6], 3), level_of([7], 3)) == (LEVEL, LEVEL / 2)


def test_a_later_verdict_is_stricter_and_says_so():
    # Of seven pairs one is the other way round: p = 0.047 for such sizes.
    values = {"a": [0.5] * 7, "b": [0.5 - d for d in (0.30, 0.31, 0.29, 0.33, 0.32, 0.28, -0.10)]}
    results = [run(name, seed, value) for name, held in values.items() for seed, value in enumerate(held)]
    first, later = (
        judged(["a", "b"], "a", results, metric="val/loss", falls=True, asked=14, earlier=earlier)
        for earlier in ([], [6])
    )
    assert 0.025 < first.differences[0].adjusted < 0.05
    assert [one.separable for one in first.differences] == [True]
    assert [one.separable for one in later.differences] == [False]
    assert not any("tested at" in sentence for sentence in words.sentences(first))
    (told,) = [sentence for sentence in words.sentences(later) if "tested at" in sentence]
    assert "judged before, with 6 seeds" in told
    assert "tested at 2.5 % in place of 5 %" in told


def test_no_number_of_pairs_has_a_floor_above_what_the_seeds_that_are_named_assume():
    """Ten strategies, judged for the fifth time: fourteen pairs and more could not fall below 2 of 10,001."""
    alike = [Pairs("a", "b", [1 + 0.01 * k for k in range(20)])] * 45
    assert least_pairs(LEVEL / 16 / 45) <= 20
    assert all(found.separable for found in findings(alike, LEVEL / 16))


def test_the_seeds_that_are_named_are_those_of_the_stricter_test():
    """After a verdict that could have claimed, the next is tested at half the level."""
    alike = [Pairs("a", "b", [0.1, 0.1, 0.1, 0.1, 0.1])]
    assert findings(alike, LEVEL, LEVEL)[0].more == 1
    assert findings(alike, LEVEL, LEVEL / 2)[0].more == 2
    seen = [0.9, -0.5, 1.4, 0.2, 0.7, -0.1]
    assert (
        of({"a": seen, "b": [0.0] * 6}).differences[0].more
        == findings([Pairs("a", "b", seen)], LEVEL, LEVEL / 2)[0].more
    )
