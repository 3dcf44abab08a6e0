"""What follows a search: more budget, a full disk, a warmup of one's own, and how it is told."""

import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_search import LINE, SLOW, X, fit, told, z
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

import steepest as st
from steepest.commands import lifecycle
from steepest.evidence import Evidence
from steepest.files import Unwritable
from steepest.optim.errors import UserError
from steepest.recipe import Recipe
from steepest.rules import SGD, AdamW
from steepest.schedule import Cosine
from steepest.train.control import Interrupted
from steepest.train.given import separate
from steepest.train.job import build
from steepest.tuning import halving, search, timing, trial


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_default_that_dies_is_no_way_back() -> None:
    run = fit((3e3 * X, z), "1500 steps", lr="auto", **LINE)
    assert run.status == "finished"
    assert any(row["dead"] and row["arm"] == "sgd 0.001" for row in told(run, "rung 1").candidates)
    assert told(run, "lr").decided < 1e-4


def test_more_epochs_are_reckoned_under_the_batch_that_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Evidence("batch_size", 4, "said by the test")
    monkeypatch.setattr(search, "choose_batch", lambda *given: small)
    run = st.fit((X, z), budget="20 epochs", **LINE | {"scale": None, "batch_size": "auto"})
    before = run.steps
    longer = st.resume(run.folder, budget="+1 epochs", data=(X, z))
    assert longer.steps == before + 210, "840 rows are 210 batches of four; of 64 they would be 14"


def test_a_rise_that_outlasts_the_search_ends_at_the_height_that_was_seen() -> None:
    run = fit(lr="auto", warmup="200 steps", **LINE | {"schedule": "auto"})
    step, best = run.resolved.step, told(run, "rung 2").candidates[0]["arm"]
    assert run.resolved.schedule == {"warmup": step, "begin": step}
    assert step < 200
    assert run.chosen["lr"] == pytest.approx(float(best.split()[1]) * step / 200, rel=0.01)
    assert "a rise over 200 updates" in told(run, "lr").why


def test_a_warmup_beside_a_given_rate_is_kept() -> None:
    run = fit(lr=0.1, clip_norm="auto", warmup="200 steps", **LINE | {"schedule": "auto"})
    assert run.resolved.schedule == {"warmup": 200, "begin": 200}
    assert run.resolved.step < 200
    lr = dict(zip(run.history["step"], run.history["lr"], strict=True))
    assert lr[159] == pytest.approx(160 / 200 * 0.1)


def test_a_short_search_does_not_pay_for_evaluations_that_it_never_makes() -> None:
    """A tenth of 3000 updates, beside evaluations that would take nearly all of it."""
    found = st.tune((X, z), budget="10%", of="3000 steps", over=["lr"], val=0.4, **SLOW | LINE)
    assert any(one.choice == "rung 1" for one in found)


def test_the_decay_of_a_rate_that_is_a_curve_is_that_of_its_height() -> None:
    run = fit(rule=AdamW(lr=Cosine(0.01, 600)), weight_decay="auto", model="linear")
    assert "at 0.01 " in told(run, "weight_decay").why


def test_the_decay_of_a_run_of_unknown_length_is_the_usual_one() -> None:
    class Stream(IterableDataset):
        def __iter__(self) -> Iterator[Any]:
            return iter(zip(torch.tensor(X[:320]), torch.tensor(z[:320, None]), strict=True))

    settings = {"budget": "2 epochs", "weight_decay": "auto", "val": 0, "test": 0, "loss": "mse"}
    run = st.fit(DataLoader(Stream(), batch_size=16), model=nn.Linear(6, 1), **settings)
    assert "length of the run is not known" in told(run, "weight_decay").why


def test_a_search_waits_for_room_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:

        def refuse(*given: Any) -> None:
            raise OSError(28, "No space left on device")

        full.setattr(trial.checkpoint, "_fill", refuse)
        with pytest.raises(Unwritable):
            fit(lr="auto", out="run", **LINE)
    assert Path("run/recipe.toml").exists()
    assert st.resume("run", data=(X, z)).status == "finished"


