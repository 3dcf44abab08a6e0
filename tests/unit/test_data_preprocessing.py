"""Splits, scaling and encodings, held against scikit-learn."""

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.utils.class_weight import compute_class_weight
from torch.utils.data import DataLoader, Dataset, TensorDataset

from steepest import tasks
from steepest.data import kinds, missing, sources, split
from steepest.data.batches import batches, count
from steepest.data.kinds import category, scaled
from steepest.train import preprocessing
from steepest.train.preprocessing import Preprocessing

N = 80
CHANCE = np.random.default_rng(0)
X = CHANCE.normal(3, 5, size=(N, 3))
Y = CHANCE.integers(0, 3, N)
EPS = np.finfo(np.float32).eps


def holed():
    values = X.copy()
    values[::7, 1] = np.nan
    return values


def table():
    return pl.DataFrame(
        {
            "a": X[:, 0],
            "n": np.arange(N),
            "sure": np.arange(N) % 2 == 0,
            "day": np.arange(N).astype("M8[D]"),
            "city": np.array(["Bonn", "Lund", "Pisa"])[Y],
            "y": X[:, 2],
        }
    )


def fitted(data, target=None, *, task="auto", **settings):
    source = sources.read(data, target)
    posed = tasks.pose(source, task)
    return source, preprocessing.fit(source, posed, np.arange(50), **settings)


@pytest.mark.parametrize(("scale", "scaler"), [("standard", StandardScaler), ("minmax", MinMaxScaler)])
@pytest.mark.parametrize("impute", ["median", "mean"])
def test_numbers_equal_scikit_learns(scale, scaler, impute):
    _, made = fitted((holed(), Y), scale=scale, impute=impute)
    oracle = make_pipeline(SimpleImputer(strategy=impute), scaler()).fit(holed()[:50])
    expected = oracle.transform(holed())
    np.testing.assert_allclose(made.apply(holed()), expected, rtol=EPS, atol=EPS * np.abs(expected).max())


def test_slabs_change_no_more_than_rounding(monkeypatch):
    whole = fitted((holed(), Y))[1]
    expected = whole.apply(holed())
    monkeypatch.setattr(scaled, "SLAB", 7)
    pieces = fitted((holed(), Y))[1]
    rounding = 50 * np.finfo(np.float64).eps
    np.testing.assert_allclose(pieces.inputs.scaling.shift, whole.inputs.scaling.shift, rtol=rounding)
    np.testing.assert_allclose(pieces.inputs.scaling.scale, whole.inputs.scaling.scale, rtol=rounding)
    np.testing.assert_array_equal(whole.apply(holed()), expected)


def test_pictures_are_scaled_by_channel():
    pictures = CHANCE.normal([[[1]], [[10]]], [[[2]], [[5]]], size=(N, 2, 6, 6))
    _, made = fitted((pictures, Y))
    seen = made.apply(pictures[:50]).astype(np.float64)
    rounding = EPS * np.sqrt(seen[:, 0].size)
    np.testing.assert_allclose(seen.mean(axis=(0, 2, 3)), 0, atol=rounding)
    np.testing.assert_allclose(seen.std(axis=(0, 2, 3)), 1, atol=rounding)
    assert made.input_shape == (2, 6, 6)


def test_a_table_becomes_numbers_and_places():
    source, made = fitted(table(), "y")
    out = made.apply(source.inputs)
    assert made.inputs.names == ("a", "n", "sure", "day", "city=Bonn", "city=Lund", "city=Pisa")
    assert made.input_shape == (7,)
    expected = OneHotEncoder(sparse_output=False).fit_transform(table().select("city").to_numpy())
    np.testing.assert_array_equal(out[:, 4:], expected)
    np.testing.assert_allclose(out[:, 3], out[:, 1], rtol=EPS, err_msg="days count as days")
    assert any("city in 3 categories" in line for line in made.sentences())


