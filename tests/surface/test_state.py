"""Saving has one vocabulary, and objects are changed by themselves alone, as far as syntax trees tell."""

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "steepest"
ROOMS = [path for room in ("train", "tuning") for path in sorted((SOURCE / room).rglob("*.py"))]

PAIRS = {
    "load": {"numbers", "state", "dump"},
    "load_state": {"state"},
    "put": {"take", "values", "snapshot", "state"},
    "resume": {"rows"},
    "restore": {"save", "snapshot"},
    "of": {"flat"},
    "__setstate__": {"state"},
}
"""Words in which states were once saved and taken back, in place of state_dict and load_state_dict."""

OTHERS = {"grad", "training", "momentum", "track_running_stats", "opt.factor", "opt.steps", "study.sampler"}
"""What is set in objects of torch and Optuna, and the two numbers of an optimizer that are to be set."""

SEARCH = {"search.job", "search.settings"}
"""What the choices of a search leave in it, until they hand it back."""


def classes(paths: list[Path]) -> Iterator[tuple[str, set[str]]]:
    """(where, names of methods) of every class."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                methods = {one.name for one in node.body if isinstance(one, ast.FunctionDef)}
                yield f"{path.relative_to(SOURCE)}: {node.name}", methods


def test_nothing_that_is_saved_has_other_words_than_state_dict() -> None:
    paths = [*ROOMS, *sorted((SOURCE / "optim").rglob("*.py"))]
    found = list(classes(paths))
    known = {"tuning/ledger.py: Chosen"}  # a file of its own, and no part of a checkpoint
    wrong = [
        f"{where} has {first} and {second}"
        for where, methods in found
        for second, firsts in PAIRS.items()
        for first in firsts & methods
        if second in methods and where not in known
    ]
    halves = [
        where for where, methods in found if ("state_dict" in methods) != ("load_state_dict" in methods)
    ]
    assert (wrong, halves) == ([], [])
    assert sum("state_dict" in methods for _, methods in found) > 10


def foreign(path: Path) -> Iterator[str]:
    """Assignments to attributes of what is not self."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store):
            continue
        held = node.value
        if isinstance(held, ast.Name) and held.id in ("self", "cls"):
            continue
        if ast.unparse(node) in SEARCH:
            continue
        if node.attr not in OTHERS and not any(ast.unparse(node).endswith(f".{one}") for one in OTHERS):
            yield f"{path.relative_to(SOURCE)}:{node.lineno}: {ast.unparse(node)} = …"


def test_nobody_writes_into_the_objects_of_others() -> None:
    assert [one for path in ROOMS for one in foreign(path)] == []


def chains(path: Path) -> Iterator[str]:
    """Reaches through two objects into a third: a.b.c.d."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        depth, inner = 0, node
        while isinstance(inner, ast.Attribute):
            inner, depth = inner.value, depth + 1
        if depth == 3 and isinstance(inner, ast.Name):
            yield f"{path.relative_to(SOURCE)}:{node.lineno}: {ast.unparse(node)}"


def test_the_loop_does_not_reach_through_objects() -> None:
    found = [one for path in ROOMS if path.parent.name == "train" for one in chains(path)]
    assert len(found) <= 6, "\n".join(found)
