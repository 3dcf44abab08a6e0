"""Every form of data that a person may have goes into `fit`, and comes out of it as predictions."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import steepest as st

N = 120
rng = np.random.default_rng(0)
X = rng.normal(size=(N, 4)).astype(np.float32)
y = (X[:, 0] + 0.1 * rng.normal(size=N) > 0).astype(np.int64)
z = X @ np.arange(4.0) + 1
COLUMNS = pl.DataFrame(X, schema=list("abcd"), orient="row")
TABLE = COLUMNS.with_columns(
    city=pl.Series(rng.choice(["Bern", "Rome"], N)), left=pl.Series(np.where(y, "yes", "no"))
)
QUICK = {"budget": "8 epochs", "model": "linear", "lr": 0.1}


class Pairs(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, index):
        return torch.from_numpy(X[index]), int(y[index])


class TwoInputs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.of_a, self.of_b = torch.nn.Linear(4, 2), torch.nn.Linear(2, 2)

    def forward(self, a, b):
        return self.of_a(a) + self.of_b(b)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _files(place):
    TABLE.write_csv(place / "people.csv")
    TABLE.write_csv(place / "people.tsv", separator="\t")
    TABLE.write_parquet(place / "people.parquet")
    np.savez(place / "people.npz", X=X, y=y)


@pytest.mark.parametrize("name", ["people.csv", "people.tsv", "people.parquet", "people.npz"])
def test_files(tmp_path, name):
    _files(tmp_path)
    run = st.fit(name, target="y" if name.endswith("npz") else "left", **QUICK)
    assert run.folder.name == "people"
    assert len(run.predict(name)) == N
    assert run.metrics["test/accuracy"] > 0.6


@pytest.mark.parametrize(
    "frame", [TABLE, pd.DataFrame(TABLE.to_dict(as_series=False))], ids=["polars", "pandas"]
)
def test_frames(frame):
    run = st.fit(frame, target="left", **QUICK)
    assert set(run.predict(frame)) <= {"yes", "no"}
    assert run.probabilities(frame).sum(axis=1) == pytest.approx(np.ones(N), abs=N * 1e-7)
    assert run.evaluate(frame)["accuracy"] == np.mean(run.predict(frame) == TABLE["left"].to_numpy())


@pytest.mark.parametrize(
    "data",
    [(X, y), (torch.from_numpy(X), torch.from_numpy(y)), (X.tolist(), y.tolist()), Pairs()],
    ids=["numpy", "torch", "lists", "Dataset"],
)
def test_arrays_and_datasets(data):
    run = st.fit(data, **QUICK)
    assert run.metrics["test/accuracy"] > 0.6
    assert run.predict(X).shape == (N,)
    if not isinstance(data, Pairs):
        assert np.mean(run.predict(X) == np.asarray(y)) > 0.6, "labels come back as they were given"


def test_a_bundled_name():
    assert st.fit("iris", **QUICK).metrics["test/accuracy"] > 0.5


def test_loaders_have_parts_of_their_own_and_it_is_said_how_they_resume(capsys):
    loaders = [DataLoader(Pairs(), batch_size=32, shuffle=True) for _ in range(3)]
    run = st.fit(loaders[0], val=loaders[1], test=loaders[2], **QUICK)
    assert "reads again" in " ".join(capsys.readouterr().out.split())
    assert run.metrics["test/accuracy"] > 0.6


def test_a_loader_without_parts_of_its_own_is_refused():
    with pytest.raises(st.UserError, match="stream cannot be split"):
        st.fit(DataLoader(Pairs(), batch_size=32), **QUICK)


@pytest.mark.parametrize("inputs", [{"a": X, "b": X[:, :2]}, (X, X[:, :2])], ids=["dict", "tuple"])
def test_several_inputs_go_to_a_network_of_ones_own(inputs):
    run = st.fit((inputs, y), **QUICK | {"model": TwoInputs()})
    assert run.predict(inputs).shape == (N,)


def test_several_inputs_are_refused_by_a_preset():
    with pytest.raises(st.UserError, match="takes one array of inputs"):
        st.fit(({"a": X, "b": X}, y), **QUICK)


def test_regression_predicts_in_the_targets_units():
    run = st.fit((X, 1000 + 50 * z), **QUICK | {"budget": "60 epochs"})
    assert abs(run.predict(X).mean() - 1000) < 100
    assert run.metrics["test/r2"] > 0.9


def test_several_targets():
    table = COLUMNS.with_columns(up=pl.Series(z), down=pl.Series(-z))
    run = st.fit(table, target=["up", "down"], **QUICK)
    assert run.predict(table).shape == (N, 2)


def test_parts_of_ones_own(tmp_path):
    _files(tmp_path)
    run = st.fit("people.csv", target="left", val="people.parquet", test=TABLE.head(40), **QUICK)
    assert len(np.load(run.folder / "examples.npz")["truth"]) == 40


def test_sample_weights_count_examples_and_not_the_rate():
    light = st.fit((X, y, np.full(N, 1e-3)), **QUICK, seed=1)
    heavy = st.fit((X, y, np.full(N, 1e3)), **QUICK, seed=1)
    assert light.metrics["val/loss"] == pytest.approx(heavy.metrics["val/loss"], rel=1e-5)
    one_sided = st.fit((X, y, np.where(y, 100.0, 0.01)), **QUICK)
    assert (one_sided.predict(X) == 1).mean() > (heavy.predict(X) == 1).mean()


def test_groups_stay_together():
    run = st.fit((X, y), split="group", split_by=np.arange(N) // 6, **QUICK)
    assert "groups" in next(one.why for one in run.evidence if one.choice == "split")
