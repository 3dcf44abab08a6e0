"""Pages from the templates beside this file, and numbers as they are written for people."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

SHARES = ("accuracy", "precision", "recall", "f1")
"""Metrics that are shares of a whole, shown in per cent."""

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def render(template: str, parts: Mapping[str, Any]) -> bytes:
    """The page that a template makes of `parts`. Every text in them is escaped; a part that the template
    asks for and that is not there is an error."""
    return _environment().get_template(f"{template}.html.jinja").render(parts).encode()


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # when the first page is written

    found = Environment(
        loader=PackageLoader("steepest.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {"number": number, "share": share, "duration": duration, "setting": setting}
    return found


def _printable(value: Any) -> Any:
    """Text without the characters that no page may hold; what is no text, or markup already, as it is."""
    return (
        _UNPRINTABLE.sub("�", value) if isinstance(value, str) and not hasattr(value, "__html__") else value
    )


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


def setting(value: Any) -> str:
    """A setting to its last digit: people copy it."""
    if value is None or value == "none":
        return "–"
    if isinstance(value, list):
        return ", ".join(map(setting, value)) or "–"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {setting(inner)}" for name, inner in value.items()) or "–"
    return str(value)
