"""The report's section of evidence and the explanation: all choices, their costs, their pictures."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from steepest import report
from steepest.evidence import Evidence
from steepest.report import figures
from steepest.report.figures import KINDS

pytestmark = pytest.mark.charts

RATES = [1e-5 * 3**n for n in range(10)]
PICTURES: dict[str, dict[str, Any]] = {
    "range": {
        "kind": "range",
        "lines": [
            {"name": "adamw", "x": RATES, "y": [2.3, 2.3, 2.2, 2.0, 1.5, 1.1, 0.9, 3.0, 80.0, math.inf]},
            {"name": "nesterov", "x": RATES, "y": [2.3, 2.29, 2.25, 2.2, 2.1, 1.8, 1.4, 1.2, 1.3, 9.0]},
        ],
        "marks": [{"name": "edge of adamw", "x": 0.031}],
    },
    "curves": {
        "kind": "curves",
        "lines": [
            {"name": f"arm {n}", "x": [15, 30, 60], "y": [1.2 + n / 9, 0.9 + n / 9, 0.7 + n / 9]}
            for n in range(9)
        ],
        "chosen": "arm 0",
    },
    "noise": {
        "kind": "noise",
        "lines": [
            {
                "name": "critical batch",
                "x": [30, 60, 90],
                "y": [700, 850, 910],
                "low": [300, 500, 610],
                "high": [2500, 1700, 1480],
            }
        ],
    },
    "throughput": {
        "kind": "throughput",
        "lines": [{"name": "measured", "x": [16, 32, 64, 128, 256], "y": [900, 1700, 3000, 4400, 5200]}],
        "marks": [{"name": "chosen", "x": 128}],
    },
}


def chosen(kind: str, **more: Any) -> Evidence:
    tried = [{"arm": "adamw 0.001", "loss": 0.521, "interval": [0.5, 0.54]}, {"arm": "sgd 0.1", "loss": 0.6}]
    found = Evidence("lr", 0.0031, "beat 1e-3", tried, 2.5, (0.013, 0.029), 300, 90, PICTURES[kind])
    return Evidence(**vars(found) | more)


def page_of(folder: Path, *found: Evidence) -> str:
    (folder / "evidence.jsonl").write_text("".join(one.to_json() + "\n" for one in found))
    return report.write(folder).read_text("utf-8")


def words_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_the_table_tells_all_choices_and_what_they_cost(run_folder: Path) -> None:
    told = words_of(page_of(run_folder, chosen("range"), chosen("noise", choice="batch_size", decided=128)))
    assert "choice decided 95 % interval tried time gradients reused" in told
    assert "lr 3.1e-3 [0.013, 0.029] 2 2.5 s 300 90" in told
    assert "batch_size 128 [0.013, 0.029] 2 2.5 s 300 90" in told
    assert "all 5.0 s 600 180" in told
    assert "300 gradient evaluations, 90 of them reused" in told
    assert "adamw 0.001 0.521 [0.5, 0.54]" in told


def test_an_interval_of_something_else_than_the_choice_says_of_what(run_folder: Path) -> None:
    found = chosen("noise", choice="batch_size", decided=32, interval=(53.7, 66.1), of="critical batch")
    told = words_of(page_of(run_folder, found))
    assert "batch_size 32 critical batch [53.7, 66.1] 2" in told
    assert "95 % interval: critical batch [53.7, 66.1]" in told
    assert "  interval critical batch [53.7, 66.1] (95 %)" in report.explain(run_folder)


def test_columns_that_tell_nothing_are_left_out(run_folder: Path) -> None:
    told = words_of(page_of(run_folder, Evidence("split", "random", "a share of the rows")))
    assert "choice decided split random" in told
    assert "gradients" not in told


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_is_drawn(run_folder: Path, kind: str) -> None:
    bare = page_of(run_folder, chosen(kind, picture=None))
    page = page_of(run_folder, chosen(kind))
    assert page.count("<svg") == bare.count("<svg") + 1
    told = words_of(page)
    assert KINDS[kind].said in told
    assert KINDS[kind].x in told
    assert KINDS[kind].y in told
    assert all(line["name"] in told for line in PICTURES[kind]["lines"])
    assert all(mark["name"] in told for mark in PICTURES[kind].get("marks", ()))
    assert "nan" not in page.lower().replace("nano", "")
    assert page == page_of(run_folder, chosen(kind))


def test_a_curve_that_is_chosen_is_told_and_drawn_wider(run_folder: Path) -> None:
    page = page_of(run_folder, chosen("curves"))
    assert "arm 0 (chosen)" in words_of(page)
    assert page.count("stroke-width: 2.4") == 1
    assert page.count("border-top-style:dashed") == 2, "more curves than colours"


def test_of_a_crowd_only_the_chosen_curve_has_a_colour(run_folder: Path) -> None:
    page = page_of(run_folder, chosen("curves", picture=PICTURES["curves"] | {"crowd": True}))
    (drawn,) = re.findall(r'<figure class="measured">.*?</figure>', page, re.S)
    assert "arm 0 (chosen) 8 others" in words_of(drawn)
    assert set(re.findall(r"--tone:var\(--(\w+)\)", drawn)) == {"train", "muted"}
    assert [drawn.count(f"stroke: var(--{tone}); stroke-width: 1.3") for tone in ("muted", "val")] == [8, 0]
    assert drawn.rindex("stroke-width: 2.4") > drawn.rindex("stroke-width: 1.3"), "over all others"


def test_a_picture_has_words_of_its_own(run_folder: Path) -> None:
    own = PICTURES["noise"] | {"x": "tokens $x$ \x00", "y": "price", "said": "what it costs"}
    told = words_of(page_of(run_folder, chosen("noise", picture=own)))
    assert "tokens $x$" in told
    assert "price" in told
    assert "what it costs" in told


def test_a_picture_of_another_shape_is_borne(run_folder: Path) -> None:
    shapes: list[Any] = [
        3,
        {},
        {"kind": "pie"},
        {"kind": ["range"]},
        {"kind": "range", "lines": 3},
        {"kind": "range", "lines": [3, None, {}, {"x": [1], "y": ["a"]}]},
        {"kind": "range", "lines": [{"name": 1, "x": [1, 2], "y": [None, True]}]},
        {"kind": "curves", "lines": [{"name": "a", "x": [1], "y": [math.nan]}], "marks": [3, {"x": "a"}]},
        {"kind": "curves", "lines": [{"name": "a", "x": [1, 2], "y": [1]}], "chosen": ["a"]},
        {"kind": "noise", "lines": [{"name": "a", "x": [1, 2], "y": [1, 2], "low": [1], "high": "b"}]},
        {"kind": "range", "lines": [{"name": "a", "x": [0, -1], "y": [0, 10**400]}]},
        {
            "kind": "noise",
            "lines": [{"name": "a", "x": [1, 2], "y": [1, 2], "low": [0, 0], "high": [math.inf] * 2}],
        },
    ]
    found = [chosen("range", choice=f"choice {n}", picture=picture) for n, picture in enumerate(shapes)]
    told = words_of(page_of(run_folder, *found))
    assert all(f"choice {n} → 3.1e-3" in told for n in range(len(shapes)))


def test_a_range_test_is_seen_up_to_a_little_above_its_start() -> None:
    curves = figures._curves(PICTURES["range"]["lines"])
    low, high = figures.view(curves)
    assert 0.5 < low < 0.9
    assert 2.3 < high < 4


def test_short_runs_at_every_rate_are_all_in_view() -> None:
    """Of few points the first are far above the median: none may go out at the top."""
    line = {"name": "adamw", "x": RATES[:5], "y": [0.712, 0.678, 0.618, 0.59, 0.593]}
    low, high = figures.view(figures._curves([line]))
    assert low < 0.59
    assert high > 0.712


def test_a_value_is_as_short_in_its_card_as_in_the_table(run_folder: Path) -> None:
    page = page_of(run_folder, chosen("range", decided=0.1 + 0.2))
    assert "lr → 0.3 took" in words_of(page)
    assert "0.30000000000000004" not in words_of(page)
    assert 'title="0.30000000000000004"' in page, "every digit, for those who copy it"


def test_a_column_that_says_nothing_of_any_candidate_is_left_out(run_folder: Path) -> None:
    tried = [
        {"arm": "adamw 0.001", "kept": True, "dead": False},
        {"arm": "sgd", "kept": False, "dead": False},
    ]
    page = page_of(run_folder, chosen("curves", candidates=tried))
    assert "arm kept adamw 0.001 yes sgd" in words_of(page)


def test_the_explanation_tells_what_was_tried_measured_and_paid(run_folder: Path) -> None:
    page_of(run_folder, chosen("range"), Evidence("split", "random", "a share of the rows"))
    told = report.explain(run_folder)
    assert told.startswith("digits: finished after 120 steps and 3.1 s. ")
    assert "lr: 3.1e-3" in told
    assert "  tried    adamw 0.001, loss 0.521, [0.5, 0.54]" in told
    assert "  why      beat 1e-3" in told
    assert "[0.013, 0.029] (95 %)" in told
    assert "2.5 s, 300 gradient evaluations, 90 of them trained what was trained further" in told
    assert "split: random" in told
    whole = "2.5 s and 300 gradient evaluations, 90.9 % of all that were made; 90 of these were kept."
    assert whole in told.replace("\n", " ")
    assert max(map(len, told.splitlines())) <= 100


def test_a_network_that_was_doubted_is_told_so_before_all_else(run_folder: Path) -> None:
    found = Evidence("sanity", "doubtful", "the first loss is 2.3; no gradient reaches l.weight")
    told = words_of(page_of(run_folder, found))
    said = "cause for doubt: the first loss is 2.3; no gradient reaches l.weight."
    assert told.index(said) < told.index("How sure")
    assert said in report.explain(run_folder).split("Choices that")[0].replace("\n", " ")
    assert "cause for doubt" not in page_of(run_folder, Evidence("sanity", "sound", "the first loss is 2.3"))


def test_what_was_left_open_is_named(run_folder: Path) -> None:
    (run_folder / "recipe.toml").write_text('format = 1\ndata = "digits"\nlr = "auto"\nrule = "auto"\n')
    assert "Left to measurement: rule, lr." in report.explain(run_folder)


def test_an_explanation_bears_lines_of_the_wrong_kind(run_folder: Path) -> None:
    lines = ({"choice": None}, {"candidates": [1, {"a": [2]}], "seconds": "4"})
    (run_folder / "evidence.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert report.explain(run_folder).startswith("digits: finished")
