"""`Loop`: one process's share of a run, as context manager and iterator."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from steepest.data import rng
from steepest.data.batches import Batches, count
from steepest.data.tree import Tree
from steepest.files import Folder, write_atomic
from steepest.optim.errors import UserError
from steepest.train import environment, memory
from steepest.train.beginning import Beginning
from steepest.train.guard import Diverged, Verdict
from steepest.train.interrupt import Interrupted
from steepest.train.loggers import saying_where
from steepest.train.stopping import reopened
from steepest.train.watch import Watch

FORMATS = {"bf16": torch.bfloat16, "16": torch.float16}


@dataclass
class Loop:
    """Made by `loop`. Inside `with`, iterate for microbatches and call `step` with the loss of each.

    SIGINT and SIGTERM end the iteration at a step boundary, saved; leaving `with` then raises Interrupted."""

    watch: Watch
    source: Batches
    precision: str
    owns: bool  # whether the folder is locked, and its result.json written, here
    on_step: Callable[[Loop], object] | None = None
    on_evaluation: Callable[[Loop, dict[str, Any]], object] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  # for the loggers

    _open: ExitStack = field(default_factory=ExitStack, init=False)
    _window: list[Tree] = field(default_factory=list, init=False)
    _left: int = field(default=0, init=False)  # microbatches of the window whose loss has not come
    _share: float = field(default=1.0, init=False)  # of the window's examples in the microbatch handed out
    _examples: int = field(default=0, init=False)
    _loss: Tensor | None = field(default=None, init=False)
    _again: bool = field(default=False, init=False)  # whether the window begins anew in smaller pieces
    _repeats: bool = field(default=True, init=False)  # whether a loss comes as a function, to be called again
    _beginning: Beginning = field(init=False)  # of the window
    _failed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._subject = self.watch.subject
        self._loggers = self._subject.record.loggers
        if self.on_evaluation is not None:
            hook = saying_where("on_evaluation", self.on_evaluation, self._saved)
            self.watch.on_evaluation = partial(hook, self)
        self._hook = None if self.on_step is None else saying_where("on_step", self.on_step, self._saved)

    # --- what a run tells ---

    @property
    def done(self) -> int:
        """Updates so far, the resumed ones and those withheld included."""
        return self._subject.progress.done

    @property
    def epoch(self) -> float | None:
        """Passes over the data so far; None while the length of a stream is not known."""
        return self.watch.cadence.epoch(self.done)

    @property
    def best_step(self) -> int | None:
        """Step of the best evaluation; None before one."""
        return self._subject.progress.best

    @property
    def why(self) -> str:
        """Why the run has ended, a clause; empty while it has not."""
        return self._subject.progress.why

    @property
    def interrupted(self) -> bool:
        """Whether a signal asks to stop, or has stopped, this process."""
        return self.watch.interrupt.received is not None

    @property
    def seconds(self) -> float:
        """Seconds that the run has spent inside `with`, over all its processes."""
        return self.watch.seconds

    @property
    def status(self) -> str:
        """finished: ended by budget or stopping; stopped: can be gone on with; failed: gave up."""
        if self._failed or self._never_finite:
            return "failed"
        return "finished" if self._subject.progress.ended and not self.interrupted else "stopped"

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows of metrics.csv."""
        return self._subject.record.rows

    def loss(self) -> float:
        """Training loss of the last step; waits for the device."""
        return math.nan if self._loss is None else float(self._loss)

    def result(self) -> dict[str, Any]:
        """What result.json says of the training; `metrics` are of the best evaluation, else of the last."""
        # A row of memory that ran out holds no metrics, and bears the step of one that may.
        measured = [row for row in self.history if any("/" in name for name in row)]
        rows = [row for row in measured if row.get("step") == self.best_step] or measured[-1:]
        metrics = {k: v for k, v in (rows[-1] if rows else {}).items() if "/" in k}
        return {
            "status": self.status,
            "step": self.done,
            "best_step": self.best_step,
            "seconds": round(self.seconds, 3),
            "why": self._why_not() if self.status == "failed" else self.why or self._why_not(),
            "metrics": metrics,
        }

    @property
    def _never_finite(self) -> bool:
        """Whether a run has ended in which no evaluation gave a number."""
        return bool(self.why) and self.done > 0 and self.best_step is None and not self.interrupted

    def _why_not(self) -> str:
        if self._never_finite:
            return f"{self.watch.evaluation.monitor} was never finite in {self.done} steps"
        if self._failed:
            return f"gave up at step {self.done}, as numbers were not finite"
        return f"stopped at step {self.done}; it can be resumed"

    # --- what a loop calls ---

    def __enter__(self) -> Loop:
        with ExitStack() as opening:
            folder = self.watch.folder
            if folder is not None and self.owns:
                folder.create()
                opening.enter_context(folder.lock())
                self._name_changes(folder)
            opening.enter_context(rng.preserved())
            self._subject.record.config(dict(self.settings))
            self.watch.begin()
            opening.enter_context(self.watch.interrupt)
            self._open = opening.pop_all()
        return self

    def __iter__(self) -> Iterator[Tree]:
        """Microbatches, in order, until the run ends."""
        watch, self._beginning = self.watch, Beginning(self._subject.net)
        if self._subject.division.found is not None:  # by the update before a pause
            watch.resized(watch.cadence.varied)
        watch.boundary()
        windows = self.source.start(self.done)
        while not watch.over:
            window = next(windows)
            if watch.cadence.per_epoch is None:
                watch.epoch_known(self.source.per_epoch)
                if watch.over:
                    break
            yield from self._microbatches(window)
            if self._subject.division.found is not None:
                watch.resized(watch.cadence.varied)
                windows = self.source.start(self.done)
            if watch.due:
                watch.boundary()

    def _microbatches(self, window: list[Tree]) -> Iterator[Tree]:
        self._again = True
        self._beginning.keep(self._repeats)
        while self._again:
            self._window = self._subject.division.pieces(window)
            yield from self._pieces()
        self._beginning.over()

    def _pieces(self) -> Iterator[Tree]:
        counts = [count(batch) for batch in self._window]
        self._examples, self._left, self._again = sum(counts), len(counts), False
        for batch, examples in zip(self._window, counts, strict=True):
            left, self._share = self._left, examples / self._examples
            yield batch
            if self._again:
                return
            if self._left == left:
                raise UserError("A batch went by without steps.step(loss). Call it once for every batch.")

    def step(self, loss: Tensor | Callable[[], Any]) -> None:
        """Backward; and, when the update's last microbatch is in, move the weights.

        loss: mean over the microbatch's examples, or a function that computes it, forward pass and all; rules
        of more than one pass (SAM, AdaHessian, Sophia) need the function, SophiaG one of (loss, logits). With
        the function, an update for which memory runs out is made again in smaller microbatches, which the
        iteration hands out; the weights wait for it"""
        if not self._left:
            raise UserError("steps.step was called twice for one batch, or outside `for batch in steps`.")
        self._repeats = not (isinstance(loss, Tensor) or self._subject.descent.several)
        value = self._backward(loss)
        if value is None:
            self._smaller()
            return
        self._hear()
        part = value.detach() if self._share == 1.0 else value.detach() * self._share
        self._loss = part if self._left == len(self._window) or self._loss is None else self._loss + part
        self._left -= 1
        if not self._left:
            self._update(self._loss)

    def _backward(self, loss: Tensor | Callable[[], Any]) -> Tensor | None:
        """The loss of this microbatch, its gradient added; None where memory ran out.

        What the failed pass held is free when this has returned, not before."""
        several = self._subject.descent.several
        try:
            return self._subject.update.backward(loss, self._share)
        except (RuntimeError, MemoryError) as error:
            if not memory.ran_out(error):
                raise
            if not self._repeats:
                raise memory.cannot_repeat(several, count(self._window[-self._left])) from error
        return None

    def _smaller(self) -> None:
        """Forget the gradients of this update, and have its microbatches handed out anew, half as large."""
        self._subject.update.clear()
        self._beginning.put_back()
        self._loss, self._left, self._again = None, 0, True
        self.watch.ran_out_of_memory(self._window)

    def _hear(self) -> None:
        """Tell the noise of this update's gradients to a policy that goes by it."""
        subject = self._subject
        if subject.division.policy is None:
            return
        opt, unit = subject.descent.opt, subject.update.unit
        if self._left == len(self._window) > 1:
            subject.division.part(opt, unit * self._share, count(self._window[0]))
        elif self._left == 1:
            subject.division.whole(self.done + 1, opt, unit, self._examples)

    def _update(self, loss: Tensor) -> None:
        subject = self._subject
        verdict = subject.update.apply(loss, subject.progress.done + 1 >= self.watch.next)
        subject.progress.done += 1
        if verdict is Verdict.GO:
            subject.losses.add(loss, self._examples)
            if subject.average is not None:
                subject.average.update()
        else:
            self.watch.withheld(verdict, float(loss), self._window)
        if self._loggers.ticks:
            self._loggers.tell("tick", self.done, self.loss)
        if self._hook is not None:
            self._hook(self)

    def autocast(self) -> AbstractContextManager[Any]:
        """The number format of the forward pass: `with steps.autocast(): loss = …`."""
        if self.precision not in FORMATS:
            return nullcontext()
        return torch.autocast(self._device.type, FORMATS[self.precision])

    @property
    def averages(self) -> bool:
        """Whether the weights to ship are averages, which were never run: `evaluated` shows them."""
        return self.watch.evaluation.averages

    def evaluated(self) -> AbstractContextManager[None]:
        """Within it the network holds the weights to ship: `with steps.evaluated(): measure(net)`.

        Batch-norm statistics beside averaged weights are to be renewed (`average.renew_statistics`); they,
        modes, chance and the weights that are trained are afterwards as before."""
        return self.watch.evaluation.shown()

    def stop(self, why: str) -> None:
        """End the run before the next step, evaluated and saved."""
        self.watch.stop(why)

    def reopen(self) -> None:
        """Let a run that has ended go on as far as its budget allows, with fresh patience."""
        progress = self._subject.progress
        progress.ended = progress.why = ""
        progress.stopping = reopened(progress.stopping)

    def restore_best(self) -> None:
        """Put the weights to ship into the network: the best ones, averaged where an average is kept.

        Batch-norm statistics beside averaged weights are to be renewed (`average.renew_statistics`)."""
        self._subject.ship(self.watch.keeper.best or self._subject.take())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            self._failed = isinstance(error, Diverged)
            if error is None and not self._left:
                self.watch.save()
            self.watch.end()
            self._tell_the_end()
        if error is None and self.watch.interrupt.received is not None:
            raise Interrupted(self.watch.interrupt.received)

    def _saved(self) -> str:
        """How to go on from this step, which is saved; empty where nothing is written."""
        folder = self.watch.folder
        if folder is None:
            return ""
        self.watch.save()
        return f"Step {self.done} is saved in {str(folder.path)!r}; resume goes on from there."

    def _name_changes(self, folder: Folder) -> None:
        """Say what has changed of that which bits depend on, since the run began."""
        before, now = environment.read(folder.env), environment.describe(str(self._device))
        for sentence in environment.differences(before, now):
            warnings.warn(f"The bits may differ: {sentence}.", stacklevel=3)
        if not before:
            write_atomic(folder.env, json.dumps(now, indent=1).encode())

    @property
    def _device(self) -> torch.device:
        return next(self._subject.net.parameters()).device

    def _tell_the_end(self) -> None:
        self._subject.record.close(self.status)
        if self.owns and self.watch.folder is not None:
            write_atomic(self.watch.folder.result, json.dumps(self.result(), indent=1).encode())
