"""`run.code()`: a program of plain PyTorch that does what the run did, held to that by being run."""

import copy
import importlib
import json
import math
import re
import statistics
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import steepest as st
from steepest import batch, rules, schedule
from steepest.optim.errors import UserError
from steepest.program import write
from steepest.program.facts import Facts
from steepest.program.network import written
from steepest.program.rate import CURVES, lines_of
from steepest.recipe import Recipe
from steepest.schedule import FALLING, RISING
from steepest.train import settled
from steepest.train.given import Given

X, Y = (np.asarray(part) for part in load_digits(return_X_y=True))
ROWS = {
    "data": (X[:600].astype(np.float32) / 16, Y[:600]),
    "val": (X[600:900].astype(np.float32) / 16, Y[600:900]),
}
SMALL: dict[str, Any] = {"model": "mlp", "hidden": [16], "lr": None, "test": 0, "num_threads": 1}
STEPS = 6


@pytest.fixture
def fitted(tmp_path: Path) -> Any:
    """A function that trains in the temporary folder: settings → run."""

    def make(**settings: Any) -> st.Run:
        given = SMALL | ROWS | settings
        return st.fit(given.pop("data"), out=tmp_path / "run", **given)

    return make


def saved(run: st.Run, **objects: Any) -> Path:
    """The rows and the program of a run, as files side by side; where the program lies."""
    folder = run.folder.parent
    torch.save(run.tensors(**objects), folder / "data.pt")
    (folder / "train.py").write_text(run.code())
    return folder / "train.py"


def told(program: Path) -> float:
    """What the program says when it is run, in a process of its own."""
    command = [sys.executable, program.name]
    done = subprocess.run(command, cwd=program.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.splitlines()[-1].split()[-1])


def executed(code: str) -> dict[str, Any]:
    """The definitions of a program."""
    names: dict[str, Any] = {"__name__": "program"}
    exec(compile(code, "train.py", "exec"), names)
    return names


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rule": "sgd", "lr": 0.1, "schedule": "cosine", "warmup": "2 steps", "clip_norm": 0.1},
        {"rule": "nesterov", "lr": 0.05, "schedule": "linear", "weight_decay": 0.1, "accumulate": 4},
        {"rule": "muon", "lr": 0.02, "schedule": "wsd", "hidden": [16, 12], "weight_decay": 0.1},
        {"rule": "lion", "lr": 1e-3, "l2": 0.01, "l1": 0.001, "clip_value": 0.01},
        {
            "rule": "adamw",
            "lr": 0.01,
            "lr_scale": {"1.*": 0.1},
            "label_smoothing": 0.1,
            "clip_adaptive": 0.01,
        },
        {"rule": "nadamwsimple", "lr": 0.01, "hyper": {"beta1": 0.8}, "loss": "focal", "average": 0.9},
        {"rule": "schedulefreeadamw", "lr": 0.01},
        {"class_weight": "balanced", "init": "kaiming", "freeze": ["1.bias"]},
        {"class_weight": [1.0, 2.0] * 5, "schedule": "one_cycle", "precision": "bf16"},
        {"model": "cnn", "data": (ROWS["data"][0].reshape(-1, 1, 8, 8), Y[:600]), "val": 0.2},
        {"task": "regression", "loss": "huber", "data": (X[:600, 5:], X[:600, 3]), "val": 0.2, "lr": 1e-3},
        {"val": 0, "monitor": "train/loss"},
    ],
    ids=lambda settings: " ".join(map(str, settings.keys())) or "default",
)
def test_on_all_rows_at_once_it_gives_the_same_loss(fitted: Any, settings: dict[str, Any]) -> None:
    """Without an order of examples there is no chance left but the start, which the program has."""
    run = fitted(**{"budget": f"{STEPS} steps", "batch_size": "full"} | settings)
    objects = {name: settings.get(name, ROWS[name]) for name in ("data", "val")}
    program = saved(run, **{name: part for name, part in objects.items() if isinstance(part, tuple)})
    loss = executed(program.read_text())["main"](program.with_name("data.pt"))
    ours = (
        min(run.history["val/loss"]) if "val/loss" in run.history.columns else run.history["train/loss"][-1]
    )
    eps = torch.finfo(torch.bfloat16 if settings.get("precision") == "bf16" else torch.float32).eps
    assert loss == pytest.approx(ours, rel=STEPS * np.sqrt(600) * eps)


