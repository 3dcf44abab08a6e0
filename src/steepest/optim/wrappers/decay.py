"""Kinds of weight decay, around any rule that has none in its direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, Literal, TypeAlias

from steepest.optim.errors import UserError, did_you_mean
from steepest.optim.quantity import Quantity
from steepest.optim.rule import (
    QUANTITIES,
    Number,
    Rule,
    coupled,
    depart,
    depart_and_decay,
    descend,
    descend_and_decay,
    uncoupled,
)
from steepest.optim.wrappers.making import Bodies, Kind, Knob, wrapped, wrapper

DecayKind: TypeAlias = Literal["l2", "decoupled", "fixed", "corrected", "cautious"]
Follow: TypeAlias = Callable[..., Any]

DECAY = Knob(0.01, QUANTITIES["weight_decay"], instead=True)
FIXED = Knob(1e-5, Quantity("the share of a weight that is lost", "per step", high=1), instead=True)
PEAK = Knob(1e-3, Quantity("the largest learning rate of the run", "units of lr", open=True), instead=True)

_WITHOUT = {descend: descend, descend_and_decay: descend, depart: depart, depart_and_decay: depart}
"""How weights follow a direction where nothing decays."""
_WITH = {descend: descend_and_decay, depart: depart_and_decay}
"""The same with decoupled decay."""


def decayed(rule: Rule, kind: DecayKind, weight_decay: Number, peak: Number | None = None) -> Rule:
    """The rule with another kind of weight decay in place of its own.   λ: weight_decay

    l2          g ← g + λw, before everything: the penalty ½λw²
    decoupled   w ← w - lr·(u + λw)      Loshchilov & Hutter 2019, as PyTorch and optax do it
    fixed       w ← w - lr·u - λw        the same as first published: λ does not follow lr
    corrected   w ← w - lr·(u + lr/peak·λw)   Defazio 2025, arXiv:2506.02285; peak: the largest lr of the run,
                where it is not given lr
    cautious    w ← w - lr·(u + λw·[u·w ≥ 0])   Chen et al. 2025, arXiv:2510.12402

    UserError where the decay belongs to the rule's direction, as LAMB's does. State: none."""
    name = f"{kind}decay"
    if kind not in _KINDS:
        raise UserError(f"There is no kind of weight decay {kind!r}.{did_you_mean(str(kind), _KINDS)}")
    if kind != "corrected":
        return wrapped(name, rule, weight_decay=weight_decay)
    peak = rule.lr if peak is None else peak
    if callable(peak):
        raise UserError("Corrected weight decay goes by the largest lr, and lr is a schedule: give peak=.")
    return wrapped(name, rule, weight_decay=weight_decay, peak=peak)


def _plain(inner: Kind) -> Follow:
    """How weights of a rule follow its direction without decay; UserError where that cannot be told."""
    plain = _WITHOUT.get(inner.follow)
    inside = "weight_decay" in {field.name for field in fields(inner)}
    apart = inner.couple is coupled or inner.follow in (descend_and_decay, depart_and_decay)
    if plain is None or inner.couple not in (uncoupled, coupled) or (inside and not apart):
        raise UserError(
            f"{inner.__name__}'s weight decay is part of its formula and cannot be changed for another kind. "
            "Set its own weight_decay, or choose another rule."
        )
    return plain


def _following(inner: Kind, follow: Follow, couple: Follow = uncoupled, share: Any = None) -> Bodies:
    """Bodies that decay by these, and by no correction that the rule within makes of its weight_decay."""

    def scalars(self: Any, xp: Any, t: Any, **shared: Any) -> dict[str, Any]:
        pull = self.weight_decay if share is None else self.weight_decay * share(self)
        return inner.scalars(self, xp, t, **shared) | {"weight_decay": pull}

    return {"couple": staticmethod(couple), "follow": staticmethod(follow), "scalars": scalars}


@wrapper("L2Decay", decayed, weight_decay=DECAY)
def _l2(inner: Kind) -> Bodies:
    return _following(inner, _plain(inner), coupled)


@wrapper("DecoupledDecay", decayed, weight_decay=DECAY)
def _decoupled(inner: Kind) -> Bodies:
    return _following(inner, _WITH[_plain(inner)])


@wrapper("CorrectedDecay", decayed, weight_decay=DECAY, peak=PEAK)
def _corrected(inner: Kind) -> Bodies:
    return _following(inner, _WITH[_plain(inner)], share=lambda rule: rule.lr / rule.peak)


@wrapper("FixedDecay", decayed, weight_decay=FIXED)
def _fixed(inner: Kind) -> Bodies:
    plain = _plain(inner)

    def follow(xp: Any, k: Any, w: Any, u: Any) -> Any:
        return plain(xp, k, w, u) - k.weight_decay * w

    return _following(inner, follow)


@wrapper("CautiousDecay", decayed, weight_decay=DECAY)
def _cautious(inner: Kind) -> Bodies:
    plain = _plain(inner)

    def follow(xp: Any, k: Any, w: Any, u: Any) -> Any:
        pull = k.lr * (k.weight_decay * w)
        return plain(xp, k, w, u) - xp.where(u * w >= 0, pull, 0.0 * w)

    return _following(inner, follow)


_KINDS = ("l2", "decoupled", "fixed", "corrected", "cautious")
