"""The section of metrics: the final table, and every evaluation behind it."""

from __future__ import annotations

import numpy as np

from steepest.report.history import History
from steepest.report.markup import Markup, element, joined, measured, table
from steepest.report.records import Records

ROWS = 60
"""Most rows of metrics.csv listed; of more, those with an event and evenly spaced others."""

PARTS = ("test", "val", "train")

TESTED = "Test examples were looked at once, at the end: theirs are the numbers to trust. "
CHOSEN = (
    "Validation examples chose the best step, training examples set the weights; "
    "their numbers are those of that step."
)


def section(records: Records) -> Markup:
    """Final metrics by part of the data, with the course of training folded away below."""
    final = dict(records.metrics)
    for name, value in records.history.at(records.best_step).items():
        final.setdefault(name, value)
    names = list(dict.fromkeys(n.partition("/")[2] for n in final if n.partition("/")[0] in PARTS))
    if not names:
        return joined((element("p", "No metrics are on record.", class_="lead"), _course(records.history)))
    tested = any(name.startswith("test/") for name in final)
    lead = element("p", TESTED if tested else "", CHOSEN, class_="lead")
    rows = ((name, *(measured(name, final.get(f"{part}/{name}")) for part in PARTS)) for name in names)
    head = ("", "test", "validation", "training")
    return joined((lead, table(head, rows, "lrrr"), _course(records.history)))


def _course(history: History) -> Markup:
    if not len(history):
        return Markup("")
    picked, names = pick(history), list(history.columns)
    cells = ([*(measured(n, float(history.columns[n][i])) for n in names), history.events[i]] for i in picked)
    title = f"all {len(history)} rows of metrics.csv"
    if len(picked) < len(history):
        title = f"{len(picked)} of the {len(history)} rows of metrics.csv"
    shown = table((*names, "event"), cells, "r" * len(names) + "l")
    return element("details", element("summary", title), shown)


def pick(history: History) -> list[int]:
    """Rows to list: all, or else those with an event other than a gain and evenly spaced ones."""
    if len(history) <= ROWS:
        return list(range(len(history)))
    eventful = [i for i, event in enumerate(history.events) if event not in ("", "improved")][: ROWS // 2]
    spaced = np.linspace(0, len(history) - 1, ROWS - len(eventful)).round().astype(int)
    return sorted({*eventful, *spaced.tolist()})