def test_in_a_process_of_its_own_it_agrees_within_the_spread_of_seeds(fitted: Any, tmp_path: Path) -> None:
    settings = {"budget": "6 epochs", "rule": "lion", "lr": 2e-3, "schedule": "cosine", "clip_norm": 1.0}
    runs = [
        st.fit(ROWS["data"], val=ROWS["val"], out=tmp_path / f"run{seed}", seed=seed, **SMALL | settings)
        for seed in range(5)
    ]
    ours = [min(run.history["val/loss"]) for run in runs]
    program = saved(runs[0], **ROWS)
    theirs = []
    for seed in range(5):
        program.write_text(re.sub(r"^SEED = \d+", f"SEED = {seed}", runs[0].code(), flags=re.M))
        theirs.append(told(program))
    spread = np.hypot(statistics.stdev(ours), statistics.stdev(theirs)) / np.sqrt(5)
    assert statistics.mean(theirs) == pytest.approx(statistics.mean(ours), abs=3 * spread)
    assert len(set(theirs)) == 5


def facts(rule: str, **settings: Any) -> Facts:
    recipe = Recipe.of({"data": "digits", "rule": rule, "model": "mlp", "hidden": [6, 5]} | settings)
    recipe = recipe.model_copy(update={"loss": "mse", "schedule": "constant"})
    return Facts("small", "runs/small", recipe, {}, (7,), 3, None, None, steps=5, per_epoch=5)


def plain(kind: type[rules.RULES[0]]) -> bool:  # type: ignore[valid-type]
    return not kind.perturb and not kind.extra_inputs


NAMES = [*(kind.__name__.lower() for kind in rules.RULES if plain(kind)), "cautious+muon", "lookahead+muon"]


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_moves_as_ours_does(name: str) -> None:
    """Five updates in float64 from the same weights on the same batches: equal to rounding."""
    kind = type(rules.named(name))
    own = {"weight_decay": 0.1} if "weight_decay" in kind.__dataclass_fields__ else {}
    about = facts(name, **own)
    program = executed(write(about))
    theirs = program["build_model"]().double()
    ours = program["build_model"]().double()
    ours.load_state_dict(theirs.state_dict())
    optimizers = program["build_optimizers"](theirs)
    optimizer = settled.optimizer_of(about.recipe, Given(), ours, 5, 5)
    draw = torch.Generator().manual_seed(0)
    for step in range(1, 6):
        batch = [torch.randn(9, size, generator=draw, dtype=torch.float64) for size in (7, 3)]
        program["update"](theirs, optimizers, batch, step)
        optimizer.zero_grad()
        nn.functional.mse_loss(ours(batch[0]), batch[1]).backward()
        optimizer.step()
    # torch keeps the product of NAdam's momenta in float32: the rate is as exact as that.
    eps = torch.finfo(torch.float64).eps
    eps = program["LR"] * torch.finfo(torch.float32).eps if kind in (rules.NAdam, rules.NAdamW) else eps
    with torch.no_grad():
        for w, other in zip(theirs.parameters(), ours.parameters(), strict=True):
            assert float((w - other).abs().max()) <= 5 * 8 * eps * max(1.0, float(w.abs().max()))


def test_rules_that_torch_has_are_torchs_and_short_ones_are_written_out() -> None:
    assert "torch.optim.AdamW(" in write(facts("adamw"))
    assert "class Lion(torch.optim.Optimizer)" in write(facts("lion"))
    ours = [k for k in rules.RULES if plain(k) and "steepest.torch" in write(facts(k.__name__.lower()))]
    assert len(ours) < len(rules.RULES) / 2
    assert "its optimizer is steepest's" in write(facts("soap"))


@pytest.mark.parametrize(("device", "kind"), [("auto", "cpu"), ("cpu", "cpu"), ("cuda:1", "cuda")])
def test_the_number_format_is_that_of_a_kind_of_device(device: str, kind: str) -> None:
    assert f'torch.autocast("{kind}", torch.bfloat16)' in write(facts("sgd", device=device, precision="bf16"))


