"""A tuned run that is broken off goes on to the identical bits: weights, hyperparameters, open windows."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from each import each
from steepest import rules
from steepest.optim.errors import UserError
from steepest.torch import Dial, hypertune, loop, optimizer
from steepest.train.loop import Loop

X = torch.randn(96, 5, generator=torch.Generator().manual_seed(0))
Y = (X[:, :1] > 0).float()
STEPS = 60


class Tuned:
    """A net, its optimizer and its tuner, which looks so seldom."""

    def __init__(self, tunes: bool = True, every: int = 3) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Dropout(0.2), nn.Linear(7, 1))
        self.dial = Dial("smoothing", 0.1, high=1.0)
        groups = {"3*": rules.AdamW(lr=0.01)}
        self.opt = optimizer(self.net, rules.AdamW(lr=0.01, weight_decay=0.1), groups)
        self.tuner = self._tuner(every) if tunes else None

    def _tuner(self, every: int) -> Any:
        what = ("lr", "lr_scale", "beta1", "weight_decay", self.dial)
        pace = {"window": 20, "every": every, "validate_every": 2}
        return hypertune(self.net, self.opt, *what, validation=self.held_out, training=self.held_out, **pace)

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        soft = y * (1 - self.dial.value) + 0.5 * self.dial.value
        return nn.functional.binary_cross_entropy_with_logits(self.net(x), soft)

    def held_out(self, n: int) -> torch.Tensor:
        at = torch.arange(16) + 16 * (n % 6)
        return self.loss(X[at], Y[at])

    def bits(self) -> list[torch.Tensor]:
        entries = [
            value for group in self.opt.param_groups for key, value in group.items() if key != "params"
        ]
        numbers = [x for value in entries for x in (value if isinstance(value, tuple) else (value,))]
        known = [x for x in numbers if isinstance(x, float)]
        found = [
            *self.net.state_dict().values(),
            torch.tensor([*known, self.dial.value], dtype=torch.float64),
        ]
        return [x.clone() for x in found]


def run(tuned: Tuned, out: Path | None, stop: int | None = None) -> None:
    def on_step(steps: Loop) -> None:
        if steps.done == stop:
            raise KeyboardInterrupt

    settings: dict[str, Any] = {"out": out, "budget": f"{STEPS} steps", "batch_size": 16, "on_step": on_step}
    with loop(tuned.net, tuned.opt, (X, Y), save_every="1 step", **settings) as steps:
        for x, y in steps:
            steps.step(tuned.loss(x, y))


@cache
def whole(every: int) -> Tuned:
    tuned = Tuned(every=every)
    run(tuned, None)
    return tuned


@each(("every", "stop"), [(3, 21), (1, 1), (1, 23), (3, 23), (3, 20), (3, 22), (3, 40), (4, 41)], push=3)
def test_a_tuned_loop_goes_on_to_the_identical_bits(tmp_path: Path, every: int, stop: int) -> None:
    """Broken off at a decision, at a look, between the look and its sample, and between looks."""
    with pytest.raises(KeyboardInterrupt):
        run(Tuned(every=every), tmp_path, stop)
    again, wanted = Tuned(every=every), whole(every)
    run(again, tmp_path)
    assert wanted.tuner.history
    assert {row["name"] for row in wanted.tuner.history} >= {"weight_decay"}
    assert again.tuner.history == wanted.tuner.history
    assert all(map(torch.equal, again.bits(), wanted.bits()))


def test_a_tuner_that_is_left_out_at_resuming_is_missed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Tuned(), tmp_path, 5)
    with pytest.raises(UserError, match=r"carries \['Tuner 1'\]; got \[\]"):
        run(Tuned(tunes=False), tmp_path)


def by_hand(tuned: Tuned, first: int, last: int) -> None:
    for n in range(first, last):
        at = torch.arange(16) + 16 * (n % 6)
        torch.manual_seed(n)
        tuned.opt.zero_grad()
        tuned.loss(X[at], Y[at]).backward()
        tuned.opt.step()


def test_in_a_loop_of_ones_own_state_dicts_do_it(tmp_path: Path) -> None:
    wanted, broken, again = Tuned(), Tuned(), Tuned()
    by_hand(wanted, 0, STEPS)
    by_hand(broken, 0, 23)
    parts = {"net": broken.net, "opt": broken.opt, "tuner": broken.tuner}
    torch.save({name: one.state_dict() for name, one in parts.items()}, tmp_path / "state")
    kept = torch.load(tmp_path / "state", weights_only=True)
    for name, one in {"net": again.net, "opt": again.opt, "tuner": again.tuner}.items():
        one.load_state_dict(kept[name])
    by_hand(again, 23, STEPS)
    assert again.tuner.history == wanted.tuner.history != []
    assert all(map(torch.equal, again.bits(), wanted.bits()))
