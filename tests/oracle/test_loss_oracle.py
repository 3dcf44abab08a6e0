"""Losses against their formulas, written out example by example in plain Python floats."""

from math import exp, log

import numpy as np
import pytest
import torch
from tests.posed import posed

from steepest.train import loss

EXAMPLES, CLASSES = 23, 5
RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(0, 3, (EXAMPLES, CLASSES))
LABELS = RANDOM.integers(0, CLASSES, EXAMPLES)
GUESS = RANDOM.normal(0, 2, EXAMPLES)
TRUTH = RANDOM.normal(0, 2, EXAMPLES)
WEIGHT = RANDOM.uniform(0, 3, EXAMPLES)
BY_CLASS = [0.5, 1.0, 2.0, 0.0, 3.0]

ROUNDING = 8 * EXAMPLES * CLASSES * np.finfo(np.float64).eps
"""A few roundings for each number that goes into the mean."""


def softmax(row):
    top = max(row)
    powers = [exp(x - top) for x in row]
    return [p / sum(powers) for p in powers]


def focal(row, label, smoothing, gamma):
    target = [smoothing / CLASSES + (1 - smoothing) * (k == label) for k in range(CLASSES)]
    return -sum(q * (1 - p) ** gamma * log(p) for q, p in zip(target, softmax(row), strict=True))


def flag(x, y, smoothing):
    p = 1 / (1 + exp(-x))
    q = y * (1 - smoothing) + smoothing / 2
    return -q * log(p) - (1 - q) * log(1 - p)


def huber(x, y, delta):
    e = abs(x - y)
    return e * e / 2 if e <= delta else delta * (e - delta / 2)


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("by_class", [None, BY_CLASS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("name", "gamma"), [("cross_entropy", 0.0), ("focal", 0.5), ("focal", 2.0)])
def test_losses_of_classes(name, gamma, smoothing, by_class, weight):
    made = loss.build(
        name,
        posed("classification", CLASSES),
        label_smoothing=smoothing,
        focal_gamma=gamma,
        class_weight=by_class,
    )
    w = np.ones(EXAMPLES) if weight is None else weight
    c = np.ones(CLASSES) if by_class is None else by_class
    expected = sum(
        w[i] * c[LABELS[i]] * focal(LOGITS[i], LABELS[i], smoothing, gamma) for i in range(EXAMPLES)
    )
    got = made(torch.tensor(LOGITS), torch.tensor(LABELS), None if weight is None else torch.tensor(weight))
    assert got.item() == pytest.approx(expected / EXAMPLES, rel=ROUNDING)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(EXAMPLES,), (EXAMPLES, 1)])
def test_the_loss_of_flags(smoothing, shape):
    made = loss.build("binary", posed("binary", 3), label_smoothing=smoothing, class_weight=[1.0, 4.0])
    flags = LABELS % 2
    expected = sum(
        (1, 4)[flags[i]] * WEIGHT[i] * flag(GUESS[i], flags[i], smoothing) for i in range(EXAMPLES)
    )
    got = made(torch.tensor(GUESS).reshape(shape), torch.tensor(flags), torch.tensor(WEIGHT))
    assert got.item() == pytest.approx(expected / EXAMPLES, rel=ROUNDING)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("mean_squared_error", lambda x, y: (x - y) ** 2),
        ("mse", lambda x, y: (x - y) ** 2),
        ("l1", lambda x, y: abs(x - y)),
        ("huber", lambda x, y: huber(x, y, 0.7)),
    ],
)
@pytest.mark.parametrize("shape", [(EXAMPLES,), (EXAMPLES, 1)])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_losses_of_numbers(name, formula, shape, weight):
    made = loss.build(name, posed("regression", 3), huber_delta=0.7)
    w = np.ones(EXAMPLES) if weight is None else weight
    expected = sum(w[i] * formula(GUESS[i], TRUTH[i]) for i in range(EXAMPLES)) / EXAMPLES
    got = made(
        torch.tensor(GUESS).reshape(shape),
        torch.tensor(TRUTH),
        None if weight is None else torch.tensor(weight),
    )
    assert got.item() == pytest.approx(expected, rel=ROUNDING)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_the_focal_gradient_is_finite_and_right(gamma, scale):
    made = loss.build("focal", posed("classification", CLASSES), focal_gamma=gamma)
    logits = torch.tensor(LOGITS * scale, requires_grad=True)
    (got,) = torch.autograd.grad(made(logits, torch.tensor(LABELS)), logits)
    assert got.isfinite().all()
    if scale == 1:
        assert torch.autograd.gradcheck(lambda x: made(x, torch.tensor(LABELS)), logits)


def test_the_penalty_is_the_sum_over_weights_and_its_gradient_is_decay():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 1)).double()
    w = net[0].weight
    numbers = [x for layer in (net[0], net[2]) for x in layer.weight.flatten().tolist()]
    expected = sum(0.3 * abs(x) + 0.5 * 0.2 * x * x for x in numbers)
    value = loss.penalty(net, 0.3, 0.2)()
    assert value.item() == pytest.approx(expected, rel=ROUNDING)
    value.backward()
    rounding = 4 * torch.finfo(torch.float64).eps
    torch.testing.assert_close(w.grad, 0.3 * w.sign() + 0.2 * w.detach(), rtol=0, atol=rounding)
    assert net[0].bias.grad is None
    assert net[1].weight.grad is None