@pytest.mark.parametrize("name", ['a"""\\N', "it's", 'said "so"'])
def test_names_from_a_folder_are_no_code(name: str) -> None:
    about = replace(facts("sgd"), name=name, place=f"runs/{name}")
    stranger = f'object {name}")\nimport nothing_of_the_kind  #'
    own = {"loss": stranger, "schedule": stranger, "model": stranger, "augment": stranger, "rule": stranger}
    program = executed(write(replace(about, recipe=about.recipe.model_copy(update=own))))
    left = {"loss_of": (0, 0), "rate": (1,), "build_model": (), "augmented": (0, 0), "build_optimizers": (0,)}
    for function, arguments in left.items():
        with pytest.raises(SystemExit, match="fill in"):
            program[function](*arguments)


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        (rules.AdamW(lr=schedule.Cosine(0.01, 6)), ["build_optimizers", "rate"]),
        (rules.Momentum(lr=0.1, momentum=lambda step: 0.9), ["build_optimizers"]),  # type: ignore[arg-type]
    ],
    ids=["rate", "momentum"],
)
def test_a_rule_that_holds_more_than_numbers_is_left_to_fill_in(
    fitted: Any, rule: Any, left: list[str]
) -> None:
    code = fitted(rule=rule, budget="2 steps", l2=0.1).code()
    program = executed(code)
    given = {"build_optimizers": (None,), "rate": (1,)}
    for name in left:
        with pytest.raises(SystemExit, match=f"{name}: fill in"):
            program[name](*given[name])
    assert "the rule is yours to fill in" in program["__doc__"]
    assert ("the rate is yours to fill in" in program["__doc__"]) == ("rate" in left)


def test_a_schedule_that_was_an_object_is_said_to_be_left(fitted: Any) -> None:
    program = executed(fitted(schedule=schedule.Cosine(0.01, 6), budget="2 steps").code())
    assert "the rate is yours to fill in" in program["__doc__"]
    with pytest.raises(SystemExit, match="rate: fill in the schedule"):
        program["rate"](1)


OWN = """
def rate(step):
    return 0.1 / step


def augmented(inputs, generator):
    return 2 * inputs
"""


