"""`tune`: what it asks, what it leaves behind, and that its recipe trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import steepest as st
from steepest import UserError, report
from steepest import evidence as records
from steepest.commands.cli import app
from steepest.commands.lifecycle import telling
from steepest.commands.question import asked_of
from steepest.commands.tune import go_on_tuning
from steepest.evidence import shown
from steepest.files import Folder
from steepest.recipe import Recipe
from steepest.rules import SGD
from steepest.schedule import Cosine
from steepest.train.progress import progress
from steepest.train.settled import stopping_of
from steepest.train.update import Update

SMALL = {"model": "mlp", "hidden": [8], "of": "600 steps", "batch_size": 16}


def data(examples: int = 200) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(examples, 4)).astype(np.float32)
    return x, (x.sum(1) > 0).astype(np.int64)


def table(folder: Path) -> Path:
    x, y = data()
    rows = [
        "a,b,c,d,target",
        *(",".join([*map(str, row), f"class{label}"]) for row, label in zip(x, y, strict=True)),
    ]
    path = folder / "points.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def question(given: Any, **settings: Any) -> Any:
    over = settings.pop("over", None)
    return asked_of(given, settings, "10%", "steepest", over)[0]


# --- what is asked ---


def test_without_a_word_what_decides_most_is_open() -> None:
    assert set(question("digits").recipe.open) == {"rule", "lr", "batch_size", "schedule", "weight_decay"}


def test_what_is_named_in_the_call_is_kept() -> None:
    asked = question("digits", rule="sgd", batch_size=32).recipe
    assert set(asked.open) == {"lr", "schedule", "weight_decay"}
    assert (asked.rule, asked.batch_size) == ("sgd", 32)


def test_where_something_is_auto_that_is_open_and_no_more() -> None:
    assert question("digits", lr="auto", clip_norm="auto").recipe.open == ("lr", "clip_norm")


def test_a_function_that_gives_the_rate_leaves_less_to_measure() -> None:
    curve = Cosine(0.1, 300)
    assert set(question("digits", schedule=curve).recipe.open) == {"rule", "batch_size", "weight_decay"}
    assert set(question("digits", rule=SGD(lr=curve)).recipe.open) == {"batch_size", "weight_decay"}
    assert "lr" in question("digits", rule=SGD(lr=0.1)).recipe.open


def test_over_names_what_is_open() -> None:
    assert question("digits", over=["lr"], rule="auto").recipe.open == ("rule", "lr")
    assert question("digits", over="lr").recipe.open == ("lr",)


def test_a_recipe_by_hand_keeps_what_it_says_and_one_of_a_run_does_not(tmp_path: Path) -> None:
    by_hand = tmp_path / "mine.toml"
    by_hand.write_text('data = "digits"\nrule = "lion"\n')
    assert question(by_hand).recipe.rule == "lion"
    of_run = tmp_path / "recipe.toml"
    of_run.write_text(Recipe.of({"data": "digits", "data_fingerprint": "x", "rule": "lion"}).to_toml())
    assert question(of_run).recipe.rule == "auto"
    assert question(of_run, rule="lion").recipe.rule == "lion"


def test_hyperparameters_of_a_rule_go_where_the_rule_is_open(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    settings = {"data": "digits", "data_fingerprint": "x", "rule": "adamw", "hyper": {"beta1": 0.5}}
    path.write_text(Recipe.of(settings).to_toml())
    assert question(path).recipe.hyper == {}
    assert question(path, over=["lr"]).recipe.hyper == {"beta1": 0.5}


def test_hyperparameters_that_are_named_in_the_call_keep_the_rule() -> None:
    asked = question("digits", hyper={"beta1": 0.8})
    assert "rule" not in asked.recipe.open
    assert asked.recipe.hyper == {"beta1": 0.8}
    with pytest.raises(UserError, match="hyper holds numbers of one rule"):
        question("digits", hyper={"beta1": 0.8}, over=["rule"])


def test_a_recipe_may_be_an_object() -> None:
    assert question(Recipe.of({"data": "digits", "schedule": "cosine"})).recipe.schedule == "cosine"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"engine": "optunna"}, "no engine 'optunna'.*optuna"),
        ({"over": ["beta1"]}, "'beta1' is none of the settings.*optuna"),
        ({"over": []}, "over names nothing"),
        ({"budget": "0%"}, "more than nothing"),
        ({"budget": "120%"}, "at most that of the run"),
        ({"budget": "5 s", "of": "600 steps"}, "cannot be compared"),
        ({"budget": "much"}, "budget"),
        (
            {"rule": "sgd", "lr": 0.1, "schedule": "cosine", "weight_decay": 0.0},
            "nothing is left to measure",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_and_leaves_no_folder(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        st.tune(data(), out=tmp_path / "t", **SMALL | settings)
    assert not (tmp_path / "t").exists()


# --- what it leaves ---


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[st.Evidence]]:
    """A search of the rate alone, the rule given."""
    folder = tmp_path_factory.mktemp("tuned") / "t"
    return folder, st.tune(data(), rule="sgd", lr="auto", schedule="auto", out=folder, **SMALL)


def test_the_evidence_is_returned_and_on_the_disk(tuned: tuple[Path, list[st.Evidence]]) -> None:
    folder, found = tuned
    lines = (folder / "evidence.jsonl").read_text().splitlines()
    assert [json.loads(line)["choice"] for line in lines] == [one.choice for one in found]
    assert {"lr", "schedule"} <= {one.choice for one in found}


def test_the_recipe_is_frozen_with_what_was_chosen(tuned: tuple[Path, list[st.Evidence]]) -> None:
    folder, found = tuned
    recipe = Recipe.read(folder / "recipe.toml")
    chosen = {one.choice: one.decided for one in found}
    assert recipe.open == ()
    assert (recipe.rule, recipe.lr, recipe.schedule) == ("sgd", chosen["lr"], "linear")
    assert recipe.budget == "600 steps"
    assert Recipe.read(folder / "asked.toml").open == ("lr", "schedule")


def test_nothing_was_trained_to_the_end_and_no_weights_are_left(tuned: tuple[Path, Any]) -> None:
    folder, _ = tuned
    kept = {path.name for path in folder.iterdir()}
    assert kept >= {"recipe.toml", "asked.toml", "tune.json", "evidence.jsonl", "report.html", "env.json"}
    assert not list(folder.rglob("*.safetensors"))


def test_the_search_keeps_to_its_share(tuned: tuple[Path, list[st.Evidence]]) -> None:
    assert (
        0 < sum(one.gradients for one in tuned[1]) <= 0.1 * 600 * 1.25
    )  # a rung is rounded up to whole updates


def test_the_report_shows_the_choices(tuned: tuple[Path, Any]) -> None:
    page = (tuned[0] / "report.html").read_text()
    (lr,) = [one.decided for one in tuned[1] if one.choice == "lr"]
    assert f"Chosen: lr {shown(lr)}, schedule linear, stop patience " in page
    assert "without the training" in page
    assert "recipe.toml</code> trains with them" in page
    assert "reused" not in page, "the recipe that is left starts anew"


def test_the_report_of_a_search_that_has_not_ended_says_what_it_has_found(tmp_path: Path) -> None:
    (tmp_path / "tune.json").write_text("{}")
    (tmp_path / "evidence.jsonl").write_text(st.Evidence("batch_size", 32, "noise").to_json() + "\n")
    page = report.write(tmp_path).read_text()
    assert "The search has not ended. Found so far: batch_size 32." in page
    assert "goes on with the search" in page


def test_what_arms_did_not_do_stays_as_it_was_said(tmp_path: Path) -> None:
    """A rise is a person's where no arm has trained; patience that was measured lowers the rate."""
    own = SMALL | {"of": "1000 steps", "warmup": "50 steps"}
    st.tune(data(), over=["schedule", "weight_decay"], out=tmp_path / "rise", **own)
    assert Recipe.read(tmp_path / "rise" / "recipe.toml").warmup == "50 steps"
    st.tune(data(), budget="25%", over=["schedule", "stop"], out=tmp_path / "stop", **SMALL)
    found = Recipe.read(tmp_path / "stop" / "recipe.toml")
    assert (found.schedule, found.stop) == ("linear", "lower")
    assert stopping_of(found).max_decays == found.max_decays > 0


