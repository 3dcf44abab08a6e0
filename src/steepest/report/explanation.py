"""A run explained in plain text: what was tried, what was measured, what was decided, at what cost."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from steepest.evidence import shown
from steepest.recipe import AUTOMATIC
from steepest.report import summary
from steepest.report.choices import Candidate, Choice, finite, interval, total
from steepest.report.records import Records, read
from steepest.report.rendering import duration, number, share

WIDTH = 100
"""Columns of a line."""

TRIED = 12
"""Most candidates of one choice that are listed."""


def explain(path: str | Path) -> str:
    """The run folder at `path`, explained to a person. Raises UserError for no run."""
    records = read(Path(path))
    choices = [Choice.of(line) for line in records.evidence]
    parts = [_opening(records), *map(_choice, choices), _costs(choices, finite(records.result.get("step")))]
    return "\n\n".join(filter(None, parts)) + "\n"


def _opening(records: Records) -> str:
    seconds, step = records.result.get("seconds"), records.result.get("step")
    length = f" after {number(step)} steps" if step else ""
    time = f" and {duration(seconds)}" if seconds and length else ""
    asked = [name for name in AUTOMATIC if records.recipe.get(name) == "auto"]
    made = "Choices that were made by measurement or by rule:"
    lines = (
        f"{records.name}: {summary.status(records)}{length}{time}. {summary.headline(records)}",
        summary.doubts(records),
        f"Left to measurement: {', '.join(asked)}." if asked else "",
        made if records.evidence else "No automatic choice is on record.",
    )
    return "\n".join(_wrapped(line) for line in lines if line)


def _choice(one: Choice) -> str:
    ends = f"{one.interval} (95 %)" if one.interval else ""
    cost = one.cost("trained what was trained further")
    tried = list(_tried(one.candidates))
    labels = ["tried", *[""] * (len(tried) - 1)] if tried else []
    lines = [*zip(labels, tried, strict=True), ("why", one.why), ("interval", ends), ("cost", cost)]
    said = (_wrapped(line, f"  {label:<9}") for label, line in lines if line)
    return "\n".join([f"{one.name}: {one.decided}", *said])


def _tried(candidates: Sequence[Candidate]) -> Iterator[str]:
    for row in candidates[:TRIED]:
        said = (_phrase(name, value, place) for place, (name, value) in enumerate(row.items()))
        yield ", ".join(filter(None, said))
    if len(candidates) > TRIED:
        yield f"and {len(candidates) - TRIED} more"


def _phrase(name: str, value: Any, place: int) -> str:
    """The first entry of a candidate is its name; what is true is said, what is not is passed over."""
    if isinstance(value, bool):
        return name if value else ""
    if name.endswith("interval") and interval(value):
        return interval(value)
    return shown(value) if place == 0 and isinstance(value, str) else f"{name} {shown(value)}"


def _costs(choices: Sequence[Choice], done: float) -> str:
    """What all choices took together, beside the training of so many updates."""
    every = total(choices)
    seconds, spent, kept = duration(every.seconds), every.gradients, every.reused
    if not spent:
        return f"All choices together took {seconds}." if every.seconds else ""
    whole = f", {share(spent / (done + spent - kept))} of all that were made" if done else ""
    reused = f"; {number(kept)} of these were kept" if kept else ""
    return _wrapped(
        f"All choices together took {seconds} and {number(spent)} gradient evaluations{whole}{reused}."
    )


def _wrapped(line: str, before: str = "") -> str:
    return textwrap.fill(line, WIDTH, initial_indent=before, subsequent_indent=" " * len(before))
