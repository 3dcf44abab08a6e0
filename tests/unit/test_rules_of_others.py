"""Rules that other packages bring, found by name through entry points."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import steepest.torch
from steepest import UserError, rules
from steepest.commands.show_rules import listing

TOY = """
from dataclasses import dataclass
from steepest.optim.rule import Number, Rule

@dataclass(frozen=True)
class HalfStep(Rule):
    '''Half of a step of gradient descent.   w ← w - lr·g/2'''

    lr: Number = 0.5

    @staticmethod
    def direction(xp, k, w, g):
        return (0.5 * g,)

three = 3
"""

ENTRIES = """[steepest.rules]
half_step = toy_rules:HalfStep
gone = toy_rules:Gone
three = toy_rules:three
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of another's that brings one rule, one that cannot be imported, and one that is none."""
    (tmp_path / "toy_rules.py").write_text(TOY)
    info = tmp_path / "toy_rules-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-rules\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(rules, "_NAMES", {})
    return tmp_path


def test_a_rule_of_another_package_is_found_by_name_and_moves_weights(toy: Path) -> None:
    rule = rules.named("half_step", lr=1.0)
    assert rules.name_of(rule) == "halfstep"
    assert rules.named(rules.name_of(rule), lr=1.0) == rule
    assert rules.repeats(rule)
    net = torch.nn.Linear(2, 1)
    before = net.weight.detach().clone()
    optimizer = steepest.torch.optimizer(net, "cautious+half_step")
    net(torch.ones(2)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, net.weight)


def test_what_is_wrong_with_it_is_told_when_it_is_asked_for(toy: Path) -> None:
    with pytest.raises(UserError, match=r"'gone' .* \(package toy-rules\) cannot be imported"):
        rules.named("gone")
    with pytest.raises(UserError, match="'three' of another package must be a class of rules, got 3"):
        rules.named("three")
    with pytest.raises(UserError, match=r"no update rule 'halfstap'. Did you mean 'halfstep'"):
        rules.named("halfstap")
    assert rules.named("adamw") == rules.AdamW()


def test_they_are_listed(toy: Path) -> None:
    lines = [line for line in listing() if line.startswith(("half_step", "gone"))]
    assert any("Half of a step of gradient descent." in line for line in lines)
    assert any("cannot be imported" in line for line in lines)


def test_nothing_is_looked_for_where_names_are_known() -> None:
    program = (
        "import importlib.metadata as m\n"
        "def none(*a, **k): raise RuntimeError('looked for')\n"
        "m.entry_points = none\n"
        "import steepest\n"
        "from steepest import rules\n"
        "rules.named('lookahead+adamw'); rules.name_of(rules.SGD())\n"
        "print('done')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "done", done.stderr
