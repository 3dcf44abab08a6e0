"""docs/conformance.md, from the results of the two commands."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
LIBRARIES = {
    "steepest": ("steepest",),
    "torch": ("torch",),
    "optax": ("optax",),
    "Keras": ("keras",),
    "timm": ("timm",),
    "pytorch-optimizer": ("pytorch-optimizer",),
    "authors' packages": ("schedulefree", "prodigyopt"),
}
"""Columns of the table, and how the names of the peers in them begin."""

SETTINGS = {"defaults": "at defaults", "decay": "with decay"}

Row = dict[str, Any]
Key = tuple[str, str]


def read(name: str) -> tuple[Row, list[Row]]:
    """(what it was made with, results) of a file; nothing where there is none."""
    path = RESULTS / f"{name}.jsonl"
    if not path.exists():
        return {}, []
    made, *rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return made, rows


def page() -> str:
    """The whole page."""
    made, rows = read("conformance")
    peers = [row for row in rows if "rule" in row]
    usual = [row for row in peers if row.get("backend", "jax") == "jax"]
    parts = [
        head(made),
        table(usual),
        disagreements(usual),
        backends([row for row in peers if "backend" in row]),
        facts(row for row in rows if "fact" in row),
        engines(*read("engines")),
    ]
    return "\n".join(line for part in parts for line in part) + "\n"


def head(made: Row) -> Iterator[str]:
    """What is compared, how, with which versions."""
    yield f"""<!-- Made by `python benchmarks/conformance.py document` from benchmarks/results. -->

# Conformance

Every rule is written twice: in `src/steepest/rules`, and from its paper in plain NumPy in float64
(`tests/oracle/papers`), by hands that did not see the first. Both walk 50 steps over a noisy quadratic, and
so does every library that has a rule of that name. The gradient is noisy, some elements have none at some
steps, and one weight starts at zero; weights are vectors, matrices and convolutions of 4 to 24 elements. Each
rule runs at our defaults and again with a weight decay of 0.1, the library's arguments being mapped by hand
(`benchmarks/peers`).

A number is the largest deviation from the paper in any weight after any step, as a share of the longest way
that a weight went. **Bold** is more than rounding can do, and its cause stands below. All is in float64.

```console
python benchmarks/conformance.py libraries
python benchmarks/conformance.py engines
python benchmarks/conformance.py document
```

{measured_on(made)}"""


def measured_on(made: Row) -> str:
    """When, on what, with which versions."""
    versions = ", ".join(f"{name.replace('_', '-')} {one}" for name, one in made["versions"].items())
    return f"Measured {made['time'][:10]} on {made['processor']}, Python {made['python']}:\n{versions}."


def causes(peers: Iterable[Row]) -> dict[str, list[Row]]:
    """The results that disagree, by their causes."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in peers:
        if not row["equal"]:
            found[row.get("cause", "not known")].append(row)
    return found


def table(peers: list[Row]) -> Iterator[str]:
    """Rule by library."""
    yield from ("", "## Rule by library", "", f"| rule | {' | '.join(LIBRARIES)} |")
    yield "| --- " * (len(LIBRARIES) + 1) + "|"
    notes = {cause: n for n, cause in enumerate(causes(peers), start=1)}
    cells: dict[Key, list[Row]] = defaultdict(list)
    for row in peers:
        cells[row["rule"], row["peer"].partition(".")[0]].append(row)
    for rule in dict.fromkeys(row["rule"] for row in peers):
        columns = ([row for start in starts for row in cells[rule, start]] for starts in LIBRARIES.values())
        yield f"| `{rule}` | {' | '.join(cell(rows, notes) for rows in columns)} |"


def cell(rows: list[Row], notes: dict[str, int]) -> str:
    """The largest share of a library's rows, and the numbers of the causes."""
    if not rows:
        return ""
    worst = max(row["share"] for row in rows)
    numbers = dict.fromkeys(notes[row.get("cause", "not known")] for row in rows if not row["equal"])
    links = " ".join(f"[{n}](#d{n})" for n in numbers)
    return f"**{worst:.0e}** {links}" if numbers else f"{worst:.0e}"


