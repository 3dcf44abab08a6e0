"""The bits of an update do not depend on threads, on processes, or on how the weights are cut."""

import multiprocessing
import os
import warnings

import pytest
import torch

from steepest.optim.engines import on_numba
from steepest.optim.engines.kernels import compiled, reduction
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.rules import AdamW

SHAPES = ((300_000,), (7,), (1,), (400, 401))


@pytest.fixture
def use():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def split_from(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_numba, "PARALLEL_FROM", elements)
    monkeypatch.setattr(compiled, "PARALLEL_FROM", elements)


def trained() -> RuleOptimizer:
    draw = torch.Generator().manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in SHAPES]
    optimizer = RuleOptimizer(weights, AdamW())
    for _ in range(3):
        for w in weights:
            w.grad = torch.randn(w.shape, generator=draw)
        optimizer.step()
    return optimizer


def numbers(optimizer: RuleOptimizer) -> tuple[list[bytes], float]:
    weights = optimizer.param_groups[0]["params"]
    return [w.detach().numpy().tobytes() for w in weights], optimizer.gradient_norm()


def test_threads_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch, use) -> None:
    split_from(1 << 60, monkeypatch)
    alone = numbers(trained())
    split_from(0, monkeypatch)
    for count in (2, 3, 16):
        use(count)
        assert numbers(trained()) == alone


def test_the_norm_is_that_of_all_elements() -> None:
    gradients = [torch.randn(shape) for shape in SHAPES]
    whole = torch.cat([g.double().flatten() for g in gradients])
    eps = torch.finfo(torch.float64).eps
    assert reduction.norm(gradients) == pytest.approx(float(whole.norm()), rel=len(whole) * eps)
    assert reduction.norm([]) == 0.0
    for bad in (float("nan"), float("inf")):
        gradients[0][17] = bad
        assert str(reduction.norm(gradients)) == str(bad)


def test_gradients_of_any_kind_have_a_norm() -> None:
    mixed = [torch.ones(2, 3).t(), torch.ones(2, dtype=torch.bfloat16), torch.eye(2).to_sparse()]
    mixed += [torch.full((1,), 3 + 4j), torch.ones(5, dtype=torch.float64), torch.ones(0)]
    assert reduction.norm(mixed) == pytest.approx((6 + 2 + 2 + 25 + 5) ** 0.5)


def _one_more(optimizer: RuleOptimizer, queue: multiprocessing.Queue) -> None:
    optimizer.step()
    queue.put(numbers(optimizer))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_goes_on_alone(monkeypatch: pytest.MonkeyPatch, use) -> None:
    split_from(0, monkeypatch)
    use(2)
    optimizer = trained()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = context.Process(target=_one_more, args=(optimizer, queue))
        child.start()
    found = queue.get(timeout=300)
    child.join()
    optimizer.step()
    assert found == numbers(optimizer)
