"""The floors of the house: imports point down only, and frameworks stay where they belong."""

import ast
import sys
from collections.abc import Container, Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "steepest"

FLOORS = [
    {"optim"},
    {"evidence", "files", "recipe", "world"},
    {"report"},
    {"data"},
    {"models", "tasks"},
    {"train"},
    {"tuning", "export"},
    {"run"},
    {"testing"},
    {"torch", "keras", "optax", "comparison"},
    {"commands"},
]
"""From the ground up. A room may import from itself and from floors below its own, never from a neighbour."""

OPTIM = [
    {"batch", "errors", "maths", "noise", "quantity", "reduce"},
    {"registry", "rule"},
    {"wrappers"},
    {"rules", "clipping", "groups", "schedule"},
    {"engines"},
    {"lr_finder"},
]
"""The floors inside the optimizer library."""

GROUND = {"batch", "errors", "maths", "noise", "quantity", "evidence", "files"}
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
    "world": {"numpy", "torch"},
    "optim": set(),
    "data": TRAINING | {"PIL"},
    "models": TRAINING,
    "tasks": TRAINING,
    "train": TRAINING | {"rich"},
    "tuning": TRAINING | {"optuna"},
    "export": {"torch", "jinja2"},
    "run": TRAINING,
    "testing": TRAINING | {"jax"},
    "torch": {"torch"},
    "keras": {"keras"},
    "optax": {"jax", "optax"},
    "comparison": {"numpy", "polars", "rich", "scipy", "matplotlib"},
    "report": {"numpy", "matplotlib", "jinja2"},
    "commands": TRAINING | {"rich", "typer", "click"},
}
"""What each room may import besides Python's own library; a room that is not named may import nothing."""

OPTIONAL = {
    "jax": {"jax/of_tree.py", "on_jax.py", "on_keras.py"},
    "keras": {"keras/optimizer.py", "keras/part.py", "on_keras.py"},
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
            if node.module in ("steepest", "steepest.optim"):
                yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield str(node.module), node.lineno


FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
IN_OPTIM = {room: height for height, rooms in enumerate(OPTIM) for room in rooms}


def test_every_file_stands_on_a_floor() -> None:
    assert {room_of(path) for path in FILES} == set(HEIGHT)
    inside = [path.relative_to(SOURCE / "optim").parts[0] for path in FILES if room_of(path) == "optim"]
    assert {name.removesuffix(".py") for name in inside} == {*IN_OPTIM, "__init__"}


def test_arrows_point_down() -> None:
    wrong = []
    for path in FILES:
        room = room_of(path)
        for module, line in modules_of(path):
            if module.partition(".")[0] != "steepest":
                continue
            other = module.split(".")[1]
            near = other == room or {room, other} <= GROUND
            if not near and HEIGHT[other] >= HEIGHT[room]:
                wrong.append(f"{path}:{line}: {room} must not import {other}")
    assert not wrong


def test_arrows_point_down_in_the_optimizer_library() -> None:
    wrong = []
    for path in sorted((SOURCE / "optim").rglob("*.py")):
        room = path.relative_to(SOURCE / "optim").parts[0].removesuffix(".py")
        for module, line in modules_of(path):
            package, _, inside = module.partition("steepest.optim")
            if package or not inside.startswith("."):
                continue
            other = inside.split(".")[1]
            near = other == room or {room, other} <= GROUND
            if not near and IN_OPTIM[other] >= IN_OPTIM[room]:
                wrong.append(f"{path}:{line}: {room} must not import {other}")
    assert not wrong


def test_frameworks_stay_where_they_belong() -> None:
    wrong = []
    for path in FILES:
        room = room_of(path)
        allowed = FOREIGN.get(room, set())
        if path == SOURCE / "optim" / "lr_finder.py":
            allowed = {"torch", "numpy", "matplotlib"}
        elif (engines := SOURCE / "optim" / "engines") in path.parents:
            file = path.relative_to(engines).as_posix()
            allowed = TRAINING | {framework for framework, files in OPTIONAL.items() if file in files}
        for module, line in modules_of(path):
            package = module.partition(".")[0]
            if package != "steepest" and package not in sys.stdlib_module_names | allowed:
                wrong.append(f"{path}:{line}: {room} must not import {package}")
    assert not wrong


def named_by(path: Path, known: Container[str]) -> Iterator[str]:
    """The known modules that a file imports or takes a name from."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                yield from [name for name in (below, str(node.module)) if name in known][:1]


def test_no_files_import_each_other_in_a_circle() -> None:
    """Imports inside functions count: they are for a quick start, never to hide a circle."""
    name = {path: ".".join(("steepest", *path.relative_to(SOURCE).with_suffix("").parts)) for path in FILES}
    home = {dotted.removesuffix(".__init__"): path for path, dotted in name.items()}
    arrows = {
        path: {home[module] for module in named_by(path, home) if home[module] != path} for path in FILES
    }
    free: set[Path] = set()
    while new := {path for path in FILES if path not in free and arrows[path] <= free}:
        free |= new
    assert sorted(str(path) for path in set(FILES) - free) == []
