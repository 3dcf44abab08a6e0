"""Showing a run folder, as a page or as text. Reads run folders only, and knows no trainer."""

from __future__ import annotations

from pathlib import Path


def write(path: str | Path) -> Path:
    """Write report.html into the folder of a run or a search and return where it is. Raises UserError where
    there is none.

    The same records give the same bytes."""
    from steepest.report import page  # with matplotlib and Jinja, when a page is written

    return page.write(path)


def explain(path: str | Path) -> str:
    """The run folder at `path`, explained to a person. Raises UserError for no run."""
    from steepest.report import explanation

    return explanation.explain(path)
