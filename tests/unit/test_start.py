"""Starts of the weights: their statistics, that they repeat, and what is said of them at step 0."""

from math import sqrt

import pytest
import torch
from safetensors.torch import save_file
from torch import Generator, nn

from steepest.models import build, start
from steepest.optim.errors import UserError

DRAWN = ["kaiming", "xavier", "orthogonal", "lsuv"]
BATCH = torch.randn(256, 64, generator=Generator().manual_seed(0))


def deep(layers: int = 12, width: int = 64, gain: float = 1.0) -> nn.Sequential:
    net = nn.Sequential(*(part for _ in range(layers) for part in (nn.Linear(width, width), nn.ReLU())))
    start.initialise(net, "kaiming", 0)
    for layer in net[::2]:
        layer.weight.data.mul_(gain)
    return net


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("how", DRAWN)
def test_a_start_depends_on_its_seed_alone(how):
    nets = [build("mlp", (64,), 10) for _ in range(3)]
    before = torch.get_rng_state()
    for net, seed in zip(nets, (7, 7, 8), strict=True):
        start.initialise(net, how, seed, BATCH)
    assert same(nets[0], nets[1])
    assert not same(nets[0], nets[2])
    assert torch.equal(before, torch.get_rng_state())


def test_the_default_start_leaves_the_weights():
    net, twin = build("mlp", (64,), 10), build("mlp", (64,), 10)
    twin.load_state_dict(net.state_dict())
    assert start.initialise(net, "default", 3) == []
    assert same(net, twin)


@pytest.mark.parametrize(
    ("how", "std"), [("kaiming", lambda i, o: sqrt(2 / i)), ("xavier", lambda i, o: sqrt(2 / (i + o)))]
)
def test_the_spread_of_the_weights_is_the_papers(how, std):
    layer = nn.Linear(300, 200)
    start.initialise(layer, how, 0)
    # The relative error of a sample's standard deviation is below 1/√(2n); five of them.
    assert layer.weight.std().item() == pytest.approx(std(300, 200), rel=5 / sqrt(2 * 60_000))
    assert not layer.bias.any()


def test_orthogonal_rows_are_orthogonal():
    layer = nn.Linear(50, 20, dtype=torch.float64)
    start.initialise(layer, "orthogonal", 0)
    gap = layer.weight @ layer.weight.T - 2 * torch.eye(20, dtype=torch.float64)
    assert gap.abs().max() < 50 * torch.finfo(torch.float64).eps * 2


@pytest.mark.parametrize("shape", [(64,), (1, 8, 8)])
def test_lsuv_gives_every_layer_outputs_of_unit_variance(shape):
    net, batch = build("auto", shape, 10), 3 * BATCH.reshape(-1, *shape)
    names = start.initialise(net, "lsuv", 0, batch)
    assert len(names) >= 3
    x = batch
    for layer in net:
        x = layer(x)
        if isinstance(layer, nn.Linear | nn.Conv2d):
            # Rounding of the sums, one layer on top of the other.
            assert x.std().item() == pytest.approx(1, rel=1000 * torch.finfo(torch.float32).eps)


def test_lsuv_and_the_check_leave_norms_and_modes_as_they_were():
    net = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    net[2].eval()
    buffers = [b.clone() for b in net.buffers()]
    start.initialise(net, "lsuv", 0, BATCH)
    start.activations(net, BATCH)
    assert [m.training for m in net] == [True, True, False, True]
    assert all(torch.equal(a, b) for a, b in zip(buffers, net.buffers(), strict=True))
    assert not any(module._forward_hooks for module in net.modules())


def test_weights_come_from_a_file(tmp_path):
    net, twin = build("mlp", (64,), 10), build("mlp", (64,), 10)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    start.initialise(twin, tmp_path / "w.safetensors", 0)
    assert same(net, twin)


def test_a_file_that_does_not_fit_lists_all_and_loads_nothing(tmp_path):
    net, other = build("mlp", (64,), 10), build("mlp", (64,), 3, hidden=(256,))
    save_file(other.state_dict(), tmp_path / "w.safetensors")
    kept = {name: w.clone() for name, w in net.state_dict().items()}
    with pytest.raises(UserError, match="nothing was loaded") as error:
        start.initialise(net, str(tmp_path / "w.safetensors"), 0)
    assert "5.weight is missing" in str(error.value)
    assert "3.weight is [3, 256], the model's [128, 256]" in str(error.value)
    assert all(torch.equal(kept[name], w) for name, w in net.state_dict().items())


def test_an_absent_or_torn_file_gets_a_sentence(tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        start.initialise(nn.Linear(2, 2), tmp_path / "none.safetensors", 0)
    (tmp_path / "torn.safetensors").write_bytes(b"\xff" * 9)
    with pytest.raises(UserError, match="not a whole safetensors file"):
        start.initialise(nn.Linear(2, 2), tmp_path / "torn.safetensors", 0)


def test_a_wrong_start_gets_a_sentence():
    with pytest.raises(UserError, match="Did you mean 'kaiming'"):
        start.initialise(nn.Linear(2, 2), "keiming", 0)
    with pytest.raises(UserError, match="needs a batch"):
        start.initialise(nn.Linear(2, 2), "lsuv", 0)
    with pytest.raises(UserError, match="no linear or convolution layer"):
        start.initialise(nn.LayerNorm(2), "kaiming", 0)


def test_a_bias_alone_is_no_signal():
    net = nn.Sequential(nn.Linear(64, 64))
    start.initialise(net, "kaiming", 0)
    plain = start.activations(net, BATCH)
    net[0].bias.data.add_(100)
    shifted = start.activations(net, BATCH)
    assert plain[""] == BATCH.double().var(0, correction=0).mean().sqrt().item()
    # Near 100 a float32 is rounded to a multiple of 2⁻¹⁷.
    assert shifted["0"] == pytest.approx(plain["0"], abs=2**-17)


@pytest.mark.parametrize(
    ("gain", "decided"),
    [(1.0, "sound"), (0.3, "vanishing"), (3.0, "exploding"), (0.0, "dead"), (1e38, "not finite")],
)
def test_the_verdict_names_the_fault(gain, decided):
    evidence = start.verdict(start.activations(deep(gain=gain), BATCH))
    assert evidence.decided == decided
    assert len(evidence.candidates) == 13
    assert evidence.to_json()


def test_a_model_without_such_layers_is_judged_by_its_input():
    assert start.verdict(start.activations(nn.LayerNorm(64), BATCH)).decided == "sound"
    assert start.verdict(start.activations(nn.LayerNorm(64), torch.ones(5, 64))).decided == "dead"


def test_one_example_cannot_be_checked():
    with pytest.raises(UserError, match="two examples"):
        start.activations(nn.Linear(64, 2), BATCH[:1])


def test_several_inputs_reach_the_model_by_place_or_name():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 2)

        def forward(self, a, b):
            return self.layer(a + b)

    for batch in ((BATCH, BATCH), {"b": BATCH, "a": BATCH}):
        assert [*start.activations(Two(), batch)] == ["", "layer"]
