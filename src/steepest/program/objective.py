"""What is descended, as a function of the network and a batch."""

from __future__ import annotations

from steepest.program.facts import Facts, Piece, fill_in, in_docstring
from steepest.train.given import MARK
from steepest.train.loss import ALIASES

LOSS = '''def loss_of(outputs, target, weight=None):
    """Mean loss of some examples: {name}."""
{body}'''

FORMULAS = {
    "cross_entropy": (
        'losses = F.cross_entropy(outputs, target, reduction="none", label_smoothing={smoothing})'
    ),
    "focal": """log_p = F.log_softmax(outputs, dim=1)
    terms = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny) ** {gamma} * -log_p
    hit = terms.gather(1, target.unsqueeze(1)).squeeze(1)
    losses = (1 - {smoothing}) * hit + {smoothing} * terms.mean(1)""",
    "binary": """outputs = outputs.reshape(target.shape)
    q = target.to(outputs.dtype) * (1 - {smoothing}) + 0.5 * {smoothing}
    losses = F.binary_cross_entropy_with_logits(outputs, q, reduction="none")""",
    "mean_squared_error": "losses = (outputs.reshape(target.shape) - target).square()",
    "l1": "losses = (outputs.reshape(target.shape) - target).abs()",
    "huber": 'losses = F.huber_loss(outputs.reshape(target.shape), target, reduction="none", delta={delta})',
}
"""Losses by name, as lines that leave `losses`, one an example."""

OWN = """tensors = hasattr(outputs, "shape") and hasattr(target, "shape")
    column = tensors and outputs.shape == (*target.shape, 1)
    losses = own_loss(outputs.squeeze(1) if column else outputs, target)"""

EXAMPLES = """
    if weight is not None:
        losses = (losses.flatten(1).mean(1) if losses.ndim > 1 else losses) * weight"""

PENALTY = '''


def penalty(model):
    """{formula} of all weights that decay may pull."""
    weights = [w for n, w in model.named_parameters() if w.requires_grad and decays(model, n, w)]
    return sum({terms} for w in weights)'''


def piece(facts: Facts) -> Piece:
    """`loss_of`, and `penalty` where the recipe has one."""
    recipe = facts.recipe
    name = ALIASES.get(recipe.loss, recipe.loss)
    body, imports, notes = _body(name, facts)
    wide = "" if recipe.precision == "32" else "    outputs = outputs.float()\n"
    body = f"{wide}    {body}{EXAMPLES}\n    return losses.mean()"
    code = LOSS.format(name=in_docstring(name.removeprefix(MARK)), body=body)
    return Piece(code + _penalty(facts), imports, notes=notes)


def _body(name: str, facts: Facts) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    recipe = facts.recipe
    if name in FORMULAS:
        options = {
            "smoothing": recipe.label_smoothing,
            "gamma": recipe.focal_gamma,
            "delta": recipe.huber_delta,
        }
        formula = FORMULAS[name].format(**options).replace(", label_smoothing=0.0", "")
        return formula, ("import torch.nn.functional as F",), ()
    if name.startswith(MARK):
        kind = name.removeprefix(MARK)
        said = fill_in("loss_of", f"the loss, which was an object ({kind})")
        return f"{said}\n    losses = None", (), ("the loss is yours to fill in",)
    module, _, function = name.partition(":")
    return OWN, (f"from {module} import {function} as own_loss",), ()  # whatever it is called, no name here


def _penalty(facts: Facts) -> str:
    recipe = facts.recipe
    terms = []
    if recipe.l1:
        terms.append(f"{recipe.l1!r} * w.abs().sum()")
    if recipe.l2:
        terms.append(f"{0.5 * recipe.l2!r} * w.square().sum()")
    return PENALTY.format(formula="l1·Σ|w| + ½·l2·Σw²", terms=" + ".join(terms)) if terms else ""
