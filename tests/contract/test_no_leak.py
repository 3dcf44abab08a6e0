"""Nothing that is fitted has seen a row outside the training part."""

import numpy as np
import polars as pl
import pytest

from steepest import tasks
from steepest.data import sources, split
from steepest.train import preprocessing

N = 90


def frame(seed=0):
    chance = np.random.default_rng(seed)
    numbers = chance.normal(size=(N, 2))
    numbers[chance.random((N, 2)) < 0.1] = np.nan
    return pl.DataFrame(
        {
            "age": numbers[:, 0],
            "when": np.arange(N).astype("M8[D]"),
            "city": chance.choice(["Bonn", "Lund", "Pisa"], N),
            "code": [f"c{i % 40}" for i in range(N)],
            "y": chance.normal(size=N),
        }
    )


def spoilt(table, rows):
    """The table with every value in these rows changed, wildly."""
    here = pl.Series([row in set(rows.tolist()) for row in range(N)])
    changed = {
        "age": pl.lit(1e6),
        "when": pl.lit(np.datetime64("2999-01-01")),
        "city": pl.lit("Atlantis"),
        "code": pl.lit("?!"),
        "y": pl.lit(-1e6),
    }
    return table.with_columns(
        pl.when(here).then(value.cast(table.schema[name])).otherwise(pl.col(name)).alias(name)
        for name, value in changed.items()
    )


def fitted(data, target=None, rows=None, **settings):
    source = sources.read(data, target)
    task = tasks.pose(source)
    rows = split.split(source, task).train if rows is None else rows
    return preprocessing.fit(source, task, rows, **settings)


@pytest.mark.parametrize("scale", ["standard", "minmax", None])
@pytest.mark.parametrize("impute", ["median", "mean"])
@pytest.mark.parametrize("part", ["val", "test"])
def test_rows_outside_the_training_part_change_no_fitted_number(scale, impute, part):
    source = sources.read(frame(), "y")
    parts = split.split(source, tasks.pose(source))
    outside = getattr(parts, part)
    clean = fitted(frame(), "y", parts.train, scale=scale, impute=impute)
    dirty = fitted(spoilt(frame(), outside), "y", parts.train, scale=scale, impute=impute)
    assert clean == dirty
    assert clean.to_json() == dirty.to_json()


def test_training_rows_do_change_them():
    """The test above can fail."""
    source = sources.read(frame(), "y")
    train = split.split(source, tasks.pose(source)).train
    assert fitted(frame(), "y", train) != fitted(spoilt(frame(), train[:1]), "y", train)


def test_pictures_outside_the_training_part_change_no_fitted_number():
    pictures, labels = np.random.default_rng(0).random((40, 1, 4, 4)), np.arange(40) % 2
    rows = np.arange(30)
    clean = fitted((pictures, labels), rows=rows)
    pictures[30:] = 1e3
    assert fitted((pictures, labels), rows=rows) == clean


@pytest.mark.parametrize("how", ["random", "stratified", "group", "time"])
def test_parts_share_no_row_and_leave_none_out(how):
    data = (np.zeros((N, 2)), np.arange(N) % 3)
    source = sources.read(data, split_by=np.arange(N) // 4)
    parts = split.split(source, tasks.pose(source), how=how)
    together = np.concatenate([parts.train, parts.val, parts.test])
    assert sorted(together) == list(range(N))


def test_a_group_lies_in_one_part():
    groups = np.random.default_rng(1).choice(list("abcdefghijkl"), N)
    source = sources.read((np.zeros((N, 2)), np.arange(N) % 3), split_by=groups)
    parts = split.split(source, tasks.pose(source))
    assert parts.how == "group"
    seen = [set(groups[rows]) for rows in (parts.train, parts.val, parts.test)]
    assert all(seen)
    assert sum(map(len, seen)) == len(set(groups))


def test_the_future_is_not_trained_on():
    times = np.random.default_rng(1).integers(0, 30, N).astype("M8[D]")
    source = sources.read((np.zeros((N, 2)), np.arange(N) % 3), split_by=times)
    parts = split.split(source, tasks.pose(source))
    assert parts.how == "time"
    assert times[parts.train].max() < times[parts.val].min()
    assert times[parts.val].max() < times[parts.test].min()


def test_the_column_that_decides_the_split_is_no_input():
    assert "city" not in sources.read(frame(), "y", split_by="city").columns


def test_the_target_beside_a_frame_may_not_be_inside_it():
    table = frame()
    with pytest.raises(ValueError, match="give the answer away"):
        sources.read((table, table["y"]))
