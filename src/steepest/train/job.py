"""`Job`: everything a recipe asks for, built and checked, before the first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from steepest.data.batches import Batches, Held, batches, count
from steepest.data.rng import preserved
from steepest.data.tree import Tree, moved
from steepest.evidence import Evidence
from steepest.models.probe import apply
from steepest.optim.errors import UserError, did_you_mean
from steepest.recipe import Recipe
from steepest.tasks.target import one_tensor
from steepest.train import loss, machine, memory, metrics, network, settled
from steepest.train.given import Given
from steepest.train.growth import policy_of, said
from steepest.train.loss import Loss
from steepest.train.metrics import Metrics
from steepest.train.prepare import Prepared, prepare

EVALUATED_AT_ONCE = 1024
"""Examples of a batch of an evaluation: a matter of speed only."""

OF_SOURCE = ("batch_size", "accumulate")
"""Settings of the descent that the batches are made by."""


@dataclass(frozen=True)
class Job:
    """A recipe with every setting resolved, and the things it stands for.

    asked     the recipe as it is written down, which repeats the run: "auto" where a setting is measured
    model     the network as it is saved;   runs  what is called: the same, or its compiled form
    penalty   l1 and l2 as a function of the weights, or None
    source    batches of the training part
    evidence  the choices made so far
    """

    recipe: Recipe
    asked: Recipe
    given: Given
    prepared: Prepared
    model: nn.Module
    runs: Callable[..., Any]
    loss: Loss
    penalty: Callable[[], torch.Tensor] | None
    device: torch.device
    source: Batches
    evidence: tuple[Evidence, ...]

    @property
    def size(self) -> int:
        """Examples of an update; of batches that vary the usual number."""
        if isinstance(self.recipe.batch_size, int):
            return self.recipe.batch_size
        varied = self.source.varied
        return varied.policy.usual if varied is not None else self.source.examples or 1

    def on(self, model: nn.Module) -> Job:
        """The same over another network of the same kind, which is run as it is, not compiled."""
        recipe = self.recipe
        penalised = loss.penalty(model, recipe.l1, recipe.l2) if self.penalty is not None else None
        return replace(self, model=model, runs=model, penalty=penalised)

    def having(self, settings: Mapping[str, Any], schedule: Callable[[int], float] | None = None) -> Job:
        """The same under other settings of the descent, and a schedule where one is given."""
        recipe = self.recipe.model_copy(update=dict(settings))
        given = self.given if schedule is None else replace(self.given, schedule=schedule)
        same = all(getattr(recipe, name) == getattr(self.recipe, name) for name in OF_SOURCE)
        source = self.source if same else _training(recipe, given, self.prepared, self.device)
        return replace(self, recipe=recipe, given=given, source=source)

    def batches_of(self, part: Any) -> Batches:
        """A part of the data in its own order, for measuring."""
        return batches(_on(self.device, part), EVALUATED_AT_ONCE, shuffle=False, seed=self.recipe.seed)

    def metrics(self) -> Metrics:
        """Fresh measures of this task."""
        return metrics.build(self.prepared.target, self.given.metrics)

    def inputs(self, batch: Any) -> Any:
        """The inputs of a batch, where the network is."""
        return moved(batch[0], self.device)

    def outputs(self, batch: Any) -> Any:
        """What the network gives for the inputs of a batch."""
        return apply(self.runs, self.inputs(batch))

    def losses(self, outputs: Any, batch: Any) -> torch.Tensor:
        """Mean loss of a batch (inputs, target) or (inputs, target, weight), without the penalty."""
        return self.loss(outputs, *(moved(part, self.device) for part in batch[1:]))

    def losses_by_example(self, batch: Any) -> torch.Tensor:
        """The loss of each example of a batch, without the penalty."""
        return self.loss.by_example(self.outputs(batch), *(moved(part, self.device) for part in batch[1:]))

    def objective(self, batch: Any) -> torch.Tensor:
        """What is descended: the loss, and the penalty where there is one."""
        return self.objective_and_logits(batch)[0]

    def objective_and_logits(self, batch: Any) -> tuple[torch.Tensor, Any]:
        """The same, and the outputs that it was computed from, one row an example."""
        outputs = self.outputs(batch)
        value = self.losses(outputs, batch)
        value = value if self.penalty is None else value + self.penalty()
        return value, outputs.unsqueeze(1) if getattr(outputs, "ndim", 0) == 1 else outputs


def build(recipe: Recipe, given: Given) -> Job:
    """Build and check all that the recipe asks for. Raises UserError for what cannot be."""
    asked, recipe = recipe, recipe.provisional()
    settled.check_open(asked, given)
    usual_threads = torch.get_num_threads()
    device = machine.begin(recipe)
    prepared = prepare(recipe, given)
    chosen = loss.build(
        given.of(recipe, "loss"),
        prepared.target,
        label_smoothing=recipe.label_smoothing,
        focal_gamma=recipe.focal_gamma,
        huber_delta=recipe.huber_delta,
        class_weight=prepared.weights,
    )
    model, evidence = network.build(recipe, given, prepared, chosen)
    model = model.to(device)
    source = _training(recipe, given, prepared, device)
    window = next(source.once())
    recipe = _as_they_come(recipe, source, window)
    looked = memory.by_parts(partial(_threads, recipe, model, device), window[0])
    (threads, counted), batch = next(looked)
    resolved = settled.settled(recipe, given, prepared, chosen, threads)
    job = Job(
        recipe=resolved,
        asked=settled.as_asked(resolved, asked),
        given=given,
        prepared=prepared,
        model=model,
        runs=torch.compile(model) if recipe.compile else model,
        loss=chosen,
        penalty=loss.penalty(model, recipe.l1, recipe.l2) if recipe.l1 or recipe.l2 else None,
        device=device,
        source=source,
        evidence=(*prepared.evidence, *evidence, *counted, *said(model, source, window)),
    )
    next(memory.by_parts(partial(_check_fit, job), batch, memory.fewest(model)))
    torch.set_num_threads(threads or usual_threads)
    return job


def _threads(
    recipe: Recipe, model: nn.Module, device: torch.device, batch: Any
) -> tuple[int | None, tuple[Evidence, ...]]:
    return machine.threads(recipe, lambda: network.forward(model, moved(batch[0], device)))


def _training(recipe: Recipe, given: Given, prepared: Prepared, device: torch.device) -> Batches:
    return batches(
        _on(device, prepared.train),
        policy_of(recipe, given, settled.rule_of(recipe, given)),
        accumulate=recipe.accumulate,
        seed=recipe.seed,
        augment=given.of(recipe, "augment"),
        num_workers=recipe.num_workers,
    )


def _as_they_come(recipe: Recipe, source: Batches, window: Sequence[Tree]) -> Recipe:
    """The recipe with the size that a loader's batches have: its own says nothing of them."""
    if source.resumes_by != "skipping":
        return recipe
    return recipe.model_copy(update={"batch_size": sum(map(count, window))})


