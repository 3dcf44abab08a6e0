"""An update writes its weights and its state, and not one byte beside them."""

import pytest
import torch

from steepest.optim.engines import on_numba
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError
from steepest.rules import SGD, AdamW

LR = 0.5


def sgd_of(*weights: torch.Tensor) -> RuleOptimizer:
    return RuleOptimizer(weights, SGD(lr=LR))


def engine_of(optimizer: RuleOptimizer) -> str:
    return type(optimizer._plan.weight_groups[0].engines[0]).__name__


def test_a_weight_with_strides_moves_and_its_neighbours_stay() -> None:
    memory = torch.zeros(50, 2)
    weight = memory[:, 0].requires_grad_()
    weight.grad = torch.ones(50)
    optimizer = RuleOptimizer([weight], AdamW(lr=LR, weight_decay=0.0))
    optimizer.step()
    assert torch.equal(memory[:, 1], torch.zeros(50))
    torch.testing.assert_close(memory[:, 0], torch.full((50,), -LR))


@pytest.mark.parametrize("change", [lambda w: w.to(memory_format=torch.channels_last), lambda w: w.mT])
def test_weight_and_gradient_may_lie_differently(change) -> None:
    weight = torch.nn.Parameter(change(torch.randn(2, 3, 4, 4)))
    before, weight.grad = weight.detach().clone(), torch.randn(2, 3, 4, 4)
    sgd_of(weight).step()
    torch.testing.assert_close(weight.detach(), before - LR * weight.grad)


def test_a_gradient_of_one_repeated_number_is_not_read_beyond() -> None:
    weight = torch.nn.Parameter(torch.zeros(1000))
    optimizer = sgd_of(weight)
    optimizer.step(gradients=[torch.ones(1).expand(1000)])
    assert torch.equal(weight.detach(), torch.full((1000,), -LR))


def test_a_gradient_that_changes_its_layout_in_place_is_noticed() -> None:
    weight = torch.nn.Parameter(torch.zeros(4, 4))
    weight.grad = torch.arange(16.0).reshape(4, 4)
    optimizer = sgd_of(weight)
    optimizer.step()
    weight.grad.data = weight.grad.data.t()
    optimizer.step()
    plain = torch.arange(16.0).reshape(4, 4)
    torch.testing.assert_close(weight.detach(), -LR * (plain + plain.t()))


def test_a_weight_that_was_cut_or_moved_is_noticed() -> None:
    memory = torch.zeros(100)
    weight = torch.nn.Parameter(memory)
    optimizer = sgd_of(weight)
    weight.grad = torch.ones(100)
    optimizer.step()
    weight.data = memory[:10]
    weight.grad = torch.ones(10)
    optimizer.step()
    assert torch.equal(memory, torch.tensor([-2 * LR] * 10 + [-LR] * 90))
    weight.data = torch.zeros(10)
    optimizer.step()
    assert torch.equal(weight.detach(), torch.full((10,), -LR))
    assert torch.equal(memory, torch.tensor([-2 * LR] * 10 + [-LR] * 90))


def test_a_freed_storage_is_not_touched() -> None:
    weight, other = torch.nn.Parameter(torch.zeros(64)), torch.nn.Parameter(torch.zeros(3))
    weight.grad, other.grad = torch.ones(64), torch.ones(3)
    optimizer = sgd_of(weight, other)
    optimizer.step()
    weight.untyped_storage().resize_(0)
    plan = optimizer._plan
    assert not plan.fits(plan.forms, [[weight, other]], [weight.grad, other.grad], {})
    assert not on_numba.plain(weight, weight)


def test_weights_that_overlap_move_one_after_the_other() -> None:
    memory = torch.zeros(30)
    first, second = memory[:20].requires_grad_(), memory[10:].requires_grad_()
    first.grad, second.grad = torch.ones(20), torch.ones(20)
    optimizer = sgd_of(first, second)
    optimizer.step()
    assert engine_of(optimizer) == "Leaves"
    assert torch.equal(memory, -LR * torch.tensor([1.0] * 10 + [2.0] * 10 + [1.0] * 10))


