"""The start page: what will happen, and why, before anything happens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import nn

from steepest.evidence import Evidence
from steepest.recipe import Recipe
from steepest.train import settled
from steepest.train.given import MARK

LAYERS = 12
"""Most layers named one by one."""


def lines(
    recipe: Recipe,
    task_sentences: Sequence[str],
    model: nn.Module,
    optimizer_summary: Sequence[str],
    sizes: Mapping[str, int | None],
    evidence: Sequence[Evidence],
) -> RenderableType:
    """The page, ready for rich to print. sizes: part of the data → its examples, None where unknown."""
    parts = {
        "data": (*task_sentences, shares(sizes)),
        "model": (weights(model), layers(model)),
        "descent": (*optimizer_summary, descent(recipe)),
        "stopping": (length(recipe), stopping(recipe)),
        "chosen": tuple(map(str, evidence)),
    }
    page = Table.grid(padding=(0, 2))
    page.add_column(style="dim", no_wrap=True)
    page.add_column()
    for name, sentences in parts.items():
        _add(page, name, sentences)
    return Group(Text(f"steepest fit {_trained_on(recipe.data)}", style="bold"), page)


def _trained_on(data: str) -> str:
    """What is trained on: its name or path, or what kind of thing in memory it is."""
    if not data.startswith(MARK):
        return data
    return f"({data.removeprefix(MARK).removeprefix('builtins.')} in memory)"


def shares(sizes: Mapping[str, int | None]) -> str:
    """How many examples each part has."""
    counted = ", ".join(
        f"{name} {'unknown' if size is None else f'{size:,}'}" for name, size in sizes.items()
    )
    tested = " The test part is looked at once, at the end." if "test" in sizes else ""
    return f"Examples: {counted}.{tested}"


def weights(model: nn.Module) -> str:
    """How many numbers will be trained, and how many stay as they are."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    return f"{trained:,} weights to train" + (f", {frozen:,} frozen." if frozen else ".")


def layers(model: nn.Module) -> str:
    """Its layers by kind, in order of definition."""
    kinds = [type(module).__name__ for module in model.modules() if not any(module.children())]
    more = f" and {len(kinds) - LAYERS} more" if len(kinds) > LAYERS else ""
    return f"Layers: {', '.join(kinds[:LAYERS])}{more}."


def descent(recipe: Recipe) -> str:
    """The loss, the batches and the course of the rate."""
    batch = "all examples at once" if recipe.batch_size == "full" else f"batches {_of(recipe.batch_size)}"
    cut = f", each in {recipe.accumulate} parts" if recipe.accumulate > 1 else ""
    drawn = f"seed {recipe.seed}, on {recipe.device}"
    return f"Loss {recipe.loss}, {batch}{cut}, schedule {recipe.schedule}, {drawn}."


def _of(size: int | str) -> str:
    return f"of {size}" if isinstance(size, int) else size.removeprefix("object ")


def length(recipe: Recipe) -> str:
    """How long at most, and what is watched."""
    every = recipe.evaluate_every.removeprefix("1 ")
    better = {"min": "; less is better", "max": "; more is better"}.get(recipe.mode, "")
    return f"At most {recipe.budget}; {recipe.monitor} is measured every {every}{better}."


def stopping(recipe: Recipe) -> str:
    """What happens when descent no longer helps; a settled recipe without patience never stops for that."""
    if recipe.patience is None:
        return "Training runs to that end; the best weights are kept."
    waited = f"After {recipe.patience} evaluations without gain"
    if not settled.lowers(recipe) or not recipe.max_decays:
        return f"{waited} training stops."
    times = {1: "once", 2: "twice"}.get(recipe.max_decays, f"{recipe.max_decays} times")
    return (
        f"{waited} it goes back to the best weights and the rate falls to {recipe.decay_factor:g} of itself; "
        f"where that has not helped {times} in a row, training stops."
    )


def _add(page: Table, name: str, sentences: Iterable[str]) -> None:
    for place, sentence in enumerate(filter(None, sentences)):
        page.add_row("" if place else name, Text(sentence))
