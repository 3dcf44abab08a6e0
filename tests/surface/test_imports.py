"""What an import costs and what it brings in."""

import importlib
import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

HEAVY = {
    "torch",
    "numpy",
    "numba",
    "pydantic",
    "pydantic_core",
    "rich",
    "typer",
    "sklearn",
    "scipy",
    "polars",
    "pandas",
}
HEAVY |= {"matplotlib", "safetensors", "jax", "optax", "keras", "tensorflow"}

LIGHT = [
    "optim.rule",
    "optim.maths",
    "optim.errors",
    "evidence",
    "files",
    "rules",
    "optim.clipping",
    "optim.groups",
    "schedule",
]

IMPORT_ALL = """
import importlib, pkgutil
import steepest as st
for module in pkgutil.walk_packages(st.__path__, "steepest."):
    if module.name != "steepest.__main__":
        importlib.import_module(module.name)
assert callable(st.fit) and callable(st.resume), (st.fit, st.resume)
assert isinstance(st.Run, type) and isinstance(st.Recipe, type)
"""


FACES = {
    "torch": {"jax", "optax", "keras", "tensorflow"},
    "optax": {"torch", "numba", "keras", "tensorflow"},
    "keras": {"torch", "numba", "optax", "tensorflow"},
}
"""Each face, and the frameworks of the others. Keras has JAX for a backend here."""


def run(program: str, *flags: str) -> str:
    """What a fresh interpreter prints; fails the test where it fails."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", program],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def heavy_modules_after(statement: str) -> set[str]:
    return HEAVY & set(
        json.loads(run(f"{statement}; import json, sys; print(json.dumps(list(sys.modules)))"))
    )


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert heavy_modules_after("import steepest; dir(steepest); steepest.__version__") == set()


@pytest.mark.parametrize("name", LIGHT)
def test_the_ground_floors_import_no_framework(name: str) -> None:
    assert heavy_modules_after(f"import steepest.{name}") == set()


@pytest.mark.parametrize("face", FACES)
def test_a_face_brings_in_no_other_framework(face: str) -> None:
    if find_spec(face) is None:
        pytest.skip(f"{face} is not installed")
    assert heavy_modules_after(f"import steepest.{face}") & FACES[face] == set()


def test_the_command_line_starts_without_a_framework() -> None:
    assert heavy_modules_after("import steepest.commands.cli") <= {"typer", "rich"}


def test_importing_the_package_takes_under_a_tenth_of_a_second() -> None:
    """Of its processor's time: on the wall it takes as long as others let it."""
    program = "import time; began = time.process_time(); import steepest; print(time.process_time() - began)"
    assert min(float(run(program)) for _ in range(5)) <= 0.1


@pytest.mark.skipif(not all(map(find_spec, ("optax", "keras"))), reason="optax or Keras is not installed")
def test_every_module_imports_and_no_module_hides_a_public_function() -> None:
    run(IMPORT_ALL, "-W", "error")


PATHS = """
import sys
import steepest.rules.adam, steepest.optim.rules.adam, steepest.wrap.making, steepest.optim.wrappers.making
from steepest.batch import BatchPolicy
from steepest.schedule import Constant
for old, new in (("rules.adam", "rules.adam"), ("wrap.making", "wrappers.making")):
    assert sys.modules[f"steepest.{old}"] is sys.modules[f"steepest.optim.{new}"]
print(steepest.rules.__spec__.name, Constant.__module__)
"""


def test_public_paths_of_modules_are_the_modules_themselves() -> None:
    assert run(PATHS, "-W", "error").split() == ["steepest.optim.rules", "steepest.optim.schedule"]


@pytest.mark.parametrize("old", ["rule", "errors", "maths", "quantity", "gradient", "group"])
def test_a_path_that_has_moved_works_for_a_version_and_names_the_new_one(old: str) -> None:
    sys.modules.pop(f"steepest.{old}", None)
    with pytest.warns(FutureWarning, match=rf"steepest\.{old} is now steepest\.optim\.\w+"):
        importlib.import_module(f"steepest.{old}")
