"""What the faces say, and that the others work, where optional packages are not there."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
face, *absent = sys.argv[1:]
sys.modules.update(dict.fromkeys(absent))
try:
    module = __import__(f"steepest.{face}", fromlist=["it"])
except ImportError as error:
    print(type(error).__name__, error)
else:
    import torch
    weight = torch.nn.Parameter(torch.ones(3))
    opt = module.AdamW([weight])
    weight.grad = torch.ones(3)
    opt.step()
    print("moved", bool((weight < 1).all()))
"""


def said(face: str, *absent: str) -> str:
    done = subprocess.run([sys.executable, "-c", PROGRAM, face, *absent], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("face", "absent", "command"),
    [
        ("keras", "keras", "pip install 'steepest[keras]'"),
        ("optax", "optax", "pip install 'steepest[jax]'"),
        ("optax", "jax", "pip install 'steepest[jax]'"),
    ],
)
def test_the_command_that_installs_it_is_named(face: str, absent: str, command: str) -> None:
    sentence = said(face, absent)
    assert sentence.startswith("MissingExtra")
    assert command in sentence


def test_torch_needs_none_of_them() -> None:
    assert said("torch", "keras", "jax", "optax", "tensorflow") == "moved True"


def test_what_is_required_is_named_where_it_is_gone() -> None:
    assert "numba" in said("torch", "numba")
