"""What wraps a rule: paths over the closed form of the rule inside, which has a decoupled decay.

Each takes `inner`, a direction from all gradients so far (papers.closed), and `numbers`, its hyperparameters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np

from papers.layerwise import norm
from papers.paper import Array, Gradient, Rate

Inner = Callable[..., Array]
Numbers = dict[str, Any]


def cautious(
    w: Array, gradient: Gradient, lr: Rate, inner: Inner, numbers: Numbers, weight_decay: float, clamped: bool
) -> Iterator[Array]:
    """Liang et al. 2024, arXiv:2411.16085, algorithm 1; with `clamped` the scale of timm."""
    G: list[Array] = []
    for t in count(1):
        G.append(gradient(w, t))
        u = inner(np.array(G), **numbers)
        mask = u * G[-1] > 0
        scale = 1 / max(mask.mean(), 1e-3) if clamped else mask.size / (mask.sum() + 1)
        w = w - lr(t) * (u * mask * scale + weight_decay * w)
        yield w


def grokfast(
    w: Array, gradient: Gradient, lr: Rate, inner: Inner, numbers: Numbers, weight_decay: float, decay: float,
    gain: float,
) -> Iterator[Array]:  # fmt: skip
    """Lee et al. 2024, arXiv:2405.20233, Grokfast-EMA, begun at the first gradient."""
    G: list[Array] = []
    slow = None
    for t in count(1):
        g = gradient(w, t)
        slow = g if slow is None else decay * slow + (1 - decay) * g
        G.append(g + gain * slow)
        w = w - lr(t) * (inner(np.array(G), **numbers) + weight_decay * w)
        yield w


def grokfast_window(
    w: Array, gradient: Gradient, lr: Rate, inner: Inner, numbers: Numbers, weight_decay: float, window: int,
    gain: float,
) -> Iterator[Array]:  # fmt: skip
    """The same, Grokfast-MA: nothing is added before the window is full."""
    G: list[Array] = []
    last: deque[Array] = deque(maxlen=window)
    for t in count(1):
        last.append(gradient(w, t))
        G.append(last[-1] + (gain * np.mean(last, axis=0) if len(last) == window else 0))
        w = w - lr(t) * (inner(np.array(G), **numbers) + weight_decay * w)
        yield w


def lookahead(
    w: Array, gradient: Gradient, lr: Rate, inner: Inner, numbers: Numbers, weight_decay: float, every: int,
    share: float,
) -> Iterator[Array]:  # fmt: skip
    """Zhang et al. 2019, arXiv:1907.08610, algorithm 1; the state inside is kept."""
    G: list[Array] = []
    slow = w
    for t in count(1):
        G.append(gradient(w, t))
        w = w - lr(t) * (inner(np.array(G), **numbers) + weight_decay * w)
        if t % every == 0:
            slow = slow + share * (w - slow)
            w = slow
        yield w


def lookahead_with_momentum(
    w: Array, gradient: Gradient, lr: Rate, step: Any, weight_decay: float, every: int, share: float,
    way: str,
) -> Iterator[Array]:  # fmt: skip
    """The same, with momentum reset or pulled back at a meeting; `step` (m, rest, g, t) → (m, rest, u)."""
    slow, m, rest, slow_m = w, np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for t in count(1):
        m, rest, u = step(m, rest, gradient(w, t), t)
        w = w - lr(t) * (u + weight_decay * w)
        if t % every == 0:
            w = slow = share * w + (1 - share) * slow
            m = slow_m = share * m + (1 - share) * slow_m if way == "pullback" else np.zeros_like(m)
        yield w


def step_of_adam(m: Array, v: Array, g: Array, t: int, *, beta1: float, beta2: float, eps: float) -> Any:
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
    return m, v, m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)


def step_of_momentum(b: Array, rest: Array, g: Array, t: int, *, momentum: float, dampening: float) -> Any:
    b = momentum * b + (1 - dampening) * g
    return b, rest, b


def step_of_lion(m: Array, rest: Array, g: Array, t: int, *, beta1: float, beta2: float) -> Any:
    return beta2 * m + (1 - beta2) * g, rest, np.sign(beta1 * m + (1 - beta1) * g)


def trust_ratio(
    w: Array, gradient: Gradient, lr: Rate, inner: Inner, numbers: Numbers, weight_decay: float, trust: float
) -> Iterator[Array]:
    """The step is a share of the weight long (You et al. 2017, 2020); decay is part of it, as in LAMB."""
    G: list[Array] = []
    for t in count(1):
        G.append(gradient(w, t))
        u = inner(np.array(G), **numbers) + weight_decay * w
        ratio = trust * norm(w) / norm(u) if norm(w) and norm(u) else 1.0
        w = w - lr(t) * ratio * u
        yield w


def averaged(
    w: Array, gradient: Gradient, lr: Rate, inner: Inner, numbers: Numbers, weight_decay: float, kept: float
) -> Iterator[tuple[Array, Array]]:
    """Moving average of the weights, with the start of TensorFlow's: min(β, (1+t)/(10+t)) of it are kept."""
    G: list[Array] = []
    average = w
    for t in count(1):
        G.append(gradient(w, t))
        w = w - lr(t) * (inner(np.array(G), **numbers) + weight_decay * w)
        share = min(kept, (1 + t) / (10 + t))
        average = share * average + (1 - share) * w
        yield w, average


