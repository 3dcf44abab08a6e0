"""What is handed over beside the data gets a sentence too, before a folder is taken."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from torch import nn

import steepest as st

N = 100
X = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
y = (X[:, 0] > 0).astype(np.int64)
QUICK = {"budget": "2 epochs", "model": "linear", "lr": 0.1}


class Two(nn.Module):
    """A network that gives a tuple, or what does not depend on its weights."""

    def __init__(self, kind):
        super().__init__()
        self.layer, self.kind = nn.Linear(3, 2), kind

    def forward(self, x):
        return {"tuple": lambda y: (y, y), "detached": torch.detach}[self.kind](self.layer(x))


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def first(outputs, target):
    return nn.functional.cross_entropy(outputs[0], target)


def zero_but(at):
    weight = np.zeros(N)
    weight[at] = 1.0
    return weight


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": nn.Linear}, r"model=Linear must be a function of \(input_shape, outputs\)"),
        ({"model": lambda: nn.Linear(3, 2)}, "takes 0 positional arguments"),
        ({"model": lambda shape, outputs: None}, "must return a torch.nn.Module, got NoneType"),
        ({"model": "math:sqrt"}, r"math:sqrt must be a function of \(input_shape, outputs\)"),
        ({"model": nn.Linear(3, 5)}, "gives 5 outputs and there are 2 classes"),
        ({"model": Two("tuple"), "loss": first}, "gives a tuple"),
        ({"model": Two("detached")}, "does not depend on the weights"),
        ({"loss": "math:pi"}, r"math:pi must be a function of \(outputs, target\), got float"),
        ({"monitor": "val/acuracy"}, "Did you mean 'val/accuracy'"),
        ({"metrics": [first]}, "metrics must be a dict"),
        ({"log": object()}, r"Write log=\[logger\]"),
        ({"log": [object()]}, "has no method config"),
        ({"on_step": 3}, "on_step must be a function, got int"),
        ({"rule": torch.optim.SGD}, "rule must be a name"),
        ({"rule": st.rules.Lion}, "rule must be a name"),
        ({"warmup": "5s"}, "warmup must be in steps or epochs"),
        ({"budget": "1e400 epochs"}, "budget is too large"),
        ({"budget": "0s"}, "A budget of 0 seconds trains nothing"),
        ({"format": 3}, "'format' cannot be 3"),
        ({"val": (X[:, :2], y)}, r"2 channels or columns; the training data had 3"),
        ({"sample_weight": zero_but(3)}, "add up to 0"),
        ({"sample_weight": np.full(N, 1e300)}, "add up to inf"),
        ({"sample_weight": np.ones(N), "val": (X, y)}, "val has none"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_sentence_and_no_folder_taken(settings, words):
    with pytest.raises(st.UserError, match=words):
        st.fit((X, y), out="run", **QUICK | settings)
    st.fit((X, y), out="run", **QUICK)


@pytest.mark.parametrize(
    ("val", "words"),
    [
        ((X, X[:, 0] * np.nan), "is NaN in 100 of 100 rows"),
        ((X, ["a"] * N), "holds text"),
        ((X, X), "3 targets and the training data 1"),
    ],
)
def test_a_part_of_ones_own_has_a_target_like_that_of_training(val, words):
    with pytest.raises(st.UserError, match=words):
        st.fit((X, X[:, 0]), val=val, **QUICK)


def test_pictures_of_another_size_in_a_part_of_ones_own():
    pictures = np.zeros((N, 1, 8, 8), dtype=np.float32)
    with pytest.raises(st.UserError, match="inputs of the part 'val' of shape"):
        st.fit((pictures, y), val=(np.zeros((N, 1, 9, 9)), y), **QUICK)


def test_classes_may_be_weighed_by_whole_numbers():
    assert st.fit((X, y), class_weight={0: 1, 1: 2}, **QUICK).recipe.class_weight == {"0": 1.0, "1": 2.0}


def test_a_recipe_repeated_with_another_target_is_not_held_to_its_fingerprint():
    pl.DataFrame(X, schema=list("abc"), orient="row").write_csv("table.csv")
    st.fit("table.csv", target="a", out="one", **QUICK)
    assert st.fit("one/recipe.toml", target="b", out="two").recipe.target == "b"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pd.DataFrame(np.c_[X, y], columns=["a", "a", "b", "y"]), "several columns named 'a'"),
        (pd.DataFrame({"a": X[:, 0], "y": [1, "x"] * 50}), r"mixes types \(.*\)\. Make it"),
        (pl.DataFrame({"a": X[:, 0], "y": [[1, 2]] * N}), "not one value a row"),
        (pl.DataFrame({"a": ["0,5", "0,7"] * 50, "y": y}).with_row_index().drop("a", "index"), "No column"),
        (pl.DataFrame({"a": [f"0,{i}" for i in range(N)], "y": y}), "such as '0,"),
        (pl.DataFrame({"a": X[:, 0], "g": [np.nan] + [1.0, 2.0, 3.0] * 33, "y": y}), "1 missing values"),
    ],
)
def test_frames(data, words):
    by = {"split_by": "g"} if "g" in data.columns else {}
    with pytest.raises(st.UserError, match=words) as caught:
        st.fit(data, target="y", **by, **QUICK)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("header", ["a,a,y", "a, a,y", "a,y,y"])
def test_a_file_with_two_columns_of_one_name(tmp_path, header):
    (tmp_path / "twice.csv").write_text(header + "\n" + "1,2,0\n2,3,1\n" * 20)
    with pytest.raises(st.UserError, match=r"twice\.csv has several columns named"):
        st.fit("twice.csv", target="y", **QUICK)


@pytest.mark.parametrize(
    ("inputs", "target", "words"),
    [
        (X[:, :0], y, "no number to learn from"),
        (X, X[:, 0] + 1j, "one number or label"),
        (X, np.array([(1, 2), (3,)] * 50, dtype=object), "one number or label"),
        (X, X[:, 0].astype(float) * 1e300, "squares overflow"),
    ],
)
def test_arrays(inputs, target, words):
    with pytest.raises(st.UserError, match=words):
        st.fit((inputs, target), **QUICK)


def test_a_target_is_named_once():
    with pytest.raises(st.UserError, match="named twice"):
        st.fit(pl.DataFrame({"a": X[:, 0], "y": X[:, 1]}), target=["y", "y"], **QUICK)


def test_integers_beyond_64_bits_and_durations_are_numbers():
    table = pl.DataFrame({"a": X[:, 0], "y": y}).with_columns(
        big=pl.Series([2**70 * (i % 5) for i in range(N)], dtype=pl.Int128),
        lasted=pl.Series(np.arange(N).astype("m8[ms]")),
    )
    assert len(st.fit(table, target="y", **QUICK).predict(table)) == N
