"""`Encoder`: a field of data as it lies, on its way to the numbers that a network takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from steepest.data.tree import Tree
from steepest.optim.errors import UserError

Scale = Literal["standard", "minmax"] | None
Impute = Literal["median", "mean"] | None


@dataclass(frozen=True)
class Settings:
    """What is asked of the kinds of data.

    scale    "standard": mean 0 and deviation 1; "minmax": from 0 to 1; None
    impute   "median" or "mean" in the place of missing numbers; None refuses them
    args     the recipe's kind_args: name of a field or of a kind → settings; "kind" names a field's kind
    several  whether the field is one of several inputs
    embeds   whether the network that was handed over looks whole numbers up in an embedding"""

    scale: Scale = "standard"
    impute: Impute = "median"
    args: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    several: bool = False
    embeds: bool = False

    def of(self, name: str, kind: str) -> dict[str, Any]:
        """The settings of a field of this kind: those of the kind, then its own."""
        own = {**self.args.get(kind, {}), **self.args.get(name, {})}
        return {key: value for key, value in own.items() if key != "kind"}


class Encoder(nn.Module, ABC):
    """From data as they came to features, in two halves.

    `read` runs once, on the host: numbers in the narrowest type that holds each exactly, or codes. `forward`
    runs on the device, batch by batch, before augmentation and the network; in `Run.model` it is the first
    layer. What the training part has taught is held as buffers that are not saved, as preprocessing.json
    is their one home; weights that are trained belong to the network, not here.

    kind   its name in the registry;   suits: name of the model that "auto" takes for it alone
    shape  of the features of one example; None for a free length"""

    kind: str
    shape: tuple[int | None, ...]

    @property
    def suits(self) -> str:
        """Name of the model that suits."""
        return "mlp"

    @abstractmethod
    def read(self, raw: Any) -> Tree:
        """A tensor or a tuple of them, one entry an example. Raises UserError for what cannot be read."""

    @abstractmethod
    def forward(self, *fields: Tensor) -> Any:
        """The features of a batch of what `read` gave, float32 unless they are numbers to look up."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """All that was learnt, as JSON's own types."""

    def sentences(self) -> list[str]:
        """Lines for people: what is learnt from, and what is left out."""
        return []


class Kind(Protocol):
    """A kind of data, found by name.

    recognise  a reason, as a clause, why a field is of this kind; None where it is not. A field is a polars
               column of a table, or an array with one entry an example
    fit        an encoder, by the training examples alone. `name` is the field's
    restore    the encoder that a run folder keeps
    open       (optional) data of a form of its own, such as a list of files, as a Source; None where they are
               not. `target` is what was given with them: None when there is only something to predict for"""

    def recognise(self, field: Any, settings: Settings) -> str | None: ...

    def fit(self, field: Any, name: str, settings: Settings) -> Encoder: ...

    def restore(self, config: Mapping[str, Any]) -> Encoder: ...


def refuse_args(kind: str, args: Mapping[str, Any], known: tuple[str, ...] = ()) -> None:
    """UserError where kind_args holds what a kind has no use for."""
    if unknown := sorted(args.keys() - set(known)):
        has = f"takes {', '.join(known)}" if known else "takes none"
        raise UserError(f"kind_args has {unknown[0]!r}; the kind of data {kind!r} {has}.")
