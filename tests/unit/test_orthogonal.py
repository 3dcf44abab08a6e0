"""Making matrices orthogonal: what becomes of singular values, of shapes, of batches."""

import numpy as np
import pytest
import torch

from steepest import rules
from steepest.optim.engines.on_numpy import NUMPY, step
from steepest.optim.engines.on_torch import TORCH
from steepest.optim.errors import UserError
from steepest.rules.orthogonal import COEFFICIENTS, SAFETY, orthogonal

EPS = np.finfo(np.float64).eps
NAMES = sorted(COEFFICIENTS)
MUONS = (rules.Muon, rules.MuonMatched, rules.MuonSpectral)
ORTHOGONAL = (*MUONS, rules.NorMuon, rules.AdaMuon, rules.SpectralDescent)
SHAPES = [(4, 4), (4, 9), (9, 4), (1, 6), (6, 1), (3, 4, 9), (2, 3, 9, 4)]


def matrix(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def polynomials(values: np.ndarray, steps: int, name: str) -> np.ndarray:
    """What the steps make of singular values, one by one."""
    for n in range(steps):
        a, b, c = COEFFICIENTS[name][min(n, len(COEFFICIENTS[name]) - 1)]
        values = a * values + b * values**3 + c * values**5
    return values


def slope(steps: int, name: str) -> float:
    """The most that the steps magnify a small error by."""
    return float(np.prod([COEFFICIENTS[name][min(n, len(COEFFICIENTS[name]) - 1)][0] for n in range(steps)]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 5, 8])
@pytest.mark.parametrize("name", NAMES)
def test_singular_values_go_through_the_polynomials_and_vectors_stay(
    name: str, steps: int, shape: tuple[int, ...]
) -> None:
    x = matrix(shape)
    u, values, vh = np.linalg.svd(x, full_matrices=False)
    length = np.sqrt((values**2).sum(-1, keepdims=True)) * (SAFETY if name == "polar_express" else 1)
    expected = (u * polynomials(values / length, steps, name)[..., None, :]) @ vh
    atol = 100 * EPS * slope(steps, name)
    np.testing.assert_allclose(orthogonal(NUMPY, x, steps, name, 0.0), expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("name", "steps", "least", "low", "high"),
    [
        ("jordan", 5, 0.01, 0.65, 1.21),
        ("quintic", 5, 0.01, 0.80, 1.20),
        ("polar_express", 5, 0.01, 0.85, 1.15),
        ("polar_express", 9, 1e-3, 0.999, 1.001),
    ],
)
def test_singular_values_come_near_1(name: str, steps: int, least: float, low: float, high: float) -> None:
    """From `least` of the norm on, for matrices with many equal singular values or few."""
    start = np.geomspace(least, 1.0, 2000)
    reached = polynomials(start / (SAFETY if name == "polar_express" else 1), steps, name)
    assert low < reached.min() < reached.max() < high
    x = matrix((20, 30))
    values = np.linalg.svd(orthogonal(NUMPY, x, steps, name), compute_uv=False)
    assert low < values.min() < values.max() < high


@pytest.mark.parametrize("name", NAMES)
def test_both_engines_make_the_same_of_float32(name: str) -> None:
    x = matrix((8, 12)).astype(np.float32)
    found = orthogonal(TORCH, torch.from_numpy(x), 5, name)
    assert found.dtype == torch.float32
    expected = orthogonal(NUMPY, x.astype(np.float64), 5, name)
    atol = 100 * slope(5, name) * np.finfo(np.float32).eps
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=atol)


def test_a_zero_matrix_stays_zero() -> None:
    for name in NAMES:
        assert not orthogonal(NUMPY, np.zeros((3, 4)), 5, name).any()


def first_step(rule: rules.Rule, w: np.ndarray, g: np.ndarray) -> np.ndarray:
    """By how much the first step moves a weight, over -lr."""
    moved, _, _ = step(rule, 1, 1, w, g, rule.init(NUMPY, w), dict(rule.shared))
    return (w - moved) / rule.lr


@pytest.mark.parametrize(
    ("rule", "scale"),
    [
        (rules.Muon, lambda rows, cols: max(1, rows / cols) ** 0.5),
        (rules.MuonMatched, lambda rows, cols: 0.2 * max(rows, cols) ** 0.5),
        (rules.MuonSpectral, lambda rows, cols: (rows / cols) ** 0.5),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (1, 6), (6, 1), (5, 5)])
def test_each_scale_is_that_of_its_source(rule, scale, shape: tuple[int, int]) -> None:
    w, g = matrix(shape), matrix(shape, 1)
    u = first_step(rule(coefficients="polar_express", steps=12, weight_decay=0.0), w, g)
    values = np.linalg.svd(u, compute_uv=False)
    np.testing.assert_allclose(values, scale(*shape), rtol=1e-6)  # eps = 1e-7 in the norm


