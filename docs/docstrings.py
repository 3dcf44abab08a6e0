"""Shows docstrings as they are laid out in the source: formulas and small tables by line and column."""

from __future__ import annotations

from typing import Any

import griffe


class AsWritten(griffe.Extension):
    """The first sentence as text, what follows it in lines and columns as it stands."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for everything that mkdocstrings reads."""
        if obj.docstring is None:
            return
        sentence, _blank, rest = obj.docstring.value.partition("\n\n")
        if "\n" in sentence:
            sentence, rest = "", obj.docstring.value
        if rest:
            obj.docstring.value = f"{sentence}\n\n```text\n{rest}\n```"
