"""What a person hands over as objects, told apart from what a recipe can write down."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from steepest.optim import public_path, rules
from steepest.optim.batch import BatchPolicy, named
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule
from steepest.recipe import Recipe

MARK = "object "
"""Begins the entry of a recipe that stands for an object; it cannot be made anew from the text."""


@dataclass(frozen=True)
class Given:
    """Objects that take the place of a recipe's entry of the same name, and hooks, which have none."""

    data: Any = None
    val: Any = None
    test: Any = None
    model: nn.Module | Callable[..., nn.Module] | None = None
    loss: Callable[..., Any] | None = None
    rule: Rule | None = None
    schedule: Callable[[int], float] | None = None
    batch_size: BatchPolicy | None = None
    augment: Callable[..., Any] | None = None
    sample_weight: Any = None
    split_by: Any = None
    metrics: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    log: Sequence[Any] = ()
    on_step: Callable[..., Any] | None = None
    on_evaluation: Callable[..., Any] | None = None

    def of(self, recipe: Recipe, name: str) -> Any:
        """The object of that name, else the recipe's entry. Raises UserError where the object is missing."""
        value = getattr(self, name)
        entry = getattr(recipe, name)
        if value is None and isinstance(entry, str) and entry.startswith(MARK):
            kind = entry.removeprefix(MARK)
            raise UserError(
                f"This run's {name} was an object of Python ({kind}), which a recipe cannot hold. "
                f"Hand it over again: steepest.resume(folder, {name}=…) or steepest.fit(…, {name}=…)."
            )
        return entry if value is None else value

    def data_objects(self) -> dict[str, Any]:
        """The data that were objects, by the name they were given under."""
        return {name: one for name in DATA if (one := getattr(self, name)) is not None}

    def apart(self) -> Given:
        """The same with a copy of a network that was handed over: the person's own stays as it is."""
        return replace(self, model=deepcopy(self.model)) if isinstance(self.model, nn.Module) else self


DATA = ("data", "val", "test", "sample_weight", "split_by")
"""What rows are made of."""
HOOKS = ("metrics", "log", "on_step", "on_evaluation")
OBJECTS = tuple(f.name for f in fields(Given) if f.name not in HOOKS)


def separate(settings: Mapping[str, Any]) -> tuple[dict[str, Any], Given]:
    """(settings that a recipe can write down, the objects) of what was given to `fit` or `resume`."""
    written = {key: value for key, value in settings.items() if key not in HOOKS}
    given = Given(**{key: settings[key] for key in HOOKS if settings.get(key) is not None})
    _check_hooks(given)
    for name in OBJECTS:
        value = written.get(name)
        if isinstance(value, str | Path):
            written[name] = _as_written(name, str(value))
        elif name == "batch_size" and isinstance(value, BatchPolicy) and _says_all(value):
            written[name] = str(value)
        elif name == "rule" and isinstance(value, Rule):
            told = _of_rule(value, written)
            if written.get("hyper") and written["hyper"] != told["hyper"]:  # a run's recipe has the same
                raise UserError("Give hyper= with the name of a rule; a Rule object holds its own numbers.")
            written |= told
            given = replace(given, rule=value) if told["rule"].startswith(MARK) else given
        elif name == "rule" and value is not None:
            got = getattr(value, "__name__", type(value).__name__)
            raise UserError(
                f'rule must be a name, such as "lion", or a Rule, rules.Lion(lr=1e-4); got {got}.'
            )
        elif value is not None and not isinstance(value, int | float):
            written[name] = _described(value)
            given = replace(given, **{name: value})
    return written, given


def _says_all(policy: BatchPolicy) -> bool:
    """Whether the text of a policy stands for the same one."""
    try:
        return named(str(policy)) == policy
    except UserError:
        return False


def _check_hooks(given: Given) -> None:
    """What is called in the course of a run must be callable before it."""
    if not isinstance(given.metrics, Mapping):
        got = type(given.metrics).__name__
        raise UserError(f"metrics must be a dict of name: function(outputs, target), got {got}.")
    for name in ("on_step", "on_evaluation"):
        hook = getattr(given, name)
        if hook is not None and not callable(hook):
            raise UserError(f"{name} must be a function, got {type(hook).__name__}.")
    if not isinstance(given.log, Sequence):
        raise UserError(f"log must be a list of loggers, got {type(given.log).__name__}. Write log=[logger].")
    for logger in given.log:
        lacks = [name for name in ("config", "log", "close") if not callable(getattr(logger, name, None))]
        if lacks:
            raise UserError(
                f"The logger {type(logger).__name__} has no method {lacks[0]}. A logger has config(dict), "
                "log(dict, step) and close(status)."
            )


def _as_written(name: str, text: str) -> str:
    """A file of the current folder gets a leading "./": so files are told from names."""
    may_be = name in ("data", "val", "test") and not text.startswith(MARK)
    is_file = may_be and Path(text).suffix and not os.path.dirname(text)
    return f"./{text}" if is_file else text


def _described(value: Any) -> str:
    """The import path of a function or class, which repeats it; "object …" for anything else."""
    name, module = getattr(value, "__qualname__", None), getattr(value, "__module__", None)
    if name and name.isidentifier() and module not in (None, "__main__") and not isinstance(value, nn.Module):
        return f"{public_path(str(module))}:{name}"
    return f"{MARK}{public_path(type(value).__module__)}.{type(value).__qualname__}"


def _of_rule(rule: Rule, written: Mapping[str, Any]) -> dict[str, Any]:
    values = {f.name: getattr(rule, f.name) for f in fields(rule) if not callable(getattr(rule, f.name))}
    own = {key: values.pop(key) for key in ("lr", "weight_decay") if key in values}
    taken = {key: value for key, value in own.items() if written.get(key) is None}
    name, repeats = rules.name_of(rule), rules.repeats(rule) and not _scheduled(rule)
    return {"rule": name if repeats else f"{MARK}{name}", "hyper": values, **taken}


def _scheduled(rule: Rule) -> bool:
    return any(callable(getattr(rule, name)) for name in rule.numbers())
