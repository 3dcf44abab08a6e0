"""The run in words: what came out, how sure that is, how it went."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

import numpy as np

from steepest.report.records import Records
from steepest.report.rendering import duration, measured, number, share

STATUS = {"finished": "finished", "stopped": "stopped early", "failed": "failed"}
"""Status in result.json → words on the page; anything else is an unfinished run."""


def status(records: Records) -> str:
    """How the run ended, in a word or two."""
    return STATUS.get(str(records.result.get("status")), "not finished")


def headline(records: Records) -> str:
    """The one sentence to take home."""
    names = ("accuracy", "r2", "rmse", "loss")
    told = {name: records.metrics.get(f"test/{name}") for name in names}
    known = {name: float(value) for name, value in told.items() if _is_finite(value)}
    unseen = "On examples it had never seen, the model"
    if "accuracy" in known:
        return f"{unseen} is right {share(known['accuracy'])} of the time."
    if known.get("r2", 0) > 0:
        return f"{unseen} explains {share(known['r2'])} of the variation."
    if "rmse" in known:
        return f"{unseen} is off by {number(known['rmse'])} (root mean square)."
    if "loss" in known:
        return f"{unseen} has a loss of {number(known['loss'])}."
    return _untested(records)


def sentences(records: Records) -> dict[str, str]:
    """What a reader should know beside the headline, by topic; only what the records support."""
    said = {
        "Doubts": doubts(records),
        "How sure": _certainty(records),
        "Yardstick": _yardstick(records),
        "Kept weights": _kept(records),
        "The end": _ending(records),
        "On the way": _events(records),
        "Over-fitting": _gap(records),
        "What next": _continuing(records),
    }
    return {topic: sentence for topic, sentence in said.items() if sentence}


def doubts(records: Records) -> str:
    """What the look before training found amiss: a run may end well in all else and have learnt nothing."""
    looked = [one for one in records.evidence if one.get("choice") == "sanity"]
    if not looked or looked[-1].get("decided") != "doubtful":
        return ""
    return f"The look before training found cause for doubt: {looked[-1].get('why')}."


def tiles(records: Records) -> list[tuple[str, str]]:
    """Numbers for the head of the page: (value, what it is)."""
    metrics, result = records.metrics, records.result
    ranked = [name for name in metrics if name.startswith("test/") and name != "test/loss"][:2]
    found = [
        (measured(name, metrics[name]), name.replace("/", " "))
        for name in [*ranked, "test/loss"]
        if name in metrics
    ]
    last = records.history.row(-1) | result
    told = {"best step": records.best_step, "steps": last.get("step"), "training time": last.get("seconds")}
    written = {"training time": duration}
    return found + [(written.get(n, number)(v), n) for n, v in told.items() if v is not None]


def interval(right: int, of: int) -> tuple[float, float]:
    """95 % interval of a share.   Wilson 1927: (p + z²/2n ± z√(p(1-p)/n + z²/4n²)) / (1 + z²/n)"""
    z, p = 1.959964, right / of
    middle, half = p + z * z / (2 * of), z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    scale = 1 + z * z / of
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def _untested(records: Records) -> str:
    if status(records) == "failed":
        return "This run failed before its model could be tested."
    last = records.history.row(-1)
    where = f" Its last evaluation is that of step {number(last['step'])}." if "step" in last else ""
    if status(records) == "finished":
        return "The model was trained; no test of it is on record."
    return f"This run has not come to its test.{where}"


def _certainty(records: Records) -> str:
    if not records.examples or records.guesses_numbers:
        return ""
    truth, guess = records.examples["truth"], records.examples["guess"]
    if not len(truth):
        return ""
    right = int((truth == guess).sum())
    low, high = interval(right, len(truth))
    return (
        f"{number(right)} of the {number(len(truth))} test examples on record were right. From so many, the "
        f"accuracy on others like them lies between {share(low)} and {share(high)} (95 % interval)."
    )


def _yardstick(records: Records) -> str:
    truth = records.examples.get("truth")
    if truth is None or not len(truth) or truth.ndim > 1:
        return ""
    if records.guesses_numbers:
        spread = float(np.std(truth.astype(float)))
        return f"Always guessing the mean of the test examples would be off by {number(spread)}."
    classes, counts = np.unique(truth, return_counts=True)
    most = int(counts.argmax())
    return (
        f"Always answering “{classes[most]}”, the most frequent class, "
        f"would be right {share(float(counts[most] / len(truth)))} of the time."
    )


def _kept(records: Records) -> str:
    best = records.best_step
    row = records.history.at(best)
    monitor = str(records.recipe.get("monitor", "val/loss"))
    if best is None:
        return ""
    whole = "of the run" if records.result else "so far"
    value = f", with {monitor} {measured(monitor, row[monitor])}" if monitor in row else ""
    epoch = f" (epoch {number(row['epoch'])})" if "epoch" in row else ""
    return f"The weights kept are those of step {number(best)}{epoch}{value}: the best evaluation {whole}."


def _ending(records: Records) -> str:
    why = str(records.result.get("why") or "").strip()
    if not why:
        return ""
    begun = {"failed": "It failed", "not finished": "It ended"}.get(status(records), "Training ended")
    return f"{begun}: {why.rstrip('.')}."


def _gap(records: Records) -> str:
    """Over-fitting, said where the loss on new examples is well above that on the model's own."""
    row = records.history.at(records.best_step)
    train, val = row.get("train/loss", math.nan), row.get("val/loss", math.nan)
    if not (train > 0 and val > 1.5 * train):
        return ""
    return (
        f"At the best step the loss on validation examples was {val / train:.1f} times that on training "
        "examples: the model knows its own examples better than new ones. More data, augmentation, dropout "
        "or weight decay narrow that gap."
    )


def _continuing(records: Records) -> str:
    if status(records) in ("finished", "failed"):
        return ""
    return f"The command steepest resume {records.place} continues this run from its last whole checkpoint."


def _events(records: Records) -> str:
    words = {
        "decay": "the learning rate was lowered {}, each time from the best weights on",
        "raise": "the learning rate was raised {}",
        "rewind": "training went back to the last good weights {}",
        "guard": "the guard kept a loss or gradient that was not finite from the weights {}",
        "memory": "memory ran out {}, and updates were made in smaller parts from there on",
    }
    occasions = records.history.occasions()
    said = [
        sentence.format(_times(len(occasions[event])))
        for event, sentence in words.items()
        if event in occasions
    ]
    written = "; ".join(said)
    return f"{written[:1].upper()}{written[1:]}." if said else ""


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _is_finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)
