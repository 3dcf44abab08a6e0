"""Formulas of the losses: (outputs, target) → the loss of each example, shaped like the target.

Half precision is lifted to float32 first; every other dtype is computed in as it comes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(outputs: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """-Σₖ qₖ log pₖ, with p the softmax of K outputs, q = (1-s)·onehot(target) + s/K."""
    return functional.cross_entropy(_precise(outputs), target, reduction="none", label_smoothing=smoothing)


def focal(outputs: Tensor, target: Tensor, smoothing: float, gamma: float) -> Tensor:
    """-Σₖ qₖ (1-pₖ)^γ log pₖ, with q the smoothed target.   Lin et al. 2017, arXiv:1708.02002, equation 4."""
    log_p = functional.log_softmax(_precise(outputs), dim=1)
    # 1 - p as -expm1(log p), kept off 0: the power's slope is infinite there for γ < 1.
    rest = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
    terms = rest**gamma * -log_p
    hit = terms.gather(1, target.clamp_min(0).unsqueeze(1)).squeeze(1)
    losses = (1 - smoothing) * hit + smoothing * terms.mean(1) if smoothing else hit
    return torch.where(target < 0, 0.0, losses)  # positions that do not count


def binary(outputs: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """-q log p - (1-q) log(1-p), with p the logistic of one output, q = (1-s)·target + s/2."""
    outputs = _precise(outputs).reshape(target.shape)
    q = target.to(outputs.dtype) * (1 - smoothing) + 0.5 * smoothing
    return functional.binary_cross_entropy_with_logits(outputs, q, reduction="none")


def mean_squared_error(outputs: Tensor, target: Tensor) -> Tensor:
    """e², the error squared."""
    return _error(outputs, target).square()


def l1(outputs: Tensor, target: Tensor) -> Tensor:
    """|e|, the size of the error."""
    return _error(outputs, target).abs()


def huber(outputs: Tensor, target: Tensor, delta: float) -> Tensor:
    """½e² within δ of the target, δ(|e| - ½δ) beyond.   Huber 1964."""
    error = _error(outputs, target)
    return functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=delta)


def _error(outputs: Tensor, target: Tensor) -> Tensor:
    # The target's shape, never a broadcast: (n, 1) against (n,) would make n² errors.
    outputs = _precise(outputs).reshape(target.shape)
    return outputs - target.to(outputs.dtype)


def _precise(outputs: Tensor) -> Tensor:
    return outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs
