"""The section of mistakes on the test examples."""

from __future__ import annotations

import numpy as np

from steepest.report import confusion, residuals
from steepest.report.markup import Markup, element
from steepest.report.records import Records


def section(records: Records) -> Markup:
    """Confused classes or errors of numbers, by what the model guesses."""
    if not records.examples:
        return element("p", "There are no single predictions to show.", class_="lead")
    shown = residuals if is_numeric(records) else confusion
    return shown.section(records.examples)


def is_numeric(records: Records) -> bool:
    """Whether the guesses are numbers on a scale rather than classes."""
    return bool(records.examples) and np.issubdtype(records.examples["guess"].dtype, np.floating)
