"""`Trial`: a run on a copy of the network, which stops, waits and goes on to the same bits; and its scores,
the losses of held-out examples one by one, so that two candidates can be compared in pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steepest.data import rng
from steepest.data.batches import batches, count
from steepest.data.tree import Tree
from steepest.optim import rules
from steepest.optim.engines.torch.of_model import optimizer
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.engines.torch.passes import by_labels
from steepest.train import budget, checkpoint, growth, memory, settled
from steepest.train.evaluation import Average, renew_statistics
from steepest.train.fitting import loop_of, optimizer_of
from steepest.train.job import Job
from steepest.train.loop import Loop
from steepest.train.state import Snapshot
from steepest.train.update import Diverged
from steepest.tuning.constants import FEWEST_ROWS, FORWARD, SCORED, SEEN, STATISTICS, WATCHED

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
        self._state, self._update = self._loop.state, self._loop.update
        if "clip_norm" in job.asked.open:
            self._update.always_measure()
        self.average = Average(self.job.model, WATCHED)
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.dead = False
        self._state.add("trial", self)
        labels = by_labels(settled.rule_of(job.recipe, job.given))
        self._objective = self.job.objective_and_logits if labels else self.job.objective
        self._held: Snapshot | None = None

    @property
    def done(self) -> int:
        """Updates so far."""
        return self._loop.done

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
                    self._state.load(self._held.having(trial=self.state_dict()))
                if self.done < to and not self.dead:
                    yield from self._steps(steps, to)
                self._held = self._state.snapshot()
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
        norm = self._update.norm
        self.losses.append(loss)
        self.norms.append(math.nan if norm is None else norm)
        strikes = self._update.strikes
        unguarded = self._update.guard is None and not math.isfinite(loss)
        self.dead = bool(strikes.rewinds) or unguarded
        if not strikes.in_a_row and not self.dead:
            self.average.update()

    def _compute(self, batch: Any) -> Any:
        with self._loop.autocast():
            return self._objective(batch)

    @property
    def ships(self) -> Callable[[], AbstractContextManager[None]] | None:
        """What puts the evaluation weights of such a run into the network; None: it holds them."""
        return self._update.shows

    @property
    def shows(self) -> Callable[[], AbstractContextManager[None]]:
        """What puts the weights to score into the network: a rule's own average, or one beside it."""
        return self._update.shows or self.average.swapped

    def state_dict(self) -> dict[str, Any]:
        """What a trial has besides a run."""
        told = {"losses": list(self.losses), "norms": list(self.norms), "dead": self.dead}
        return {**told, "average": self.average.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.losses, self.norms, self.dead = list(state["losses"]), list(state["norms"]), state["dead"]
        self.average.load_state_dict(state["average"])

    def snapshot(self) -> Snapshot:
        """Everything that it goes on from; the loop of `fit` takes it for a checkpoint of its own."""
        taken = self._held or self._state.snapshot()
        return taken.having(progress=taken.progress | {"good": taken.step}, trial=self.state_dict())

    def load(self, snapshot: Snapshot) -> None:
        """Become what `snapshot` gave."""
        self.load_state_dict(snapshot.parts["trial"])
        self._held = snapshot
        for _ in self.updates(0):  # no update: weights and counters become the snapshot's
            pass

    def save(self, place: Path) -> None:
        """Write a checkpoint there, under its step."""
        checkpoint.write(place, self.snapshot())

    def resume(self, place: Path, step: int) -> None:
        """Go on from a checkpoint that `save` has written."""
        self.load(checkpoint.read(checkpoint.path_of(place, step)))


class SingleSteps:
    """A copy of a job's network, moved by a plain rule one step at a time, on batches of any size. The job's
    network, its buffers and everybody's chance stay as they are.

    scaled  whether the rule sees gradients in a unit of its own (Adam's kind)"""

    def __init__(self, job: Job) -> None:
        self.job = job.on(deepcopy(job.model))
        rule = settled.rule_of(job.recipe, job.given)
        self.rule = rules.AdamW() if rule.perturb or rule.extra_inputs else rule.at(1)
        self.scaled = growth.power_of(self.rule) > 1

    @cached_property
    def optimizer(self) -> RuleOptimizer:
        """What moves the copy: the rule at its first rate, or AdamW where it takes more than a gradient."""
        return optimizer(self.job.model, self.rule, lr_scale=self.job.recipe.lr_scale)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Within it the copy is trained, under a chance of its own."""
        with rng.preserved():
            rng.begin(self.job.recipe.seed)
            self.job.model.train()
            yield

    def batches(self, size: int) -> Iterator[Tree]:
        """Whole batches of this many examples, in the order of the run."""
        source = self.job.having({"batch_size": size, "accumulate": 1}).source
        return (window[0] for window in source.start())

    def backward(self, batch: Tree) -> tuple[Tensor, Any]:
        """The loss of a batch and the outputs, the gradient in place of what was there."""
        self.job.model.zero_grad(set_to_none=True)
        loss, outputs = self.job.objective_and_logits(batch)
        loss.backward()
        return loss.detach(), outputs


Shown = Callable[[], AbstractContextManager[None]]
"""What puts other weights into the network for a while."""


@dataclass(frozen=True)
class Held:
    """What candidates are scored on: examples that none of them trains on, the same for all.

    batches   of the examples, in order;   examples  how many
    cost      of one score, in gradient evaluations;   why  where they are not of a validation part"""

    batches: tuple[Any, ...]
    examples: int
    cost: float
    why: str = ""

    @property
    def loss(self) -> str:
        """What the mean of a score is called."""
        return "held-out loss" if self.batches else "loss on training batches"


def held_out(job: Job, allowed: float, scores: int) -> Held:
    """Examples for so many scores that together may cost `allowed` gradient evaluations."""
    if why := too_few(job):
        stands_in = "losses of training batches, each taken before it is trained on, stand in"
        return Held((), 0, 0.0, f"{why}; {stands_in}")
    size = job.size
    wanted = int(min(max(allowed / scores * size / FORWARD, SCORED[0]), SCORED[1]))
    at_once = min(size, max(wanted // 16, 8))  # a loss that gives one number a batch then gives 16
    source = batches(job.prepared.val, at_once, seed=job.recipe.seed)
    taken = tuple(window[0] for window in islice(source.once(), -(-wanted // at_once)))
    examples = sum(count(batch) for batch in taken)
    return Held(taken, examples, examples / job.size * FORWARD + renewal(job))


def too_few(job: Job) -> str:
    """Why candidates cannot be compared on the validation part; empty where they can."""
    rows = job.prepared.sizes.get("val")
    if job.prepared.val is not None and (rows is None or rows >= FEWEST_ROWS):
        return ""
    return f"the validation part has {rows or 'no'} rows, too few to compare on"


def least(job: Job) -> float:
    """Gradient evaluations that the examples of a score cost at least, which is to say something."""
    return SCORED[0] / job.size * FORWARD


def renewal(job: Job) -> float:
    """Gradient evaluations that batch norms cost in each score, which are measured anew."""
    return _renewed(job.model) * FORWARD


def evaluations(job: Job, updates: int) -> float:
    """Gradient evaluations that the looks of a run at its validation part come to."""
    every = budget.parse(job.recipe.evaluate_every, "evaluate_every").steps(job.source.per_epoch)
    rows = job.prepared.sizes.get("val")
    if not every or not rows:
        return 0.0
    return updates // every * FORWARD * rows / job.size


def score(trial: Trial, held: Held) -> list[float]:
    """The loss of each held-out example under averaged weights; infinite for a dead trial."""
    if trial.dead:
        return [math.inf]
    if not held.batches:
        return trial.losses[-max(round(SEEN * len(trial.losses)), min(len(trial.losses), 5)) :]
    return losses(trial.job, held, _shown(trial))


def losses(job: Job, held: Held, shown: Shown = nullcontext) -> list[float]:
    """The loss of each held-out example, batch norms measured anew."""
    model = job.model
    with rng.preserved(model, training=False), shown(), torch.no_grad():
        renew_statistics(model, (job.inputs(w[0]) for w in islice(job.source.once(), _renewed(model))))
        return np.concatenate([_losses(job, batch) for batch in held.batches]).tolist()


def _losses(job: Job, batch: Any) -> np.ndarray:
    found = memory.by_parts(job.losses_by_example, batch)
    return torch.cat([losses.reshape(-1) for losses, _ in found]).cpu().double().numpy()


def _shown(trial: Trial) -> Shown:
    """What puts the weights to score into the network: a rule's own average, or one beside it."""
    return trial.shows


def _renewed(model: torch.nn.Module) -> int:
    return STATISTICS if memory.normed(model) else 0
