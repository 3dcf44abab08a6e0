"""State by name and optimizers of models: what goes where, and nothing half loaded."""

from functools import partial
from typing import Any

import pytest
import torch

from each import each
from steepest import rules
from steepest.optim.engines.torch import passes
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.engines.torch.passes import by_labels
from steepest.optim.errors import UserError
from steepest.schedule import Exponential
from steepest.torch import AdamW, optimizer


def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 2))


def train(model: torch.nn.Module, by: RuleOptimizer, steps: range) -> None:
    for step in steps:
        by.zero_grad()
        inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
        _, gradients, reads = passes.look(by, partial(loss_of, model, inputs, by_labels(by.template(0))))
        by.step(gradients=gradients, reads=reads)


def loss_of(model: torch.nn.Module, inputs: torch.Tensor, labels: bool) -> Any:
    outputs = model(inputs)
    loss = outputs.square().sum()
    return (loss, outputs) if labels else loss


def numbers(model: torch.nn.Module) -> list[bytes]:
    return [w.detach().numpy().tobytes() for w in model.parameters()]


@each("name", sorted(rules.registry()), push=3)
def test_training_goes_on_to_the_same_bits(name: str) -> None:
    model, again = net(), net()
    first = optimizer(model, name)
    first.factor = 0.5
    train(model, first, range(4))
    saved = {key: value.clone() for key, value in first.state_by_name().items()}
    again.load_state_dict(model.state_dict())
    second = optimizer(again, name)
    second.load_state_by_name(saved)
    train(model, first, range(4, 8))
    train(again, second, range(4, 8))
    assert numbers(model) == numbers(again)
    assert (second.steps, second.factor) == (8, 0.5)
    kept = first.state_by_name()
    for key, value in second.state_by_name().items():
        assert value.numpy().tobytes() == kept[key].numpy().tobytes(), key


def test_what_was_saved_is_a_copy_with_the_rules_names() -> None:
    model = net()
    by = optimizer(model, "nadam")
    train(model, by, range(2))
    saved = by.state_by_name()
    assert {"0.weight/m", "0.weight/v", "0.weight/step", "0.weight/mu_product"} <= saved.keys()
    assert saved["0.weight/mu_product"].dtype == torch.float64
    before = saved["0.weight/m"].clone()
    train(model, by, range(2, 3))
    assert torch.equal(saved["0.weight/m"], before)


def test_a_mismatch_lists_all_and_loads_nothing() -> None:
    model = net()
    by = optimizer(model, "adamw")
    train(model, by, range(2))
    before, broken = by.state_by_name(), by.state_by_name()
    broken["0.weight/m"] = torch.zeros(3)
    broken["9.weight/m"] = broken.pop("2.weight/m")
    del broken["steps"]
    with pytest.raises(UserError) as caught:
        by.load_state_by_name(broken)
    for name in ("0.weight/m", "9.weight/m", "2.weight/m", "steps"):
        assert name in str(caught.value)
    assert all(torch.equal(before[key], value) for key, value in by.state_by_name().items())


def test_checkpoints_are_matched_by_name() -> None:
    model = net()
    names = list(model.named_parameters())
    forth, back = AdamW(names), AdamW(names[::-1])
    train(model, forth, range(3))
    back.load_state_dict(forth.state_dict())
    for _, weight in names:
        assert torch.equal(back.state[weight]["exp_avg"], forth.state[weight]["exp_avg"])
    assert back.param_groups[0]["param_names"] == [name for name, _ in names[::-1]]
    renamed = AdamW([(f"other.{name}", weight) for name, weight in names])
    with pytest.raises(UserError, match=r"'other\.0\.weight' is missing"):
        renamed.load_state_dict(forth.state_dict())
    assert not renamed.state


def test_moments_of_16_bit_weights_keep_their_digits() -> None:
    weight = torch.nn.Parameter(torch.ones(9, dtype=torch.bfloat16))
    first, second = AdamW([weight]), AdamW([weight])
    weight.grad = torch.full((9,), 0.3, dtype=torch.bfloat16)
    first.step()
    second.load_state_dict(first.state_dict())
    kept = second.state[weight]["exp_avg_sq"]
    assert kept.dtype == torch.float32
    assert torch.equal(kept, first.state[weight]["exp_avg_sq"])
    assert kept is not first.state[weight]["exp_avg_sq"]


def test_biases_and_norms_do_not_decay_and_this_is_said() -> None:
    model = net()
    model[2].weight.requires_grad_(False)
    by = optimizer(model, rules.AdamW(weight_decay=0.3), {"2.*": "lion"}, lr_scale={"0.*": 0.5})
    decays = {n: g["weight_decay"] for g in by.param_groups for n in g["param_names"]}
    assert decays == {"0.weight": 0.3, "0.bias": 0, "1.weight": 0, "1.bias": 0, "2.bias": 0}
    text = "\n".join(by.summary())
    assert "AdamW, lr 0.0005, weight decay 0.3: 1 tensor, 32 numbers (0.weight)" in text
    assert "Lion" in text
    whole = optimizer(net(), rules.AdamW(weight_decay=0.3), decay_all=True)
    assert [group["weight_decay"] for group in whole.param_groups] == [0.3]


def test_a_model_without_weights_to_train_is_refused() -> None:
    with pytest.raises(UserError, match="no weight to train"):
        optimizer(net().requires_grad_(False), "adamw")


def test_schedules_follow_the_global_step_and_are_written_down() -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    by = RuleOptimizer([weight], rules.SGD(lr=Exponential(1.0, 0.5)))
    rates = []
    for _ in range(3):
        rates.append(by.rate)
        weight.grad = torch.ones(3)
        before = weight.detach().clone()
        by.step()
        assert by.param_groups[0]["lr"] == rates[-1]
        torch.testing.assert_close(before - weight.detach(), torch.full((3,), rates[-1]))
    assert rates == [Exponential(1.0, 0.5)(step) for step in (1, 2, 3)]


def test_factor_multiplies_the_rate() -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    by = RuleOptimizer([weight], rules.SGD(lr=1.0))
    by.factor = 0.25
    weight.grad = torch.ones(3)
    by.step()
    assert by.rate == 0.25
    assert by.param_groups[0]["lr"] == 1.0
    assert torch.equal(weight.detach(), torch.full((3,), -0.25))
