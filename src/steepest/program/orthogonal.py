"""Muon, written out: torch's own computes in bfloat16 and takes no convolutions."""

from __future__ import annotations

import textwrap
from typing import Any

from steepest.optim.rules.orthogonal import COEFFICIENTS, SAFETY

SCALES = {
    "Muon": "math.sqrt(max(1.0, rows / columns))",
    "MuonMatched": "0.2 * math.sqrt(max(rows, columns))",
    "MuonSpectral": "math.sqrt(rows / columns)",
}
"""How long a step of such a matrix is at a rate of 1."""

LINES = '''class {name}(torch.optim.Optimizer):
    """Momentum, each matrix of it with its singular values brought near 1."""

    def __init__(self, params, lr):
        super().__init__(params, {{"lr": lr}})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is None:
                    continue
                m = self.state[w].setdefault("m", torch.zeros_like(w))
                m.lerp_(w.grad, {new})
                d = {ahead}
                u = orthogonal(d.flatten(1))
                rows, columns = u.shape
                u = {scale} * u.view_as(w)
                w.sub_(group["lr"] * (u + group["weight_decay"] * w))


def orthogonal(x):
    """A matrix with the singular vectors of x and singular values near 1."""
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / ({safety}x.norm() + {eps!r})
    for a, b, c in (
{polynomials}
    ):
        square = x @ x.T
        x = a * x + (b * square + c * (square @ square)) @ x
    return x.T if tall else x


def is_hidden(model, name, weight):
    """Whether a weight is a hidden matrix: not of the last layer, not a vector in all but its axes."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    last = (linear or [module for module in model.modules() if isinstance(module, kinds)])[-1:]
    head = last[0].weight if last else None
    if weight.ndim < 2 or weight is head or not decays(model, name, weight):
        return False
    return min(weight.shape[:2]) > 1 and weight[0].numel() > 1


'''


def written(rule: Any) -> str:
    """The class of an optimizer for hidden matrices, and what tells these."""
    coefficients = rule.coefficients
    known = COEFFICIENTS[coefficients] if isinstance(coefficients, str) else (coefficients,)
    each = [known[min(step, len(known) - 1)] for step in range(rule.steps)]
    return LINES.format(
        name=type(rule).__name__,
        new=f"1 - {rule.momentum!r}",
        ahead=f"w.grad.lerp(m, {rule.momentum!r})" if rule.nesterov else "m",
        scale=SCALES[type(rule).__name__],
        safety=f"{SAFETY!r} * " if coefficients == "polar_express" else "",
        eps=rule.eps,
        polynomials=textwrap.indent("\n".join(f"{tuple(one)!r}," for one in each), 8 * " "),
    )
