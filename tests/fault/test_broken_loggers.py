"""What people hang onto a run and that breaks: a logger is told no more, a hook ends the run saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import steepest as st
from steepest.torch import AdamW, loop

draw = np.random.default_rng(0)
X, y = draw.normal(size=(96, 6)), draw.integers(0, 2, 96)
FIT: dict[str, Any] = {
    "budget": "12 steps",
    "batch_size": 16,
    "hidden": [8],
    "lr": None,
    "save_every": "1 epoch",
}


class Log:
    """Notes what it is told, and raises where it is told to."""

    def __init__(self, breaks: str = "", error: BaseException | None = None) -> None:
        self.breaks, self.error = breaks, error or RuntimeError("the wire is cut")
        self.heard: list[Any] = []

    def _told(self, word: str, *what: Any) -> None:
        self.heard.append((word, *what))
        if word == self.breaks:
            raise self.error

    def config(self, settings: dict[str, Any]) -> None:
        self._told("config", settings)

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._told("log", step)

    def event(self, word: str, step: int) -> None:
        self._told("event", word)

    def tick(self, step: int, loss: Callable[[], float]) -> None:
        self._told("tick", step, loss())

    def close(self, status: str) -> None:
        self._told("close", status)


def looped(**settings: Any) -> str:
    """How a short loop of one's own ends."""
    net, data = nn.Linear(2, 1), (torch.ones(8, 2), torch.ones(8, 1))
    with loop(net, AdamW(net.parameters()), data, epochs=1, **settings) as steps:
        for x, target in steps:
            steps.step(nn.functional.mse_loss(net(x), target))
    return steps.status


def rows(folder: Path) -> list[list[str]]:
    """metrics.csv but the seconds."""
    lines = (folder / "metrics.csv").read_text().splitlines()
    return [[cell for i, cell in enumerate(line.split(",")) if i != 2] for line in lines]


@pytest.mark.parametrize("word", ["config", "log", "event", "tick", "close"])
def test_a_logger_that_raises_is_told_no_more_and_the_run_goes_on(tmp_path: Path, word: str) -> None:
    broken, sound = Log(word), Log()
    with pytest.warns(UserWarning, match=f"The logger Log failed in {word} .RuntimeError: the wire is cut"):
        run = st.fit((X, y), out=str(tmp_path / "run"), log=[broken, sound], **FIT)
    st.fit((X, y), out=str(tmp_path / "other"), **FIT)
    assert [one[0] for one in broken.heard].index(word) == len(broken.heard) - 1
    words = [one[0] for one in sound.heard]
    assert words[0] == "config"
    assert words[-1] == "close"
    assert words.count("tick") == 12
    assert sound.heard[0][1]["batch_size"] == 16
    assert run.metrics["test/loss"] > 0
    assert rows(tmp_path / "run") == rows(tmp_path / "other")


def test_a_logger_without_its_methods_is_named_in_a_loop() -> None:
    with pytest.warns(UserWarning, match="The logger object failed in config"):
        assert looped(log=[object()]) == "finished"


def test_what_asks_to_stop_is_not_a_broken_logger() -> None:
    with pytest.raises(KeyboardInterrupt):
        st.fit((X, y), log=[Log("log", KeyboardInterrupt())], **FIT)


@pytest.mark.parametrize("hook", ["on_step", "on_evaluation"])
def test_a_hook_that_raises_ends_the_run_saved(tmp_path: Path, hook: str) -> None:
    def cut(steps: Any, *_: Any) -> None:
        if steps.done >= 7:
            raise ZeroDivisionError("one over nothing")

    hooks: dict[str, Any] = {hook: cut}
    killed, alone = tmp_path / "killed", tmp_path / "alone"
    with pytest.raises(ZeroDivisionError, match="one over nothing") as caught:
        st.fit((X, y), out=str(killed), **FIT, **hooks)
    (note,) = caught.value.__notes__
    assert f"{hook} raised this, which ends the run. Step " in note
    assert f"is saved in {str(killed)!r}; resume goes on from there." in note
    with pytest.raises(ZeroDivisionError):  # an error in the next step is not hidden by what is saved
        st.resume(str(killed), data=(X, y), **hooks)
    st.resume(str(killed), data=(X, y))
    st.fit((X, y), out=str(alone), **FIT)
    assert rows(killed) == rows(alone)
    assert (killed / "model.safetensors").read_bytes() == (alone / "model.safetensors").read_bytes()


def test_a_hook_that_raises_without_a_folder_says_whose_error_it_is() -> None:
    def cut(steps: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        looped(on_step=cut)
    assert caught.value.__notes__ == ["on_step raised this, which ends the run."]
