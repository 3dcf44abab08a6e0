"""The search by Optuna: trials of our loop, pruned, counted, resumable, and what becomes of the best."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

import steepest as st
from processes import Process
from steepest import UserError
from steepest.commands import tune
from steepest.commands.tune import go_on_tuning
from steepest.evidence import shown
from steepest.optim.errors import MissingExtra
from steepest.recipe import Recipe
from steepest.train.given import separate
from steepest.train.job import Job, build
from steepest.train.update import Update
from steepest.tuning import optuna_search
from steepest.tuning.optuna_search import JOURNAL, STUDY

SMALL: dict[str, Any] = {
    "engine": "optuna",
    "model": "mlp",
    "hidden": [8],
    "of": "2000 steps",
    "batch_size": 16,
}
PINNED: dict[str, Any] = {"rule": "nesterov", "lr": "auto", "schedule": "linear", **SMALL}


def data(examples: int = 200) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(examples, 4)).astype(np.float32)
    return x, (x.sum(1) > 0).astype(np.int64)


def job_of(**settings: Any) -> Job:
    written, given = separate({"data": data(1000), "model": "mlp", "hidden": [8], **settings})
    return build(Recipe.of(written), given)


def study_in(folder: Path) -> optuna.Study:
    """As Optuna's own tools open it."""
    journal = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
    return optuna.load_study(study_name=STUDY, storage=optuna.storages.JournalStorage(journal))


def told(found: list[st.Evidence]) -> list[Any]:
    """What must repeat: all but seconds."""
    lines = [(one.choice, one.decided, one.why, one.gradients) for one in found]
    return [lines, [one.candidates for one in found]]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[st.Evidence]]:
    folder = tmp_path_factory.mktemp("optuna") / "t"
    return folder, st.tune(data(), out=folder, **PINNED)


def test_the_best_trial_is_in_the_recipe(tuned: tuple[Path, list[st.Evidence]]) -> None:
    folder, found = tuned
    study, recipe = study_in(folder), Recipe.read(folder / "recipe.toml")
    assert recipe.open == ()
    assert recipe.lr == study.best_trial.params["lr"] == {one.choice: one.decided for one in found}["lr"]
    assert (recipe.rule, recipe.schedule, recipe.batch_size) == ("nesterov", "linear", 16)
    assert study.best_value == min(t.value for t in study.trials if t.state.name == "COMPLETE")  # type: ignore[type-var]


def test_the_budget_is_kept_and_used(tuned: tuple[Path, list[st.Evidence]]) -> None:
    (search,) = [one for one in tuned[1] if one.choice == "trial"]
    assert 0.7 * 200 <= search.gradients <= 200  # a tenth of 2000; what is left holds no whole trial
    assert sum(t.user_attrs["cost"] for t in study_in(tuned[0]).trials) == pytest.approx(
        search.gradients, abs=1
    )


def test_bad_trials_are_pruned_at_a_rung_and_make_room(tuned: tuple[Path, list[st.Evidence]]) -> None:
    ended = study_in(tuned[0]).trials
    pruned = [t for t in ended if t.state.name == "PRUNED"]
    whole = [t for t in ended if t.state.name == "COMPLETE"]
    assert pruned
    assert len(ended) > 200 // optuna_search.FEWEST
    assert all(t.user_attrs["rung"] < len(optuna_search.RUNGS) for t in pruned)
    assert max(t.user_attrs["cost"] for t in pruned) < min(t.user_attrs["cost"] for t in whole)


def test_the_first_trial_is_the_default_and_no_two_are_alike(tuned: tuple[Path, list[st.Evidence]]) -> None:
    rates = [t.params["lr"] for t in study_in(tuned[0]).trials]
    assert rates[0] == pytest.approx(st.rules.Nesterov().lr)
    assert len(set(rates)) == len(rates)


def test_evidence_holds_every_trial_with_its_curve(tuned: tuple[Path, list[st.Evidence]]) -> None:
    (search,) = [one for one in tuned[1] if one.choice == "trial"]
    assert len(search.candidates) == len(study_in(tuned[0]).trials)
    assert search.picture is not None
    assert search.picture["kind"] == "curves"
    assert len(search.picture["lines"]) == len(search.candidates)
    assert search.picture["chosen"] == f"trial {search.decided}"
    page = (tuned[0] / "report.html").read_text()
    assert f"trial {search.decided}" in page
    (lr,) = [one for one in tuned[1] if one.choice == "lr"]
    assert "searched 1e-05 to 0.1, by the logarithm" in lr.why


