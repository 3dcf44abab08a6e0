"""A run as a program of plain PyTorch: what `Run.code` prints."""

from __future__ import annotations

import ast
import csv
import json
import keyword
import math
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from steepest import evidence, models
from steepest.data import rng, tree
from steepest.data.augment import AUGMENTATIONS
from steepest.data.order import key
from steepest.files import Folder
from steepest.models import start
from steepest.optim import batch, clipping, rules
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule
from steepest.recipe import Recipe
from steepest.tasks import Target
from steepest.tasks.classification import label
from steepest.train import budget, evaluation, formulas, settled
from steepest.train import loss as losses
from steepest.train.given import DATA, MARK, Given
from steepest.train.loop import FORMATS
from steepest.train.preprocessing import Preprocessing

WIDTH = 88
"""Columns that lines of code are folded at, as formatters do by default."""

BETAS = ("betas=({beta1}, {beta2})", "eps={eps}")
MEANS = ("alpha={alpha}", "eps={eps}")
TWINS: dict[type[Rule], tuple[str, ...]] = {
    rules.SGD: ("SGD",),
    rules.Momentum: ("SGD", "momentum={momentum}", "dampening={dampening}"),
    rules.Nesterov: ("SGD", "momentum={momentum}", "nesterov=True"),
    rules.Adagrad: ("Adagrad", "lr_decay={lr_decay}", "initial_accumulator_value={initial}", "eps={eps}"),
    rules.Adadelta: ("Adadelta", "rho={rho}", "eps={eps}"),
    rules.RMSprop: ("RMSprop", *MEANS),
    rules.RMSpropMomentum: ("RMSprop", *MEANS, "momentum={momentum}"),
    rules.RMSpropCentered: ("RMSprop", *MEANS, "centered=True"),
    rules.RMSpropCenteredMomentum: ("RMSprop", *MEANS, "momentum={momentum}", "centered=True"),
    rules.Adam: ("Adam", *BETAS),
    rules.AdamW: ("AdamW", *BETAS),
    rules.AMSGrad: ("Adam", *BETAS, "amsgrad=True"),
    rules.AMSGradW: ("AdamW", *BETAS, "amsgrad=True"),
    rules.Adamax: ("Adamax", *BETAS),
    rules.NAdam: ("NAdam", *BETAS, "momentum_decay={momentum_decay}"),
    rules.NAdamW: ("NAdam", *BETAS, "momentum_decay={momentum_decay}", "decoupled_weight_decay=True"),
    rules.RAdam: ("RAdam", *BETAS),
    rules.RAdamW: ("RAdam", *BETAS, "decoupled_weight_decay=True"),
    rules.Rprop: ("Rprop", "etas=({shrink}, {grow})", "step_sizes=({shortest}, {longest})"),
    rules.AdafactorTorch: ("Adafactor", "beta2_decay=-{decay_rate}", "eps=({eps1}, {eps2})", "d={threshold}"),
}
"""Rule → the class of torch.optim that equals it and its arguments, with the rule's fields in braces.
Not ASGD, whose average torch does not ship; not Muon, which torch computes in bfloat16."""

CURVES = {
    "linear": "1 - (step - 1) / STEPS",
    "cosine": "(1 + math.cos(math.pi * (step - 1) / STEPS)) / 2",
}
"""Schedule → factor on the rate in a step (1, 2, …) without a warm-up; steepest.schedule gives the others."""

OURS = {
    one.__name__: f"from {one.__module__} import {one.__name__}"
    for one in (
        *AUGMENTATIONS.values(),
        evaluation.renew_statistics,
        clipping.ClipAdaptive,
        formulas.focal,
        formulas.huber,
        formulas.l1,
        losses.penalty,
        start.initialise,
        tree.apply,
    )
}
"""What programs take from steepest, as torch has nothing for it: name → import."""

KNOWN = {
    "F": "import torch.nn.functional as F",
    "fnmatchcase": "from fnmatch import fnmatchcase",
    "nn": "from torch import nn",
    "steepest": "import steepest.torch",
    **{name: f"import {name}" for name in ("copy", "itertools", "math", "sys", "torch")},
}


class Code(str):
    """Text that this module has made; whatever else goes into the template is written as `literal` does."""


