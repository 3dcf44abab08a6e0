"""One table in many forms is one Source."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from steepest import tasks
from steepest.data import bundled, sources
from steepest.data.view import Asked, Rows, Stream

N = 40
A = np.linspace(-1, 1, N)
Y = np.arange(N) % 2
X = np.column_stack([A, A**2])


def table():
    city = np.where(np.arange(N) % 3, "Bonn", "Lund").tolist()
    city[5] = None
    return pl.DataFrame({"a": A, "n": np.arange(N), "city": city, "w": np.ones(N), "y": Y})


def written(path):
    writers = {
        ".csv": table().write_csv,
        ".tsv": lambda where: table().write_csv(where, separator="\t"),
        ".parquet": table().write_parquet,
        ".json": table().write_json,
        ".jsonl": table().write_ndjson,
    }
    writers[path.suffix](path)
    return path


class Pairs(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, index):
        return torch.tensor(X[index]), int(Y[index])


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".json", ".jsonl"])
def test_a_file_gives_what_its_frame_gives(tmp_path, suffix):
    path = written(tmp_path / f"people{suffix}")
    for given in (path, str(path)):
        source = sources.read(given, "y", sample_weight="w")
        assert source.inputs.equals(table().select("a", "n", "city"))
        assert source.name == path.name
        np.testing.assert_array_equal(source.target, Y)
        assert source.fingerprint == sources.read(table(), "y", sample_weight="w").fingerprint


def test_pandas_gives_what_polars_gives():
    pandas = pd.DataFrame({name: column.to_list() for name, column in table().to_dict().items()})
    assert sources.read(pandas, "y").inputs.equals(sources.read(table(), "y").inputs)
    answers = pd.Series(Y, name="label")
    beside = sources.read((pandas.drop(columns="y"), answers))
    assert beside.targets == ("label",)
    assert beside.columns == ("a", "n", "city", "w")


def test_types_of_pandas():
    pandas = pd.DataFrame(
        {
            "day": pd.date_range("2024-01-01", periods=N),
            "kind": pd.Categorical(["a", "b"] * (N // 2)),
            "whole": pd.array([1, None] * (N // 2), dtype="Int64"),
            "text": pd.array(["u", None] * (N // 2), dtype="string"),
            "loose": ["u", float("nan")] * (N // 2),
        }
    )
    read = sources.read((pandas, Y)).inputs
    assert read["day"].dtype.is_temporal()
    assert read["kind"].to_list() == ["a", "b"] * (N // 2)
    assert read["whole"].to_list() == [1, None] * (N // 2)
    assert read["text"].equals(read["loose"].alias("text"))


@pytest.mark.parametrize(
    ("answers", "targets"),
    [
        (pd.DataFrame({"u": A, "v": A}), ("u", "v")),
        (pd.DataFrame({"u": A}), ("u",)),
        (np.column_stack([A, A]), ("target0", "target1")),
        (A[:, None], ("target",)),
        (pl.Series("u", A), ("u",)),
        (A.tolist(), ("target",)),
    ],
)
def test_targets_beside_a_frame(answers, targets):
    source = sources.read((table().drop("y"), answers))
    assert source.targets == targets
    np.testing.assert_array_equal(source.target.reshape(N, -1).T, [A] * len(targets))


def test_semicolons_blanks_and_marks_of_missing_values(tmp_path):
    path = tmp_path / "loose.csv"
    path.write_text("a ; b; y\n 1;?;yes\n 2; 4.5;no\n")
    source = sources.read(path, "y")
    assert source.inputs.to_dict(as_series=False) == {"a": [1, 2], "b": [None, 4.5]}


def test_late_rows_decide_the_type_too(tmp_path):
    path = tmp_path / "late.csv"
    path.write_text("a,b,y\n" + "1,2020-01-01,0\n" * 11_000 + "1.5,soon,1\n")
    read = sources.read(path, "y").inputs
    assert read["a"].dtype == pl.Float64
    assert read["b"].dtype == pl.String


@pytest.mark.parametrize("day", ["2020-01-31", "2020-01-31 08:00:00", "2020-01-31T08:00:00"])
def test_dates_in_text(tmp_path, day):
    path = tmp_path / "days.csv"
    path.write_text(f"day,y\n{day},0\nNA,1\n")
    assert sources.read(path, "y").inputs["day"].dtype.is_temporal()
    assert sources.read(path, "y").inputs["day"].null_count() == 1


def test_rows_without_a_target_are_left_out_and_that_is_said():
    source = sources.read(table().with_columns(pl.when(pl.col("n") > 3).then("y").alias("y")), "y")
    assert source.examples == N - 4
    assert source.notes == ("4 of 40 rows have no target and are left out.",)


def test_columns_by_role():
    assert sources.read(table(), "y", drop=["n"], sample_weight="w").columns == ("a", "city")
    assert sources.read(table(), "y", features=["n", "a"]).columns == ("n", "a")
    grouped = sources.read(table().drop_nulls(), "y", split_by="city")
    assert set(grouped.groups) == {"Bonn", "Lund"}
    assert sources.read(table(), ["y", "a"]).target.shape == (N, 2)


@pytest.mark.parametrize(
    ("data", "view"),
    [
        ((X, Y), Rows),
        ((X.tolist(), Y.tolist()), Rows),
        ((torch.tensor(X), torch.tensor(Y)), Rows),
        ((X, Y, np.ones(N)), Rows),
        ((A, Y), Rows),
        (({"a": A, "b": X}, Y), Rows),
        (((A, X), Y), Rows),
        ((pl.DataFrame(X), Y), Rows),
        (TensorDataset(torch.tensor(X), torch.tensor(Y)), Rows),
        (Subset(TensorDataset(torch.tensor(X), torch.tensor(Y)), range(N)), Rows),
        (Pairs(), Asked),
        (DataLoader(Pairs(), batch_size=8), Stream),
        ((np.zeros((N, 3, 8, 8)), Y), Rows),
        ((np.zeros((N, 8, 8, 3)), Y), Rows),
        ((np.zeros((N, 8, 8), np.uint8), Y), Rows),
        ((np.zeros((N, 8, 8)), Y), Rows),
    ],
)
def test_forms_of_data(data, view):
    source = sources.read(data)
    assert isinstance(source.view, view)
    assert source.labelled == (getattr(source.inputs, "ndim", 0) == 4)
    assert source.examples == N
    np.testing.assert_array_equal(source.target, Y)
    assert tasks.pose(source).kind == "binary"


def test_weights_and_groups_beside_a_frame_lose_the_same_rows():
    answers = np.where(np.arange(N) > 3, Y, np.nan)
    source = sources.read((table().drop("y", "w"), answers, np.arange(N)), split_by=np.arange(N) + 1)
    np.testing.assert_array_equal(source.weight, np.arange(4, N))
    np.testing.assert_array_equal(source.groups, np.arange(5, N + 1))
    assert source.columns == ("a", "n", "city")


def test_pictures_have_their_channels_first():
    assert sources.read((np.zeros((N, 8, 9, 3)), Y)).inputs.shape == (N, 3, 8, 9)
    assert sources.read((np.zeros((N, 8, 9), np.uint8), Y)).inputs.shape == (N, 1, 8, 9)


def test_npz(tmp_path):
    np.savez(tmp_path / "one.npz", X=X, y=Y)
    np.savez(tmp_path / "two.npz", a=A, b=X, sex=Y)
    np.testing.assert_array_equal(sources.read(tmp_path / "one.npz").inputs, X)
    assert set(sources.read(tmp_path / "two.npz", "sex").inputs) == {"a", "b"}
    np.testing.assert_array_equal(sources.inputs(tmp_path / "one.npz"), X)


def test_inputs_alone(tmp_path):
    assert sources.inputs(written(tmp_path / "new.csv")).columns == table().columns
    assert sources.inputs(table()).equals(table())
    assert sources.inputs("digits").shape == (1797, 1, 8, 8)
    np.testing.assert_array_equal(sources.inputs(X), X)
    assert set(sources.inputs({"a": A, "b": X})) == {"a", "b"}


@pytest.mark.parametrize("name", bundled.TARGETS)
def test_bundled_data(name):
    source = sources.read(name)
    assert source.targets == (bundled.TARGETS[name],)
    assert tasks.pose(source).kind == {"diabetes": "regression", "breast_cancer": "binary"}.get(
        name, "classification"
    )


def test_digits_are_pictures_from_0_to_1():
    digits = sources.read("digits").inputs
    assert digits.dtype == np.float32
    assert (digits.min(), digits.max()) == (0, 1)


def test_a_fingerprint_sees_every_value_and_name():
    first = sources.read(table(), "y").fingerprint
    assert first == sources.read(table(), "y").fingerprint
    changed = table()
    changed[7, "city"] = "Pisa"
    others = [changed, table().rename({"a": "b"}), table().reverse()]
    assert len({first, *(sources.read(other, "y").fingerprint for other in others)}) == 4
    assert sources.read((X, Y)).fingerprint != sources.read((X, Y, np.ones(N))).fingerprint


@pytest.mark.parametrize(
    ("target", "kind", "classes"),
    [
        (["no", "yes"] * 20, "binary", ("no", "yes")),
        ([True, False] * 20, "binary", ("false", "true")),
        ([10, 9] * 20, "binary", ("9", "10")),
        ([1.0, 0.0, 2.0, 2.0] * 10, "classification", ("0", "1", "2")),
        ([0.5, 1.0] * 20, "regression", None),
        (list(range(40)), "regression", None),
        (["c", "a", "b", "b"] * 10, "classification", ("a", "b", "c")),
        ([[1, 2], [3, 4]] * 20, "regression", None),
    ],
)
def test_the_task_follows_from_the_target(target, kind, classes):
    task = tasks.pose(sources.read((X, target)))
    assert (task.kind, task.classes) == (kind, classes)
    assert task.shape(task.layouts[0]) == (len(classes) if classes else np.ndim(target),)
    assert all(line.endswith(".") for line in task.sentences())


def test_the_task_can_be_asked_for():
    assert tasks.pose(sources.read((X, Y)), "regression").shape("numbers") == (1,)
    assert tasks.pose(sources.read((X, list(range(20)) * 2)), "classification").shape("classes") == (20,)


def test_labels_of_a_dataset_count_from_0_to_the_largest():
    class Gap(Pairs):
        def __getitem__(self, index):
            return torch.zeros(3), 2 * int(Y[index])

    assert tasks.pose(sources.read(Gap())).classes == ("0", "1", "2")