def schedule_free(
    w: Array, gradient: Gradient, lr: Rate, inner: Inner, numbers: Numbers, weight_decay: float, beta: float,
    power: float, warmup: int,
) -> Iterator[tuple[Array, Array]]:  # fmt: skip
    """Defazio et al. 2024, arXiv:2405.15682, equations 3 to 5; the rule inside moves z and decays it, as in
    the authors' wrapper."""
    G: list[Array] = []
    x = y = z = w
    total = highest = 0.0
    for t in count(1):
        rate = lr(t) * min(1.0, t / warmup) if warmup else lr(t)
        highest = max(highest, rate)
        total += t**power * highest**2
        share = t**power * highest**2 / total
        G.append(gradient(y, t))
        z = z - rate * (inner(np.array(G), **numbers) + weight_decay * z)
        x = (1 - share) * x + share * z
        y = (1 - beta) * z + beta * x
        yield y, x


def decayed(
    w: Array, gradient: Gradient, lr: Rate, inner: Inner, numbers: Numbers, weight_decay: float, kind: str,
    peak: float,
) -> Iterator[Array]:  # fmt: skip
    """L2; decoupled (torch); fixed (Loshchilov & Hutter 2019, algorithm 2, η = 1); corrected (Defazio 2025,
    arXiv:2506.02285); cautious (2510.12402): only where the step goes towards zero too."""
    G: list[Array] = []
    for t in count(1):
        G.append(gradient(w, t) + (weight_decay * w if kind == "l2" else 0))
        u = inner(np.array(G), **numbers)
        pull = {
            "l2": 0.0,
            "decoupled": lr(t),
            "fixed": 1.0,
            "corrected": lr(t) ** 2 / peak,
            "cautious": lr(t) * (u * w >= 0),
        }[kind]
        w = w - lr(t) * u - pull * weight_decay * w
        yield w


def sam(
    ws: list[Array], gradient: Callable[[list[Array], int], list[Array]], lr: Rate, inner: Inner,
    numbers: Numbers, weight_decay: float, radius: float, adaptive: bool,
) -> Iterator[list[Array]]:  # fmt: skip
    """Foret et al. 2021, arXiv:2010.01412, algorithm 1; Kwon et al. 2021, arXiv:2102.11600, algorithm 1."""
    histories: list[list[Array]] = [[] for _ in ws]
    for t in count(1):
        g = gradient(ws, t)
        stretch = [np.abs(w) if adaptive else np.ones_like(w) for w in ws]
        length = np.sqrt(sum(norm(s * x) ** 2 for s, x in zip(stretch, g, strict=True)))
        up = [radius * s**2 * x / (length + 1e-12) for s, x in zip(stretch, g, strict=True)]
        for G, x in zip(histories, gradient([w + e for w, e in zip(ws, up, strict=True)], t), strict=True):
            G.append(x)
        ws = [
            w - lr(t) * (inner(np.array(G), **numbers) + weight_decay * w)
            for w, G in zip(ws, histories, strict=True)
        ]
        yield ws
