"""A verdict in sentences, each no stronger than what the runs allow."""

from __future__ import annotations

import math
from collections.abc import Sequence

from steepest.comparison.plan import LEVEL
from steepest.comparison.statistics import least_pairs
from steepest.comparison.verdict import MOST, POWER, Finding, Standing, Verdict
from steepest.report.rendering import duration, number


def headline(verdict: Verdict) -> str:
    """The one sentence to take home."""
    if verdict.done < verdict.asked:
        return (
            f"{verdict.done} of {verdict.asked} runs are done; what follows is of these alone, a look on the "
            "way and no verdict to stop at."
        )
    lead = leader(verdict)
    if lead is None:
        return "Every run failed: there is nothing to compare."
    dead = [one.strategy for one in verdict.standings if one.failed == one.runs]
    others = [one.strategy for one in verdict.standings if one.strategy not in (lead.strategy, *dead)]
    lost = f"{listed(dead)} failed in every seed." if dead else ""
    if not others:
        return f"Only {lead.strategy} came to a number: {lost}"
    return f"{_standing(verdict, lead.strategy, others)} {lost}".strip()


def _standing(verdict: Verdict, lead: str, others: Sequence[str]) -> str:
    """Whom the leader has surely beaten, and how it stands beside the rest."""
    beaten = {loser for one in verdict.differences if (loser := _beaten_by(verdict, one, lead))}
    worse = [name for name in others if name in beaten]
    beside = {name: _between(verdict, lead, name) for name in others if name not in beaten}
    alike = [name for name, one in beside.items() if one.same and not one.lost]
    above = [name for name, one in beside.items() if one.mean and sides(verdict, one)[0] == name]
    near = [name for name in beside if name not in (*alike, *above)]
    said = [f"{lead} is better than {listed(worse)}"] if worse else []
    if not worse and (near or above):
        said = [_claim(verdict, lead) + (f", not separable from {listed(near)}" if near else "")]
    elif near:
        said.append(f"it is not separable from {listed(near)}")
    said += [f"{name} has the better mean where both ended" for name in above]
    said += [f"{listed([lead, *alike])} did the same in every seed"] if alike else []
    return ("" if worse else "Nothing is decided: ") + "; ".join(said) + "."


def _claim(verdict: Verdict, lead: str) -> str:
    """What sets the leader before the others: its mean, or where another has a better one its failures."""
    sign = 1.0 if verdict.falls else -1.0
    means = {one.strategy: sign * one.mean for one in verdict.standings if math.isfinite(one.mean)}
    return f"{lead} has the best mean" if means[lead] == min(means.values()) else f"{lead} failed least often"


def _between(verdict: Verdict, one: str, other: str) -> Finding:
    return next(found for found in verdict.differences if {found.first, found.second} == {one, other})


def winner(verdict: Verdict) -> str | None:
    """The strategy that is better than every other one that came to a number; None where that cannot be said,
    or not yet."""
    lead = leader(verdict)
    if lead is None or verdict.done < verdict.asked:
        return None
    alive = {one.strategy for one in verdict.standings if one.failed < one.runs} - {lead.strategy}
    beaten = {_beaten_by(verdict, one, lead.strategy) for one in verdict.differences}
    return lead.strategy if alive and alive <= beaten else None


def leader(verdict: Verdict) -> Standing | None:
    """The strategy with the fewest failures, and among these with the best mean; None where all failed."""
    sign = 1.0 if verdict.falls else -1.0
    able = [one for one in verdict.standings if math.isfinite(one.mean)]
    return min(able, key=lambda one: (one.failed, sign * one.mean), default=None)


def sentences(verdict: Verdict) -> list[str]:
    """Failures first, then every difference, then every ratio of times."""
    failed = [
        f"{one.strategy} failed in {one.failed} of {one.runs} seeds; these are misses, and pairs with them "
        "are left out of the differences."
        for one in verdict.standings
        if one.failed
    ]
    return [
        *failed,
        *(difference(verdict, one) for one in verdict.differences),
        *_too_few(verdict),
        *_again(verdict),
        *_of_times(verdict),
        *_otherwise(verdict),
    ]


def tested(verdict: Verdict) -> str:
    """The metric that is judged, on the test part."""
    return f"test/{verdict.metric.partition('/')[2]}"


def _otherwise(verdict: Verdict) -> list[str]:
    """That the test part, on which nothing was chosen, points another way than what is judged."""
    lead, name = leader(verdict), tested(verdict)
    sign = 1.0 if verdict.falls else -1.0
    means = {one.strategy: sign * one.metrics[name] for one in verdict.standings if name in one.metrics}
    best = min(means, key=means.__getitem__, default=None)
    if lead is None or best is None or lead.strategy not in means or not means[best] < means[lead.strategy]:
        return []
    ours, other = (sign * means[one] for one in (lead.strategy, best))
    return [
        f"{name} points the other way: {other:.4g} for {best}, {ours:.4g} for {lead.strategy}. Weights are "
        f"chosen by the validation part, on which they look better than on new examples."
    ]


def columns(verdict: Verdict) -> list[str]:
    """Headings of the table of strategies."""
    return ["strategy", "rate", verdict.metric, "± sd", "reached the target", "failed", "steps", "time"]


