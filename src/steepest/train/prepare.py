"""From a recipe's data to three parts that batches can be made of; nothing is learnt from two of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from steepest import tasks
from steepest.data import missing, sources
from steepest.data.batches import Held
from steepest.data.rng import preserved
from steepest.data.source import Source
from steepest.data.split import Split, split
from steepest.evidence import Evidence
from steepest.models.import_path import imported
from steepest.optim.errors import UserError
from steepest.recipe import Recipe
from steepest.tasks import Target
from steepest.train import preprocessing
from steepest.train.given import Given
from steepest.train.preprocessing import Preprocessing

SKIPPED = "Batches come in the loader's own order: a resumed run reads again, and skips, what it has seen."


@dataclass(frozen=True)
class Prepared:
    """Data ready for training.

    train, val, test  what `batches` takes; val and test are None where there is no such part
    sizes             examples by part;   weights  of the classes, or None
    """

    source: Source
    preprocessing: Preprocessing
    train: Any
    val: Any
    test: Any
    sizes: dict[str, int | None]
    weights: tuple[float, ...] | None
    evidence: tuple[Evidence, ...]

    @property
    def target(self) -> Target:
        """What is to be learnt."""
        return self.preprocessing.target

    def sentences(self) -> list[str]:
        """Lines for the start page."""
        own_order = [SKIPPED] if self.source.view.own_order else []
        return [*self.source.notes, *self.preprocessing.sentences(), *own_order]


def prepare(recipe: Recipe, given: Given) -> Prepared:
    """Read, infer, split, and fit the preprocessing on the training part alone."""
    source = read(recipe, given, "data")
    _check_same(recipe, source)
    posed = tasks.pose(source, recipe.task, recipe.task_args)
    val, test = (_own_part(recipe, given, name) for name in ("val", "test"))
    parts = split(source, posed, val, test, recipe.split, recipe.seed)
    held = {"train": source, "val": _source_of(val, source), "test": _source_of(test, source)}
    rows = {name: getattr(parts, name) for name in held}
    taught = preprocessing.take(source.inputs, parts.train) if source.view.held else None
    fitted = preprocessing.fit(
        source,
        posed,
        parts.train,
        recipe.scale,
        recipe.impute,
        scale_target=_known_loss(recipe, given),
        kind_args=recipe.kind_args,
        embeds=_embeds(recipe, given, taught, posed),
        inputs=taught,
    )
    taken = {"train": taught, "val": None, "test": None}
    made = {name: _examples(fitted, held[name], rows[name], taken.pop(name)) for name in held}
    made = _of_mean_one(made if source.weight is not None else _without_equal_weights(made))
    return Prepared(
        source=source,
        preprocessing=fitted,
        **made,
        sizes={name: _size(held[name], rows[name]) for name in held if made[name] is not None},
        weights=_class_weights(recipe, source, fitted, parts),
        evidence=(
            Evidence("task", posed.kind, posed.why),
            Evidence("split", parts.how, parts.why),
            *_gaps(held, rows, recipe),
        ),
    )


def read(recipe: Recipe, given: Given, name: str) -> Source:
    """The source behind the entry `name`, with the recipe's columns."""
    return sources.read(
        given.of(recipe, name),
        recipe.target,
        features=recipe.features,
        drop=recipe.drop,
        sample_weight=_sample_weight(recipe, given, name),
        split_by=given.of(recipe, "split_by") if name == "data" else None,
    )


def _gaps(
    held: Mapping[str, Source | None], rows: Mapping[str, np.ndarray], recipe: Recipe
) -> tuple[Evidence, ...]:
    """What is missing in rows that can be looked at beforehand."""
    seen = {
        name: (one.inputs, rows[name])
        for name, one in held.items()
        if one is not None and one.view.held and len(rows[name])
    }
    if "train" not in seen:
        return ()
    train = seen.pop("train")
    found = missing.told(*train, recipe.impute, list(seen.values()))
    return (Evidence("impute", recipe.impute, found),) if found else ()


def _sample_weight(recipe: Recipe, given: Given, name: str) -> Any:
    """A column counts in every part; an array is that of the data alone, others bring their own."""
    if name != "data" and given.sample_weight is not None:
        return None
    return given.of(recipe, "sample_weight")


def _own_part(recipe: Recipe, given: Given, name: str) -> float | Source:
    part = given.of(recipe, name)
    return float(part) if isinstance(part, int | float) else read(recipe, given, name)


