"""Batches of arrays, Datasets and streams: the same update at the same position, whatever reads it."""

from collections import namedtuple
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from steepest.data import augment
from steepest.data.batches import ArrayBatches, batches, count
from steepest.optim.errors import UserError

X = torch.arange(46.0).reshape(23, 2)
Y = torch.arange(23)
Pair = namedtuple("Pair", "x y")


class Noisy(Dataset):
    """Examples with chance from all three global generators."""

    def __len__(self):
        return 23

    def __getitem__(self, index):
        import random

        chance = random.random() + np.random.rand() + torch.rand(()).item()  # noqa: NPY002
        return torch.tensor([index, chance], dtype=torch.float64), index


class NoisyStream(IterableDataset):
    def __iter__(self):
        return iter(torch.rand(10, 2))


def take(made, position, n):
    return [
        [tuple(leaf.tolist() for leaf in micro) for micro in update]
        for update in islice(made.start(position), n)
    ]


def loader(**options):
    return DataLoader(Noisy(), batch_size=4, shuffle=True, **options)


def one_by_one(updates):
    return (torch.as_tensor([i]) for i in range(updates))


@pytest.mark.parametrize(
    "data",
    [
        (X, Y),
        [X, Y],
        {"x": X, "y": Y},
        ({"a": X, "b": X.numpy()}, Y),
        Pair(X, Y),
        X,
        X.numpy()[::-1],
        X.numpy().astype(">f4"),
    ],
)
def test_a_batch_has_the_shape_of_the_data(data):
    (batch,) = next(batches(data, 5).start())
    assert type(batch) is (torch.Tensor if isinstance(data, np.ndarray) else type(data))
    assert count(batch) == 5


def test_rows_stay_together():
    for x, y in (micro for update in batches((X, Y), 5).once() for micro in update):
        assert torch.equal(x[:, 0], 2 * y)


def test_full_batch_is_one_update_of_everything():
    made = batches((X, Y), "full")
    assert made.per_epoch == 1
    assert torch.equal(next(made.start(9))[0][0], X)


def test_batches_are_fresh_memory():
    """A network may write into its inputs without harm to the data."""
    next(batches((X, Y), "full").start())[0][0].zero_()
    assert X.sum() != 0


def test_unshuffled_keeps_the_order_of_the_data():
    together = torch.cat([update[0][1] for update in batches((X, Y), 5, shuffle=False).once()])
    assert torch.equal(together, Y)


@pytest.mark.parametrize("wrapped", [TensorDataset(X, Y), Subset(TensorDataset(X, Y), list(range(0, 23, 2)))])
def test_tensor_datasets_are_gathered_whole(wrapped):
    made = batches(wrapped, 5, shuffle=False)
    assert isinstance(made, ArrayBatches)
    assert made.examples == len(wrapped)
    assert torch.equal(next(made.start())[0][0], torch.stack([wrapped[i][0] for i in range(5)]))


@pytest.mark.parametrize(
    ("make", "how"),
    [
        (lambda: batches((X, Y), 5, seed=1), "position"),
        (lambda: batches(Noisy(), 5, seed=1), "position"),
        (lambda: batches(loader(), seed=1), "skipping"),
        (lambda: batches(loader(generator=torch.Generator()), seed=1), "skipping"),
        (lambda: batches(loader(), seed=1, accumulate=3), "skipping"),
        (lambda: batches(DataLoader(NoisyStream(), batch_size=4), seed=1), "skipping"),
    ],
)
def test_what_comes_at_a_position_does_not_depend_on_the_way_there(make, how):
    made = make()
    assert made.resumes_by == how
    walked = take(made, 0, 14)
    for position in (0, 1, 6, 12):
        torch.rand(position)  # chance spent elsewhere
        assert take(make(), position, 2) == walked[position : position + 2]


@pytest.mark.parametrize("make", [lambda: batches(Noisy(), 5), lambda: batches(loader())])
def test_reading_leaves_the_training_its_own_chance(make):
    updates = make().start()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    drawn = torch.stack([torch.rand(()) for _ in zip(range(3), updates, strict=False)])
    assert torch.equal(drawn, expected)


def test_workers_read_what_one_process_reads():
    alone = take(batches(Noisy(), 5, seed=2, accumulate=2), 3, 4)
    assert take(batches(Noisy(), 5, seed=2, accumulate=2, num_workers=2), 3, 4) == alone


