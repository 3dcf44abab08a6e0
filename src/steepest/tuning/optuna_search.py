"""The search by Optuna: trials drawn over the ranges that rules declare, pruned by their held-out loss.

    <folder>/study.journal     the study, which Optuna's own tools open too

Every trial is a whole short run with its own schedule. What is drawn is a function of the seed and of the
trials that have ended: a search that was killed draws the cut trial again and comes to the same end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from steepest.data.order import key
from steepest.evidence import shown
from steepest.files import Folder, write_atomic
from steepest.optim.errors import MissingExtra, UserError
from steepest.train.job import Job
from steepest.tuning import trials
from steepest.tuning.account import came_to, of_settings, of_trials
from steepest.tuning.ledger import Chosen, Tell, plain
from steepest.tuning.ranges import Range
from steepest.tuning.space import SEARCHED, Space, space
from steepest.tuning.trials import Ended, Terms

JOURNAL = "study.journal"
STUDY = "steepest"

BLIND = 10
"""Trials drawn without regard to those before, Optuna's own number; half of all where that is less."""


def search(
    job: Job,
    folder: Folder,
    allowed: int,
    tell: Tell,
    say: Callable[[str], object] = lambda line: None,
    asked: Callable[[], object] = lambda: None,
    *,
    seconds: float | None = None,
    also: tuple[str, ...] = (),
) -> Chosen:
    """The settings of the best trial, for what the recipe of a job leaves open.

    allowed   updates of the recipe's batch that all trials together may take, scores included
    say       is told of each trial when it has ended
    asked     called before every update; may raise to stop, and the search goes on another time
    seconds   after which no trial begins; None where no clock counts
    also      hyperparameters of the rule that are searched besides

    Raises MissingExtra without Optuna, and UserError where nothing can be compared."""
    optuna = installed()
    with _quiet(optuna):
        found = _Search(optuna, job, space(job, also), trials.terms(job, allowed), folder.path / JOURNAL)
        found.drop_cut()
        while found.affords(allowed, seconds):
            say(found.one(asked))
        return found.best(tell)


