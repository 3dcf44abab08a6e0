"""What a search by trials has found, as evidence: all trials together, and each setting of the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steepest.data.batches import count
from steepest.evidence import Evidence
from steepest.tuning.space import Space
from steepest.tuning.trials import Terms


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
