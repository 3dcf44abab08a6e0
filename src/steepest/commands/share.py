"""How much of a run's budget a search may spend: "10%", or an amount beside that of the run."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from steepest.optim.errors import UserError
from steepest.train.budget import Budget, parse
from steepest.train.job import Job

PER_CENT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*")


@dataclass(frozen=True)
class Share:
    """An amount of training (`budget`), and the `part` that it is of the whole run's."""

    budget: Budget
    part: float

    def __str__(self) -> str:
        return f"{self.part * 100:.3g}% of the run's budget, {self.budget}"


def share(text: str, job: Job) -> Share:
    """The share that a text describes. Raises UserError where it is none of the run's budget."""
    whole = parse(job.recipe.budget)
    if found := PER_CENT.fullmatch(str(text)):
        part = float(found[1]) / 100
        return _checked(Share(replace(whole, amount=whole.amount * part), part), text, whole)
    amount = parse(text)
    return _checked(Share(amount, _part(amount, whole, job)), text, whole)


def _part(amount: Budget, whole: Budget, job: Job) -> float:
    """Like beside like; steps and epochs go into each other."""
    if amount.unit == whole.unit:
        return amount.amount / whole.amount if whole.amount else 0.0
    steps = amount.steps(job.source.per_epoch), whole.steps(job.source.per_epoch)
    if steps[0] is None or not steps[1]:
        raise UserError(
            f"The run's budget is {whole}, and that of the search {amount}, which cannot be compared. Give a "
            'share, budget="10%", or both in one unit.'
        )
    return steps[0] / steps[1]


def _checked(found: Share, text: str, whole: Budget) -> Share:
    if not 0 < found.part <= 1 or found.budget.more:
        raise UserError(
            f"The budget of a search must be more than nothing and at most that of the run, {whole}; got "
            f'{text!r}. A share is written "10%".'
        )
    return found
