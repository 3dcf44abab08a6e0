"""Every setting of a recipe works, or is refused with a sentence; what it should change, it changes."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import steepest as st
from steepest.rules import AdamW, Lion
from steepest.schedule import Cosine

N = 96
rng = np.random.default_rng(1)
X = rng.normal(size=(N, 4)).astype(np.float32)
y = (X[:, 0] > 0).astype(np.int64)
z = X @ np.arange(4.0)
PICTURES = rng.random((N, 1, 8, 8)).astype(np.float32)
QUICK = {"budget": "2 epochs", "hidden": [8], "lr": None, "batch_size": 16}


def noise(inputs, generator):
    return inputs + torch.randn(inputs.shape, generator=generator)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def weights(**settings):
    """The shipped weights of a short run, as one vector."""
    data = settings.pop("data", (X, y))
    run = st.fit(data, **QUICK | settings)
    return torch.cat([w.detach().flatten() for w in run.network.parameters()])


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("plain"))
        return weights()


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 1},
        {"lr": 0.01},
        {"rule": "lion"},
        {"hyper": {"beta1": 0.5}},
        {"weight_decay": 0.5},
        {"lr_scale": {"*bias": 0.1}},
        {"schedule": "cosine"},
        {"warmup": "1 epoch"},
        {"batch_size": 8},
        {"batch_size": "full"},
        {"clip_norm": 0.01, "rule": "sgd", "lr": 1.0},
        {"clip_value": 0.001, "rule": "sgd", "lr": 1.0},
        {"clip_adaptive": 0.001, "rule": "sgd", "lr": 1.0},
        {"average": 0.9},
        {"precision": "bf16"},
        {"precision": "16"},
        {"loss": "focal"},
        {"label_smoothing": 0.2},
        {"l1": 0.1},
        {"l2": 0.1},
        {"class_weight": {"0": 5.0}},
        {"init": "orthogonal"},
        {"init": "lsuv"},
        {"dropout": 0.5},
        {"scale": None},
        {"split": "random"},
        {"rule": Lion(lr=1e-3)},
        {"rule": AdamW(lr=Cosine(1e-2, 20))},
        {"schedule": Cosine(1e-2, 20)},
        {"augment": noise},
    ],
    ids=lambda settings: " ".join(f"{k}={getattr(v, '__name__', v)}" for k, v in settings.items())[:40],
)
def test_a_setting_moves_the_weights(plain, settings):
    moved = weights(**settings)
    assert moved.isfinite().all()
    assert moved.shape != plain.shape or not torch.equal(moved, plain)


def test_the_pieces_of_an_update_change_nothing_but_rounding():
    settings = {"rule": "sgd", "lr": 0.1}
    whole, cut = weights(**settings), weights(**settings, accumulate=4)
    # 10 steps; a gradient sums at most 16 examples, each over at most 8 units in either direction.
    roundings = 10 * (16 + 2 * 8)
    assert (whole - cut).abs().max() <= roundings * torch.finfo(torch.float32).eps * whole.abs().max()


def test_a_dataset_that_holds_arrays_is_those_arrays(plain):
    data = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    assert torch.equal(weights(data=data), plain)


def test_frozen_weights_stay(tmp_path):
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    before = net[0].weight.clone()
    run = st.fit((X, y), model=net, freeze=["0.*"], **QUICK)
    assert torch.equal(run.network[0].weight, before)
    assert not torch.equal(run.network[2].weight, before[:2])


def test_a_start_from_a_file():
    first = st.fit((X, y), **QUICK)
    file = str(first.folder / "model.safetensors")
    assert torch.equal(
        weights(init=file, lr=0.0, weight_decay=0.0),
        torch.cat([w.flatten() for w in first.model.parameters()]),
    )


def test_pictures_take_the_cnn_and_are_shown_when_wrong():
    run = st.fit((PICTURES, y), lr=None, budget="1 epochs", augment="shift")
    assert run.recipe.model == "cnn"
    shown = np.load(run.folder / "examples.npz")
    assert shown["pictures"].shape[1:] == (8, 8)
    assert (shown["truth"] != shown["guess"])[shown["picture_index"]].all()


def test_a_loss_and_metrics_of_ones_own():
    run = st.fit(
        (X, z), loss=nn.functional.l1_loss, metrics={"worst": lambda o, t: (o[:, 0] - t).abs().max()}, **QUICK
    )
    assert run.recipe.loss == "torch.nn.functional:l1_loss"
    assert run.metrics["test/worst"] >= run.metrics["test/loss"]


def test_hooks_and_loggers_are_called():
    class Log:
        def __init__(self):
            self.rows, self.closed = [], None

        def config(self, settings):
            pass

        def log(self, metrics, step):
            self.rows.append(step)

        def close(self, status):
            self.closed = status

    log, steps, evaluations = Log(), [], []
    st.fit(
        (X, y),
        log=[log],
        on_step=lambda loop: steps.append(loop.done),
        on_evaluation=lambda loop, row: evaluations.append(row["val/loss"]),
        **QUICK,
    )
    assert log.rows == [5, 10]  # 66 to 68 training rows in batches of 16
    assert steps == list(range(1, 11))
    assert len(evaluations) == 2
    assert log.closed == "finished"


def test_the_machine_stops_a_run_that_no_longer_gains():
    noise = (X, rng.integers(0, 2, N))
    run = st.fit(noise, budget="400 epochs", patience=2, max_decays=1, lr=0.03, hidden=[32])
    events = run.history["event"].to_list()
    assert events[-1] == "stop"
    assert "decay" in events
    assert "did not improve" in run._result["why"]


def test_monitoring_a_metric_that_rises():
    run = st.fit((X, y), monitor="val/accuracy", **QUICK | {"budget": "12 epochs"})
    assert run.recipe.mode == "max"
    best = run.history.filter(run.history["step"] == run._result["best_step"])["val/accuracy"][0]
    assert best == run.history["val/accuracy"].max()


def test_a_budget_in_seconds_is_measured_once_and_recorded():
    run = st.fit((X, y), **QUICK | {"budget": "1s", "schedule": "cosine"})
    (horizon,) = [one for one in run.evidence if one.choice == "horizon"]
    assert run._result["step"] <= horizon.decided
    assert "ms an update" in horizon.why


def test_compile_is_asked_of_torch(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
    assert weights(compile=True).isfinite().all()
    assert len(compiled) == 1


def test_small_networks_run_on_one_thread_and_say_so():
    before = torch.get_num_threads()
    run = st.fit((X, y), **QUICK)
    assert run.recipe.num_threads == 1
    assert "operations" in next(one.why for one in run.evidence if one.choice == "num_threads")
    assert torch.get_num_threads() == before


def test_deterministic_is_asked_of_torch_for_the_run():
    assert weights(deterministic=True).isfinite().all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"budget": "soon"}, "amount with its unit"),
        ({"rule": "adamv"}, "Did you mean 'adam'"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"loss": "crossentropy"}, "Did you mean 'cross_entropy'"),
        ({"hyper": {"beta3": 0.5}}, "no hyperparameter 'beta3'"),
        ({"hyper": {"beta1": 1.5}}, r"beta1 must lie in \[0, 1\)"),
        ({"freeze": ["conv*"]}, "fits no weight"),
        ({"freeze": ["*"]}, "no weight to train"),
        ({"model": "no.such.module:net"}, "Cannot import"),
        ({"model": nn.Linear(3, 2)}, "cannot take inputs of shape"),
        ({"model": nn.Linear(4, 1)}, "one output for each class"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
        ({"monitor": "val/acuracy"}, "Did you mean 'val/accuracy'"),
        ({"evaluate_every": "5s"}, "must not depend on the clock"),
        ({"bach_size": 3}, "Did you mean 'batch_size'"),
        ({"val": 0.6, "test": 0.6}, "leave nothing to train on"),
        ({"sample_weight": np.full(N, -1.0)}, "at least 0"),
        ({"init": "missing.safetensors"}, "missing.safetensors"),
        ({"hyper": {"lr": 0.1}}, "lr is a setting of its own"),
        ({"rule": Lion(), "hyper": {"beta1": 0.5}}, "holds its own numbers"),
        (
            {"model": nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)), "batch_size": 1},
            "on single examples",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_setting_gets_a_sentence(settings, words):
    with pytest.raises(st.UserError, match=words):
        st.fit((X, y), **QUICK | settings)


@pytest.mark.parametrize(
    "settings",
    [{"loss": "huber", "huber_delta": 0.1, "data": (X, z)}, {"label_smoothing": 0.3, "data": (X, y)}],
    ids=["huber", "smoothing"],
)
def test_evaluate_measures_the_loss_of_the_run(settings):
    inputs, target = settings.pop("data")
    parts = {"val": (inputs[64:80], target[64:80]), "test": (inputs[80:], target[80:])}
    run = st.fit((inputs[:64], target[:64]), **parts, **QUICK | settings)
    # Means of 16 numbers in float32.
    near = pytest.approx(run.metrics["test/loss"], rel=16 * float(np.finfo(np.float32).eps))
    assert run.evaluate(parts["test"])["loss"] == near
