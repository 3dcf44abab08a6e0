"""A search that is broken off goes on as if it had never been."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import steepest as st
from steepest.evidence import Evidence
from steepest.train import resolved
from steepest.tuning import search
from steepest.tuning.journal import Journal

draw = np.random.default_rng(0)
X = draw.normal(size=(640, 6)).astype(np.float32)
y = (X @ np.arange(6) + 0.5 * draw.normal(size=640)).astype(np.float32)[:, None]
SETTINGS: dict[str, Any] = {"hidden": [8], "batch_size": 64}


class Killed(BaseException):
    """What no code of ours catches."""


class Stream:
    """Ten batches an epoch, which nobody is told."""

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for at in range(0, len(X), 64):
            yield torch.tensor(X[at : at + 64]), torch.tensor(y[at : at + 64])


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def killed(patch: Callable[[pytest.MonkeyPatch], None], fit: Callable[[], Any]) -> None:
    """Run under the patch, which kills."""
    with pytest.MonkeyPatch.context() as context:
        patch(context)
        with pytest.raises(Killed):
            fit()


def killing(real: Callable[..., Any], when: Callable[..., bool]) -> Callable[..., Any]:
    def die(*given: Any, **named: Any) -> Any:
        if when(*given):
            raise Killed
        return real(*given, **named)

    return die


def same_weights(one: st.Run, other: st.Run) -> bool:
    a, b = (load_file(run.folder / "model.safetensors") for run in (one, other))
    return all(torch.equal(a[name], b[name]) for name in a)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))


def test_what_arms_learn_of_a_stream_decides_nothing() -> None:
    """The length of an epoch was known to the process that raced, and not to the one that went on."""

    def objects() -> dict[str, Any]:
        return {"model": network(), "val": Stream()}

    def fit(out: str) -> st.Run:
        return st.fit(Stream(), **objects(), test=0, budget="240 steps", task="regression", out=out)

    die = killing(resolved.write_atomic, lambda path, _: path.name == "resolved.json")
    killed(lambda patch: patch.setattr(resolved, "write_atomic", die), lambda: fit("broken"))
    whole, resumed = fit("whole"), st.resume("broken", data=Stream(), **objects())
    assert whole.chosen == resumed.chosen
    assert same_weights(whole, resumed)


def test_more_budget_within_a_search_begins_it_anew() -> None:
    """The plan of another budget: rungs of another length, and other arms under the same numbers."""

    def fit(out: str, budget: str) -> st.Run:
        return st.fit((X, y), **SETTINGS, rule="auto", lr="auto", schedule="auto", budget=budget, out=out)

    die = killing(Journal.once, lambda _, name, *rest: name == "arm-0-12")
    killed(lambda patch: patch.setattr(Journal, "once", die), lambda: fit("more", "400 steps"))
    assert list(Path("more/search").glob("arm-*-6.json")), "the first rung was over"
    more, whole = st.resume("more", data=(X, y), budget="+200 steps"), fit("whole", "600 steps")
    assert more.chosen == whole.chosen
    assert same_weights(more, whole)


def test_threads_that_were_chosen_are_those_of_a_resumed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "threads", lambda *given: Evidence("num_threads", 2, "as if"))
    seen: list[int] = []

    def note(_: Any) -> None:
        seen.append(torch.get_num_threads())
        if len(seen) in (5, 10):
            raise Killed

    settings = SETTINGS | {"lr": 0.01, "num_threads": "auto", "budget": "3s", "on_step": note, "out": "run"}
    with pytest.raises(Killed):
        st.fit((X, y), **settings)
    torch.set_num_threads(1)
    with pytest.raises(Killed):
        st.resume("run", data=(X, y), on_step=note)
    assert seen == [2] * 10


@pytest.mark.parametrize(
    "wrong", [{"evaluate_every": "5s"}, {"save_every": "soon"}, {"budget": "+300 steps"}], ids=str
)
def test_lengths_that_no_run_can_have_are_refused_before_a_search(wrong: dict[str, str]) -> None:
    with pytest.raises(st.UserError):
        st.fit((X, y), **SETTINGS | {"budget": "300 steps", "out": "mended"} | wrong)
    assert not Path("mended").exists()


def test_norms_are_measured_to_clip_by_without_a_guard_too() -> None:
    run = st.fit((X, y), **SETTINGS, lr=0.01, clip_norm="auto", guard=False, budget="300 steps", out="run")
    assert run.chosen["clip_norm"] > 0
