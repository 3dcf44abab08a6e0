"""`run.code()`: a short program of plain PyTorch that does what the run did, held to that by being run."""

import copy
import json
import math
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import steepest as st
from steepest import rules, schedule
from steepest.export.program import TWINS, network_code
from steepest.optim.errors import UserError
from steepest.train import settled
from steepest.train.given import Given

X, Y = (np.asarray(part) for part in load_digits(return_X_y=True))
X = X.astype(np.float32) / 16
SMALL: dict[str, Any] = {"model": "mlp", "hidden": [16], "lr": None, "test": 0, "num_threads": 1, "val": 0.3}
HOSTILE = 'x"""\nraise ValueError("code of a name was run")\n"""\\N\'{{ 7 }}'
STEPS = 6
TAGS = np.where(np.arange(64) < 64 - Y[:600, None], X[:600] > 0.5, -100)
"""A class at every pixel, of which not all count."""


def executed(code: str, folder: Path, checked: bool = True) -> dict[str, Any]:
    """The definitions of a program; checked: a linter and a formatter have nothing to say of it."""
    (folder / "train.py").write_text(code)
    for command in (
        () if not checked else (["check", "--select", "E4,E7,E9,F,I,B,UP,C4"], ["format", "--check"])
    ):
        asked = [sys.executable, "-m", "ruff", *command, "--isolated", "train.py"]
        done = subprocess.run(asked, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stdout}\n{code}"
    names: dict[str, Any] = {"__name__": "program"}
    exec(compile(code, "train.py", "exec"), names)
    return names


