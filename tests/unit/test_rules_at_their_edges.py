"""Single rules where trajectories do not go: first steps, steps between estimates, extreme numbers."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from steepest import rules
from steepest.optim.engines import on_numpy
from steepest.optim.maths import HOST
from steepest.optim.rule import Rule

EPS = np.finfo(np.float64).eps
W = np.array([0.5, -1.0, 2.0])
G = np.array([0.3, -0.2, 0.1])


def after(
    rule: Rule, gradients: Any, reads: Any = None, w: Any = W
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """(weights, slots) after a step for each gradient."""
    slots, shared = rule.init(on_numpy.NUMPY, w), dict(rule.shared)
    for t, g in enumerate(gradients, start=1):
        beside = () if reads is None else (reads[t - 1],)
        w, slots, shared = on_numpy.step(rule, t, t, w, g, slots, shared, beside)
    return w, slots


def test_mars_takes_the_first_gradient_as_it_is() -> None:
    """Its algorithm starts from x₁ = x₀: there is no difference yet."""
    numbers = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 0.1, "weight_decay": 0.1}
    first, _ = after(rules.MARS(**numbers, gamma=0.5), [G])
    assert first == pytest.approx(after(rules.AdamW(**numbers), [G])[0], rel=10 * EPS)


def test_mars_shortens_what_is_longer_than_one() -> None:
    _, (m, _, p) = after(rules.MARS(beta1=0.0), [100 * G])
    assert np.linalg.norm(m) == pytest.approx(1, rel=10 * EPS)
    assert np.array_equal(p, 100 * G)


def test_curvature_is_read_when_it_is_due_alone() -> None:
    nothing = np.full(3, np.nan)
    for rule in (rules.SophiaG(every=3), rules.SophiaH(every=3), rules.AdaHessian(every=3)):
        w, slots = after(rule, [G] * 5, [W**2, nothing, nothing, W**2, nothing])
        assert np.isfinite([w, *slots]).all()


@pytest.mark.parametrize("steps", [1, 3, 4, 10])
def test_adahessian_debiases_by_the_estimates_so_far(steps: int) -> None:
    """A curvature that stays is the denominator at once."""
    rule = rules.AdaHessian(lr=1.0, every=3, eps=0.0)
    w, _ = after(rule, [G] * steps, [W] * steps)
    assert w == pytest.approx(W - steps * G / np.abs(W), rel=100 * EPS)


def test_sophia_steps_by_the_sign_where_there_is_no_curvature_or_a_negative_one() -> None:
    for rule, d in ((rules.SophiaG(weight_decay=0), 0 * W), (rules.SophiaH(weight_decay=0), -(W**2))):
        w, _ = after(rule, [G], [d])
        assert w == pytest.approx(W - rule.lr * np.sign(G), rel=10 * EPS)


@pytest.mark.parametrize("beta2", [0.0, 1 / 3, 0.5, 0.6, 2 / 3])
def test_radam_with_a_short_memory_is_never_rectified(beta2: float) -> None:
    for rule in (rules.RAdam(beta2=beta2), rules.RAdamHat(beta2=min(beta2, 0.66)), rules.RAdamW(beta2=beta2)):
        assert {rule.constants(HOST, t, {})[0].rectified for t in range(1, 50)} == {0.0}


def test_radam_is_rectified_from_step_six_on_by_default() -> None:
    rectified = [rules.RAdam().constants(HOST, t, {})[0].rectified for t in range(1, 8)]
    assert [value > 0 for value in rectified] == [False] * 5 + [True] * 2


def test_adopt_looks_at_the_first_gradient_and_stays() -> None:
    w, (m, v) = after(rules.ADOPT(weight_decay=0.5), [G])
    assert np.array_equal(w, W)
    assert not m.any()
    assert np.array_equal(v, G * G)


def test_ademamix_reaches_its_slow_mean_when_it_is_warm() -> None:
    rule = rules.AdEMAMix(warmup=10)
    shares = [rule.constants(HOST, t, {})[0] for t in range(1, 12)]
    assert all(a.c3 > b.c3 and a.mix < b.mix for a, b in pairwise(shares[:10]))
    assert [k.mix for k in shares[9:]] == [rule.mix] * 2
    assert [k.c3 for k in shares[9:]] == [1 - rule.beta3] * 2


def test_half_the_warm_up_of_ademamix_is_half_the_half_life() -> None:
    rule = rules.AdEMAMix(beta1=0.5, beta3=0.5**0.01, warmup=10)
    assert 1 - rule.constants(HOST, 5, {})[0].c3 == pytest.approx(0.5 ** (1 / 50.5), rel=10 * EPS)


@pytest.mark.parametrize("rule", [rules.DAdaptAdam, rules.HypergradientAdam], ids=lambda rule: rule.__name__)
def test_sums_over_moments_that_are_still_zero_are_zero(rule: type[Rule]) -> None:
    """Without ε too: there was no direction before the first."""
    w, _ = after(rule(eps=0.0), [G, -2 * G, 3 * G])
    assert np.isfinite(w).all()


def test_ftrl_makes_weights_exactly_zero() -> None:
    w, _ = after(rules.FTRL(lr=0.1, l1=0.25), [G], w=np.zeros(3))
    assert (w != 0).tolist() == [True, False, False]


def test_the_shrinkage_of_ftrl_pulls_without_being_counted_as_a_gradient() -> None:
    """As if the gradient of l2_shrinkage·w² were added, but for the sum of squares and the rates by it."""
    w, plain = np.array([2.0, -1.0, 0.5]), rules.FTRL(lr=0.1)
    _, (z, n) = after(plain, [G], w=w)
    _, (pulled, same) = after(rules.FTRL(lr=0.1, l2_shrinkage=0.25), [G], w=w)
    assert pulled - z == pytest.approx(0.5 * w, rel=100 * EPS)
    assert np.array_equal(same, n)


def test_a_new_rate_does_not_stretch_the_weights_of_ftrl() -> None:
    """From 0 and without l1, l2, it is Adagrad; the rate may fall to nothing and rise again."""
    rates = [0.1, 0.2, 0.05, 0.0, 0.3]
    follow = rules.FTRL(lr=lambda step: rates[step - 1], beta=0.5)
    adagrad = rules.Adagrad(lr=follow.lr, eps=0.5, initial=0.1)
    gradients = [G, -2 * G, 3 * G, 0 * G, G]
    found, _ = after(follow, gradients, w=np.zeros(3))
    assert found == pytest.approx(after(adagrad, gradients, w=np.zeros(3))[0], rel=100 * EPS)


def test_rprop_sees_a_sign_in_gradients_too_small_to_multiply() -> None:
    _, (_, grown) = after(rules.Rprop(), [1e-200 * G, 1e-200 * G])
    assert grown == pytest.approx(1.2 * 0.01, rel=10 * EPS)


def test_velocity_in_units_of_weights_and_of_gradients_differ_under_a_schedule_alone() -> None:
    for tf, torchs in ((rules.MomentumTF(), rules.Momentum()), (rules.NesterovTF(), rules.Nesterov())):
        constant = [after(replace(rule, lr=0.1), [G] * 5)[0] for rule in (tf, torchs)]
        falling = [after(replace(rule, lr=lambda step: 0.1 / step), [G] * 5)[0] for rule in (tf, torchs)]
        assert constant[0] == pytest.approx(constant[1], rel=10 * EPS)
        assert np.abs(falling[0] - falling[1]).min() > 0.01


def test_stable_adamw_shortens_the_steps_of_a_weight_whose_gradients_jump() -> None:
    calm, _ = after(rules.StableAdamW(weight_decay=0), [G] * 20)
    jump = [G] * 20 + [100 * G]
    shortened, _ = after(rules.StableAdamW(weight_decay=0), jump)
    full, _ = after(rules.AdamW(weight_decay=0, beta2=0.99), jump)
    assert np.abs(shortened - calm).max() < 0.5 * np.abs(full - calm).min()


def test_novograd_divides_by_the_norm_of_the_first_gradient() -> None:
    w, (m,) = after(rules.NovoGrad(eps=0.0), [G])
    assert np.linalg.norm(m) == pytest.approx(1, rel=10 * EPS)
    assert w == pytest.approx(W - 0.01 * G / np.linalg.norm(G), rel=10 * EPS)
