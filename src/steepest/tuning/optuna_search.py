"""The search by Optuna: trials drawn over the ranges that rules declare, pruned by their held-out loss.

    <folder>/study.journal     the study, which Optuna's own tools open too

Every trial is a whole short run with its own schedule. What is drawn is a function of the seed and of the
trials that have ended: a search that was killed draws the cut trial again and comes to the same end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from steepest.data.batches import batches, count
from steepest.data.order import key
from steepest.data.rng import preserved
from steepest.evidence import Evidence, shown
from steepest.files import Folder, write_atomic
from steepest.optim.batch import Stochastic
from steepest.optim.errors import MissingExtra, UserError
from steepest.train import memory
from steepest.train.evaluation import Evaluation
from steepest.train.fitting import averages, renew
from steepest.train.job import Job
from steepest.train.resolved import Resolved
from steepest.tuning.constants import FORWARD, SCORED
from steepest.tuning.journal import Tell, plain
from steepest.tuning.space import SEARCHED, Range, Space, space
from steepest.tuning.trial import Trial

RUNGS = (0.25, 0.5, 1.0)
"""Shares of a trial at which it is scored and may be pruned, each twice the last: successive halving's."""

TRIALS = 20
"""Whole trials that a budget is cut into; pruned ones make room for more."""

FEWEST = 25
"""Updates of the shortest trial, with scores: below, a loss tells more of the start than of the settings."""

SCORES_PART = 0.2
"""Largest share of a trial that its scores are to cost; the rest of FEWEST is training in any case."""


@dataclass(frozen=True)
class Terms:
    """What all trials have in common.

    updates   of a whole trial, in batches of `size` examples, the recipe's
    held      batches of held-out examples;   score  what one score costs, in updates
    trials    how many whole ones the budget holds"""

    updates: int
    size: int
    held: tuple[Any, ...]
    score: float
    trials: int

    @property
    def cost(self) -> float:
        """What a whole trial costs, in updates."""
        return self.updates + len(RUNGS) * self.score


@dataclass(frozen=True)
class Ended:
    """What a trial came to.   loss: the last score;   cost: in updates;   rung: how many scores were taken

    died    whether numbers were not finite;   curve  (cost of training so far, score) at each rung"""

    loss: float
    cost: float
    rung: int
    died: bool
    curve: tuple[tuple[float, float], ...]