def _source_of(part: float | Source, whole: Source) -> Source:
    return part if isinstance(part, Source) else whole


def _examples(fitted: Preprocessing, source: Source, rows: np.ndarray, inputs: Any) -> Any:
    return fitted.examples(source, rows, inputs) if len(rows) or source.examples is None else None


def parts_of(part: Any) -> tuple[Any, ...]:
    """(inputs, target) or (inputs, target, weight) of a part that is held in memory; () of any other."""
    return part.data if isinstance(part, Held) else part if isinstance(part, tuple) else ()


def _with(part: Any, parts: tuple[Any, ...]) -> Any:
    return replace(part, data=parts) if isinstance(part, Held) else parts


def _without_equal_weights(parts: dict[str, Any]) -> dict[str, Any]:
    """Examples that all bring as many terms to the loss need no weights, which not every loss can take."""
    weights = [held[2] for part in parts.values() if len(held := parts_of(part)) > 2]
    if not weights or any((weight != weights[0][0]).any() for weight in weights):
        return parts
    return {name: _with(part, held[:2]) if (held := parts_of(part)) else part for name, part in parts.items()}


def _of_mean_one(parts: dict[str, Any]) -> dict[str, Any]:
    """Sample weights over their training mean: their unit must not act as a factor on the learning rate."""
    if len(train := parts_of(parts["train"])) < 3:
        return parts
    for name, part in parts.items():
        _check_weights(name, part)
    mean = train[2].mean()
    return {
        name: part and _with(part, (*(held := parts_of(part))[:2], held[2] / mean))
        for name, part in parts.items()
    }


def _check_weights(name: str, part: Any) -> None:
    """Every part must weigh something, in float32; and have weights at all."""
    if part is None:
        return
    if len(held := parts_of(part)) < 3:
        raise UserError(
            f"The training data have sample weights and {name} has none. Write {name}=(X, y, weight)."
        )
    total = float(held[2].sum())
    if not 0 < total < float("inf"):
        raise UserError(
            f"The sample weights of the part {name!r} add up to {total:g} as 32-bit numbers, so nothing can "
            "be averaged with them. Give weights around 1, above 0 in every part."
        )


def _size(source: Source, rows: np.ndarray) -> int | None:
    return None if source.examples is None else len(rows)


def _class_weights(
    recipe: Recipe, source: Source, fitted: Preprocessing, parts: Split
) -> tuple[float, ...] | None:
    if recipe.class_weight is None or source.target is None:
        return None
    return fitted.target.class_weights(recipe.class_weight, fitted.target.encode(source.target[parts.train]))


def _known_loss(recipe: Recipe, given: Given) -> bool:
    """Whether the loss is one of the house's, which may meet numbers in another unit."""
    loss = given.of(recipe, "loss")
    return isinstance(loss, str) and ":" not in loss


def _check_same(recipe: Recipe, source: Source) -> None:
    """A recipe that was run before knows its data by their fingerprint."""
    if recipe.data_fingerprint not in (None, source.fingerprint):
        raise UserError(
            f"The data {source.name!r} are not those that this recipe was made with: their content, or the "
            "columns that are taken from them, differ. "
            'Restore them, or set data_fingerprint = "none" to take the new content.'
        )


def _embeds(recipe: Recipe, given: Given, inputs: Any, target: Target) -> bool:
    """Whether the person's network has an embedding; one that a function makes is made without memory."""
    asked = given.of(recipe, "model")
    if isinstance(asked, str) and ":" not in asked:
        return False
    if not isinstance(asked, nn.Module):
        asked = _made(asked, inputs, target)
    return asked is not None and any(
        isinstance(one, nn.Embedding | nn.EmbeddingBag) for one in asked.modules()
    )


def _made(asked: Any, inputs: Any, target: Target) -> nn.Module | None:
    """What a function makes for whole numbers, on no device; None for other inputs, and where it cannot."""
    if not isinstance(inputs, np.ndarray) or inputs.dtype.kind not in "iu":
        return None
    outputs = target.shape(target.layouts[0])[0] or 1
    try:
        with preserved(), torch.device("meta"):
            return (imported(asked) if isinstance(asked, str) else asked)(inputs.shape[1:], outputs)
    except Exception:  # whatever it is, it is said where the network is made in earnest
        return None