@pytest.mark.parametrize("rule", ORTHOGONAL, ids=lambda rule: rule.__name__)
def test_a_convolution_is_a_matrix_before_anything_else(rule) -> None:
    w, g = matrix((8, 3, 3, 3)), matrix((8, 3, 3, 3), 1)
    flat = first_step(rule(), w.reshape(8, 27), g.reshape(8, 27))
    np.testing.assert_array_equal(first_step(rule(), w, g).reshape(8, 27), flat)


@pytest.mark.parametrize("rule", ORTHOGONAL, ids=lambda rule: rule.__name__)
def test_leading_axes_may_count_matrices(rule) -> None:
    w, g = matrix((3, 4, 6)), matrix((3, 4, 6), 1)
    together = first_step(rule(batch_axes=1), w, g)
    alone = np.stack([first_step(rule(), w[i], g[i]) for i in range(3)])
    np.testing.assert_allclose(together, alone, rtol=0, atol=100 * EPS * slope(5, "jordan"))


@pytest.mark.parametrize("rule", [rules.NorMuon, rules.AdaMuon, rules.MuonMatched])
@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (30, 30)])
def test_matched_steps_are_as_long_as_adams(rule, shape: tuple[int, int]) -> None:
    """Root mean square 0.2; exactly where the rule divides by the norm, nearly where it trusts the values."""
    chosen = rule(weight_decay=0.0, coefficients="polar_express", steps=10)
    u = first_step(chosen, matrix(shape), matrix(shape, 1))
    assert np.sqrt((u * u).mean()) == pytest.approx(0.2, rel=1e-5)


def test_what_muon_comes_near_is_spectral_descent() -> None:
    w, g = matrix((6, 6)), matrix((6, 6), 1)
    muon = rules.Muon(nesterov=False, coefficients="polar_express", steps=20, eps=0.0)
    exact = first_step(rules.SpectralDescent(), w, g)
    np.testing.assert_allclose(first_step(muon, w, g), exact, rtol=0, atol=1e-9)
    np.testing.assert_allclose(exact @ exact.T, np.eye(6), rtol=0, atol=100 * EPS)


def test_spectral_descent_leaves_out_what_a_matrix_has_not() -> None:
    g = np.outer(np.arange(1.0, 5), np.ones(3))
    u = first_step(rules.SpectralDescent(), np.zeros((4, 3)), g)
    np.testing.assert_allclose(np.linalg.svd(u, compute_uv=False), [1, 0, 0], rtol=0, atol=100 * EPS)


@pytest.mark.parametrize(
    "rule", [*ORTHOGONAL, rules.Dion, rules.KLShampoo, rules.GaLore, rules.Fira, rules.Apollo]
)
def test_a_vector_is_refused_by_name_of_what_splits(rule) -> None:
    assert not rule().takes((5,))
    with pytest.raises(UserError, match=r"moves matrices.*\(5,\).*steepest\.torch\.optimizer"):
        rule().init(NUMPY, np.zeros(5))


def test_an_axis_too_few_for_a_batch_is_refused() -> None:
    assert rules.Muon(batch_axes=1).takes((2, 3, 4))
    assert not rules.Muon(batch_axes=1).takes((3, 4))


@pytest.mark.parametrize("rule", [*MUONS, rules.NorMuon, rules.AdaMuon], ids=lambda rule: rule.__name__)
def test_unknown_coefficients_are_refused(rule) -> None:
    with pytest.raises(UserError, match=rf"{rule.__name__}'s coefficients cannot be 'jordans'.*'jordan'"):
        rule(coefficients="jordans")


def test_dion_finds_the_first_singular_vectors_of_a_steady_gradient() -> None:
    """With all of its rank every singular value is 1, as in Muon; with less, as many as there is rank."""
    g = matrix((6, 9))
    u, _, vh = np.linalg.svd(g, full_matrices=False)
    for rank, expected in ((6, u @ vh), (2, u[:, :2] @ vh[:2])):
        rule = rules.Dion(rank=rank, weight_decay=0.0, momentum=0.0, eps=0.0)
        w, slots = np.zeros((6, 9)), rule.init(NUMPY, np.zeros((6, 9)))
        for t in range(1, 200):
            before = w
            w, (_, q), _ = step(rule, t, t, w, g, (np.zeros((6, 9)), slots[1]), {})
            slots = (None, q)
        moved = (before - w) / rule.lr / np.sqrt(6 / 9)
        np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-6)


def test_what_dion_leaves_out_is_kept_for_later() -> None:
    rule, g = rules.Dion(rank=1, momentum=0.5), matrix((5, 4))
    _, (m, _), _ = step(rule, 1, 1, np.zeros((5, 4)), g, rule.init(NUMPY, np.zeros((5, 4))), {})
    taken = g - m
    assert np.linalg.matrix_rank(taken) == 1
    u, _, _ = np.linalg.svd(taken)
    along = u[:, :1] @ (u[:, :1].T @ g)
    np.testing.assert_allclose(taken, 0.5 * along, rtol=0, atol=100 * EPS)
