"""`Evidence`: one automatic choice, with what was measured to make it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from steepest.errors import UserError
from steepest.folder import write_atomic


@dataclass(frozen=True)
class Evidence:
    """One choice that a person did not make.

    choice      what was chosen, in the recipe's words ("horizon", "init", "task")
    decided     the value taken
    why         the rule of decision and what was seen, one sentence
    candidates  what was tried, one mapping a candidate, with its measurements
    seconds     process seconds it cost
    """

    choice: str
    decided: Any
    why: str
    candidates: Sequence[Mapping[str, Any]] = ()
    seconds: float = 0.0

    def to_json(self) -> str:
        """One line of evidence.jsonl."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Evidence:
        """The inverse of `to_json`."""
        return cls(**json.loads(line))

    def __str__(self) -> str:
        return f"{self.choice}: {self.decided} ({self.why})"


def append(path: Path, evidence: Evidence) -> None:
    """Add a line, on the disk before this returns: a choice is recorded before it is used."""
    whole = "".join(one.to_json() + "\n" for one in (*read(path), evidence))
    write_atomic(path, whole.encode())


def read(path: Path) -> list[Evidence]:
    """All whole lines of an evidence file; a line torn by a kill, which can only be the last, is left out.

    Raises UserError where another line is damaged: going on would write the file anew without it."""
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [Evidence.from_json(line) for line in lines[:-1] if line]
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{str(path)!r} is damaged ({error}). Restore it, or move it away to go on without its lines."
        ) from error
