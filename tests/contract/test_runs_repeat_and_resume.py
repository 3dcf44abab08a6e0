"""A run is repeated by its recipe and continued after any end, to the identical bits."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import steepest as st
from processes import steepest

QUICK = {"hidden": [8], "lr": None, "batch_size": 16}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def shipped(run):
    return load_file(run.folder / "model.safetensors")


def rows(run):
    """metrics.csv without its one column that depends on the clock."""
    return run.history.drop("seconds")


def assert_same(a, b):
    assert rows(a).equals(rows(b))
    assert a.metrics == b.metrics
    assert all(torch.equal(shipped(a)[name], w) for name, w in shipped(b).items())


def ended(process):
    """(exit code, what it printed, what it complained)"""
    printed, complained = process.communicate()
    return process.returncode, printed, complained


def test_a_recipe_repeats_its_run_in_a_new_folder():
    first = st.fit("iris", budget="4 epochs", average=0.9, dropout=0.2, **QUICK)
    again = st.fit(first.folder / "recipe.toml")
    assert again.folder != first.folder
    assert_same(first, again)


def test_a_recipe_finds_its_file_from_elsewhere(tmp_path, monkeypatch):
    pl.DataFrame({"x": np.arange(60.0), "y": np.arange(60.0) % 2}).write_csv("table.csv")
    first = st.fit("table.csv", target="y", budget="2 epochs", out="runs/here", **QUICK)
    (tmp_path / "far" / "away").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "far" / "away")
    assert_same(first_seen := st.Run(tmp_path / "runs/here"), st.fit(tmp_path / "runs/here" / "recipe.toml"))
    assert first_seen.recipe.data == str(tmp_path / "table.csv")
    assert first.folder == Path("runs/here")


def test_a_recipe_whose_data_changed_is_refused():
    table = pl.DataFrame({"x": np.arange(60.0), "y": np.arange(60.0) % 2})
    table.write_csv("table.csv")
    run = st.fit("table.csv", target="y", budget="1 epochs", **QUICK)
    table.head(50).write_csv("table.csv")
    with pytest.raises(st.UserError, match="their content"):
        st.fit(run.folder / "recipe.toml")


STRUCK = """
import os, signal, sys
from steepest.commands.cli import main
from steepest.train.checkpoint import Checkpoints

at, save = int(sys.argv.pop(1)), Checkpoints.save

def struck(self, snapshot):
    save(self, snapshot)
    if snapshot.step >= at:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoints.save = struck