def row(one: Standing) -> list[str]:
    """A strategy in that table: what it came to, and at what price."""
    return [
        one.strategy,
        *map(number, (one.lr, one.mean, one.spread)),
        f"{one.reached} of {one.runs}",
        str(one.failed),
        number(one.spent.get("steps")),
        duration(one.spent.get("seconds")),
    ]


def difference(verdict: Verdict, found: Finding) -> str:
    """What the pairs say of two strategies' metric."""
    if found.pairs == 0 or found.same:
        return f"{found.first} and {found.second}: {wanted(found)}."
    mean = f"{verdict.metric} of {found.first} less that of {found.second} is {found.mean:+.3g}"
    if not found.separable:
        more = wanted(found)
        return (
            f"{found.first} and {found.second} are not separable: {mean}{certainty(found)}. "
            f"{more[0].upper()}{more[1:]}."
        )
    best, worst = sides(verdict, found)
    bar = _barred(verdict, best, worst)
    claim = f"{best} is better than {worst}" if not bar else f"{best} is better than {worst} where both ended"
    return f"{claim}: {mean}{certainty(found)}.{bar}"


def sides(verdict: Verdict, found: Finding) -> tuple[str, str]:
    """(the better, the worse) by the mean of the pairs."""
    first_is_better = (found.mean < 0) == verdict.falls
    return (found.first, found.second) if first_is_better else (found.second, found.first)


def certainty(found: Finding) -> str:
    """The interval and the test, in brackets."""
    if not found.known:
        return ""
    among = f" after Holm among {found.among}" if found.among > 1 else ""
    span = f"95 % interval {found.low:.3g} to {found.high:.3g}" if math.isfinite(found.low) else "no interval"
    return f" ({span}; sign-flip p {found.adjusted:.2g}{among}; {found.pairs} pairs)"


def wanted(found: Finding) -> str:
    """How many seeds more would separate two strategies, or why nobody can say."""
    if found.pairs == 0:
        return "no seed in which both came to a number"
    if found.same:
        return "the same in every seed" + (" in which both came to a number" if found.lost else "")
    if not found.known:
        return f"one pair separates nothing, as its spread is unknown: take at least {_more(found.more or 0)}"
    if found.more is None:
        return f"were the difference as seen, it would take more than {MOST} seeds to show it"
    would = f"{_more(found.more)} would separate them"
    return f"were the difference as seen, {would} (power {100 * POWER:.0f} %)"


def _too_few(verdict: Verdict) -> list[str]:
    """That no difference could have been shown, where there are so few pairs."""
    least = least_pairs(verdict.level / max(len(verdict.differences), 1))
    if not any(1 < one.pairs < least for one in verdict.differences):
        return []
    level = f"{verdict.level:.3g}"
    return [f"Fewer than {least} pairs separate nothing here: the sign-flip test cannot fall below {level}."]


def _again(verdict: Verdict) -> list[str]:
    """That there were verdicts before, and what this one is tested at for it."""
    if verdict.level == LEVEL:
        return []
    before, level = listed([str(seeds) for seeds in verdict.earlier]), 100 * verdict.level
    return [
        f"The same was judged before, with {before} seeds. A chance of error that is taken again and again "
        f"adds up: this verdict is tested at {level:.3g} % in place of {100 * LEVEL:g} %."
    ]


def listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _of_times(verdict: Verdict) -> list[str]:
    if verdict.target is None:
        return [f"{verdict.reference} sets no target: all its runs failed."]
    stand = {one.strategy: one for one in verdict.standings}
    held = stand[verdict.reference]
    begin = (
        f"The target is {verdict.metric} {verdict.target:.4g}, the median of {verdict.reference}'s last "
        f"evaluations; {verdict.reference} itself reached and held it in {held.reached} of {held.runs} seeds."
    )
    return [begin, *(_time(verdict, stand[one.first], one) for one in verdict.times)]


def _time(verdict: Verdict, side: Standing, found: Finding) -> str:
    came = f"{side.strategy} reached it in {side.reached} of {side.runs} seeds"
    if found.pairs == 0 or side.reached == 0:
        return f"{came}."
    ratio = math.exp(found.mean)
    span = ""
    if found.known and math.isfinite(found.low):
        span = f", 95 % interval {math.exp(found.low):.3g} to {math.exp(found.high):.3g}"
        span += f", sign-flip p {found.adjusted:.2g}"
    word = "separable" if found.separable else "not separable"
    times = f"{ratio:.3g} times the {verdict.unit} of {verdict.reference}"
    return f"{came}, in {times} ({word}{span}; a miss counts as the whole run)."


def _beaten_by(verdict: Verdict, found: Finding, lead: str) -> str:
    """The strategy that the leader is surely better than, by this finding; empty for none."""
    if not found.separable or lead not in (found.first, found.second):
        return ""
    best, worst = sides(verdict, found)
    return worst if best == lead and not _barred(verdict, best, worst) else ""


def _barred(verdict: Verdict, best: str, worst: str) -> str:
    """Why the better one is not to be called so: it failed where the other did not."""
    failed = {one.strategy: one.failed for one in verdict.standings}
    if failed[best] <= failed[worst]:
        return ""
    return f" But {best} failed more often, and is not called better for it."


def _more(count: int) -> str:
    return f"{count} more seed{'s' if count != 1 else ''}"
