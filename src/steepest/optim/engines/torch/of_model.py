"""`optimizer`: a rule for a model, and other rules for some of its weights, such as all but its matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from steepest.optim import rules
from steepest.optim.engines.precision.memory import called_moments
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError
from steepest.optim.groups import checked_factors, first_match, no_decay
from steepest.optim.rule import Rule
from steepest.optim.rules.shapes import matrix

LINEAR = torch.nn.Linear
CONVOLUTION = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)


def takes_all(rule: Rule) -> bool:
    """Whether a rule moves weights of any shape, so that nothing need be split off."""
    return rule.takes((2,))


def hidden(model: torch.nn.Module, rule: Rule, weights: Mapping[str, torch.Tensor]) -> set[str]:
    """Names of the weights, out of these, that a rule of matrices should move.

    Not embeddings, whose rows are seldom used, nor the head, whose rows are classes; not biases, norms, or
    what is a vector in all but its axes, such as a class token. The head is the last linear layer, in the
    order in which layers were made, or the last convolution where there is none."""
    last = _head(model)
    found = {
        name
        for name, weight in weights.items()
        if rule.takes(weight.shape)
        and weight is not last
        and min(weight.shape[:2]) > 1
        and min(matrix(weight.shape)) > 1
        and not no_decay(name, weight.shape, kind(model, name))
    }
    if not found:
        raise UserError(
            f"{type(rule).__name__} moves hidden matrices, and this model has none: its weights are "
            "embeddings, vectors and its last layer. Use a rule that goes by elements, such as AdamW; or say "
            f"which weights are meant, groups={{{next(iter(weights))!r}: rule}}."
        )
    return found


def kind(model: torch.nn.Module, name: str) -> str:
    """Class name of the module that holds a weight."""
    return type(model.get_submodule(name.rpartition(".")[0])).__name__


def _head(model: torch.nn.Module) -> Any:
    """The weight of the last layer; one that is shared with an embedding too."""
    for sort in (LINEAR, CONVOLUTION):
        layers = [layer for layer in model.modules() if isinstance(layer, sort)]
        if layers:
            return layers[-1].weight
    return None


def optimizer(
    model: torch.nn.Module,
    rule: Rule | str,
    groups: Mapping[str, Rule | str] | None = None,
    *,
    rest: Rule | str | None = None,
    decay_all: bool = False,
    lr_scale: Mapping[str, float] | None = None,
    state_dtype: str | Mapping[str, str] = "float32",
    rounding: str = "nearest",
    average: float | None = None,
    seed: int = 0,
    engine: str | None = None,
    moments: str | Mapping[str, str] | None = None,
) -> RuleOptimizer:
    """A RuleOptimizer of the model's trainable weights, each under its name.

    rule: a Rule or the name of one. A rule of matrices, such as Muon, is given the hidden ones.
    groups: patterns of names → rules, as in {"embed*|head*|*bias": "adamw"}; the first that fits.
    rest: the rule of what a rule of matrices is not given: embeddings, the last layer, biases, norms. Without
    it AdamW with that rule's weight decay and its rate, times the rule's `fallback_lr_ratio`.
    decay_all: let weight decay pull biases, norms and embeddings too.
    lr_scale: patterns of names → factors of the learning rate; the first that fits.
    state_dtype, rounding, average, seed: how weights and state are kept, see Memory; state_dtype also by
    patterns of names, as in {"embed*": "8bit"}, the first that fits; "float32" where none does.
    engine: "numba", "torch" or "compiled", see RuleOptimizer; None chooses by the device.
    moments: the old name of state_dtype."""
    if not isinstance(model, torch.nn.Module):
        raise UserError(
            f"`optimizer` goes by the names in a model, and was given {type(model).__name__}. Give it the "
            "torch.nn.Module; for weights alone take RuleOptimizer(weights, rule)."
        )
    trainable = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if not trainable:
        raise UserError("The model has no weight to train: all are frozen, or there are none.")
    main = rules.chosen(rule)
    claimed = first_match(trainable, groups or {}, None)
    free = {name: weight for name, weight in trainable.items() if claimed[name] is None}
    parts = _parts(model, main, rest, free)
    parts |= {name: _Part(rules.chosen(own)) for name, own in claimed.items() if own is not None}
    factors = first_match(trainable, checked_factors(lr_scale), 1.0)
    state_dtype = called_moments(state_dtype, moments)
    chosen = state_dtype if isinstance(state_dtype, str) else "float32"
    kept = first_match(trainable, {} if isinstance(state_dtype, str) else state_dtype, chosen)
    made: dict[tuple[_Part, float, str], dict[str, Any]] = {}
    for name, weight in trainable.items():
        decays = decay_all or not no_decay(name, weight.shape, kind(model, name))
        part = parts[name] if decays else parts[name].without_decay()
        own = part.group(factors[name]) | {"state_dtype": kept[name]}
        group = made.setdefault((part, factors[name], kept[name]), own)
        group["params"].append((name, weight))
    # The rate that is shown is that of the first group.
    groups_made = sorted(made.values(), key=lambda group: type(group["rule"]) is not type(main))
    return RuleOptimizer(groups_made, main, rounding=rounding, average=average, seed=seed, engine=engine)


@dataclass(frozen=True)
class _Part:
    """What moves some of the weights: a rule, the factor of its rate, and what these weights are."""

    rule: Rule
    share: float = 1.0
    name: str = ""

    def without_decay(self) -> _Part:
        decays = hasattr(self.rule, "weight_decay")
        return replace(self, rule=replace(self.rule, weight_decay=0.0)) if decays else self

    def group(self, factor: float) -> dict[str, Any]:
        own = {"part": self.name} if self.name else {}
        return {"params": [], "rule": self.rule, "lr_scale": factor * self.share} | own


def _parts(
    model: torch.nn.Module, main: Rule, rest: Rule | str | None, weights: Mapping[str, torch.Tensor]
) -> dict[str, _Part]:
    """What moves each of the weights that no pattern claims."""
    if takes_all(main):
        if rest is not None:
            raise UserError(f"{type(main).__name__} moves weights of every shape: there is no rest.")
        return dict.fromkeys(weights, _Part(main))
    matrices = hidden(model, main, weights) if weights else set()
    others = _beside(main) if rest is None else _Part(rules.chosen(rest), name="the rest")
    return {name: _Part(main, name="hidden matrices") if name in matrices else others for name in weights}


def _beside(main: Rule) -> _Part:
    rule = rules.AdamW(lr=main.lr, weight_decay=getattr(main, "weight_decay", 0.0))
    return _Part(rule, type(main).fallback_lr_ratio, "the rest")
