"""What a run's bits depend on besides its recipe: versions, processor, threads."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("steepest", "torch", "numpy", "numba", "scikit-learn", "polars")

EXACT = ("python", *PACKAGES, "processor", "threads", "device")
"""Entries that must agree for a resumed or repeated run to have the identical bits."""


def describe(device: str) -> dict[str, Any]:
    """The environment as env.json holds it."""
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "git_commit": _git_commit(),
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One sentence for each entry that differs and on which the bits depend."""
    return [
        f"{name} was {then[name]} when this run began and is {now[name]} now"
        for name in EXACT
        if name in then and then[name] != now[name]
    ]


def read(path: Path) -> dict[str, Any]:
    """The env.json of a run; empty where there is none, or none that can be read."""
    try:
        found = json.loads(path.read_text()) if path.exists() else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _processor() -> str:
    """Model name as the kernel gives it: `platform.processor` is empty on most Linux systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    parts = (named.get(key, "") for key in ("model name", "cpu family", "model", "stepping"))
    return " ".join(part for part in parts if part) or platform.machine()


def _git_commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
