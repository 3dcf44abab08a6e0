"""Papers of rules in wrappers, by the names that steepest gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from papers import wrapped
from papers.adam import adam, lion
from papers.classical import sgd
from papers.paper import Array, Gradient, Paper, Path, Rate

ADAM = ("beta1", "beta2", "eps")


def around(
    path: Path, inner: Callable[..., Array], its: tuple[str, ...], names: dict[str, str], **settings: Any
) -> Path:
    """A wrapper's path around a rule: `its` numbers, and the wrapper's own by their `names` in steepest."""

    def made(w: Array, gradient: Gradient, lr: Rate, *, weight_decay: float, **numbers: Any) -> Any:
        own = {name: numbers[key] for key, name in names.items()}
        within = {name: numbers[name] for name in its}
        return path(w, gradient, lr, inner, within, weight_decay, **own, **settings)

    return made


AHEAD = {"sync_every": "every", "sync_share": "share"}
FREE = {"free_beta": "beta", "free_power": "power", "free_warmup": "warmup"}
CAUTIOUS = around(wrapped.cautious, adam, ADAM, {}, clamped=True)
WRAPPED = {
    "cautious_clamped+adamw": Paper("", CAUTIOUS),
    "cautious_clamped+lion": Paper("", around(wrapped.cautious, lion, ADAM[:2], {}, clamped=True)),
    "lookahead+adamw": Paper("", around(wrapped.lookahead, adam, ADAM, AHEAD)),
    "schedule_free+sgd": Paper("", around(wrapped.schedule_free, sgd, (), FREE), ships=True),
}
