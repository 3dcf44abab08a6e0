"""Targets for tests that need one without data."""

from collections.abc import Sequence

from steepest.tasks import Target
from steepest.tasks.classification import Classes
from steepest.tasks.multilabel import Labels
from steepest.tasks.regression import Numbers


def posed(kind: str, outputs: int = 1, scale: float | Sequence[float] = 1.0) -> Target:
    """A target of that kind: so many classes, labels or numbers."""
    names = tuple(f"target{i}" for i in range(outputs))
    if kind == "regression":
        scales = (scale,) * outputs if isinstance(scale, float) else tuple(scale)
        return Numbers(names, (0.0,) * outputs, scales, "as asked")
    if kind == "multilabel":
        return Labels(names, "as asked")
    classes = 2 if kind == "binary" else outputs
    return Classes(("target",), tuple(map(str, range(classes))), "as asked")
