"""Every bad input gets a sentence: what was wrong, what was got, what to do."""

import io
import zipfile

import numpy as np
import polars as pl
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import steepest
from steepest import tasks
from steepest.data import sources, split
from steepest.optim.errors import UserError
from steepest.train import preprocessing

N = 60
X = np.random.default_rng(0).normal(size=(N, 3))
Y = np.arange(N) % 3


def prepared(data, target=None, *, task="auto", scale="standard", impute="median", **roles):
    """All that is done to data before training."""
    source = sources.read(data, target, **roles)
    posed = tasks.pose(source, task)
    parts = split.split(source, posed)
    made = preprocessing.fit(source, posed, parts.train, scale, impute)
    for rows in (parts.train, parts.val, parts.test):
        made.examples(source, rows)


def refused(words, data, target=None, **settings):
    with pytest.raises(UserError, match=words) as caught:
        prepared(data, target, **settings)
    assert type(caught.value) is UserError
    assert str(caught.value).endswith((".", "?")), "a sentence"


def table(**columns):
    return pl.DataFrame({"a": X[:, 0], "b": X[:, 1], "y": Y, **columns})


def with_value(value, at=7):
    column = X[:, 0].copy()
    column[at] = value
    return column


def file(path, text):
    path.write_text(text)
    return path


def test_good_data_pass():
    prepared(table(), "y")
    prepared((X, Y))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.csv", "", "empty"),
        ("header.csv", "a,b,y\n", "no rows"),
        ("unlabelled.csv", "a,y\n1,\n2,NA\n3,?\n", "none of the 3 rows has a value for y"),
        ("text.csv", "y\nx\nz\n", "No column is left"),
        ("torn.parquet", "PAR1", "cannot be read"),
        ("notes.docx", "words", r"files may be \.csv"),
        ("torn.npz", "PK", "not a readable .npz"),
        ("torn.json", "[{", "cannot be read"),
        ("ragged.csv", "a,y\n1,2\n1,2,3\n", "cannot be read"),
    ],
)
def test_files(tmp_path, name, content, words):
    refused(words, file(tmp_path / name, content), "y")


def test_missing_files_and_names(tmp_path):
    file(tmp_path / "people.csv", "a,y\n1,2\n")
    refused("Did you mean 'people.csv'", tmp_path / "peple.csv", "y")
    refused("Did you mean 'digits'", "digts")
    refused("is a folder", tmp_path, "y")


def test_a_file_that_is_not_utf8(tmp_path):
    path = tmp_path / "latin.csv"
    path.write_bytes("a,y\nü,1\n".encode("latin-1"))
    refused("UTF-8", path, "y")


def test_columns_that_are_not_there():
    refused("Which column is to be predicted", table())
    refused("no column 'why'", table(), "why")
    refused("Did you mean 'income'", table(income=X[:, 0]), "incme")
    refused("no column 'c'", table(), "y", features=["c"])
    refused("no column 'c'", table(), "y", drop=["c"])
    refused("names columns", (X, Y), drop=["c"])


