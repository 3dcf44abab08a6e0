"""`each`: a test over many cases in one loop, where an id for every case would cost more than the case."""

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

wanted = ""
"""What the name of a case must hold for the case to run: the option --case of the command line."""
full = False
"""Whether this is a full run, or one of cases that were named."""

Test = Callable[..., None]
Case = tuple[str, dict[str, Any]]
Axis = tuple[list[Case], int]
"""The cases, and of how many one runs at a push."""


def each(
    names: str | tuple[str, ...], values: Iterable[Any], ids: Callable[[Any], Any] = str, push: int = 1
) -> Any:
    """Run a test for each of the values, all of them, and fail with the names of all that fail.

    It is written as `pytest.mark.parametrize` is, and stacks as that does: then all combinations run. A case
    may skip itself. Of cases that take long and are much alike, one in `push` runs unless the run is a full
    one. Every case has a `tmp_path` and a `monkeypatch` of its own; it shares all other fixtures.
    """
    arguments = (names,) if isinstance(names, str) else names
    rows = [(value,) if isinstance(names, str) else tuple(value) for value in values]
    axis: list[Case] = [
        ("-".join(word(value, ids) for value in row), dict(zip(arguments, row, strict=True))) for row in rows
    ]

    def decorated(test: Test) -> Test:
        inner, axes = getattr(test, "looped", (test, []))
        return looped(inner, [*axes, (axis, push)], getattr(test, "pytestmark", []))

    return decorated


def word(value: Any, ids: Callable[[Any], Any]) -> str:
    return str(getattr(value, "__name__", None) or ids(value))


def looped(test: Test, axes: list[Axis], marks: list[Any]) -> Test:
    """The test as one that takes no more than its fixtures."""
    taken = inspect.signature(test)
    own = {name for axis, _ in axes for _, values in axis[:1] for name in values}

    @functools.wraps(test)
    def loop(**fixtures: Any) -> None:
        failed: list[tuple[str, BaseException]] = []
        skipped, ran = [], 0
        for number, (name, values) in enumerate(combined(axes)):
            if wanted not in name:
                continue
            try:
                with of_its_own(fixtures, number) as given:
                    test(**given, **values)
                ran += 1
            except pytest.skip.Exception as reason:
                skipped.append(str(reason))
            except (Exception, pytest.fail.Exception) as error:
                error.add_note(f"in case {name}")
                failed.append((name, error))
        if failed:
            raise_all(failed, len(failed) + ran)
        if not ran:
            pytest.skip("; ".join(sorted(set(skipped))) or f"no case has '{wanted}' in its name")

    left = [one for one in taken.parameters.values() if one.name not in own]
    loop.__signature__ = taken.replace(parameters=left)  # type: ignore[attr-defined]
    loop.looped = (test, axes)  # type: ignore[attr-defined]
    loop.pytestmark = marks  # type: ignore[attr-defined]
    return loop


def combined(axes: list[Axis]) -> Iterator[Case]:
    """All combinations that run."""
    for cases in itertools.product(*(axis if full else axis[::push] for axis, push in axes)):
        values: dict[str, Any] = {}
        for _, more in cases:
            values |= more
        yield "-".join(name for name, _ in cases), values


class of_its_own:
    """The fixtures with those in the place that a case may change."""

    def __init__(self, fixtures: dict[str, Any], number: int) -> None:
        self.fixtures, self.number = fixtures, number
        self.patches = pytest.MonkeyPatch() if "monkeypatch" in fixtures else None

    def __enter__(self) -> dict[str, Any]:
        given = dict(self.fixtures)
        if self.patches:
            given["monkeypatch"] = self.patches
        if "tmp_path" in given:
            place: Path = given["tmp_path"] / str(self.number)
            place.mkdir()
            given["tmp_path"] = place
        return given

    def __exit__(self, *_: object) -> None:
        if self.patches:
            self.patches.undo()


def raise_all(failed: list[tuple[str, BaseException]], cases: int) -> None:
    """The one failure as it is, or all together."""
    if len(failed) == 1:
        raise failed[0][1]
    names = ", ".join(name for name, _ in failed)
    raise BaseExceptionGroup(f"{len(failed)} of {cases} cases fail: {names}", [error for _, error in failed])