def test_all_at_once_is_searched_and_fit_trains_with_it(tmp_path: Path) -> None:
    settings = {name: value for name, value in SMALL.items() if name != "batch_size"}
    found = st.tune(data(1000), out=tmp_path / "t", seed=2, **settings | {"of": "1200 steps"})
    chosen = {one.choice: one.decided for one in found}
    assert {"rule", "lr", "weight_decay", "batch_size", "schedule"} <= set(chosen)
    recipe = Recipe.read(tmp_path / "t" / "recipe.toml")
    assert (recipe.rule, recipe.batch_size, recipe.schedule) == tuple(
        chosen[name] for name in ("rule", "batch_size", "schedule")
    )
    assert {name: chosen[name] for name in recipe.hyper} == recipe.hyper != {}
    settings = {**recipe.model_dump(), "data": data(1000), "budget": "30 steps"}
    run = st.fit(out=tmp_path / "run", **settings)
    assert run.recipe.lr == chosen["lr"]


def test_trials_see_as_many_examples_whatever_their_batch(tmp_path: Path) -> None:
    st.tune(data(1000), out=tmp_path / "t", **PINNED | {"batch_size": "auto", "schedule": "linear"})
    whole = [t for t in study_in(tmp_path / "t").trials if t.state.name == "COMPLETE"]
    assert len({t.params["batch_size"] for t in whole}) > 1
    trained = {t.user_attrs["curve"][-1][0] for t in whole}
    assert max(trained) / min(trained) < 1.25  # whole updates of 128 are not finer


def test_no_point_of_a_few_is_tried_twice(tmp_path: Path) -> None:
    """Three schedules: the budget held many more trials, which would have repeated these."""
    found = st.tune(data(), out=tmp_path / "t", over=["schedule"], **SMALL)
    (search,) = [one for one in found if one.choice == "trial"]
    assert sorted(row["schedule"] for row in search.candidates) == ["constant", "cosine", "linear"]
    assert search.candidates[0]["schedule"] == "linear"
    assert search.gradients < 200


def test_examples_of_random_batches_are_counted_as_they_came() -> None:
    job = job_of(batch_size="stochastic 8 to 64", lr=0.1)
    under = optuna_search.terms(job, 200)
    ended = optuna_search.run(job, {"lr": 0.1}, under, lambda rung, score: True, lambda: None)
    assert job.source.varied is not None
    came = [len(index) for _, _, index in islice(job.source.varied.updates(0), under.updates)]
    assert ended.curve[-1][0] == pytest.approx(sum(came) / under.size)
    assert sum(came) != under.updates * under.size


def test_hyperparameters_that_are_named_are_searched(tmp_path: Path) -> None:
    found = st.tune(
        data(), out=tmp_path / "t", over=["lr", "momentum"], rule="nesterov", schedule="constant", **SMALL
    )
    chosen = {one.choice: one.decided for one in found}
    recipe = Recipe.read(tmp_path / "t" / "recipe.toml")
    assert recipe.hyper["momentum"] == chosen["momentum"]
    assert 0 <= chosen["momentum"] <= 0.99
    said = f"Chosen: lr {shown(chosen['lr'])}, momentum {shown(chosen['momentum'])}."
    assert said in (tmp_path / "t" / "report.html").read_text()
    assert len({round(t.params["1 - momentum"], 6) for t in study_in(tmp_path / "t").trials}) > 2


def test_a_search_of_one_seed_repeats(tuned: tuple[Path, list[st.Evidence]], tmp_path: Path) -> None:
    assert told(st.tune(data(), out=tmp_path / "t", **PINNED)) == told(tuned[1])


