"""`loop`: a training loop of one's own, made safe.

    with loop(net, opt, data, out="runs/mine", epochs=20) as steps:
        for x, y in steps:
            steps.step(cross_entropy(net(x), y))

Killed at any instant and started again, it goes on to the identical bits.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from steepest.data.batches import Batches, batches, count
from steepest.data.rng import preserved
from steepest.data.tree import Tree
from steepest.data.varied import VariedPlan
from steepest.files import Folder, write_atomic
from steepest.optim.batch import BatchPolicy
from steepest.optim.errors import UserError
from steepest.train import environment, memory
from steepest.train.budget import Budget, parse
from steepest.train.checkpoint import Checkpoints
from steepest.train.control import Control, Interrupted
from steepest.train.evaluation import Average, Evaluation
from steepest.train.intervals import Intervals
from steepest.train.microbatching import Microbatching, StepBackup
from steepest.train.optimizer_adapter import adapted
from steepest.train.record import Logger, MeanLoss, Record, saying_where
from steepest.train.state import Progress, Stateful, TrainState, plain
from steepest.train.stopping import Stopping, sign
from steepest.train.update import Diverged, Guard, LossScale, Update, Verdict
from steepest.world import ALONE, World

__all__ = ["Loop", "loop"]

FORMATS = {"bf16": torch.bfloat16, "16": torch.float16}


@dataclass
class Loop:
    """Made by `loop`. Inside `with`, iterate for microbatches and call `step` with the loss of each.

    SIGINT and SIGTERM end the iteration at a step boundary, saved; leaving `with` then raises Interrupted."""

    control: Control
    update: Update
    microbatching: Microbatching
    record: Record
    net: nn.Module
    source: Batches
    precision: str
    owns: bool  # whether the folder is locked, and its result.json written, here
    on_step: Callable[[Loop], object] | None = None
    on_evaluation: Callable[[Loop, dict[str, Any]], object] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  # for the loggers
    world: World = ALONE

    _open: ExitStack = field(default_factory=ExitStack, init=False)
    _window: list[Tree] = field(default_factory=list, init=False)
    _left: int = field(default=0, init=False)  # microbatches of the window whose loss has not come
    _share: float = field(default=1.0, init=False)  # of the window's examples in the microbatch handed out
    _examples: int = field(default=0, init=False)
    _loss: Tensor | None = field(default=None, init=False)
    _again: bool = field(default=False, init=False)  # whether the window begins anew in smaller pieces
    _repeats: bool = field(default=True, init=False)  # whether a loss comes as a function, to be called again
    _backup: StepBackup = field(init=False)  # of the beginning of the window
    _failed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._progress: Progress = self.control.progress
        self._loggers = self.record.loggers
        if self.on_evaluation is not None:
            hook = saying_where("on_evaluation", self.on_evaluation, self._saved)
            self.control.when_evaluated(partial(hook, self))
        self._hook = None if self.on_step is None else saying_where("on_step", self.on_step, self._saved)

    # --- what a run tells ---

    @property
    def done(self) -> int:
        """Updates so far, the resumed ones and those withheld included."""
        return self._progress.done

    @property
    def epoch(self) -> float | None:
        """Passes over the data so far; None while the length of a stream is not known."""
        return self.control.epoch

    @property
    def best_step(self) -> int | None:
        """Step of the best evaluation; None before one."""
        return self._progress.best

    @property
    def why(self) -> str:
        """Why the run has ended, a clause; empty while it has not."""
        return self._progress.why

    @property
    def interrupted(self) -> bool:
        """Whether a signal asks to stop, or has stopped, this process."""
        return self.control.interrupted is not None

    @property
    def seconds(self) -> float:
        """Seconds that the run has spent inside `with`, over all its processes."""
        return self.control.seconds

    @property
    def status(self) -> str:
        """finished: ended by budget or stopping; stopped: can be gone on with; failed: gave up."""
        if self._failed or self._never_finite:
            return "failed"
        return "finished" if self._progress.ended and not self.interrupted else "stopped"

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows of metrics.csv."""
        return self.record.rows

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
            return f"{self.control.monitor} was never finite in {self.done} steps"
        if self._failed:
            return f"gave up at step {self.done}, as numbers were not finite"
        return f"stopped at step {self.done}; it can be resumed"

    @property
    def over(self) -> bool:
        """Whether no step is to follow in this process."""
        return self.control.over

    @property
    def horizon(self) -> int | None:
        """The steps that the budget was measured or reckoned to hold; None where it says so itself."""
        return self.control.horizon

    @property
    def state(self) -> TrainState:
        """Everything of the run that changes."""
        return self.control.state

    # --- what a loop calls ---

    def charge(self, seconds: float) -> None:
        """Count seconds that were spent before the run into its budget; one that is resumed has its own."""
        self._progress.spent(seconds)

    def __enter__(self) -> Loop:
        with ExitStack() as opening:
            folder = self.control.folder
            if self.owns:
                self.world.on_main(partial(self._take, folder, opening))
            opening.enter_context(preserved())
            self.record.config(dict(self.settings))
            self.control.begin()
            opening.enter_context(self.control.interrupt)
            self._open = opening.pop_all()
        return self

    def __iter__(self) -> Iterator[Tree]:
        """Microbatches, in order, until the run ends."""
        control, self._backup = self.control, StepBackup(self.net)
        self._take_up()  # what the update before a pause has led to
        control.boundary()
        windows = self.source.start(self.done)
        while not control.over:
            window = next(windows)
            if not control.knows_epoch:
                control.epoch_known(self.source.per_epoch)
                if control.over:
                    break
            yield from self._microbatches(window)
            if self._take_up():
                windows = self.source.start(self.done)
            if control.due:
                control.boundary()

    def _take_up(self) -> bool:
        """Take up the batch that the noise of the gradients asks for; whether it has changed."""
        if self.microbatching.found is None:
            return False
        self.control.resized(*self.microbatching.take_up(self.done))
        return True

    def _microbatches(self, window: list[Tree]) -> Iterator[Tree]:
        self._again = True
        self._backup.keep(self._repeats)
        while self._again:
            self._window = self.microbatching.pieces(window)
            yield from self._pieces()
        self._backup.over()

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
        self._repeats = not (isinstance(loss, Tensor) or self.update.several)
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
        try:
            return self.update.backward(loss, self._share)
        except (RuntimeError, MemoryError) as error:
            if not memory.ran_out(error):
                raise
            if not self._repeats:
                raise memory.cannot_repeat(self.update.several, count(self._window[-self._left])) from error
        return None

    def _smaller(self) -> None:
        """Forget the gradients of this update, and have its microbatches handed out anew, half as large."""
        self.update.clear()
        self._backup.put_back()
        self._loss, self._left, self._again = None, 0, True
        self.microbatching.halve(self._window, self.net)
        largest = max(map(count, self._window))
        self.control.smaller_microbatches(largest, self.microbatching.most, memory.normed(self.net))

    def _hear(self) -> None:
        """Tell the noise of this update's gradients to a policy that goes by it."""
        if self.microbatching.policy is None:
            return
        unit = self.update.unit
        if self._left == len(self._window) > 1:
            self.microbatching.part(unit * self._share, count(self._window[0]))
        elif self._left == 1:
            self.microbatching.whole(self.done + 1, unit, self._examples)

    def _update(self, loss: Tensor) -> None:
        verdict = self.update.apply(loss, self._examples, self.done + 1 >= self.control.next)
        self._progress.count()
        if verdict is not Verdict.GO:
            self.control.withheld(verdict, float(loss), self._window)
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
        return self.control.averages

    def evaluated(self) -> AbstractContextManager[None]:
        """Within it the network holds the weights to ship: `with steps.evaluated(): measure(net)`.

        Batch-norm statistics beside averaged weights are to be renewed (`average.renew_statistics`); they,
        modes, chance and the weights that are trained are afterwards as before."""
        return self.control.evaluated()

    def stop(self, why: str) -> None:
        """End the run before the next step, evaluated and saved."""
        self.control.stop(why)

    def reopen(self) -> None:
        """Let a run that has ended go on as far as its budget allows, with fresh patience."""
        self._progress.reopen()

    def restore_best(self) -> None:
        """Put the weights to ship into the network: the best ones, averaged where an average is kept.

        Batch-norm statistics beside averaged weights are to be renewed (`average.renew_statistics`)."""
        self.control.ship_best()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            self._failed = isinstance(error, Diverged)
            if error is None and not self._left:
                self.control.save()
            self.control.end()
            self._tell_the_end()
        if error is None and self.control.interrupted is not None:
            raise Interrupted(self.control.interrupted)

    def _saved(self) -> str:
        """How to go on from this step, which is saved; empty where nothing is written."""
        folder = self.control.folder
        if folder is None:
            return ""
        self.control.save()
        return f"Step {self.done} is saved in {str(folder.path)!r}; resume goes on from there."

    def _take(self, folder: Folder | None, opening: ExitStack) -> None:
        """Lock the folder, and say what has changed since the run began."""
        if folder is not None:
            folder.create()
            opening.enter_context(folder.lock())
            self._name_changes(folder)

    def _name_changes(self, folder: Folder) -> None:
        """Say what has changed of that which bits depend on, since the run began."""
        before, now = environment.read(folder.env), environment.describe(str(self._device))
        for sentence in environment.differences(before, now):
            warnings.warn(f"The bits may differ: {sentence}.", stacklevel=3)
        if not before:
            write_atomic(folder.env, json.dumps(now, indent=1).encode())

    @property
    def _device(self) -> torch.device:
        return next(self.net.parameters()).device

    def _tell_the_end(self) -> None:
        self.record.close(self.status)
        folder = self.control.folder
        if self.owns and folder is not None:
            write_atomic(folder.result, json.dumps(self.result(), indent=1).encode())


