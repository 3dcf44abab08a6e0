"""The optimizer: torch's own where it has the rule, else the rule's few lines, else steepest's."""

from __future__ import annotations

import math
import textwrap
from dataclasses import fields

from steepest.optim import rules
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule
from steepest.program import orthogonal, twins
from steepest.program.facts import Facts, Piece, fill_in
from steepest.program.lines import NotPlain, written
from steepest.train import settled
from steepest.train.given import MARK, Given

DECAYS = '''def decays(model, name, weight):
    """Whether weight decay pulls a weight: not biases, norms and embeddings."""
    kind, leaf = type(model.get_submodule(name.rpartition(".")[0])).__name__, name.rpartition(".")[2]
    return weight.ndim > 1 and "Norm" not in kind and "Embedding" not in kind and "embed" not in leaf


'''

SHARE = '''def share_of(name):
    """What the learning rate of a weight is multiplied by."""
    for pattern, share in {patterns!r}.items():
        if any(fnmatchcase(name, glob.strip()) for glob in pattern.split("|")):
            return share
    return 1.0


'''

GROUPS = '''def grouped(weights{model}, weight_decay, share=1.0):
    """Groups of these (name, weight) by what their rule is told: decay, and a share of the rate."""
    groups = {{}}
    for name, weight in weights:
        key = ({decay}, share{times})
        groups.setdefault(key, []).append(weight)
    return [
        {{"params": held, "weight_decay": decay, "share": share}} for (decay, share), held in groups.items()
    ]


'''

BUILD = '''def build_optimizers(model):
    """{said}"""
{body}'''

WEIGHTS = "    weights = [(n, w) for n, w in model.named_parameters() if w.requires_grad]\n"


def piece(facts: Facts) -> Piece:
    """`build_optimizers`, with all that it takes."""
    if facts.recipe.rule.startswith(MARK):
        return _open(facts)
    rule = settled.rule_of(facts.recipe, Given())
    if rule.perturb or rule.extra_inputs:
        raise UserError(
            f"The rule {rules.name_of(rule)!r} takes several passes over a batch, for which no program is "
            "written. steepest.torch has it for loops of your own: docs, own loop."
        )
    constants = {"LR": (repr(rule.lr), "learning rate, where `rate` is 1")}
    made = twins.call(rule)
    if made is not None:
        return _piece(facts, rule, made, "", constants)
    if type(rule) in (rules.Muon, rules.MuonMatched, rules.MuonSpectral):  # not a wrapper around one
        return _of_matrices(facts, rule, constants)
    try:
        lines = written(rule)
    except NotPlain:
        return _ours(facts, rule, constants)
    held = (field.name for field in fields(rule) if field.name not in ("lr", "weight_decay"))
    numbers = {name: getattr(rule, name) for name in held}  # weight decay stands in the groups
    call = f"{type(rule).__name__}({{groups}}, lr=LR{_arguments(numbers)})"
    return _piece(facts, rule, call, lines, constants)


def _open(facts: Facts) -> Piece:
    """What is left where the rule was an object that a recipe cannot hold."""
    kind = facts.recipe.rule.removeprefix(MARK)
    said = fill_in("build_optimizers", f"a list of optimizers, for the rule that was an object ({kind})")
    build = BUILD.format(said="Yours to fill in.", body=f"    {said}")
    lr = 1.0 if facts.recipe.lr is None else facts.recipe.lr
    constants = {"LR": (repr(lr), "learning rate, where `rate` is 1")}
    note = "the rule is yours to fill in: it was an object, of which a recipe holds the numbers alone"
    return Piece((DECAYS if _penalised(facts) else "") + build, (), constants, (note,))


def _piece(facts: Facts, rule: Rule, call: str, lines: str, constants: dict[str, tuple[str, str]]) -> Piece:
    decay = getattr(rule, "weight_decay", 0.0)
    body = f"    return [{call.format(groups=f'grouped(weights, {_of(facts)}{decay!r})')}]"
    said = f"{rules.name_of(rule)}, as torch has it." if not lines else f"{rules.name_of(rule)}, written out."
    build = BUILD.format(said=said, body=WEIGHTS + body)
    more = ("import math", "from types import SimpleNamespace") if lines else ()
    code = f"{lines}{_grouping(facts)}{build}"
    return Piece(code, (*more, *_globs(facts)), constants)


