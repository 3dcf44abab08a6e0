"""`check_rule`, which people run on rules of their own: all of the project's pass; each fault is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from steepest import rules
from steepest.optim.quantity import Quantity
from steepest.optim.rule import Number, Rule
from steepest.testing import check_rule


@dataclass(frozen=True)
class Mine(Rule):
    """Momentum of the sign.   m ← βm + (1-β)·sign(g)   w ← w - lr·m"""

    lr: Number = 0.1
    kept: Number = 0.9

    slots = ("m",)
    quantities = {"kept": Quantity("the share of m that is kept", "per step", high=1)}  # noqa: RUF012

    def scalars(self, xp: Any, t: Any, **shared: Any) -> dict[str, Any]:
        return {"rest": 1 - self.kept}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any) -> tuple[Any, ...]:
        m = k.kept * m + k.rest * xp.sign(g)
        return m, m


def by_hand(weights: list[np.ndarray], gradients: list[list[np.ndarray]]) -> Sequence[Sequence[np.ndarray]]:
    path, m = [], [np.zeros_like(w) for w in weights]
    for step in gradients:
        m = [0.9 * old + 0.1 * np.sign(g) for old, g in zip(m, step, strict=True)]
        weights = [w - 0.1 * own for w, own in zip(weights, m, strict=True)]
        path.append(weights)
    return path


def test_every_rule_of_the_project_passes() -> None:
    failed = {}
    for kind in rules.RULES:
        try:
            check_rule(kind, engines=("torch",))  # kernels and JAX: test_engine_agrees, test_optax
        except AssertionError as error:
            failed[kind.__name__] = str(error)
    assert not failed


def test_a_rule_of_ones_own_passes_in_every_engine_and_follows_its_oracle() -> None:
    check_rule(Mine, oracle=by_hand)


def changed(**body: Any) -> type[Rule]:
    return dataclass(frozen=True)(
        type("Changed", (Mine,), {"__doc__": "A rule.", "__annotations__": {}} | body)
    )


def written_into(xp: Any, k: Any, w: Any, g: Any, m: Any) -> tuple[Any, ...]:
    if isinstance(m, np.ndarray):
        m += 1
    return m, m


def by_time(xp: Any, k: Any, w: Any, g: Any, m: Any) -> tuple[Any, ...]:
    SEEN.append(0)
    return g + len(SEEN), m


SEEN: list[int] = []


def beyond(xp: Any, k: Any, w: Any, g: Any, m: Any) -> tuple[Any, ...]:
    return xp.cumsum(g) if hasattr(xp, "cumsum") else g, m


def infinite(xp: Any, k: Any, w: Any, g: Any, m: Any) -> tuple[Any, ...]:
    return g / g, m


def other_arguments(xp: Any, k: Any, w: Any, g: Any, v: Any) -> tuple[Any, ...]:
    return g, v


FAULTS: list[tuple[Any, str]] = [
    (int, "must be a subclass of Rule"),
    (type("Bare", (Mine,), {}), "must be a dataclass of its own"),
    (changed(__doc__=None), "has no docstring"),
    (changed(quantities={}), "nobody says what 'kept' means"),
    (changed(signed=("n",)), "which are no slots"),
    (changed(direction=staticmethod(other_arguments)), "and is called with"),
    (changed(direction=staticmethod(written_into)), "write to the arrays"),
    (changed(direction=staticmethod(by_time)), "the same step twice is not the same"),
    (changed(direction=staticmethod(beyond)), "no kernel can be made of it"),
    (changed(direction=staticmethod(infinite)), "gradients of about 0 make weights that are not finite"),
]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_fault_is_named() -> None:
    missed = {}
    for kind, told in FAULTS:
        with pytest.raises(AssertionError) as error:
            check_rule(kind, engines=())
        if told not in str(error.value):
            missed[told] = str(error.value)
    assert not missed


def test_another_path_than_the_oracles_is_told() -> None:
    with pytest.raises(AssertionError, match=r"after 1 steps the rule is .* from the oracle"):
        check_rule(Mine, oracle=by_hand, engines=(), kept=0.8)
