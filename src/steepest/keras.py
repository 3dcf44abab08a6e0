"""The face for Keras: a rule as a keras.optimizers.Optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from steepest.optim.errors import MissingExtra
from steepest.optim.rule import Rule

try:
    import keras  # noqa: F401
except ImportError as error:
    raise MissingExtra(
        "steepest.keras needs Keras 3 and one of its backends: pip install 'steepest[keras]', and set "
        "KERAS_BACKEND to torch, or to jax or tensorflow where these are installed "
        f"(what failed: {error})"
    ) from error

from steepest.optim.engines.keras.optimizer import RuleOptimizer

__all__ = ["RuleOptimizer", "optimizer"]


def optimizer(
    rule: Rule | str,
    groups: Mapping[str, Rule | str] | None = None,
    *,
    rest: Rule | str | None = None,
    decay_all: bool = False,
    lr_scale: Mapping[str, float] | None = None,
    rounding: Literal["compensated", "nearest"] = "compensated",
    learning_rate: Any = None,
    **options: Any,
) -> RuleOptimizer:
    """A keras.optimizers.Optimizer that moves variables by a rule, on any backend of Keras 3.

    model.compile(optimizer(rules.Lion(lr=1e-4), clipnorm=1.0), loss="mse")

    rule: a Rule or the name of one. A rule of matrices, such as Muon, is given the hidden ones.
    groups: patterns of paths → rules, as in {"*embed*|*head*|*bias": "adamw"}; the first that fits.
    rest: the rule of what a rule of matrices is not given: embeddings, the last layer, biases, norms. Without
        it AdamW with that rule's weight decay and its rate, times the rule's `fallback_lr_ratio`.
    decay_all: let weight decay pull biases, norms and embeddings too.
    lr_scale: patterns of paths → factors of the learning rate; the first that fits.
    rounding: of bfloat16 variables. "compensated" keeps what rounding takes away (2 bytes a weight), so that
        steps smaller than a rounding add up; "nearest" drops it.
    learning_rate: in place of the rule's lr: a number, a keras or a steepest schedule.
    options: Keras' own: name, clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum,
        ema_overwrite_frequency, loss_scale_factor, gradient_accumulation_steps.

    Weight decay is the rule's own, and so is its meaning. `learning_rate` is a variable of Keras as ever;
    rules of groups keep their own. `factor` multiplies all of them. Steepest schedules are read at updates,
    those of Keras at batches. There is one count of updates for all weights: one without a gradient stays
    where it is, and its debiasing goes on. Rules of whole models sum over the weights that they move.
    Arithmetic and state are float32 for 16-bit variables, and the variable's own dtype otherwise."""
    return RuleOptimizer(
        rule,
        groups,
        rest=rest,
        decay_all=decay_all,
        lr_scale=lr_scale,
        rounding=rounding,
        learning_rate=learning_rate,
        **options,
    )
