"""Every rule against torch.optim's loop, in float64, over 50 steps with every knob off its default."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from steepest import rules
from steepest.optim.engines import on_numpy
from steepest.optim.rule import Rule

STEPS = 50
SHAPE = (11, 3)

Maker = Callable[[list[torch.Tensor]], torch.optim.Optimizer]
optim = torch.optim
DECAY = {"lr": 0.03, "weight_decay": 0.1}
BETAS = {"beta1": 0.8, "beta2": 0.97, "eps": 1e-3}
TORCH_BETAS = {"betas": (0.8, 0.97), "eps": 1e-3}
MEANS = {"alpha": 0.9, "eps": 1e-3}

CASES: list[tuple[Rule, Maker]] = [
    (rules.SGD(**DECAY), lambda p: optim.SGD(p, **DECAY)),
    (
        rules.Momentum(**DECAY, momentum=0.8, dampening=0.3),
        lambda p: optim.SGD(p, **DECAY, momentum=0.8, dampening=0.3),
    ),
    (rules.Nesterov(**DECAY, momentum=0.8), lambda p: optim.SGD(p, **DECAY, momentum=0.8, nesterov=True)),
    (
        rules.Adagrad(**DECAY, lr_decay=0.02, eps=1e-3, initial=0.3),
        lambda p: optim.Adagrad(p, **DECAY, lr_decay=0.02, eps=1e-3, initial_accumulator_value=0.3),
    ),
    (rules.Adadelta(**DECAY, rho=0.8, eps=1e-3), lambda p: optim.Adadelta(p, **DECAY, rho=0.8, eps=1e-3)),
    (rules.RMSprop(**DECAY, **MEANS), lambda p: optim.RMSprop(p, **DECAY, **MEANS)),
    (
        rules.RMSpropMomentum(**DECAY, **MEANS, momentum=0.8),
        lambda p: optim.RMSprop(p, **DECAY, **MEANS, momentum=0.8),
    ),
    (rules.RMSpropCentered(**DECAY, **MEANS), lambda p: optim.RMSprop(p, **DECAY, **MEANS, centered=True)),
    (
        rules.RMSpropCenteredMomentum(**DECAY, **MEANS, momentum=0.8),
        lambda p: optim.RMSprop(p, **DECAY, **MEANS, momentum=0.8, centered=True),
    ),
    (rules.Adam(**DECAY, **BETAS), lambda p: optim.Adam(p, **DECAY, **TORCH_BETAS)),
    (rules.AdamW(**DECAY, **BETAS), lambda p: optim.AdamW(p, **DECAY, **TORCH_BETAS)),
    (rules.AMSGrad(**DECAY, **BETAS), lambda p: optim.Adam(p, **DECAY, **TORCH_BETAS, amsgrad=True)),
    (rules.AMSGradW(**DECAY, **BETAS), lambda p: optim.AdamW(p, **DECAY, **TORCH_BETAS, amsgrad=True)),
    (rules.Adamax(**DECAY, **BETAS), lambda p: optim.Adamax(p, **DECAY, **TORCH_BETAS)),
    (
        rules.NAdam(**DECAY, **BETAS, momentum_decay=0.1),
        lambda p: optim.NAdam(p, **DECAY, **TORCH_BETAS, momentum_decay=0.1),
    ),
    (
        rules.NAdamW(**DECAY, **BETAS, momentum_decay=0.1),
        lambda p: optim.NAdam(p, **DECAY, **TORCH_BETAS, momentum_decay=0.1, decoupled_weight_decay=True),
    ),
    (rules.RAdam(**DECAY, **BETAS), lambda p: optim.RAdam(p, **DECAY, **TORCH_BETAS)),
    (
        rules.RAdamW(**DECAY, **BETAS),
        lambda p: optim.RAdam(p, **DECAY, **TORCH_BETAS, decoupled_weight_decay=True),
    ),
    (
        rules.Rprop(lr=0.03, shrink=0.4, grow=1.3, shortest=0.01, longest=0.2),
        lambda p: optim.Rprop(p, lr=0.03, etas=(0.4, 1.3), step_sizes=(0.01, 0.2)),
    ),
    (
        rules.ASGD(**DECAY, lambd=0.05, power=0.6, t0=20.0),
        lambda p: optim.ASGD(p, **DECAY, lambd=0.05, alpha=0.6, t0=20.0),
    ),
    (
        rules.AdafactorTorch(**DECAY, decay_rate=0.7, eps1=1e-3, eps2=0.05, threshold=1.2),
        lambda p: optim.Adafactor(p, **DECAY, beta2_decay=-0.7, eps=(1e-3, 0.05), d=1.2),
    ),
]

DEFAULTS: list[tuple[Rule, Maker]] = [
    (rules.SGD(), optim.SGD),
    (rules.Adagrad(), optim.Adagrad),
    (rules.Adadelta(), optim.Adadelta),
    (rules.RMSprop(), optim.RMSprop),
    (rules.Adam(), optim.Adam),
    (rules.AdamW(), optim.AdamW),
    (rules.Adamax(), optim.Adamax),
    (rules.NAdam(), optim.NAdam),
    (rules.Momentum(), lambda p: optim.SGD(p, momentum=0.9)),
    (rules.Nesterov(), lambda p: optim.SGD(p, momentum=0.9, nesterov=True)),
    (rules.RMSpropMomentum(), lambda p: optim.RMSprop(p, momentum=0.9)),
    (rules.RMSpropCentered(), lambda p: optim.RMSprop(p, centered=True)),
    (rules.RMSpropCenteredMomentum(), lambda p: optim.RMSprop(p, centered=True, momentum=0.9)),
    (rules.AMSGrad(), lambda p: optim.Adam(p, amsgrad=True)),
    (rules.AMSGradW(), lambda p: optim.AdamW(p, amsgrad=True)),
    (rules.NAdamW(), lambda p: optim.NAdam(p, weight_decay=0.01, decoupled_weight_decay=True)),
    (rules.RAdam(), optim.RAdam),
    (rules.RAdamW(), lambda p: optim.RAdam(p, weight_decay=0.01, decoupled_weight_decay=True)),
    (rules.Rprop(), optim.Rprop),
    (rules.ASGD(), optim.ASGD),
    (rules.AdafactorTorch(eps1=np.finfo(np.float64).eps), optim.Adafactor),
]
"""The same without arguments; momentum, where torch has none by default, is 0.9."""


def identity(case: object) -> str:
    return type(case).__name__ if isinstance(case, Rule) else ""


def gradients() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(STEPS, *SHAPE))


def start() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SHAPE)


def ours(rule: Rule) -> np.ndarray:
    w, slots, shared = start(), rule.init(on_numpy.NUMPY, start()), dict(rule.shared)
    for t, g in enumerate(gradients(), start=1):
        w, slots, shared = on_numpy.step(rule, t, t, w, g, slots, shared)
    return w


def torchs(maker: Maker) -> np.ndarray:
    p = torch.from_numpy(start()).requires_grad_()
    optimizer = maker([p])
    for g in gradients():
        p.grad = torch.from_numpy(g)
        optimizer.step()
    return p.detach().numpy()


def tolerance(rule: Rule) -> float:
    """Ten roundings a step, of weights of order one. In float32 torch keeps NAdam's product of momenta and
    the rates of ASGD."""
    coarse = np.finfo(np.float32).eps * rule.lr if rule.shared or isinstance(rule, rules.ASGD) else 0
    return 10 * STEPS * (np.finfo(np.float64).eps + coarse)


@pytest.mark.parametrize(("rule", "maker"), CASES + DEFAULTS, ids=identity)
def test_a_rule_equals_torchs(rule: Rule, maker: Maker) -> None:
    np.testing.assert_allclose(ours(rule), torchs(maker), rtol=0, atol=tolerance(rule))


def test_every_rule_that_torch_has_is_compared() -> None:
    equal = {one for one in rules.registry().values() if "torch.optim." in (one.__doc__ or "")}
    elsewhere = {rules.Muon, rules.MuonMatched, rules.LBFGS}  # in bfloat16 there; called with a closure
    assert equal - {type(rule) for rule, _ in CASES} <= elsewhere