def test_fit_trains_with_the_recipe(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    pinned = {"target": "target", "rule": "sgd", "schedule": "linear"}
    st.tune(table(tmp_path), lr="auto", out=folder, **pinned, **SMALL)
    run = st.fit(folder / "recipe.toml", out=tmp_path / "run")
    assert run.recipe.lr == Recipe.read(folder / "recipe.toml").lr
    assert run.steps == 600


def test_a_network_that_is_handed_over_stays_as_it_is(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
    before = [tensor.clone() for tensor in net.state_dict().values()]
    chance = torch.get_rng_state()
    settings = {"rule": "sgd", "lr": "auto", "of": "600 steps", "batch_size": 16, "init": "orthogonal"}
    st.tune(data(), model=net, out=tmp_path / "t", **settings)
    assert all(map(torch.equal, before, net.state_dict().values()))
    assert torch.equal(chance, torch.get_rng_state())


def test_a_budget_too_small_to_measure_is_said_and_the_default_stands(tmp_path: Path) -> None:
    found = st.tune(data(), rule="sgd", lr="auto", out=tmp_path / "t", **SMALL | {"of": "20 steps"})
    (lr,) = [one for one in found if one.choice == "lr"]
    assert "too small to measure" in lr.why
    assert Recipe.read(tmp_path / "t" / "recipe.toml").lr == st.rules.SGD().lr


def test_a_share_too_small_to_measure_spends_nothing(tmp_path: Path) -> None:
    settings = {"rule": "sgd", "lr": "auto", "batch_size": "auto", "budget": "5 steps", "of": "4000 steps"}
    found = st.tune(data(), out=tmp_path / "t", **SMALL | settings)
    assert sum(one.gradients for one in found) == 0
    said = {one.choice: one.why for one in found}
    assert "a search of 5 updates is too short" in said["lr"]
    assert "a search of 5 updates is too short" in said["batch_size"]


# --- going on ---


def test_the_same_question_is_answered_from_the_folder(tuned: tuple[Path, list[st.Evidence]]) -> None:
    folder, found = tuned
    stamp = (folder / "recipe.toml").stat().st_mtime_ns
    again = st.tune(data(), rule="sgd", lr="auto", schedule="auto", out=folder, **SMALL)
    assert again == found
    assert (folder / "recipe.toml").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("other", [{"budget": "15%"}, {"rule": "momentum"}, {"of": "700 steps"}])
def test_another_question_is_refused_in_its_folder(tuned: tuple[Path, Any], other: dict[str, Any]) -> None:
    settings = {"rule": "sgd", "lr": "auto", "schedule": "auto", **SMALL, **other}
    with pytest.raises(UserError, match="with other settings"):
        st.tune(data(), out=tuned[0], **settings)


def test_a_search_that_is_cut_goes_on_to_the_same_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"target": "target", "rule": "sgd", "lr": "auto", "schedule": "auto", **SMALL}
    path, made, real = table(tmp_path), [], Update.apply

    def counted(self: Update, loss: Any, examples: int, measure: bool) -> Any:
        made.append(1)
        if len(made) == at:
            raise KeyboardInterrupt
        return real(self, loss, examples, measure)

    monkeypatch.setattr(Update, "apply", counted)
    at = -1
    whole = st.tune(path, out=tmp_path / "whole", **settings)
    at = len(made) + len(made) // 2
    with pytest.raises(KeyboardInterrupt):
        st.tune(path, out=tmp_path / "cut", **settings)
    monkeypatch.undo()
    assert not (tmp_path / "cut" / "recipe.toml").exists()
    resumed = go_on_tuning(tmp_path / "cut")
    kept = [(one.choice, one.decided, one.why, one.gradients) for one in resumed]
    assert kept == [(one.choice, one.decided, one.why, one.gradients) for one in whole]
    frozen = [(tmp_path / name / "recipe.toml").read_text() for name in ("cut", "whole")]
    assert frozen[0] == frozen[1]


def test_objects_are_asked_for_again(tuned: tuple[Path, list[st.Evidence]]) -> None:
    with pytest.raises(UserError, match="was an object of Python"):
        go_on_tuning(tuned[0])
    assert go_on_tuning(tuned[0], data=data()) == tuned[1]


def test_resume_does_not_train_in_the_folder_of_a_search(tuned: tuple[Path, Any]) -> None:
    with pytest.raises(UserError, match="is a search"):
        st.resume(tuned[0])


def test_a_run_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('data = "digits"\n')
    with pytest.raises(UserError, match="holds a run"):
        st.tune(data(), out=tmp_path, **SMALL)


def test_a_decision_is_recorded_once_and_again_where_it_is_another(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    tell = telling(folder, progress(None, Console(quiet=True)))
    for decided in (100, 100, 90, {"pair": (1, 2)}, {"pair": (1, 2)}):
        tell(st.Evidence("horizon", decided, "measured"))
    assert [one.decided for one in records.read(folder.evidence)] == [100, 90, {"pair": [1, 2]}]


# --- the command line ---


def test_the_command_tunes_and_its_folder_is_resumed_and_reported(tmp_path: Path) -> None:
    folder, path = tmp_path / "t", table(tmp_path)
    pinned = ["--set", "hidden=[8]", "--set", "batch_size=16", "--set", "rule=sgd"]
    command = ["tune", str(path), "--target", "target", "--of", "600 steps", "--over", "lr", *pinned]
    done = CliRunner().invoke(app, [*command, "--out", str(folder)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "train with it: steepest fit" in done.output
    (folder / "report.html").unlink()
    assert CliRunner().invoke(app, ["resume", str(folder)], catch_exceptions=False).exit_code == 0
    (folder / "report.html").unlink()
    assert CliRunner().invoke(app, ["report", str(folder)], catch_exceptions=False).exit_code == 0
    assert "without the training" in (folder / "report.html").read_text()


def test_two_budgets_are_not_confused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["tune", "digits", "--set", "budget=5s"])
    assert isinstance(done.exception, UserError)
    assert "--of" in str(done.exception)