main()
"""
"""Kills itself when it has saved so many steps: never too early, never too late."""


def test_a_run_killed_twice_ends_with_the_bits_of_one_that_was_not():
    asked = ["hidden=[16]", "dropout=0.3", "average=0.9", "keep=2", "num_threads=1", "save_every=7 steps"]
    settings = ["--lr", "none", "--budget", "40 epochs", *(word for one in asked for word in ("--set", one))]
    whole = steepest("fit", "wine", "--out", "whole", *settings)
    assert ended(whole)[0] == 0
    killed = steepest(15, "fit", "wine", "--out", "killed", *settings, program=STRUCK)
    assert ended(killed)[0] == -signal.SIGKILL
    killed = steepest(45, "resume", "killed", program=STRUCK)
    assert ended(killed)[0] == -signal.SIGKILL
    assert ended(steepest("resume", "killed"))[0] == 0
    assert_same(st.Run("whole"), st.Run("killed"))


ENDLESS = (
    "fit",
    "iris",
    "--lr",
    "none",
    "--out",
    "run",
    "--budget",
    "100000000 steps",
    "--set",
    "patience=1000000",
)


def _begun(folder):
    """A run without end in the folder, that has saved its start."""
    process = steepest(*ENDLESS)
    while not list(folder.glob("checkpoints/step-??????")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_usable_run_and_its_exit_code(tmp_path, number, code):
    process = _begun(tmp_path / "run")
    time.sleep(0.3)
    process.send_signal(number)
    left, printed, _ = ended(process)
    assert left == code
    assert "steepest resume run" in printed
    run = st.Run("run")
    assert run.status == "stopped"
    assert run.predict(np.zeros((1, 4))).shape == (1,)
    assert (run.folder / "report.html").exists()


def test_a_finished_run_is_left_alone_and_can_be_given_more(capsys):
    run = st.fit("iris", budget="2 epochs", **QUICK)
    before = os.stat(run.folder / "model.safetensors").st_mtime_ns
    st.resume(run.folder)
    assert "nothing to do" in capsys.readouterr().out
    assert os.stat(run.folder / "model.safetensors").st_mtime_ns == before
    more = st.resume(run.folder, budget="+2 epochs")
    assert_same(more, st.fit("iris", budget="4 epochs", **QUICK))


def test_a_network_given_as_an_object_is_asked_for_again():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    start = {name: w.clone() for name, w in net.state_dict().items()}
    run = st.fit("iris", model=net, budget="1 epochs", batch_size=16)
    with pytest.raises(st.UserError, match="Hand it over again"):
        st.resume(run.folder, budget="+1 epochs")
    again = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    again.load_state_dict(start)
    assert st.resume(run.folder, budget="+1 epochs", model=again).status == "finished"


def test_arrays_are_asked_for_again_and_known_by_their_content():
    X, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
    run = st.fit((X, y), budget="1 epochs", **QUICK)
    with pytest.raises(st.UserError, match="Hand it over again"):
        st.resume(run.folder, budget="+1 epochs")
    with pytest.raises(st.UserError, match="their content"):
        st.resume(run.folder, budget="+1 epochs", data=(X + 1, y))
    assert st.resume(run.folder, budget="+1 epochs", data=(X, y)).status == "finished"


def test_a_folder_with_a_run_is_refused_and_one_without_is_taken(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    run = st.fit("iris", budget="1 epochs", out="mine", **QUICK)
    assert (run.folder / "notes.txt").read_text() == "keep me"
    with pytest.raises(st.UserError, match="holds a finished run already"):
        st.fit("iris", budget="1 epochs", out="mine", **QUICK)
    assert run.status == "finished"


def test_runs_are_numbered():
    folders = [st.fit("iris", budget="1 epochs", **QUICK).folder.name for _ in range(2)]
    assert folders == ["iris", "iris-2"]


def test_a_second_process_in_the_folder_is_refused(tmp_path):
    first = _begun(tmp_path / "run")
    try:
        code, _, complained = ended(steepest("resume", "run"))
    finally:
        first.send_signal(signal.SIGTERM)
    assert ended(first)[0] == 143
    assert code == 2
    assert "Another process is training" in complained


def test_another_environment_is_named_and_not_fatal():
    run = st.fit("iris", budget="1 epochs", **QUICK)
    env = json.loads((run.folder / "env.json").read_text())
    (run.folder / "env.json").write_text(json.dumps(env | {"torch": "1.0.0"}))
    with pytest.warns(UserWarning, match="torch was 1.0.0 when this run began"):
        st.resume(run.folder, budget="+1 epochs")


def test_the_layout_of_a_run():
    run = st.fit("iris", budget="1 epochs", **QUICK)
    names = {path.name for path in run.folder.iterdir()} - {".lock"}
    assert names == {
        "recipe.toml", "evidence.jsonl", "metrics.csv", "result.json", "env.json", "checkpoints", "best",
        "last", "report.html", "model.safetensors", "preprocessing.json", "examples.npz",
        "resolved.json",
    }  # fmt: skip
    step = next((run.folder / "checkpoints").iterdir())
    assert {path.name for path in step.iterdir()} == {
        "model.safetensors", "state.safetensors", "state.json", "MANIFEST.json",
    }  # fmt: skip
    for link in ("best", "last"):
        assert not os.path.isabs(os.readlink(run.folder / link))


def test_a_folder_that_is_no_run():
    for opens in (st.Run, st.resume):
        with pytest.raises(st.UserError, match="holds no recipe"):
            opens("nowhere")


def test_a_mistake_at_the_command_line_is_a_sentence_and_exit_code_2():
    process = steepest("fit", "digits", "--set", "bach_size=3")
    code, _, complained = ended(process)
    assert code == 2
    assert complained.startswith("steepest: The recipe has no setting 'bach_size'.")


def test_a_budget_that_is_used_up_already_is_refused_and_the_recipe_stays():
    run = st.fit("iris", budget="3 epochs", **QUICK)
    before = (run.folder / "recipe.toml").read_text()
    with pytest.raises(st.UserError, match="are done already"):
        st.resume(run.folder, budget="2 epochs")
    assert (run.folder / "recipe.toml").read_text() == before


def test_a_recipe_that_was_cut_short_is_not_resumed_under_other_settings():
    run = st.fit("iris", budget="1 epochs", **QUICK)
    lines = (run.folder / "recipe.toml").read_text().splitlines(keepends=True)
    (run.folder / "recipe.toml").write_text("".join(lines[:-9]))
    with pytest.raises(st.UserError, match="is damaged: it lacks"):
        st.resume(run.folder, budget="+1 epochs")


def test_a_file_is_not_a_folder():
    run = st.fit("iris", budget="1 epochs", **QUICK)
    with pytest.raises(st.UserError, match="takes the folder of a run"):
        st.resume(run.folder / "recipe.toml")


def test_a_run_that_never_gave_a_number_has_failed():
    def hopeless(outputs, target):
        return outputs.sum() * float("nan")

    with pytest.raises(st.UserError, match="Nothing was learnt"):
        st.fit("iris", loss=hopeless, budget="1 epochs", **QUICK)
    assert st.Run("runs/iris").status == "failed"
