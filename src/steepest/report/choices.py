"""The section of evidence: what was chosen, by which measurements, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from steepest.evidence import shown
from steepest.report import measured
from steepest.report.markup import Markup, duration, element, joined, number, table
from steepest.report.settings import written

CANDIDATES = 40
"""Most candidates of one choice that are shown."""

Choice = Mapping[str, Any]
"""One line of evidence.jsonl, as it was found: nothing of it is sure to be there."""

COLUMNS: dict[str, tuple[str, Callable[[Choice], str]]] = {
    "choice": ("l", lambda one: str(one.get("choice", "?"))),
    "decided": ("l", lambda one: shown(one.get("decided"))),
    "95 % interval": ("r", lambda one: interval_of(one)),
    "tried": ("r", lambda one: _count(len(_rows(one.get("candidates"))))),
    "time": ("r", lambda one: duration(one["seconds"]) if one.get("seconds") else ""),
    "gradients": ("r", lambda one: _count(one.get("gradients"))),
    "reused": ("r", lambda one: _count(one.get("reused"))),
}
"""Heading of a column → its side and what it shows of a choice; one that shows nothing is left out."""


def section(found: Sequence[Choice]) -> Markup:
    """A table of all choices; then a card each: why, what was measured for it, and a picture of that."""
    if not found:
        return element("p", "No automatic choice is on record.", class_="lead")
    lead = element(
        "p", "Choices that steepest made by itself, each with what it measured to make it.", class_="lead"
    )
    cards = (_card(one, place) for place, one in enumerate(found, start=1))
    return joined((lead, _overview(found), *cards))


def interval(ends: Any) -> str:
    """[610, 1480], [610, ∞]; empty where there is none."""
    if not (isinstance(ends, list | tuple) and len(ends) == 2 and all(map(_is_real, ends))):
        return ""
    low, high = (shown(end).replace("inf", "∞") for end in ends)
    return f"[{low}, {high}]"


def interval_of(one: Choice) -> str:
    """The same of a choice, after the name of what it is of where that is something else."""
    ends, of = interval(one.get("interval")), one.get("of")
    return f"{of} {ends}" if ends and of else ends


def _overview(found: Sequence[Choice]) -> Markup:
    """One row a choice; what they cost together where several cost something."""
    cells = {name: [show(one) for one in found] for name, (_, show) in COLUMNS.items()}
    names = [name for name, column in cells.items() if any(column)]
    rows = [[cells[name][row] for name in names] for row in range(len(found))]
    total = _total(found)
    if sum(bool(total[name]) for name in total) and len(found) > 1:
        rows.append([element("b", total.get(name, "all" if name == "choice" else "")) for name in names])
    note = element("p", *_explained(names), class_="note")
    return joined((table(names, rows, "".join(COLUMNS[name][0] for name in names)), note))


def _total(found: Sequence[Choice]) -> dict[str, str]:
    seconds = sum(one["seconds"] for one in found if _is_number(one.get("seconds")))
    spent = {name: _sum(found, name) for name in ("gradients", "reused")}
    return {"time": duration(seconds) if seconds else "", **{name: _count(n) for name, n in spent.items()}}


def _sum(found: Sequence[Choice], name: str) -> float:
    return sum(one[name] for one in found if _is_number(one.get(name)))


def _explained(names: Sequence[str]) -> list[str]:
    """What the numbers of the table are, where they are shown."""
    said = {
        "gradients": "gradients: gradient evaluations that the choice took. ",
        "reused": "reused: those among them that trained what was trained further. ",
    }
    return [sentence for name, sentence in said.items() if name in names]


def _card(one: Choice, place: int) -> Markup:
    costs = [f"took {duration(one['seconds'])}" if one.get("seconds") else "", _spent(one)]
    spent = element("small", ", ".join(filter(None, costs))) if any(costs) else ""
    decided = one.get("decided")
    value = element("b", shown(decided), title=written(decided) if isinstance(decided, float) else None)
    title = element("h3", one.get("choice", "?"), " → ", value, " ", spent)
    ends = interval_of(one)
    known = element("p", f"95 % interval: {ends}", class_="note") if ends else ""
    drawn = measured.figure(one.get("picture"), f"{place}. {one.get('choice', '?')}")
    why = element("p", one.get("why", ""))
    return element("article", title, why, known, drawn, _candidates(one.get("candidates")))


def _spent(one: Choice) -> str:
    if not _is_number(one.get("gradients")) or not one["gradients"]:
        return ""
    kept = one.get("reused")
    reused = f", {number(kept)} of them reused" if _is_number(kept) and kept else ""
    plural = "" if one["gradients"] == 1 else "s"
    return f"{number(one['gradients'])} gradient evaluation{plural}{reused}"


def _candidates(tried: Any) -> Markup:
    rows = _rows(tried)
    if not rows:
        return Markup("")
    every = dict.fromkeys(name for row in rows for name in row)
    names = [name for name in every if any(_measured(name, row.get(name)) for row in rows)]
    sides = "".join("r" if isinstance(rows[0].get(name), int | float) else "l" for name in names)
    cells = ([_measured(name, row.get(name)) for name in names] for row in rows[:CANDIDATES])
    title = f"what was measured: {len(rows)}" + (
        f", the first {CANDIDATES} shown" if len(rows) > CANDIDATES else ""
    )
    whole = table(names, cells, sides)
    return element("details", element("summary", title), whole, open="" if len(rows) <= 8 else None)


def _rows(tried: Any) -> list[Mapping[str, Any]]:
    return [row for row in tried if isinstance(row, Mapping)] if isinstance(tried, list) else []


def _measured(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if name.endswith("interval") and interval(value):
        return interval(value)
    return number(value) if isinstance(value, float) else written(value)


def _count(value: Any) -> str:
    return number(round(value)) if _is_number(value) and value else ""


def _is_real(value: Any) -> bool:
    """A number, infinite or not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _is_number(value: Any) -> bool:
    return _is_real(value) and abs(value) < float("inf")
