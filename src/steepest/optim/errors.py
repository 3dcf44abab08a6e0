"""What goes wrong by a user's hand, said in one sentence: what was wrong, what was got, what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake that the user can mend; the command line prints its sentence and exits with `exit_code`."""

    exit_code = 2


class UnsupportedGradient(UserError, RuntimeError):
    """A gradient that no rule can use: sparse, of whole numbers; torch raises RuntimeError for these."""


class MissingExtra(UserError, ImportError):
    """An optional package is needed and not installed; the sentence holds the command that installs it."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """' Did you mean …?' with the nearest of `choices`; where none is near, a short list is given whole."""
    known = sorted(choices)
    near = get_close_matches(word, known, n=3, cutoff=0.5)
    if near:
        return f" Did you mean {' or '.join(repr(name) for name in near)}?"
    return f" Known: {', '.join(known)}." if 0 < len(known) <= 30 else ""
