"""The verbs of the command line; a change here is a change to people's scripts."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from steepest.commands.cli import app
from steepest.optim.errors import UserError

VERBS = ["compare", "fit", "report", "resume", "rules", "settings", "tune"]


def test_the_list_of_verbs_is_frozen() -> None:
    assert (
        sorted(str(command.name or command.callback.__name__) for command in app.registered_commands) == VERBS
    )


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    done = CliRunner().invoke(app, [verb, "--help"])
    assert done.exit_code == 0, done.output
    assert f"steepest {verb}" in done.output


def test_without_a_verb_the_help_is_shown() -> None:
    done = CliRunner().invoke(app, ["--help"])
    assert done.exit_code == 0
    assert all(verb in done.output for verb in VERBS)


def test_an_unknown_verb_is_the_users_mistake() -> None:
    assert CliRunner().invoke(app, ["fitt", "digits"]).exit_code == 2


@pytest.mark.parametrize(
    ("verb", "option", "said"),
    [
        ("fit", "--weight-decay", "--set weight_decay=…"),
        ("tune", "--clip_norm", "--set clip_norm=…"),
        ("compare", "--epochs", "called budget"),
    ],
)
def test_a_setting_that_is_no_option_is_told_how_to_give(verb: str, option: str, said: str) -> None:
    error = CliRunner().invoke(app, [verb, "digits", option, "3"]).exception
    assert isinstance(error, UserError)
    assert option in str(error)
    assert said in str(error)


def test_what_is_neither_is_refused_as_usual() -> None:
    assert CliRunner().invoke(app, ["fit", "digits", "--nope", "3"]).exit_code == 2
    assert CliRunner().invoke(app, ["resume", "x", "--lr", "3"]).exit_code == 2


@pytest.mark.parametrize("flag", ["--rule", "--lr", "--batch-size", "--schedule"])
def test_a_choice_can_be_left_to_measurement(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["fit", "iris", flag, "auto", "--budget", "20 steps"])
    assert done.exit_code == 0, done.output
    assert f"measured first: {flag.removeprefix('--').replace('-', '_')}, within" in done.output
