"""What one update costs in gradient evaluations: passes forward and backward over one batch."""

from __future__ import annotations

from typing import Any

from steepest.optim.engines.torch.passes import by_labels, looks_back

PRODUCT = 2.0
"""Of a product of the Hessian with a vector: a pass back through the pass back."""
DRAWN = 1.0
"""Of a second gradient, for labels drawn from predictions."""


def gradients_a_step(rule: Any) -> float:
    """1 for ordinary rules, 2 for those that climb first (SAM) or look back (MARSExact); curvature by how
    often it is estimated."""
    if rule.perturb is not None:
        return 2.0
    if looks_back(rule):
        return 2.0
    if rule.extra_inputs:
        return 1.0 + (DRAWN if by_labels(rule) else PRODUCT) / rule.every
    return 1.0
