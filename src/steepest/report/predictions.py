"""What the model makes of the test examples on record: which classes it confuses, how far numbers are off."""

from __future__ import annotations

import base64
import io
from collections import Counter
from typing import Any

import numpy as np
from matplotlib.image import imsave

from steepest.report.figures import of_guesses
from steepest.report.records import Records
from steepest.report.rendering import number, share

CLASSES = 20
"""Most classes that a confusion matrix shows: those with the most mistakes."""

UPRIGHT = 4
"""Letters of a class name that fit over its column; longer ones are written upwards."""

WORST = 24
"""Most mistakes that are shown one by one."""

FREQUENT = 8
"""Most pairs of classes, or farthest errors, that are listed."""


def section(records: Records) -> dict[str, Any]:
    """{"targets": …} of guessed numbers, {"classes": …} of guessed classes; {} where none are on record."""
    examples = records.examples
    if not examples:
        return {}
    if not records.guesses_numbers:
        return {"classes": _classes(examples)}
    truth, guess = (examples[name].reshape(len(examples[name]), -1).T for name in ("truth", "guess"))
    pairs = zip(truth.astype(float), guess.astype(float), strict=True)
    names = [f" of target {place}" for place in range(1, len(truth) + 1)] if len(truth) > 1 else [""]
    return {"targets": [_numbers(*pair, which) for pair, which in zip(pairs, names, strict=True)]}


def _numbers(truth: np.ndarray, guess: np.ndarray, which: str) -> dict[str, Any]:
    """Figures of one target, and its farthest errors: (example, truth, guess, error)."""
    kept = np.isfinite(truth) & np.isfinite(guess)
    if not kept.any():
        return {"figures": ()}
    error = guess - truth
    order = np.argsort(-np.abs(error), kind="stable")[:FREQUENT]
    columns = (order, truth[order], guess[order], error[order])
    rows = zip(*(map(number, column.tolist()) for column in columns), strict=True)
    return {"figures": of_guesses(truth[kept], guess[kept], which), "which": which, "farthest": list(rows)}


def _classes(examples: dict[str, np.ndarray]) -> dict[str, Any]:
    """How many examples, which of them are mistakes, in a matrix, by frequency and one by one."""
    truth, guess = examples["truth"], examples["guess"]
    wrong = np.flatnonzero(truth != guess)
    if not len(wrong):
        return {"examples": len(truth), "wrong": 0}
    pairs = Counter(sorted(zip(truth[wrong].astype(str), guess[wrong].astype(str), strict=True)))
    return {
        "examples": len(truth),
        "wrong": len(wrong),
        "matrix": _matrix(truth, guess),
        "pairs": [(*pair, number(times)) for pair, times in pairs.most_common(FREQUENT)],
        "pictures": _pictures(examples) if "pictures" in examples else None,
        "listed": None if "pictures" in examples else _listed(examples, wrong),
    }


def confusion(truth: np.ndarray, guess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(classes in order, counts with the true class down and the guessed one across)."""
    classes, codes = np.unique(np.concatenate([truth, guess]), return_inverse=True)
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (codes[: len(truth)], codes[len(truth) :]), 1)
    return classes, counts


def _matrix(truth: np.ndarray, guess: np.ndarray) -> dict[str, Any]:
    """Of each class that is shown the counts, with the depth of their colour in per cent: the root of the
    share, so that a single mistake is still seen."""
    classes, counts = confusion(truth, guess)
    missed = counts.sum(1) + counts.sum(0) - 2 * counts.diagonal()
    shown = np.sort(np.argsort(-missed, kind="stable")[:CLASSES])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    depths = 100 * np.sqrt(shares)
    return {
        "names": classes[shown],
        "rows": [list(zip(counts[i, shown], depths[i, shown], strict=True)) for i in shown],
        "right": shares.diagonal()[shown],
        "of": len(classes),
        "tall": max(len(str(name)) for name in classes[shown]) > UPRIGHT,
    }


def _pictures(examples: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Pictures of mistakes as data addresses, as they are on record: the surest first."""
    found = []
    for picture, index in zip(examples["pictures"][:WORST], examples["picture_index"], strict=False):
        written = io.BytesIO()
        imsave(written, picture, format="png", cmap="gray", vmin=0, vmax=255)
        source = "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()
        sure = f"{share(float(examples['score'][index]))} sure" if "score" in examples else f"example {index}"
        told = {"truth": examples["truth"][index], "guess": examples["guess"][index], "sure": sure}
        found.append({"source": source, **told})
    return found


def _listed(examples: dict[str, np.ndarray], wrong: np.ndarray) -> list[tuple[Any, ...]]:
    """(example, truth, guess, how sure) of mistakes without pictures, the surest first."""
    sure = examples.get("score")
    order = wrong if sure is None else wrong[np.argsort(-sure[wrong], kind="stable")]
    said = (lambda i: "–") if sure is None else (lambda i: share(float(sure[i])))
    return [(number(int(i)), examples["truth"][i], examples["guess"][i], said(i)) for i in order[:WORST]]
