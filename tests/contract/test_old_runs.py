"""Run folders that earlier versions have left open, predict, evaluate, resume and report as they did then.

How they were made, and by which version, stands in tests/data/make_runs.py and runs_format_1/made.json."""

import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import make_runs
import numpy as np
import pytest
import torch
from make_runs import FRESH, PLACE, RUNS, nothing
from safetensors.torch import load_file

import steepest as st

WEIGHTS: dict[str, float] = {"rtol": 0.0, "atol": 0.0}
"""How far the weights of a resumed run may be from those of the run that nobody broke off: not at all."""
ELSEWHERE: dict[str, float] = {"rtol": 1e-2, "atol": 1e-3}
"""The same under another processor or version of torch, whose sums are rounded otherwise at every update."""
ANSWERS: dict[str, float] = {"rel": 1e-5, "abs": 1e-6}
"""How far predictions and metrics may be from those that were recorded: rounding in float32."""
SAME_SEARCH = True
"""Whether a search that was broken off comes to what it would have come to; False once it begins anew."""

MADE = json.loads((PLACE / "made.json").read_text())
HERE = MADE["torch"] == torch.__version__ and MADE["processor"] == make_runs.processor()
"""Whether the bits can be those of then."""

FITS = [name for name in RUNS if not name.startswith(("loop", "comparison", "tuning"))]
FINISHED = [name for name in FITS if name.endswith("finished")]
BROKEN = [name for name in FITS if name not in FINISHED]
TRAINING = [name for name in BROKEN if RUNS[name].stop is not None]
LOOPS = [name for name in RUNS if name.startswith("loop")]
SEARCHED = [name for name in TRAINING if name.startswith("automatic")]
MEASURED = (
    "rule",
    "lr",
    "weight_decay",
    "schedule",
    "stop",
    "average",
    "horizon",
    "sanity",
    "rung 1",
    "rung 2",
)
"""Choices of which the search of a run that was broken off after it has told each once."""

pytestmark = pytest.mark.filterwarnings("ignore:The bits may differ")
Opener = Callable[[str], Path]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All folders as they were left, with the files that their recipes name."""
    place = tmp_path_factory.mktemp("old")
    for path in PLACE.glob("*.tar.xz"):
        with tarfile.open(path) as held:
            held.extractall(place, filter="data")
    make_runs.files(place)
    return place


@pytest.fixture
def old(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    """Gives a copy of the folder of that name, where the tests stand."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for path in archive.glob("*.csv"):
        shutil.copy(path, tmp_path)

    def copied(name: str) -> Path:
        return Path(shutil.copytree(archive / name, name, symlinks=True))

    yield copied
    torch.set_num_threads(threads)


def reference(name: str) -> dict[str, Any]:
    """What the version that made the folder came to."""
    return json.loads((PLACE / f"{name}.json").read_text(encoding="utf-8"))


