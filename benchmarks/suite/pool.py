"""The pool: quasi-random trials of three optimizers over one space for all workloads, each at full length.

Its best set the targets, and its whole lot is what tuning by hand costs: the expected best of K of them."""

from __future__ import annotations

from functools import partial
from typing import Any

from scipy.stats import qmc

from benchmarks.suite.clock import Watch
from benchmarks.suite.methods import Config, Method, with_torch
from benchmarks.suite.workloads import Task

SEED = 1000
"""Start and order of all trials; no method and no target is measured with it."""

RATES = {"adamw": (1e-4, 1e-1), "nadamw": (1e-4, 1e-1), "nesterov": (1e-3, 3.0)}
DECAYS = {"adamw": (1e-4, 1.0), "nadamw": (1e-4, 1.0), "nesterov": (1e-6, 1e-2)}
"""torch's SGD adds decay to the gradient, where momentum multiplies it; so its range lies lower."""
FORGETTING = (0.004, 0.3)
"""1 - beta1."""
WARMUPS = (0.0, 0.02, 0.1)
SCHEDULES = ("cosine", "linear")


def trials(rule: str, count: int) -> list[Config]:
    """The first `count` points of a scrambled Sobol sequence; a longer list begins with the shorter one."""
    whole = 1 << max(count - 1, 0).bit_length()
    return [
        _config(rule, *point)
        for point in qmc.Sobol(5, rng=sum(map(ord, rule))).random(whole)[:count].tolist()
    ]


def _config(rule: str, lr: float, beta: float, decay: float, warmup: float, curve: float) -> Config:
    return {
        "rule": rule,
        "lr": _between(*RATES[rule], lr),
        "beta1": 1 - _between(*FORGETTING, beta),
        "beta2": 0.999,
        "weight_decay": _between(*DECAYS[rule], decay),
        "warmup": WARMUPS[int(warmup * len(WARMUPS))],
        "schedule": SCHEDULES[int(curve * len(SCHEDULES))],
    }


def _between(low: float, high: float, share: float) -> float:
    return low * (high / low) ** share


def as_method(config: Config) -> Method:
    """A trial as a method."""
    return partial(_tried, config)


def _tried(config: Config, task: Task, budget: int, seed: int, watch: Watch) -> Config:
    return with_torch(task, budget, watch, config)


def best(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The trial with the lowest final metric among those that did not diverge."""
    return min((one for one in records if not one["diverged"]), key=lambda one: one["final"])