def test_functions_that_can_be_imported_are_imported(
    fitted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "functions_of_mine.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("functions_of_mine")
    settings = {"rule": "sgd", "schedule": mine.rate, "augment": mine.augmented, "batch_size": "full"}
    run = fitted(**settings, budget=f"{STEPS} steps")
    program = saved(run, **ROWS)
    loss = executed(program.read_text())["main"](program.with_name("data.pt"))
    rounding = STEPS * np.sqrt(600) * torch.finfo(torch.float32).eps
    assert loss == pytest.approx(min(run.history["val/loss"]), rel=rounding)


def test_every_object_that_rows_are_made_of_is_named(fitted: Any) -> None:
    weight, groups = np.ones(600), np.arange(600) // 10
    settings = {"val": 0.2, "split": "group", "split_by": groups, "sample_weight": weight}
    code = fitted(budget="2 steps", **settings).code()
    assert "tensors(data=data, sample_weight=sample_weight, split_by=split_by)" in code


def test_a_run_that_was_cut_short_says_so(fitted: Any) -> None:
    run = fitted(budget="20 steps", schedule="cosine")
    assert "of the 20 steps" not in run.code()
    result = run.folder / "result.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"step": 11, "why": "the time is up"}))
    assert "the run made 11 of the 20 steps that its schedule counts on, as the time is up" in run.code()


def test_a_rule_of_several_passes_is_refused() -> None:
    with pytest.raises(UserError, match="several passes"):
        write(facts("sam+sgd"))


@pytest.mark.parametrize("name", [*FALLING, *RISING])
@pytest.mark.parametrize("warmup", [0, 7])
def test_the_course_of_the_rate_is_that_of_the_schedule(name: str, warmup: int) -> None:
    curve = schedule.named(name, 1.0, 60, warmup)
    body = "\n".join(f"    {line}" for line in lines_of(curve).splitlines())
    names: dict[str, Any] = {}
    exec(f"import math\ndef rate(step):\n{body}", names)
    for step in range(1, 70):
        assert names["rate"](step) == pytest.approx(curve(step), rel=1e-12, abs=1e-12), step


def test_every_curve_that_a_name_makes_has_its_lines() -> None:
    made = {type(schedule.named(n, 1.0, 60, w)) for n in (*FALLING, *RISING) for w in (0, 7)}
    assert made <= set(CURVES)


def test_what_a_search_has_chosen_is_what_is_written(fitted: Any) -> None:
    run = fitted(budget="20 steps", lr=0.5)
    (run.folder / "search").mkdir()
    chosen = {"rule": "nesterov", "lr": 0.25, "weight_decay": 0.0, "hyper": {"momentum": 0.8}}
    course = {"warmup": 2, "begin": 5, "batch_size": 32, "clip_norm": 3.5}
    (run.folder / "search" / "chosen.json").write_text(json.dumps(chosen | course))
    assert run.chosen["lr"] == 0.25
    program = executed(run.code())
    assert (program["LR"], program["BATCH_SIZE"], program["CLIP_NORM"]) == (0.25, 32, 3.5)
    assert [program["rate"](step) for step in (1, 2, 5, 6, 20, 21)] == [0.5, 1.0, 1.0, 1.0, 1 / 15, 0.0]
    (optimizer,) = program["build_optimizers"](program["build_model"]())
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["momentum"] == 0.8
    assert optimizer.defaults["nesterov"]


def test_a_schedule_that_was_given_stays_beside_what_was_chosen(fitted: Any) -> None:
    run = fitted(budget="20 steps", schedule="cosine", warmup="4 steps")
    (run.folder / "search").mkdir()
    (run.folder / "search" / "chosen.json").write_text('{"lr": 0.25, "warmup": null, "begin": null}')
    program = executed(run.code())
    curve = schedule.named("cosine", 1.0, 20, 4)
    assert [program["rate"](step) for step in range(1, 21)] == pytest.approx([curve(n) for n in range(1, 21)])


def test_batches_that_vary_are_said_to_be_of_one_size(fitted: Any) -> None:
    code = fitted(budget="2 epochs", batch_size="growing 16 to 64", schedule="linear").code()
    assert "batches are of 16 throughout, the run's were 'growing 16 to 64'" in code
    assert executed(code)["BATCH_SIZE"] == 16


@pytest.mark.parametrize(
    ("policy", "size"), [("growing", 64), ("stochastic", 64), ("stochastic 20 to 80", 40)]
)
def test_a_policy_begins_with_its_usual_size(fitted: Any, policy: str, size: int) -> None:
    code = fitted(budget="2 steps", batch_size=policy, schedule="linear").code()
    assert f"batches are of {size} throughout, the run's were {policy!r}" in code
    assert "size = min(BATCH_SIZE, len(train))" in code
    assert executed(code)["BATCH_SIZE"] == size


def test_batches_that_came_from_an_object_are_said_to_be_open(fitted: Any, tmp_path: Path) -> None:
    policy = batch.Growing(16, 64, schedule.Cosine(1e-3, 30), 2.0)
    code = fitted(budget="2 steps", batch_size=policy).code()
    assert "BATCH_SIZE is yours to fill in: the run's batches came from an object" in code
    assert executed(code)["BATCH_SIZE"] == batch.FIRST
    rows = TensorDataset(*(torch.as_tensor(part[:100]) for part in ROWS["data"]))
    loaded = st.fit(DataLoader(rows, 50), val=ROWS["val"], out=tmp_path / "other", budget="2 steps", **SMALL)
    assert "BATCH_SIZE is yours to fill in" in loaded.code()


def test_where_nothing_was_searched_nothing_is_chosen(fitted: Any) -> None:
    assert fitted(budget="2 steps").chosen == {}


def test_the_plateau_is_gone_back_from_as_in_the_run(fitted: Any) -> None:
    settings = {"lr": 3.0, "rule": "sgd", "patience": 2, "max_decays": 1, "budget": "40 steps"}
    run = fitted(**settings, batch_size="full", min_delta=0.01)
    program = saved(run, **ROWS)
    names, rates = executed(program.read_text()), []
    update = names["update"]

    def watched(model: Any, optimizers: Any, batch: Any, step: int, factor: float) -> float:
        rates.append(factor)
        return update(model, optimizers, batch, step, factor)

    names["update"] = watched
    names["main"](program.with_name("data.pt"))
    assert len(rates) == run.steps
    assert rates == pytest.approx([*run.history["factor"]])


def test_the_average_is_gone_back_to_with_the_weights(
    fitted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"lr": 3.0, "rule": "momentum", "patience": 2, "max_decays": 2, "budget": "40 steps"}
    run = fitted(**settings, average=0.9, batch_size="full")
    program = saved(run, **ROWS)
    capsys.readouterr()
    executed(program.read_text())["main"](program.with_name("data.pt"))
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert [*run.history["event"]].count("decay") == 2
    # Six digits are printed; a course that falls and rises again multiplies what float32 rounds off.
    assert losses == pytest.approx([*run.history["val/loss"]], rel=1e-4)


NAMESAKES = """from torch import nn


def loss_of(outputs, target):
    return nn.functional.cross_entropy(outputs, target, reduction="none")


def main(shape, outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))
"""


def test_functions_that_are_imported_may_be_called_as_those_of_the_program_are(
    fitted: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "namesakes.py").write_text(NAMESAKES)
    monkeypatch.syspath_prepend(tmp_path)
    settings = {"budget": "5 steps", "batch_size": "full", "model": "namesakes:main"}
    run = fitted(**settings, loss="namesakes:loss_of")
    program = saved(run, data=ROWS["data"], val=ROWS["val"])
    loss = executed(program.read_text())["main"](program.with_name("data.pt"))
    rounding = 5 * np.sqrt(600) * torch.finfo(torch.float32).eps
    assert loss == pytest.approx(min(run.history["val/loss"]), rel=rounding)


@pytest.mark.parametrize("more", [{}, {"schedule": "cosine"}, {"patience": 3, "max_decays": 0}])
def test_a_loss_that_is_never_finite_ends_in_a_sentence(fitted: Any, more: dict[str, Any]) -> None:
    run = fitted(**{"patience": 2, "max_decays": 2, "budget": "20 steps"} | more, batch_size="full")
    program = saved(run, **ROWS)
    names = executed(program.read_text())
    names["evaluate"] = lambda *_: float("nan")
    with pytest.raises(SystemExit, match="val/loss was never finite"):
        names["main"](program.with_name("data.pt"))


def test_before_a_best_one_it_goes_back_to_the_start(fitted: Any) -> None:
    run = fitted(patience=2, max_decays=2, budget="20 steps", lr=0.1, batch_size="full")
    program = saved(run, **ROWS)
    names, losses, seen = executed(program.read_text()), iter([math.inf] * 3 + [1.0] * 20), []
    update = names["update"]

    def watched(model: Any, *rest: Any) -> Any:
        seen.append(torch.cat([w.detach().flatten() for w in model.parameters()]))
        return update(model, *rest)

    names |= {"evaluate": lambda *_: next(losses), "update": watched}
    assert names["main"](program.with_name("data.pt")) == 1.0
    assert [step for step, weights in enumerate(seen) if torch.equal(weights, seen[0])] == [0, 2]


@pytest.mark.parametrize("more", [{}, {"class_weight": [1.0, 2.0] * 5}])
def test_rows_with_weights_are_judged_as_in_the_run(fitted: Any, more: dict[str, Any]) -> None:
    """Over the sum of the weights of rows; those of classes leave the number of rows as it is."""
    weight = np.random.default_rng(0).uniform(0.5, 4.0, 600)
    settings = {"budget": f"{STEPS} steps", "batch_size": "full", "val": 0.3, "sample_weight": weight}
    run = fitted(**settings | more)
    program = saved(run, data=ROWS["data"], sample_weight=weight)
    loss = executed(program.read_text())["main"](program.with_name("data.pt"))
    rounding = STEPS * np.sqrt(600) * torch.finfo(torch.float32).eps
    assert loss == pytest.approx(min(run.history["val/loss"]), rel=rounding)


def test_objects_are_left_to_fill_in_and_stacks_written_out(fitted: Any) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    run = fitted(model=Own(), budget="2 steps", loss=lambda o, t: nn.functional.cross_entropy(o, t))
    program = executed(run.code())
    for name, arguments in {"build_model": (), "loss_of": (None, None)}.items():
        with pytest.raises(SystemExit, match="fill in"):
            program[name](*arguments)
    assert "fill in" in program["__doc__"]


def test_a_stack_of_torchs_layers_is_written_out(fitted: Any) -> None:
    net = nn.Sequential(nn.Linear(64, 12), nn.Sequential(nn.LayerNorm(12), nn.GELU()), nn.Linear(12, 10))
    run = fitted(model=net, budget="2 steps")
    again = executed(st.Run(run.folder, model=net).code())["build_model"]()
    assert repr(again) == repr(net)
    assert written(nn.Sequential(nn.Linear(2, 2), nn.MultiheadAttention(4, 2))) == ""


TWICE = nn.Linear(4, 4)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Sequential(TWICE, nn.Tanh(), TWICE),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        nn.Linear(4, 4).double(),
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))),
    ],
    ids=str,
)
def test_what_a_repr_leaves_out_is_not_guessed(layer: nn.Module) -> None:
    assert written(nn.Sequential(nn.Flatten(), layer)) == ""


