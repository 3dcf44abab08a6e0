"""`Journal`: what a search has found out so far, on the disk; a search that is resumed reads it and goes on.

    <run>/search/{<name>.json, <arm>/step-000045/…, start.safetensors, chosen.json}

A search is one function of what it measures. Every measurement goes through `once`: it is made, written down
and only then used. Run again, the function meets the same numbers and takes the same way, to the bit.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from steepest.files import write_atomic
from steepest.optim.errors import UserError

LENGTH = "horizon-"
"""How the names of measurements begin that are of the run which follows, and not of the search."""


class Journal:
    """Measurements by name.   took: seconds of each that this process has asked for, whoever made it"""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.took: dict[str, float] = {}
        try:
            place.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise UserError(f"{str(place)!r} is a file where a folder belongs. Remove it.") from None

    def once(self, name: str, measure: Callable[[], Any]) -> Any:
        """What `measure` gave as JSON knows it; it is called once in the life of the folder."""
        path = self.place / f"{name}.json"
        if not path.exists():
            began = time.perf_counter()
            value = measure()
            held = {"value": value, "seconds": time.perf_counter() - began}
            write_atomic(path, json.dumps(held).encode())
        held = read(path, _measurement)
        self.took[name] = held["seconds"]
        return held["value"]

    @property
    def seconds(self) -> float:
        """What all measurements took."""
        return sum(self.took.values())


def read(path: Path, understood: Callable[[bytes], Any]) -> Any:
    """What a file of a search holds. Raises UserError where it is damaged."""
    try:
        return understood(path.read_bytes())
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(
            f"{str(path)!r} is damaged ({error}). Remove the folder {path.parent.name!r} to search anew, "
            "which gives the same run."
        ) from error


def _measurement(content: bytes) -> dict[str, Any]:
    held = json.loads(content)
    return {"value": held["value"], "seconds": float(held["seconds"])}


def spent(place: Path) -> float:
    """Seconds that all measurements of a search took."""
    files = (path for path in place.glob("*.json") if not path.name.startswith(LENGTH))
    return sum(read(path, json.loads).get("seconds", 0.0) for path in files)
