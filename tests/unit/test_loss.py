"""What the losses promise beside their formulas: fit, weights, microbatches, and sentences."""

import pytest
import torch
from tests.posed import posed
from torch import nn

from steepest.optim.errors import UserError
from steepest.train import loss

KINDS = {"cross_entropy": "classification", "focal": "classification", "binary": "binary"}
LOGITS = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.arange(12) % 3


def sample(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    if loss.LOSSES[name][1] == "classes":
        return LOGITS, LABELS
    return LOGITS[:, :1], LABELS % 2 if name == "binary" else LOGITS[:, 1]


def made(name: str, **options: object) -> loss.Loss:
    return loss.build(name, posed(KINDS.get(name, "regression"), 3), **options)


@pytest.mark.parametrize("name", loss.LOSSES)
def test_weighted_microbatches_add_up_to_the_whole_batch(name):
    outputs, target = sample(name)
    weight = torch.rand(12, dtype=torch.float64)
    whole = made(name)(outputs, target, weight)
    parts = sum(
        made(name)(outputs[cut], target[cut], weight[cut]) * n
        for cut, n in ((slice(0, 5), 5), (slice(5, 12), 7))
    )
    assert parts.item() / 12 == pytest.approx(whole.item(), rel=24 * torch.finfo(torch.float64).eps)


@pytest.mark.parametrize("name", loss.LOSSES)
def test_a_weight_of_two_is_the_example_twice(name):
    outputs, target = sample(name)
    weight = torch.ones(12, dtype=torch.float64)
    weight[3], weight[4] = 2, 0
    twice = torch.tensor([0, 1, 2, 3, 3, *range(5, 12)])
    assert made(name)(outputs, target, weight).item() == pytest.approx(
        made(name)(outputs[twice], target[twice]).item(), rel=24 * torch.finfo(torch.float64).eps
    )


@pytest.mark.parametrize("name", loss.LOSSES)
def test_half_precision_is_lifted(name):
    outputs, target = sample(name)
    assert made(name)(outputs.bfloat16(), target).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("cross_entropy", "label_smoothing", 0.2),
        ("binary", "label_smoothing", 0.2),
        ("focal", "label_smoothing", 0.2),
        ("focal", "focal_gamma", 0.2),
        ("huber", "huber_delta", 0.2),
        ("cross_entropy", "class_weight", [1, 2, 3]),
        ("binary", "class_weight", [1, 2]),
        ("focal", "class_weight", [1, 2, 3]),
    ],
)
def test_every_option_moves_the_loss(name, option, value):
    outputs, target = sample(name)
    assert made(name, **{option: value})(outputs, target) != made(name)(outputs, target)


@pytest.mark.parametrize("name", loss.LOSSES)
def test_a_fitting_batch_passes_the_check(name):
    loss.check(*sample(name), made(name))


def test_auto_goes_by_the_task():
    assert loss.build("auto", posed("classification", 3)).name == "cross_entropy"
    assert loss.build("auto", posed("binary", 3)).name == "cross_entropy"
    assert loss.build("auto", posed("regression", 3)).name == "mean_squared_error"


def test_only_the_loss_of_flags_takes_one_output_for_two_classes():
    for name, kind, wanted in [("binary", "binary", 1), ("auto", "binary", 2), ("auto", "regression", 4)]:
        target = posed(kind, 4)
        assert target.shape(loss.build(name, target).target) == (wanted,)


def test_several_targets_and_positions_are_averaged():
    numbers = loss.build("mse", posed("regression", 3))
    error = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    assert numbers(error, torch.zeros(2, 2)) == 2.5
    assert numbers(error, torch.zeros(2, 2), torch.tensor([2.0, 1.0])) == 5
    words = loss.build("auto", posed("classification", 3))
    logits = torch.randn(2, 5, 7)
    loss.check(logits, torch.zeros(2, 7, dtype=torch.long), words)


