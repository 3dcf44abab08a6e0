"""Batch policies: how many examples each update takes, what they are called, and how an epoch is reckoned."""

import math
from dataclasses import replace
from itertools import islice, pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steepest import rules, schedule
from steepest.batch import Compensated, Fixed, Following, Full, Growing, Stochastic, named
from steepest.data.batches import ArrayBatches, batches, planned, under
from steepest.data.order import Plan
from steepest.data.varied import VariedPlan
from steepest.optim.errors import UserError
from steepest.optim.noise import Pair, critical_batch
from steepest.schedule import Cosine, Polynomial, WarmUp
from steepest.train.budget import parse
from steepest.train.growth import TRIES, _filling, power_of
from steepest.train.intervals import Intervals

EXAMPLES = st.integers(2, 300)
POLICIES = st.one_of(
    st.builds(Fixed, st.integers(1, 50)),
    st.builds(lambda low, more: Stochastic(low, low + more), st.integers(1, 20), st.integers(0, 40)),
    st.builds(
        lambda least, more: Growing(least, least + more, Polynomial(0.1, 60)),
        st.integers(1, 20),
        st.integers(0, 60),
    ),
)


@pytest.mark.parametrize(
    "text", ["64", "full", "stochastic 32 to 128", "growing 8 to 9", "following 1 to 1024"]
)
def test_a_policy_is_the_one_that_its_text_names(text):
    assert str(named(text)) == text
    assert named(named(text)) == named(text)


def test_a_word_stands_for_the_usual_ends():
    assert named("growing") == Growing(64, 1024)
    assert named(" Stochastic") == Stochastic(32, 128)
    assert named(7) == Fixed(7)
    assert named("full") == Full()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "at least 1"),
        (True, "batch_size must be"),
        (2.5, "got 2.5"),
        ("growth", "Did you mean 'growing'"),
        ("²", "got .²."),
        ("growing 64", "got 'growing 64'"),
        ("growing 64 to 32", "from the smaller to the larger"),
        ("stochastic 0 to 32", "at least 1"),
    ],
)
def test_what_is_no_policy_is_refused(value, words):
    with pytest.raises(UserError, match=words):
        named(value)


@given(policy=POLICIES, examples=EXAMPLES, seed=st.integers(0, 2**40))
def test_every_epoch_visits_every_example_once_and_no_update_is_empty(policy, examples, seed):
    plan = VariedPlan(examples, policy.within(examples), seed)
    seen = []
    for _, epoch, index in plan.updates(0):
        if epoch == 3:
            break
        assert len(index) > 0
        seen.append((epoch, index))
    for epoch in range(3):
        visited = np.concatenate([index for number, index in seen if number == epoch])
        assert sorted(visited) == list(range(examples))


@given(policy=POLICIES, examples=EXAMPLES, position=st.integers(0, 150))
def test_a_position_is_reached_at_once(policy, examples, position):
    walked = next(islice(VariedPlan(examples, policy).updates(0), position, None))
    jumped = next(VariedPlan(examples, policy).updates(position))
    assert walked[:2] == jumped[:2]
    np.testing.assert_array_equal(walked[2], jumped[2])


@given(examples=EXAMPLES, size=st.integers(1, 70), seed=st.integers(0, 9))
def test_a_policy_of_one_size_makes_the_updates_of_a_fixed_batch(examples, size, seed):
    fixed, same = Plan(examples, min(size, examples), seed), Stochastic(size, size).within(examples)
    pairs = zip(fixed.updates(0), VariedPlan(examples, same, seed).updates(0), strict=False)
    for one, other in islice(pairs, 3 * fixed.per_epoch):
        assert one[:2] == other[:2]
        assert set(one[2]) == set(other[2])
        if size < examples:
            np.testing.assert_array_equal(one[2], other[2])


@given(examples=EXAMPLES, least=st.integers(1, 20), more=st.integers(0, 60))
def test_no_few_examples_move_at_the_rate_of_many(examples, least, more):
    """What is left of an epoch is half a batch at least of the update before it, or is part of that."""
    policy = Growing(least, least + more, Polynomial(0.1, 60)).within(examples)
    made = list(islice(VariedPlan(examples, policy).updates(0), 80))
    for (position, epoch, index), (_, following, rest) in pairwise(made):
        assert len(index) <= max(1.5 * policy.size(position + 1), 1)
        assert following != epoch or len(rest) >= policy.size(position + 1) / 2


def test_the_rest_of_an_epoch_joins_as_far_as_the_rate_goes_with_the_batch():
    def sizes(policy, examples):
        updates = VariedPlan(examples, policy).updates(0)
        return [len(index) for _, epoch, index in islice(updates, 4) if epoch == 0]

    assert sizes(Growing(128, 256), 258) == sizes(Following(128, 256), 258) == [128, 130]
    assert sizes(Growing(128, 256), 320) == [128, 128, 64]
    assert sizes(Stochastic(128, 128), 258) == [128, 128, 2]


