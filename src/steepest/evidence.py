"""`Evidence`: one automatic choice, with what was measured to make it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

from steepest.files import write_atomic
from steepest.optim.errors import UserError


@dataclass(frozen=True)
class Evidence:
    """One choice that a person did not make.

    choice      what was chosen, in the recipe's words ("horizon", "init", "task")
    decided     the value taken
    why         the rule of decision and what was seen, one sentence
    candidates  what was tried, one mapping a candidate, with its measurements
    seconds     process seconds it cost
    interval    95 % of what the rule of decision goes by, where it was measured with noise
    of          what the interval is of, where that is not the choice itself ("critical batch")
    gradients   gradient evaluations it cost; a forward pass counts as a third of one
    reused      how many of these trained what was trained further
    picture     curves to draw: {"kind": "range", "curves", "noise" or "throughput",
                "lines": [{"name", "x", "y", and "low", "high" for a band}],
                "marks": [{"name", "x"}], "chosen": name of a line, "x", "y", "said": other words for the
                axes and the heading, "crowd": true where only the chosen line has a colour}; all but kind
                and lines may be left out
    """

    choice: str
    decided: Any
    why: str
    candidates: Sequence[Mapping[str, Any]] = ()
    seconds: float = 0.0
    interval: tuple[float, float] | None = None
    gradients: int = 0
    reused: int = 0
    picture: Mapping[str, Any] | None = None
    of: str = ""

    def to_json(self) -> str:
        """One line of evidence.jsonl."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Evidence:
        """The inverse of `to_json`. A line may lack fields; what a newer version has added is left out."""
        told = json.loads(line)
        known: dict[str, Any] = {field.name: told[field.name] for field in fields(cls) if field.name in told}
        if (ends := known.get("interval")) is not None:
            known["interval"] = (ends[0], ends[1])
        return cls(**known)

    def __str__(self) -> str:
        """The line that is shown when the choice is made: lr 3.1e-3 — beat 1e-3 by .021±.004 (z=4.9)"""
        return f"{self.choice} {shown(self.decided)} — {self.why}"


def shown(value: Any) -> str:
    """A value for a line that people read: three digits of a float, small ones as 3.1e-3."""
    if isinstance(value, float) and math.isfinite(value):
        return _short(value)
    if isinstance(value, Mapping):
        pairs = cast("Mapping[Any, Any]", value).items()
        return ", ".join(f"{name} {shown(inner)}" for name, inner in pairs) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, cast("Sequence[Any]", value))) or "none"
    return "none" if value is None else str(value)


def _short(value: float) -> str:
    if 0.99 < abs(value) < 1:  # a decay: what it lacks of 1 is what counts
        return f"{value:.{1 - math.floor(math.log10(1 - abs(value)))}f}".rstrip("0")
    if value == 0 or 0.01 <= abs(value) < 100_000:
        whole = value.is_integer() or abs(value) >= 1000
        return f"{value:.0f}" if whole else f"{value:.3g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def append(path: Path, evidence: Evidence) -> None:
    """Add a line, on the disk before this returns: a choice is recorded before it is used.

    The lines before it stay letter for letter, with what a newer version may have written into them."""
    read(path)  # a damaged file is refused
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    whole = before[: before.rfind("\n") + 1]
    write_atomic(path, f"{whole}{evidence.to_json()}\n".encode())


def read(path: Path) -> list[Evidence]:
    """All whole lines of an evidence file; a line torn by a kill, which can only be the last, is left out.

    Raises UserError where another line is damaged: going on would write the file anew without it."""
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [Evidence.from_json(line) for line in lines[:-1] if line]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise UserError(
            f"{str(path)!r} is damaged ({error}). Restore it, or move it away to go on without its lines."
        ) from error
