"""The style of the house, where a syntax tree can see it."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "steepest"
FILES = sorted(SOURCE.rglob("*.py"))
VAGUE = {"utils", "util", "helpers", "helper", "base", "core", "common", "manager", "misc"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


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


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert [str(path) for path in FILES if path.stem.strip("_") in VAGUE] == []


def test_a_file_of_more_than_600_lines_says_why_it_is_one() -> None:
    """A file holds an idea, however long; complexity is held by ruff (C901, PLR0912, PLR0915)."""
    silent = [
        str(path)
        for path in FILES
        if path.read_text(encoding="utf-8").count("\n") > 600
        and "one file because" not in (ast.get_docstring(tree_of(path)) or "")
    ]
    assert silent == []


def test_files_and_public_names_say_what_they_are() -> None:
    mute = []
    for path in FILES:
        tree = tree_of(path)
        if tree.body and not ast.get_docstring(tree):
            mute.append(str(path))
        mute += [
            f"{path}: {node.name}"
            for node in tree.body
            if isinstance(node, ast.ClassDef | Function)
            and not node.name.startswith("_")
            and not ast.get_docstring(node)
        ]
    assert mute == []


def test_public_signatures_are_annotated() -> None:
    found = {
        f"{path}: {one.name}": missing
        for path in FILES
        for one in public_definitions(path)
        if isinstance(one, Function) and (missing := unannotated(one))
    }
    assert found == {}


def test_paths_that_are_typed_strictly_exist() -> None:
    """Pyright takes a path that matches nothing without a word."""
    settings = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    strict = settings["tool"]["pyright"]["strict"]
    assert strict
    assert [path for path in strict if not (SOURCE.parents[1] / path).exists()] == []