def test_a_gradient_inside_the_weights_is_read_before_it_is_written() -> None:
    memory = torch.arange(40.0)
    weight = memory[:30].requires_grad_()
    optimizer = sgd_of(weight)
    expected = memory[:30] - LR * memory[10:]
    optimizer.step(gradients=[memory[10:]])
    assert engine_of(optimizer) == "Leaves"
    torch.testing.assert_close(weight.detach(), expected)


def test_gradients_are_never_written() -> None:
    weight = torch.nn.Parameter(torch.randn(100))
    gradient = torch.randn(100)
    weight.grad = gradient.clone()
    optimizer = RuleOptimizer([weight], AdamW())
    version = weight.grad._version
    for _ in range(3):
        optimizer.step(scale=0.5)
        optimizer.gradient_norm()
    assert torch.equal(weight.grad, gradient)
    assert weight.grad._version == version


def test_autograd_sees_that_weights_have_changed() -> None:
    weight = torch.nn.Parameter(torch.randn(10))
    loss = (weight * weight).sum()
    weight.grad = torch.ones(10)
    sgd_of(weight).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_weight_without_gradient_stays_and_keeps_its_own_count() -> None:
    first, second = torch.nn.Parameter(torch.zeros(5)), torch.nn.Parameter(torch.zeros(5))
    optimizer = RuleOptimizer([first, second], AdamW(weight_decay=0.1))
    for step in range(4):
        first.grad = torch.ones(5)
        second.grad = None if step == 1 else torch.ones(5)
        optimizer.step()
    alone = torch.nn.Parameter(torch.zeros(5))
    lonely = RuleOptimizer([alone], AdamW(weight_decay=0.1))
    for _ in range(3):
        alone.grad = torch.ones(5)
        lonely.step()
    assert [int(optimizer.state[w]["step"]) for w in (first, second)] == [4, 3]
    assert torch.equal(second.detach(), alone.detach())


def test_state_that_somebody_replaces_or_edits_is_used() -> None:
    weight = torch.nn.Parameter(torch.zeros(5))
    optimizer = RuleOptimizer([weight], AdamW(weight_decay=0.0))
    weight.grad = torch.ones(5)
    optimizer.step()
    optimizer.state[weight]["exp_avg"] = torch.full((5,), 100.0)
    optimizer.state[weight]["step"].fill_(7)
    optimizer.step()
    assert float(optimizer.state[weight]["exp_avg"][0]) > 80
    assert int(optimizer.state[weight]["step"]) == 8


def test_sparse_and_misshapen_gradients_are_refused() -> None:
    weight = torch.nn.Parameter(torch.zeros(4, 3))
    weight.grad = torch.eye(4, 3).to_sparse()
    with pytest.raises(UserError, match="to_dense"):
        sgd_of(weight).step()
    with pytest.raises(UserError, match=r"shape \(3, 4\)"):
        sgd_of(weight).step(gradients=[torch.ones(3, 4)])
    assert torch.equal(weight.detach(), torch.zeros(4, 3))


def test_complex_weights_and_subclasses_take_the_plain_way() -> None:
    class Marked(torch.Tensor):
        pass

    weight = torch.nn.Parameter(torch.zeros(3, dtype=torch.complex64))
    marked = torch.zeros(3).as_subclass(Marked).requires_grad_()
    weight.grad, marked.grad = torch.full((3,), 1 + 2j), torch.ones(3)
    sgd_of(weight, marked).step()
    torch.testing.assert_close(weight.detach(), torch.full((3,), -LR * (1 + 2j)))
    assert torch.equal(marked.detach().as_subclass(torch.Tensor), torch.full((3,), -LR))
