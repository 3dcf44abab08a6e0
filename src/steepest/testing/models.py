"""`check_model`: what a network by name must keep."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from steepest.data.rng import preserved
from steepest.models.presets import Model
from steepest.models.probe import apply


def check_model(
    model: Model, inputs: Any, outputs: tuple[int | None, ...], *, input_shape: Any = None, **args: Any
) -> None:
    """Hold a model to its contract. AssertionError where it fails.

    inputs: features of some examples, as an encoder gives them, a tuple where there are several
    outputs: shape of the outputs for one example;   input_shape: without the batch, else that of `inputs`
    args: settings of the model

    It fits these shapes; one seed gives one network; outputs have the shape; a gradient reaches every weight;
    in test mode an example has the same outputs whatever is beside it; the network can be exported."""
    shape = tuple(inputs.shape[1:]) if input_shape is None else input_shape
    assert model.fits(shape, outputs), f"fits refuses inputs of {shape} and outputs of {outputs}"
    with preserved():
        nets = [_made(model, shape, outputs, args) for _ in range(2)]
        first, second = (net.state_dict() for net in nets)
        assert all(torch.equal(first[name], second[name]) for name in first), "one seed gives two networks"
        net = nets[0]
        assert isinstance(net, nn.Module), f"make gives {type(net).__name__}, no torch.nn.Module"
        found = apply(net.train(), inputs)
        sizes = tuple(found.shape[1:])
        fits = len(sizes) == len(outputs) and all(b in (a, None) for a, b in zip(sizes, outputs, strict=True))
        assert fits, f"outputs have the shape {sizes} an example, and {outputs} was asked for"
        found.float().square().sum().backward()
        silent = [n for n, w in net.named_parameters() if w.requires_grad and w.grad is None]
        assert not silent, f"no gradient reaches {', '.join(silent)}"
        net.eval()
        with torch.no_grad():
            whole = apply(net, inputs)
            assert torch.equal(apply(net, inputs), whole), "in test mode outputs change"
            args_of = inputs if isinstance(inputs, tuple) else (inputs,)
            pair = apply(net, tuple(one[:2] for one in args_of))
            torch.testing.assert_close(pair, whole[:2], msg="outputs depend on the other examples")
            exported = torch.export.export(net, args_of).module()(*args_of)
            torch.testing.assert_close(exported, whole, msg="exported, it gives other outputs")


def _made(model: Model, shape: Any, outputs: tuple[int | None, ...], args: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    return model.make(shape, outputs, **args)
