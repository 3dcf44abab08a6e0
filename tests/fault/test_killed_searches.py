"""SIGKILL amid a search: resumed, the run ends with the bits of one that was left alone.

Once at an instant drawn by a seed; in the full run three times at instants that are others in every run.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import steepest as st
from steepest.train.control import Interrupted
from steepest.tuning.journal import Journal
from steepest.tuning.trial import Trial

draw = np.random.default_rng(0)
X, y = draw.normal(size=(400, 8)).astype(np.float32), draw.integers(0, 3, 400)
LEASH = 4
"""Measurements that a search may make before it waits for its signal: none is so fast that it ends before."""


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import here what children need, so that they are killed in the search."""
    st.fit(
        (X, y), out=str(tmp_path_factory.mktemp("warm") / "run"), budget="300 steps", lr="auto", hidden=[8]
    )


def fit(out: Path, on_step: Callable[[Any], None] | None = None, **settings: Any) -> None:
    if (out / "recipe.toml").exists():
        st.resume(str(out), data=(X, y), on_step=on_step)
        return
    opened: dict[str, Any] = dict.fromkeys(("rule", "lr", "schedule", "clip_norm"), "auto")
    usual: dict[str, Any] = {"batch_size": 16, "hidden": [16], "dropout": 0.1, "budget": "1200 steps"}
    usual |= {"patience": 10_000}  # the labels are noise, and there is nothing to go on for
    st.fit((X, y), out=str(out), on_step=on_step, **usual | opened | settings)


