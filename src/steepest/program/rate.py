"""The rate of learning, as a function of the step."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from steepest.optim import schedule
from steepest.optim.schedule import Schedule
from steepest.program.facts import Facts, Piece, fill_in
from steepest.train import budget
from steepest.train.given import MARK
from steepest.train.settled import LEVEL

RATE = '''def rate(step):
    """What LR is multiplied by in a step (1, 2, …): {name}."""
{body}'''

SEARCHED = """if step <= {begin}:
    return 1.0
return max(0.0, ({total} + 1 - step) / ({total} - {begin}))"""
"""What a search lays out: the level that arms were compared at, then a line to zero."""

RISE = """if step <= {warmup}:
    return step / {warmup}
"""


def piece(facts: Facts) -> Piece:
    """`rate`, relative to LR."""
    recipe, course = facts.recipe, facts.course
    if course:
        lines = (RISE if course["warmup"] else "") + SEARCHED
        body = textwrap.indent(lines.format(**course), "    ")
        return Piece(RATE.format(name="level, then a line to zero", body=body))
    if recipe.schedule.startswith(MARK):
        return _open(f"the schedule, which was an object ({recipe.schedule.removeprefix(MARK)})")
    if ":" in recipe.schedule:
        return _imported(recipe.schedule)
    if recipe.rule.startswith(MARK) and recipe.lr is None:
        return _open("the learning rate, which a schedule within the rule gave")
    warmup = budget.parse(recipe.warmup, "warmup").steps(facts.per_epoch) or 0
    if recipe.schedule in LEVEL and not warmup:
        return Piece(RATE.format(name=recipe.schedule, body="    return 1.0"))
    curve = schedule.named(recipe.schedule, 1.0, facts.steps, warmup)
    return Piece(RATE.format(name=recipe.schedule, body=textwrap.indent(lines_of(curve), "    ")))


def _open(what: str) -> Piece:
    body = textwrap.indent(fill_in("rate", what), "    ")
    return Piece(RATE.format(name="yours to fill in", body=body), notes=("the rate is yours to fill in",))


def _imported(path: str) -> Piece:
    """A function of the person's, which gives the rate itself."""
    module, _, function = path.partition(":")
    code = RATE.format(name=path, body="    return given_rate(step) / LR")
    return Piece(code, (f"from {module} import {function} as given_rate",))


def lines_of(curve: Schedule) -> str:
    """The body of a function of `step` that returns what this curve of steepest.schedule gives, peak 1."""
    return CURVES[type(curve)](curve)


def _warm_up(curve: schedule.WarmUp) -> str:
    assert isinstance(curve.then, Schedule)
    return (
        f"rise = min(step / {curve.warmup}, 1.0)\n"
        f"step = max(step - {curve.warmup}, 1)\n"
        f"{_last_returns(lines_of(curve.then), 'rise * ')}"
    )


def _last_returns(lines: str, factor: str) -> str:
    """The same lines with what they return multiplied."""
    whole = lines.replace("return ", f"return {factor}(")
    return "\n".join(f"{line})" if "return " in line else line for line in whole.splitlines())


def _restarts(curve: schedule.WarmRestarts) -> str:
    return (
        f"length, step = {curve.first}, step - 1\n"
        "while step >= length:\n"
        f"    step, length = step - length, {curve.growth} * length\n"
        "return (1 + math.cos(math.pi * step / length)) / 2"
    )


def _cyclic(curve: schedule.Cyclic) -> str:
    return (
        f"x = (step - 1) % {curve.up + curve.down}\n"
        f"height = x / {curve.up} if x < {curve.up} else 1 - (x - {curve.up}) / {curve.down}\n"
        f"return {curve.floor!r} + {curve.peak - curve.floor!r} * height"
    )


def _one_cycle(curve: schedule.OneCycle) -> str:
    top, last = curve.rise * curve.total - 1, curve.total - 1
    low, end = 1 / curve.start_divisor, 1 / (curve.start_divisor * curve.end_divisor)
    return (
        f"x = min(step, {curve.total}) - 1\n"
        f"if x < {top!r}:\n"
        f"    return {low!r} + (1 - {low!r}) * (1 - math.cos(math.pi * x / {top!r})) / 2\n"
        f"return 1 + ({end!r} - 1) * (1 - math.cos(math.pi * (x - {top!r}) / {last - top!r})) / 2"
    )


def _stable(curve: schedule.WarmupStableDecay) -> str:
    start = curve.total - max(1, round(curve.decay * curve.total))
    rise = f"if step <= {curve.warmup}:\n    return step / {curve.warmup}\n" if curve.warmup else ""
    return f"{rise}return 1 - min(max(step - 1 - {start}, 0) / {curve.total - start}, 1.0)"


CURVES: dict[type[Schedule], Callable[..., str]] = {
    schedule.Constant: lambda c: "return 1.0",
    schedule.Step: lambda c: f"return {c.factor!r} ** ((step - 1) // {c.every})",
    schedule.Exponential: lambda c: f"return {c.factor!r} ** (step - 1)",
    schedule.Polynomial: lambda c: (
        f"return (1 - min((step - 1) / {c.total}, 1.0))" + (f" ** {c.power:g}" if c.power != 1 else "")
    ),
    schedule.Cosine: lambda c: f"return (1 + math.cos(math.pi * min((step - 1) / {c.total}, 1.0))) / 2",
    schedule.InverseSqrt: lambda c: (
        f"return min(step / {max(c.warmup, 1)}, math.sqrt({max(c.warmup, 1)} / step))"
    ),
    schedule.WarmRestarts: _restarts,
    schedule.Cyclic: _cyclic,
    schedule.OneCycle: _one_cycle,
    schedule.WarmupStableDecay: _stable,
    schedule.WarmUp: _warm_up,
}
"""Curve → the lines of its function; those that `schedule.named` makes, from a peak of 1."""
