"""Gradient noise: how far the gradient of a batch is from that of all data, in numbers.

With g_b the mean gradient of b examples, G that of all, and S the trace of the covariance of one example's,

    E‖g_b‖² = ‖G‖² + S/b        so that, from batches of b and of B > b examples at the same weights,
    ‖G‖² = (B‖g_B‖² - b‖g_b‖²)/(B - b)        S = (‖g_b‖² - ‖g_B‖²)/(1/b - 1/B)        Bc = S/‖G‖²

without bias. Bc, the critical batch, is where noise and signal are even: a step on B examples does as much as
1/(1 + Bc/B) of a step without noise. McCandlish et al. 2018, arXiv:1812.06162, appendix A.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from steepest.optim.errors import UserError

LEVEL = 0.95
"""What intervals cover."""

FEWEST = 5
"""Pairs below which nothing is said of their scatter."""


@dataclass(frozen=True)
class Pair:
    """Squared norms of gradients at the same weights: of `less` examples (or their mean over several such
    parts) and of `more` examples, of which the parts are parts."""

    small: float
    large: float
    less: float
    more: float

    @property
    def signal(self) -> float:
        """Estimate of ‖G‖²; may be negative."""
        return (self.more * self.large - self.less * self.small) / (self.more - self.less)

    @property
    def noise(self) -> float:
        """Estimate of S; may be negative."""
        return (self.small - self.large) / (1 / self.less - 1 / self.more)


@dataclass(frozen=True)
class Critical:
    """A critical batch, in examples, with the interval that covers it.

    value       inf where the interval of the signal touches 0: any batch is then mostly noise
    signal      mean of ‖G‖², noise that of S;   pairs   how many each is the mean of"""

    value: float
    low: float
    high: float
    signal: float
    noise: float
    pairs: int

    def __str__(self) -> str:
        def word(number: float) -> str:
            return "∞" if math.isinf(number) else f"{number:.3g}"

        return f"{word(self.value)} [{word(self.low)}, {word(self.high)}]"


def critical_batch(pairs: Sequence[Pair], level: float = LEVEL) -> Critical:
    """Σ noise/Σ signal over a window of updates, in which the critical batch hardly changes.

    The interval is Fieller's, from the jackknife's covariance of the two sums: all r for which
    Σ noise - r·Σ signal is no further from 0 than chance would have it. It is open above exactly where the
    interval of the signal touches 0."""
    if len(pairs) < FEWEST:
        raise UserError(f"The noise of gradients is measured on {FEWEST} updates or more, got {len(pairs)}.")
    signals, noises = [pair.signal for pair in pairs], [pair.noise for pair in pairs]
    signal, noise, n = math.fsum(signals) / len(pairs), math.fsum(noises) / len(pairs), len(pairs)
    reach = quantile(level, n - 1)
    low, high = _fieller(
        noise,
        signal,
        *(reach**2 * _covariance(a, b) for a, b in ((noises, noises), (noises, signals), (signals, signals))),
    )
    value = max(noise, 0.0) / signal if math.isfinite(high) else math.inf
    return Critical(value, low, high, signal, noise, n)


def _covariance(a: Sequence[float], b: Sequence[float]) -> float:
    """The jackknife's covariance of two means: leaving one out moves a mean by (mean - x)/(n - 1)."""
    n, centre_a, centre_b = len(a), math.fsum(a) / len(a), math.fsum(b) / len(b)
    return math.fsum((x - centre_a) * (y - centre_b) for x, y in zip(a, b, strict=True)) / (n * (n - 1))


def _fieller(top: float, bottom: float, tt: float, tb: float, bb: float) -> tuple[float, float]:
    """The r ≥ 0 with (top - r·bottom)² ≤ tt - 2r·tb + r²·bb, a quadratic inequality; (0, inf) at worst."""
    a, b, c = bottom * bottom - bb, top * bottom - tb, top * top - tt
    inside = math.sqrt(max(b * b - a * c, 0.0))
    if a > 0 and bottom > 0:
        return max((b - inside) / a, 0.0), max((b + inside) / a, 0.0)
    # The bottom may be 0: what stays is a lower end, the root at which noise becomes too small.
    return (max(c / (b + inside), 0.0) if b + inside > 0 and c > 0 else 0.0), math.inf


def quantile(level: float, freedom: int) -> float:
    """Student's two-sided quantile, by Hill's expansion about the normal one; good to 1 % from 5 on."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
