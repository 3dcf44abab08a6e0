"""What the metrics promise beside their formulas: the loss, measures of one's own, sizes, sentences."""

import pytest
import torch
from tests.posed import posed

from steepest.optim.errors import UserError
from steepest.train import loss, metrics

LOGITS = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.arange(12) % 3
CUTS = (slice(0, 5), slice(5, 12))
ROUNDING = 24 * torch.finfo(torch.float64).eps


def test_the_loss_is_the_weighted_mean_over_all_examples():
    made, entropy = metrics.build(posed("classification", 3)), loss.build("auto", posed("classification", 3))
    weight = torch.rand(12, dtype=torch.float64)
    for cut in CUTS:
        value = entropy(LOGITS[cut], LABELS[cut], weight[cut])
        made.update(LOGITS[cut], LABELS[cut], weight[cut], value)
    each = torch.nn.functional.cross_entropy(LOGITS, LABELS, reduction="none")
    expected = (each * weight).sum() / weight.sum()
    assert made.compute()["loss"] == pytest.approx(expected.item(), rel=ROUNDING)


def test_a_measure_of_ones_own_sees_the_whole_part_at_once():
    seen = []

    def spread(outputs, target):
        seen.append(len(outputs))
        return outputs.max() - outputs.min()

    made = metrics.build(posed("classification", 3), {"spread": spread})
    for cut in CUTS:
        made.update(LOGITS[cut], LABELS[cut])
    assert made.compute()["spread"] == (LOGITS.max() - LOGITS.min()).item()
    assert seen == [12]


def test_names_come_in_order_loss_first():
    made = metrics.build(posed("classification", 3), {"mine": lambda outputs, target: 1})
    made.update(LOGITS, LABELS, None, torch.tensor(1.0))
    assert [*made.compute()] == ["loss", "accuracy", "precision", "recall", "f1", "mine"]
    made = metrics.build(posed("regression", 1))
    made.update(LOGITS[:, 0], LOGITS[:, 1], None, torch.tensor(1.0))
    assert [*made.compute()] == ["loss", "rmse", "mae", "r2"]


@pytest.mark.parametrize(("kind", "target"), [("classification", LABELS), ("regression", LOGITS[:, 0])])
def test_reset_forgets(kind, target):
    outputs = LOGITS if kind == "classification" else LOGITS[:, :1]
    made = metrics.build(posed(kind, outputs.shape[1]), {"size": lambda outputs, target: len(outputs)})
    made.update(outputs, 0 * target, None, torch.tensor(5.0))
    made.reset()
    made.update(outputs, target, None, torch.tensor(1.0))
    fresh = metrics.build(posed(kind, outputs.shape[1]), {"size": lambda outputs, target: len(outputs)})
    fresh.update(outputs, target, None, torch.tensor(1.0))
    assert made.compute() == fresh.compute()


def test_the_graph_of_the_loss_is_let_go():
    made, logits = metrics.build(posed("classification", 3)), LOGITS.clone().requires_grad_()
    made.update(logits, LABELS, None, logits.mean())
    assert not torch.stack(list(made._loss.compute().values())).requires_grad


def test_labels_by_position_are_all_counted():
    made = metrics.build(posed("classification", 4))
    logits = torch.randn(3, 4, 5)
    made.update(logits, logits.argmax(1), torch.tensor([1.0, 2.0, 0.0]))
    assert made.compute()["accuracy"] == 1
    assert made._measures._counts["truth"].sum() == 15


def test_examples_of_no_weight_count_for_nothing():
    made = metrics.build(posed("regression", 1))
    made.update(torch.tensor([9.0, 9.0]), torch.tensor([0.0, 1.0]), torch.zeros(2))
    made.update(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
    assert made.compute()["mae"] == 0.5


def test_wrong_wishes_get_a_sentence():
    with pytest.raises(UserError, match="measured already"):
        metrics.build(posed("classification", 3), {"f1": len})
    with pytest.raises(UserError, match="must be a function"):
        metrics.build(posed("classification", 3), {"mine": 3})
    with pytest.raises(UserError, match="nothing to measure"):
        metrics.build(posed("classification", 3)).compute()
    made = metrics.build(posed("classification", 3), {"mine": lambda outputs, target: outputs})
    made.update(LOGITS, LABELS)
    with pytest.raises(UserError, match="must return one number, got Tensor"):
        made.compute()
