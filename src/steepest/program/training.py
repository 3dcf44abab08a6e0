"""The training itself: one update, one evaluation, and the loop over both."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable

from steepest.data import augment
from steepest.program import inputs
from steepest.program.facts import Facts, Piece, fill_in
from steepest.program.gather import first_batch
from steepest.train import budget, settled
from steepest.train.given import MARK
from steepest.train.session import FORMATS

UPDATE = '''def update(model, optimizers, batch, step, factor=1.0):
    """One update of the weights; the loss before it."""
    for optimizer in optimizers:
        optimizer.zero_grad()
        for group in optimizer.param_groups:
            group["lr"] = LR * rate(step) * factor * group.get("share", 1.0)
{passes}{clips}
    for optimizer in optimizers:
        optimizer.step()
    return loss.item()'''

WHOLE = """    inputs, target, *weight = batch
    {under}loss = loss_of({call}, target, *weight){penalty}
    loss.backward()"""

PARTS = """    loss, size = 0.0, -(-len(batch[1]) // ACCUMULATE)
    {cut}
        share = len(target) / len(batch[1])
        {under}part = loss_of({call}, target, *weight){penalty}
        (part * share).backward()
        loss = loss + part.detach() * share"""

ADAPTIVE = '''def clip_adaptive(model):
    """Gradients short beside their weights, one output unit at a time (Brock et al. 2021)."""
    for w in model.parameters():
        if w.grad is not None:
            limit = CLIP_ADAPTIVE * unit_norms(w.detach()).clamp_min(1e-3)
            w.grad.mul_(limit / torch.maximum(unit_norms(w.grad), limit))


def unit_norms(x):
    """Norms over all axes but the first; of a vector, its one norm."""
    axes = tuple(range(1, x.ndim)) or tuple(range(x.ndim))
    return x.square().sum(dim=axes, keepdim=True).sqrt()


'''

FOLLOW = '''


def follow(averages, model, updates):
    """Moving average of the weights: what is tested and shipped."""
    decay = min(AVERAGE, (1 + updates) / (10 + updates))
    with torch.no_grad():
        for a, w in zip(averages.parameters(), model.parameters(), strict=True):
            a.lerp_(w, 1 - decay)'''

EVALUATE = '''


@torch.no_grad()
def evaluate(model, rows, count):
    """Mean loss over all rows, in test mode; count: the sum of their weights."""
    model.eval()
    total = 0.0
    for inputs, target, *weight in DataLoader(rows, 1024):{moved}
        total += loss_of({call}, target, *weight).item() * len(target)
    model.train()
    return total / count'''

MOVED = """
        inputs, target, *weight = {moved}"""


def piece(facts: Facts) -> Piece:
    """`update` and `evaluate` with what they call."""
    recipe = facts.recipe
    call = inputs.call(facts)
    passes = PARTS if recipe.accumulate > 1 else WHOLE
    penalty = " + penalty(model)" if recipe.l1 or recipe.l2 else ""
    device = recipe.device.partition(":")[0] if inputs.elsewhere(facts) else "cpu"
    kind = f'torch.autocast("{device}", {FORMATS.get(recipe.precision)})'
    deep = 8 if recipe.accumulate > 1 else 4
    under = "" if recipe.precision == "32" else f"with {kind}:\n{(deep + 4) * ' '}"
    passes = passes.format(under=under, call=call, penalty=penalty, cut=inputs.cut(facts))
    update = UPDATE.format(passes=passes, clips=_clips(facts))
    average = FOLLOW if recipe.average else ""
    moved = inputs.moved(facts, "(inputs, target, *weight)")
    moved = MOVED.format(moved=moved) if inputs.elsewhere(facts) else ""
    evaluate = EVALUATE.format(call=call, moved=moved)
    lines, imports, notes = _augmentation(facts)
    adaptive = ADAPTIVE if recipe.clip_adaptive else ""
    more = ("16-bit floats go without a loss scale",) if recipe.precision == "16" else ()
    moved_batches = first_batch(recipe)[1]
    more += (moved_batches,) if moved_batches else ()
    return Piece(
        f"{lines}{adaptive}{update}{average}{evaluate}{inputs.piece(facts)}",
        imports,
        _constants(facts),
        (*notes, *more),
    )


def _clips(facts: Facts) -> str:
    recipe = facts.recipe
    lines = [
        "torch.nn.utils.clip_grad_value_(model.parameters(), CLIP_VALUE)" if recipe.clip_value else "",
        "clip_adaptive(model)" if recipe.clip_adaptive else "",
        "torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)" if recipe.clip_norm else "",
    ]
    return "".join(f"\n    {line}" for line in lines if line)


def _augmentation(facts: Facts) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """(the lines of `augmented`, imports, notes)."""
    name = facts.recipe.augment
    if name is None:
        return "", (), ()
    if name.startswith(MARK):
        kind = name.removeprefix(MARK)
        lines = f"def augmented(inputs, chance):\n    {fill_in('augmented', kind)}\n\n\n"
        return lines, (), ("the augmentation is yours to fill in",)
    if name not in augment.AUGMENTATIONS:
        module, _, function = name.partition(":")
        return "", (f"from {module} import {function} as augmented",), ()
    own = augment.AUGMENTATIONS[name]
    helper = _bare(augment._moved) if name == "shift" else ""
    lines = _bare(own).replace(f"_four(pictures, '{name}')", "pictures")
    return lines.replace(f"def {name}(", "def augmented(") + helper, (), ()


def _bare(function: Callable[..., object]) -> str:
    """Source of a function without annotations."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    tree.returns = None
    for argument in tree.args.args:
        argument.annotation = None
    return f"{ast.unparse(tree)}\n\n\n"


def _constants(facts: Facts) -> dict[str, tuple[str, str]]:
    recipe, stopping = facts.recipe, settled.stopping_of(facts.recipe)
    every = budget.parse(recipe.evaluate_every, "evaluate_every").steps(facts.per_epoch)
    batch, _ = first_batch(recipe)
    held = {
        "STEPS": (facts.steps, "updates of the weights"),
        "BATCH_SIZE": (batch, "examples of an update"),
        "ACCUMULATE": (
            recipe.accumulate if recipe.accumulate > 1 else None,
            "parts that an update is computed in",
        ),
        "EVALUATE_EVERY": (every, "updates"),
        "CLIP_VALUE": (recipe.clip_value, "largest coordinate of the gradient"),
        "CLIP_ADAPTIVE": (recipe.clip_adaptive, "largest norm of a unit's gradient, in norms of its weights"),
        "CLIP_NORM": (recipe.clip_norm, "largest norm of the whole gradient"),
        "AVERAGE": (recipe.average, "decay of the moving average of the weights"),
        "PATIENCE": (stopping.patience, "evaluations without gain before the rate falls or training stops"),
        "MIN_DELTA": (stopping.min_delta or None, "smallest change that counts as gain"),
        "DEVICE": (repr(recipe.device) if inputs.elsewhere(facts) else None, "where to compute"),
    }
    return {name: (str(value), said) for name, (value, said) in held.items() if value is not None}
