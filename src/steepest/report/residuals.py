"""How far guessed numbers are off."""

from __future__ import annotations

import numpy as np

from steepest.report import plot
from steepest.report.markup import Markup, element, joined, number, table

POINTS = 1500
"""Most points of a scatter plot; of more, every k-th is shown."""


def section(examples: dict[str, np.ndarray]) -> Markup:
    """Guess over truth, the spread of the errors, and the farthest ones, for each target."""
    truth, guess = (examples[name].reshape(len(examples[name]), -1) for name in ("truth", "guess"))
    lead = element(
        "p",
        "Guess over truth: each point is one test example, and on the dashed line both are the same. "
        "Guess less truth: how often the guess was too low (left of zero) or too high (right of zero), "
        "and by how much.",
        class_="lead",
    )
    parts = (
        _target(truth[:, i].astype(float), guess[:, i].astype(float), i, truth.shape[1])
        for i in range(truth.shape[1])
    )
    return joined((lead, *parts))


def _target(truth: np.ndarray, guess: np.ndarray, place: int, targets: int) -> Markup:
    kept = np.isfinite(truth) & np.isfinite(guess)
    if not kept.any():
        return element("p", "No guess was finite.", class_="empty")
    sparse = slice(None, None, -(-int(kept.sum()) // POINTS))
    which = f" of target {place + 1}" if targets > 1 else ""
    left = plot.scatter(truth[kept][sparse], guess[kept][sparse], f"guess{which} over truth")
    right = plot.bars((guess - truth)[kept], f"how often each error{which} occurs")
    figures = (
        element("figure", element("h3", f"guess over truth{which}"), left),
        element("figure", element("h3", f"guess less truth{which}"), right),
    )
    return joined((element("div", *figures, class_="figures"), _farthest(truth, guess, which)))


def _farthest(truth: np.ndarray, guess: np.ndarray, which: str) -> Markup:
    error = guess - truth
    order = np.argsort(-np.abs(error), kind="stable")[:8]
    rows = (tuple(map(number, (int(i), float(truth[i]), float(guess[i]), float(error[i])))) for i in order)
    return joined(
        (
            element("h3", f"farthest off{which}"),
            table(("test example", "truth", "guess", "off by"), rows, "rrrr"),
        )
    )
