"""`fit`: data in, a tested and explained run out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steepest.commands.lifecycle import begin
from steepest.commands.opening import opened
from steepest.files import Folder
from steepest.optim.rule import Rule
from steepest.recipe import TUNED, Recipe, settings_in
from steepest.run import Run
from steepest.train import machine
from steepest.train.given import MARK, separate

RUNS = Path("runs")
CONTENT = {"data", "target", "features", "drop", "sample_weight", "split_by"}
"""Settings that say what is read: with another one a recipe's fingerprint says nothing."""


def fit(data: Any, *, out: str | os.PathLike[str] | None = None, **settings: Any) -> Run:
    """Train a network on data, test it once, and leave a run folder that explains itself.

    data      "digits" and other bundled names; a .csv, .tsv, .parquet, .json or .npz file; (X, y) or
              (X, y, weight); a pandas or polars frame with target=; a torch Dataset; a DataLoader; a
              recipe.toml, which is repeated
    out       run folder; default runs/<name>, numbered where that is taken
    settings  every field of `Recipe` (target, budget, model, rule, lr, batch_size, …); where it makes sense
              an object: model=net, loss=function, rule=rules.Lion(lr=1e-4), schedule=Cosine(0.1, 500)
              Of rule, lr, batch_size, schedule and weight_decay those are measured that are not said. Where a
              rate is, the others have the defaults of `Recipe`; lr=None is the default of the rule
    metrics   {name: function(outputs, target) → number}, measured beside the usual ones
    log       loggers: objects with log(metrics, step), config(settings), close(status)
    on_step, on_evaluation   functions called with the loop (and the row) after each

    Returns the Run. Raises UserError for what cannot be done, before anything is trained."""
    written, given = separate(_settings(data, settings))
    recipe = opened(Recipe.of(written), given)
    folder = Folder(out) if out is not None else numbered(name_of(recipe))
    with machine.kept():
        return begin(folder, recipe, given)


def _settings(data: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as given, over those of a recipe file where `data` is one."""
    if isinstance(data, str | Path) and Path(data).suffix == ".toml":
        anew = {"data_fingerprint": None} if settings.keys() & CONTENT else {}
        return _held(Path(data), settings) | anew | dict(settings)
    return {"data": data} | dict(settings)


def _held(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe file says; of one that a run wrote, without the "auto" that these settings close."""
    held = settings_in(path)
    if held.get("data_fingerprint", "none") == "none":  # written by hand: it means what it says
        return held
    rate = "lr" in settings or isinstance(settings.get("rule"), Rule) or callable(settings.get("schedule"))
    closed = TUNED if rate else ("rule",) if "hyper" in settings else ()
    return {key: value for key, value in held.items() if key not in closed or value != "auto"}


def name_of(recipe: Recipe) -> str:
    """digits of "digits", churn of "./churn.csv", dataframe of "object pandas.DataFrame"."""
    if not recipe.data.startswith(MARK):
        return Path(recipe.data).stem
    kind = recipe.data.rpartition(".")[2].lower()
    return "arrays" if kind in ("tuple", "dict") else kind


def numbered(name: str) -> Folder:
    """runs/name, or runs/name-2, runs/name-3, … where the ones before exist."""
    places = (RUNS / (name if count == 1 else f"{name}-{count}") for count in range(1, 10**6))
    return Folder(next(place for place in places if not place.exists()))