def disagreements(peers: list[Row]) -> Iterator[str]:
    """Every cause, and what shows that it is one."""
    yield f"""
## Why they differ

*Left* is the deviation, in units of the weights, that remains when the cause is taken into account: between
the library and the paper's path with the library's term in it, or between the paper and the library with that
one thing put right. At 1e-15 nothing else is the matter.

| | cause | where | share | left |
{"| --- " * 5}|"""
    for n, (cause, rows) in enumerate(causes(peers).items(), start=1):
        left = max((row["left"] for row in rows if "left" in row), default=None)
        share = max(row["share"] for row in rows)
        last = "" if left is None else f"{left:.0e}"
        yield f'| <span id="d{n}">{n}</span> | {cause} | {where(rows)} | {share:.0e} | {last} |'


def where(rows: list[Row]) -> str:
    """The libraries' names, with the rules of ours that they were held against, and the settings."""
    rules: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        rules[row["peer"]].append(f"`{row['rule']}`")
    places = ", ".join(f"`{peer}` as {' '.join(dict.fromkeys(names))}" for peer, names in rules.items())
    settings = dict.fromkeys(row["setting"] for row in rows)
    return places if len(settings) > 1 else f"{places}, {SETTINGS[next(iter(settings))]}"


def backends(peers: list[Row]) -> Iterator[str]:
    """Keras on each of its backends."""
    names = list(dict.fromkeys(row["backend"] for row in peers))
    yield f"""
## Keras on its backends

The table above has Keras on JAX. The same classes where another backend is further off:

| rule | class | {" | ".join(names)} | cause there |
{"| --- " * (len(names) + 3)}|"""
    by: dict[Key, dict[str, Row]] = defaultdict(dict)
    for row in peers:
        own = by[row["rule"], row["peer"]]
        own[row["backend"]] = max(own.get(row["backend"], row), row, key=lambda one: one["share"])
    for (rule, peer), own in by.items():
        worst = max(own.values(), key=lambda row: row["share"])
        if not worst["equal"] and worst["share"] > 1.1 * own["jax"]["share"]:
            shares = " | ".join(f"{own[name]['share']:.0e}" for name in names)
            yield f"| `{rule}` | `{peer}` | {shares} | {worst.get('cause', 'not known')} |"


def facts(rows: Iterable[Row]) -> Iterator[str]:
    """What is said of libraries, measured here."""
    yield f"""
## What is said of them, measured here

Faults that were reported of these libraries or found here. "No longer" is said of earlier versions alone.

| said | here | measured |
{"| --- " * 3}|"""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["fact"]].append(row)
    for claim, those in found.items():
        every, some = all(row["holds"] for row in those), any(row["holds"] for row in those)
        here = "yes" if every else "in part" if some else "no longer"
        said: dict[str, list[str]] = defaultdict(list)
        for row in those:
            said[row["measured"]].append(row.get("backend", ""))
        measured = "; ".join(f"{', '.join(names)}: {one}" if names[0] else one for one, names in said.items())
        yield f"| {claim} | {here} | {measured} |"


def engines(made: Row, rows: list[Row]) -> Iterator[str]:
    """Our own engines and faces."""
    if not rows:
        return
    names = list(dict.fromkeys(row["engine"] for row in rows))
    yield f"""
## Our engines and faces

The same paths, by every engine of ours: compiled kernels and plain operations under the torch face, JAX under
the optax face (jitted), and the Keras face on its three backends. Weights have 0, 1, 5, 16, 33 and 1000
elements (rules of matrices: 1×1 to 3×8, and a convolution), decay is on; *layouts* is the worst of eight
pairs of layouts of weight and gradient: dense, transposed, every second element, channels last. float32 is
held against the same paper in float64.

{measured_on(made)}

| rule | {" | ".join(names)} |
{"| --- " * (len(names) + 1)}|"""
    by: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        by[row["rule"]][row["engine"]] = max(row["share"], by[row["rule"]].get(row["engine"], 0.0))
    for rule, own in by.items():
        yield f"| `{rule}` | {' | '.join(f'{own[name]:.0e}' if name in own else '' for name in names)} |"
