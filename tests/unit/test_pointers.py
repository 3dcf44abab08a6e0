"""Where tensors lie: what C says of them is what Python says."""

import sys
from collections.abc import Callable

import pytest
import torch

from steepest.optim.engines.kernels import pointers
from steepest.optim.engines.kernels.pointers import MOVED, SAME, UNFIT, InC, InPython

FACES = [
    pytest.param(
        InC, marks=pytest.mark.skipif(not pointers._functions(), reason="torch has no table of functions")
    ),
    InPython,
]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def weights_of(dtype: torch.dtype) -> list[torch.Tensor]:
    shapes = [(3, 4), (5,), (), (0, 2), (1, 7), (2, 3, 4, 1)]
    return [torch.nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in shapes]


def alike(weights: list[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.ones_like(w).detach() for w in weights]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("face", FACES)
def test_what_lies_where_it_lay_is_known(face: type[InC | InPython], dtype: torch.dtype) -> None:
    weights = weights_of(dtype)
    gradients, seen = alike(weights), face(weights, 1)
    assert seen.look(gradients) == MOVED
    assert seen.found == [x.data_ptr() for x in (*gradients, *weights)]
    assert seen.look(gradients) == MOVED  # until it is said to be known
    seen.know()
    assert seen.look(gradients) == SAME
    assert seen.look(alike(weights)) == MOVED


def transposed(x: torch.Tensor) -> torch.Tensor:
    return x.new_ones(x.shape[::-1]).t()


OTHERS: list[Callable[[torch.Tensor], torch.Tensor]] = [
    transposed,
    lambda x: x.new_ones(1, 4).expand(3, 4),
    lambda x: x.new_ones(3, 8)[:, ::2],
    lambda x: x.new_ones(2, 4),
    lambda x: x.new_ones(0, 4),
    lambda x: x.new_ones(x.shape, dtype=torch.float64),
    lambda x: x.new_ones(x.shape, dtype=torch.int32),
    lambda x: x.new_ones(x.shape, dtype=torch.complex64),
]


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("face", FACES)
def test_another_layout_size_or_dtype_is_unfit(
    face: type[InC | InPython], other: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    weights = weights_of(torch.float32)
    gradients, seen = alike(weights), face(weights, 1)
    seen.look(gradients)
    seen.know()
    gradients[0] = other(gradients[0])
    assert seen.look(gradients) == UNFIT


STRANGE = [None, 3.0, torch.eye(3).to_sparse(), torch.ones(3, 4, device="meta")]


@pytest.mark.parametrize("one", STRANGE, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("face", FACES)
def test_what_is_no_tensor_or_has_no_memory_is_unfit(face: type[InC | InPython], one: object) -> None:
    weights = weights_of(torch.float32)
    assert face(weights, 1).look([one, *alike(weights)[1:]]) == UNFIT


@pytest.mark.parametrize("face", FACES)
def test_a_list_of_another_length_is_unfit(face: type[InC | InPython]) -> None:
    weights = weights_of(torch.float32)
    assert face(weights, 1).look(alike(weights)[:-1]) == UNFIT
    assert face(weights, 1).look([*alike(weights), torch.ones(3)]) == UNFIT


@pytest.mark.parametrize("face", FACES)
def test_a_weight_that_was_given_other_memory_is_seen(face: type[InC | InPython]) -> None:
    weights = weights_of(torch.float32)
    gradients, seen = alike(weights), face(weights, 1)
    seen.look(gradients)
    seen.know()
    weights[0].data = torch.ones(3, 4)
    assert seen.look(gradients) == MOVED
    weights[0].data = torch.ones(4, 3).t()
    assert seen.look(gradients) == UNFIT


def test_nothing_is_kept_of_what_is_looked_at() -> None:
    """Borrowed tensors: a look leaves reference counts alone."""
    weights = weights_of(torch.float32)
    gradients, seen = alike(weights), pointers.looker(weights, 1)
    before = [sys.getrefcount(x) for x in gradients]
    for _ in range(100):
        seen.look(gradients)
    assert [sys.getrefcount(x) for x in gradients] == before
