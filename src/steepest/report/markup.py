"""HTML that cannot be written unescaped, and numbers written for people."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

SHARES = ("accuracy", "precision", "recall", "f1")
"""Metrics that are shares of a whole, shown in per cent."""

_VOID = ("img", "meta", "br")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class Markup(str):
    """Text that is HTML already; every other text is escaped on its way into an element."""


def escaped(value: object) -> Markup:
    """`value` as HTML: markup as it stands, anything else as harmless text."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(_UNPRINTABLE.sub("�", str(value))))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """<tag attributes>children</tag>.   class_ stands for class; what is None is left out."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escaped(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{joined(children)}</{tag}>")


def joined(children: Iterable[object]) -> Markup:
    """The children one after the other."""
    return Markup("".join(escaped(child) for child in children))


def table(head: Sequence[object], rows: Iterable[Sequence[object]], align: str = "") -> Markup:
    """A table that scrolls by itself where the page is narrow; `align` holds one of l r per column."""
    sides = align or "l" * len(head)
    top = element(
        "tr", *(element("th", cell, class_=side, scope="col") for cell, side in zip(head, sides, strict=True))
    )
    body = (
        element("tr", *(element("td", cell, class_=side) for cell, side in zip(row, sides, strict=True)))
        for row in rows
    )
    whole = element("table", element("thead", top) if any(head) else "", element("tbody", *body))
    return element("div", whole, class_="scroll")


def number(value: Any) -> str:
    """Four significant digits; a dash for nothing; other things as they are."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e12):
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.4g}"


def share(value: float) -> str:
    """Per cent to one decimal, and as many more as it takes not to round up to a false 100 %."""
    for decimals in (1, 2, 3, 4):
        written = f"{100 * value:.{decimals}f}"
        if value >= 1 or float(written) < 100:
            break
    return f"{written} %"


def measured(metric: str, value: Any) -> str:
    """A metric's value in the unit people know it by; `metric` may be val/accuracy or accuracy."""
    is_share = metric.rpartition("/")[2] in SHARES
    plain = isinstance(value, int | float) and math.isfinite(value)
    return share(value) if is_share and plain else number(value)


def duration(seconds: Any) -> str:
    """Seconds as people say them: 40 ms, 12.3 s, 4 min 10 s, 2 h 5 min."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return number(seconds)
    if 0 < seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
