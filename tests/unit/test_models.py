"""Presets: shapes, sizes, import paths and the sentences of their refusals."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from steepest import models
from steepest.optim.errors import UserError


def weights(model: nn.Module) -> int:
    return sum(w.numel() for w in model.parameters())


@pytest.mark.parametrize("name", ["auto", *models.PRESETS])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 17, 12), (1, 28, 28)])
@pytest.mark.parametrize("outputs", [1, 10])
def test_a_preset_gives_the_asked_numbers_for_any_picture(name, shape, outputs):
    model = models.build(name, shape, outputs)
    assert model(torch.zeros(5, *shape)).shape == (5, outputs)


@pytest.mark.parametrize("name", ["auto", "linear", "mlp"])
def test_a_preset_takes_rows_of_a_table(name):
    assert models.build(name, (7,), 3)(torch.zeros(4, 7)).shape == (4, 3)


def test_auto_convolves_pictures_and_nothing_else():
    def convolves(shape: tuple[int, ...]) -> bool:
        return any(isinstance(layer, nn.Conv2d) for layer in models.build("auto", shape, 2).modules())

    assert convolves((1, 8, 8))
    assert not convolves((64,))
    assert not convolves((8, 8))
    assert not convolves((1, 3, 64))


def test_the_cnn_shrinks_large_pictures_before_the_dense_layers():
    dense = [layer for layer in models.build("cnn", (3, 96, 64), 2) if isinstance(layer, nn.Linear)]
    assert dense[0].in_features == models.presets.WIDEST * 3 * 2


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 5, 2), (1, 8, 8)])
def test_the_cnn_learns_from_one_example_at_a_time(shape):
    model = models.build("cnn", shape, 2).train()
    model(torch.randn(1, *shape)).sum().backward()
    assert all(w.grad is not None and w.grad.isfinite().all() for w in model.parameters())


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_hidden_and_dropout_shape_the_network(name):
    plain = models.build(name, (1, 8, 8), 10)
    narrow = models.build(name, (1, 8, 8), 10, hidden=(16,))
    dropped = models.build(name, (1, 8, 8), 10, dropout=0.5)
    assert weights(narrow) < weights(plain)
    assert sum(isinstance(layer, nn.Dropout) for layer in dropped) == 2
    assert not any(isinstance(layer, nn.Dropout) for layer in plain)


def test_linear_is_one_affine_map():
    assert weights(models.build("linear", (1, 8, 8), 10)) == 65 * 10


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        (("cnm", (1, 8, 8), 2), {}, "Did you mean 'cnn'"),
        (("cnn", (5,), 2), {}, "channels, height, width"),
        (("cnn", (1, 1, 9), 2), {}, "2×2"),
        (("mlp", {"a": (3,)}, 2), {}, "a model of your own"),
        (("mlp", (), 2), {}, "a model of your own"),
        (("mlp", (3,), 0), {}, "outputs must be"),
        (("mlp", (3,), 2), {"hidden": (4, 0)}, "hidden must hold"),
        (("mlp", (3,), 2), {"dropout": 1.0}, "dropout must lie"),
    ],
)
def test_a_wrong_wish_gets_a_sentence(arguments, options, says):
    with pytest.raises(UserError, match=says):
        models.build(*arguments, **options)


@pytest.fixture
def mine(monkeypatch):
    module = ModuleType("module_of_mine")
    module.tiny = lambda input_shape, outputs: nn.Linear(*input_shape, outputs)
    module.number = 3
    module.text = lambda input_shape, outputs: "net"
    monkeypatch.setitem(sys.modules, "module_of_mine", module)


@pytest.mark.usefixtures("mine")
def test_a_model_comes_from_an_import_path():
    assert models.load("module_of_mine:tiny", (4,), 2)(torch.zeros(1, 4)).shape == (1, 2)


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("module_of_mine", "package.module:name"),
        ("module_of_mine:tinny", "Did you mean 'tiny'"),
        ("module_of_mine:number", "must be a function"),
        ("module_of_mine:text", "must return a torch.nn.Module, got str"),
        ("no_such_module_here:net", "Cannot import 'no_such_module_here'"),
    ],
)
def test_a_wrong_import_path_gets_a_sentence(path, says):
    with pytest.raises(UserError, match=says):
        models.load(path, (4,), 2)
