"""The moving average of the weights: its numbers, its state, and batch norms after it."""

import copy

import pytest
import torch
from torch import nn

from steepest.optim.errors import UserError
from steepest.torch import optimizer
from steepest.train.evaluation import Average, renew_statistics

INPUTS = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))


def walked(net: nn.Module, average: Average, steps: int) -> list[torch.Tensor]:
    """Weights of the first layer after each of some random steps, each taken in."""
    path = []
    for _ in range(steps):
        with torch.no_grad():
            for w in net.parameters():
                w.add_(torch.randn_like(w))
        average.update()
        path.append(net[0].weight.detach().clone())
    return path


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_average_follows_its_formula(decay):
    net = network().double()
    average = Average(net, decay)
    expected = net[0].weight.detach().clone()
    for t, w in enumerate(walked(net, average, 50), start=1):
        d = min(decay, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * w
    error = (average.state_dict()["weights"]["0.weight"] - expected).abs().max()
    assert error < 50 * 4 * expected.abs().max() * torch.finfo(torch.float64).eps


def test_swapping_holds_the_average_and_gives_back_the_same_bits():
    net = network()
    average = Average(net, 0.9)
    walked(net, average, 3)
    before = copy.deepcopy(net.state_dict())
    addresses = [w.data_ptr() for w in net.parameters()]
    with average.swapped():
        assert torch.equal(net[0].weight, average.state_dict()["weights"]["0.weight"])
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert addresses == [w.data_ptr() for w in net.parameters()]


def test_an_exception_within_the_swap_gives_the_weights_back():
    net = network()
    average = Average(net, 0.9)
    weights, *_ = walked(net, average, 1)
    with pytest.raises(KeyboardInterrupt), average.swapped():
        raise KeyboardInterrupt
    assert torch.equal(net[0].weight, weights)


def test_a_loaded_average_goes_on_to_the_same_bits():
    net = network()
    average = Average(net, 0.9)
    walked(net, average, 7)
    state = copy.deepcopy(average.state_dict())
    other = Average(net, 0.9)
    other.load_state_dict(state)
    walked(net, average, 0)
    for one in (average, other):
        one.update()
    assert average.updates == other.updates == 8
    assert all(
        torch.equal(value, other.state_dict()["weights"][name])
        for name, value in average.state_dict()["weights"].items()
    )


def test_half_precision_is_averaged_in_float32():
    net = nn.Sequential(nn.Linear(3, 4)).bfloat16()
    average = Average(net, 0.999)
    walked(net, average, 2)
    assert average.state_dict()["weights"]["0.weight"].dtype == torch.float32
    with average.swapped():
        assert net[0].weight.dtype == torch.bfloat16


def test_frozen_weights_are_left_out():
    net = network()
    net[0].requires_grad_(False)
    assert "0.weight" not in Average(net, 0.9).state_dict()["weights"]


def test_statistics_are_the_plain_mean_over_the_batches():
    net = network()
    momentum = net[1].momentum
    net(INPUTS)
    net[2].eval()
    random = torch.get_rng_state()
    assert renew_statistics(net, INPUTS.split(16)) == 4
    hidden = [net[0](x).detach() for x in INPUTS.split(16)]
    mean = torch.stack([h.mean(0) for h in hidden]).mean(0)
    var = torch.stack([h.var(0) for h in hidden]).mean(0)
    rounding = 64 * torch.finfo(torch.float32).eps
    torch.testing.assert_close(net[1].running_mean, mean, rtol=rounding, atol=rounding)
    torch.testing.assert_close(net[1].running_var, var, rtol=rounding, atol=rounding)
    assert net[1].momentum == momentum
    assert [module.training for module in net] == [True, True, False, True]
    assert torch.equal(random, torch.get_rng_state())


def test_without_batch_norms_no_batch_is_read():
    def none():
        raise AssertionError
        yield

    assert renew_statistics(nn.Linear(3, 1), none()) == 0


def test_wrong_wishes_get_a_sentence():
    with pytest.raises(UserError, match="must lie in"):
        Average(network(), 1.0)
    average, state = Average(network(), 0.9), Average(nn.Sequential(nn.Linear(5, 4)), 0.9).state_dict()
    kept = average.state_dict()["weights"]
    with pytest.raises(UserError, match=r"differs in 0\.weight, 1\.bias"):
        average.load_state_dict(state)
    assert all(torch.equal(value, kept[name]) for name, value in average.state_dict()["weights"].items())


@pytest.mark.parametrize("steps", [1, 3, 40])
def test_it_is_the_optimizers_own_average_but_for_rounding(steps: int) -> None:
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    average, opt = Average(net, 0.9), optimizer(net, "adamw", average=0.9)
    draw = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for w in net.parameters():
            w.grad = torch.randn(w.shape, generator=draw)
        opt.step()
        average.update()
    with opt.evaluate():
        theirs = [w.detach().clone() for w in net.parameters()]
    eps, ours = torch.finfo(torch.float32).eps, average.state_dict()["weights"]
    for (name, _), other in zip(net.named_parameters(), theirs, strict=True):
        # Three roundings an update, each of at most half an eps of a number below 1.
        assert (ours[name] - other).abs().max() <= 1.5 * steps * eps
        assert not torch.equal(other, net.get_parameter(name))
