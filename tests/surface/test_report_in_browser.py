"""report.html in a real browser: drawn in both colour schemes, and nowhere wider than a telephone."""

import html
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

pytestmark = pytest.mark.skipif(
    not Path(CHROMIUM).exists(), reason="no chromium here; $CHROMIUM may name one"
)


@pytest.fixture
def page(run_folder: Path) -> Path:
    return report.write(run_folder)


def browse(page: Path, *flags: str) -> str:
    """What the browser writes about the page; a profile of its own each time."""
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [CHROMIUM, *FLAGS, profile, *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
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


@pytest.mark.parametrize("width", [360, 800])
def test_nothing_sticks_out_of_a_narrow_window(page: Path, width: int) -> None:
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
