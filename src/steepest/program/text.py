"""The whole program as text."""

from __future__ import annotations

from collections.abc import Sequence

from steepest.program import descent, main, network, objective, rate, training
from steepest.program.facts import Facts, Piece, in_docstring
from steepest.train.given import DATA, MARK

HEAD = '''"""{title}

    python train.py data.pt

data.pt holds the rows as the run prepared them; steepest writes it once:

    torch.save(steepest.Run({place}).tensors({objects}), "data.pt")

The order of examples is a DataLoader's, so that losses agree as those of two seeds of the run do. What
steepest did besides, and this does not: checkpoints, resuming, keeping what is not finite from the
weights{notes}.
"""'''

IMPORTS = ("import torch", "from torch import nn", "from torch.utils.data import DataLoader, TensorDataset")


def write(facts: Facts) -> str:
    """The program of a run."""
    made = [make(facts) for make in (network.piece, descent.piece, rate.piece, objective.piece)]
    pieces = [*made, training.piece(facts), main.piece(facts)]
    notes = "".join(f";\n{note}" for part in (facts, *pieces) for note in part.notes)
    title = f"What the run {facts.name} did, in plain PyTorch. Written by steepest's Run.code()."
    parts = {"title": title, "place": repr(facts.place), "objects": _objects(facts), "notes": notes}
    head = HEAD.format(**{key: in_docstring(part) for key, part in parts.items()})
    blocks = [
        f"{head}\n\n{_imports(pieces)}\n\n{_constants(pieces)}",
        *(piece.code.strip() for piece in pieces),
    ]
    return "\n\n\n".join(blocks) + "\n"


def _objects(facts: Facts) -> str:
    """Data that were objects are handed over again."""
    given = (name for name in DATA if str(getattr(facts.recipe, name)).startswith(MARK))
    return ", ".join(f"{name}={name}" for name in given)


def _imports(pieces: Sequence[Piece]) -> str:
    """Whole lines, Python's own first, each once, and only those whose name occurs."""
    code = "\n".join(piece.code for piece in pieces)
    lines = dict.fromkeys([*IMPORTS, *(line for piece in pieces for line in piece.imports)])
    lines |= {"import itertools": None} if "itertools." in code else {}
    used = [line for line in lines if any(_occurs(name, code) for name in _names(line))]
    own = sorted((line for line in used if line.split()[1] in OWN), key=_order)
    others = sorted((line for line in used if line not in own), key=_order)
    return "\n".join(own) + "\n\n" + "\n".join(others)


OWN = ("copy", "itertools", "math", "sys", "fnmatch", "types")
"""Modules of Python that programs import."""


def _order(line: str) -> tuple[bool, str]:
    return line.startswith("from"), line


def _names(line: str) -> list[str]:
    """The names that an import makes."""
    made = line.partition("import ")[2].split(", ")
    return [name.rpartition(" as ")[2].partition(".")[0] for name in made]


def _occurs(name: str, code: str) -> bool:
    return f"{name}." in code or f"{name}(" in code


def _constants(pieces: Sequence[Piece]) -> str:
    known = {name: pair for piece in pieces for name, pair in piece.constants.items()}
    return "\n".join(f"{name} = {value}  # {said}" for name, (value, said) in known.items())
