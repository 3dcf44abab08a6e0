"""Devices without float64: what is summed on them never asks for it. A CPU that refuses plays them."""

import pytest
import torch
from tests.posed import posed
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from steepest import rules
from steepest.optim.engines.kernels.reduction import norm
from steepest.optim.engines.precision import formats
from steepest.optim.engines.torch import hypergradient
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.train import metrics
from steepest.train.microbatching import squared
from steepest.train.optimizer_adapter import total_norm
from steepest.train.record import MeanLoss

CHANCE = torch.Generator().manual_seed(0)
G = torch.randn(4, 6, generator=CHANCE)
EXACT = G.double().norm().item()
ROUNDING = 24 * torch.finfo(torch.float32).eps


class Narrow(TorchDispatchMode):
    """Refuses every array of float64, as Apple's devices do. A number alone may come from the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for x in tree_leaves(made):
            if isinstance(x, torch.Tensor) and x.dtype in (torch.float64, torch.complex128):
                raise TypeError("Cannot convert a tensor to float64, which this device does not have.")
        return made


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(formats, "NARROW", {"cpu"})
    return Narrow()


def test_others_have_float64():
    here, apple = torch.zeros(1), torch.zeros(1, device="meta")
    assert formats.widest(here) is torch.float64
    assert formats.widest(apple) is torch.float64
    assert "mps" in formats.NARROW


@pytest.mark.parametrize("turn", [lambda g: g.T, lambda g: g.to_sparse(), torch.view_as_complex])
def test_the_norm_that_torch_takes(narrow, turn):
    gradient = turn(G.reshape(4, 3, 2)) if turn is torch.view_as_complex else turn(G)
    with narrow:
        assert norm([gradient]) == pytest.approx(EXACT, rel=ROUNDING)


def test_the_norm_of_torchs_own_optimizers(narrow):
    with narrow:
        assert total_norm([G, None]) == pytest.approx(EXACT, rel=ROUNDING)


@pytest.mark.parametrize(
    ("kind", "target"), [("classification", torch.arange(4) % 6), ("regression", G.flip(0))]
)
@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 0.5, 2.0, 1.0])])
def test_metrics(narrow, monkeypatch, kind, target, weight):
    def measured():
        made.reset()
        made.update(G, target, weight, (G**2).mean())
        return made.compute()

    made = metrics.build(posed(kind, 6, 2.0))
    with narrow:
        found = measured()
    monkeypatch.setattr(formats, "NARROW", set())
    # Differences of sums of some ten numbers: r2 takes one from 1.
    assert found == pytest.approx(measured(), rel=10 * ROUNDING, abs=10 * ROUNDING)


@pytest.mark.parametrize("scaled", [False, True])
def test_the_noise_that_batches_follow(narrow, scaled):
    w = nn.Parameter(torch.ones(4, 6))
    opt = torch.optim.Adam([w])
    w.grad = G.clone()
    opt.step()
    with narrow:
        found = squared(opt, scaled)
    assert found > 0 if scaled else found == pytest.approx(EXACT**2, rel=ROUNDING)


def test_the_mean_loss_goes_on_after_a_resume(narrow):
    before, after = MeanLoss(), MeanLoss()
    with narrow:
        before.add(torch.tensor(1.0), 1)
        after.load_state_dict(before.state_dict())
        after.add(torch.tensor(4.0), 2)
        assert after.take() == 3.0


def test_sums_over_weights_and_hypergradients(narrow):
    w = nn.Parameter(torch.ones(4, 6))
    opt = RuleOptimizer([w], rules.LAMB(lr=0.1), engine="torch")
    w.grad = G.clone()
    with narrow:
        opt.step()
    assert hypergradient.dots([G], [G]) == pytest.approx([EXACT**2], rel=ROUNDING)
    with narrow:
        assert hypergradient.dots([G], [G]) == pytest.approx([EXACT**2], rel=ROUNDING)
