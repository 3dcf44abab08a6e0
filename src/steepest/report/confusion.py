"""Which classes are taken for which."""

from __future__ import annotations

import numpy as np

from steepest.report import gallery
from steepest.report.markup import Markup, element, joined, number, share, table

CLASSES = 20
"""Most classes that a confusion matrix shows: those with the most mistakes."""

UPRIGHT = 4
"""Letters of a class name that fit over its column; longer ones are written upwards."""


def section(examples: dict[str, np.ndarray]) -> Markup:
    """Confusion matrix, most frequent mistakes, and mistakes one by one."""
    truth, guess = examples["truth"], examples["guess"]
    wrong = np.flatnonzero(truth != guess)
    if not len(wrong):
        return element(
            "p", f"All {number(len(truth))} test examples on record were classified rightly.", class_="lead"
        )
    lead = element(
        "p",
        f"{number(len(wrong))} of the {number(len(truth))} test examples on record were given a wrong class. "
        "Each row of the matrix holds the examples of one true class, each column those that the model took "
        "for that class; what lies off the diagonal is a mistake.",
        class_="lead",
    )
    beside = joined((element("h3", "most frequent mistakes"), _pairs(truth[wrong], guess[wrong])))
    both = element("div", element("div", _matrix(truth, guess)), element("div", beside), class_="beside")
    return joined((lead, both, gallery.section(examples, wrong)))


def _pairs(truth: np.ndarray, guess: np.ndarray) -> Markup:
    pairs, counts = np.unique(np.stack([truth.astype(str), guess.astype(str)], 1), axis=0, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:8]
    rows = ((*pairs[i], number(int(counts[i]))) for i in most)
    return table(("truly", "taken for", "times"), rows, "llr")


def confusion(truth: np.ndarray, guess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(classes in order, counts with the true class down and the guessed one across)."""
    classes, codes = np.unique(np.concatenate([truth, guess]), return_inverse=True)
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (codes[: len(truth)], codes[len(truth) :]), 1)
    return classes, counts


def _matrix(truth: np.ndarray, guess: np.ndarray) -> Markup:
    classes, counts = confusion(truth, guess)
    missed = counts.sum(1) + counts.sum(0) - 2 * counts.diagonal()
    shown = np.sort(np.argsort(-missed, kind="stable")[:CLASSES])
    note = ""
    if len(shown) < len(classes):
        note = f"The {CLASSES} classes with the most mistakes, of {len(classes)}."
    totals = np.maximum(counts.sum(1), 1)
    rows = (_row(classes[i], counts[i, shown], totals[i], list(shown).index(i)) for i in shown)
    columns = (element("th", element("span", name), scope="col") for name in classes[shown])
    corner, right = element("th", "true ↓ guessed →"), element("th", element("span", "right"), scope="col")
    tall = max(len(str(name)) for name in classes[shown]) > UPRIGHT
    grid = element(
        "table",
        element("thead", element("tr", corner, *columns, right)),
        element("tbody", *rows),
        class_="confusion tall" if tall else "confusion",
    )
    return joined((element("div", grid, class_="scroll"), element("p", note, class_="note") if note else ""))


def _row(name: object, counts: np.ndarray, total: int, diagonal: int) -> Markup:
    cells = (
        element(
            "td",
            int(count) if count else "",
            style=f"--part:{_tint(count / total)}",
            class_="right" if place == diagonal else "wrong",
        )
        for place, count in enumerate(counts)
    )
    right = element("td", share(counts[diagonal] / total), class_="share")
    return element("tr", element("th", name, scope="row", title=name), *cells, right)


def _tint(part: float) -> str:
    """Depth of a cell's colour in per cent: the root, so that a single mistake is still seen."""
    return f"{100 * part**0.5:.0f}%"