@given(policy=POLICIES, examples=EXAMPLES, epochs=st.sampled_from([0.1, 0.5, 1.0, 2.0, 3.7]))
def test_the_calendar_turns_epochs_into_the_first_step_that_ends_them(policy, examples, epochs):
    plan = VariedPlan(examples, policy.within(examples))
    step = plan.steps(epochs)
    assert plan.epochs(step) >= epochs * (1 - 1e-9)
    assert step == 0 or plan.epochs(step - 1) < epochs


@pytest.mark.parametrize("curve", ["linear", "cosine", "exponential", "one_cycle", "wsd"])
@pytest.mark.parametrize("ends", [(16, 64), (64, 1024), (8, 512)], ids=str)
@given(examples=st.sampled_from([100, 500, 1797, 5000]), epochs=st.sampled_from([0.1, 1.0, 1.5, 3.0, 10.0]))
def test_growth_is_as_long_as_fills_its_epochs(curve, ends, examples, epochs):
    """No number of updates beside it comes nearer, and none can that lies between two that pass the mark."""
    plan = VariedPlan(examples, Growing(*ends).within(examples))
    asked = []

    def bound(steps):
        asked.append(steps)
        rate = schedule.named(curve, 1.0, steps, min(5, steps // 10))
        return replace(plan, policy=replace(plan.policy, schedule=rate))

    def off(steps):
        return bound(steps).epochs(steps) - epochs

    found = _filling(bound, plan, epochs)
    assert len(set(asked)) == len(asked) <= 2 * TRIES + 2
    assert abs(off(found)) <= min(abs(off(n)) for n in (found - 1, found + 1) if n > 0)
    assert found == 1 or off(found) * off(found + (1 if off(found) < 0 else -1)) <= 0


def test_growth_is_found_where_guesses_lead_astray():
    """Passes that no proportion leads to: nearly all of them are done in the last updates."""
    plan = VariedPlan(1000, Growing(10, 1000))

    def bound(steps: int) -> Any:
        asked.append(steps)
        return SimpleNamespace(epochs=lambda n: 1e-6 * n + 5 * (n > 987))

    asked = []
    assert _filling(bound, plan, 4.0) == 988
    assert len(asked) <= TRIES + math.log2(4000) + 2


def test_a_look_ahead_is_bounded():
    plan = VariedPlan(1000, Fixed(1))
    assert plan.steps(1e9, since=5) < 2 * 10**5


def test_random_sizes_depend_on_seed_and_step_alone_and_fill_their_range_evenly():
    policy = Stochastic(8, 32, seed=3)
    sizes = np.array([policy.size(step) for step in range(1, 4001)])
    assert sizes.min() == 8
    assert sizes.max() == 32
    assert [Stochastic(8, 32, 3).size(step) for step in (7, 3900)] == [sizes[6], sizes[3899]]
    assert not np.array_equal(sizes, [Stochastic(8, 32, 4).size(step) for step in range(1, 4001)])
    # log(size + ½) is uniform between log 8 and log 33: its mean is ½·log(8·33), its sd log(33/8)/√12
    middle = np.log(sizes + 0.5).mean() - np.log(8 * 33) / 2
    assert abs(middle) < 4 * np.log(33 / 8) / np.sqrt(12 * 4000)
    assert {policy.factor(step) for step in range(1, 50)} == {1.0}


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_growth_anneals_the_noise_as_the_schedule_would(power):
    curve = Cosine(0.1, 1000)
    policy = Growing(100, 10**9, curve, power)
    rate = Compensated(curve, policy)
    for step in (1, 50, 400, 900):
        falls = curve(step) / 0.1
        noise = rate(step) / policy.size(step) ** (1 / power)  # SGD: rate/batch; Adam: rate/√batch
        assert noise == pytest.approx(0.1 * falls / 100 ** (1 / power), rel=1e-12)
        # the rate itself stays at its height, up to the rounding of the batch to whole examples
        assert rate(step) == pytest.approx(0.1, rel=1 / (2 * policy.size(step)))


def test_at_its_end_growth_gives_way_to_a_falling_rate():
    curve = Polynomial(0.1, 100)
    policy = Growing(10, 40, curve)
    rate = Compensated(curve, policy)
    assert policy.size(76) == policy.size(100) == policy.size(200) == 40
    assert rate(100) == pytest.approx(4 * curve(100))
    assert rate(500) == 0.0


def test_a_warm_up_is_no_reason_to_grow():
    policy = Growing(10, 40, WarmUp(Polynomial(0.1, 50), 20))
    assert [policy.size(step) for step in (1, 10, 20, 21)] == [10, 10, 10, 10]
    assert policy.size(60) > 10
    assert policy.size(5) == 10  # asked again, later


def test_without_a_schedule_nothing_grows():
    assert {Growing(16, 64).size(step) for step in range(1, 99)} == {16}


def pairs_of(critical, batch, n):
    """Pairs without scatter, for a signal of 1: ‖g_b‖² = 1 + critical/b."""
    return [Pair(1 + critical / (batch / 2), 1 + critical / batch, batch / 2, batch)] * n


def test_following_doubles_and_halves_by_the_whole_interval():
    policy = Following(16, 128, every=20)

    def told(critical):
        now = policy.size(step[0])
        found = [policy.observe(step[0] + i, pair) for i, pair in enumerate(pairs_of(critical, now, 20))]
        step[0] += 20
        assert found[:-1] == [None] * 19
        return found[-1] and found[-1][0]

    step = [1]
    assert told(500.0) == 32
    assert told(500.0) == 64
    assert told(70.0) is None
    assert told(20.0) == 32
    assert told(1.0) == 16
    assert told(1.0) is None  # the least
    assert policy.changes == [(21, 32), (41, 64), (81, 32), (101, 16)]
    assert [policy.size(k) for k in (1, 20, 21, 40, 41, 81, 999)] == [16, 16, 32, 32, 64, 32, 16]
    assert policy.factor(41) == 4.0
    assert replace(policy, power=2.0).factor(41) == 1.0  # a copy begins anew
    again = Following(16, 128, every=20)
    again.load_state_dict(policy.state_dict())
    assert again.state_dict() == policy.state_dict()


@pytest.mark.parametrize(
    ("batch_size", "most"), [("growing 4 to 16", 4), ("stochastic 3 to 6", 6), ("following", 3)]
)
def test_memory_stays_where_it_was_however_the_batch_grows(batch_size, most):
    x = torch.arange(40.0)
    policy = named(batch_size) if batch_size != "following" else Following(6, 24)
    made = under(
        batches(x, policy), replace(policy, schedule=Polynomial(1.0, 20)) if "grow" in batch_size else policy
    )
    windows = list(islice(made.start(), 20))
    assert max(len(part) for window in windows for part in window) in (most, most + 1)
    assert isinstance(made, ArrayBatches)
    assert made.varied is not None
    sizes = [sum(map(len, window)) for window in windows]
    assert sizes == [len(index) for _, _, index in islice(made.plan.updates(0), 20)]


def test_following_waits_where_the_interval_is_wide():
    policy = Following(16, 128, every=20)
    wide = [Pair(1 + scatter + 40 / 8, 1 + scatter + 40 / 16, 8, 16) for scatter in (-1.5, 1.5)] * 10
    found = critical_batch(wide)
    assert found.value > 2 * 16 > found.low  # a point estimate alone would have doubled the batch
    assert [policy.observe(step, pair) for step, pair in enumerate(wide, 1)] == [None] * 20


def test_batches_of_a_loader_cannot_be_varied():
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(8, 1)), batch_size=2)
    with pytest.raises(UserError, match="keeps its own batches"):
        batches(loader, "growing")