def test_hooks_are_part_of_a_network() -> None:
    net = nn.Sequential(nn.Linear(4, 4))
    assert written(net)
    net[0].register_forward_hook(lambda layer, inputs, output: 2 * output)
    assert written(net) == ""


def test_a_layer_without_weights_may_stand_twice() -> None:
    bend = nn.Tanh()
    assert written(nn.Sequential(nn.Linear(4, 4), bend, nn.Linear(4, 4), bend))


@pytest.mark.parametrize("freeze", [[], ["2.bias"]])
def test_weights_frozen_by_hand_stand_still(fitted: Any, freeze: list[str]) -> None:
    net = nn.Sequential(nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10))
    net[0].requires_grad_(False)
    code = fitted(model=net, budget="2 steps", freeze=freeze).code()
    again = executed(code)["build_model"]()
    still = [name for name, weight in again.named_parameters() if not weight.requires_grad]
    assert still == ["0.weight", "0.bias", *freeze]
    assert "for name in ['0.weight', '0.bias']:" in code


class Pair(nn.Module):
    """Two halves of a picture, by name or by place."""

    def __init__(self) -> None:
        super().__init__()
        # No bias: before a batch norm its gradient is rounding, which AdamW would make whole steps of.
        self.layer = nn.Sequential(nn.Linear(64, 10, bias=False), nn.BatchNorm1d(10))

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.cat([left, right], 1))


