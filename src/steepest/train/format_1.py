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
    inputs = _encoder(content["inputs"], content["input_shape"])
    return {**content, "format": 2, "target": target, "inputs": inputs}


def _encoder(form: Mapping[str, Any], shape: Mapping[str, Any]) -> dict[str, Any]:
    """A form of an input as an encoder; whole numbers beside other inputs were kept as they came."""
    ((kind, content),) = form.items()
    if kind == "dict":
        return {"dict": {name: _encoder(part, shape["dict"][name]) for name, part in content.items()}}
    if kind == "tuple":
        parts = zip(content, shape["tuple"], strict=True)
        return {"tuple": [_encoder(part, of) for part, of in parts]}
    if kind == "columns":
        numbers = {
            "columns": [[name, "number"] for name in content["numbers"]],
            "scaling": content["scaling"],
        }
        categories = {"categories": list(content["categories"].items()), "left_out": content["left_out"]}
        held = numbers if content["numbers"] else None
        return {"kind": "table", "numbers": held, "categories": categories, "others": []}
    if kind == "scaling":
        of = "picture" if len(shape["shape"]) == 3 else "array"
        return {"kind": of, "scaling": content, "shape": shape["shape"]}
    return dict(form)
