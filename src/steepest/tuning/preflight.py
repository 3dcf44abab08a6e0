"""Before a search: do the data repeat, is the loss finite, do gradients reach every weight?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, repeat
from typing import Any

import torch

from steepest.data import rng
from steepest.data.batches import Batches
from steepest.data.tree import Tree, leaves, moved
from steepest.evidence import Evidence
from steepest.optim.errors import UserError
from steepest.train import formulas, memory
from steepest.train.job import Job
from steepest.tuning.constants import PREFLIGHT_SHARE
from steepest.tuning.trial import SingleSteps, Trial

NAMED = 5
"""Most weights named one by one."""

OVERFITTED = 20
"""Updates on one batch that must lower its loss."""

COMPARED = 2
"""Updates whose batches are read twice."""


class Again:
    """The first update of some batches, again and again."""

    def __init__(self, source: Batches) -> None:
        self.examples, self.per_epoch, self.epoch = source.examples, source.per_epoch, 0
        self.resumes_by, self.varied = source.resumes_by, None
        self._window = next(source.once())

    def start(self, position: int = 0) -> Iterator[list[Tree]]:
        """The same microbatches without end."""
        return repeat(self._window)

    def once(self) -> Iterator[list[Tree]]:
        """The same for one pass."""
        return repeat(self._window, self.per_epoch or 1)


def read_once(job: Job) -> bool:
    """Whether the data are gone when they have been read."""
    stream: Any = getattr(job.source, "stream", None)
    return stream is not None and iter(stream) is stream


def readable_again(job: Job) -> str:
    """Why the data cannot serve candidates in the same order one after another; empty where they can."""
    if read_once(job):
        return "the data can be read once only, so that arms cannot see the same batches"
    first, second = (list(islice(job.source.start(0), COMPARED)) for _ in range(2))
    if not _equal(first, second):
        return "the data come in another order at every reading, so that arms cannot be compared in pairs"
    return ""


def preflight_check(job: Job, updates: int) -> Evidence:
    """A look at the start. Raises UserError where nothing can be trained, naming the cause."""
    loss, sure, silent = _look(job)
    doubts = [*sure, *_unreached(silent)]
    spent = 1
    if PREFLIGHT_SHARE * updates >= OVERFITTED:
        doubts += _stubborn(job)
        spent += OVERFITTED
    found = f"the first loss is {loss:.4g}" + (f"; {'; '.join(doubts)}" if doubts else "")
    return Evidence("sanity", "doubtful" if doubts else "sound", found, gradients=spent)


def _look(job: Job) -> tuple[float, list[str], list[str]]:
    """(the first loss, doubts about the outputs, names of weights that the gradient does not reach)."""
    copy = SingleSteps(job)
    with copy.working():
        looked = memory.by_parts(copy.backward, next(job.source.once())[0], memory.fewest(job.model))
        (loss, outputs), batch = next(looked)
    weights = [(name, w) for name, w in copy.job.model.named_parameters() if w.requires_grad]
    gradients = [w.grad for _, w in weights if w.grad is not None]
    value = float(loss)
    if not math.isfinite(value) or not all(bool(g.isfinite().all()) for g in gradients):
        raise UserError(_cause(copy.job, batch, value))
    silent = [name for name, w in weights if w.grad is None or not bool(w.grad.any())]
    return value, _too_sure(job, outputs, batch), silent


def _cause(job: Job, batch: Any, loss: float) -> str:
    """What is not finite, the first of inputs, targets, parameters, outputs, loss."""
    with rng.preserved(), torch.no_grad():
        outputs = job.outputs(batch)
    parts = {
        "inputs of the first batch hold": batch[0],
        "targets of the first batch hold": batch[1],
        **{f"network's parameter {name} holds": weight for name, weight in job.model.named_parameters()},
        "outputs of the network for the first batch hold": outputs,
    }
    for holds, part in parts.items():
        if not all(bool(x.isfinite().all()) for x in leaves(part) if x.is_floating_point()):
            return f"Nothing can be trained: the {holds} numbers that are not finite."
    if not math.isfinite(loss):
        return (
            f"Nothing can be trained: the outputs are finite and the loss {job.loss.name!r} gives {loss:g}."
        )
    return f"Nothing can be trained: the loss {loss:g} is finite and its gradient is not."


def _too_sure(job: Job, outputs: Any, batch: Any) -> list[str]:
    """A doubt where outputs are far worse than a guess; weights of classes and focus move the loss alone."""
    entropies = {"classes": formulas.cross_entropy, "flags": formulas.binary}
    if job.loss.target not in entropies:
        return []
    with torch.no_grad():
        target = moved(batch[1], job.device)
        found = float(entropies[job.loss.target](outputs, target, 0.0).mean())
    classes = (job.prepared.target.shape("classes")[0] or 1) if job.loss.target == "classes" else 2
    fair = math.log(classes)
    if classes < 2 or found < 2 * fair:
        return []
    return [
        f"its cross entropy is {found:.4g}, and guessing among {classes} classes gives {fair:.3g}: the "
        "network starts sure of wrong answers"
    ]


def _unreached(silent: list[str]) -> list[str]:
    if not silent:
        return []
    more = f" and {len(silent) - NAMED} more" if len(silent) > NAMED else ""
    return [f"no gradient reaches {', '.join(silent[:NAMED])}{more}"]


def _stubborn(job: Job) -> list[str]:
    """Whether updates on one batch, again and again, do not lower its loss."""
    level = replace(job.having({"warmup": "0 steps"}), source=Again(job.source))
    trial = Trial(level, 2 * OVERFITTED)
    trial.advance(OVERFITTED)
    first, last = trial.losses[0], trial.losses[-1]
    if trial.dead or not last < first:
        return [f"{OVERFITTED} updates on one batch leave its loss at {last:.4g}, from {first:.4g}"]
    return []


def _equal(a: Any, b: Any) -> bool:
    pairs = zip(_flat(a), _flat(b), strict=True)
    return all(x.shape == y.shape and torch.allclose(x, y, 0.0, 0.0, equal_nan=True) for x, y in pairs)


def _flat(windows: Any) -> list[torch.Tensor]:
    return [leaf for window in windows for batch in window for leaf in leaves(batch)]