def test_missing_and_unseen_categories_are_zeros():
    source, made = fitted(table(), "y")
    changed = source.inputs.with_columns(city=pl.Series([None, "Rome"] * (N // 2), dtype=pl.String))
    assert not made.apply(changed)[:, 4:].any()


@pytest.mark.parametrize("impute", ["median", "mean", None])
@pytest.mark.parametrize("scale", ["standard", "minmax", None])
def test_a_table_of_categories_alone(scale, impute):
    frame = table().select("city", pl.Series("half", ["p", "q"] * (N // 2)), "y")
    source, made = fitted(frame, "y", scale=scale, impute=impute)
    out = made.apply(source.inputs)
    assert (out.dtype, made.input_shape) == (np.float32, (5,))
    expected = OneHotEncoder(sparse_output=False).fit_transform(frame.select("city", "half").to_numpy())
    np.testing.assert_array_equal(out, expected)
    again = Preprocessing.from_json(made.to_json())
    assert again == made
    np.testing.assert_array_equal(again.apply(source.inputs.reverse()), out[::-1])


def test_a_column_named_like_a_count():
    frame = table().rename({"city": "count"})
    assert fitted(frame, "y")[1].inputs.categories.categories["count"] == ("Bonn", "Lund", "Pisa")


def test_the_order_of_columns_does_not_matter():
    source, made = fitted(table(), "y")
    np.testing.assert_array_equal(
        made.apply(source.inputs.select(source.columns[::-1])), made.apply(source.inputs)
    )


def test_names_are_left_out_and_frequent_categories_kept():
    frame = pl.DataFrame({"name": [f"n{i}" for i in range(400)], "a": range(400), "y": [0, 1] * 200})
    frame = frame.with_columns(code=pl.Series([f"c{i % 100}" if i > 150 else "c7" for i in range(400)]))
    source = sources.read(frame, "y")
    made = kinds.fit(source.inputs, "inputs", kinds.Settings()).categories
    assert made.left_out == ("name",)
    assert len(made.categories["code"]) == category.MOST
    assert "c7" in made.categories["code"]


def test_a_column_that_is_all_missing_and_one_that_is_constant():
    values = np.column_stack([np.full(N, np.nan), np.full(N, 4.0), X])
    _, made = fitted((values, Y))
    out = made.apply(values)
    assert np.isfinite(out).all()
    assert not out[:, :2].any()


def test_gaps_are_counted_and_empty_columns_named():
    rows = np.arange(N)
    assert missing.told(X, rows, "median") == ""
    values = np.column_stack([holed(), np.full(N, np.nan)])
    empty = "empty in all training rows, so that nothing is learnt from them: column 3"
    said = "gaps of the training rows are filled by the median: column 1"
    assert missing.told(values, rows, "median") == f"12 {said} (12); {empty}"
    assert missing.told(values, rows[:10], "median") == f"2 {said} (2); {empty}"
    assert missing.told({"ids": Y, "x": values}, rows, "median").endswith("column 3 of input 1")
    other = "gap of other rows is filled by the mean of the training rows"
    assert missing.told(X, rows, "mean", [(np.where(np.eye(9) > 0, np.nan, 0.0), rows[:1])]) == f"1 {other}"
    assert "column 5 (1) and 3 more" in missing.told(np.where(np.eye(9) > 0, np.nan, 0.0), rows[:9], "mean")


def test_an_empty_column_of_a_table_is_named_and_is_no_category():
    void, some = pl.Series([None] * N, dtype=pl.String), pl.Series([None] + [1.0] * (N - 1))
    frame = table().with_columns(void=void, gone=pl.lit(None, pl.Float64), some=some)
    said = missing.told(frame, np.arange(N), "mean")
    assert said.startswith("1 gap of the training rows is filled by the mean: some (1); empty")
    assert said.endswith(": void, gone")
    assert "void" not in " ".join(fitted(frame, "y")[1].sentences())


@pytest.mark.parametrize("inputs", [{"ids": Y, "x": X}, (Y, X)])
def test_several_inputs(inputs):
    source, made = fitted((inputs, X[:, 0]), task="regression")
    seen, target = made.examples(source, np.arange(5))
    ids, x = seen.values() if isinstance(seen, dict) else seen
    assert (ids.dtype, x.dtype, target.dtype) == (torch.int64, torch.float32, torch.float32)
    assert (list(made.input_shape.values()) if isinstance(inputs, dict) else list(made.input_shape)) == [
        (),
        (3,),
    ]
    with pytest.raises(ValueError, match="These inputs must be"):
        made.apply(X)


@pytest.mark.parametrize(
    ("data", "target"),
    [
        ((holed(), Y), None),
        (table(), "y"),
        (({"ids": Y, "x": X}, Y), None),
        (((Y, X), Y), None),
        (table(), "city"),
    ],
)
@pytest.mark.parametrize("scale", ["standard", "minmax", None])
def test_json_keeps_every_bit(data, target, scale):
    source, made = fitted(data, target, scale=scale)
    again = Preprocessing.from_json(made.to_json())
    assert again == made
    one, other = (batch.examples(source, np.arange(N)) for batch in (made, again))
    assert torch.equal(one[1], other[1])


def test_regression_targets_are_standardised_and_come_back():
    source, made = fitted((X, 100 + 50 * X[:, :2]))
    _, target = made.examples(source, np.arange(50))
    np.testing.assert_allclose(target.double().mean(0), 0, atol=50 * EPS)
    np.testing.assert_allclose(made.decode(target), source.target[:50], rtol=10 * EPS, atol=1e3 * EPS)
    assert any("standardised" in line for line in made.sentences())
    single = fitted((X, X[:, 0]))[1]
    assert single.decode(torch.zeros(4, 1)).shape == (4,)
    assert single.decode(torch.zeros(4)).shape == (4,)


def test_classes_come_back_as_labels():
    source, made = fitted((X, np.array(["c", "a", "b"])[Y]))
    _, target = made.examples(source, np.arange(N))
    assert target.dtype == torch.int64
    outputs = torch.nn.functional.one_hot(target, 3).float()
    assert made.decode(outputs).tolist() == source.target.tolist()
    two = fitted((X, np.arange(N) % 2))[1]
    assert two.decode(np.array([[-1.0], [1.0]])).tolist() == ["0", "1"]


def test_weights_travel_along():
    source, made = fitted((X, Y, np.arange(N) + 1.0))
    _, _, weight = made.examples(source, np.array([3, 0]))
    assert weight.tolist() == [4, 1]
    named = sources.read(table(), "y", sample_weight="n")
    assert named.weight.tolist() == list(range(N))


class Pairs(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, index):
        return {"x": torch.tensor(X[index]), "id": torch.tensor(index)}, Y[index]


def test_a_dataset_is_split_by_rows():
    source, made = fitted(Pairs())
    rows = np.array([5, 2, 7])
    part = made.examples(source, rows)
    (update,) = batches(part, 3, shuffle=False).once()
    assert update[0][0]["id"].tolist() == [5, 2, 7]
    assert made.input_shape == {"x": (3,), "id": ()}
    assert made == Preprocessing.from_json(made.to_json())


def test_a_stream_stays_as_it_is():
    loader = DataLoader(TensorDataset(torch.tensor(X), torch.tensor(Y)), batch_size=16)
    source, made = fitted(loader)
    assert made.examples(source, np.arange(N)) is loader
    assert made.input_shape == (3,)
    assert made.decode(torch.eye(3)).tolist() == ["0", "1", "2"]
    assert made == Preprocessing.from_json(made.to_json())


def test_balanced_class_weights_equal_scikit_learns():
    task = tasks.pose(sources.read((X, Y)))
    expected = compute_class_weight("balanced", classes=np.arange(3), y=Y)
    np.testing.assert_allclose(task.class_weights("balanced", Y), expected, rtol=np.finfo(float).eps * 4)
    assert task.class_weights({2: 5}, Y) == (1, 1, 5)
    assert task.class_weights([1, 2, 3], Y) == (1, 2, 3)
    assert task.class_weights(None, Y) is None


def parts_of(labels, **settings):
    source = sources.read((np.zeros((len(labels), 1)), labels))
    return split.split(source, tasks.pose(source), **settings)


def test_stratified_parts_hold_every_class_by_its_share():
    labels = np.repeat(np.arange(4), [400, 200, 100, 100])
    parts = parts_of(labels)
    assert parts.how == "stratified"
    for rows, share in [(parts.train, 0.7), (parts.val, 0.15), (parts.test, 0.15)]:
        assert np.abs(np.bincount(labels[rows]) - share * np.bincount(labels)).max() <= 1


def test_a_rare_class_is_trained_on():
    labels = np.array([0] * 60 + [1] * 39 + [2])
    for seed in range(20):
        assert set(labels[parts_of(labels, seed=seed).train]) == {0, 1, 2}


def test_splits_depend_on_the_seed_alone():
    labels = np.arange(200) % 2
    one, again, other = (parts_of(labels, seed=seed).test for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_sorted_labels_give_mixed_parts():
    labels = np.repeat([0, 1], 50)
    for how in ("random", "stratified"):
        parts = parts_of(labels, how=how)
        assert set(labels[parts.val]) == set(labels[parts.test]) == {0, 1}


def test_own_parts():
    source, own = sources.read((X, Y)), sources.read((X[:9], Y[:9]))
    task = tasks.pose(source)
    parts = split.split(source, task, val=0.25, test=own)
    assert (len(parts.train), len(parts.val), len(parts.test)) == (60, 20, 9)
    parts = split.split(source, task, val=own, test=0)
    assert (len(parts.train), len(parts.val), len(parts.test)) == (80, 9, 0)
    loader = sources.read(DataLoader(TensorDataset(torch.tensor(X), torch.tensor(Y)), batch_size=16))
    assert len(split.split(loader, tasks.pose(loader), val=own, test=0).train) == N
    with pytest.raises(ValueError, match="cannot be split"):
        split.split(loader, tasks.pose(loader))


def test_a_validation_of_few_rows_is_told():
    source = sources.read((X, Y))
    task = tasks.pose(source)
    assert "; the validation has 4 rows, by which" in split.split(source, task, val=0.05).why
    own = sources.read((X[:1], Y[:1]))
    assert "; the validation has 1 row, by which" in split.split(source, task, val=own).why
    for val in (0, 0.15):
        assert "rows, by which" not in split.split(source, task, val=val).why


def test_from_a_source_to_batches():
    source, made = fitted("iris")
    update = next(batches(made.examples(source, np.arange(0, 150, 2)), 16, accumulate=2).start())
    assert [count(batch) for batch in update] == [8, 8]
