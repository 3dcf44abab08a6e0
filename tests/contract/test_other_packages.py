"""Another package's kind of data, network and task are found by name: no file of steepest's knows of them."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import steepest as st
from steepest.data import kinds, sources
from steepest.data.kinds import array, integers, picture, table
from steepest.models import MODELS, offered
from steepest.tasks import TASKS
from steepest.testing import check_kind, check_model, check_task

rng = np.random.default_rng(0)
N = 120
DNA = ["".join(rng.choice(list("ACGT"), 12, p=p)) for p in rng.dirichlet(np.ones(4) * 0.7, N)]
SHARE = np.array([text.count("A") for text in DNA])
GRADES = np.array(["low", "mid", "high"])[np.digitize(SHARE, [2, 6])]
FRAME = pl.DataFrame({"dna": DNA, "grade": GRADES})
X = rng.normal(size=(N, 4))


@pytest.fixture(autouse=True)
def toy(monkeypatch, tmp_path):
    """The package is installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "toy"))


def test_all_of_it_is_found_by_name():
    settings = {"kind_args": {"dna": {"word": 1}}, "model_args": {"bias": False}}
    run = st.fit(FRAME, target="grade", budget="60 epochs", rule="adamw", lr=0.1, log=[], **settings)
    assert (run.recipe.task, run.recipe.loss) == ("ordered", "mean_squared_error")
    assert run.preprocessing.input_shape == (4,)
    assert run.metrics["test/grades_off"] < 0.7
    again = st.Run(run.folder)
    assert set(again.predict(FRAME.drop("grade"))) <= {"low", "mid", "high"}
    assert again.evaluate(FRAME)["grades_off"] < 0.7
    assert any("grade from low to high" in line for line in again.preprocessing.sentences())
    assert (run.folder / "report.html").exists()


def test_the_network_that_suits_is_taken_where_the_kind_is_alone():
    array_of = {"inputs": {"kind": "array"}}
    run = st.fit((X, GRADES), model="toy_linear", kind_args=array_of, budget="2 steps", lr=0.1, log=[])
    assert isinstance(run.network, torch.nn.Linear)
    assert offered((4,), (3,))[0] == "toy_linear"
    assert offered((4,), (3, None)) == []
    with pytest.raises(st.UserError, match="does not go with model_args"):
        st.fit((X, GRADES), model="toy_linear", model_args={"bios": 1}, budget="2 steps", log=[])


def test_a_package_that_is_gone_is_named(monkeypatch, tmp_path):
    run = st.fit(FRAME, target="grade", budget="2 steps", lr=0.1, log=[])
    monkeypatch.setattr("sys.path", [p for p in __import__("sys").path if not p.endswith("toy")])
    with pytest.raises(st.UserError, match="There is no"):
        st.Run(run.folder).predict(FRAME)


def test_contracts_hold_for_what_is_theirs_and_ours():
    check_kind(kinds.KINDS["dna"], FRAME["dna"])
    check_model(MODELS["toy_linear"], torch.randn(10, 4), (3,))
    check_task(TASKS["ordered"], sources.read(FRAME, "grade"))
    check_kind(array, X)
    check_kind(picture, rng.integers(0, 255, (20, 3, 6, 6), dtype=np.uint8))
    check_kind(table, FRAME.with_columns(a=pl.Series(X[:, 0]), c=pl.Series(["u", "v"] * 60), d=pl.lit(True)))
    for name, shape in [("linear", (4,)), ("mlp", (2, 5)), ("cnn", (1, 8, 8))]:
        check_model(MODELS[name], torch.randn(10, *shape), (3,))
    steps = rng.normal(size=(N, 5, 2)), rng.integers(0, 3, (N, 5))
    for name, data in {
        "classification": (X, GRADES),
        "regression": (X, X[:, :2]),
        "multilabel": (X, X > 0),
        "positions": steps,
    }.items():
        check_task(TASKS[name], sources.read(data))


class Forgetful:
    """Kinds with one fault each."""

    def __init__(self, fault):
        self.fault = fault

    def recognise(self, field, settings):
        return None if self.fault == "reason" else "numbers"

    def fit(self, field, name, settings):
        made = array.fit(field, name, settings)
        if self.fault == "weights":
            made.layer = torch.nn.Linear(2, 2)
        if self.fault == "saved":
            made.register_buffer("seen", torch.zeros(1))
        if self.fault == "shape":
            made.shape = (7,)
        if self.fault == "beside":
            made.forward = lambda x: x.float() - x.float().mean(0)
        return made

    def restore(self, config):
        if self.fault == "config":
            config = {**config, "scaling": {**config["scaling"], "shift": [0.0] * 4}}
        return array.restore(config)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("reason", "gives no reason"),
        ("weights", "no weights to train"),
        ("saved", "persistent=False"),
        ("shape", "was said"),
        ("config", "restore"),
        ("beside", "among all|other features"),
    ],
)
def test_a_kind_that_breaks_the_contract_is_told(fault, says):
    with pytest.raises(AssertionError, match=says):
        check_kind(Forgetful(fault), X)


def test_tasks_and_models_that_break_theirs_are_told(monkeypatch):
    ordered, linear = TASKS["ordered"], MODELS["toy_linear"]
    with pytest.raises(AssertionError, match="no reason"):
        check_task(ordered, sources.read((X, X[:, 0])))
    monkeypatch.setattr(
        ordered.Grades,
        "metrics",
        lambda self: TASKS["regression"].Numbers.metrics(TASKS["regression"].Numbers(("a",), (0.0,), (1.0,))),
    )
    monkeypatch.setattr(ordered.Grades, "of", classmethod(lambda cls, config: cls(("other",))))
    with pytest.raises(AssertionError, match="same config"):
        check_task(ordered, sources.read(FRAME, "grade"))
    with pytest.raises(AssertionError, match="fits refuses"):
        check_model(linear, torch.randn(4, 2, 2), (3,))
    monkeypatch.setattr(linear, "make", lambda *_, **__: torch.nn.Linear(4, 2))
    with pytest.raises(AssertionError, match="outputs have the shape"):
        check_model(linear, torch.randn(10, 4), (3,))


def test_integers_are_checked_beside_other_inputs():
    settings = kinds.Settings(several=True)
    made = integers.fit(np.arange(12).reshape(6, 2), "ids", settings)
    assert made(made.read(np.arange(4).reshape(2, 2))).dtype == torch.int64
