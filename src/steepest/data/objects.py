"""Datasets and streams of the user's: read for what they hold, never changed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from steepest.data.arrays import answers_of, numpy, target_names
from steepest.data.batches import batches
from steepest.data.examples import Seeded
from steepest.data.rng import preserved
from steepest.data.source import Source, fingerprint
from steepest.data.view import Asked, Stream
from steepest.optim.errors import UserError


def dataset(data: Any) -> Source:
    """A map-style Dataset of (input, target) or (input, target, weight)."""
    if not len(data):
        raise UserError(f"The Dataset {type(data).__name__} has length 0: there are no examples.")
    target = answers_of(_targets(data), "target")
    return Source(
        view=Asked(data),
        name=type(data).__name__,
        inputs=data,
        target=target,
        targets=target_names(target),
        fingerprint=fingerprint(type(data).__qualname__, target),
    )


def stream(data: Any) -> Source:
    """A DataLoader or another iterable of batches (input, target). Read once for its targets where it has a
    length; else its first batch alone is looked at."""
    if iter(data) is data:
        raise UserError(
            "A generator can be read only once, and training reads the data every epoch. Give a DataLoader, "
            "or an "
            "object whose __iter__ starts anew."
        )
    made = batches(data)
    seen = list(islice(_answers(made.once()), made.per_epoch or 1))
    if not seen:
        raise UserError("The stream holds no batch: it ended at once.")
    target = answers_of(np.concatenate(seen), "target")
    return Source(
        view=Stream(data, len(target) if made.per_epoch else None),
        name=type(data).__name__,
        inputs=data,
        target=target,
        targets=target_names(target),
        fingerprint=fingerprint(type(data).__qualname__, made.per_epoch, target),
    )


def _targets(data: Any) -> np.ndarray:
    """Targets of every example: the attribute `targets` where there is one, else asked for one by one."""
    kept = getattr(data, "targets", None)
    if kept is not None and len(kept) == len(data):
        return numpy(kept)
    read = Seeded(data, 0)
    with preserved():
        return np.stack([numpy(_pair(read[0, index])[1]) for index in range(len(data))])


def _answers(updates: Iterator[list[Any]]) -> Iterator[np.ndarray]:
    with preserved():
        for microbatches in updates:
            yield from (numpy(_pair(batch)[1]) for batch in microbatches)


def _pair(example: Any) -> Any:
    if isinstance(example, tuple | list) and len(example) in (2, 3):
        return example
    raise UserError(
        f"Examples must be (input, target) or (input, target, weight), got {type(example).__name__}. "
        "For several inputs give ({'a': …, 'b': …}, target)."
    )