def loop(
    net: nn.Module,
    opt: torch.optim.Optimizer,
    data: Any,
    *,
    out: str | os.PathLike[str] | Folder | None = None,
    epochs: float | None = None,
    budget: str | Budget | None = None,
    horizon: int | None = None,
    batch_size: int | str | BatchPolicy = 64,
    accumulate: int = 1,
    seed: int = 0,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    clip_adaptive: float | None = None,
    precision: Literal["32", "bf16", "16"] = "32",
    average: float | None = None,
    stopping: Stopping | None = None,
    guard: bool | Guard = True,
    evaluate: Callable[[], Mapping[str, float]] | None = None,
    evaluate_every: str | Budget = "1 epoch",
    monitor: str | None = None,
    mode: Literal["auto", "min", "max"] = "auto",
    save_every: str | Budget = "30s",
    keep: int = 3,
    log: Sequence[Logger] = (),
    on_step: Callable[[Loop], object] | None = None,
    on_evaluation: Callable[[Loop, dict[str, Any]], object] | None = None,
    carry: Mapping[str, Stateful] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Loop:
    """A loop over microbatches that updates, evaluates, saves, resumes and stops.

    opt             steepest's optimizer or any of torch.optim
    data            what `data.batches.batches` takes, or such Batches (then batch_size, accumulate and their
                    seed are theirs)
    batch_size      examples an update, "full", or a policy; the rate beside a policy is the caller's:
                    lr=batch.Compensated(1e-3, policy)
    out             a run folder, resumed by itself when it holds a run; None: nothing is written. A path is
                    locked and its result.json written; a `Folder` is the caller's, who does both
    epochs, budget  how long; "60s", "500 steps", "20 epochs"
    horizon         steps that a budget in seconds was measured to hold; it ends at whichever comes first
    seed            of the data's order, and of the global random generators inside the loop
    clip_*          largest norm, largest coordinate, largest norm of a unit's gradient beside its weights
    precision       of the forward pass, inside `steps.autocast()`
    average         decay of a moving average of the weights, which is then what is evaluated and shipped
    stopping        when to decay, rewind and stop; None: only the best is kept
    guard           keep non-finite losses and gradients from the weights
    evaluate        function → {metric: number}; sees the evaluation weights
    monitor, mode   metric that the best goes by (default val/loss, without `evaluate` train/loss)
    save_every      "30s", "500 steps", "1 epoch"; also saved: the start, the end, and at SIGINT and SIGTERM
    keep            newest checkpoints kept, beside those needed
    log             loggers; metrics.csv is always written when there is a folder. One that raises is told no
                    more, with a warning, and the run goes on
    on_step, on_evaluation  called with the loop (and the row) after each; where one raises, the run is saved
                    and ended
    carry           further objects with state_dict, saved along (a scheduler of torch.optim); what listens to
                    the optimizer (`hypertune`) is so by itself
    settings        what loggers are told of the run before its first row

    Where torch.distributed has a process group, `net` is a DistributedDataParallel, and each process hands
    over its share of the data. They share one folder, in which the main one writes, and they evaluate, save
    and stop together; what `evaluate` gives in the main process counts."""
    source = data if hasattr(data, "start") else batches(data, batch_size, accumulate=accumulate, seed=seed)
    monitor = monitor or ("train/loss" if evaluate is None else "val/loss")
    folder = out if isinstance(out, Folder) or out is None else Folder(out)
    averaged, optimizer = None if average is None else Average(plain(net), average), adapted(opt, plain(net))
    if averaged is not None and optimizer.averages:
        raise UserError(
            f"average={average} would average weights of which the optimizer ships an average of its own. "
            "Leave it out, or take a rule without one."
        )
    if folder is not None:
        _name_schedulers(opt, carry or {})
    world = World.current()
    _same_length(source, world)
    own = folder if world.is_main else None
    losses, record = MeanLoss(world), Record(own.metrics if own else None, log if world.is_main else ())
    update = Update(
        optimizer,
        losses,
        averaged,
        guard=Guard() if guard is True else guard or None,
        clip_norm=clip_norm,
        clip_value=clip_value,
        clip_adaptive=clip_adaptive,
        scale=LossScale() if _known(precision) == "16" else None,
        world=world,
    )
    microbatching = Microbatching(_varied(source), opt)
    state = TrainState(
        net,
        optimizer,
        averaged,
        _described(source, seed),
        _listening(opt) | dict(carry or {}),
        losses,
        world,
        record=record,
        update=update,
        microbatching=microbatching,
    )
    control = Control(
        state,
        update,
        record,
        _intervals(epochs, budget, horizon, evaluate_every, save_every, source),
        Evaluation(net, evaluate, monitor, update.shows, losses, world),
        stopping or Stopping(),
        sign(monitor, mode),
        Checkpoints(folder, keep, world),
        own,
        seed,
        world,
    )
    owns = folder is not out
    return Loop(
        control,
        update,
        microbatching,
        record,
        plain(net),
        source,
        precision,
        owns,
        on_step,
        on_evaluation,
        settings or {},
        world,
    )


def _intervals(
    epochs: float | None,
    budget: str | Budget | None,
    horizon: int | None,
    evaluate_every: str | Budget,
    save_every: str | Budget,
    source: Batches,
) -> Intervals:
    if (epochs is None) == (budget is None):
        raise UserError('Say how long to train: epochs=20, or budget="60s" or "500 steps"; one of the two.')
    allowed = Budget(float(epochs), "epochs") if epochs is not None else parse(budget or "")
    return Intervals(
        allowed,
        horizon,
        parse(evaluate_every, "evaluate_every"),
        parse(save_every, "save_every"),
        source.per_epoch,
        _varied(source),
    )


def _listening(opt: torch.optim.Optimizer) -> dict[str, Stateful]:
    """What listens to the optimizer and has a state, as `hypertune` does: it is a part of the run."""
    found = [one for one in getattr(opt, "listeners", ()) if hasattr(one, "state_dict")]
    return {f"{type(one).__name__} {number}": one for number, one in enumerate(found, 1)}


def _name_schedulers(opt: torch.optim.Optimizer, carry: Mapping[str, Stateful]) -> None:
    """Warn where a scheduler of torch.optim steps the optimizer, and would begin anew in a resumed run."""
    steps = getattr(opt.step, "_wrapped_by_lr_sched", False)
    if steps and not any(isinstance(one, LRScheduler) for one in carry.values()):
        warnings.warn(
            "A scheduler of torch.optim is made for this optimizer and is not saved with the run: resumed, "
            "it begins anew. Give it along: loop(…, carry={'schedule': scheduler}).",
            stacklevel=3,
        )


def _same_length(source: Batches, world: World) -> None:
    """Raises UserError where one process would wait for updates that another does not make."""
    found = [int(length) for length in world.gather(str(source.per_epoch or 0).encode())]
    if len(set(found)) > 1:
        raise UserError(
            f"The processes have {found} updates an epoch, and each update takes all of them. Give each as "
            "many examples: cut the data to a length that the number of processes divides."
        )


def _described(source: Batches, seed: int) -> dict[str, Any]:
    """What of the data must be the same when a run is resumed."""
    varied = _varied(source)
    policy = {} if varied is None else {"batch_size": str(varied.policy)}
    return {"examples": source.examples, "updates an epoch": source.per_epoch, "seed": seed} | policy


def _varied(source: Batches) -> VariedPlan | None:
    """What a person's own batches need not have."""
    return getattr(source, "varied", None)


def _known(precision: str) -> str:
    if precision not in ("32", "bf16", "16"):
        raise UserError(f'precision must be "32", "bf16" or "16", got {precision!r}.')
    return precision
