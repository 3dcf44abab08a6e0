"""report.html tells what the folder holds, no less and no more."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from jinja2 import UndefinedError
from sklearn.metrics import confusion_matrix

from steepest import report
from steepest.optim.errors import UserError
from steepest.report import figures, page, rendering, summary
from steepest.report.predictions import CLASSES, confusion
from steepest.report.records import History, read
from steepest.report.rendering import duration, measured, number, share

pytestmark = pytest.mark.charts

FILES = ("recipe.toml", "evidence.jsonl", "metrics.csv", "result.json", "env.json", "examples.npz")
HOSTILE = "</style><script>alert('1')</script>\"$x^2$ \x00 \u2028 試"


def page_of(folder: Path) -> str:
    return report.write(folder).read_text("utf-8")


def words_of(page: str) -> str:
    """What a reader reads: no tags, single spaces."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def problems_of(folder: Path) -> str:
    return " ".join(read(folder).problems)


def test_a_whole_run_is_told_whole(run_folder: Path) -> None:
    page = page_of(run_folder)
    told = words_of(page)
    right = json.loads((run_folder / "result.json").read_text())["metrics"]["test/accuracy"]
    assert f"the model is right {share(right)} of the time" in told
    assert "Training ended: val/loss no longer fell." in told
    assert "the best evaluation of the run" in told
    assert "The learning rate was lowered once" in told
    assert "0.00123456" in told, "a setting is shown to its last digit"
    assert "0.6123" in told, "a measurement is shown to four digits"
    assert page.count("<svg") == 4
    assert "could not see" not in told


def test_the_page_needs_nothing_else(run_folder: Path) -> None:
    page = page_of(run_folder)
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    assert set(re.findall(r"url\((.)", page)) <= {"#"}
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]+)"', page))


def test_names_within_the_page_are_unique(run_folder: Path) -> None:
    names = re.findall(r' id="([^"]+)"', page_of(run_folder))
    assert len(names) == len(set(names))


def test_the_same_folder_gives_the_same_bytes(run_folder: Path) -> None:
    assert report.write(run_folder).read_bytes() == report.write(str(run_folder)).read_bytes()


def test_a_missing_file_is_named_and_the_rest_is_shown(run_folder: Path) -> None:
    for name in FILES:
        content = (run_folder / name).read_bytes()
        (run_folder / name).unlink()
        assert f"{name} is missing" in words_of(page_of(run_folder))
        assert len(read(run_folder).problems) == 1
        (run_folder / name).write_bytes(content)


def test_a_file_that_is_torn_or_of_noise_is_named(run_folder: Path) -> None:
    for name in FILES:
        content = (run_folder / name).read_bytes()
        torn = [content[: int(kept * len(content))] for kept in (0.0, 0.3, 0.6, 0.99)]
        for damaged in (*torn, np.random.default_rng(1).bytes(3000)):
            (run_folder / name).write_bytes(damaged)
            nothing_chosen_yet = name == "evidence.jsonl" and not damaged
            assert nothing_chosen_yet or name in problems_of(run_folder), f"{name} of {len(damaged)} bytes"
        (run_folder / name).write_bytes(content)