@pytest.mark.parametrize(
    ("target", "task", "words"),
    [
        (np.full(N, 3.5), "auto", "constant: every row is 3.5"),
        (np.full(N, 1), "auto", "one class only, '1'"),
        (np.array(["yes"] * N), "auto", "one class only, 'yes'"),
        (np.arange(N), "classification", "fewer than two rows a class"),
        (np.array([f"name {i}" for i in range(N)]), "auto", "fewer than two rows a class"),
        (with_value(np.nan), "auto", "NaN in 1 of 60 rows, first in row 7"),
        (with_value(-np.inf), "auto", "infinite in 1 of 60 rows, first in row 7"),
        (np.array(["low", "high"] * (N // 2)), "regression", "holds text .'high', 'low'. where a regression"),
        (np.array(["a", None, "b"] * (N // 3), dtype=object), "auto", "NaN in 20 of 60 rows"),
        (np.eye(3)[Y], "classification", "argmax"),
        (np.zeros((N, 2, 2)), "auto", "must have shape"),
        (Y, "clasification", "task must be"),
    ],
)
def test_targets(target, task, words):
    refused(words, (X, target), task=task)


def test_features_that_are_not_finite():
    refused("'a' is infinite in row", table(a=with_value(np.inf)), "y")
    refused("'a' is missing .NaN. in row", table(a=with_value(np.nan)), "y", impute=None)
    refused("is infinite in row", (np.column_stack([with_value(np.inf), X]), Y))
    refused("is missing", (X.reshape(N, 1, 3, 1) * np.nan, Y))
    refused("float32's range", (np.column_stack([with_value(1e39), X]), Y), scale=None)
    refused("squares overflow", (np.column_stack([with_value(1e300), X]), Y), impute="mean")
    prepared(table(a=with_value(np.nan)), "y")


def test_text_where_numbers_are_due():
    entries = [str(value) for value in X[:, 0]]
    entries[7] = "twelve"
    refused("'income' holds text where numbers are due: 'twelve' in 1 of 60", table(income=entries), "y")
    refused("text such as 'a'", (np.array([["a", "b"]] * N), Y))
    refused(
        "hold text with nearly as many values",
        pl.DataFrame({"n": [f"n{i}" for i in range(120)], "y": [0, 1] * 60}),
        "y",
    )


def test_columns_without_one_value_a_row():
    refused("not one value a row", table(c=[[1, 2]] * N), "y")
    refused("dates", (X, np.arange(N).astype("M8[D]")))


def test_pictures_and_rows_of_mixed_size():
    pictures = [np.zeros((8, 8)), np.zeros((8, 9))] * (N // 2)
    refused("2 different sizes", (pictures, Y))
    refused("2 different sizes", (np.array([*pictures, 1], dtype=object)[:-1], Y))


def test_lengths_that_differ():
    refused(r"lengths \[60, 59\]", (X, Y[1:]))
    refused("lengths", ({"a": X, "b": X[:3]}, Y))
    refused("target has 59 entries and the table 60 rows", (pl.DataFrame(X), Y[1:]))
    refused("length 0", (X[:0], Y[:0]))
    refused("weight must have shape", (X, Y), sample_weight=np.ones(3))
    refused("sample_weight has 3 entries", table(), "y", sample_weight=np.ones(3))
    refused("cannot be joined to a dataset", Examples([0, 1] * 30), sample_weight=np.ones(60))


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_sample_weights(bad):
    weight = np.ones(N)
    weight[3] = bad
    refused("Sample weights must be finite", (X, Y, weight))
    refused("Sample weights must be finite", table(w=weight), "y", sample_weight="w")
    refused("only zeros", (X, Y, np.zeros(N)))
    refused("must hold numbers", table(w=["a"] * N), "y", sample_weight="w")


def test_splits():
    source = sources.read((X, Y))
    posed = tasks.pose(source)
    grouped = sources.read((X, Y), split_by=np.zeros(N))
    for settings, words in [
        ({"val": 0.6, "test": 0.5}, "add up to < 1"),
        ({"val": -0.1}, "share from 0"),
        ({"how": "statified"}, "must be one of"),
        ({"how": "time"}, "needs split_by"),
        ({"how": "group", "source": grouped}, "too few for these parts of whole groups"),
        ({"how": "stratified", "target": tasks.pose(source, "regression")}, "needs classes"),
    ]:
        with pytest.raises(UserError, match=words):
            split.split(**{"source": source, "target": posed, **settings})
    refused("4 rows are too few", (X[:4], [0, 0, 1, 1]))
    refused("split_by='g' has 1 missing", table(g=[None, *range(N - 1)]), "y", split_by="g")


def test_data_of_other_columns_than_were_trained_on():
    source = sources.read(table(), "y")
    made = preprocessing.fit(source, tasks.pose(source), np.arange(N))
    for frame, words in [
        (table().drop("a"), "lack the column 'a'"),
        (table(a=["x"] * N), "text where the training data held numbers"),
        (X, "as a table"),
    ]:
        with pytest.raises(UserError, match=words):
            made.apply(frame)
    with pytest.raises(UserError, match="Label '7' of 'y' does not occur"):
        made.examples(sources.read(table(y=[7] * N), "y"), np.arange(3))


def test_npz_that_could_run_code(tmp_path):
    np.savez(tmp_path / "objects.npz", X=np.array([{"a": 1}], dtype=object), y=Y)
    refused("Python objects in 'X.npy'; loading them could run code", tmp_path / "objects.npz")


def test_npz_that_claims_more_than_it_holds(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 10**3)}
    )
    with zipfile.ZipFile(tmp_path / "forged.npz", "w") as archive:
        archive.writestr("X.npy", buffer.getvalue())
    refused("'X.npy' claims 8,000,000,000,000,000 bytes", tmp_path / "forged.npz")


def test_npz_without_a_target(tmp_path):
    np.savez(tmp_path / "inputs.npz", X=X, Z=X)
    refused("holds no 'y': its arrays are X, Z", tmp_path / "inputs.npz")
    np.savez(tmp_path / "labels.npz", y=Y)
    refused("alone", tmp_path / "labels.npz")


class Examples(Dataset):
    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return torch.zeros(3), self.labels[index]


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.zeros(4, 3), torch.tensor([0, 1, 2, 1])


def test_labels_out_of_range():
    refused("must be whole numbers from 0 on, got '-1'", Examples([-1, 0, 1] * 20))
    refused(
        "Label 1000 is out of range: 3 different labels should be numbered 0 … 2", Examples([0, 1, 1000] * 20)
    )


def test_a_class_that_no_output_is_for_and_that_comes_late():
    draw = np.random.default_rng(0)
    inputs, labels = draw.normal(size=(200, 4)).astype("float32"), draw.integers(0, 3, 200)
    labels[150] = 7
    with pytest.raises(UserError, match="gives 3 outputs and there are 4 classes: 0, 1, 2, 7"):
        steepest.fit(
            (inputs, labels), model=torch.nn.Linear(4, 3), batch_size=2, val=0, test=0, budget="5 steps"
        )


def test_datasets_and_streams_that_cannot_be():
    refused("length 0", Examples([]))
    refused("only once", iter([(X, Y)]))
    refused("classes of a stream without a length", Endless())
    refused("Cannot tell what to predict", X)
    refused("Cannot tell what to predict", 3)
    refused("Cannot tell what to predict", pl.Series(Y))
    refused("must be .input, target.", torch.tensor(X))
    refused(r"must be \(input, target\)", TensorDataset(torch.tensor(X)))
    refused("Cannot tell what to predict", [X, Y, X, Y])


def test_sparse_matrices():
    from scipy.sparse import csr_matrix

    refused("sparse", (csr_matrix(X), Y))


def test_class_weights():
    posed = tasks.pose(sources.read((X, Y)))
    for how, words in [
        ([1, 2], "2 numbers"),
        ("balance", "'balance'"),
        ({"7": 1.0}, "no class"),
        ([1, -1, 1], "at least 0"),
        ({0: 0, 1: 0, 2: 0}, "not all 0"),
    ]:
        with pytest.raises(UserError, match=words):
            posed.class_weights(how, Y)
    with pytest.raises(UserError, match="'2' does not occur"):
        posed.class_weights("balanced", Y % 2)
    with pytest.raises(UserError, match="is a number"):
        tasks.pose(sources.read((X, Y)), "regression").class_weights("balanced", Y)


def test_a_damaged_preprocessing_file():
    for text in ("{", "{}", '{"format": 1, "inputs": []}'):
        with pytest.raises(UserError, match="damaged"):
            preprocessing.Preprocessing.from_json(text)
    with pytest.raises(UserError, match="this version reads 2"):
        preprocessing.Preprocessing.from_json('{"format": 3}')
    with pytest.raises(UserError, match="scale must be"):
        preprocessing.fit(sources.read((X, Y)), tasks.pose(sources.read((X, Y))), np.arange(9), scale="max")


def test_a_target_of_pictures_that_is_none_of_theirs():
    with pytest.raises(UserError, match="its target is 'digit'"):
        sources.read("digits", target="species")
    assert sources.read("digits", target="digit").targets == sources.read("digits").targets
