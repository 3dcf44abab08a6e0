"""Metrics against scikit-learn's, whatever the batches they are counted in."""

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn
from tests.posed import posed

from steepest.train import metrics

EXAMPLES = 301
CUTS = [(0, EXAMPLES)], [(0, 1), (1, 64), (64, 300), (300, EXAMPLES)]
ROUNDING = 8 * EXAMPLES * np.finfo(np.float64).eps


def counted(kind, width, outputs, target, weight, cuts, **options):
    made = metrics.build(posed(kind, width, **options))
    for a, b in cuts:
        made.update(
            torch.tensor(outputs[a:b]),
            torch.tensor(target[a:b]),
            None if weight is None else torch.tensor(weight[a:b]),
        )
    return made


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("classes", "occurring"), [(2, 2), (5, 5), (9, 4)])
def test_measures_of_classes(classes, occurring, weighted, cuts):
    random = np.random.default_rng(classes)
    truth = random.integers(0, occurring, EXAMPLES)
    logits = random.normal(0, 1, (EXAMPLES, classes)) + 1.5 * np.eye(classes)[truth]
    weight = random.uniform(0, 2, EXAMPLES) if weighted else None
    guess = logits.argmax(1)
    made = counted("classification", classes, logits, truth, weight, cuts)
    macro = sklearn.precision_recall_fscore_support(
        truth, guess, average="macro", sample_weight=weight, zero_division=0
    )
    expected = dict(zip(("precision", "recall", "f1"), macro, strict=False))
    expected["accuracy"] = sklearn.accuracy_score(truth, guess, sample_weight=weight)
    assert made.compute() == pytest.approx(expected, rel=ROUNDING)


@pytest.mark.parametrize("shape", [(EXAMPLES,), (EXAMPLES, 1)])
def test_one_logit_tells_two_classes(shape):
    random = np.random.default_rng(3)
    truth = random.integers(0, 2, EXAMPLES)
    logit = random.normal(truth - 0.5, 1)
    made = counted("binary", 1, logit.reshape(shape), truth, None, CUTS[1])
    assert made.compute()["f1"] == pytest.approx(
        sklearn.f1_score(truth, logit > 0, average="macro"), rel=ROUNDING
    )


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("targets", [1, 3])
def test_measures_of_numbers_in_original_units(targets, weighted, cuts):
    random = np.random.default_rng(targets)
    truth = random.normal(50, 2, (EXAMPLES, targets))
    guess = truth + random.normal(0, 1, truth.shape)
    scale = np.arange(1, targets + 1) * 10.0
    weight = random.uniform(0, 2, EXAMPLES) if weighted else None
    made = counted(
        "regression", targets, guess, truth.squeeze(), weight, cuts, scale=scale if targets > 1 else 10.0
    )
    a, b = truth * scale, guess * scale
    expected = {
        "rmse": sklearn.mean_squared_error(a, b, sample_weight=weight) ** 0.5,
        "mae": sklearn.mean_absolute_error(a, b, sample_weight=weight),
        "r2": sklearn.r2_score(a, b, sample_weight=weight),
    }
    # The targets lie 25 standard deviations off 0, which costs r2 that many roundings more.
    assert made.compute() == pytest.approx(expected, rel=25 * ROUNDING)


def test_r2_of_a_constant_target():
    truth = np.full(5, 3.0)
    assert counted("regression", 1, truth, truth, None, [(0, 5)]).compute()["r2"] == 1
    assert counted("regression", 1, truth + 1, truth, None, [(0, 5)]).compute()["r2"] == 0