def test_a_dataset_read_one_by_one_gives_the_same_updates():
    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 23

        def __getitem__(self, index):
            return torch.tensor([index])

    policy = Stochastic(2, 9)
    read = list(islice(batches(Rows(), policy, seed=5).start(4), 9))
    held = list(islice(batches(torch.arange(23)[:, None], policy, seed=5).start(4), 9))
    assert [part.tolist() for window in read for part in window] == [p.tolist() for w in held for p in w]


@given(
    examples=st.integers(5, 60),
    low=st.integers(1, 9),
    every=st.sampled_from(["1 epoch", "0.4 epochs", "2 epochs"]),
)
def test_what_is_due_by_the_epoch_is_due_when_it_ends(examples, low, every):
    plan = VariedPlan(examples, Stochastic(low, 2 * low).within(examples))
    cadence = Intervals(parse("7 epochs"), None, parse(every), parse("1000 steps"), plan.per_epoch, plan)
    amount = parse(every).amount
    last = plan.steps(7)
    passed = [int(plan.epochs(step) / amount + 1e-9) for step in range(last + 1)]
    due = [step for step in range(1, last + 1) if passed[step] > passed[step - 1]]
    assert [step for step in range(1, last + 1) if cadence.evaluates(step)] == due
    ahead, step = [], 0
    while step < last:
        step = int(cadence.next_after(step))
        ahead.append(step)
    assert set(due) <= set(ahead)
    assert cadence.ends(last, 0)[0] == "budget"
    assert not cadence.ends(last - 1, 0)[0]
    assert cadence.epoch(last) == 7.0


@pytest.mark.parametrize(
    ("rule", "power"),
    [("sgd", 1), ("momentum", 1), ("adamw", 2), ("nadamw", 2), ("lion", 2), ("adagrad", 2), ("rmsprop", 2)]
    + [(rule, 2) for rule in ("soap", "adopt", "radam", "radamw", "adabelief", "muonmatched")],
)
def test_the_rate_of_a_rule_grows_with_the_batch_or_its_root(rule, power):
    assert power_of(rules.named(rule)) == power


@pytest.mark.parametrize("rule", rules.registry())
def test_every_rule_has_a_power(rule):
    assert power_of(rules.named(rule)) in (1.0, 2.0)


def test_full_and_too_large_batches_are_what_there_is():
    assert planned(Full(), 9) == Plan(9, 9) == planned(Fixed(50), 9)
    assert planned(Growing(4, 50), 9) == VariedPlan(9, Growing(4, 9))
    with pytest.raises(UserError, match="depends on the data"):
        Full().size(1)
