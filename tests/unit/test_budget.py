"""Budgets as people write them."""

import pytest

from steepest.optim.errors import UserError
from steepest.train.budget import Budget, parse


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("60s", 60, "seconds"),
        ("10m", 600, "seconds"),
        ("2h", 7200, "seconds"),
        ("1.5 hours", 5400, "seconds"),
        ("500 steps", 500, "steps"),
        ("1 step", 1, "steps"),
        ("1e3 steps", 1000, "steps"),
        ("20 Epochs", 20, "epochs"),
        (" .5 epoch ", 0.5, "epochs"),
    ],
)
def test_what_is_written_is_read(text, amount, unit):
    assert parse(text) == Budget(amount, unit)


def test_more_is_marked_and_added():
    more = parse("+10 epochs")
    assert more.more
    assert parse("20 epochs").plus(more) == Budget(30, "epochs")
    with pytest.raises(UserError, match="more epochs, not steps"):
        parse("20 epochs").plus(parse("+5 steps"))


@pytest.mark.parametrize("text", ["", "60", "ten steps", "5 parsecs", "-3 steps", "5 steps 3 epochs", "s"])
def test_anything_else_gets_a_sentence(text):
    with pytest.raises(UserError, match=r"save_every must be an amount with its unit.*60s"):
        parse(text, "save_every")


@pytest.mark.parametrize(
    "text", ["60 seconds", "500 steps", "20 epochs", "1 epoch", "+10 epochs", "0.5 epochs"]
)
def test_a_budget_reads_back_from_its_own_words(text):
    assert str(parse(text)) == text
    assert parse(str(parse(text))) == parse(text)


def test_epochs_become_steps_once_their_length_is_known():
    assert parse("3 epochs").steps(None) is None
    assert parse("3 epochs").steps(7) == 21
    assert parse("0.01 epochs").steps(7) == 1
    assert parse("60s").steps(7) is None


@pytest.mark.parametrize("text", ["1e12 steps", "123456789012 steps", "1e15 epochs", "0.001 epochs"])
def test_what_is_written_is_read_again(text: str) -> None:
    assert parse(str(parse(text))) == parse(text)