def test_a_stream_counts_itself():
    made = batches(DataLoader(NoisyStream(), batch_size=4))
    assert made.per_epoch is None
    updates = made.start()
    epochs = [made.epoch for _ in islice(updates, 4)]
    assert epochs == [0, 0, 0, 1]
    assert made.per_epoch == 3
    assert batches(loader()).per_epoch == 6
    assert batches(loader()).examples == 23


def test_a_stream_that_ends_says_so():
    updates = batches(one_by_one(2)).start()
    assert len(list(islice(updates, 2))) == 2
    with pytest.raises(UserError, match="cannot be read again"):
        next(updates)
    with pytest.raises(UserError, match="holds no batch"):
        next(batches(one_by_one(0)).start())


def test_one_pass_ends():
    for made in (batches((X, Y), 5), batches(Noisy(), 5), batches(loader())):
        assert sum(count(micro) for update in made.once() for micro in update) == 23


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        ((X, Y[:5]), {}, "same first dimension"),
        (torch.tensor(1.0), {}, "same first dimension"),
        (X[:0], {}, "no examples"),
        ((X, Y), {"batch_size": 0}, "at least 1"),
        ((X, Y), {"batch_size": "all"}, '"full"'),
        ((X, Y), {"batch_size": True}, "batch_size must be"),
        ((X, Y), {"accumulate": 0}, "accumulate must be"),
        ((X, Y), {"augment": "shfit"}, "Did you mean 'shift'"),
        ([(X, Y), (X, Y)], {}, "examples or batches"),
        (np.array(["a", "b"]), {}, "encoded"),
        (3, {}, "Cannot make batches of int"),
    ],
)
def test_what_cannot_be_batched_is_refused(data, options, words):
    with pytest.raises(UserError, match=words):
        batches(data, **options)


def test_streams_of_single_examples_are_refused():
    with pytest.raises(UserError, match="must hand out batches"):
        next(batches(iter("abc")).start())


def test_pictures_of_mixed_size_are_refused():
    class Mixed(Noisy):
        def __getitem__(self, index):
            return torch.zeros(1, 8, 8 + index % 2), index

    with pytest.raises(UserError, match=r"differ in size: 1×8×8 with a number and 1×8×9 with a number"):
        next(batches(Mixed(), 5).start())


@pytest.mark.parametrize("how", ["shift", "flip"])
def test_augmentation_depends_on_seed_and_step_alone(how):
    pictures = torch.rand(20, 1, 8, 8)
    walked = list(islice(batches((pictures, torch.arange(20)), 6, seed=1, augment=how).start(), 8))
    (x, y), *_ = next(batches((pictures, torch.arange(20)), 6, seed=1, augment=how).start(5))
    assert torch.equal(x, walked[5][0][0])
    assert not torch.equal(x, pictures[y])
    other = next(batches((pictures, torch.arange(20)), 6, seed=2, augment=how).start(5))
    assert not torch.equal(x, other[0][0])


def test_shift_moves_by_one_pixel_of_eight():
    picture = torch.zeros(200, 1, 8, 8)
    picture[:, :, 4, 4] = 1
    moved = augment.shift(picture, torch.Generator().manual_seed(0))
    assert moved.sum(dim=(1, 2, 3)).eq(1).all()
    places = {tuple(place) for place in moved[:, 0].nonzero()[:, 1:].tolist()}
    assert places == {(row, column) for row in (3, 4, 5) for column in (3, 4, 5)}


def test_flip_mirrors_half():
    pictures = torch.rand(200, 3, 4, 4)
    flipped = augment.flip(pictures, torch.Generator().manual_seed(0))
    mirrored = (flipped == pictures.flip(3)).all(dim=3).all(dim=2).all(dim=1)
    kept = (flipped == pictures).all(dim=3).all(dim=2).all(dim=1)
    assert (mirrored | kept).all()
    assert 60 < mirrored.sum() < 140


def test_augmentation_of_tables_is_refused():
    with pytest.raises(UserError, match="works on pictures"):
        next(batches((X, Y), 5, augment="flip").start())


def test_augmentation_by_a_function_and_of_a_bare_tensor():
    made = batches(X, 5, augment=lambda x, generator: x + torch.rand(1, generator=generator), shuffle=False)
    assert not torch.equal(next(made.start())[0], X[:5])
