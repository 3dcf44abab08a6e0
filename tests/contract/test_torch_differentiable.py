"""differentiable=True: what autograd finds through a step is what it finds through torch's."""

from typing import Any

import pytest
import torch

import steepest.torch as ours
from steepest.optim.errors import UserError

DOUBLE = torch.float64
CASES: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("ASGD", {"lambd": 0.1}, ("ax",)),
    ("Adadelta", {"weight_decay": 0.1}, ("square_avg", "acc_delta")),
    ("Adagrad", {"lr_decay": 0.1}, ("sum",)),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1}, ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")),
    ("AdamW", {}, ("exp_avg", "exp_avg_sq")),
    ("Adamax", {}, ("exp_avg", "exp_inf")),
    ("NAdam", {"weight_decay": 0.1}, ("exp_avg", "exp_avg_sq")),
    ("RAdam", {"decoupled_weight_decay": True, "weight_decay": 0.1}, ("exp_avg", "exp_avg_sq")),
    ("RMSprop", {"centered": True, "momentum": 0.9}, ("square_avg", "grad_avg", "momentum_buffer")),
    ("Rprop", {}, ("prev", "step_size")),
    ("SGD", {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True}, ("momentum_buffer",)),
]
COUNTERS = {"NAdam": {"mu_product": 1.0}, "ASGD": {"eta": 0.9 / (1 + 0.1 * 0.9 * 10) ** 0.75, "mu": 1.0}}


def stepped(home: Any, name: str, arguments: dict[str, Any], inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """A number that depends on all that a step from these inputs gives."""
    w = inputs["w"].clone()
    w.grad = inputs["g"]
    optimizer = getattr(home, name)([w], differentiable=True, **arguments)
    entry = {key: value.clone() for key, value in inputs.items() if key not in ("w", "g", "lr")}
    counters = {"step": 10.0} | COUNTERS.get(name, {})
    optimizer.state[w].update(entry | {key: torch.tensor(x, dtype=DOUBLE) for key, x in counters.items()})
    optimizer.step()
    made = [w, *(x for x in optimizer.state[w].values() if x is not None and x.requires_grad)]
    return sum((n + 1) * (x * torch.arange(1, 11)).sum() for n, x in enumerate(made))  # type: ignore[return-value]


def drawn(slots: tuple[str, ...]) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    made = {key: torch.rand(10, generator=draw, dtype=DOUBLE) for key in ("w", "g", *slots)}
    if "square_avg" in made:  # above the square of the mean
        made["square_avg"] += 2
    return {key: x.requires_grad_() for key, x in made.items()}


@pytest.mark.parametrize(("name", "arguments", "slots"), CASES, ids=[name for name, *_ in CASES])
def test_gradients_through_a_step_are_torchs(name: str, arguments: dict[str, Any], slots: Any) -> None:
    inputs = drawn(slots)
    found = []
    for home in (torch.optim, ours):
        value = stepped(home, name, {"lr": 0.9, **arguments}, inputs)
        gradients = torch.autograd.grad(value, list(inputs.values()), allow_unused=True)
        zero = torch.zeros(10, dtype=DOUBLE)
        found.append([value.detach(), *(zero if g is None else g for g in gradients)])
    for theirs, mine in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2**12 * torch.finfo(DOUBLE).eps, atol=1e-12)


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_the_rate_may_want_a_gradient(name: str) -> None:
    inputs = drawn({n: s for n, _, s in CASES}[name]) | {
        "lr": torch.tensor(0.9, dtype=DOUBLE).requires_grad_()
    }
    arguments = {"momentum": 0.9} if name == "SGD" else {}
    found = []
    for home in (torch.optim, ours):
        value = stepped(home, name, {"lr": inputs["lr"], **arguments}, inputs)
        found.append(torch.autograd.grad(value, inputs["lr"])[0])
    torch.testing.assert_close(*found, rtol=2**10 * torch.finfo(DOUBLE).eps, atol=0)


def test_a_step_is_differentiated_through_many_steps() -> None:
    """The derivative of the loss after three steps by the rate, beside a finite difference."""

    def after(lr: Any) -> torch.Tensor:
        w = torch.ones(3, dtype=DOUBLE, requires_grad=True).clone()
        optimizer = ours.Lion([w], lr=lr, weight_decay=0.3, differentiable=True)
        for _ in range(3):
            (w.grad,) = torch.autograd.grad((w.clone() ** 4).sum(), w, create_graph=True)
            optimizer.step()
        return (w**4).sum()

    lr = torch.tensor(0.01, dtype=DOUBLE, requires_grad=True)
    (slope,) = torch.autograd.grad(after(lr), lr)
    h = 1e-5
    above, below = (after(torch.tensor(0.01 + by, dtype=DOUBLE)) for by in (h, -h))
    difference = (above - below) / (2 * h)
    assert slope.item() == pytest.approx(difference.item(), rel=1e-4)


def test_a_leaf_is_refused_as_torch_refuses_it() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    for home in (torch.optim, ours):
        with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
            home.SGD([weight], differentiable=True).step()


def test_rules_that_sum_over_many_are_refused() -> None:
    weight = torch.ones(3, requires_grad=True).clone()
    weight.grad = torch.ones(3)
    optimizer = ours.LAMB([weight], differentiable=True)
    with pytest.raises(UserError, match="each element by itself"):
        optimizer.step()
    assert optimizer.steps == 0
