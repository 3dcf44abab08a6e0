"""SIGKILL at random instants of a search: resumed, the run ends with the bits of one that was left alone."""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import steepest as st

draw = np.random.default_rng(0)
X, y = draw.normal(size=(400, 8)).astype(np.float32), draw.integers(0, 3, 400)
KILLS = 3


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import here what children need, so that they are killed in the search."""
    st.fit(
        (X, y), out=str(tmp_path_factory.mktemp("warm") / "run"), budget="300 steps", lr="auto", hidden=[8]
    )


def fit(out: Path) -> None:
    if (out / "recipe.toml").exists():
        st.resume(str(out), data=(X, y))
        return
    opened: dict[str, Any] = dict.fromkeys(("rule", "lr", "schedule", "clip_norm"), "auto")
    settings: dict[str, Any] = {"batch_size": 16, "hidden": [16], "dropout": 0.1}
    st.fit((X, y), out=str(out), budget="1200 steps", **settings, **opened)


def child(out: Path) -> int:
    """The process id of a fork that trains in silence."""
    started = os.fork()
    if started:
        return started
    code = 1
    try:
        torch.set_num_threads(1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        fit(out)
        code = 0
    finally:
        os._exit(code)


def measured(out: Path) -> int:
    """How many measurements lie in the folder of the search."""
    return len(list((out / "search").glob("*.json")))


def killed(out: Path, chance: random.Random) -> None:
    """Let the search measure a little more, then kill it at a random instant."""
    before, running = measured(out), child(out)
    while measured(out) < before + 2:
        assert os.waitpid(running, os.WNOHANG) == (0, 0), "it ended before it could be killed"
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.02))
    os.kill(running, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(running, 0)[1])


def remains(out: Path) -> dict[str, Any]:
    """What a run left, but for the seconds."""
    lines = (out / "metrics.csv").read_text().splitlines()
    rows = [[cell for i, cell in enumerate(line.split(",")) if i != 2] for line in lines]
    evidence = [(one.choice, one.decided, one.why) for one in st.Run(out).evidence]
    return {"rows": rows, "evidence": evidence, "model": (out / "model.safetensors").read_bytes()}


def test_a_search_killed_three_times_ends_as_one_left_alone(tmp_path: Path) -> None:
    alone, hurt, chance = tmp_path / "alone", tmp_path / "hurt", random.Random(1)
    assert os.waitpid(child(alone), 0)[1] == 0
    for _ in range(KILLS):
        killed(hurt, chance)
    assert os.waitpid(child(hurt), 0)[1] == 0
    assert remains(alone) == remains(hurt)


def test_a_signal_in_the_search_says_how_to_go_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    running = child(out)
    while measured(out) < 3:
        assert os.waitpid(running, os.WNOHANG) == (0, 0), "it ended before it could be stopped"
        time.sleep(0.001)
    os.kill(running, signal.SIGTERM)
    os.waitpid(running, 0)
    assert st.Run(out).status == "stopped"
    assert st.Run(out).steps == 0
    assert os.waitpid(child(out), 0)[1] == 0
    assert st.Run(out).status == "finished"


def test_a_damaged_measurement_is_named(tmp_path: Path) -> None:
    out = tmp_path / "run"
    running = child(out)
    while measured(out) < 3:
        time.sleep(0.001)
    os.kill(running, signal.SIGKILL)
    os.waitpid(running, 0)
    next((out / "search").glob("edge*.json")).write_text("{")
    with pytest.raises(st.UserError, match="Remove the folder 'search' to search anew"):
        fit(out)
