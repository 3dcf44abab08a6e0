"""The learning-rate finder for loops of one's own: what it finds, and that it leaves no trace."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from steepest import UserError, rules, schedule
from steepest.torch import AdamW, find_rate

GROWTH = 1.15


def examples(count: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(count, 8, generator=draw)
    return x, (x @ torch.randn(8, 3, generator=draw)).argmax(1)


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))


def batched(count: int = 256, size: int = 32) -> list[tuple[torch.Tensor, torch.Tensor]]:
    x, y = examples(count)
    return list(zip(x.split(size), y.split(size), strict=True))


def bowl(curvature: float) -> tuple[nn.Module, Any, list[Any]]:
    """A loss ½·curvature·w² without noise: gradient descent diverges from 2/curvature on, exactly."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    inputs, target = torch.full((4, 1), curvature**0.5), torch.zeros(4, 1)
    return model, lambda outputs, truth: 0.5 * mse_loss(outputs, truth), [(inputs, target)]


def bits(tensors: Any) -> list[bytes]:
    return [tensor.detach().numpy().tobytes() for tensor in tensors]


@pytest.mark.parametrize("curvature", [0.5, 1.0, 40.0])
def test_on_a_parabola_the_edge_is_two_over_its_curvature(curvature: float) -> None:
    model, loss, batches = bowl(curvature)
    found = find_rate(model, loss, batches, "sgd", start=1e-2 / curvature, most=100 / curvature)
    # At 2/curvature the loss turns from falling to rising; it is seen one update, and one factor, later.
    assert 2 / curvature / GROWTH**2 <= found.rate <= 2 / curvature * GROWTH**2
    assert found.suggestion < 2 / curvature


def test_a_rate_that_is_suggested_trains_and_one_beyond_the_edge_does_not() -> None:
    found = find_rate(network(), cross_entropy, batched(), "sgd")

    def last_loss(lr: float) -> float:
        model = network()
        opt = torch.optim.SGD(model.parameters(), lr=lr)
        for _ in range(20):
            for x, y in batched():
                opt.zero_grad()
                (loss := cross_entropy(model(x), y)).backward()
                opt.step()
        return float(loss.detach())

    began = float(cross_entropy(network()(batched()[0][0]), batched()[0][1]).detach())
    assert last_loss(found.suggestion) < 0.7 * began
    assert not last_loss(100 * found.rate) < 0.7 * began


@pytest.mark.parametrize("warm", [False, True])
def test_nothing_of_the_caller_is_changed_by_a_bit(warm: bool) -> None:
    model = network()
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader(
        TensorDataset(*examples()), 32, shuffle=True, generator=torch.Generator().manual_seed(5)
    )
    if warm:  # gradients, moments and running statistics to keep
        cross_entropy(model(batched()[0][0]), batched()[0][1]).backward()
        opt.step()
    random.seed(3)
    np.random.seed(4)  # noqa: NPY002
    torch.manual_seed(6)

    def everything() -> tuple[Any, ...]:
        state = opt.state_dict()
        moments = [v for entry in state["state"].values() for v in entry.values()]
        grads = [w.grad for w in model.parameters() if w.grad is not None]
        generators = (random.getstate(), np.random.get_state()[1].tobytes(), bits([torch.get_rng_state()]))  # noqa: NPY002
        loaders = bits([loader.generator.get_state()])  # pyright: ignore[reportOptionalMemberAccess]
        modes = [module.training for module in model.modules()]
        tensors = bits([*model.state_dict().values(), *moments, *grads])
        return tensors, state["param_groups"], generators, loaders, modes

    before = everything()
    find_rate(model, cross_entropy, loader, opt)
    assert everything() == before
    find_rate(model, cross_entropy, loader, "muon")
    assert everything() == before


def test_the_generator_of_a_sampler_within_a_sampler_of_batches_is_left_where_it_was() -> None:
    rows, draw = TensorDataset(*examples()), torch.Generator().manual_seed(3)
    batches = BatchSampler(RandomSampler(rows, generator=draw), 32, False)
    before = draw.get_state()
    find_rate(network(), cross_entropy, DataLoader(rows, batch_sampler=batches))
    assert torch.equal(draw.get_state(), before)


def test_twice_from_the_same_place_gives_the_same_curve() -> None:
    torch.manual_seed(7)
    loader = DataLoader(TensorDataset(*examples()), 32, shuffle=True)
    curves = [find_rate(network(), cross_entropy, loader).curve for _ in range(2)]
    torch.manual_seed(8)
    assert curves[0] == curves[1]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_loaders_shorter_than_the_test_are_read_again(count: int) -> None:
    found = find_rate(network(), cross_entropy, batched(32 * count))
    assert found.updates == len(found.curve) > 20


