"""How the network is built and started, as lines of PyTorch."""

from __future__ import annotations

import textwrap
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any

import torch
from torch import nn

from steepest import models
from steepest.data import rng
from steepest.data.order import key
from steepest.program.facts import Facts, Piece, fill_in
from steepest.train.given import MARK

DRAWS = {
    "kaiming": 'nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=chance)',
    "xavier": "nn.init.xavier_uniform_(layer.weight, generator=chance)",
    "orthogonal": "nn.init.orthogonal_(layer.weight, gain=math.sqrt(2), generator=chance)",
}
"""Starts of weights, as steepest draws them."""

FREEZE = """
for name, weight in model.named_parameters():
    if any(fnmatchcase(name, glob.strip()) for pattern in {patterns!r} for glob in pattern.split("|")):
        weight.requires_grad_(False)"""

STILL = """
for name in {names!r}:
    model.get_parameter(name).requires_grad_(False)"""

APART = {"_parameters", "_buffers", "_modules", "training", "_flat_weights", "_flat_weight_refs"}
"""What a layer holds besides the words that it was made with: weights, layers, a mode."""

DRAW = """
chance = torch.Generator().manual_seed({seed})
for layer in model.modules():
    if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
        {draw}
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)"""

BUILD = '''def build_model():
    """The network as it started."""
{body}
    return model'''


def piece(facts: Facts) -> Piece:
    """`build_model`, which gives the network that the run began with."""
    made, imports, notes = _made(facts)
    lines, more, said = _started(facts)
    frozen = FREEZE.format(patterns=facts.recipe.freeze) if facts.recipe.freeze else ""
    globs = ("from fnmatch import fnmatchcase",) if frozen else ()
    seed = {"SEED": (str(key(facts.recipe.seed, "weights") % 2**63), "the run's own start of the weights")}
    body = textwrap.indent(f"{made}{lines}{frozen}", "    ")
    return Piece(BUILD.format(body=body), (*imports, *more, *globs), seed, (*notes, *said))


def _made(facts: Facts) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """(lines that make it, imports, notes)."""
    name = facts.recipe.model
    if name in models.PRESETS:
        with rng.preserved():
            options = {"hidden": facts.recipe.hidden, "dropout": facts.recipe.dropout}
            preset = models.build(name, facts.shape, facts.outputs, **options)
        return f"model = {written(preset)}", (), ()
    if ":" in name and not name.startswith(MARK):
        module, _, function = name.partition(":")
        call = f"model = own_model({facts.shape!r}, {facts.outputs})"
        return call, (f"from {module} import {function} as own_model",), ()
    came = "the network was an object that came with its weights, which a seed does not bring back"
    if facts.model is not None and (code := written(facts.model)):
        return f"model = {code}{_still(facts.model, facts.recipe.freeze)}", (), (came,)
    kind = name.removeprefix(MARK)
    lines = fill_in("build_model", f"how you made the {kind} that you gave to fit")
    return f"{lines}\nmodel = None", (), (f"{came}; its making is yours to fill in",)


def written(model: nn.Module) -> str:
    """A stack of torch's own layers as the expression that makes it; empty where it is more than that."""
    code = _expression(model)
    if not code:
        return ""
    try:
        with rng.preserved():
            again = eval(code, {"nn": nn})  # torch's own words for its own layers
    except (SyntaxError, TypeError, NameError, AttributeError, ValueError):
        return ""
    return code if _same(again, model) else ""


def _still(model: nn.Module, patterns: list[str]) -> str:
    """The lines that hold still what a person has frozen by hand; `patterns` are held still anyway."""
    globs = [glob.strip() for pattern in patterns for glob in pattern.split("|")]
    frozen = (name for name, weight in model.named_parameters() if not weight.requires_grad)
    names = [name for name in frozen if not any(fnmatchcase(name, glob) for glob in globs)]
    return STILL.format(names=names) if names else ""


def _expression(module: nn.Module) -> str:
    if type(module) is nn.Sequential:
        layers = [_expression(layer) for layer in module]
        inner = "".join(textwrap.indent(f"{layer},\n", "    ") for layer in layers)
        return f"nn.Sequential(\n{inner})" if all(layers) else ""
    own = type(module).__module__.startswith("torch.nn.modules.") and not any(module.children())
    return f"nn.{module!r}" if own and getattr(nn, type(module).__name__, None) is type(module) else ""


def _same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks differ in numbers at most: a repr leaves out arguments, hooks and sharing."""
    return _sizes(one) == _sizes(other) and _words(one) == _words(other)


def _sizes(model: nn.Module) -> list[tuple[str, torch.Size, torch.dtype]]:
    """Each tensor once, so that one with two names shows."""
    held = chain(model.named_parameters(), model.named_buffers())
    return [(name, tensor.shape, tensor.dtype) for name, tensor in held]


def _words(model: nn.Module) -> list[dict[str, Any]]:
    layers = model.named_modules(remove_duplicate=False)
    return [{key: word for key, word in vars(layer).items() if key not in APART} for _, layer in layers]


def _started(facts: Facts) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """(lines that draw or load weights, imports, notes)."""
    how = facts.recipe.init
    if how == "default":
        return "", (), ()
    if how.endswith(".safetensors"):
        load = f"\nmodel.load_state_dict(load_file({how!r}))"
        return load, ("from safetensors.torch import load_file",), ()
    seed = key(facts.recipe.seed, "start") % 2**63
    scaled = ("init='lsuv' scales each layer by what it measures; here it is orthogonal alone",)
    draw = DRAWS["orthogonal" if how == "lsuv" else how]
    return DRAW.format(seed=seed, draw=draw), (), scaled if how == "lsuv" else ()
