"""SIGKILL at random instants, and resumed: the identical bits."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill.py"


@pytest.fixture(scope="module")
def killing():
    spec = importlib.util.spec_from_file_location("kill", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_run_killed_at_random_instants_ends_as_one_left_alone(killing, tmp_path):
    _, _, differ = killing.survive(kills=5, steps=60, seed=3, place=tmp_path)
    assert differ == []


def test_the_comparison_sees_a_difference(killing, tmp_path):
    killing.left_alone(tmp_path / "a", 8)
    killing.left_alone(tmp_path / "b", 15)
    assert {"step", "numbers", "rows"} <= set(killing.compare(tmp_path / "a", tmp_path / "b"))
