"""From a job to trained weights: the loop of `fit`, and how it measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch

from steepest.data.batches import Batches
from steepest.data.rng import preserved
from steepest.evidence import Evidence
from steepest.files import Folder
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.engines.torch.passes import by_labels
from steepest.train import memory, settled
from steepest.train.evaluation import renew_statistics
from steepest.train.growth import Course, course
from steepest.train.job import Job
from steepest.train.loop import Loop, loop
from steepest.train.metrics import Metrics

STATISTICS = 100
"""Training batches that batch-norm statistics are measured anew on, beside averaged weights."""


def descend(job: Job, steps: Loop) -> None:
    """Train until the budget, the stopping or a signal ends it."""
    job.model.train()
    labels = by_labels(settled.rule_of(job.recipe, job.given))
    compute = job.objective_and_logits if labels else job.objective
    for batch in steps:
        steps.step(partial(_within, steps, compute, batch))


def _within(steps: Loop, compute: Callable[[Any], Any], batch: Any) -> Any:
    with steps.autocast():
        return compute(batch)


def optimizer_of(job: Job, horizon: Evidence | None) -> RuleOptimizer:
    """A fresh optimizer for the whole run."""
    way = course_of(job, horizon)
    return settled.optimizer_of(job.recipe, job.given, job.model, job.source.per_epoch, way.steps, way.policy)


def loop_of(
    job: Job,
    optimizer: RuleOptimizer,
    folder: Folder | None,
    loggers: Sequence[Any],
    horizon: Evidence | None,
) -> Loop:
    """The loop that a job asks for; nothing is written before it is entered."""
    recipe, way = job.recipe, course_of(job, horizon)
    assert recipe.clip_norm != "auto", "a job's recipe is concrete"
    steps = loop(
        job.model,
        optimizer,
        way.source,
        out=folder,
        budget=recipe.budget,
        horizon=way.horizon,
        seed=recipe.seed,
        clip_norm=recipe.clip_norm,
        clip_value=recipe.clip_value,
        clip_adaptive=recipe.clip_adaptive,
        precision=recipe.precision,
        average=recipe.average,
        stopping=settled.stopping_of(recipe),
        guard=recipe.guard,
        evaluate=None if job.prepared.val is None else Validation(job),
        evaluate_every=recipe.evaluate_every,
        monitor=recipe.monitor,
        mode=recipe.mode,
        save_every=recipe.save_every,
        keep=recipe.keep,
        log=[*loggers, *job.given.log],
        on_step=job.given.on_step,
        on_evaluation=job.given.on_evaluation,
        settings=recipe.model_dump(),
    )
    # What measuring the horizon took is part of the budget; a resumed run carries its own count.
    steps.charge(0.0 if horizon is None else horizon.seconds)
    return steps


class Validation:
    """Measures the validation part; called by the loop at every evaluation."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._batches = job.batches_of(job.prepared.val)
        self._metrics = job.metrics()

    def __call__(self) -> dict[str, float]:
        if averages(self._job):
            renew(self._job)
        return measure(self._job, self._batches, self._metrics)


def measure(job: Job, data: Batches, metrics: Metrics) -> dict[str, float]:
    """The metrics of the model as it is on all of `data`; the mode of the model is put back."""
    metrics.reset()
    for outputs, batch in predictions(job, data):
        weight = batch[2] if len(batch) > 2 else None
        metrics.update(outputs, batch[1], weight, job.losses(outputs, batch))
    return metrics.compute()


def predictions(job: Job, data: Batches) -> Iterator[tuple[Any, Any]]:
    """(outputs, batch) over one pass, in test mode."""
    with preserved(job.model, training=False), torch.no_grad():
        for microbatches in data.once():
            for batch in microbatches:
                yield from memory.by_parts(job.outputs, batch)


def averages(job: Job) -> bool:
    """Whether the weights to test and to ship are averages, which were never run."""
    return job.recipe.average is not None or settled.rule_of(job.recipe, job.given).evaluates()


def renew(job: Job) -> int:
    """Batch-norm statistics of averaged weights, measured on training batches; how many were used."""
    inputs = (job.inputs(batch) for window in islice(job.source.once(), STATISTICS) for batch in window)
    return renew_statistics(job.model, inputs)


def steps_of(job: Job, horizon: Evidence | None) -> int | None:
    """Updates of the whole run, where they are known beforehand."""
    return course_of(job, horizon).steps


def course_of(job: Job, horizon: Evidence | None) -> Course:
    """How the run goes through its data."""
    return course(job.recipe, job.given, job.source, None if horizon is None else horizon.decided)


def evaluation_seconds(job: Job) -> float:
    """How long one evaluation takes."""
    if job.prepared.val is None:
        return 0.0
    validation, began = Validation(job), time.perf_counter()
    validation()
    return time.perf_counter() - began
