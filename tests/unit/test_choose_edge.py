"""The edge of divergence: on a quadratic it is 2/λ, and a curve that never leaves gives a bound only."""

import math
from typing import Any

import numpy as np
import pytest

from steepest.optim.lr_finder import Edge, edge, read_off
from steepest.tuning import range_test as room
from steepest.tuning.candidates import Candidate


def descent(curvatures: list[float], noise: float = 0.0, seed: int = 0):
    """A step of gradient descent on ½Σλw², and the loss before it."""
    held = {"w": np.ones(len(curvatures))}
    chance = np.random.default_rng(seed)
    own = np.asarray(curvatures)

    def step(rate: float) -> float:
        w = held["w"]
        with np.errstate(over="ignore", invalid="ignore"):
            loss = float(0.5 * (own * w**2).sum())
            held["w"] = w - rate * (own * w + noise * chance.normal(size=len(w)))
        return loss

    return step


@pytest.mark.parametrize("largest", [0.1, 1.0, 50.0, 1e4])
def test_the_edge_of_a_quadratic_is_two_over_its_curvature(largest: float) -> None:
    found = edge(descent([largest, largest / 7, largest / 30, largest / 200]), start=1e-6, most=1e4)
    assert found.diverged
    assert found.fell
    # The loss falls on while the steepest direction grows back from nearly nothing: ten steps at most.
    assert 2 / largest / 1.15 < found.rate < 2 / largest * 1.15**10


@pytest.mark.parametrize("seed", range(5))
def test_noise_does_not_move_it_far(seed: int) -> None:
    found = edge(descent([10.0, 3.0, 1.0, 0.3], noise=0.3, seed=seed), start=1e-5, most=100)
    assert found.diverged
    assert 0.02 < found.rate < 0.6


def test_a_coarse_ramp_finds_the_same_decade() -> None:
    found = edge(descent([10.0, 3.0, 1.0, 0.3]), start=1e-5, growth=2.0, most=100)
    assert 0.1 / 4 < found.rate < 0.2 * 4


def test_a_loss_that_never_leaves_gives_the_last_rate_as_a_bound() -> None:
    found = edge(lambda rate: 1.0, start=1e-3, growth=2.0, most=1.0)
    assert not found.diverged
    assert not found.fell
    assert 0.5 <= found.rate <= 1.0
    assert "did not leave" in found.why


def test_a_loss_that_is_not_finite_ends_the_ramp() -> None:
    losses = iter([1.0, 0.9, 0.8, 0.5, 0.4, math.nan, 0.1])
    found = edge(lambda rate: next(losses), start=1.0, growth=2.0, most=1e6)
    assert found.diverged
    assert len(found.losses) == 6
    assert found.rate == 8.0  # the last rate of which a lower loss was seen


def test_one_hard_batch_is_no_divergence() -> None:
    losses = [1.0, 1.01, 0.99, 1.0, 1.02, 0.9, 5.0, 0.8, 0.7, 0.6]
    found = read_off([2.0**k for k in range(10)], losses)
    assert not found.diverged


def test_the_suggestion_keeps_a_distance() -> None:
    found = edge(descent([1.0, 0.1]), start=1e-4, most=100)
    assert found.suggestion < found.rate / 2


@pytest.mark.parametrize(("left", "rate"), [(False, 0.1), (True, 1e-6)])
def test_an_edge_that_was_seen_stands_unless_lower_rates_leave_too(
    left: bool, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of labels by chance no rate lowers the loss, and high ones raise it."""
    seen = iter([Edge(0.1, True, False, (), (), "stayed"), Edge(1e-6, left, False, (), (), "lower")])
    monkeypatch.setattr(room, "_once", lambda *_: (next(seen), 7.0))
    found = room.range_test(Any, Candidate("adamw", 1e-3), 12, lambda: None)  # type: ignore[arg-type]
    assert (found["rate"], found["gradients"]) == (rate, 14)
