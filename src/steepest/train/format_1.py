"""Run folders of format 1, as earlier versions wrote them: what they hold, in the words of today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def converted(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a preprocessing.json of format 1 as one of today."""
    answers = content["answers"]
    named = {"names": answers["targets"], "why": "as the run was trained"}
    if answers["classes"] is None:
        target = {"task": "regression", **named, "shift": answers["shift"], "scale": answers["scale"]}
    else:
        whole = answers.get("whole", False)
        target = {"task": "classification", **named, "classes": answers["classes"], "whole": whole}
    return {**content, "format": 2, "target": target}