def measured(run: st.Run, folder: Path, **objects: Any) -> dict[str, float]:
    """What the program of a run measures at its end."""
    torch.save(run.tensors(**objects), folder / "data.pt")
    return executed(run.code(), folder)["main"](folder / "data.pt")[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> st.Run:
    out = tmp_path_factory.mktemp("finished") / "run"
    return st.fit((X[:300], Y[:300]), out=out, budget="60 steps", evaluate_every="20 steps", **SMALL)


def like(run: st.Run, folder: Path, chosen: dict[str, Any] | None = None, **settings: Any) -> st.Run:
    """A copy of the run in another folder, under another recipe."""
    shutil.copytree(run.folder, folder)
    recipe = run.recipe.model_copy(update=settings)
    (folder / "recipe.toml").write_text(recipe.to_toml())
    if chosen is not None:
        (folder / "resolved.json").unlink()  # as folders of format 1 are
        (folder / "search").mkdir()
        (folder / "search" / "chosen.json").write_text(json.dumps(chosen))
    return st.Run(folder)


SETTINGS: list[dict[str, Any]] = [
    {"rule": "sgd", "lr": 0.1, "schedule": "cosine", "clip_norm": 0.1, "average": 0.9, "accumulate": 4},
    {"rule": "nesterov", "lr": 0.05, "schedule": "linear", "warmup": "2 steps", "weight_decay": 0.1},
    {"rule": "lion", "lr": 1e-3, "l2": 0.01, "l1": 0.001, "clip_value": 0.01, "init": "kaiming"},
    {"lr": 0.01, "lr_scale": {"1.*": 0.1}, "label_smoothing": 0.1, "clip_adaptive": 0.01},
    {"rule": "nadamwsimple", "lr": 0.01, "hyper": {"beta1": 0.8}, "loss": "focal", "freeze": ["1.bias"]},
    {"rule": "lookahead+lion", "lr": 0.01, "class_weight": "balanced", "precision": "bf16"},
    {"sample_weight": np.linspace(0.5, 1.5, 600), "monitor": "val/accuracy", "class_weight": [1.0, 2.0] * 5},
    {"loss": "huber", "data": (X[:600, 5:], X[:600, 3]), "lr": 1e-3},
    {"data": (X[:600, 5:], X[:600, 2:4]), "val": 0, "monitor": "train/loss"},
    {"data": (X[:600], Y[:600] > 4), "loss": "binary", "stop": "lower", "patience": 1, "min_delta": 0.2},
    {"data": (X[:600], np.stack([Y % 2, Y > 4], 1)[:600]), "label_smoothing": 0.1, "lr": 0.01},
    {"data": (X[:600, None], TAGS), "model": nn.Conv1d(1, 2, 3, padding=1), "lr": 0.01},
]
"""Settings that a program has lines for; data of every task."""


@pytest.mark.parametrize("settings", SETTINGS, ids=" ".join)
def test_on_all_rows_at_once_it_gives_the_same_numbers(settings: dict[str, Any], tmp_path: Path) -> None:
    """Without an order of examples there is no chance left but the start, which the program has."""
    given = SMALL | {"data": (X[:600], Y[:600]), "budget": f"{STEPS} steps", "batch_size": "full"} | settings
    data, model = given.pop("data"), copy.deepcopy(given["model"])
    run = st.fit(data, out=tmp_path / "run", **given)
    weight = {name: given[name] for name in ("sample_weight",) if name in given}
    torch.save(run.tensors(data=data, **weight), tmp_path / "data.pt")
    program = executed(run.code(), tmp_path)
    if isinstance(model, nn.Module):
        program["build_model"] = lambda: model
    theirs = program["main"](tmp_path / "data.pt")[1]
    ours = run.metrics if given["val"] else {"train/loss": run.history["train/loss"][-1]}
    eps = torch.finfo(torch.bfloat16 if given.get("precision") == "bf16" else torch.float32).eps
    assert theirs.keys() == ours.keys() & {"train/loss", "val/loss", "val/rmse", "val/accuracy"} - (
        {"train/loss"} if given["val"] else set()
    )
    for name, value in theirs.items():
        assert value == pytest.approx(ours[name], rel=STEPS * np.sqrt(600) * eps), name


QUALITY: dict[str, dict[str, Any]] = {
    "pictures": {
        "data": (X.reshape(-1, 1, 8, 8), Y),
        "model": "cnn",
        "augment": "shift",
        "budget": "3 epochs",
    }
    | {"rule": "schedulefreeadamw", "lr": 3e-3},
    "much at once": {
        "rule": "nesterov",
        "lr": 0.1,
        "schedule": "cosine",
        "warmup": "20 steps",
        "clip_norm": 1.0,
    }
    | {"average": 0.99, "stop": "lower", "patience": 3, "dropout": 0.1, "budget": "15 epochs"},
    "searched": dict.fromkeys(("rule", "lr", "schedule", "batch_size"), "auto") | {"budget": "300 steps"},
}


@pytest.mark.parametrize("kind", QUALITY)
def test_its_accuracy_on_the_test_part_is_of_the_runs_quality(kind: str, tmp_path: Path) -> None:
    """Within 3 standard errors of the difference of two draws."""
    given = SMALL | {"data": (X, Y), "hidden": [32], "val": 0.15, "test": 0.25} | QUALITY[kind]
    data = given.pop("data")
    run = st.fit(data, out=tmp_path / "run", **given)
    ours, theirs = run.metrics["test/accuracy"], measured(run, tmp_path, data=data)["test/accuracy"]
    assert ours > 0.85
    assert theirs == pytest.approx(ours, abs=3 * math.sqrt(2 * ours * (1 - ours) / (0.25 * len(Y))))


def test_it_runs_by_itself_and_leaves_the_weights(finished: st.Run, tmp_path: Path) -> None:
    torch.save(finished.tensors(data=(X[:300], Y[:300])), tmp_path / "data.pt")
    executed(finished.code(), tmp_path)
    done = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True)
    assert "val/accuracy 0." in done.stdout, done.stderr
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    assert weights.keys() == finished.model.state_dict().keys()


