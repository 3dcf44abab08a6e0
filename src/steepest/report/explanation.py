"""A run explained in plain text: what was tried, what was measured, what was decided, at what cost."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from steepest.evidence import shown
from steepest.recipe import AUTOMATIC
from steepest.report import verdict
from steepest.report.choices import interval, interval_of
from steepest.report.markup import duration, number, share
from steepest.report.records import Records, read

WIDTH = 100
"""Columns of a line."""

TRIED = 12
"""Most candidates of one choice that are listed."""


def explain(path: str | Path) -> str:
    """The run folder at `path`, explained to a person. Raises UserError for no run."""
    records = read(Path(path))
    parts = [_opening(records), *map(_choice, records.evidence), _costs(records)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _opening(records: Records) -> str:
    seconds, step = records.result.get("seconds"), records.result.get("step")
    length = f" after {number(step)} steps" if step else ""
    time = f" and {duration(seconds)}" if seconds and length else ""
    first = f"{records.name}: {verdict.status(records)}{length}{time}. {verdict.headline(records)}"
    doubts = verdict.doubts(records)
    asked = [name for name in AUTOMATIC if records.recipe.get(name) == "auto"]
    left = f"Left to measurement: {', '.join(asked)}." if asked else ""
    chosen = "Choices that were made by measurement or by rule:" if records.evidence else ""
    none = "" if records.evidence else "No automatic choice is on record."
    return "\n".join(_wrapped(line) for line in (first, doubts, left, chosen, none) if line)


def _choice(one: Mapping[str, Any]) -> str:
    head = f"{one.get('choice', '?')}: {shown(one.get('decided'))}"
    ends = interval_of(one)
    lines = {
        "why": str(one.get("why", "")),
        "interval": f"{ends} (95 %)" if ends else "",
        "cost": _cost(one),
    }
    tried = list(_tried(one.get("candidates")))
    if tried:
        lines = {"tried": tried[0], **{f"tried {n}": line for n, line in enumerate(tried[1:])}, **lines}
    said = [_wrapped(line, f"  {_label(label):<9}") for label, line in lines.items() if line]
    return "\n".join([head, *said])


def _label(label: str) -> str:
    """Only the first of many candidates has the word before it."""
    return "" if label.startswith("tried ") else label


def _tried(candidates: Any) -> Iterator[str]:
    rows = [row for row in candidates if isinstance(row, Mapping)] if isinstance(candidates, list) else []
    for row in rows[:TRIED]:
        said = (_phrase(name, value, place) for place, (name, value) in enumerate(row.items()))
        yield ", ".join(filter(None, said))
    if len(rows) > TRIED:
        yield f"and {len(rows) - TRIED} more"


def _phrase(name: str, value: Any, place: int) -> str:
    """The first entry of a candidate is its name; what is true is said, what is not is passed over."""
    if isinstance(value, bool):
        return name if value else ""
    if name.endswith("interval") and interval(value):
        return interval(value)
    return shown(value) if place == 0 and isinstance(value, str) else f"{name} {shown(value)}"


def _cost(one: Mapping[str, Any]) -> str:
    seconds, spent, kept = (_plain(one.get(name)) for name in ("seconds", "gradients", "reused"))
    said = [duration(seconds)] if seconds else []
    said += [f"{number(spent)} gradient evaluation{'s' if spent != 1 else ''}"] if spent else []
    said += [f"{number(kept)} of them trained what was trained further"] if spent and kept else []
    return ", ".join(said)


def _costs(records: Records) -> str:
    """What all choices took together, beside the training."""
    seconds, spent, kept = (_sum(records.evidence, name) for name in ("seconds", "gradients", "reused"))
    if not spent:
        return f"All choices together took {duration(seconds)}." if seconds else ""
    done = _plain(records.result.get("step"))
    whole = f", {share(spent / (done + spent - kept))} of all that were made" if done else ""
    reused = f"; {number(kept)} of these were kept" if kept else ""
    sentence = f"All choices together took {duration(seconds)} and {number(spent)} gradient evaluations"
    return _wrapped(f"{sentence}{whole}{reused}.")


def _sum(found: Sequence[Mapping[str, Any]], name: str) -> float:
    return sum(_plain(one.get(name)) for one in found)


def _plain(value: Any) -> float:
    """A finite number, or 0."""
    told = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    return value if told else 0


def _wrapped(line: str, before: str = "") -> str:
    return textwrap.fill(line, WIDTH, initial_indent=before, subsequent_indent=" " * len(before))