def _check_fit(job: Job, batch: Any) -> None:
    """One batch through the network and the loss: what does not fit is said before the first step."""
    network.check_single(job.model, moved(batch[0], job.device))
    with preserved(job.model, training=False):
        outputs = apply(job.model, moved(batch[0], job.device))
    target = moved(batch[1], job.device)
    value = loss.check(outputs, target, job.loss)
    if not any(weight.requires_grad for weight in job.model.parameters()):
        raise UserError("The model has no weight to train: all are frozen, or there are none.")
    if not value.requires_grad:
        raise UserError(
            f"The loss {job.loss.name!r} does not depend on the weights of the network, so nothing can be "
            "descended. Is a detach() or no_grad() in the way?"
        )
    if job.loss.target != "any" and isinstance(outputs, torch.Tensor):
        job.prepared.target.check_outputs(outputs, job.loss.target)
    _check_measured(job, outputs, target)


def _check_measured(job: Job, outputs: Any, target: Any) -> None:
    """Metrics must be measurable on such outputs, and the monitored one be among them."""
    measures, parts = job.metrics(), job.prepared
    if parts.val is not None or parts.test is not None:
        parts.target.check_outputs(one_tensor(outputs), job.loss.target)
        measures.update(outputs, target)
    measured = [name if "/" in name else f"val/{name}" for name in measures.names]
    known = ["train/loss", *(measured if parts.val is not None else ())]
    if job.recipe.monitor not in known:
        nearest = did_you_mean(job.recipe.monitor, known)
        raise UserError(f"monitor is {job.recipe.monitor!r}, which is not measured.{nearest}")


def _on(device: torch.device, part: Any) -> Any:
    """Data held in memory, moved to the device at once; anything else as it is, moved batch by batch."""
    if isinstance(part, Held):
        return replace(part, data=moved(part.data, device))
    return moved(part, device) if isinstance(part, tuple) else part
