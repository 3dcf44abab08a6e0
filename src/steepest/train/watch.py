"""`Watch`: what happens between two steps. A run begins, is evaluated, goes back, is saved, ends."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from steepest.data import rng
from steepest.data.batches import count
from steepest.data.varied import VariedPlan
from steepest.evidence import Evidence, append
from steepest.files import Folder
from steepest.train.cadence import Cadence
from steepest.train.evaluation import Evaluation
from steepest.train.guard import Diverged, Verdict, save_batches
from steepest.train.interrupt import Interrupt
from steepest.train.keeper import Keeper
from steepest.train.memory import normed
from steepest.train.state import Snapshot, is_finite
from steepest.train.stopping import Action, Stopping
from steepest.train.subject import Progress, Subject


@dataclass
class Watch:
    """Watches over a subject. Everything it does depends on the step alone, except the two that the clock may
    do: save, and cut at a deadline.

    sign           1 where less of the monitored metric is better, else -1
    on_evaluation  called with every evaluation's row
    next, alarm    step and time at which something is due"""

    subject: Subject
    cadence: Cadence
    evaluation: Evaluation
    stopping: Stopping
    sign: float
    keeper: Keeper
    folder: Folder | None
    seed: int
    on_evaluation: Callable[[dict[str, Any]], object] | None = None
    interrupt: Interrupt = field(default_factory=Interrupt)
    next: float = 0.0
    alarm: float = math.inf
    _began: float | None = None
    _saved: tuple[int, str] = (-1, "")  # step and `ended` of the last checkpoint
    _saved_at: float = 0.0

    @property
    def progress(self) -> Progress:
        """Where the run stands, as it is saved."""
        return self.subject.progress

    @property
    def seconds(self) -> float:
        """Seconds spent, over all processes of the run."""
        return self.progress.seconds + (0.0 if self._began is None else time.monotonic() - self._began)

    @property
    def over(self) -> bool:
        """Whether no step is to follow in this process."""
        return bool(self.progress.ended) or self.interrupt.received is not None

    # --- beginning and ending ---

    def begin(self) -> None:
        """Take up the run in the folder, or begin one."""
        self._began = time.monotonic()
        snapshot, refused = self.keeper.load()
        if snapshot is None:
            self._begin_afresh()
        else:
            self._go_on(snapshot)
        for sentence in refused:
            warnings.warn(f"{sentence} The run goes on from step {self.progress.done}.", stacklevel=4)
            self._note("checkpoint", sentence)

    def _begin_afresh(self) -> None:
        rng.begin(self.seed)
        self.subject.record.resume(0)
        self.progress.per_epoch = self.cadence.per_epoch
        self._remember(improved=False)
        self._save()

    def _go_on(self, snapshot: Snapshot) -> None:
        self.subject.put(snapshot)
        self._saved, self._saved_at = (snapshot.step, self.progress.ended), time.monotonic()
        self.cadence.per_epoch = self.cadence.per_epoch or self.progress.per_epoch
        by_budget = self.progress.ended in ("budget", "deadline")
        if by_budget and not self.cadence.ends(snapshot.step, self.seconds)[0]:
            self.progress.ended = self.progress.why = ""

    def stop(self, why: str) -> None:
        """End the run before the next step."""
        self.progress.ended, self.progress.why = "asked", why
        self.next = 0.0

    def end(self) -> None:
        """Stop the clock."""
        self.progress.seconds, self._began = self.seconds, None

    # --- between two steps ---

    @property
    def due(self) -> bool:
        """Whether `boundary` has something to do."""
        return (
            self.subject.progress.done >= self.next
            or self.interrupt.received is not None
            or time.monotonic() >= self.alarm
        )

    def boundary(self) -> None:
        """End, evaluate, save, as is due. After a signal, what is due waits until the run goes on."""
        progress = self.progress
        if self.interrupt.received is None:
            self._end_by_budget()
            if progress.done > progress.evaluated and (
                progress.ended or self.cadence.evaluates(progress.done)
            ):
                self._evaluate()
        if self.over or self.cadence.saves(progress.done, time.monotonic() - self._saved_at):
            self.save()
        self.next = self.cadence.next_after(progress.done)
        save = self.cadence.save_every.seconds
        left = self.cadence.deadline - self.seconds
        self.alarm = min(time.monotonic() + left, math.inf if save is None else self._saved_at + save)

    def epoch_known(self, per_epoch: int | None) -> None:
        """The first pass of a stream may have ended: what is counted in epochs is due from now on."""
        if per_epoch is not None:
            self.cadence.per_epoch = self.progress.per_epoch = per_epoch
            self.boundary()

    def _end_by_budget(self) -> None:
        if not self.progress.ended:
            self.progress.ended, self.progress.why = self.cadence.ends(self.progress.done, self.seconds)
            if self.progress.ended == "deadline":
                self._note("cut", self.progress.why)

    def _evaluate(self) -> None:
        progress, before = self.progress, self.progress.stopping.factor
        metrics, value = self.evaluation(self.subject.losses.take())
        progress.evaluated = progress.done
        progress.stopping, action = self.stopping.observe(progress.stopping, self.sign * value)
        row = self._row(metrics, action.value, before)
        if action is Action.DECAY and (back := self.keeper.best or self.keeper.good) is not None:
            self.subject.rewind(back)
        self.subject.descent.factor = progress.stopping.factor
        self._remember(action in (Action.IMPROVED, Action.RAISE))
        if action is Action.STOP:
            progress.ended, progress.why = "plateau", self._plateau()
        if self.on_evaluation is not None:
            self.on_evaluation(row)

    def _plateau(self) -> str:
        state = self.progress.stopping
        decays = f"{state.ever} decay{'s' if state.ever > 1 else ''}"  # all, as the report counts them
        after = f" after {decays} of the rate" if state.ever else ""
        return f"{self.evaluation.monitor} did not improve for {state.waited} evaluations{after}"

    def _remember(self, improved: bool) -> None:
        """Hold this state as the best, and as the one that the guard would go back to."""
        guarded = self.subject.update.guard is not None and is_finite(self.subject.net)
        if not (improved or guarded):
            return
        self.progress.best = self.progress.done if improved else self.progress.best
        self.progress.good = self.progress.done if guarded else self.progress.good
        snapshot = self.subject.take()
        self.keeper.best = snapshot if improved else self.keeper.best
        self.keeper.good = snapshot if guarded else self.keeper.good

    # --- an update that was withheld ---

    def withheld(self, verdict: Verdict, loss: float, window: list[Any]) -> None:
        """Go on after an update that was not finite. Raises Diverged where that is hopeless."""
        self.subject.descent.pass_over()
        guard, good = self.subject.update.guard, self.keeper.good
        # A 16-bit overflow is answered by the loss scale and is no strike; it is not worth a row.
        if verdict is not Verdict.SKIP or self.subject.update.strikes.in_a_row:
            self._row({}, verdict.value)
        if good is not None and verdict is Verdict.SKIP:
            self.subject.mend_buffers(good)
        elif good is not None and guard is not None:
            self.subject.rewind(good)
            factor = self.progress.stopping.factor * guard.factor
            self.progress.stopping = replace(self.progress.stopping, factor=factor)
            self.subject.descent.factor = factor
        if verdict is Verdict.GIVE_UP or (verdict is Verdict.REWIND and good is None):
            raise self._given_up(loss, window)

    def _given_up(self, loss: float, window: list[Any]) -> Diverged:
        place = ""
        if self.folder is not None:
            path = self.folder.path / "offending-batch.npz"
            save_batches(path, window)
            place = f" The batch is in {str(path)!r}."
        return Diverged(
            f"Training gave up at step {self.progress.done}: loss {loss:g}, gradient norm "
            f"{self.subject.update.norm:g}, after {self.subject.update.strikes.rewinds} rewinds.{place} "
            "Look for bad values in the data, lower lr, or set clip_norm."
        )

    # --- batches that change ---

    def ran_out_of_memory(self, pieces: list[Any]) -> None:
        """Halve the microbatches from this update on, and save: what comes after goes on from here."""
        division = self.subject.division
        division.halve(pieces, self.subject.net)
        alone = " Batch norms see the smaller part alone." if normed(self.subject.net) else ""
        self._note(
            "microbatch",
            f"memory ran out with {max(map(count, pieces))} examples at once in step "
            f"{self.progress.done + 1}, which is made again, the same but for rounding.{alone}",
            division.most,
        )
        self._row({}, "memory")
        self._save()

    def resized(self, varied: VariedPlan | None) -> None:
        """Take up the batch that the noise of the gradients asks for, and see what is due under it."""
        division, done = self.subject.division, self.progress.done
        if varied is None or division.found is None:
            return
        (size, critical), division.found = division.found, None
        varied.forget(done)
        why = f"from step {done + 1} on, where the critical batch was measured to be {critical}"
        self._note("batch_size", why, size)
        self.next = done

    # --- writing ---

    def save(self) -> None:
        """Write a checkpoint, unless this state has one."""
        if self._saved != (self.progress.done, self.progress.ended):
            self._save()

    def _save(self) -> None:
        seconds, now = self.seconds, time.monotonic()
        self.progress.seconds, self._began = seconds, now
        if self.folder is not None:
            self.subject.record.sync()
            self.keeper.save(self.subject.take())
        self._saved, self._saved_at = (self.progress.done, self.progress.ended), now

    def _row(self, metrics: dict[str, float], event: str, factor: float | None = None) -> dict[str, Any]:
        progress = self.progress
        cells = {
            "step": progress.done,
            "epoch": self.cadence.epoch(progress.done),
            "seconds": round(self.seconds, 3),
            **metrics,
            "lr": self.subject.descent.rate,
            "grad_norm": self.subject.update.norm,
            "factor": progress.stopping.factor if factor is None else factor,
            "event": event,
        }
        row = {name: value for name, value in cells.items() if value is not None}
        self.subject.record.add(row)
        return row

    def _note(self, choice: str, why: str, decided: Any = None) -> None:
        if self.folder is not None:
            append(self.folder.evidence, Evidence(choice, decided or self.progress.done, why))