def test_what_is_refused_leaves_nothing_behind() -> None:
    with pytest.raises(st.UserError, match="momentun"):
        fit(hyper={"momentun": 0.9}, **LINE)
    assert not list(Path("runs").glob("*"))


@pytest.mark.parametrize("setting", ["rule", "lr", "batch_size", "schedule", "stop"])
def test_a_slip_in_auto_is_told_from_a_value(setting: str) -> None:
    with pytest.raises(st.UserError, match=f"{setting} cannot be 'atuo'. Did you mean 'auto'"):
        Recipe.of({"data": "digits", setting: "atuo"})


def test_a_run_that_was_just_made_has_its_rows_at_hand() -> None:
    run = fit(**LINE)
    inputs, target = run.tensors()["train"][:2]
    assert len(inputs) == len(target) == 840
    again = st.Run(run.folder, data=(X, z)).tensors()["train"][0]
    assert np.array_equal(again, inputs)
    with pytest.raises(st.UserError, match="not rows="):
        st.Run(run.folder, rows=X)


class Clocked:
    """A trial that takes a second for an update, and ten for coming and for going."""

    def __init__(self) -> None:
        self.now, self.done, self.dead = 0.0, 0, False

    def updates(self, to: int) -> Generator[float]:
        self.now += 10
        while self.done < to:
            self.done += 1
            self.now += 1
            yield 0.0
        self.now += 10


def test_an_update_is_timed_without_what_it_takes_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    one: Any = Clocked()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: one.now)
    assert timing._each(one, 20.0) == pytest.approx(1.0)
    assert timing._timed(one) == pytest.approx(1.0)
    one.dead = True
    assert timing._timed(one) == np.inf


def test_a_rate_that_is_a_function_leaves_nothing_of_a_schedule() -> None:
    with pytest.raises(UserError, match="rate of every step"):
        st.fit((X, z), model="linear", rule=SGD(lr=Cosine(0.1, 300)), schedule="auto", budget="400 steps")


@pytest.mark.parametrize("policy", ["stochastic 32 to 128", "growing 64 to 512"])
def test_costs_go_by_the_usual_size_of_batches_that_vary(policy: str) -> None:
    written, given = separate({"data": (X, z), "model": "linear", "batch_size": policy, "schedule": "linear"})
    assert build(Recipe.of(written), given).size == 64


def test_a_warmup_is_no_part_of_the_look_at_one_batch() -> None:
    """Twenty updates of a run of 2000 or more, which a longer rise would leave nothing of."""
    run = fit(budget="3000 steps", lr="auto", warmup="200 steps", **LINE)
    assert told(run, "sanity").decided == "sound"


def test_what_a_race_has_spent_is_spent_where_memory_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*given: Any) -> Any:
        raise MemoryError("said by the test")

    monkeypatch.setattr(halving.Halving, "_survivors", none_left)
    run = fit(lr="auto", **LINE)
    assert "memory ran out" in told(run, "lr").why
    assert run.chosen["lr"] == 1e-3
    assert run.steps < 600 - 3 * 12, "three arms at least had come to the end of the first rung"


def test_a_signal_at_the_end_of_a_search_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, found = fit(lr="auto", out="whole", **LINE), lifecycle.measured

    def signalled(*given: Any) -> Any:
        done = found(*given)
        signal.raise_signal(signal.SIGTERM)
        return done

    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, "measured", signalled)
        with pytest.raises(Interrupted):
            fit(lr="auto", out="cut", **LINE)
    assert st.Run("cut").status == "stopped"
    gone_on = st.resume("cut", data=(X, z))
    assert (gone_on.folder / "model.safetensors").read_bytes() == (
        whole.folder / "model.safetensors"
    ).read_bytes()
