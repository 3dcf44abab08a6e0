"""Contracts for what other packages bring: a check that a test of theirs calls.

Each raises AssertionError, with a sentence, where the thing does not keep what steepest builds on."""

from __future__ import annotations

from importlib import import_module
from typing import Any

HOMES = {"check_kind": "kinds", "check_model": "models", "check_rule": "rules", "check_task": "tasks"}
"""Name of a check → the module that has it, imported when it is first asked for."""


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
