"""The section of curves: how the metrics, the rate and the gradient went."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from steepest.report import plot
from steepest.report.history import History
from steepest.report.markup import Markup, element, joined
from steepest.report.records import Records

EVENTS = {
    "decay": ("decay", "rate lowered, from the best weights on"),
    "raise": ("raise", "rate raised"),
    "rewind": ("rewind", "back to the last good weights"),
    "guard": ("guard", "guard stepped in"),
    "memory": ("memory", "memory ran out, in smaller parts from here on"),
}
"""Event in metrics.csv → colour and words."""

MEANINGS = {
    "loss": "what training makes smaller",
    "accuracy": "share of right answers",
    "precision": "of what was taken for a class, the share that is of it",
    "recall": "of what is of a class, the share that was found",
    "f1": "precision and recall in one number",
    "rmse": "typical error, large ones weighing more",
    "mae": "mean size of an error",
    "r2": "share of the variation explained",
    "lr": "length of a step",
    "grad_norm": "steepness of the loss",
}
"""What a curve shows, for people who see one for the first time."""

TITLES = {"lr": "learning rate", "grad_norm": "gradient norm"}


def section(records: Records) -> Markup:
    """All curves, each beside a legend of its own."""
    history = records.history
    if not len(history):
        return element("p", "No evaluation was recorded, so there is no curve to draw.", class_="lead")
    metrics = (_metric(records, title, names) for title, names in history.metrics().items())
    steering = (_steering(history, name) for name in ("lr", "grad_norm") if name in history.columns)
    lead = element(
        "p",
        "Each point is one evaluation; to the right is later, counted in steps: one step is one update of "
        "the weights. Training values come from the examples that the model learns from, validation values "
        "from examples set aside.",
        class_="lead",
    )
    return joined((lead, _events(history), element("div", *metrics, *steering, class_="figures")))


def marks(history: History) -> dict[str, list[float]]:
    """Steps of the events worth a line, by the colour of the line."""
    occasions = history.occasions()
    return {tone: occasions[event] for event, (tone, _) in EVENTS.items() if event in occasions}


def _events(history: History) -> Markup:
    """The legend that all figures share."""
    shown = marks(history)
    keys = (
        _key("mark", tone, f"{said}, {len(shown[tone])}×") for tone, said in EVENTS.values() if tone in shown
    )
    return element("p", *keys, class_="keys") if shown else Markup("")


def _metric(records: Records, title: str, names: list[str]) -> Markup:
    history = records.history
    best = history.at(records.best_step).get(f"val/{title}")
    ring = (records.best_step, best) if best is not None and records.best_step is not None else None
    words = {name: (_colour(name), _part(name)) for name in names}
    return _figure(title, history, words, ring)


def _steering(history: History, name: str) -> Markup:
    return _figure(name, history, {name: ("other", "")}, None)


def _figure(
    name: str, history: History, words: Mapping[str, tuple[str, str]], ring: tuple[float, float] | None
) -> Markup:
    """words: column → (colour, label); `name` gives the heading."""
    steps = history.columns["step"]
    lines = [plot.Line(tone, steps, history.columns[column]).finite() for column, (tone, _) in words.items()]
    title = TITLES.get(name, name)
    if not any(len(line.y) for line in lines):
        return element(
            "figure", _heading(title, name, False), element("p", "It was never finite.", class_="empty")
        )
    drawn = plot.lines(lines, marks(history), ring, f"{title} over the steps of training")
    wide = plot.is_wide(np.concatenate([line.y for line in lines]))
    gaps = sum(len(steps) - len(line.y) for line in lines) if name == "grad_norm" else 0
    return element("figure", _heading(title, name, wide), drawn, _legend(words, ring, gaps))


def _heading(title: str, name: str, wide: bool) -> Markup:
    said = ", ".join(filter(None, (MEANINGS.get(name, ""), "logarithmic scale" if wide else "")))
    return element("h3", title, " ", element("small", said))


def _legend(words: Mapping[str, tuple[str, str]], ring: object, gaps: int) -> Markup:
    keys = [_key("line", tone, said) for tone, said in words.values() if said]
    keys += [_key("ring", "val", "best: these weights were kept")] if ring else []
    keys += [element("span", f"not drawn, as not finite: {gaps}")] if gaps else []
    return element("figcaption", *keys, class_="keys")


def _key(shape: str, tone: str, said: str) -> Markup:
    return element("span", element("i", class_=shape, style=f"--tone:var(--{tone})"), said)


def _colour(column: str) -> str:
    part = column.partition("/")[0]
    return part if part in ("train", "val") else "other"


def _part(column: str) -> str:
    return {"train": "training", "val": "validation"}.get(column.partition("/")[0], column)
