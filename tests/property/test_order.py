"""The order of examples is a pure function of (seed, epoch, index)."""

from itertools import islice

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from steepest.data.batches import batches
from steepest.data.order import Plan, generator, key, permutation

sizes = st.integers(min_value=1, max_value=70)
seeds = st.integers(min_value=0, max_value=2**63)


@given(examples=sizes, batch_size=sizes, seed=seeds, shuffle=st.booleans())
def test_an_epoch_visits_every_example_once(examples, batch_size, seed, shuffle):
    plan = Plan(examples, batch_size, seed, shuffle)
    epoch = list(islice(plan.updates(0), plan.per_epoch))
    assert sorted(np.concatenate([index for _, _, index in epoch])) == list(range(examples))
    assert {number for _, number, _ in epoch} == {0}


@given(examples=sizes, batch_size=sizes)
def test_no_update_is_empty_too_large_or_a_lone_rest(examples, batch_size):
    plan = Plan(examples, batch_size)
    lengths = [len(index) for _, _, index in islice(plan.updates(0), plan.per_epoch)]
    assert all(length == batch_size for length in lengths[:-1])
    assert 1 <= lengths[-1] <= batch_size + 1
    assert lengths[-1] > 1 or batch_size == 1 or examples == 1


@given(examples=sizes, batch_size=sizes, seed=seeds, position=st.integers(min_value=0, max_value=200))
def test_a_position_is_reached_at_once(examples, batch_size, seed, position):
    plan = Plan(examples, batch_size, seed)
    walked = next(islice(plan.updates(0), position, None))
    jumped = next(plan.updates(position))
    assert walked[:2] == jumped[:2]
    np.testing.assert_array_equal(walked[2], jumped[2])


@given(examples=st.integers(min_value=20, max_value=200), seed=seeds)
def test_epochs_and_seeds_differ(examples, seed):
    first = permutation(seed, 0, examples)
    assert not np.array_equal(first, permutation(seed, 1, examples))
    assert not np.array_equal(first, permutation(seed + 1, 0, examples))


@given(examples=st.integers(min_value=1, max_value=50), accumulate=st.integers(min_value=1, max_value=9))
def test_accumulation_cuts_the_same_update(examples, accumulate):
    data = torch.arange(examples)
    whole = batches(data, 8, seed=3).once()
    cut = batches(data, 8, seed=3, accumulate=accumulate).once()
    for update, pieces in zip(whole, cut, strict=True):
        assert torch.equal(update[0], torch.cat(pieces))
        assert max(map(len, pieces)) <= -(-8 // accumulate) + 1


def test_keys_do_not_change_between_versions():
    """A run begun with one version of steepest goes on with the next."""
    assert key(0, "order", 0) == 113245886653597248659558219078374899138
    assert generator(0, "order", 0).integers(2**63) == 1484981119741276160
    assert permutation(0, 0, 8).tolist() == [5, 2, 4, 6, 7, 1, 3, 0]
