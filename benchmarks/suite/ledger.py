"""Results as JSON lines that several processes may append to and that survive a kill."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, surroundings

FOLDER = RESULTS / "suite"
IDENTITY = ("suite", "workload", "method", "trial", "length", "seed")
"""What makes two runs the same run."""


def read(name: str, folder: Path = FOLDER) -> Iterator[dict[str, Any]]:
    """The records of a file; lines that a kill has torn, and runs made twice, are passed over."""
    path, seen = folder / f"{name}.jsonl", set[tuple[Any, ...]]()
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if (one := identity(record)) not in seen:
            seen.add(one)
            yield record


def append(name: str, record: dict[str, Any], folder: Path = FOLDER) -> None:
    """Add a record, with the machine and the versions, as one line."""
    folder.mkdir(parents=True, exist_ok=True)
    line = json.dumps({**record, **surroundings()}) + "\n"
    with open(folder / f"{name}.jsonl", "ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write((b"\n" if _torn(file) else b"") + line.encode())
        file.flush()
        os.fsync(file.fileno())


def identity(record: dict[str, Any]) -> tuple[Any, ...]:
    """What tells a run from others."""
    return tuple(record.get(name) for name in IDENTITY)


def known(name: str, folder: Path = FOLDER) -> set[tuple[Any, ...]]:
    """The runs that stand in a file."""
    return {identity(record) for record in read(name, folder)}


def _torn(file: Any) -> bool:
    """Whether the last line has no end."""
    if not file.seek(0, os.SEEK_END):
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"
