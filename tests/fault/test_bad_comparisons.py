"""Comparisons that cannot be: each is named before anything is trained, and leaves no folder behind."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import steepest as st

TWO = {"adamw": {"lr": 1e-3}, "sgd": {"lr": 0.1}}
QUICK = {"budget": "8 steps", "hidden": [8], "lr": None}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(said, *arguments, **settings):
    with pytest.raises(st.UserError, match=said):
        st.compare(*arguments, **settings)
    assert not Path("runs").exists()


def test_no_validation_part_is_nothing_to_judge_by():
    refused("compared by the validation part, and there is none", "iris", TWO, val=0, **QUICK)


def test_a_stream_without_a_validation_part_is_refused_too():
    data = DataLoader(TensorDataset(torch.randn(40, 4), torch.arange(40) % 2), batch_size=8)
    refused("validation part", data, TWO, val=0, test=0, **QUICK)


def test_equal_time_with_a_budget_in_steps():
    refused('equal="time" cannot be held with a budget of 8 steps', "iris", TWO, equal="time", **QUICK)


def test_the_settings_of_every_strategy_are_tried_before_the_first_is_trained():
    asked = {**TWO, "deep": {"model": "cnn", "lr": 0.1}}
    refused("cnn", "iris", asked, **QUICK)
    refused("no update rule", "iris", {"adamw": {}, "a": {"rule": "no_such"}}, **QUICK)


def test_an_unknown_setting_of_all():
    refused("no setting 'optimiser'", "iris", TWO, optimiser="sgd", **QUICK)


def test_data_that_are_not_there():
    refused("no data set or file", "irs", TWO, **QUICK)


def test_a_run_folder_is_not_overwritten():
    run = st.fit("iris", out="runs/mine", **QUICK)
    with pytest.raises(st.UserError, match="holds a run"):
        st.compare("iris", TWO, seeds=1, out=run.folder, **QUICK)


def test_a_comparison_is_not_data():
    found = st.compare("iris", TWO, seeds=1, out="runs/c", **QUICK)
    with pytest.raises(st.UserError, match=r"is a comparison\. Go on with it"):
        st.compare(found.folder, TWO)
    with pytest.raises(st.UserError, match="is a comparison"):
        st.resume(found.folder)


def test_a_run_whose_data_were_an_object_needs_them_again():
    X, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
    run = st.fit((X, y), out="runs/mine", **QUICK)
    with pytest.raises(st.UserError, match="Give the data themselves"):
        st.compare(run.folder, TWO, seeds=1)


def test_data_that_changed_are_another_question(tmp_path):
    def table(shift):
        rows = [f"{k % 7 + shift},{k % 3},{k % 2}" for k in range(60)]
        (tmp_path / "t.csv").write_text("\n".join(["a,b,left", *rows]) + "\n")

    table(0)
    found = st.compare("t.csv", TWO, seeds=1, target="left", **QUICK)
    table(1)
    with pytest.raises(st.UserError, match=r"another comparison: shared.data_fingerprint"):
        st.compare("t.csv", TWO, seeds=2, target="left", out=found.folder, **QUICK)
    assert st.compare("t.csv", TWO, seeds=1, target="left", **QUICK).folder.name == "compare-t-2"


def test_a_comparison_with_objects_is_gone_on_with_by_the_same_call_alone():
    X, y = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32), np.arange(60) % 2
    found = st.compare((X, y), TWO, seeds=1, out="runs/c", **QUICK)
    from steepest.commands.compare import go_on_comparing

    with pytest.raises(st.UserError, match=r"partly Python's \(data\)"):
        go_on_comparing(found.folder)
    assert len(st.compare((X, y), TWO, seeds=2, out="runs/c", **QUICK).results) == 4


def test_a_loader_that_shuffles_by_itself_makes_no_pairs():
    X, y = torch.randn(60, 3), torch.arange(60) % 2

    class Restless:
        """In another order each time, by chance that no seed reaches."""

        def __iter__(self):
            order = np.random.default_rng().permutation(60).reshape(6, 10)
            return ((X[rows], y[rows]) for rows in order)

    asked = {"val": (X, y), "test": 0, "model": torch.nn.Linear(3, 2), "loss": "cross_entropy"}
    refused("would be no pairs. Give arrays", Restless(), TWO, budget="8 steps", **asked)


def test_a_damaged_question_is_named():
    found = st.compare("iris", TWO, seeds=1, out="runs/c", **QUICK)
    (found.folder / "compare.toml").write_text("format = ")
    with pytest.raises(st.UserError, match="cannot be read as a comparison"):
        st.Comparison(found.folder)