def test_where_every_file_is_torn_there_is_still_a_page(run_folder: Path) -> None:
    for name in FILES:
        content = (run_folder / name).read_bytes()
        (run_folder / name).write_bytes(content[: len(content) // 2])
    told = words_of(page_of(run_folder))
    assert "Metrics" in told
    assert "Environment" in told


def test_one_array_is_no_collection_of_examples(run_folder: Path) -> None:
    with (run_folder / "examples.npz").open("wb") as file:
        np.save(file, np.arange(3))
    assert "examples.npz could not be read" in problems_of(run_folder)


def test_a_cell_too_long_to_be_one_is_named(run_folder: Path) -> None:
    (run_folder / "metrics.csv").write_text("step,event\n1," + 200_000 * "x" + "\n")
    assert "metrics.csv could not be read" in problems_of(run_folder)


def test_a_number_cut_in_half_is_not_believed(run_folder: Path) -> None:
    path = run_folder / "metrics.csv"
    path.write_text(path.read_text() + "140,7,3.5,0.1,0.7,0.9,0.001,0.2,1.0,impr")
    assert read(run_folder).history.row(-1)["step"] == 120
    assert "the last line was cut short" in problems_of(run_folder)


def test_values_of_the_wrong_kind_are_borne(run_folder: Path) -> None:
    lines = [{"choice": None, "candidates": 3}, {"candidates": [1, {"a": None}, {"b": [2]}], "seconds": "4"}]
    (run_folder / "evidence.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "[]\n")
    for result in (
        {"status": ["finished"], "metrics": "good", "step": None, "best_step": "40", "seconds": {}},
        {"status": "finished", "metrics": {"test/accuracy": None, "test/loss": float("nan"), "x": [1]}},
        {"status": "failed", "why": 3, "best_step": 17},
    ):
        (run_folder / "result.json").write_text(json.dumps(result))
        assert "line 3 was left out" in words_of(page_of(run_folder))


def test_an_unfinished_run_says_how_to_go_on(run_folder: Path) -> None:
    (run_folder / "result.json").unlink()
    told = words_of(page_of(run_folder))
    assert "not finished" in told
    assert "Its last evaluation is that of step 120" in told
    assert f"steepest resume {run_folder} continues this run" in told
    assert "the best evaluation so far" in told


def test_a_loop_of_ones_own_is_shown_without_a_test(run_folder: Path) -> None:
    for name in ("recipe.toml", "env.json", "examples.npz"):
        (run_folder / name).unlink()
    (run_folder / "result.json").write_text('{"status": "finished", "metrics": {"val/loss": 0.7}}')
    told = words_of(page_of(run_folder))
    assert "no test of it is on record" in told
    assert "looked at once" not in told


def test_nothing_a_run_holds_becomes_markup(run_folder: Path) -> None:
    labels = np.array([HOSTILE.replace("\x00", ""), "cat"] * 20)
    np.savez(run_folder / "examples.npz", truth=labels, guess=labels[::-1])
    (run_folder / "env.json").write_text(json.dumps({HOSTILE: HOSTILE, "half": "\ud800"}))
    (run_folder / "result.json").write_text(
        json.dumps({"status": HOSTILE, "why": HOSTILE, "metrics": {HOSTILE: 1}})
    )
    line = {"name": HOSTILE, "x": [1, 2], "y": [1, 2]}
    words = {"x": HOSTILE[:-1], "y": HOSTILE[:-1], "said": HOSTILE, "marks": [{"name": HOSTILE, "x": 1}]}
    choice = {"choice": HOSTILE, "decided": HOSTILE, "why": HOSTILE, "candidates": [{HOSTILE: HOSTILE}]}
    choice |= {"of": HOSTILE, "interval": [1, 2], "picture": {"kind": "range", "lines": [line], **words}}
    (run_folder / "evidence.jsonl").write_text(json.dumps(choice) + "\n")
    (run_folder / "recipe.toml").write_text(f"{json.dumps(HOSTILE)} = {json.dumps(HOSTILE)}\n")
    (run_folder / "metrics.csv").write_text("step,train/<script>$x,event\n1,2,<script>\n2,3,\n")
    page = page_of(run_folder.rename(run_folder.with_name("<script>")))
    assert "<script" not in page
    assert page.count("</style>") == 1
    assert "\x00" not in page


def test_numbers_are_shown_as_residuals(run_folder: Path) -> None:
    truth = np.linspace(0, 10, 50)
    np.savez(run_folder / "examples.npz", truth=truth, guess=truth + 1.5)
    metrics = {"test/rmse": 1.5, "test/r2": 0.75}
    (run_folder / "result.json").write_text(json.dumps({"status": "finished", "metrics": metrics}))
    told = words_of(page_of(run_folder))
    assert "explains 75.0 % of the variation" in told
    assert f"would be off by {number(float(truth.std()))}" in told
    assert "farthest off" in told


def test_each_of_several_targets_has_its_figures(run_folder: Path) -> None:
    truth = np.random.default_rng(0).normal(size=(40, 2))
    guess = truth.copy()
    guess[0, 0] = np.nan
    np.savez(run_folder / "examples.npz", truth=truth, guess=guess)
    told = words_of(page_of(run_folder))
    assert "guess over truth of target 1" in told
    assert "guess less truth of target 2" in told


def test_examples_that_do_not_fit_are_named(run_folder: Path) -> None:
    three, picture = np.arange(3), np.zeros((1, 2, 2), np.uint8)
    fits = {"truth": three, "guess": three}
    for arrays in (
        {"truth": three, "guess": np.arange(4)},
        {"truth": np.array(["a"]), "guess": np.array([1.0])},
        {"truth": np.zeros((3, 2), int), "guess": np.zeros((3, 2), int)},
        fits | {"score": np.zeros((3, 3))},
        fits | {"pictures": picture},
        fits | {"pictures": np.zeros((1, 2, 2)), "picture_index": [0]},
        fits | {"pictures": picture, "picture_index": [3]},
        {"truth": np.array([None, {}]), "guess": np.arange(2)},
    ):
        np.savez(run_folder / "examples.npz", **arrays)
        assert "examples.npz could not be read" in problems_of(run_folder), str(arrays)


def test_mistakes_without_pictures_are_listed_surest_first(run_folder: Path) -> None:
    truth, guess = np.array(["cat", "dog", "cat"]), np.array(["dog", "cat", "cat"])
    np.savez(run_folder / "examples.npz", truth=truth, guess=guess, score=[0.6, 0.9, 1.0])
    told = words_of(page_of(run_folder)).partition("how sure")[2]
    assert told.index("90.0 %") < told.index("60.0 %")


def test_colour_pictures_and_no_mistakes(run_folder: Path) -> None:
    classes = np.arange(4)
    colour = {"pictures": np.full((1, 3, 5, 3), 200, np.uint8), "picture_index": np.array([2])}
    np.savez(run_folder / "examples.npz", truth=classes, guess=classes[::-1], **colour)
    assert "2 taken for 1" in page_of(run_folder)
    np.savez(run_folder / "examples.npz", truth=classes, guess=classes)
    assert "All 4 test examples on record were classified rightly" in words_of(page_of(run_folder))


def test_the_confusion_matrix_is_the_usual_one() -> None:
    draw = np.random.default_rng(3)
    truth, guess = draw.integers(0, 7, 300), draw.integers(2, 9, 300)
    classes, counts = confusion(truth, guess)
    assert (counts == confusion_matrix(truth, guess, labels=classes)).all()


def test_of_many_classes_the_most_confused_are_shown(run_folder: Path) -> None:
    truth = np.arange(3 * CLASSES)
    guess = truth.copy()
    guess[-2:] = guess[-2:][::-1]
    np.savez(run_folder / "examples.npz", truth=truth, guess=guess)
    told = words_of(page_of(run_folder))
    assert f"The {CLASSES} classes with the most mistakes, of {3 * CLASSES}" in told


def test_the_interval_holds_the_shares_that_are_not_too_far() -> None:
    """Wilson's interval ends where (p - q)² = z²q(1-q)/n, or at the edge of what a share can be."""
    for right, of in ((0, 5), (5, 5), (260, 270), (1, 1000)):
        z, p = 1.959964, right / of
        for end in summary.interval(right, of):
            off = (p - end) ** 2 - z * z * end * (1 - end) / of
            assert off == pytest.approx(0, abs=64 * np.finfo(float).eps)


def test_overfitting_is_said_where_it_shows(run_folder: Path) -> None:
    assert "Over-fitting" not in words_of(page_of(run_folder))
    (run_folder / "metrics.csv").write_text("step,train/loss,val/loss,event\n40,0.1,0.4,improved\n")
    assert "was 4.0 times that on training examples" in words_of(page_of(run_folder))


def test_a_curve_that_was_never_finite_is_said(run_folder: Path) -> None:
    for value in ("nan", "inf", ""):
        rows = f"1,{value},2.0,\n2,{value},{value},guard\n"
        (run_folder / "metrics.csv").write_text(f"step,val/loss,grad_norm,event\n{rows}")
        told = words_of(page_of(run_folder))
        assert "It was never finite." in told
        assert "not drawn, as not finite: 1" in told


def test_events_are_marked_and_counted() -> None:
    history = History({"step": np.array([1.0, 2.0, 3.0])}, ("guard decay", "", "decay"))
    assert history.occasions() == {"decay": [1.0, 3.0], "guard": [1.0]}
    told = [(key.colour, key.said.rpartition(", ")[2]) for key in figures.events(history)]
    assert told == [("decay", "2×"), ("guard", "1×")]


def test_memory_that_ran_out_is_marked_and_told(run_folder: Path) -> None:
    (run_folder / "metrics.csv").write_text("step,val/loss,event\n1,0.5,\n1,,memory\n2,0.4,\n")
    page = page_of(run_folder)
    assert "var(--memory)" in page
    assert "memory ran out, in smaller parts from here on, 1×" in words_of(page)
    assert "Memory ran out once, and updates were made in smaller parts from there on." in words_of(page)


def test_of_many_evaluations_those_with_events_are_listed() -> None:
    events = ["improved"] * 1000
    events[333] = "rewind"
    picked = page.picked(History({"step": np.arange(1000.0)}, events))
    assert len(picked) <= page.ROWS
    assert {0, 333, 999} <= set(picked)


def test_no_run_is_a_sentence(tmp_path: Path, run_folder: Path) -> None:
    with pytest.raises(UserError, match="There is no run folder"):
        report.write(tmp_path / "nowhere")
    shutil.rmtree(run_folder)
    run_folder.mkdir()
    with pytest.raises(UserError, match="holds none of recipe"):
        report.write(run_folder)


def test_a_part_that_a_template_asks_for_and_does_not_get_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'name' is undefined"):
        rendering.render("run", {})


def test_templates_trust_nothing_but_what_matplotlib_has_drawn() -> None:
    """One filter in all templates takes text for markup; what it is given comes from no one else."""
    templates = Path(rendering.__file__).with_name("templates")
    texts = [path.read_text("utf-8") for path in templates.glob("*.jinja")]
    assert len(texts) >= 5
    assert sum(len(re.findall(r"\|\s*safe|autoescape|Markup", text)) for text in texts) == 1
    assert sum(text.count("one.drawing.inside | safe") for text in texts) == 1


def test_numbers_are_written_for_people() -> None:
    told = [
        number(value)
        for value in (None, float("nan"), 3, 3.0, 12345, 0.123456, 1e-7, True, "x", float("inf"))
    ]
    assert told == ["–", "–", "3", "3", "12\u202f345", "0.1235", "1e-07", "True", "x", "inf"]
    assert [share(value) for value in (0.5, 0.9996, 1.0, 0.999999999)] == [
        "50.0 %",
        "99.96 %",
        "100.0 %",
        "100.0000 %",
    ]
    assert [measured(name, 0.25) for name in ("val/accuracy", "val/loss")] == ["25.0 %", "0.25"]
    told = [duration(value) for value in (0.4281, 0.03, 59.9, 250, 7500, "?", 0)]
    assert told == ["428 ms", "30 ms", "59.9 s", "4 min 10 s", "2 h 5 min", "?", "0.0 s"]