def cells(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Columns of a metrics.csv as numbers and words; nan where there is nothing."""
    return {key: [_cell(row[key]) for row in rows] for key in rows[0]}


def _cell(text: Any) -> Any:
    try:
        return float("nan" if text in ("", None) else text)
    except ValueError:
        return str(text)


def assert_same_rows(found: list[dict[str, Any]], name: str) -> None:
    told, want = cells(found), cells(reference(name)["rows"])
    assert told.keys() >= want.keys(), "a column is lost"
    near = {"rel": ANSWERS["rel"] if HERE else 1e-1, "abs": ANSWERS["abs"] if HERE else 1e-2, "nan_ok": True}
    for column, values in want.items():
        words = [(a, b) for a, b in zip(told[column], values, strict=True) if isinstance(b, str)]
        assert not [pair for pair in words if pair[0] != pair[1]], column
        numbers = [(a, b) for a, b in zip(told[column], values, strict=True) if not isinstance(b, str)]
        assert [a for a, _ in numbers] == pytest.approx([b for _, b in numbers], **near), column


def assert_same_weights(found: dict[str, torch.Tensor], name: str) -> None:
    want = load_file(PLACE / f"{name}.safetensors")
    assert found.keys() == want.keys()
    for key, tensor in want.items():
        near = WEIGHTS if HERE else ELSEWHERE
        assert torch.allclose(found[key].double(), tensor.double(), equal_nan=True, **near), key


def shipped(run: st.Run) -> dict[str, torch.Tensor]:
    return load_file(run.folder / "model.safetensors")


def choices(run: st.Run) -> list[tuple[str, Any]]:
    return [(one.choice, one.decided) for one in run.evidence if one.choice in MEASURED]


def resumed(name: str) -> st.Run:
    """The run of a folder here, gone on with to its end."""
    return st.resume(name, **RUNS[name].objects())


def test_each_kind_of_folder_is_there() -> None:
    assert {path.name.removesuffix(".tar.xz") for path in PLACE.glob("*.tar.xz")} == set(RUNS)
    assert sum(path.stat().st_size for path in PLACE.iterdir()) < 700_000, "data of tests stay small"


def test_finished_runs_tell_what_they_told(old: Opener) -> None:
    for name in FINISHED:
        run, told = st.Run(old(name)), reference(name)
        assert (run.status, run.steps) == ("finished", told["steps"])
        assert run.metrics == told["metrics"]
        assert {one.choice: one.decided for one in run.evidence} == told["decided"]
        assert_same_rows(run.history.to_dicts(), name)
        recipe = run.recipe
        assert (recipe.data, recipe.hidden, recipe.lr) == ("./table.csv", [6], 0.02)
        assert (recipe.batch_size, recipe.budget, recipe.num_threads) == (16, "40 steps", 1)


def test_broken_runs_tell_what_they_told(old: Opener) -> None:
    for name in BROKEN:
        run = st.Run(old(name))
        assert run.status == "unfinished"
        assert run.recipe.seed == 3
        assert {one.choice for one in run.evidence} >= {"task", "split"}
        assert run.preprocessing.answers.targets
        if RUNS[name].stop and not name.startswith("automatic"):
            assert 0 < len(run.history) < len(reference(name)["rows"])


def test_preprocessing_is_read(old: Opener) -> None:
    found = {name: st.Run(old(name)).preprocessing for name in FINISHED}
    assert found["classes-finished"].answers.classes == ("high", "low", "mid")
    assert found["flags-finished"].answers.classes == ("no", "yes")
    assert found["numbers-finished"].answers.targets == ("spent",)
    assert {one.input_shape for one in found.values()} == {(11,)}, "seven columns of numbers, four cities"


def test_finished_runs_answer_as_they_did(old: Opener) -> None:
    for name in FINISHED:
        run, told = st.Run(old(name)), reference(name)
        assert run.evaluate(FRESH) == pytest.approx(told["evaluate"], **ANSWERS)
        if "probabilities" not in told:
            assert np.asarray(run.predict(FRESH)).ravel() == pytest.approx(
                np.ravel(told["predict"]), **ANSWERS
            )
            continue
        assert run.predict(FRESH).tolist() == told["predict"]
        assert run.probabilities(FRESH) == pytest.approx(np.array(told["probabilities"]), **ANSWERS)


def test_finished_runs_hold_the_rows_and_the_program_of_then(old: Opener) -> None:
    for name in FINISHED:
        run = st.Run(old(name))
        train = run.tensors()["train"]
        assert len(train[0]) == len(train[1]) == 84
        compile(run.code(), name, "exec")


def test_finished_runs_go_on_with_more(old: Opener) -> None:
    old("classes-finished")
    run = st.resume("classes-finished", budget="+10 steps")
    assert (run.status, run.steps, len(run.history)) == ("finished", 50, 5)


def test_a_finished_recipe_repeats_its_run(old: Opener) -> None:
    old("numbers-finished")
    assert_same_weights(shipped(st.fit("numbers-finished/recipe.toml", out="again")), "numbers-finished")


def assert_same_choice(run: st.Run, chosen: dict[str, Any]) -> None:
    """What folders of format 1 hold in one flat table: settings, and beside them where a run begins."""
    beside = {"arm": "trial"} | {name: name for name in ("step", "name", "gradients", "reused")}
    settings = chosen.keys() - {*beside, "warmup", "begin", "again"}
    assert run.chosen == {name: chosen[name] for name in settings}
    found = run.resolved
    assert {name: getattr(found, now) for name, now in beside.items() if name in chosen} == {
        name: chosen[name] for name in beside if name in chosen
    }


@pytest.mark.parametrize("name", TRAINING)
def test_training_that_was_killed_ends_as_if_it_had_not_been(old: Opener, name: str) -> None:
    before = choices(st.Run(old(name)))
    measurements = {path.name for path in Path(name).glob("search/arm-*.json")}
    run, told = resumed(name), reference(name)
    assert (run.status, run.steps) == ("finished", told["steps"])
    assert_same_choice(run, told["chosen"])
    assert run.metrics == pytest.approx(told["metrics"], rel=1e-5 if HERE else 0.1)
    assert_same_rows(run.history.to_dicts(), name)
    assert_same_weights(shipped(run), name)
    assert choices(run) == before, "what was measured is measured, or told, again"
    assert {path.name for path in Path(name).glob("search/arm-*.json")} <= measurements


def test_the_searches_of_these_were_searches() -> None:
    for name in SEARCHED:
        assert {"rung 1", "rung 2", "rule", "lr", "horizon"} <= reference(name)["decided"].keys()


def test_a_search_that_was_killed_comes_to_an_end(old: Opener) -> None:
    name = "automatic-searching"
    assert not (old(name) / "checkpoints").exists()
    run = resumed(name)
    assert run.status == "finished"
    assert run.chosen["lr"] > 0
    assert len(run.history) == len(reference(name)["rows"])
    if SAME_SEARCH and HERE:
        assert_same_choice(run, reference(name)["chosen"])
        assert_same_weights(shipped(run), name)


def test_a_measured_length_is_not_measured_again(old: Opener) -> None:
    """A budget in seconds under a schedule that falls: evidence of the choice "horizon" holds the steps."""
    place = old("table-broken")
    recipe = (place / "recipe.toml").read_text(encoding="utf-8")
    assert 'budget = "60 steps"' in recipe
    (place / "recipe.toml").write_text(recipe.replace('"60 steps"', '"100000s"', 1), encoding="utf-8")
    line = {"choice": "horizon", "decided": 60, "why": "as measured", "seconds": 0.5}
    with open(place / "evidence.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    run = st.resume(place)
    assert [one.decided for one in run.evidence if one.choice == "horizon"] == [60]
    assert run.steps == 60
    assert_same_weights(shipped(run), "table-broken")


@pytest.mark.parametrize("name", LOOPS)
def test_loops_that_were_killed_end_as_if_they_had_not_been(old: Opener, name: str) -> None:
    first = len((old(name) / "metrics.csv").read_text().splitlines())
    net = RUNS[name].run(name, nothing)
    rows = make_runs._rows(Path(name) / "metrics.csv")
    assert 1 < first <= len(rows), "some of it was done before"
    assert_same_rows(rows, name)
    assert_same_weights(net.state_dict(), name)


def results(found: st.Comparison) -> dict[str, list[float]]:
    return {f"{one.strategy} {one.seed}": list(one.values) for one in found.results}


def written(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("result.json")}


def test_a_comparison_tells_what_it_told(old: Opener) -> None:
    place, told = old("comparison-finished"), reference("comparison-finished")
    found, before = st.Comparison(place), written(place)
    assert results(found) == told["values"]
    assert {one.choice: one.decided for one in found.evidence} == told["decided"]
    assert found.best == told["best"]
    assert found.verdict.done == found.verdict.asked == 4
    assert found.run("plain", 3).status == "finished"
    again = RUNS["comparison-finished"].run(str(place), nothing)
    assert written(place) == before, "the same question trains nothing"
    assert again.sentences == found.sentences
    assert "plain" in found.report().read_text(encoding="utf-8")


def test_a_comparison_goes_on(old: Opener) -> None:
    place, told = old("comparison-broken"), reference("comparison-broken")
    before = written(place)
    assert len(st.Comparison(place).results) == 1
    shutil.rmtree(place / "rates")  # the rate stands in the evidence
    found = RUNS["comparison-broken"].run(str(place), nothing)
    assert not (place / "rates").exists()
    assert {one.choice: one.decided for one in found.evidence} == told["decided"]
    assert {key: time for key, time in written(place).items() if key in before} == {
        key: time for key, time in before.items() if "rates" not in key
    }
    values = results(found)
    assert values.keys() == told["values"].keys()
    for key, value in told["values"].items():
        assert values[key] == pytest.approx(value, rel=1e-5 if HERE else 0.1), key


def test_a_tuning_that_has_ended_is_left_as_it_is(old: Opener) -> None:
    place = old("tuning-finished")
    recipe = (place / "recipe.toml").read_bytes()
    found = RUNS["tuning-finished"].run(str(place), nothing)
    assert {one.choice: one.decided for one in found} == reference("tuning-finished")["decided"]
    assert (place / "recipe.toml").read_bytes() == recipe
    run = st.fit(place / "recipe.toml", budget="20 steps", out="trained")
    assert run.recipe.lr == reference("tuning-finished")["decided"]["lr"]


def test_a_tuning_that_was_killed_comes_to_an_end(old: Opener) -> None:
    place = old("tuning-broken")
    assert not (place / "recipe.toml").exists()
    decided = {one.choice: one.decided for one in RUNS["tuning-broken"].run(str(place), nothing)}
    assert st.Recipe.read(place / "recipe.toml").lr == decided["lr"]
    if SAME_SEARCH and HERE:
        assert decided == reference("tuning-broken")["decided"]


def test_each_run_reports_and_explains_itself(old: Opener) -> None:
    for name in FITS:  # those that were killed too
        run = st.Run(old(name))
        page = run.report().read_text(encoding="utf-8")
        assert name in page
        assert "could not be read" not in page
        assert len(run.explain().splitlines()) > 2


def absolute(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (outputs.squeeze(-1) - target.squeeze(-1)).abs().mean()


def test_a_loss_of_ones_own_does_not_go_on_with_targets_in_another_unit(tmp_path: Path) -> None:
    """Versions of format 1 standardised the targets of such a loss; this one leaves them as they are."""
    draws = np.random.default_rng(0)
    inputs = draws.normal(size=(80, 3)).astype(np.float32)
    objects = {"data": (inputs, inputs.sum(1) * 50 + 7), "loss": absolute}
    st.fit(**objects, model="linear", lr=0.01, budget="5 steps", out=tmp_path / "run")
    path = tmp_path / "run" / "preprocessing.json"
    content = json.loads(path.read_text())
    assert content["target"]["scale"] == [1.0]
    path.write_text(json.dumps(content | {"target": content["target"] | {"shift": [7.0], "scale": [85.0]}}))
    with pytest.raises(st.UserError, match=r"standardised targets.*Train anew"):
        st.resume(tmp_path / "run", budget="+5 steps", **objects)
