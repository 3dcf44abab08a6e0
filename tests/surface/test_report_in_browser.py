"""report.html in a real browser: drawn in both colour schemes, and nowhere wider than a telephone."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from steepest import report

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
DARK = "--blink-settings=preferredColorScheme=0"
MEASURE = """<script>addEventListener("load", () => {
  const page = document.querySelector("iframe").contentDocument.documentElement
  document.title = `${page.clientWidth} ${page.scrollWidth}`
})</script>"""

pytestmark = [
    pytest.mark.charts,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no chromium here; $CHROMIUM may name one"),
]


@pytest.fixture
def page(run_folder: Path) -> Path:
    return report.write(run_folder)


def browse(page: Path, *flags: str) -> str:
    """What the browser writes about the page; a profile of its own each time."""
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [CHROMIUM, *FLAGS, profile, *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shutil.rmtree(page.parent / "profile", ignore_errors=True)
    return done.stdout


def picture(page: Path, *flags: str) -> np.ndarray:
    """The page as (height, width, 3) shares of red, green and blue."""
    shot = page.parent / "shot.png"
    browse(page, "--window-size=900,1400", f"--screenshot={shot}", *flags)
    return imread(shot)[:, :, :3]


def test_every_part_of_the_page_is_there(page: Path) -> None:
    seen = browse(page, "--dump-dom")
    sections = re.findall(r'<section id="(\w+)">', seen)
    assert sections == ["metrics", "curves", "mistakes", "evidence", "recipe", "environment"]
    assert seen.count("<svg") == page.read_text().count("<svg") == 4
    assert seen.count("<path") > 20


def test_it_is_drawn_in_light_and_in_dark(page: Path) -> None:
    light, dark = picture(page), picture(page, DARK)
    assert light[5, 5].min() > 0.9
    assert dark[5, 5].max() < 0.2
    for shot in (light, dark):
        inked = np.abs(shot - shot[5, 5]).max(axis=2) > 0.3
        assert 0.01 < inked.mean() < 0.5
        assert inked[:700].any()
        assert inked[700:].any()


LINE = {"x": [1e-4, 1e-3, 1e-2, 0.1], "y": [2.3, 2.1, 1.2, 9.0]}
PICTURES = [
    {"kind": kind, "lines": [{"name": f"arm number {n}", **LINE, **band} for n in range(8)]}
    for kind in ("range", "curves", "noise", "throughput")
    for band in ({"low": [1, 1, 1, 1], "high": [3, 3, 3, 9]} if kind == "noise" else {},)
]


@pytest.fixture
def measured(run_folder: Path) -> Path:
    """The page of a run with a choice for every kind of picture, and long names."""
    tried = [{"arm": f"a very long name of arm {n}", "loss": 1.0, "interval": [0.9, 1.1]} for n in range(8)]
    choice = {"decided": [0.001] * 9, "why": "w" * 80, "seconds": 3.0, "gradients": 900, "interval": [1, 2]}
    lines = [
        {"choice": f"choice {n}", **choice, "candidates": tried, "picture": p} for n, p in enumerate(PICTURES)
    ]
    (run_folder / "evidence.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return report.write(run_folder)


def test_every_measurement_is_drawn(measured: Path) -> None:
    seen = browse(measured, "--dump-dom")
    assert seen.count('class="measured"') == len(PICTURES)
    assert seen.count("<svg") == 4 + len(PICTURES)


@pytest.mark.parametrize("width", [360, 800])
@pytest.mark.parametrize("which", ["page", "measured"])
def test_nothing_sticks_out_of_a_narrow_window(
    request: pytest.FixtureRequest, which: str, width: int
) -> None:
    page = request.getfixturevalue(which)
    unlocked = re.sub(r"<meta http-equiv[^>]+>", "", page.read_text())  # the measuring script must be let in
    frame = (
        f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{html.escape(unlocked)}"></iframe>'
    )
    wrapper = page.with_name("wrapper.html")
    wrapper.write_text(f"<!doctype html><title>?</title>{MEASURE}{frame}")
    measured = re.search(r"<title>(\d+) (\d+)</title>", browse(wrapper, "--dump-dom"))
    assert measured
    assert int(measured[1]) == width
    assert int(measured[2]) <= width
