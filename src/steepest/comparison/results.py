"""`Result`: what one run of a comparison came to, read from its folder."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from steepest.comparison.conditions import axis_of
from steepest.comparison.cost import gradients_a_step
from steepest.comparison.plan import Plan
from steepest.files import Folder, write_atomic
from steepest.optim import rules
from steepest.recipe import Recipe
from steepest.run import Run
from steepest.train.given import MARK, separate

DONE = ("finished", "failed")


@dataclass(frozen=True)
class Result:
    """One run.   value   the metric that is judged, of the weights that the run ships; None where it failed
    at, values      the same metric at each evaluation, over what is equal
    spent           steps, seconds and gradient evaluations, all of the run and of its search
    metrics         all others at the end, test/… among them"""

    strategy: str
    seed: int
    folder: str
    status: str
    why: str
    value: float | None
    at: Sequence[float]
    values: Sequence[float]
    spent: dict[str, float]
    metrics: dict[str, float]
    lr: float | None

    @property
    def failed(self) -> bool:
        """Whether there is nothing to judge."""
        return self.value is None


def is_done(folder: Path) -> bool:
    """Whether the run in this folder has come to an end, good or bad."""
    return Folder(folder).recipe.exists() and Run(folder).status in DONE


def read(plan: Plan, strategy: str, seed: int, folder: Path) -> Result:
    """What the run in a folder, which has ended, came to."""
    run, recipe = Run(folder), Run(folder).recipe
    told = json.loads(Folder(folder).result.read_text())
    cost = _cost(plan, strategy, recipe)
    column, _ = axis_of(plan.equal, plan.budget)
    at, values = _curve(folder, column, recipe.monitor)
    value = run.metrics.get(recipe.monitor, math.nan)
    good = run.status == "finished" and math.isfinite(value)
    chosen = run.chosen
    lost = math.ceil(chosen.get("gradients", 0) - chosen.get("reused", 0))  # by a search, and not given back
    lr = chosen.get("lr") if recipe.lr == "auto" else recipe.lr
    each = cost if plan.equal == "gradients" else 1.0
    return Result(
        strategy=strategy,
        seed=seed,
        folder=folder.name,
        status=run.status,
        why=str(told.get("why", "")),
        value=value if good else None,
        at=[(x + lost) * each for x in at] if column == "step" else [x * each for x in at],
        values=values,
        spent={
            "steps": run.steps + lost,
            "seconds": told.get("seconds", 0.0),
            "gradients": (run.steps + lost) * cost,
        },
        metrics={name: number for name, number in run.metrics.items() if math.isfinite(number)},
        lr=lr if isinstance(lr, float) else None,
    )


def write(path: Path, results: Sequence[Result]) -> None:
    """results.jsonl: one run a line."""
    lines = (json.dumps(plain(asdict(one)), ensure_ascii=False) for one in results)
    write_atomic(path, "".join(line + "\n" for line in lines).encode())


def _curve(folder: Path, column: str, monitor: str) -> tuple[list[float], list[float]]:
    """The metric at each evaluation that gave one; rows of the guard hold none."""
    file = Folder(folder).metrics
    if not file.exists():
        return [], []
    rows = Run(folder).history
    if column not in rows.columns or monitor not in rows.columns:
        return [], []
    held = rows.select(pl.col(column, monitor).cast(pl.Float64, strict=False)).drop_nulls()
    return held[column].to_list(), held[monitor].to_list()


def _cost(plan: Plan, strategy: str, recipe: Recipe) -> float:
    """Gradient evaluations of one step; those of ordinary rules where nobody can tell: of a rule that the run
    itself chose, and of a person's own that is not at hand."""
    settings = next(one.settings for one in plan.strategies if one.name == strategy)
    own = separate({**plan.shared, **settings})[1].rule
    if own is not None:
        return gradients_a_step(own)
    name = recipe.rule.removeprefix(MARK)
    if name.rpartition("+")[2] not in rules.registry():
        return 1.0
    seldom = {key: value for key, value in recipe.hyper.items() if key == "every"}
    return gradients_a_step(rules.named(name, **seldom))


def plain(value: Any) -> Any:
    """The same with None for numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