@dataclass
class _Search:
    """A study and what its trials are made of."""

    optuna: Any
    job: Job
    drawn: Space
    terms: Terms
    journal: Path

    def __post_init__(self) -> None:
        _mend(self.journal)
        storages, pruners = self.optuna.storages, self.optuna.pruners
        few = self.terms.trials // 4
        self.points = self.drawn.points()
        self.study = self.optuna.create_study(
            study_name=STUDY,
            storage=storages.JournalStorage(storages.journal.JournalFileBackend(str(self.journal))),
            pruner=pruners.MedianPruner(n_startup_trials=max(1, min(5, few))),
            direction="minimize",
            load_if_exists=True,
        )

    @property
    def ended(self) -> list[Any]:
        """The trials that have ended, in order. Their places are their numbers for people: Optuna's own count
        those that a kill has cut, too, so that a search that went on would tell others."""
        state = self.optuna.trial.TrialState
        return self.study.get_trials(deepcopy=False, states=(state.COMPLETE, state.PRUNED))

    def drop_cut(self) -> None:
        """Trials that a killed process has left running count for nothing."""
        state = self.optuna.trial.TrialState
        for cut in self.study.get_trials(deepcopy=False, states=(state.RUNNING,)):
            self.study.tell(cut.number, state=state.FAIL)

    def affords(self, allowed: int, seconds: float | None) -> bool:
        """Whether one more whole trial fits, and there is something to try; what pruned ones have left makes
        room for it."""
        if self.points and not self._untried():
            return False
        spent = sum(one.user_attrs["cost"] for one in self.ended)
        late = seconds is not None and sum(one.user_attrs["seconds"] for one in self.ended) >= seconds
        return spent + self.terms.cost <= allowed and not late

    def one(self, asked: Callable[[], object]) -> str:
        """Draw and run a trial; a line about it."""
        began = time.perf_counter()
        trial, settings = self._fresh()

        def goes_on(rung: int, score: float) -> bool:
            trial.report(score, rung)
            return not trial.should_prune()

        ended = trials.run(self.job, settings, self.terms, goes_on, asked)
        attributes = {"settings": settings, "cost": ended.cost, "curve": _written(ended), "rung": ended.rung}
        for name, value in {**attributes, "seconds": time.perf_counter() - began}.items():
            trial.set_user_attr(name, value)
        states = self.optuna.trial.TrialState
        whole = ended.rung == len(trials.RUNGS) and not ended.died
        self.study.tell(trial, ended.loss if whole else None, states.COMPLETE if whole else states.PRUNED)
        last = self.ended[-1]
        return f"trial {len(self.ended) - 1}: {shown(last.params)}: {came_to(last, self.terms.size)}"

    def _fresh(self) -> tuple[Any, dict[str, Any]]:
        """(the next trial, its settings). Of few points one that was tried would come to the same again:
        another takes its place."""
        trial, settings = self._drawn()
        left = self._untried()
        if self.points and trial.params not in left:
            self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)
            self.study.enqueue_trial(left[key(self.job.recipe.seed, "untried", len(left)) % len(left)])
            trial, settings = self._drawn()
        return trial, settings

    def _drawn(self) -> tuple[Any, dict[str, Any]]:
        trial = self._ask()
        return trial, self.drawn.settings_of(lambda name, one: _suggested(trial, name, one))

    def _untried(self) -> list[dict[str, Any]]:
        """The points that no trial has ended at."""
        tried = [one.params for one in self.ended]
        return [point for point in self.points if point not in tried]

    def _ask(self) -> Any:
        """The next trial: the default first, then what TPE makes of those that have ended."""
        count, blind = len(self.ended), min(BLIND, self.terms.trials // 2)
        seed = key(self.job.recipe.seed, "trial", count) % 2**32
        self.study.sampler = self.optuna.samplers.TPESampler(seed=seed, n_startup_trials=blind)
        waiting = (self.optuna.trial.TrialState.WAITING,)
        if not count and not self.study.get_trials(deepcopy=False, states=waiting):
            self.study.enqueue_trial(self.drawn.default())
        return self.study.ask()

    def best(self, tell: Tell) -> Chosen:
        """The best trial told as evidence. Raises UserError where none has come to its end."""
        ended, state = self.ended, self.optuna.trial.TrialState
        whole = [place for place, one in enumerate(ended) if one.state == state.COMPLETE]
        if not whole:
            raise UserError(
                f"No trial came to its end: of {len(ended)} none had a finite loss. Look for bad values in "
                "the data, and scale inputs and targets."
            )
        best = min(whole, key=lambda place: (ended[place].value, place))
        spent = sum(one.user_attrs["cost"] for one in ended)
        tell(of_trials(best, ended, spent, self.terms))
        settings = ended[best].user_attrs["settings"]
        for one in of_settings(best, settings, self.drawn, self.job.asked.open):
            tell(one)
        kept = {name: settings[name] for name in (*SEARCHED, "hyper") if name in settings}
        return Chosen(kept, gradients=spent)


def _mend(journal: Path) -> None:
    """Take away what a kill in the midst of writing leaves: a line without an end, and Optuna's lock."""
    Path(f"{journal}.lock").unlink(missing_ok=True)  # the folder is locked by us: nobody else can hold it
    written = journal.read_bytes() if journal.exists() else b""
    if not written.endswith(b"\n") and written:
        write_atomic(journal, written[: written.rfind(b"\n") + 1])


def _suggested(trial: Any, name: str, one: Range) -> Any:
    """What Optuna draws from a range."""
    if one.choices:
        return trial.suggest_categorical(name, one.choices)
    if one.whole:
        return trial.suggest_int(name, int(one.low), int(one.high), log=one.log)
    return trial.suggest_float(name, one.low, one.high, log=one.log)


def _written(ended: Ended) -> list[tuple[float, float | None]]:
    return [(trained, plain(score)) for trained, score in ended.curve]


def installed() -> Any:
    """Optuna itself. Raises MissingExtra where it is not there."""
    try:
        optuna = import_module("optuna")
        import_module("optuna.storages.journal")
    except ImportError as error:
        raise MissingExtra(
            f'engine="optuna" needs Optuna 4, which is not installed ({error}). Install it: '
            'pip install "steepest[optuna]"; or take engine="steepest", which needs nothing.'
        ) from error
    return optuna


@contextmanager
def _quiet(optuna: Any) -> Generator[None]:
    """Optuna's own lines are for people who call it themselves."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