def test_rules_that_torch_has_move_as_ours_do(finished: st.Run, tmp_path: Path) -> None:
    """Five updates in float64 from the same weights under the same gradients: equal to rounding."""
    for kind in TWINS:
        name = kind.__name__.lower()
        decay = 0.1 if "weight_decay" in {field.name for field in fields(kind)} else None
        about = {"rule": name, "lr": kind().lr, "weight_decay": decay}
        run = like(finished, tmp_path / name, **about)
        program = executed(run.code(), tmp_path, checked=False)
        assert "torch.optim." in run.code(), name
        theirs = program["build_model"]().double()
        ours = copy.deepcopy(theirs)
        pair = program["build_optimizer"](theirs), settled.optimizer_of(run.recipe, Given(), ours, 5, 5)
        draw = torch.Generator().manual_seed(0)
        for _ in range(5):
            for weights in zip(theirs.parameters(), ours.parameters(), strict=True):
                weights[0].grad = torch.randn(weights[0].shape, generator=draw, dtype=torch.float64)
                weights[1].grad = weights[0].grad.clone()
            for optimizer in pair:
                optimizer.step()
        # torch keeps the product of NAdam's momenta in float32: the rate is as exact as that.
        eps = torch.finfo(torch.float32 if kind in (rules.NAdam, rules.NAdamW) else torch.float64).eps
        for w, other in zip(theirs.parameters(), ours.parameters(), strict=True):
            assert float((w - other).detach().abs().max()) <= 40 * eps * max(
                1.0, float(w.detach().abs().max())
            ), name


def test_the_rate_is_that_of_the_schedule(finished: st.Run, tmp_path: Path) -> None:
    for name in (*schedule.FALLING, *schedule.RISING):
        for warmup in (0, 7):
            run = like(finished, tmp_path / f"{name}{warmup}", schedule=name, warmup=f"{warmup} steps")
            rate = executed(run.code(), tmp_path, checked=warmup > 0).get("rate", lambda step: 1.0)
            curve = schedule.named(name, 1.0, 60, warmup)
            assert [rate(n) for n in range(1, 61)] == pytest.approx([curve(n) for n in range(1, 61)]), name


def test_what_a_search_has_chosen_is_what_is_written(finished: st.Run, tmp_path: Path) -> None:
    chosen = {"rule": "nesterov", "lr": 0.25, "weight_decay": 0.0, "hyper": {"momentum": 0.8}}
    chosen |= {"warmup": 2, "begin": 5, "batch_size": 32, "clip_norm": 3.5}
    run = like(finished, tmp_path / "run", chosen, lr="auto")
    program = executed(run.code(), tmp_path)
    assert (program["LR"], program["BATCH_SIZE"], program["CLIP_NORM"]) == (0.25, 32, 3.5)
    assert "LR = 0.25  # learning rate, measured" in run.code()
    assert [program["rate"](step) for step in (1, 2, 5, 6, 60)] == [0.5, 1.0, 1.0, 1.0, 1 / 55]
    optimizer = program["build_optimizer"](program["build_model"]())
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.defaults["momentum"], optimizer.defaults["nesterov"]) == (0.8, True)


def test_no_name_becomes_code(finished: st.Run, tmp_path: Path) -> None:
    """Names of folders, columns, classes, patterns, and all that a recipe may hold."""
    table = tmp_path / "rows.csv"
    names, labels = [HOSTILE.replace("\n", " "), "b"], ["x', __import__('none')", '"{{ 7 }}\\']
    quoted = [f'"{text.replace(chr(34), chr(34) * 2)}"' for text in (*names, *labels)]
    rows = [f"{i},{i % 7},{quoted[2 + i % 2]}" for i in range(80)]
    table.write_text("\n".join([f"{quoted[0]},{quoted[1]},target", *rows]))
    own = {"target": "target", "class_weight": {labels[0]: 2.0}, "budget": "3 steps", "val": 0.3, "test": 0.2}
    run = st.fit(table, out=tmp_path / 'run"""+\\', model="mlp", hidden=[4], lr=1e-3, **own)
    assert measured(run, tmp_path)["test/accuracy"] >= 0
    again = like(
        run, tmp_path / "other", init=f"{HOSTILE}.safetensors", freeze=[HOSTILE], lr_scale={HOSTILE: 2.0}
    )
    executed(again.code(), tmp_path)
    places = {"model": "build_model", "loss": "loss_of", "rule": "build_optimizer", "augment": "augmented"}
    for number, entry in enumerate((f"object {HOSTILE}", f"os:{HOSTILE}", f"{HOSTILE}:system", "os:import")):
        entries = dict.fromkeys([*places, "schedule", "data"], entry)
        if number:
            entries["rule"] = "adamw"
        code = like(finished, tmp_path / f"stranger{number}", **entries).code()
        program = executed(code, tmp_path)
        for setting, function in places.items():
            if entries[setting] == entry:
                arguments = (None,) * program[function].__code__.co_argcount
                with pytest.raises(SystemExit, match="Fill in"):
                    program[function](*arguments)
                assert "is yours to fill in" in program["__doc__"]


