"""report.html of a comparison: one file that needs nothing else, made from its folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from steepest.comparison import picture, words
from steepest.comparison.findings import Finding
from steepest.comparison.plan import Plan
from steepest.comparison.results import Result
from steepest.comparison.verdict import Standing, Verdict
from steepest.evidence import Evidence
from steepest.recipe import PATHS
from steepest.report import choices
from steepest.report.markup import Markup, duration, element, joined, number, table
from steepest.report.page import document


def render(
    name: str,
    plan: Plan,
    verdict: Verdict,
    results: Sequence[Result],
    evidence: Sequence[Evidence],
    axis: str,
    place: str,
) -> str:
    """The page as text.   place: its folder, as a shell takes it"""
    parts = {
        "Strategies": _standings(verdict),
        "Differences": _differences(verdict),
        "Curves": _pictures(verdict, results, axis),
        "Rates": _rates(evidence),
        "Runs": _runs(verdict, results),
        "Question": _question(plan),
    }
    links = (element("a", title, href=f"#{title.lower()}") for title in parts)
    sections = (
        element("section", element("h2", title), part, id=title.lower()) for title, part in parts.items()
    )
    nav = element("nav", *links, aria_label="Sections")
    return document(name, _header(name, verdict), element("main", nav, *sections), _footer(place))


def _header(name: str, verdict: Verdict) -> Markup:
    word = "finished" if verdict.done == verdict.asked else "not finished"
    top = element(
        "p",
        element("span", "steepest", class_="brand"),
        element("span", word, class_=f"status {word.replace(' ', '-')}"),
        class_="top",
    )
    said = element("ul", *(element("li", sentence) for sentence in words.sentences(verdict)))
    headline = element("p", words.headline(verdict), class_="headline")
    return element("header", top, element("h1", name), headline, said)


def _standings(verdict: Verdict) -> Markup:
    lead = element(
        "p",
        f"Means over seeds, of the weights that each run ships. What is judged is {verdict.metric}; the test "
        "part decides nothing.",
        class_="lead",
    )
    kinds = dict.fromkeys(kind for one in verdict.standings for kind in one.metrics)
    tested = [kind for kind in kinds if kind.startswith("test/")]
    head = ["strategy", "rate", verdict.metric, "± sd", "reached the target", "failed", "steps", "time"]
    rows = ([one.strategy, *_row(one)] for one in verdict.standings)
    parts = [lead, table(head, rows, "l" + "r" * (len(head) - 1))]
    if tested:
        seen = (
            [one.strategy, *(number(one.metrics.get(kind)) for kind in tested)] for one in verdict.standings
        )
        parts += [
            element("h3", "on the test part"),
            table(["strategy", *tested], seen, "l" + "r" * len(tested)),
        ]
    return joined(parts)


def _row(one: Standing) -> list[str]:
    return [
        number(one.lr),
        number(one.mean),
        number(one.spread),
        f"{one.reached} of {one.runs}",
        str(one.failed),
        number(one.spent.get("steps")),
        duration(one.spent.get("seconds")),
    ]


def _differences(verdict: Verdict) -> Markup:
    lead = element(
        "p",
        "Pairs share the seed: start, split and order of the examples. Strategies are called separable where "
        "the 95 % interval of the mean difference (BCa bootstrap) leaves out 0 and the sign-flip test, after "
        f"Holm among all comparisons, stays below {verdict.level:.3g}. Intervals from fewer than ten pairs "
        "are too short; the test guards against that.",
        class_="lead",
    )
    head = ["", "mean", "95 % interval", "p", "p after Holm", "pairs", "verdict"]
    metric = table(head, map(_difference, verdict.differences), "lrrrrrl")
    parts = [lead, element("h3", f"{verdict.metric}, first less second"), metric]
    if verdict.times:
        title = (
            f"{verdict.unit.capitalize()} to the target, first over second; a miss counts as the whole run"
        )
        parts += [element("h3", title), table(head, map(_ratio, verdict.times), "lrrrrrl")]
    return joined(parts)


def _difference(found: Finding) -> list[str]:
    return _cells(found, lambda value: f"{value:+.3g}", " − ")


def _ratio(found: Finding) -> list[str]:
    return _cells(found, lambda value: f"{math.exp(value):.3g}", " / ")


def _cells(found: Finding, told: Any, between: str) -> list[str]:
    span = f"{told(found.low)} … {told(found.high)}" if math.isfinite(found.low) else "–"
    word = "separable" if found.separable else f"not separable; {words.wanted(found)}"
    return [
        f"{found.first}{between}{found.second}",
        told(found.mean) if math.isfinite(found.mean) else "–",
        span,
        number(found.p),
        number(found.adjusted),
        str(found.pairs),
        word,
    ]


def _pictures(verdict: Verdict, results: Sequence[Result], axis: str) -> Markup:
    names = [one.strategy for one in verdict.standings]
    runs = {name: [one for one in results if one.strategy == name] for name in names}
    shown = {name: held for name, held in runs.items() if any(len(one.at) > 0 for one in held)}
    if not shown:
        return element("p", "No run has come to an evaluation.", class_="lead")
    said = f"{verdict.metric} of each strategy over {axis}"
    drawn = picture.curves(runs, axis, verdict.target, said)
    small = element(
        "small", "median and middle half of the seeds; one that has ended stays there; dashed: the target"
    )
    figures = [element("figure", element("h3", verdict.metric, " ", small), drawn, picture.legend(names))]
    if verdict.target is not None:
        said = f"share of runs at the target over {axis}"
        drawn = picture.profile(runs, axis, verdict.target, verdict.falls, verdict.limit, said)
        small = element("small", "share of the runs that have reached and held it; misses never do")
        title = element("h3", "profile of the target ", small)
        figures.append(element("figure", title, drawn, picture.legend(names)))
    return element("div", *figures, class_="figures")


def _rates(evidence: Sequence[Evidence]) -> Markup:
    if not evidence:
        said = "No rate was measured beforehand: strategies were given theirs, or measure it in each run."
        return element("p", said, class_="lead")
    return choices.section([asdict(one) for one in evidence])


def _runs(verdict: Verdict, results: Sequence[Result]) -> Markup:
    head = ["run", "seed", "status", verdict.metric, "steps", "time", "why it ended"]
    rows = (
        [
            element("a", one.strategy, href=f"{one.folder}/report.html"),
            str(one.seed),
            one.status,
            number(one.value),
            number(one.spent["steps"]),
            duration(one.spent["seconds"]),
            one.why,
        ]
        for one in results
    )
    return table(head, rows, "lrlrrrl")


def _question(plan: Plan) -> Markup:
    asked = plan.asked()
    own = {
        "equal": plan.equal,
        "budget": plan.budget,
        "seeds": f"{plan.seed_numbers[0]} to {plan.seed_numbers[-1]}",
        "reference": plan.reference,
    }
    sides = {f"strategy {name}": told for name, told in asked["strategies"].items()}
    parts = {"conditions": own, **sides, "shared by all": asked["shared"]}
    groups = (element("section", element("h3", title), _facts(told)) for title, told in parts.items())
    return element("div", *groups, class_="columns")


def _facts(told: Mapping[str, Any]) -> Markup:
    # Paths stand as seen from the root in a question.
    shown = {key: str(value).replace("./", "/", 1) if key in PATHS else value for key, value in told.items()}
    pairs = (joined((element("dt", key), element("dd", str(value)))) for key, value in shown.items())
    return element("dl", *pairs, class_="facts")


def _footer(place: str) -> Markup:
    said = (
        element("code", f"steepest resume {place}"),
        " goes on with this comparison; the same command with more seeds adds to it.",
    )
    return element("footer", element("p", *said))
