"""`compare`: strategies under equal conditions, paired by seed, with a verdict."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from steepest.commands.fit import CONTENT, RUNS, name_of
from steepest.commands.lifecycle import begin
from steepest.commands.resume import go_on
from steepest.comparison import Place, is_comparison
from steepest.comparison import plan as plans
from steepest.comparison.comparison import Comparison
from steepest.comparison.plan import Plan, planned, resolved
from steepest.comparison.runs import Stopped, complete
from steepest.comparison.terminal import Bar, show
from steepest.files import Folder, write_atomic
from steepest.optim.errors import UserError
from steepest.recipe import Recipe, settings_in
from steepest.run import Run
from steepest.train import machine
from steepest.train.control import Interrupted
from steepest.train.given import HOOKS, MARK, OBJECTS, separate
from steepest.train.job import build
from steepest.train.prepare import read
from steepest.train.update import Diverged

COURSE = {"average", "stop", "patience", "min_delta"}
"""Settings that a measured schedule brings along."""


def compare(
    data: Any,
    strategies: Mapping[str, Any] | Iterable[str],
    *,
    seeds: int | None = None,
    equal: str | None = None,
    reference: str | None = None,
    out: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Comparison:
    """Train strategies under equal conditions, once a seed, and say what that shows.

    data        what `fit` takes; or a Recipe, a recipe.toml, a Run or its folder, of which everything is
                taken but the rate, and what belongs to a rule or schedule that a strategy does not have
    strategies  {name: settings in which it differs, or a Rule}; or names of rules. A strategy that gives no
                lr has it measured first, by short runs on another seed; lr=None is the rule's own
    seeds       how many; runs of one seed share start, split and order. Default: as few as can separate so
                many strategies (6 of two). One is allowed, and shows nothing but itself
    equal       "steps", "time" (needs a budget in seconds) or "gradients", where rules of two passes get half
                the steps. Default: time for a budget in seconds, else steps
    reference   the strategy whose median last loss is the target of times; default the first
    out         folder; default runs/compare-<name>. The same question goes on where it was, and with more
                seeds it grows
    settings    every other setting of `fit`, the same for all; lr= here pins that of all

    Returns the Comparison. Raises UserError for what cannot be compared, before anything is trained."""
    recipe, brought, name = _recipe_of(data)
    if recipe is not None and settings.keys() & CONTENT:
        recipe |= {"data_fingerprint": None}
    settings = settings if recipe is not None else {"data": data, **settings}
    told = {"recipe": recipe, "brought": brought, "seeds": seeds, "equal": equal, "reference": reference}
    asked = planned(strategies, settings, **told)
    asked = _with_fingerprint(asked)
    place = Place(out) if out is not None else plans.free(RUNS / f"compare-{name}", asked)
    if not is_comparison(place.path):
        _check(place, asked)
    return _held(place, asked)


def go_on_comparing(folder: str | os.PathLike[str]) -> Comparison:
    """Go on with a comparison that was stopped or killed; one that is done is judged anew."""
    place = Place(folder)
    asked = plans.read(place.plan)
    if lost := asked.objects():
        raise UserError(
            f"What this comparison was made with was partly Python's ({', '.join(lost)}), which a file "
            "cannot hold. Call steepest.compare with the same arguments and out= this folder; it goes on."
        )
    return _held(place, asked)


def _held(place: Place, asked: Plan) -> Comparison:
    """The comparison in a folder that this process alone writes to."""
    place.create()
    with place.lock(), machine.kept():
        if place.plan.exists():
            plans.check_same(place, asked)
        write_atomic(place.plan, asked.relative_to(place.path).to_toml().encode())
        return _course(place, asked, Console())


def _course(place: Place, asked: Plan, console: Console) -> Comparison:
    """Do what is left, told on the console, and judge."""
    before = Comparison(place.path, asked=asked)
    total, done = len(asked.names) * asked.seeds, len(before.results)
    console.print(f"comparison: {place.path}", highlight=False, soft_wrap=True)
    try:
        with Bar(before.verdict.metric, total, done, console) as bar:
            complete(asked, place, _train, bar)
    except (Stopped, Interrupted, KeyboardInterrupt) as stopped:
        left = Comparison(place.path, asked=asked)
        left.report()
        console.print(f"stopped; go on: steepest resume {place.path}", highlight=False, soft_wrap=True)
        if isinstance(stopped, KeyboardInterrupt):  # between two runs, where nobody holds the signal
            raise Interrupted(signal.SIGINT) from None
        if isinstance(stopped, Interrupted):
            raise
        return left
    ended = Comparison(place.path, asked=asked)
    show(ended.verdict, console)
    console.print(f"report: {ended.report()}", highlight=False, soft_wrap=True)
    return ended


def _check(place: Place, asked: Plan) -> None:
    """Raises UserError for what `fit` would refuse, of any strategy, and for what cannot be judged."""
    if place.recipe.exists():
        raise UserError(f"{str(place.path)!r} holds a run. Give the comparison another folder with out=.")
    with machine.kept():
        for one in asked.strategies:
            recipe, given = resolved(asked.settings_of(one, asked.seed_numbers[0], None))
            if build(recipe, given.apart()).prepared.val is None:
                raise UserError(
                    "Strategies are compared by the validation part, and there is none. Give val=0.15, or "
                    "data of its own; the test part is for the one look at the end."
                )


def _train(folder: Path, settings: Mapping[str, Any]) -> None:
    """One run in silence, begun or gone on with; where it fails its folder says so."""
    place, quiet = Folder(folder), Console(quiet=True, file=io.StringIO())
    recipe, given = resolved(settings)
    given = given.apart()
    with suppress(Diverged):
        if place.recipe.exists():
            held = {name: getattr(given, name) for name in (*OBJECTS, *HOOKS)}
            go_on(place, {name: value for name, value in held.items() if value is not None}, None, quiet)
        else:
            begin(place, recipe, given, quiet)


def _with_fingerprint(asked: Plan) -> Plan:
    """The plan that knows what its data are, so that other data are another question."""
    recipe, given = resolved(asked.shared)
    if recipe.data_fingerprint is not None:
        return asked
    source = read(recipe, given, "data")
    if given.data is not None and read(recipe, given, "data").fingerprint != source.fingerprint:
        raise UserError(
            f"The data {source.name!r} come otherwise at every reading, so that runs of one seed would be no "
            "pairs. Give arrays, a Dataset, or a loader whose order is the same each time."
        )
    return replace(asked, shared={**asked.shared, "data_fingerprint": source.fingerprint or None})


def _recipe_of(data: Any) -> tuple[dict[str, Any] | None, set[str], str]:
    """(the settings of an earlier run, or None where `data` are data; those of them that came along with a
    measured schedule; a name for the folder)."""
    if isinstance(data, Recipe):
        return _inherited(data.model_dump()), set(), name_of(data)
    if isinstance(data, Run):
        return _inherited(_of_run(data)), _brought(data), data.folder.name
    path = Path(data) if isinstance(data, str | Path) else None
    if path is not None and is_comparison(path):
        raise UserError(f"{str(path)!r} is a comparison. Go on with it: steepest resume {path}")
    if path is not None and Folder(path).recipe.exists():
        return _inherited(_of_run(Run(path))), _brought(Run(path)), path.resolve().name
    if path is not None and path.suffix == ".toml":
        name = path.resolve().parent.name if path.stem == "recipe" else path.stem
        return _inherited(settings_in(path)), set(), name
    written, _ = separate({"data": data})
    return None, set(), name_of(Recipe.of(written))


def _of_run(run: Run) -> dict[str, Any]:
    """Its settings, with what was chosen in it in the place of what had been left open."""
    left, chosen = run.recipe.open, run.chosen
    names = {*left, "hyper"} if "rule" in left else set(left)
    names |= COURSE if {"schedule", "stop"} & names else set[str]()
    return run.recipe.provisional().model_dump() | {key: chosen[key] for key in names & chosen.keys()}


def _brought(run: Run) -> set[str]:
    """Settings that nobody has said and a measured schedule has brought along."""
    left = run.recipe.open
    said = {"average"} if run.recipe.average is not None else set[str]()
    said |= {"stop", "min_delta"} if "stop" in left else set[str]()
    return COURSE - said if "schedule" in left else set()


def _inherited(recipe: dict[str, Any]) -> dict[str, Any]:
    if str(recipe.get("data", "")).startswith(MARK):
        raise UserError(
            "The data of this run were an object of Python, which its recipe cannot hold. Give the data "
            "themselves and the settings beside them: compare((X, y), strategies, …)."
        )
    return recipe
