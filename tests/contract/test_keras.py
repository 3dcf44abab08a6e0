"""Rules as Keras optimizers, under each backend: one process each, for Keras chooses when it is imported."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BACKENDS = ["jax", *(pytest.param(name, marks=pytest.mark.full) for name in ("tensorflow", "torch"))]
"""JAX at every push: it traces all and writes nothing in place, so it refuses what others let pass."""
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run(*arguments: str, **environment: str) -> str:
    """What a fresh interpreter prints; fails the test where it fails."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | QUIET | environment,
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout[-20_000:]}\n{done.stderr[-5_000:]}"
    return done.stdout


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_face_under_a_backend(backend: str) -> None:
    for package in ("keras", backend):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    found = run(
        "-m",
        "pytest",
        "-q",
        "-n0",
        "-p",
        "no:cacheprovider",
        str(HERE / "keras_face.py"),
        KERAS_BACKEND=backend,
    )
    assert " passed" in found
    assert "skipped" not in found


@pytest.mark.parametrize(("absent", "backend"), [("keras", "jax"), ("tensorflow", "tensorflow")])
def test_without_keras_or_its_backend_the_error_says_what_to_do(absent: str, backend: str) -> None:
    program = f"""
import sys
sys.modules[{absent!r}] = None
try:
    import steepest.keras
except ImportError as error:
    assert "pip install 'steepest[keras]'" in str(error), error
    assert "KERAS_BACKEND" in str(error) and error.exit_code == 2
else:
    raise AssertionError("imported")
"""
    run("-c", program, KERAS_BACKEND=backend)
