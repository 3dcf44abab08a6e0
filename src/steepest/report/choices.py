"""What was chosen automatically, by which measurements, and at what cost; evidence is read with patience."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steepest.evidence import shown
from steepest.report.figures import of_choice
from steepest.report.rendering import duration, number, setting

CANDIDATES = 40
"""Most candidates of one choice that a page shows."""

SIDES = {"choice": "l", "decided": "l", "95 % interval": "r", "tried": "r"}
SIDES |= {"time": "r", "gradients": "r", "reused": "r"}
"""Columns of the table of all choices → the side that their cells stand on."""

Candidate = Mapping[str, Any]
"""What was tried, by its name, and what was measured of it."""


@dataclass(frozen=True)
class Choice:
    """One line of evidence.jsonl for people; empty or 0 where something is missing or of another kind.

    exact   every digit of a float that was decided"""

    name: str
    decided: str = ""
    exact: str | None = None
    why: str = ""
    interval: str = ""
    seconds: float = 0
    gradients: float = 0
    reused: float = 0
    candidates: Sequence[Candidate] = ()
    picture: Any = None

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Choice:
        """The choice in a line as it was found: nothing of it is sure to be there."""
        decided, tried, ends = line.get("decided"), line.get("candidates"), interval(line.get("interval"))
        return cls(
            name=str(line.get("choice", "?")),
            decided=shown(decided),
            exact=setting(decided) if isinstance(decided, float) else None,
            why=str(line.get("why", "")),
            interval=f"{line['of']} {ends}" if ends and line.get("of") else ends,
            seconds=finite(line.get("seconds")),
            gradients=finite(line.get("gradients")),
            reused=finite(line.get("reused")),
            candidates=[row for row in tried if isinstance(row, Mapping)] if isinstance(tried, list) else [],
            picture=line.get("picture"),
        )

    def cost(self, reused: str = "reused") -> str:
        """2.5 s, 300 gradient evaluations, 90 of them reused"""
        plural = "" if self.gradients == 1 else "s"
        said = [duration(self.seconds)] if self.seconds else []
        said += [f"{number(self.gradients)} gradient evaluation{plural}"] if self.gradients else []
        said += [f"{number(self.reused)} of them {reused}"] if self.gradients and self.reused else []
        return ", ".join(said)

    def cells(self) -> list[str]:
        """Its row in the table of all choices."""
        time = duration(self.seconds) if self.seconds else ""
        counts = (len(self.candidates), self.gradients, self.reused)
        tried, gradients, reused = (number(round(count)) if count else "" for count in counts)
        return [self.name, self.decided, self.interval, tried, time, gradients, reused]

    def table(self) -> dict[str, Any]:
        """Its candidates; columns that say nothing of any of them are left out."""
        rows = self.candidates
        every = dict.fromkeys(name for row in rows for name in row)
        names = [name for name in every if any(measurement(name, row.get(name)) for row in rows)]
        sides = "".join("r" if isinstance(rows[0].get(name), int | float) else "l" for name in names)
        cells = [[measurement(name, row.get(name)) for name in names] for row in rows[:CANDIDATES]]
        return {"head": names, "rows": cells, "sides": sides}


def total(choices: Sequence[Choice]) -> Choice:
    """What all choices cost together."""
    return Choice(
        "all",
        seconds=sum(one.seconds for one in choices),
        gradients=sum(one.gradients for one in choices),
        reused=sum(one.reused for one in choices),
    )


def section(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A table of all choices, with what they cost together where several cost something; then each with its
    figure. Columns of the table that tell nothing are left out."""
    choices = [Choice.of(line) for line in lines]
    every = total(choices)
    rows = [one.cells() for one in choices]
    kept = [place for place in range(len(SIDES)) if any(row[place] for row in rows)]
    told = len(choices) > 1 and any(every.cells()[3:])
    rows += [every.cells()] if told else []
    figures = [of_choice(one.picture, f"{place}. {one.name}") for place, one in enumerate(choices, start=1)]
    return {
        "head": [list(SIDES)[place] for place in kept],
        "sides": "".join([*SIDES.values()][place] for place in kept),
        "rows": [[row[place] for place in kept] for row in rows],
        "summed": told,
        "choices": list(zip(choices, figures, strict=True)),
        "most": CANDIDATES,
    }


def measurement(name: str, value: Any) -> str:
    """What was measured of a candidate, for a table."""
    if isinstance(value, bool):
        return "yes" if value else ""
    if name.endswith("interval") and interval(value):
        return interval(value)
    return number(value) if isinstance(value, float) else setting(value)


def interval(ends: Any) -> str:
    """[610, 1480], [610, ∞]; empty where there is none."""
    if not (isinstance(ends, list | tuple) and len(ends) == 2 and all(map(_is_real, ends))):
        return ""
    low, high = (shown(end).replace("inf", "∞") for end in ends)
    return f"[{low}, {high}]"


def finite(value: Any) -> float:
    """A finite number, or 0 where there is none."""
    return value if _is_real(value) and math.isfinite(value) else 0


def _is_real(value: Any) -> bool:
    """Whether this is a number, infinite or not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
