"""`Control`: what happens between two steps. A run begins, is evaluated, goes back, is saved, ends.

SIGINT and SIGTERM set a flag; the run stops at its next step boundary, saved.
"""

from __future__ import annotations

import math
import signal
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from steepest.data import rng
from steepest.evidence import Evidence, append
from steepest.files import Folder
from steepest.train.checkpoint import Checkpoints
from steepest.train.evaluation import Evaluation
from steepest.train.intervals import Intervals
from steepest.train.record import Record
from steepest.train.state import Progress, Snapshot, TrainState
from steepest.train.stopping import Action, PlateauState, Stopping
from steepest.train.update import Diverged, Update, Verdict, save_batches
from steepest.world import ALONE, World

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(SystemExit):
    """The run was stopped from outside and is saved. Uncaught it ends the process with 130 or 143."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number).name


class Interrupt:
    """Context in which the first signal only sets `received`; a second one does what it did before."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        # Python lets only the main thread set handlers; elsewhere signals stay with whoever has them.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self.__exit__()


@dataclass
class Control:
    """Evaluates, saves and stops a run. Everything it does depends on the step alone, except the two that the
    clock may do: save, and cut at a deadline.

    sign           1 where less of the monitored metric is better, else -1
    on_evaluation  called with every evaluation's row
    world          the processes that share the run, and agree on every decision; `folder` is that of the main
                   one, which writes
    next, alarm    step and time at which something is due"""

    state: TrainState
    update: Update
    record: Record
    intervals: Intervals
    evaluation: Evaluation
    stopping: Stopping
    sign: float
    checkpoints: Checkpoints
    folder: Folder | None
    seed: int
    world: World = ALONE
    on_evaluation: Callable[[dict[str, Any]], object] | None = None
    interrupt: Interrupt = field(default_factory=Interrupt)
    next: float = 0.0
    alarm: float = math.inf
    progress: Progress = field(init=False)
    _began: float | None = None
    _signal: int | None = None  # that all processes have heard of
    _saved: tuple[int, str] = (-1, "")  # step and `ended` of the last checkpoint
    _saved_at: float = 0.0

    def __post_init__(self) -> None:
        self.progress = self.state.progress

    @property
    def seconds(self) -> float:
        """Seconds spent, over all processes of the run."""
        return self.progress.seconds + (0.0 if self._began is None else time.monotonic() - self._began)

    @property
    def interrupted(self) -> int | None:
        """The signal that asks to stop the run, if one does."""
        return self.interrupt.received if self.world.size == 1 else self._signal

    @property
    def epoch(self) -> float | None:
        """Passes over the data so far; None while the length of a stream is not known."""
        return self.intervals.epoch(self.progress.done)

    @property
    def knows_epoch(self) -> bool:
        """Whether the length of an epoch is known."""
        return self.intervals.per_epoch is not None

    @property
    def horizon(self) -> int | None:
        """The steps that the budget was measured or reckoned to hold."""
        return self.intervals.horizon

    @property
    def monitor(self) -> str:
        """The metric that the best goes by."""
        return self.evaluation.monitor

    @property
    def averages(self) -> bool:
        """Whether the evaluation weights are others than those that are trained."""
        return self.evaluation.averages

    def evaluated(self) -> AbstractContextManager[None]:
        """Within it the network holds the evaluation weights; after it all is as before."""
        return self.evaluation.shown()

    def when_evaluated(self, hook: Callable[[dict[str, Any]], object]) -> None:
        """Call this with every evaluation's row."""
        self.on_evaluation = hook

    def ship_best(self) -> None:
        """Put the evaluation weights of the best moment, or of this one, into the network."""
        self.state.ship(self.checkpoints.best or self.state.snapshot())

    @property
    def over(self) -> bool:
        """Whether no step is to follow in this process."""
        return bool(self.progress.ended) or self.interrupted is not None

    # --- beginning and ending ---

    def begin(self) -> None:
        """Take up the run in the folder, or begin one."""
        self._began = time.monotonic()
        snapshot, refused = self.checkpoints.load()
        if snapshot is None:
            self._begin_afresh()
        else:
            self._go_on(snapshot)
        for sentence in refused:
            warnings.warn(f"{sentence} The run goes on from step {self.progress.done}.", stacklevel=4)
            self.note("checkpoint", sentence)

    def _begin_afresh(self) -> None:
        rng.begin(self.seed, self.world.rank)
        self.record.load_state_dict({"rows": 0})
        self.progress.epoch_known(self.intervals.per_epoch)
        self._remember(improved=False)
        self._save()

    def _go_on(self, snapshot: Snapshot) -> None:
        self.state.load(snapshot)
        self._saved, self._saved_at = (snapshot.step, self.progress.ended), time.monotonic()
        self.intervals.epoch_known(self.intervals.per_epoch or self.progress.per_epoch)
        by_budget = self.progress.ended in ("budget", "deadline")
        if by_budget and not self.intervals.ends(snapshot.step, self.seconds)[0]:
            self.progress.end("", "")

    def stop(self, why: str) -> None:
        """End the run before the next step."""
        self.progress.end("asked", why)
        self.next = 0.0

    def end(self) -> None:
        """Stop the clock."""
        self.progress.spent(self.seconds)
        self._began = None

    # --- between two steps ---

    @property
    def due(self) -> bool:
        """Whether `boundary` has something to do."""
        return self.world.any(
            self.progress.done >= self.next
            or self.interrupt.received is not None
            or time.monotonic() >= self.alarm
        )

    def boundary(self) -> None:
        """End, evaluate, save, as is due. After a signal, what is due waits until the run goes on."""
        progress = self.progress
        self._signal = int(self.world.max(self.interrupt.received or 0)) or None
        seconds, since = self.world.broadcast([self.seconds, time.monotonic() - self._saved_at])
        if self.interrupted is None:
            self._end_by_budget(seconds)
            ends_or_looks = progress.ended or self.intervals.evaluates(progress.done)
            if progress.done > progress.evaluated and ends_or_looks:
                self._evaluate()
        if self.over or self.intervals.saves(progress.done, since):
            self.save()
        now = time.monotonic()
        self.next = self.intervals.next_after(progress.done)
        self.alarm = now + self.intervals.alarm(self.seconds, now - self._saved_at)

    def epoch_known(self, per_epoch: int | None) -> None:
        """The first pass of a stream may have ended: what is counted in epochs is due from now on."""
        if per_epoch is not None:
            self.intervals.epoch_known(per_epoch)
            self.progress.epoch_known(per_epoch)
            self.boundary()

    def _end_by_budget(self, seconds: float) -> None:
        if not self.progress.ended:
            self.progress.end(*self.intervals.ends(self.progress.done, seconds))
            if self.progress.ended == "deadline":
                self.note("cut", self.progress.why)

    def _evaluate(self) -> None:
        before = self.progress.stopping
        metrics, value = self.evaluation()
        after, action = self.stopping.observe(before, self.sign * value)
        self.progress.evaluate(after)
        row = self.row(metrics, action.value, before.factor)
        if action is Action.DECAY and (back := self.checkpoints.best or self.checkpoints.good) is not None:
            self.state.rewind(back)
        self.update.scale_rates(after.factor)
        self._remember(action in (Action.IMPROVED, Action.RAISE))
        if action is Action.STOP:
            self.progress.end("plateau", self._plateau(after))
        if self.on_evaluation is not None:
            self.on_evaluation(row)

    def _plateau(self, state: PlateauState) -> str:
        decays = f"{state.ever} decay{'s' if state.ever > 1 else ''}"  # all, as the report counts them
        after = f" after {decays} of the rate" if state.ever else ""
        return f"{self.evaluation.monitor} did not improve for {state.waited} evaluations{after}"

    def _remember(self, improved: bool) -> None:
        """Hold this state as the best, and as the one that the guard would go back to."""
        guarded = self.update.guard is not None and self.state.finite
        if improved or guarded:
            self.progress.remember(best=improved, good=guarded)
            self.checkpoints.remember(self.state.snapshot(), best=improved, good=guarded)

    # --- an update that was withheld ---

    def withheld(self, verdict: Verdict, loss: float, window: list[Any]) -> None:
        """Go on after an update that was not finite. Raises Diverged where that is hopeless."""
        guard, good = self.update.guard, self.checkpoints.good
        # A 16-bit overflow is answered by the loss scale and is no strike; it is not worth a row.
        if verdict is not Verdict.SKIP or self.update.in_a_row:
            self.row({}, verdict.value)
        if good is not None and verdict is Verdict.SKIP:
            self.state.mend_buffers(good)
        elif good is not None and guard is not None:
            self.state.rewind(good)
            self.progress.lower(guard.factor)
            self.update.scale_rates(self.progress.factor)
        if verdict is Verdict.GIVE_UP or (verdict is Verdict.REWIND and good is None):
            raise self._given_up(loss, window)

    def _given_up(self, loss: float, window: list[Any]) -> Diverged:
        place = ""
        if self.folder is not None:
            path = self.folder.path / "offending-batch.npz"
            save_batches(path, window)
            place = f" The batch is in {str(path)!r}."
        return Diverged(
            f"Training gave up at step {self.progress.done}: loss {loss:g}, {self.update.told()}.{place} "
            "Look for bad values in the data, lower lr, or set clip_norm."
        )

    # --- batches that change ---

    def smaller_microbatches(self, examples: int, most: int | None, normed: bool) -> None:
        """Memory ran out with so many examples: say so, and save. What comes after goes on from here."""
        alone = " Batch norms see the smaller part alone." if normed else ""
        self.note(
            "microbatch",
            f"memory ran out with {examples} examples at once in step {self.progress.done + 1}, which is "
            f"made again, the same but for rounding.{alone}",
            most,
        )
        self.row({}, "memory")
        self._save()

    def resized(self, size: int, critical: Any) -> None:
        """Another batch is what the noise of the gradients asks for: see what is due under it."""
        done = self.progress.done
        why = f"from step {done + 1} on, where the critical batch was measured to be {critical}"
        self.note("batch_size", why, size)
        self.next = done

    # --- writing ---

    def save(self) -> None:
        """Write a checkpoint, unless this state has one."""
        if self._saved != (self.progress.done, self.progress.ended):
            self._save()

    def _save(self) -> None:
        seconds, now = self.seconds, time.monotonic()
        self.progress.spent(seconds)
        self._began = now
        if self.checkpoints.kept:
            self.record.sync()
            self.checkpoints.save(self.state.snapshot())
        self._saved, self._saved_at = (self.progress.done, self.progress.ended), now

    def row(self, metrics: dict[str, float], event: str, factor: float | None = None) -> dict[str, Any]:
        """Write a row of metrics.csv; factor: that of the plateau schedule, where it is not today's."""
        done = self.progress.done
        cells = {
            "step": done,
            "epoch": self.intervals.epoch(done),
            "seconds": round(self.seconds, 3),
            **metrics,
            "lr": self.update.rate,
            "grad_norm": self.update.norm,
            "factor": self.progress.factor if factor is None else factor,
            "event": event,
        }
        row = {name: value for name, value in cells.items() if value is not None}
        self.record.add(row)
        return row

    def note(self, choice: str, why: str, decided: Any = None) -> None:
        """Write a line of evidence, where there is a folder."""
        if self.folder is not None:
            append(self.folder.evidence, Evidence(choice, decided or self.progress.done, why))