def _of_matrices(facts: Facts, rule: Rule, constants: dict[str, tuple[str, str]]) -> Piece:
    """Muon for hidden matrices, AdamW beside it."""
    decay, share = getattr(rule, "weight_decay", 0.0), type(rule).fallback_lr_ratio
    others = twins.call(rules.AdamW(lr=rule.lr, weight_decay=decay))
    assert others is not None
    rest = others.format(groups=f"grouped(others, {_of(facts)}{decay!r}, {share!r})")
    body = textwrap.indent(
        f"hidden = [(n, w) for n, w in weights if is_hidden(model, n, w)]\n"
        f"others = [(n, w) for n, w in weights if not is_hidden(model, n, w)]\n"
        f"muon = {type(rule).__name__}(grouped(hidden, {_of(facts)}{decay!r}), lr=LR)\n"
        f"adamw = {rest} if others else None\n"
        "return [muon, adamw] if others else [muon]",
        "    ",
    )
    said = f"{type(rule).__name__} for hidden matrices; AdamW for the rest, at {share:g} of the rate."
    lines = orthogonal.written(rule)
    code = f"{lines}{DECAYS}{_grouping(facts, decays=False)}{BUILD.format(said=said, body=WEIGHTS + body)}"
    return Piece(code, ("import math", *_globs(facts)), constants)


def _ours(facts: Facts, rule: Rule, constants: dict[str, tuple[str, str]]) -> Piece:
    """steepest's own optimizer, where a rule is more than a few lines."""
    own = {field.name: getattr(rule, field.name) for field in fields(rule) if field.name != "lr"}
    name = rules.name_of(rule)
    call = f"rules.named({name!r}, lr=LR{_arguments(own)})"
    scale = f", lr_scale={facts.recipe.lr_scale!r}" if facts.recipe.lr_scale else ""
    body = f"    return [steepest.torch.optimizer(model, {call}{scale})]"
    note = f"torch has no rule {name!r}, and it is more than a few lines: its optimizer is steepest's"
    decays = DECAYS if _penalised(facts) else ""
    code = decays + BUILD.format(said=f"{name}, from steepest.", body=body)
    return Piece(
        code, ("import math", "import steepest.torch", "from steepest import rules"), constants, (note,)
    )


def averages(facts: Facts) -> bool:
    """Whether the optimizer itself holds the weights to test."""
    if facts.recipe.rule.startswith(MARK):
        return False
    return settled.rule_of(facts.recipe, Given()).evaluates()


def _grouping(facts: Facts, decays: bool = True) -> str:
    masked = bool(_of(facts))
    share = SHARE.format(patterns=dict(facts.recipe.lr_scale)) if facts.recipe.lr_scale else ""
    decay = "weight_decay if decays(model, name, weight) else 0.0" if masked else "weight_decay"
    times = " * share_of(name)" if share else ""
    groups = GROUPS.format(model=", model" if masked else "", decay=decay, times=times)
    return f"{DECAYS if decays and (masked or _penalised(facts)) else ''}{share}{groups}"


def _of(facts: Facts) -> str:
    """The argument of `grouped` that is there where some weights are not decayed."""
    return "model, " if getattr(settled.rule_of(facts.recipe, Given()), "weight_decay", 0.0) else ""


def _penalised(facts: Facts) -> bool:
    return bool(facts.recipe.l1 or facts.recipe.l2)


def _globs(facts: Facts) -> tuple[str, ...]:
    return ("from fnmatch import fnmatchcase",) if facts.recipe.lr_scale else ()


def _arguments(numbers: dict[str, object]) -> str:
    """, beta1=0.9, beta2=0.99"""
    written = {name: "math.inf" if value == math.inf else repr(value) for name, value in numbers.items()}
    return "".join(f", {name}={value}" for name, value in written.items())
