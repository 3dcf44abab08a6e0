"""The style of the house, where a syntax tree can see it."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "steepest"
FILES = sorted(SOURCE.rglob("*.py"))
VAGUE = {"utils", "util", "helpers", "helper", "base", "core", "common", "manager", "misc"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> list[Function]:
    return [node for node in ast.walk(tree_of(path)) if isinstance(node, Function)]


def length(function: Function) -> int:
    """Lines of a function's body, its docstring left out."""
    first = function.body[1] if ast.get_docstring(function) and len(function.body) > 1 else function.body[0]
    return (function.end_lineno or 0) - first.lineno + 1


def public_definitions(path: Path) -> Iterator[ast.ClassDef | Function]:
    """Classes and functions of a file, and the methods of its classes, that bear no underscore."""
    for node in tree_of(path).body:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (
                    one for one in node.body if isinstance(one, Function) and not one.name.startswith("_")
                )


def unannotated(function: Function) -> list[str]:
    arguments = function.args
    every = [
        *arguments.posonlyargs,
        *arguments.args,
        *arguments.kwonlyargs,
        arguments.vararg,
        arguments.kwarg,
    ]
    missing = [one.arg for one in every if one and not one.annotation and one.arg not in ("self", "cls")]
    return missing if function.returns else [*missing, "return"]


def identity(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def test_functions_are_short() -> None:
    lengths = sorted(length(function) for path in FILES for function in functions(path))
    assert statistics.median(lengths) <= 10
    assert lengths[int(0.9 * len(lengths))] <= 25


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_a_file_is_one_thing_of_a_size_one_can_hold(path: Path) -> None:
    assert path.stem.strip("_") not in VAGUE, "a name that says nothing"
    assert path.read_text(encoding="utf-8").count("\n") <= 350
    too_long = {function.name: length(function) for function in functions(path) if length(function) > 50}
    assert not too_long


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_public_names_say_what_they_are(path: Path) -> None:
    tree = tree_of(path)
    assert not tree.body or ast.get_docstring(tree), "the file says nothing of itself"
    top = [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_")
    ]
    assert [node.name for node in top if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_public_signatures_are_annotated(path: Path) -> None:
    found = {one.name: unannotated(one) for one in public_definitions(path) if isinstance(one, Function)}
    assert {name: missing for name, missing in found.items() if missing} == {}
