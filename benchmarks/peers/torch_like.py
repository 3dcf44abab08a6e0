"""Runs an optimiser that steps in place over torch parameters."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from papers import PAPERS
from papers.problem import Problem

from peers.peer import Peer

Weights = list[np.ndarray]


def run(peer: Peer, h: SimpleNamespace, problem: Problem, steps: int) -> tuple[list[Weights], list[Weights]]:
    """(weights after each step, weights to ship after each step), in float64."""
    params = [torch.from_numpy(w).requires_grad_() for w in problem.start()]
    optimiser = peer.make(params, h)
    averaging = hasattr(optimiser, "train")
    trained, shipped = [], []
    for t in range(1, steps + 1):
        if averaging:
            optimiser.train()
        for p, g in zip(params, problem.gradients(copied(params), t), strict=True):
            p.grad = torch.from_numpy(g)
        optimiser.step(**readings(peer, h, problem, t))
        trained.append(copied(params))
        if averaging:
            optimiser.eval()
            shipped.append(copied(params))
        elif "ax" in optimiser.state.get(params[0], {}):
            shipped.append(copied([optimiser.state[p]["ax"] for p in params]))
    return trained, shipped


def readings(peer: Peer, h: SimpleNamespace, problem: Problem, t: int) -> dict[str, Any]:
    """The curvature, for rules that are given it, at the steps at which it is new."""
    kind = PAPERS[peer.rule].reads if peer.rule in PAPERS else ""
    if not kind or (t - 1) % h.every:
        return {}
    return {"hessian": [torch.from_numpy(problem.reading(kind, i, t)) for i in range(len(problem.shapes))]}


def copied(tensors: list[Any]) -> Weights:
    return [one.detach().numpy().copy() for one in tensors]
