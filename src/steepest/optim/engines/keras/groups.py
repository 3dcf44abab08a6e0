"""Which rule moves which weight of a Keras optimizer: patterns, hidden matrices, what does not decay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from steepest.optim import rules
from steepest.optim.engines.axes import outputs_first
from steepest.optim.engines.keras.part import Part
from steepest.optim.errors import UserError
from steepest.optim.groups import first_match, no_decay
from steepest.optim.rule import Rule
from steepest.optim.rules.shapes import matrix


def assigned(
    weights: Mapping[int, Any],
    main: Rule,
    rest: Rule | None,
    groups: Mapping[str, Rule],
    lr_scale: Mapping[str, float],
    decays: Callable[[Any], bool],
    compensated: bool,
) -> list[Part]:
    """The parts of the optimizer. Those whose rate is the optimizer's stand first."""
    names = {w.path: w for w in weights.values()}
    claimed, scales = first_match(names, groups, None), first_match(names, lr_scale, 1.0)
    free = [w for w in weights.values() if claimed[w.path] is None]
    own = _of_main(main, rest, free, _head(list(weights.values())))
    parts: dict[Any, Part] = {}
    for number, w in weights.items():
        rule, share, follows = own.get(w.path) or (claimed[w.path], 1.0, False)
        rule = rule if decays(w) or not hasattr(rule, "weight_decay") else replace(rule, weight_decay=0.0)
        key = (rule, share * scales[w.path], follows)
        parts.setdefault(key, Part(*key, compensated)).weights[number] = w
    return sorted(parts.values(), key=lambda part: not part.follows)


def _of_main(
    main: Rule, rest: Rule | None, weights: list[Any], head: str | None
) -> dict[str, tuple[Rule, float, bool]]:
    """(rule, factor of its rate, whether that is the optimizer's) of the weights that no pattern claims.

    head: the path of the model's last layer, claimed or not."""
    if main.takes((2,)):
        if rest is not None:
            raise UserError(f"{type(main).__name__} moves weights of every shape: there is no rest.")
        return {w.path: (main, 1.0, True) for w in weights}
    hidden = _hidden(main, weights, head)
    beside = rules.AdamW(lr=main.lr, weight_decay=getattr(main, "weight_decay", 0.0))
    others = (beside, type(main).beside, True) if rest is None else (rest, 1.0, False)
    return {w.path: (main, 1.0, True) if w.path in hidden else others for w in weights}


def _hidden(rule: Rule, weights: list[Any], head: str | None) -> set[str]:
    """Paths of what a rule of matrices should move: no embeddings, no vectors, not the last layer."""
    found = {
        w.path
        for w in weights
        for shape in [tuple(w.shape[axis] for axis in outputs_first(len(w.shape)))]
        if rule.takes(shape) and w.path != head and min(matrix(shape)) > 1 and not no_decay(w.name, shape, "")
    }
    if weights and not found:
        raise UserError(
            f"{type(rule).__name__} moves hidden matrices, and this model has none: its weights are "
            f"embeddings, vectors and its last layer. Use a rule that goes by elements, such as AdamW; or "
            f"say which weights are meant, groups={{{weights[0].path!r}: rule}}."
        )
    return found


def _head(weights: list[Any]) -> str | None:
    """The path of the last dense kernel, or of the last convolution where there is none."""
    kernels = [w for w in weights if len(w.shape) > 1 and not no_decay(w.name, w.shape, "")]
    dense = [w for w in kernels if len(w.shape) == 2]
    return next((w.path for w in reversed(dense or kernels)), None)