@pytest.mark.parametrize("how", [{"average": 0.9, "rule": "sgd"}, {"rule": "schedulefreesgd"}], ids=str)
def test_averages_are_measured_anew_with_all_else_as_in_a_test(how: dict[str, Any], tmp_path: Path) -> None:
    """Under a rate of nothing the weights stand still, and no chance is left but that of dropout."""
    net = nn.Sequential(nn.Linear(64, 16), nn.Dropout(0.5), nn.BatchNorm1d(16), nn.Linear(16, 10))
    start = copy.deepcopy(net)
    settings = WHOLE | how | {"budget": "2 steps", "lr": 1e-9}
    run = st.fit(ROWS["data"], model=net, out=tmp_path / "run", **settings)
    names = executed(saved(run, data=ROWS["data"]).read_text())
    names["build_model"] = lambda: start
    rounding = np.sqrt(600) * torch.finfo(torch.float32).eps
    assert names["main"](tmp_path / "data.pt") == pytest.approx(min(run.history["val/loss"]), rel=rounding)


HALVES = {"left": ROWS["data"][0][:, :32], "right": ROWS["data"][0][:, 32:]}
SEVERAL = {"by name": (HALVES, Y[:600]), "by place": (tuple(HALVES.values()), Y[:600])}
WHOLE = {"val": 0.2, "test": 0, "lr": None, "budget": "5 steps", "batch_size": "full"}