def terms(job: Job, allowed: int) -> Terms:
    """The terms on which so many updates are spent. Raises UserError where nothing could be compared."""
    if job.prepared.val is None:
        raise UserError(
            "Trials are compared by their loss on the validation part, and there is none. Give val=0.15, or "
            "data of its own."
        )
    _check_batch(job)
    size, most = job.size, max(min(TRIALS, allowed // FEWEST), 2)
    wanted = SCORES_PART * allowed / most / len(RUNGS) * size / FORWARD
    held = _held(job, int(min(max(wanted, SCORED[0]), SCORED[1])), size)
    score = sum(count(batch[0]) for batch in held) * FORWARD / size
    least = max(FEWEST, round(FEWEST * (1 - SCORES_PART) + len(RUNGS) * score, 6))
    trials = min(most, int(allowed / least))
    if trials < 2:
        raise UserError(
            f"The budget of the search is {allowed} updates. It must hold two trials of {math.ceil(least)} "
            "at least, their scores among them, or nothing is compared. Give a larger --budget."
        )
    updates = math.floor(round(allowed / trials - len(RUNGS) * score, 6))
    return Terms(updates, size, held, score, trials)


def run(
    job: Job,
    settings: Mapping[str, Any],
    under: Terms,
    goes_on: Callable[[int, float], bool],
    asked: Callable[[], object],
) -> Ended:
    """Train a copy of the job's network under these settings, as far as `goes_on` (rung, score) lets it.

    A larger batch makes fewer updates: all trials see as many examples."""
    tried = job.having(settings)
    size = tried.recipe.batch_size if isinstance(tried.recipe.batch_size, int) else under.size
    total = max(round(under.updates * under.size / size), len(RUNGS))
    trial, curve = Trial(tried, total), []
    for rung, share in enumerate(RUNGS, start=1):
        trial.advance(max(round(share * total), rung), asked)
        score = math.inf if trial.dead else loss_of(trial, under.held)
        curve.append((_trained(trial, size) / under.size, score))
        if trial.dead or not math.isfinite(score) or (rung < len(RUNGS) and not goes_on(rung, score)):
            break
    trained, score = curve[-1]
    return Ended(
        score, trained + len(curve) * under.score, len(curve), not math.isfinite(score), tuple(curve)
    )


def _trained(trial: Trial, size: int) -> float:
    """The examples that a trial has seen, each as often as it came."""
    varied = trial.job.source.varied
    return trial.done * size if varied is None else varied.epochs(trial.done) * varied.examples


def _check_batch(job: Job) -> None:
    varied = job.source.varied
    if varied is not None and not isinstance(varied.policy, Stochastic):
        raise UserError(
            f"Trials are compared after as many examples, and under batch_size={str(varied.policy)!r} a "
            'trial takes as many as it finds on its way. Take a number, "full" or a stochastic batch, or '
            'engine="steepest".'
        )


@torch.no_grad()
def loss_of(trial: Trial, held: tuple[Any, ...]) -> float:
    """The mean loss on held-out examples of the weights that a run of these settings would ship."""
    measured = Evaluation(trial.job.model, partial(_mean, trial.job, held), "val/loss", trial.ships)
    return measured()[1]


def _mean(job: Job, held: tuple[Any, ...]) -> dict[str, float]:
    if averages(job):
        renew(job)
    with preserved(job.model, training=False):
        seen = (found for batch in held for found in memory.by_parts(job.outputs, batch))
        parts = [(count(part[0]), float(job.losses(outputs, part))) for outputs, part in seen]
    examples = sum(number for number, _ in parts)
    return {"loss": sum(number * loss for number, loss in parts) / examples}


def _held(job: Job, examples: int, size: int) -> tuple[Any, ...]:
    """So many examples of the validation part, or all, the same for every trial."""
    at_once = min(size, examples)
    source = batches(job.prepared.val, at_once, seed=job.recipe.seed)
    windows = islice(source.once(), -(-examples // at_once))
    return tuple(batch for window in windows for batch in window)


def of_trials(best: int, ended: Sequence[Any], spent: float, under: Terms) -> Evidence:
    """All trials as one piece of evidence;   best  the place of the best among them"""
    pruned = sum(map(is_pruned, ended))
    examples = sum(count(batch[0]) for batch in under.held)
    why = (
        f"val/loss {ended[best].value:.4g}, the least of {len(ended)} trials of {under.updates} updates of "
        f"{under.size}, {pruned} of them pruned, drawn by Optuna's TPE and scored on {examples} examples"
    )
    rows = [
        {"trial": place, **one.params, "came to": came_to(one, under.size)} for place, one in enumerate(ended)
    ]
    lines = [
        {
            "name": f"trial {place}",
            "x": [x for x, _ in one.user_attrs["curve"]],
            "y": [y for _, y in one.user_attrs["curve"]],
        }
        for place, one in enumerate(ended)
    ]
    return Evidence(
        "trial",
        best,
        why,
        rows,
        seconds=sum(one.user_attrs["seconds"] for one in ended),
        gradients=round(spent),
        picture={"kind": "curves", "lines": lines, "chosen": f"trial {best}", "crowd": True}
        | {"x": f"examples, in updates of {under.size}"},
    )


def of_settings(
    number: int, settings: Mapping[str, Any], drawn: Space, opened: tuple[str, ...]
) -> list[Evidence]:
    """One line for each setting that was searched."""
    found = drawn.ranges(settings["rule"])
    values = {**settings["hyper"], **settings}
    lines = [
        Evidence(name, values[name], f"of trial {number}; searched {one}") for name, one in found.items()
    ]
    if "rule" in opened:
        tried = " or ".join(drawn.rules)
        lines.insert(0, Evidence("rule", settings["rule"], f"of trial {number}; searched {tried}"))
    left = [name for name in opened if name not in found and name != "rule"]
    return lines + [Evidence(name, settings.get(name), "not searched: it has no range here") for name in left]


def is_pruned(one: Any) -> bool:
    """Whether a trial was ended before its time. (Optuna gives it its last score for a value.)"""
    return one.state.name == "PRUNED"


def came_to(one: Any, size: int) -> str:
    """val/loss 0.41, pruned after 4,800 examples: updates of trials differ in size"""
    trained, loss = one.user_attrs["curve"][-1]
    said = "died" if loss is None else f"val/loss {loss:.4g}" + (", pruned" if is_pruned(one) else "")
    return f"{said} after {trained * size:,.0f} examples"


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
) -> Resolved:
    """The settings of the best trial, for what the recipe of a job leaves open.

    allowed   updates of the recipe's batch that all trials together may take, scores included
    say       is told of each trial when it has ended
    asked     called before every update; may raise to stop, and the search goes on another time
    seconds   after which no trial begins; None where no clock counts
    also      hyperparameters of the rule that are searched besides

    Raises MissingExtra without Optuna, and UserError where nothing can be compared."""
    optuna = installed()
    with _quiet(optuna):
        found = _Search(optuna, job, space(job, also), terms(job, allowed), folder.path / JOURNAL)
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

        ended = run(self.job, settings, self.terms, goes_on, asked)
        attributes = {"settings": settings, "cost": ended.cost, "curve": _written(ended), "rung": ended.rung}
        for name, value in {**attributes, "seconds": time.perf_counter() - began}.items():
            trial.set_user_attr(name, value)
        states = self.optuna.trial.TrialState
        whole = ended.rung == len(RUNGS) and not ended.died
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

    def best(self, tell: Tell) -> Resolved:
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
        return Resolved(kept, gradients=spent)


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