def write(folder: Folder, chosen: Mapping[str, Any], model: nn.Module | None) -> str:
    """The program of a run. Raises UserError where the run has not come far enough, or its rule takes several
    passes over a batch.

    chosen: what a search has settled, {} where nothing was searched.   model: a network that was an object"""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    constants: dict[str, str] = {}

    def constant(name: str, value: Any, said: str, setting: str = "") -> Code:
        measured = ", measured" if chosen.get(setting) is not None else ""
        line = f"{name} = {literal(value)}  # {said}{measured}"
        above = isinstance(value, list | dict) or len(line) > WIDTH
        constants[name] = f"# {said}{measured}\n{name} = {literal(value)}" if above else line
        return Code()

    made = Environment(
        loader=PackageLoader("steepest.export", ""),
        finalize=lambda value: value if isinstance(value, Code) else literal(value),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.globals |= {"code": Code, "constant": constant}
    made.globals["when"] = lambda holds, text, other="": Code(text if holds else other)
    about = _about(folder, chosen, model)
    head, _, body = made.get_template("program.py.jinja").render(about).partition("# BODY\n")
    body = re.sub(r"\n\n(?=\S)", "\n\n\n", re.sub(r"^ +\n", "", body, flags=re.M))
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    setting = "".join(f"{line}\n" for name, line in constants.items() if name in used)
    used |= {"torch"} | ({"math"} if "math." in setting else set())
    lines = sorted({*about["imports"], *(line for name, line in (KNOWN | OURS).items() if name in used)})
    lines.sort(key=lambda line: line.startswith("from"))
    apart = [line for line in lines if line.split()[1].partition(".")[0] not in sys.stdlib_module_names]
    imports = "\n".join([*(line for line in lines if line not in apart), "", *apart])
    return f"{head.strip()}\n\n{imports}\n\n{setting}\n\n{body}"


def literal(value: Any) -> Code:
    """Plain data as Python, strings between double quotes where they hold none. TypeError for other data."""
    if isinstance(value, Code):
        return value
    if isinstance(value, str):
        text = repr(value)
        return Code(text if '"' in value or text[0] == '"' else f'"{text[1:-1]}"')
    if isinstance(value, dict):
        return _folded("{", [f"{literal(k)}: {literal(v)}" for k, v in value.items()], "}")
    if isinstance(value, list):
        return _folded("[", list(map(literal, value)), "]")
    if isinstance(value, tuple):
        return Code(f"({', '.join(map(literal, value))}{',' * (len(value) == 1)})")
    if isinstance(value, float) and not math.isfinite(value):
        return Code(f"{'-' * (value < 0)}math.{abs(value)}")
    if not isinstance(value, bool | int | float | torch.dtype | None):
        raise TypeError(f"{type(value).__name__} is no plain data")
    return Code(repr(value))


def comment(text: str) -> Code:
    """A text as it can stand in a docstring, whatever names of a folder or an object it holds."""
    return Code("".join(c if c.isprintable() else " " for c in text).replace("\\", "/").replace('"', "'"))


def network_code(model: nn.Module) -> Code | None:
    """A stack of torch's own layers as the expression that makes it; None where it is more than that."""
    try:
        code = _expression(model)
        with rng.preserved():
            again = eval(code, {"nn": nn})  # names of torch's layers and literals
    except (SyntaxError, TypeError, ValueError, AttributeError, IndexError):
        return None
    return code if _tells(again) == _tells(model) else None


def _folded(head: str, items: Sequence[str], tail: str, indent: int = 0) -> Code:
    """head, items and tail on one line, or each item on its own where that is too long."""
    line = f"{head}{', '.join(items)}{tail}"
    if len(line) + indent <= WIDTH - 16:
        return Code(line)
    inner = textwrap.indent("".join(f"{item},\n" for item in items), " " * (indent + 4))
    return Code(f"{head}\n{inner}{' ' * indent}{tail}")


def _expression(module: nn.Module) -> Code:
    """ValueError where a module is no layer of torch's that says in its repr how it was made."""
    kind = type(module)
    if kind is nn.Sequential:
        layers = "".join(textwrap.indent(f"{_expression(layer)},\n", "    ") for layer in module.children())
        return Code(f"nn.Sequential(\n{layers})")
    if getattr(nn, kind.__name__, None) is not kind or any(module.children()):
        raise ValueError(f"{kind.__name__} is more than a layer of torch.nn")
    call = ast.parse(repr(module), mode="eval").body
    assert isinstance(call, ast.Call)
    given = [literal(ast.literal_eval(one)) for one in call.args]
    given += [f"{word.arg}={literal(ast.literal_eval(word.value))}" for word in call.keywords]
    return _folded(f"nn.{kind.__name__}(", given, ")")


def _tells(model: nn.Module) -> Any:
    """All of a network but its numbers: tensors, each once so that one with two names shows, and words."""
    held = chain(model.named_parameters(), model.named_buffers())
    layers = model.named_modules(remove_duplicate=False)
    apart = {"_parameters", "_buffers", "_modules", "training", "_flat_weights", "_flat_weight_refs"}
    words = [{key: word for key, word in vars(layer).items() if key not in apart} for _, layer in layers]
    return [(name, tensor.shape, tensor.dtype) for name, tensor in held], words


@dataclass
class _Theirs:
    """What of a run was an object of the person's: imported where it has a path, else left to fill in."""

    imports: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def line(self, entry: str, name: str, use: str, what: str) -> Code:
        """The line that uses it; an entry that is no path of names is never written as code."""
        module, _, function = entry.partition(":")
        words = [*module.split("."), function]
        if all(word.isidentifier() and not keyword.iskeyword(word) for word in words):
            self.imports.append(f"from {module} import {function} as {name}")
            return Code(use)
        self.notes.append(f"{what} is yours to fill in: it was an object ({entry.removeprefix(MARK)}).")
        line = _folded("raise SystemExit(", [literal(f"Fill in {what}.")], ")", 4)
        return Code(f"{line}\n    {use.partition(' = ')[0]} = None" if " = " in use else line)


def _about(folder: Folder, chosen: Mapping[str, Any], model: nn.Module | None) -> dict[str, Any]:
    """What the template is told of a run."""
    recipe = _followed(Recipe.read(folder.recipe), chosen)
    fitted = Preprocessing.from_json(folder.preprocessing.read_text(encoding="utf-8"))
    loss = losses.ALIASES.get(recipe.loss, recipe.loss)
    function, layout = {**losses.LOSSES, **fitted.target.losses}.get(loss, (None, "any"))
    if function and loss not in losses.LOSSES:  # the task's own
        loss = f"{function.__module__}:{function.__qualname__}"
    measure = fitted.target.expressions(layout)
    monitors = ["val/loss", "train/loss", *([f"val/{measure.metric}"] if measure else [])]
    per_epoch = _updates_an_epoch(folder)
    steps = _steps(folder, recipe, per_epoch)
    theirs = _Theirs(notes=_notes(folder, recipe, fitted, steps, monitors))
    named = recipe.batch_size
    first = (
        batch.FIRST if str(named).startswith(MARK) else None if named == "full" else batch.named(named).usual
    )
    parts = {
        **_network(recipe, fitted.input_shape, fitted.target.shape(layout)[0] or 1, model, theirs),
        **_optimizer(recipe, theirs),
        **_rate(recipe, chosen, int(budget.parse(recipe.warmup).steps(per_epoch) or 0), theirs),
        **_own(recipe, loss, theirs),
    }
    notes = [textwrap.fill(comment(f"- {note}"), WIDTH, subsequent_indent="  ") for note in theirs.notes]
    handed = (*DATA, "model")
    objects = ", ".join(f"{name}={name}" for name in handed if str(getattr(recipe, name)).startswith(MARK))
    found = Code('str(torch.accelerator.current_accelerator() or "cpu")')
    return parts | {
        "name": comment(folder.path.name),
        "place": comment(literal(str(folder.path))),
        "objects": Code(objects),
        "notes": Code("".join(f"\n{note}" for note in notes)),
        "imports": theirs.imports,
        "recipe": recipe,
        "stopping": settled.stopping_of(recipe),
        "seed": key(recipe.seed, "weights") % 2**63,
        "start": key(recipe.seed, "start") % 2**63,
        "device": found if recipe.device == "auto" else recipe.device,
        "steps": steps,
        "batch_size": first,
        "evaluate_every": budget.parse(recipe.evaluate_every).steps(per_epoch),
        "renewing": min(100, per_epoch),
        "loss": loss,
        "layout": layout,
        "measure": measure,
        "monitored": recipe.monitor.removeprefix("val/") if recipe.monitor in monitors else "loss",
        "class_weight": _class_weight(recipe.class_weight, fitted.target),
        "dtype": FORMATS.get(recipe.precision),
    }


def _followed(asked: Recipe, chosen: Mapping[str, Any]) -> Recipe:
    """The recipe that the run followed: what was chosen in the place of "auto"."""
    if asked.open and not chosen:
        raise UserError(
            f"Nothing is chosen yet for {', '.join(asked.open)}: the search has not ended. Resume the run."
        )
    # "warmup" is there that of the searched schedule, in steps; the recipe's own stands where there is none.
    known = {n: value for n, value in chosen.items() if n in Recipe.model_fields and n != "warmup"}
    return asked.provisional().model_copy(update=known)


def _updates_an_epoch(folder: Folder) -> int:
    if folder.metrics.exists():
        with folder.metrics.open(encoding="utf-8", newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if float(row.get("epoch") or 0) > 0]
        if rows:
            return max(1, round(float(rows[0]["step"]) / float(rows[0]["epoch"])))
    raise UserError(
        "The run has no evaluation yet, so that the length of an epoch is not known. Let it run on, or give "
        "it a larger budget where it has ended."
    )


def _result(folder: Folder) -> dict[str, Any]:
    return json.loads(folder.result.read_text()) if folder.result.exists() else {}


def _steps(folder: Folder, recipe: Recipe, per_epoch: int) -> int:
    """Updates that the schedule counts on; where seconds decide, those that were measured or done."""
    planned = [one.decided for one in evidence.read(folder.evidence) if one.choice == "horizon"]
    allowed = budget.parse(recipe.budget).steps(per_epoch)
    steps = planned[-1] if planned else allowed or _result(folder).get("step")
    if not steps:
        raise UserError("How many steps this run takes is known when it has ended. Let it run on.")
    return int(steps)


def _notes(
    folder: Folder, recipe: Recipe, fitted: Preprocessing, steps: int, monitors: Sequence[str]
) -> list[str]:
    """What the program does otherwise than the run, or leaves out."""
    result, policy = _result(folder), str(recipe.batch_size)
    own = policy.startswith(MARK)
    said = {
        f"The run made {result.get('step')} of the {steps} updates that its schedule counts on, as "
        f"{result.get('why')}.": result.get("status") == "finished" and result["step"] < steps,
        f"The rows are yours to put into data.pt: they came from an object "
        f"({recipe.data.removeprefix(MARK)}).": fitted.inputs is None,
        f"Batches are of BATCH_SIZE throughout; the run's varied ({policy.removeprefix(MARK)}).": (
            own or not isinstance(batch.named(recipe.batch_size), batch.Fixed | batch.Full)
        ),
        f"The best weights go by the loss; the run's went by {recipe.monitor}.": (
            recipe.monitor.startswith("val/") and recipe.monitor not in monitors
        ),
        "The last weights are kept: the run had no validation to choose by.": (
            not recipe.monitor.startswith("val/")
        ),
        f"raise_after={recipe.raise_after} is left out.": recipe.raise_after is not None,
        "16-bit floats go without a loss scale.": recipe.precision == "16",
        "init='lsuv' scales layers by what it measures; here they are orthogonal.": recipe.init == "lsuv",
    }
    return [sentence for sentence, holds in said.items() if holds]


def _network(
    recipe: Recipe, shape: Any, outputs: int, model: nn.Module | None, theirs: _Theirs
) -> dict[str, Any]:
    frozen = [glob.strip() for pattern in recipe.freeze for glob in pattern.split("|")]
    if recipe.model in models.PRESETS:
        with rng.preserved():
            model = models.build(recipe.model, shape, outputs, hidden=recipe.hidden, dropout=recipe.dropout)
    elif model is not None:
        theirs.notes.append("The network came with its weights, which a seed does not bring back.")
        frozen += [name for name, weight in model.named_parameters() if not weight.requires_grad]
    written = None if model is None else network_code(model)
    if written is None:
        made = f"model = own_model({literal(shape)}, {outputs})"
        network = theirs.line(recipe.model, "own_model", made, "the network")
    else:
        network = Code(textwrap.indent(f"model = {written}", "    ").strip())
    several = isinstance(shape, dict) or not all(isinstance(n, int) for n in shape)
    stars = ("**" if isinstance(shape, dict) else "*") if several else ""
    return {
        "network": network,
        "frozen": frozen,
        "several": several,
        "call": Code(f"model({stars}inputs)"),
        "norms": model is None or any(isinstance(layer, _NormBase) for layer in model.modules()),
    }


def _optimizer(recipe: Recipe, theirs: _Theirs) -> dict[str, Any]:
    about = {"grouped": False, "evaluates": False, "lr": recipe.lr, "weight_decay": 0.0}
    if recipe.rule.startswith(MARK):
        code = theirs.line(recipe.rule, "own_optimizer", "return own_optimizer(model)", "the optimizer")
        return about | {"optimizer": code, "rule": Code("The rule of the run")}
    rule = settled.rule_of(recipe, Given())
    name, decays = rules.name_of(rule), hasattr(rule, "weight_decay")
    if rule.perturb or rule.extra_inputs:
        raise UserError(
            f"The rule {name!r} takes several passes over a batch, for which no program is written. "
            "steepest.torch has it for loops of your own: docs, own loop."
        )
    decay = getattr(rule, "weight_decay", 0.0)
    about |= {"rule": Code(name), "evaluates": rule.evaluates(), "lr": rule.lr, "weight_decay": decay}
    if type(rule) in TWINS and not recipe.lr_scale:
        twin, *words = TWINS[type(rule)]
        own = {one.name: literal(getattr(rule, one.name)) for one in fields(rule)}
        words = [
            "groups" if decay else "model.parameters()",
            "lr=LR",
            *(word.format(**own) for word in words),
        ]
        words += ["weight_decay=WEIGHT_DECAY"] if decays and not decay else []
        call = _folded(f"return torch.optim.{twin}(", words, ")", 4)
        return about | {"optimizer": call, "grouped": bool(decay)}
    words = [literal(name), "lr=LR", *(f"{word}={literal(value)}" for word, value in recipe.hyper.items())]
    words += ["weight_decay=WEIGHT_DECAY"] if decays else []
    made = _folded("rule = steepest.rules.named(", words, ")", 4)
    scale = ", lr_scale=LR_SCALE" if recipe.lr_scale else ""
    return about | {"optimizer": Code(f"{made}\n    return steepest.torch.optimizer(model, rule{scale})")}


def _rate(recipe: Recipe, chosen: Mapping[str, Any], warmup: int, theirs: _Theirs) -> dict[str, Any]:
    """How the rate goes: `curve` is a line of Python, None where the rate stays."""
    name = recipe.schedule
    about = {"warmup": chosen.get("warmup", warmup), "begin": chosen.get("begin"), "curve": None}
    if about["begin"] is not None:
        curve = "min(1.0, step / max(1, WARMUP), (STEPS + 1 - step) / (STEPS - BEGIN))"
    elif ":" in name or name.startswith(MARK):
        said = "the learning rate's schedule"
        return about | {"curve": theirs.line(name, "own_rate", "return own_rate(step) / LR", said)}
    elif recipe.rule.startswith(MARK) and recipe.lr is None:
        said = "the learning rate, which a schedule within the rule gave"
        return about | {"curve": theirs.line(recipe.rule, "own_rate", "return own_rate(step)", said)}
    elif name in settled.LEVEL and not warmup:
        return about
    else:
        ours = f"steepest.schedule.named({literal(name)}, 1.0, STEPS, {'WARMUP' if warmup else 0})(step)"
        curve = ours if warmup else CURVES.get(name, ours)
    return about | {"curve": Code(f"return {curve}")}


def _own(recipe: Recipe, loss: str, theirs: _Theirs) -> dict[str, Any]:
    """The lines that call a loss and an augmentation; None where the template has the loss itself."""
    how, said, use = recipe.augment, "the augmentation", "return own_augmentation(inputs, chance)"
    ours = Code(f"return {how}(inputs, chance)") if how in AUGMENTATIONS or how is None else None
    own = "losses = own_loss(outputs, target)"
    return {
        "augmentation": ours or theirs.line(str(how), "own_augmentation", use, said),
        "own_loss": None if loss in losses.LOSSES else theirs.line(loss, "own_loss", own, "the loss"),
    }


def _class_weight(how: Any, target: Target) -> Any:
    """A list in the order of the outputs, "balanced" or None."""
    if not isinstance(how, dict):
        return how
    named = {label(name): float(weight) for name, weight in how.items()}
    return [named.get(name, 1.0) for name in target.classes or ()]
