"""The update rules, one class a formula, and their names."""

from dataclasses import fields
from typing import Any

from steepest.errors import UserError, did_you_mean
from steepest.rule import Rule
from steepest.rules.adagrad import Adadelta, Adagrad
from steepest.rules.adam import Adam, Adamax, AdamW, AMSGrad, AMSGradW
from steepest.rules.lion import Lion
from steepest.rules.nadam import NAdam, NAdamW
from steepest.rules.rmsprop import RMSprop, RMSpropCentered, RMSpropCenteredMomentum, RMSpropMomentum
from steepest.rules.sgd import SGD, Momentum, Nesterov

RULES: tuple[type[Rule], ...] = (
    SGD,
    Momentum,
    Nesterov,
    Adagrad,
    Adadelta,
    RMSprop,
    RMSpropMomentum,
    RMSpropCentered,
    RMSpropCenteredMomentum,
    Adam,
    AdamW,
    AMSGrad,
    AMSGradW,
    Adamax,
    NAdam,
    NAdamW,
    Lion,
)


def registry() -> dict[str, type[Rule]]:
    """Every rule by its name in recipes and on the command line: that of its class, in lower case."""
    return {rule.__name__.lower(): rule for rule in RULES}


def named(name: str, **hyper: Any) -> Rule:
    """The rule of that name, with these hyperparameters and its own defaults for the rest."""
    rules = registry()
    rule = rules.get(name.lower().replace("_", "").replace("-", ""))
    if rule is None:
        raise UserError(f"There is no update rule {name!r}.{did_you_mean(name.lower(), rules)}")
    known = [field.name for field in fields(rule)]
    for word in hyper:
        if word not in known:
            raise UserError(f"{rule.__name__} has no hyperparameter {word!r}.{did_you_mean(word, known)}")
    return rule(**hyper)