def test_what_can_be_read_only_once_is_kept_and_used_again() -> None:
    handed: list[int] = []

    def once() -> Iterator[Any]:
        for number, batch in enumerate(batched()):
            handed.append(number)
            yield batch

    found = find_rate(network(), cross_entropy, once())
    assert found.updates > len(handed) == len(batched())
    assert found.curve == find_rate(network(), cross_entropy, batched()).curve


def test_the_counters_are_those_of_the_test_alone() -> None:
    first = find_rate(network(), cross_entropy, batched())
    again = find_rate(network(), cross_entropy, batched())
    assert first.updates == again.updates == len(first.curve)
    assert first.seconds > 0
    rates = pairwise(rate for rate, _ in first.curve)
    assert all(later / rate == pytest.approx(GROWTH) for rate, later in rates)


@pytest.mark.parametrize(
    "rule", ["nesterov", "lion", "muon", "sam+sgd", "adahessian", "sophiag", rules.AdamW(lr=0.5)]
)
def test_any_rule_is_tested(rule: Any) -> None:
    assert 1e-6 < find_rate(network(), cross_entropy, batched(), rule, most=100.0).suggestion < 100


def test_groups_of_an_optimizer_keep_the_ratios_of_their_rates() -> None:
    model = network()
    groups = [{"params": model[0].parameters(), "lr": 1e-3}, {"params": model[4].parameters(), "lr": 1e-5}]  # type: ignore[index]
    seen: list[list[float]] = []

    class Seen(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            seen.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    found = find_rate(model, cross_entropy, batched(), Seen(groups, lr=1.0))
    assert [big for big, _ in seen] == [rate for rate, _ in found.curve]
    assert all(small / big == pytest.approx(0.01) for big, small in seen)


def test_an_optimizer_of_ours_and_one_that_needs_a_closure_are_copied() -> None:
    model = network()
    assert find_rate(model, cross_entropy, batched(), AdamW(model.parameters())).rule == "AdamW"

    class Closed(torch.optim.SGD):
        def step(self, closure: Any) -> Any:  # type: ignore[override]
            return super().step(closure)

    assert find_rate(model, cross_entropy, batched(), Closed(model.parameters(), lr=1.0)).rate > 0


def test_a_step_that_a_scheduler_has_wrapped_does_not_move_the_model() -> None:
    model = network()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.optim.lr_scheduler.StepLR(opt, 1)
    before = bits(model.state_dict().values())
    find_rate(model, cross_entropy, batched(), opt)
    assert bits(model.state_dict().values()) == before


def test_clipping_moves_the_edge() -> None:
    model, loss, batches = bowl(4.0)
    free = find_rate(model, loss, batches, "sgd", most=1e4)
    clipped = find_rate(model, loss, batches, "sgd", most=1e4, clip_norm=0.01)
    assert clipped.rate > 10 * free.rate


def test_a_model_left_in_test_mode_is_trained_as_in_training() -> None:
    seen: list[bool] = []
    model = network().eval()
    model.register_forward_hook(lambda module, *_: seen.append(module.training))
    find_rate(model, cross_entropy, batched())
    assert all(seen)
    assert not model.training


def test_batches_of_another_form_go_through_a_function() -> None:
    data = [{"x": x, "y": y} for x, y in batched()]
    found = find_rate(network(), None, data, compute=lambda m, b: cross_entropy(m(b["x"]), b["y"]))
    plain = find_rate(network(), cross_entropy, batched())
    assert found.curve == plain.curve


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_curve_is_drawn(suffix: str, tmp_path: Path) -> None:
    path = find_rate(network(), cross_entropy, batched()).plot(tmp_path / f"rate{suffix}")
    assert path.stat().st_size > 1000


def test_a_picture_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.png, \.svg, \.pdf"):
        find_rate(network(), cross_entropy, batched()).plot(tmp_path / "rate.xyz")


def test_what_it_says_holds_the_rate_and_the_reason() -> None:
    found = find_rate(network(), cross_entropy, batched())
    assert str(found).startswith("adamw: lr ")
    assert f"{found.updates} updates" in str(found)


@pytest.mark.parametrize("once", [False, True])
def test_few_batches_that_come_again_and_again_are_said_to_be_learnt_by_heart(once: bool) -> None:
    few, many = batched(64), batched(32 * 200)
    found = find_rate(network(), cross_entropy, iter(few) if once else few)
    assert (found.batches, found.by_heart) == (2, True)
    assert "2 batches were met again and again" in str(found)
    found = find_rate(network(), cross_entropy, iter(many) if once else many)
    assert (found.batches, found.by_heart) == (found.updates, False)
    assert "again" not in str(found)


# --- what no rate can be found for ---


def test_a_loss_that_never_leaves_is_named() -> None:
    with pytest.raises(UserError, match=r"did not leave for good at any rate from 1e-06 to 1e-05.*most="):
        find_rate(network(), cross_entropy, batched(), most=1e-5)


def test_a_loss_that_leaves_at_once_is_named() -> None:
    with pytest.raises(UserError, match=r"every rate that was tried is too large.*start="):
        find_rate(*bowl(1e9), "sgd")


def test_a_model_that_does_not_train_is_named() -> None:
    draw = torch.Generator().manual_seed(0)
    noise = [(torch.randn(4, 8, generator=draw), torch.randint(3, (4,), generator=draw)) for _ in range(200)]
    with pytest.raises(UserError, match="never fell by more than its noise"):
        find_rate(network(), cross_entropy, noise, "sgd", start=1.0, most=1e9)


def test_a_gradient_that_is_zero_everywhere_is_named_at_once() -> None:
    with pytest.raises(UserError, match="gradient of the loss is zero at every weight"):
        find_rate(network(), lambda outputs, target: (0 * outputs).sum(), batched(), "adamw")


@pytest.mark.filterwarnings("error")
def test_rates_that_the_test_has_made_itself_are_not_warned_of() -> None:
    net, loss, batches = bowl(1e-4)
    assert find_rate(net, loss, batches, "sgd", most=1e6).rate > 1e3


def test_a_loss_that_is_not_finite_from_the_start_is_named() -> None:
    with pytest.raises(UserError, match="before the first update"):
        find_rate(
            network(), cross_entropy, [(torch.full((4, 8), torch.inf), torch.zeros(4, dtype=torch.int64))]
        )


def test_a_loss_of_the_model_outside_is_refused_and_leaves_it_no_gradient() -> None:
    model = network()
    with pytest.raises(UserError, match="a copy of it is trained"):
        find_rate(model, None, batched(), compute=lambda _, batch: cross_entropy(model(batch[0]), batch[1]))
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda outputs, y: torch.tensor(1.0), "does not depend on any weight"),
        (lambda outputs, y: outputs, "must be one number"),
        (lambda outputs, y: 1.0, "must be one number"),
        (None, "Give the loss"),
    ],
)
def test_a_loss_that_is_none_is_refused(loss: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        find_rate(network(), loss, batched())


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        ([], "holds no batch"),
        (iter(()), "holds no batch"),
        (TensorDataset(*examples()), "DataLoader"),
        (examples()[0], r"\[\(X, y\)\]"),
        ([examples()[0]], r"must be \(inputs, target\)"),
        (7, "got int"),
    ],
)
def test_batches_that_are_none_are_refused(batches: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        find_rate(network(), cross_entropy, batches)


def test_a_rate_that_a_schedule_gives_cannot_be_tried() -> None:
    rule = rules.AdamW(lr=schedule.Constant(0.1))
    with pytest.raises(UserError, match="schedule"):
        find_rate(network(), cross_entropy, batched(), rule)


def test_the_optimizer_of_another_model_is_refused() -> None:
    with pytest.raises(UserError, match="not the model's"):
        find_rate(network(), cross_entropy, batched(), torch.optim.SGD(network().parameters(), lr=1.0))


def test_a_model_that_cannot_be_copied_is_named() -> None:
    model = network()
    model.kept = model[0].weight * 2  # type: ignore[index, assignment]  # it hangs in a graph
    with pytest.raises(UserError, match="cannot be copied"):
        find_rate(model, cross_entropy, batched())


@pytest.mark.parametrize("wrong", [{"start": 0.0}, {"growth": 1.0}, {"start": 2.0, "most": 1.0}])
def test_rates_that_do_not_rise_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="Rates must rise"):
        find_rate(network(), cross_entropy, batched(), **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"start": None}, "start must be a number, got None"),
        ({"growth": "a"}, "growth must be a number, got 'a'"),
        ({"most": torch.tensor(1.0)}, "most must be a number"),
        ({"clip_norm": "a"}, "clip_norm must be a number, got 'a'"),
        ({"clip_norm": -1.0}, "clip_norm must be above 0, got -1.0"),
        ({"clip_norm": 0}, "clip_norm must be above 0, got 0"),
        ({"clip_norm": float("nan")}, "clip_norm must be above 0, got nan"),
        ({"growth": 100.0}, "there are 6 rates, and an edge takes 8"),
    ],
    ids=str,
)
def test_numbers_that_are_none_and_curves_that_are_too_short_are_refused(
    wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        find_rate(network(), cross_entropy, batched(), **wrong)


def test_a_batch_that_is_not_finite_is_told_from_a_rate_that_is_too_large() -> None:
    batches = batched()
    batches[3][0][0] = torch.nan
    with pytest.raises(UserError, match=r"The loss is nan at update 4, .* numbers in that batch"):
        find_rate(network(), cross_entropy, batches)


def test_a_copy_of_the_model_alone_is_the_same_as_the_model() -> None:
    model = network()
    assert (
        find_rate(deepcopy(model), cross_entropy, batched()).curve
        == find_rate(model, cross_entropy, batched()).curve
    )


def test_the_face_stays_cheap_to_import() -> None:
    heavy = ("matplotlib", "sklearn", "polars", "optuna", "steepest.train.loop", "steepest.optim.lr_finder")
    program = f"import sys, steepest.torch; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
