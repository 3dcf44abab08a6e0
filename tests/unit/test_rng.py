"""What is done inside `preserved` leaves no trace, and the generators come back from a checkpoint's form."""

import random
from contextlib import suppress

import numpy as np
import torch
from torch import nn

from steepest.data import rng


def drawn():
    return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002


class Counting(nn.Module):
    """One buffer is written to, one is replaced."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(2))
        self.register_buffer("last", torch.zeros(2))

    def forward(self, x):
        self.seen += 1
        self.last = x.mean(0)
        return x


def network():
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), Counting(), nn.Dropout(0.5))


def test_a_network_is_afterwards_as_before():
    net = network()
    net[1].eval()
    net[0].bias.requires_grad_(False)
    modes = [module.training for module in net.modules()]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with suppress(KeyError), rng.preserved(net, training=True):
        assert all(module.training for module in net.modules())
        net.requires_grad_(True)
        net(torch.randn(5, 2))
        raise KeyError
    assert [module.training for module in net.modules()] == modes
    assert [weight.requires_grad for weight in net[0].parameters()] == [True, False]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_buffers_may_change_where_they_are_measured():
    net = network()
    with rng.preserved(net, buffers=False):
        net(torch.randn(5, 2))
    assert net[2].seen.tolist() == [1, 1]


def test_nothing_is_drawn():
    own = torch.Generator().manual_seed(3)
    rng.seed_all(1)
    following = drawn(), int(torch.randint(99, (1,), generator=own))
    rng.seed_all(1)
    own.manual_seed(3)
    with rng.preserved(generators=[own]):
        drawn()
        torch.randint(99, (7,), generator=own)
    assert (drawn(), int(torch.randint(99, (1,), generator=own))) == following


def test_generators_come_back():
    generators = rng.Generators()
    drawn(), random.gauss(0, 1), np.random.randn()  # noqa: NPY002
    held = generators.state_dict()
    following = drawn(), random.gauss(0, 1), float(np.random.randn())  # noqa: NPY002
    rng.seed_all(5)
    generators.load_state_dict(held)
    assert (drawn(), random.gauss(0, 1), float(np.random.randn())) == following  # noqa: NPY002
