"""Where measurements go: JSON lines with the machine and the versions they were made on."""

from __future__ import annotations

import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("steepest", "torch", "numpy", "numba")


def processor() -> str:
    """The processor's own name where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def surroundings() -> dict[str, Any]:
    """What a number depends on besides the code."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
    }


def write(benchmark: str, **measured: Any) -> None:
    """Append one measurement to results/<benchmark>.jsonl and print it."""
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / f"{benchmark}.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({**measured, **surroundings()}) + "\n")
    print(f"{benchmark}: " + ", ".join(f"{key} {shown(value)}" for key, value in measured.items()))


def shown(value: Any) -> str:
    """A number with four digits; anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