def test_functions_with_a_path_are_imported(finished: st.Run, tmp_path: Path) -> None:
    run = like(finished, tmp_path / "run", schedule="mine:rate", augment="mine:change", loss="mine:cost")
    for name, function in {"rate": "own_rate", "change": "own_augmentation", "cost": "own_loss"}.items():
        assert f"from mine import {name} as {function}" in run.code()


def test_networks_handed_over_are_written_where_they_are_torchs_own(finished: st.Run, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 128, 3, padding=1), nn.LayerNorm((8, 8)), nn.Sequential(nn.GELU("tanh")))
    net.append(nn.Flatten()).append(nn.Linear(128 * 64, 10, bias=False))
    net[0].bias.requires_grad_(False)
    run = like(finished, tmp_path / "run", model="object Sequential")
    with pytest.raises(SystemExit, match="Fill in the network"):
        executed(run.code(), tmp_path)["build_model"]()
    again = executed(st.Run(run.folder, model=net).code(), tmp_path)["build_model"]()
    assert str(again) == str(net)
    assert [n for n, w in again.named_parameters() if not w.requires_grad] == ["0.bias"]
    net[0].register_forward_hook(lambda layer, inputs, output: 2 * output)
    own, shared = type("Linear", (nn.Linear,), {}), nn.Linear(4, 4)
    others = [net, own(4, 4), nn.Sequential(shared, shared), nn.Bilinear(2, 2, 2, dtype=torch.float64)]
    assert [network_code(other) for other in others] == [None] * 4


class Pair(nn.Module):
    """Two halves of a picture, by name or by place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, 10)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.cat([left, right], 1))


def test_several_inputs_come_by_name_or_by_place(tmp_path: Path) -> None:
    halves = {"left": X[:600, :32], "right": X[:600, 32:]}
    for name, inputs in {"names": halves, "places": tuple(halves.values())}.items():
        settings = {"budget": "5 steps", "batch_size": "full", "average": 0.9, "accumulate": 2}
        run = st.fit((inputs, Y[:600]), out=tmp_path / name, **SMALL | settings | {"model": Pair()})
        torch.save(run.tensors(data=(inputs, Y[:600])), tmp_path / "data.pt")
        program = executed(run.code(), tmp_path)
        program["build_model"] = Pair
        loss = program["main"](tmp_path / "data.pt")[1]["val/loss"]
        assert loss == pytest.approx(run.metrics["val/loss"], rel=1e-5)


def test_what_cannot_be_written_is_said_or_refused(finished: st.Run, tmp_path: Path) -> None:
    said = {
        "batches are of batch_size throughout": {"batch_size": "growing 16 to 64"},
        "raise_after=3 is left out": {"raise_after": 3},
        "the best weights go by the loss": {"monitor": "val/f1"},
        "the last weights are kept": {"monitor": "train/loss"},
        "without a loss scale": {"precision": "16"},
    }
    for number, (sentence, settings) in enumerate(said.items()):
        code = like(finished, tmp_path / str(number), **settings).code()
        assert sentence in " ".join(executed(code, tmp_path)["__doc__"].lower().split())
    with pytest.raises(UserError, match="several passes"):
        like(finished, tmp_path / "sam", rule="sam+sgd").code()
    with pytest.raises(UserError, match="Nothing is chosen yet for lr"):
        like(finished, tmp_path / "open", lr="auto").code()
    (like(finished, tmp_path / "young").folder / "metrics.csv").unlink()
    with pytest.raises(UserError, match="no evaluation yet"):
        st.Run(tmp_path / "young").code()


def test_rows_come_as_the_run_prepared_them(finished: st.Run) -> None:
    rows = finished.tensors(data=(X[:300], Y[:300]))
    assert {name: len(part[1]) for name, part in rows.items()} == {"train": 210, "val": 90}
