"""`Control`: a copy of a job's network, descended by a plain rule at its own rate, to measure steps on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

from torch import Tensor

from steepest.data import rng
from steepest.data.tree import Tree
from steepest.optim import rules
from steepest.optim.engines.torch.of_model import optimizer
from steepest.optim.rule import Rule
from steepest.train import settled
from steepest.train.growth import power_of
from steepest.train.job import Job


class Control:
    """One step at a time on batches of any size. The job's network, its buffers and everybody's chance stay
    as they are.

    scaled  whether the rule sees gradients in a unit of its own (Adam's kind)"""

    def __init__(self, job: Job) -> None:
        self.job = job.on(deepcopy(job.model))
        rule = _plain(settled.rule_of(job.recipe, job.given))
        self.scaled = power_of(rule) > 1
        self.optimizer = optimizer(self.job.model, rule, lr_scale=job.recipe.lr_scale)

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

    def backward(self, batch: Tree) -> Tensor:
        """The loss of a batch, its gradient in place of what was there."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.job.objective(batch)
        loss.backward()
        return loss.detach()


def _plain(rule: Rule) -> Rule:
    """The rule at its first rate, or AdamW where it takes more than a gradient."""
    return rules.AdamW() if rule.perturb or rule.extra_inputs else rule.at(1)
