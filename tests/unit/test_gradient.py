"""Clipping by common norm, by value and unit by unit, on numpy and torch alike."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from steepest.optim.clipping import ClipAdaptive, ClipNorm, ClipValue
from steepest.optim.errors import UserError

EPS = np.finfo(np.float64).eps
SHAPES = [(), (5,), (4, 3), (4, 3, 2, 2), (0,), (0, 3)]


def normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).normal(size=shape))


def unit_by_unit(w: np.ndarray, g: np.ndarray, ratio: float, eps: float) -> np.ndarray:
    """Brock et al. 2021, equation 3, one unit after another."""
    units_w, units_g = (w, g) if w.ndim > 1 else (w[None], g[None])
    clipped = []
    for w_i, g_i in zip(units_w, units_g, strict=True):
        longest = ratio * max(math.sqrt((w_i**2).sum()), eps)
        length = math.sqrt((g_i**2).sum())
        clipped.append(g_i * longest / length if length > longest else g_i)
    return np.array(clipped).reshape(g.shape)


@pytest.mark.parametrize(
    ("norm", "factor"), [(0.0, 1.0), (1.9, 1.0), (2.0, 1.0), (4.0, 0.5), (math.inf, 0.0)]
)
def test_a_norm_beyond_the_limit_is_scaled_to_it(norm: float, factor: float) -> None:
    assert ClipNorm(2.0).scale(norm) == factor


def test_clipping_by_norm_agrees_with_torch() -> None:
    """torch divides by the norm plus 1e-6."""
    p = torch.zeros(50, dtype=torch.float64, requires_grad=True)
    p.grad = torch.from_numpy(normal(0, (50,)))
    norm = float(torch.linalg.vector_norm(p.grad))
    expected = p.grad * ClipNorm(0.5).scale(norm)
    torch.nn.utils.clip_grad_norm_([p], 0.5)
    torch.testing.assert_close(p.grad, expected, rtol=1e-6 / norm + 10 * EPS, atol=0)


def test_a_norm_that_is_no_number_stays_in_sight() -> None:
    assert math.isnan(ClipNorm(1.0).scale(math.nan))


@pytest.mark.parametrize("xp", [np, torch], ids=lambda xp: xp.__name__)
def test_values_beyond_the_limit_are_set_to_it(xp: Any) -> None:
    g = xp.asarray([-2.0, -0.5, 0.0, 0.5, 2.0, math.inf, math.nan])
    clipped = ClipValue(1.0).apply(xp, g, g).tolist()
    assert clipped[:-1] == [-1.0, -0.5, 0.0, 0.5, 1.0, 1.0]
    assert math.isnan(clipped[-1])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_adaptive_clipping_is_brocks_on_numpy_and_torch(shape: tuple[int, ...], size: float) -> None:
    w, g = normal(0, shape), size * normal(1, shape)
    expected = unit_by_unit(w, g, ratio=0.1, eps=1e-3)
    on_numpy = ClipAdaptive(0.1).apply(np, w, g)
    on_torch = ClipAdaptive(0.1).apply(torch, torch.as_tensor(w), torch.as_tensor(g))
    np.testing.assert_allclose(on_numpy, expected, rtol=20 * EPS)
    np.testing.assert_allclose(on_torch, expected, rtol=20 * EPS)


def test_zero_weights_can_still_grow() -> None:
    g = np.array([[3.0, 4.0]])
    assert np.hypot(*ClipAdaptive(0.01, eps=1e-3).apply(np, np.zeros((1, 2)), g)[0]) == pytest.approx(1e-5)


def test_a_zero_gradient_stays_zero() -> None:
    assert not ClipAdaptive().apply(np, normal(0, (4, 3)), np.zeros((4, 3))).any()


def test_a_unit_that_is_no_number_stays_in_sight_and_alone() -> None:
    g = normal(1, (3, 2))
    g[1, 0] = np.nan
    clipped = ClipAdaptive().apply(np, normal(0, (3, 2)), g)
    assert np.isnan(clipped).any(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize("transform", [ClipValue(0.1), ClipAdaptive()], ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nothing_is_written_and_the_dtype_stays(transform: Any, dtype: torch.dtype) -> None:
    w, g = (torch.as_tensor(normal(seed, (4, 3))).to(dtype) for seed in (0, 1))
    before = w.clone(), g.clone()
    assert transform.apply(torch, w, g).dtype == dtype
    assert torch.equal(w, before[0])
    assert torch.equal(g, before[1])


@pytest.mark.parametrize("make", [ClipNorm, ClipValue, ClipAdaptive, lambda bad: ClipAdaptive(0.01, eps=bad)])
@pytest.mark.parametrize("bad", [0, -1.0, math.nan, math.inf])
def test_a_limit_must_be_positive(make: Any, bad: float) -> None:
    with pytest.raises(UserError, match=r"must lie in \(0, ∞\), got .*It is the "):
        make(bad)