@pytest.mark.parametrize("after", [3, 40, 111])
def test_a_search_that_is_cut_goes_on_to_the_same_end(
    tuned: tuple[Path, list[st.Evidence]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    updates, real = [], Update.apply

    def cut(self: Update, loss: Any, examples: int, measure: bool) -> Any:
        if len(updates) == after:
            raise KeyboardInterrupt
        updates.append(1)
        return real(self, loss, examples, measure)

    monkeypatch.setattr(Update, "apply", cut)
    with pytest.raises(KeyboardInterrupt):
        st.tune(data(), out=tmp_path / "t", **PINNED)
    monkeypatch.undo()
    with (tmp_path / "t" / JOURNAL).open("ab") as journal:
        journal.write(b'{"op_code":4,"worker')  # as a kill in the midst of writing leaves it
    (tmp_path / "t" / f"{JOURNAL}.lock").symlink_to(tmp_path / "t" / JOURNAL)
    assert told(go_on_tuning(tmp_path / "t", data=data())) == told(tuned[1])


def test_a_budget_in_seconds_is_turned_into_updates_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that goes on keeps to the number of the first, on a machine that has become slower too."""
    paces, bounds, search = iter([200, 7]), [], optuna_search.search

    def cut(job: Any, place: Any, updates: int, *rest: Any, **more: Any) -> Any:
        bounds.append((updates, more["seconds"]))
        if len(bounds) == 1:
            raise KeyboardInterrupt
        return search(job, place, updates, *rest, **more)

    monkeypatch.setattr(
        tune.timing, "updates_left", lambda job, seconds: st.Evidence("horizon", next(paces), "timed")
    )
    monkeypatch.setattr(optuna_search, "search", cut)
    with pytest.raises(KeyboardInterrupt):
        st.tune(data(), out=tmp_path / "t", **PINNED | {"of": "600 s"})
    found = go_on_tuning(tmp_path / "t", data=data())
    assert bounds == [(200, 60.0)] * 2
    assert next(paces) == 7
    (trials_of_it,) = [one for one in found if one.choice == "trial"]
    assert 100 <= trials_of_it.gradients <= 200


def test_a_run_that_is_budgeted_in_seconds_is_tuned_in_a_share_of_them(tmp_path: Path) -> None:
    found = st.tune(data(), out=tmp_path / "t", **PINNED | {"of": "20 s"})
    assert Recipe.read(tmp_path / "t" / "recipe.toml").budget == "20 s"
    assert any(one.choice == "trial" for one in found)


@pytest.mark.parametrize("size", [1, 2, 4, 16, 64, "full"])
@pytest.mark.parametrize("allowed", [200, 206, 500])
def test_small_batches_make_fewer_trials_and_no_shorter_ones(size: int | str, allowed: int) -> None:
    """A score costs as many examples whatever the batch, which is many updates of a small one."""
    under = optuna_search.terms(job_of(batch_size=size), allowed)
    assert under.updates >= optuna_search.FEWEST * (1 - optuna_search.SCORES_PART)
    assert 2 <= under.trials <= optuna_search.TRIALS
    assert under.trials * under.cost <= allowed * (1 + 1e-9)


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"of": "300 steps"}, "is 30 updates. It must hold two trials of 25"),
        ({"of": "600 steps", "batch_size": 1}, "is 60 updates. It must hold two trials of 50"),
        ({"val": 0.0}, "on the validation part, and there is none"),
        ({"batch_size": "growing 8 to 64"}, "under batch_size='growing 8 to 64' a trial takes as many as it"),
        ({"batch_size": "following", "schedule": "constant"}, "under batch_size='following"),
        ({"clip_norm": "auto"}, "do not tell 'clip_norm'"),
        ({"over": ["lr", "beta7"]}, "has no 'beta7'"),
    ],
)
def test_what_cannot_be_searched_is_refused(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        st.tune(data(), out=tmp_path / "t", **PINNED | settings)


def test_a_question_that_cannot_be_answered_gives_its_folder_back(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must hold two trials"):
        st.tune(data(), out=tmp_path / "t", **PINNED | {"of": "300 steps"})
    assert not (tmp_path / "t").exists()
    assert st.tune(data(), out=tmp_path / "t", **PINNED | {"of": "600 steps"})


def test_a_folder_that_was_there_stays_with_what_lay_in_it(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="must hold two trials"):
        st.tune(data(), out=tmp_path, **PINNED | {"of": "300 steps"})
    assert "note.txt" in {file.name for file in tmp_path.iterdir()} <= {"note.txt", ".lock"}


def test_where_every_trial_dies_that_is_said(tmp_path: Path) -> None:
    def loss(outputs: Any, target: Any) -> Any:
        return outputs.sum() * math.inf

    with pytest.raises(UserError, match="No trial came to its end"):
        st.tune(data(), out=tmp_path / "t", loss=loss, **PINNED)


BLOCKED = """
import sys


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "optuna":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())
import numpy as np
import steepest as st
from steepest.optim.errors import MissingExtra
data = np.zeros((60, 2), np.float32), np.arange(60) % 2
try:
    st.tune(data, engine="optuna", rule="sgd", lr="auto", model="linear", out=sys.argv[1])
except MissingExtra as error:
    print(error)
"""


def test_without_optuna_the_command_that_installs_it_is_named(tmp_path: Path) -> None:
    printed, complained = Process(BLOCKED, tmp_path / "t").communicate()
    assert 'pip install "steepest[optuna]"' in printed, complained[-2000:]
    assert issubclass(MissingExtra, ImportError)


def test_optunas_own_words_are_as_loud_as_before(tuned: tuple[Path, Any]) -> None:
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
