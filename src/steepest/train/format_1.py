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


def checkpoint(
    model: Mapping[str, Any], tensors: Mapping[str, Any], numbers: Mapping[str, Any]
) -> dict[str, Any]:
    """The parts of a checkpoint of format 1.

    model    the network's weights by name
    tensors  all others, under optimizer/…, average/…, random/…, carry/…, scored/…
    numbers  the rest"""
    random = _under("random", tensors)
    cuda = [random[f"cuda{i}"] for i in range(len(random)) if f"cuda{i}" in random]
    carried = {
        f"carry/{name}": {**rest, **_under(f"carry/{name}", tensors)}
        for name, rest in numbers["carry"].items()
    }
    generators = {
        "torch": random["torch"],
        "cuda": cuda,
        "numpy": random["numpy"],
        "numpy place": numbers["random"]["numpy"],
        "python": random["python"],
        "python spare": numbers["random"]["python"],
    }
    parts = {
        "data": {"ranks": [numbers["data"]]},
        "network": dict(model),
        "optimizer": _optimizer(_under("optimizer", tensors), numbers["optimizer"]),
        "rng": {"ranks": [generators]},
        "progress": numbers["progress"],
        "losses": {"ranks": [numbers["losses"]]},
        "record": {"rows": numbers["rows"]},
        "update": numbers["update"],
        "microbatching": numbers["division"],
        **carried,
    }
    if average := _under("average", tensors):
        parts["average"] = _average(average)
    if "trial" in numbers:
        parts["trial"] = {**numbers["trial"], "average": _average(_under("scored", tensors))}
    return parts


def _optimizer(tensors: dict[str, Any], numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers there are of torch's optimizers alone."""
    if numbers:
        clock = {"factor": numbers["factor"]}
        return {"slots": {**tensors, **numbers["state"]}, "groups": numbers["groups"], "clock": clock}
    clock = {"steps": int(tensors.pop("steps")), "factor": float(tensors.pop("factor"))}
    return {"slots": tensors, "groups": None, "clock": clock}


def _average(tensors: dict[str, Any]) -> dict[str, Any]:
    updates = int(tensors.pop("updates"))
    return {"updates": updates, "weights": tensors}


def _under(name: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key.removeprefix(f"{name}/"): tensor for key, tensor in tensors.items() if key.startswith(f"{name}/")
    }