def child(out: Path, leash: int | None = None, **settings: Any) -> int:
    """The process id of a fork that trains in silence; on a leash it stays after so many measurements."""
    started = os.fork()
    if started:
        return started
    code = 1
    try:
        torch.set_num_threads(1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if leash is not None:
            hold(out, measured(out) + leash)
        fit(out, **settings)
        code = 0
    finally:
        os._exit(code)


def hold(out: Path, most: int) -> None:
    """Let no search of this process measure more than so much before it is let go."""
    once = Journal.once

    def held(self: Journal, name: str, measure: Callable[[], Any]) -> Any:
        while measured(out) >= most and not (out / "go").exists():
            time.sleep(0.001)
        return once(self, name, measure)

    Journal.once = held


def held(out: Path, measurements: int = 3, **settings: Any) -> int:
    """A child that has made some measurements of its search and will not end it."""
    before, running = measured(out), child(out, LEASH, **settings)
    while measured(out) < before + measurements:
        assert os.waitpid(running, os.WNOHANG) == (0, 0), "it ended by itself"
        time.sleep(0.001)
    return running


def measured(out: Path) -> int:
    """How many measurements lie in the folder of the search."""
    return len(list((out / "search").glob("*.json")))


def killed(out: Path, chance: random.Random, **settings: Any) -> None:
    """Let the search measure a little more, then kill it at a random instant."""
    running = held(out, 2, **settings)
    time.sleep(chance.uniform(0, 0.02))
    os.kill(running, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(running, 0)[1])


def remains(out: Path) -> dict[str, Any]:
    """What a run left, but for the seconds."""
    lines = (out / "metrics.csv").read_text().splitlines()
    rows = [[cell for i, cell in enumerate(line.split(",")) if i != 2] for line in lines]
    evidence = [(one.choice, one.decided, one.why) for one in st.Run(out).evidence]
    return {"rows": rows, "evidence": evidence, "model": (out / "model.safetensors").read_bytes()}


@pytest.fixture
def kills(full: bool) -> int:
    return 3 if full else 1


def survives(place: Path, kills: int, **settings: Any) -> st.Run:
    """The run that was killed in its search and, when that was done, in its training."""
    alone, hurt = place / "alone", place / "hurt"
    chance = random.Random(1) if kills == 1 else random.Random()
    assert os.waitpid(child(alone, **settings), 0)[1] == 0
    assert measured(alone) > kills * LEASH, "the last kill would find no search"
    for _ in range(kills):
        killed(hurt, chance, **settings)
    assert os.WIFSIGNALED(os.waitpid(child(hurt, on_step=dies), 0)[1])
    assert os.waitpid(child(hurt), 0)[1] == 0
    assert remains(alone) == remains(hurt)
    return st.Run(hurt)


def dies(steps: Any) -> None:
    """A hook that kills its process in the midst of the training."""
    if steps.done == 777:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_search_that_was_killed_ends_as_one_left_alone(tmp_path: Path, kills: int) -> None:
    survives(tmp_path, kills)


OTHERS = ("growing 16 to 64", "stochastic 16 to 64")


@pytest.mark.parametrize(
    "policy", ["following 16 to 64", *(pytest.param(one, marks=pytest.mark.full) for one in OTHERS)]
)
def test_so_does_one_whose_batches_vary(tmp_path: Path, policy: str, kills: int) -> None:
    run = survives(tmp_path, kills, batch_size=policy, schedule="linear", save_every="50 steps")
    evenly = run.steps * 16 / run.history["epoch"][-1]
    assert evenly < 0.8 * 280, "batches that grow go through the 280 examples in fewer updates"


def test_a_signal_in_the_search_says_how_to_go_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    running = held(out)
    os.kill(running, signal.SIGTERM)
    (out / "go").touch()
    os.waitpid(running, 0)
    assert st.Run(out).status == "stopped"
    assert st.Run(out).steps == 0
    assert os.waitpid(child(out), 0)[1] == 0
    assert st.Run(out).status == "finished"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_so_does_one_in_the_middle_of_an_arm(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An arm is a loop, which takes the signal for itself."""
    note = Trial._note

    def struck(trial: Trial, loss: float) -> None:
        note(trial, loss)
        if len(trial.losses) == 10:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Trial, "_note", struck)
    with pytest.raises(Interrupted) as stopped:
        fit(tmp_path / "run")
    assert stopped.value.code == 128 + number
    assert st.Run(tmp_path / "run").status == "stopped"
    assert "go on: steepest resume" in capsys.readouterr().out
    with pytest.raises(Interrupted):
        st.tune((X, y), out=tmp_path / "tuned", of="1200 steps", batch_size=16, budget="25%")
    assert "go on: steepest resume" in capsys.readouterr().out
    monkeypatch.undo()
    fit(tmp_path / "run")
    assert st.Run(tmp_path / "run").status == "finished"


@pytest.mark.parametrize(("name", "content"), [("sanity.json", '{"hello": 1}'), ("start.safetensors", "")])
def test_a_measurement_that_is_none_is_named(tmp_path: Path, name: str, content: str) -> None:
    out = tmp_path / "run"
    running = held(out)
    os.kill(running, signal.SIGKILL)
    os.waitpid(running, 0)
    (out / "search" / name).write_text(content)
    with pytest.raises(st.UserError, match=f"{name}' is damaged"):
        fit(out)


def test_a_file_in_the_place_of_the_search_is_named(tmp_path: Path) -> None:
    (tmp_path / "search").touch()
    with pytest.raises(st.UserError, match="is a file where a folder belongs"):
        Journal(tmp_path / "search")


def test_a_damaged_measurement_is_named(tmp_path: Path) -> None:
    out = tmp_path / "run"
    running = held(out)
    os.kill(running, signal.SIGKILL)
    os.waitpid(running, 0)
    next((out / "search").glob("edge*.json")).write_text("{")
    with pytest.raises(st.UserError, match="Remove the folder 'search' to search anew"):
        fit(out)


@pytest.mark.parametrize("name", ["resolved.json", "search/sanity.json"])
def test_what_a_run_that_goes_on_reads_of_its_search_is_named_too(tmp_path: Path, name: str) -> None:
    fit(tmp_path / "run")
    (tmp_path / "run" / name).write_text("")
    with pytest.raises(st.UserError, match=f"{Path(name).name}' is damaged"):
        st.resume(str(tmp_path / "run"), data=(X, y), budget="+50 steps")