@pytest.mark.parametrize("more", [{}, {"average": 0.9}, {"class_weight": "balanced"}], ids=str)
@pytest.mark.parametrize("how", SEVERAL)
def test_several_inputs_come_by_name_or_by_place(how: str, more: dict[str, Any], tmp_path: Path) -> None:
    data, net = SEVERAL[how], Pair()
    start = copy.deepcopy(net)
    run = st.fit(data, model=net, out=tmp_path / "run", **WHOLE | more)
    names = executed(saved(run, data=data).read_text())
    names["build_model"] = lambda: start
    loss = names["main"](tmp_path / "data.pt")
    rounding = 5 * np.sqrt(600) * torch.finfo(torch.float32).eps
    assert loss == pytest.approx(min(run.history["val/loss"]), rel=rounding)
    assert run.history["val/loss"][-1] < run.history["val/loss"][0]


@pytest.mark.parametrize("how", SEVERAL)
def test_several_inputs_are_cut_into_microbatches(how: str, tmp_path: Path) -> None:
    """The update of a whole batch is the one of its parts, but for batch norms, which are in test mode."""
    run = st.fit(SEVERAL[how], model=Pair(), out=tmp_path / "run", accumulate=3, **WHOLE | {"batch_size": 48})
    program, net = executed(run.code()), Pair().eval()
    draw = torch.Generator().manual_seed(0)
    parts = [torch.randn(10, 32, generator=draw) for _ in HALVES]
    inputs = dict(zip(HALVES, parts, strict=True)) if how == "by name" else parts
    target = torch.arange(10)
    whole = nn.functional.cross_entropy(net(*parts), target).item()
    seen: list[int] = []
    net.register_forward_pre_hook(
        lambda _, args, named: seen.append(len((args or [*named.values()])[0])), with_kwargs=True
    )
    loss = program["update"](net, program["build_optimizers"](net), [inputs, target], 1)
    assert seen == [4, 4, 2]
    assert loss == pytest.approx(whole, rel=10 * torch.finfo(torch.float32).eps)


class Quiet(nn.BatchNorm1d):
    """A batch norm by its kind alone: torch's own looks at a count, which is no number on "meta"."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input


class There(Pair):
    """Takes inputs only where its weights are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer[1] = Quiet(10)

    def forward(self, *inputs: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        places = {x.device for x in (*inputs, *named.values())}
        assert places == {self.layer[0].weight.device}
        return super().forward(*inputs, **named) if len(inputs) != 1 else self.layer(*inputs)


@pytest.mark.parametrize("more", [{}, {"average": 0.9}, {"accumulate": 2}], ids=str)
@pytest.mark.parametrize("how", [*SEVERAL, "one"])
def test_all_inputs_are_moved_to_the_device(how: str, more: dict[str, Any], tmp_path: Path) -> None:
    """The "meta" device stands for a GPU: it knows no numbers, and minds as well what is not on it."""
    data = SEVERAL.get(how, ROWS["data"])
    run = st.fit(data, model=There(), out=tmp_path / "run", **WHOLE | {"batch_size": 100} | more)
    recipe = run.folder / "recipe.toml"
    recipe.write_text(re.sub(r"^device = .*", 'device = "meta"', recipe.read_text(), flags=re.M))
    names, looked = executed(saved(run, data=data).read_text()), 0

    def loss_of(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        nonlocal looked
        looked += 1
        assert outputs.device == target.device == torch.device("meta")
        return torch.zeros((), requires_grad=True)

    names |= {"build_model": There, "loss_of": loss_of}
    names["main"](tmp_path / "data.pt")
    assert looked > 5


def test_rows_come_as_the_run_prepared_them(fitted: Any) -> None:
    run = fitted(budget="1 steps", val=0.2)
    rows = run.tensors(data=ROWS["data"])
    assert {name: len(part[1]) for name, part in rows.items()} == {"train": 480, "val": 120}
    again = st.Run(run.folder).tensors(data=ROWS["data"])
    assert all(torch.equal(a, b) for a, b in zip(chain(*rows.values()), chain(*again.values()), strict=True))


def test_a_run_that_has_not_come_far_enough_says_so(fitted: Any) -> None:
    run = fitted(budget="2 steps")
    recipe = run.folder / "recipe.toml"
    text = recipe.read_text()
    recipe.write_text(re.sub(r"^lr = \S+", 'lr = "auto"', text, flags=re.M))
    with pytest.raises(UserError, match="Nothing is chosen yet for lr"):
        run.code()
    recipe.write_text(text)
    (run.folder / "metrics.csv").unlink()
    with pytest.raises(UserError, match="no evaluation yet"):
        run.code()
