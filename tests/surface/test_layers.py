"""The floors of the house: imports point down only, and frameworks stay where they belong."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "steepest"

FLOORS = [
    {"batch", "errors", "maths", "noise"},
    {"evidence", "folder", "quantity", "recipe", "statistics"},
    {"rule", "report"},
    {"wrap"},
    {"rules", "gradient", "group", "schedule"},
    {"engine"},
    {"data", "models"},
    {"train"},
    {"choose", "program"},
    {"run"},
    {"torch", "keras", "optax", "comparison"},
    {"verbs"},
    {"cli"},
    {"__main__"},
]
"""From the ground up. A room may import from itself and from floors below its own, never from a neighbour."""

GROUND = {"batch", "errors", "maths", "noise", "evidence", "folder", "quantity"}
"""Rooms whose files may import from each other, as long as no circle arises."""

TRAINING = {
    "torch",
    "numba",
    "numpy",
    "sklearn",
    "polars",
    "pandas",
    "safetensors",
    "scipy",
    "pyarrow",
    "llvmlite",
}

FOREIGN = {
    "recipe": {"pydantic", "pydantic_core"},
    "statistics": {"numpy", "scipy"},
    "engine": TRAINING,
    "data": TRAINING | {"PIL"},
    "models": TRAINING,
    "train": TRAINING | {"rich"},
    "choose": TRAINING | {"optuna"},
    "program": {"torch"},
    "run": TRAINING,
    "torch": {"torch"},
    "keras": {"keras"},
    "optax": {"jax", "optax"},
    "comparison": {"numpy", "polars", "rich", "scipy"},
    "report": {"numpy", "matplotlib"},
    "verbs": TRAINING | {"rich"},
    "cli": {"typer", "rich", "click"},
}
"""What each room may import besides Python's own library; a room that is not named may import nothing."""

OPTIONAL = {
    "jax": {"jax/leaves.py", "jax/of_tree.py", "on_jax.py", "on_keras.py"},
    "keras": {"keras/gradients.py", "keras/optimizer.py", "keras/part.py", "on_keras.py"},
    "tensorflow": {"keras/optimizer.py", "on_keras.py"},
}
"""Frameworks that may be absent, and the files of the engine that import them."""


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def modules_of(path: Path) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of all that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: write the whole name of the module"
            if node.module == "steepest":
                yield from ((f"steepest.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield str(node.module), node.lineno


FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}


def identity(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def test_every_file_stands_on_a_floor() -> None:
    assert {room_of(path) for path in FILES} <= set(HEIGHT)


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_arrows_point_down(path: Path) -> None:
    room = room_of(path)
    for module, line in modules_of(path):
        if module.partition(".")[0] != "steepest":
            continue
        other = module.split(".")[1]
        near = other == room or {room, other} <= GROUND
        assert near or HEIGHT[other] < HEIGHT[room], f"{path}:{line}: {room} must not import {other}"


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_frameworks_stay_where_they_belong(path: Path) -> None:
    allowed = FOREIGN.get(room_of(path), set())
    if room_of(path) == "engine":
        file = path.relative_to(SOURCE / "engine").as_posix()
        allowed = allowed | {framework for framework, files in OPTIONAL.items() if file in files}
    for module, line in modules_of(path):
        package = module.partition(".")[0]
        own = package == "steepest" or package in sys.stdlib_module_names
        assert own or package in allowed, f"{path}:{line}: {room_of(path)} must not import {package}"
