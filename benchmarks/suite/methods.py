"""Ways to train that need no settings. A method is called once with a task, a budget in gradient evaluations,
a seed and a watch, and returns what it decided. `METHODS` holds those that measure nothing by name;
`method(name)` adds one. Those that measure are in ours.py."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.suite.clock import Shown, Watch
from benchmarks.suite.workloads import Task
from steepest import rules, schedule
from steepest.torch import optimizer

Config: TypeAlias = dict[str, Any]
Method: TypeAlias = Callable[[Task, int, int, Watch], Config]

METHODS: dict[str, Method] = {}

CONSTANT_MOMENTUM = 1e6
"""torch's NAdam lets its momentum rise as β(1 - ½·0.96^(decay·t)); with this decay it is β from step 1 on."""

NADAMW = {"lr": 1.75e-3, "beta1": 0.9327, "beta2": 0.9955, "weight_decay": 0.081, "warmup": 0.02}
"""The one point of AlgoPerf's self-tuning baseline."""
FREE = {"lr": 2.5e-3, "beta1": 0.9, "beta2": 0.9955, "weight_decay": 0.081, "power": 0.75, "warmup": 0.02}
"""The one point of schedule-free AdamW in AlgoPerf's self-tuning track."""


def method(name: str) -> Callable[[Method], Method]:
    """Enter a method under its name."""

    def entered(one: Method) -> Method:
        METHODS[name] = one
        return one

    return entered


def descend(task: Task, model: nn.Module, made: Optimizer, watch: Watch, **more: Any) -> None:
    """The plain loop. more: `after`, called after each update, and `shown`, see Watch."""
    after: Callable[[], object] = more.get("after", lambda: None)
    shown: Shown = more.get("shown", nullcontext)
    for x, y in task.batches():
        made.zero_grad()
        loss = task.loss(model, x, y)
        loss.backward()
        made.step()
        after()
        if not watch(model, loss.item(), shown=shown):
            return


def built(model: nn.Module, config: Config) -> Optimizer:
    """An optimizer of torch, so that what we are held against does not depend on us."""
    weights, decay = model.parameters(), config["weight_decay"]
    if config["rule"] in ("nesterov", "momentum"):
        ahead = config["rule"] == "nesterov"
        return torch.optim.SGD(weights, config["lr"], config["beta1"], weight_decay=decay, nesterov=ahead)
    betas = config["beta1"], config["beta2"]
    if config["rule"] == "adamw":
        return torch.optim.AdamW(weights, config["lr"], betas, weight_decay=decay)
    return torch.optim.NAdam(
        weights,
        config["lr"],
        betas,
        weight_decay=decay,
        momentum_decay=CONSTANT_MOMENTUM,
        decoupled_weight_decay=True,
    )


def with_torch(task: Task, budget: int, watch: Watch, config: Config) -> Config:
    """Train with an optimizer of torch under a schedule over the whole budget, and give back its settings."""
    model = task.model()
    made = built(model, config)
    curve = schedule.named(config["schedule"], 1.0, budget, round(config["warmup"] * budget))
    steps = LambdaLR(made, lambda done: curve(done + 1))
    descend(task, model, made, watch, after=steps.step)
    return config


def _fixed(name: str, **config: Any) -> None:
    usual = {"beta1": 0.9, "beta2": 0.999, "weight_decay": 0.01, "warmup": 0.0, "schedule": "cosine"}

    @method(name)
    def run(task: Task, budget: int, seed: int, watch: Watch) -> Config:
        return with_torch(task, budget, watch, usual | config)


_fixed("adamw", rule="adamw", lr=1e-3, schedule="constant")
_fixed("adamw cosine", rule="adamw", lr=1e-3, warmup=0.05)
_fixed("nadamw point", rule="nadamw", **NADAMW)
_fixed("sgd cosine", rule="momentum", lr=0.1, weight_decay=0.0)


@method("schedule-free point")
def schedule_free(task: Task, budget: int, seed: int, watch: Watch) -> Config:
    """Schedule-free AdamW; its average is what is validated."""
    numbers: dict[str, Any] = FREE | {"warmup": round(FREE["warmup"] * budget)}
    model = task.model()
    made = optimizer(model, rules.ScheduleFreeAdamW(**numbers), decay_all=True)
    descend(task, model, made, watch, shown=made.evaluate)
    return {"rule": "schedule_free_adamw", **numbers}


@method("muon")
def muon(task: Task, budget: int, seed: int, watch: Watch) -> Config:
    """Muon for hidden matrices and AdamW for the rest, at their defaults, falling to zero."""
    model, lr = task.model(), rules.Muon().lr
    descend(task, model, optimizer(model, rules.Muon(lr=schedule.named("cosine", lr, budget))), watch)
    return {"rule": "muon", "lr": lr, "schedule": "cosine"}
