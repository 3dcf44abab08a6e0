"""A loop over cases runs all of them and names those that fail."""

from pathlib import Path

import pytest

import each as loops
from each import each


@pytest.fixture(autouse=True)
def of_a_push(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was asked of the run that this is part of."""
    monkeypatch.setattr(loops, "wanted", "")
    monkeypatch.setattr(loops, "full", False)


def failures(test) -> str:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        test()
    return str(caught.value)


def test_every_case_runs_and_all_that_fail_are_named() -> None:
    seen = []

    @each("b", [1, 2])
    @each("a", ["x", "y", "z"])
    def over(a: str, b: int) -> None:
        seen.append((a, b))
        assert a != "y"

    assert failures(over).startswith("2 of 6 cases fail: y-1, y-2")
    assert seen == [(a, b) for a in "xyz" for b in (1, 2)]


def test_one_that_fails_is_raised_as_it_is() -> None:
    @each(("name", "value"), [("good", 1), ("bad", -1)])
    def over(name: str, value: int) -> None:
        if value < 0:
            raise ValueError(name)

    with pytest.raises(ValueError, match="bad") as caught:
        over()
    assert caught.value.__notes__ == ["in case bad--1"]


def test_failures_of_pytests_own_count() -> None:
    @each("a", [1, 2])
    def over(a: int) -> None:
        with pytest.raises(ValueError, match="never"):
            pass

    assert "2 of 2 cases fail: 1, 2" in failures(over)


def test_a_case_may_skip_itself_and_all_of_them_the_test() -> None:
    ran = []

    @each("a", [1, 2])
    def over(a: int) -> None:
        if a == 1:
            pytest.skip("not here")
        ran.append(a)

    @each("a", [1, 2])
    def none(a: int) -> None:
        pytest.skip("not here")

    over()
    assert ran == [2]
    with pytest.raises(pytest.skip.Exception, match="not here"):
        none()


def test_a_push_runs_one_in_so_many_a_full_run_all_and_a_name_those_that_bear_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []

    @each("a", range(20, 31), push=4)
    def over(a: int) -> None:
        seen.append(a)

    over()
    assert seen == [20, 24, 28]
    monkeypatch.setattr(loops, "full", True)
    over()
    assert seen[3:] == [*range(20, 31)]
    monkeypatch.setattr(loops, "wanted", "3")
    over()
    assert seen[14:] == [23, 30]


@each("number", range(3))
def test_places_and_patches_are_a_cases_own(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    assert not hasattr(Path, "left_behind")
    monkeypatch.setattr(Path, "left_behind", number, raising=False)
