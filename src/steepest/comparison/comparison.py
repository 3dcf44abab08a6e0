"""`Comparison`: an earlier comparison, opened from its folder."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

from steepest import evidence as records
from steepest.comparison import Place, plan, verdict, words
from steepest.comparison.plan import Plan
from steepest.comparison.runs import Result, plain, so_far, write_results
from steepest.comparison.strategies import unit_of
from steepest.comparison.verdict import Verdict, noted
from steepest.evidence import Evidence
from steepest.files import write_atomic
from steepest.optim.errors import UserError
from steepest.run import Run
from steepest.train.stopping import sign


class Comparison:
    """Strategies that were trained under equal conditions, and what that shows. Opening it trains nothing.

    folder   where it lies"""

    def __init__(self, folder: str | os.PathLike[str], *, asked: Plan | None = None) -> None:
        self.folder = Path(folder)
        self._place = Place(folder)
        if not self._place.plan.exists():
            raise UserError(f"There is no comparison in {str(folder)!r}: it holds no compare.toml.")
        self._plan = asked or plan.read(self._place.plan)

    @cached_property
    def results(self) -> list[Result]:
        """The runs that have ended, one entry each."""
        return so_far(self._plan, self._place)

    @cached_property
    def verdict(self) -> Verdict:
        """Standings, differences with intervals, and ratios of times to the target."""
        metric, falls = self._judged_by()
        return verdict.judged(
            self._plan.names,
            self._plan.reference,
            self.results,
            metric=metric,
            falls=falls,
            asked=len(self._plan.names) * self._plan.seeds,
            unit=unit_of(self._plan.equal, self._plan.budget),
            earlier=[seeds for seeds in noted(self._place.verdict) if seeds < self._plan.seeds],
        )

    @property
    def best(self) -> str | None:
        """The strategy that the verdict calls better than every other that came to a number; None where there
        is none, and before all runs are done."""
        return words.winner(self.verdict)

    @property
    def sentences(self) -> list[str]:
        """The verdict in words, the headline first."""
        return [words.headline(self.verdict), *words.sentences(self.verdict)]

    @property
    def evidence(self) -> list[Evidence]:
        """The rates that were measured."""
        return records.read(self._place.evidence)

    def run(self, strategy: str, seed: int) -> Run:
        """One of its runs."""
        return Run(self._place.run(strategy, seed))

    def report(self) -> Path:
        """Write results.jsonl, verdict.json and report.html anew; the path of the last."""
        from steepest.comparison import page  # with matplotlib and Jinja, when a page is written

        found = self.verdict
        write_results(self._place.results, self.results)
        judged = [*found.earlier, self._plan.seeds] if found.done == found.asked else found.earlier
        told = plain({"sentences": self.sentences, "best": self.best, "looks": judged} | asdict(found))
        write_atomic(self._place.verdict, json.dumps(told, indent=1, ensure_ascii=False).encode())
        text = page.render(self.folder, self._plan, found, self.results, self.evidence)
        write_atomic(self._place.report, text)
        return self._place.report

    def __repr__(self) -> str:
        return f"Comparison({str(self.folder)!r}, {words.headline(self.verdict)})"

    def _judged_by(self) -> tuple[str, bool]:
        """(metric, whether it is to fall), as the runs have settled it."""
        for one in self.results:
            recipe = Run(self.folder / one.folder).recipe
            return recipe.monitor, sign(recipe.monitor, recipe.mode) > 0
        monitor = str(self._plan.shared.get("monitor", "val/loss"))
        return monitor, sign(monitor, str(self._plan.shared.get("mode", "auto"))) > 0
