"""`Trial`: a run on a copy of the network, which stops, waits and goes on to the same bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from steepest.optim.engines.torch.passes import by_labels
from steepest.train import checkpoint, growth, settled
from steepest.train.average import Average
from steepest.train.fitting import loop_of, optimizer_of
from steepest.train.guard import Diverged
from steepest.train.job import Job
from steepest.train.loop import Loop
from steepest.train.state import Snapshot, under
from steepest.tuning.constants import WATCHED

SHOWN = "scored"
"""Name of the part of a snapshot that holds the average which is scored."""

SILENT: dict[str, Any] = {"log": (), "on_step": None, "on_evaluation": None}
"""What a person wants to hear of a run, and not of a trial."""


class Trial:
    """A job's descent from its start, in the loop of `fit` itself: the same data, chance and guard.

    The job's own network, its buffers and the global random generators stay as they are. Two trials of one
    seed see the same batches in the same order, and the same dropout: their losses are paired.

    total   updates of the whole run, for schedules that must know
    losses  of each update's batch, before the update;   norms  of its gradient, before clipping
    dead    whether numbers were not finite again and again: it will not go on"""

    def __init__(self, job: Job, total: int) -> None:
        own = {"given": replace(job.given, **SILENT), "source": growth.afresh(job.source)}
        copied = replace(job.on(deepcopy(job.model)), **own)
        whole = f"{total} steps"
        self.job = copied.having({"budget": whole, "evaluate_every": whole, "save_every": whole})
        self._loop = loop_of(self.job, optimizer_of(self.job, None), None, [], None)
        self.subject = self._loop.watch.subject
        self.subject.update.measures |= "clip_norm" in job.asked.open
        self.average = Average(self.job.model, WATCHED)
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.dead = False
        labels = by_labels(settled.rule_of(job.recipe, job.given))
        self._objective = self.job.objective_and_logits if labels else self.job.objective
        self._held: Snapshot | None = None

    @property
    def done(self) -> int:
        """Updates so far."""
        return self.subject.progress.done

    def advance(self, to: int, asked: Callable[[], object] = lambda: None) -> None:
        """Go on to this update, or to death; `asked` is called after each and may raise."""
        for _ in self.updates(to):
            asked()

    def updates(self, to: int) -> Generator[float]:
        """The same, handing out the loss of each update. One that is left half-way does not go on."""
        self.job.model.train()
        try:
            with self._loop as steps:
                if self._held is not None:
                    self.subject.put(self._held)
                if self.done < to and not self.dead:
                    yield from self._steps(steps, to)
                self._held = self.subject.take()
        except Diverged:
            self.dead = True

    def _steps(self, steps: Loop, to: int) -> Generator[float]:
        for batch in steps:
            before = steps.done
            steps.step(partial(self._compute, batch))
            if steps.done == before:  # a microbatch of several
                continue
            self._note(steps.loss())
            yield self.losses[-1]
            if steps.done >= to or self.dead:
                return

    def _note(self, loss: float) -> None:
        norm = self.subject.update.norm
        self.losses.append(loss)
        self.norms.append(math.nan if norm is None else norm)
        strikes = self.subject.update.strikes
        unguarded = self.subject.update.guard is None and not math.isfinite(loss)
        self.dead = bool(strikes.rewinds) or unguarded
        if not strikes.in_a_row and not self.dead:
            self.average.update()

    def _compute(self, batch: Any) -> Any:
        with self._loop.autocast():
            return self._objective(batch)

    def snapshot(self) -> Snapshot:
        """Everything that it goes on from; the loop of `fit` takes it for a checkpoint of its own."""
        taken = self._held or self.subject.take()
        numbers = taken.numbers | {
            "good": taken.step,
            "progress": taken.numbers["progress"] | {"good": taken.step},
            "trial": {"losses": self.losses, "norms": self.norms, "dead": self.dead},
        }
        scored = {name: tensor.clone() for name, tensor in self.average.state().items()}
        return replace(taken, state=taken.state | under(SHOWN, scored), numbers=numbers)

    def put(self, snapshot: Snapshot) -> None:
        """Become what `snapshot` gave."""
        self.average.load_state(snapshot.part(SHOWN))
        told: Mapping[str, Any] = snapshot.numbers["trial"]
        self.losses, self.norms, self.dead = list(told["losses"]), list(told["norms"]), told["dead"]
        self._held = snapshot
        for _ in self.updates(0):  # no update: weights and counters become the snapshot's
            pass

    def save(self, place: Path) -> None:
        """Write a checkpoint there, under its step."""
        checkpoint.write(place, self.snapshot())

    def load(self, place: Path, step: int) -> None:
        """Go on from a checkpoint that `save` has written."""
        self.put(checkpoint.read(checkpoint.path_of(place, step)))