def test_a_function_of_the_users_is_a_loss():
    def mine(outputs, target):
        return (outputs - target).abs() ** 3

    own = loss.build(mine, posed("regression", 3))
    assert own.name == "mine"
    assert own(torch.tensor([2.0, 0.0]), torch.zeros(2)) == 4
    assert own(torch.tensor([2.0, 0.0]), torch.zeros(2), torch.tensor([0.5, 1.0])) == 2
    loss.check(torch.ones(2), torch.zeros(2), own)


def test_a_loss_of_one_number_cannot_be_weighted():
    own = loss.build(nn.CrossEntropyLoss(), posed("classification", 3))
    assert own(LOGITS, LABELS).ndim == 0
    with pytest.raises(UserError, match="one number an example"):
        own(LOGITS, LABELS, torch.ones(12))


def test_a_loss_comes_from_an_import_path():
    own = loss.build("torch.nn.functional:mse_loss", posed("regression", 3))
    assert own(torch.ones(3), torch.zeros(3)) == 1


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        (("cross_entrpy", "classification"), {}, "Did you mean 'cross_entropy'"),
        (("cross_entropy", "regression"), {}, "is for classes"),
        (("mse", "classification"), {}, "is for numbers"),
        (("binary", "classification"), {}, "two classes"),
        (("mse", "regression"), {"label_smoothing": 0.1}, "label_smoothing has no effect"),
        (("mse", "regression"), {"class_weight": [1, 2]}, "class_weight has no effect"),
        (("auto", "classification"), {"label_smoothing": 1.0}, "label_smoothing must lie"),
        (("focal", "classification"), {"focal_gamma": -1.0}, "focal_gamma must be"),
        (("huber", "regression"), {"huber_delta": 0.0}, "huber_delta must be"),
        (("auto", "classification"), {"class_weight": [1, -2]}, "class_weight must hold"),
    ],
)
def test_a_wrong_wish_gets_a_sentence(arguments, options, says):
    with pytest.raises(UserError, match=says):
        loss.build(arguments[0], posed(arguments[1], 3), **options)


@pytest.mark.parametrize(
    ("name", "outputs", "target", "says"),
    [
        ("cross_entropy", (LOGITS, LOGITS), LABELS, "the model's output is a tuple"),
        ("cross_entropy", LABELS, LABELS, "takes floating outputs"),
        ("cross_entropy", LOGITS[:5], LABELS, "5×3 for targets of 12"),
        ("cross_entropy", LOGITS[:, :1], LABELS, "one output for each class"),
        ("cross_entropy", LOGITS, LOGITS[:, 0], "whole numbers as labels"),
        ("cross_entropy", LOGITS, LABELS + 1, "Labels must be 0 to 2 .* got 3"),
        ("cross_entropy", LOGITS, LABELS - 1, "Labels must be 0 to 2 .* got -1"),
        ("binary", LOGITS[:, 0], LABELS, "targets 0 and 1"),
        ("binary", LOGITS, LABELS % 2, "one output for each target"),
        ("huber", LOGITS, LOGITS[:, 0], "12×3 for targets of 12"),
        ("huber", LOGITS[:, 0], LABELS > 0, "real numbers"),
    ],
)
def test_a_model_that_does_not_fit_the_loss_gets_a_sentence(name, outputs, target, says):
    with pytest.raises(UserError, match=says):
        loss.check(outputs, target, made(name))


def test_as_many_class_weights_as_classes():
    with pytest.raises(UserError, match="2 numbers for 3 classes"):
        loss.check(LOGITS, LABELS, made("cross_entropy", class_weight=[1, 2]))


@pytest.mark.parametrize("own", [lambda outputs, target: 3.0, lambda outputs, target: outputs @ target])
def test_a_loss_of_the_users_that_fails_gets_a_sentence(own):
    with pytest.raises(UserError, match=r"must return a floating tensor|does not fit"):
        loss.check(LOGITS, LABELS, loss.build(own, posed("classification", 3)))


def test_a_penalty_needs_weights_and_sound_factors():
    with pytest.raises(UserError, match="0 or more"):
        loss.penalty(nn.Linear(2, 2), l1=-1)
    with pytest.raises(UserError, match="no weight to penalise"):
        loss.penalty(nn.Linear(2, 2).requires_grad_(False), l2=1)
