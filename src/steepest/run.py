"""`Run`: a run folder, opened for reading."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

from steepest import evidence
from steepest.data import sources
from steepest.data.batches import Held, batches
from steepest.data.fields import Field
from steepest.data.rng import preserved
from steepest.data.tree import Tree, leaves, moved
from steepest.evidence import Evidence
from steepest.files import Folder
from steepest.models.probe import apply
from steepest.models.weights_file import load_weights
from steepest.optim.errors import UserError
from steepest.recipe import Recipe
from steepest.train import loss, network, resolved
from steepest.train import metrics as measuring
from steepest.train.given import DATA, Given, separate
from steepest.train.prepare import parts_of, prepare
from steepest.train.preprocessing import Preprocessing
from steepest.train.resolved import Resolved

AT_ONCE = 1024
"""Examples given to the network together."""


class Run:
    """An earlier run. Opening it runs no code of its folder; weights are read when they are first needed.

    model    the network, where it was an object; a preset or import path is made anew
    objects  data, val, test, sample_weight and split_by, where these were objects: for `tensors`"""

    _whole: nn.Module | None = None  # of the class: runs that an earlier version pickled have none

    def __init__(
        self, folder: str | os.PathLike[str], *, model: nn.Module | None = None, **objects: Any
    ) -> None:
        self.folder = Path(folder)
        self._files = Folder(folder)
        self._model, self._objects = model, objects
        if unknown := sorted(objects.keys() - set(DATA)):
            raise UserError(
                f"Run takes model= and {', '.join(f'{one}=' for one in DATA)}, not {unknown[0]}=."
            )
        self._loaded = False
        if not self._files.recipe.exists():
            raise UserError(f"There is no run in {str(folder)!r}: it holds no recipe.toml.")

    @property
    def recipe(self) -> Recipe:
        """Every setting of the run."""
        return Recipe.read(self._files.recipe)

    @property
    def evidence(self) -> list[Evidence]:
        """The choices that were made, with what was measured."""
        return evidence.read(self._files.evidence)

    @property
    def chosen(self) -> dict[str, Any]:
        """What was settled by measurement, setting → value; empty where nothing was left open."""
        return dict(self.resolved.measured)

    @property
    def resolved(self) -> Resolved:
        """Every setting in force, and what a search has settled and taken; empty before it has ended."""
        return resolved.read(self._files) or Resolved()

    @property
    def status(self) -> str:
        """ "finished", "stopped", "failed", or "unfinished" where the process ended without a word."""
        return self._result.get("status", "unfinished")

    @property
    def steps(self) -> int:
        """Updates done, as far as the run has told."""
        return int(self._result.get("step", 0))

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers at the end: val/… of the best weights, test/… measured once."""
        return self._result.get("metrics", {})

    @property
    def history(self) -> pl.DataFrame:
        """One row an evaluation."""
        return pl.read_csv(self._files.metrics, infer_schema_length=None)

    @property
    def preprocessing(self) -> Preprocessing:
        """From a person's data to the network's numbers and back, as fitted on the training part."""
        return Preprocessing.from_json(self._files.preprocessing.read_text(encoding="utf-8"))

    @property
    def network(self) -> nn.Module:
        """The network alone with the final weights, in test mode; it takes `preprocessing.apply(data)`."""
        if not self._loaded:
            self._model = self._model or self._made()
            load_weights(self._model, self._files.model)
            self._loaded = True
        assert self._model is not None
        return self._model.eval()

    @property
    def model(self) -> nn.Module:
        """The network behind its encoders, with the final weights, in test mode: it takes what
        `preprocessing.read(data)` gives, and can be exported as it is. The network alone where the data are a
        Dataset or stream of your own."""
        if self._whole is None:
            device = next((weight.device for weight in self.network.parameters()), torch.device("cpu"))
            self._whole = self.preprocessing.network(self.network).to(device)
        self.network.eval()
        return self._whole.eval()

    def predict(self, data: Any) -> np.ndarray:
        """Labels, as text or as whole numbers where the target's were, or numbers in the target's units, for
        each row of a file, frame or array."""
        return self.preprocessing.target.predictions(self._outputs(data))

    def probabilities(self, data: Any) -> np.ndarray:
        """(n, classes) probabilities, in the order of `preprocessing.target.classes`; (n, labels) of several
        labels at once."""
        return self.preprocessing.target.probabilities(self._outputs(data))

    def evaluate(
        self, data: Any, metrics: Mapping[str, Callable[..., Any]] | None = None
    ) -> dict[str, float]:
        """The metrics of the run on data that hold the target, and `metrics` {name: function} beside them.

        The loss is the run's, but for weights of classes and examples."""
        recipe, fitted = self.recipe, self.preprocessing
        source = sources.read(data, recipe.target, features=recipe.features, drop=recipe.drop)
        source = replace(source, weight=None)
        part = fitted.examples(source, np.arange(source.examples or 0))
        measures = measuring.build(fitted.target, metrics)
        chosen = loss.build(
            Given().of(recipe, "loss"),
            fitted.target,
            label_smoothing=recipe.label_smoothing,
            focal_gamma=recipe.focal_gamma,
            huber_delta=recipe.huber_delta,
        )
        with preserved(self.network, training=False), torch.no_grad():
            for batch in self._batches(part):
                outputs = apply(self.network, batch[0])
                terms = fitted.target.terms(batch[1])
                measures.update(outputs, batch[1], terms, chosen(outputs, batch[1], terms))
        return measures.compute()

    def explain(self) -> str:
        """The run for a person: what was tried, measured and decided, and at what cost, in plain text."""
        from steepest.report import explain

        return explain(self.folder)

    def code(self) -> str:
        """A program of plain PyTorch that does what the run did: print it, keep it, go on from it.

        It reads its rows from a file: torch.save(run.tensors(), "data.pt"). What was an object of yours
        stands in it as a function to fill in; a network that is handed over, Run(folder, model=net), is
        written out where it is a stack of torch's own layers."""
        from steepest.export.program import write

        chosen = {**self.chosen, **(self.resolved.schedule or {})}
        return write(self._files, chosen, self._model)

    def tensors(self, **objects: Any) -> dict[str, Any]:
        """The rows as the run prepared them: {"train": (inputs, target), "val": …, "test": …}, weights third.

        objects: data=, val=, test=, model=, others that were objects, handed over again as for `resume`."""
        recipe = self.recipe.provisional()
        held_model = {} if self._model is None else {"model": self._model}
        _, given = separate(recipe.model_dump() | self._objects | held_model | objects)
        prepared = prepare(recipe, given)
        parts = {name: getattr(prepared, name) for name in ("train", "val", "test")}
        held = {n: p.whole() if isinstance(p, Held) else p for n, p in parts.items() if parts_of(p)}
        if "train" not in held:
            raise UserError("The rows of a Dataset or a loader are not held in memory: take them from it.")
        return held

    def report(self) -> Path:
        """Write report.html anew; its path."""
        from steepest.report import write

        return write(self.folder)

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={value:.4g}" for name, value in self.metrics.items() if name.startswith("test/")
        )
        return f"Run({str(self.folder)!r}, {self.status}{', ' + shown if shown else ''})"

    def _made(self) -> nn.Module:
        recipe, fitted = self.recipe, self.preprocessing
        chosen = loss.build(Given().of(recipe, "loss"), fitted.target)
        return network.make(recipe, Given(), fitted, fitted.target.shape(chosen.target))

    def _outputs(self, data: Any) -> torch.Tensor:
        inputs = self.preprocessing.read(sources.inputs(data))
        with preserved(self.model, training=False), torch.no_grad():
            parts = [apply(self.model, batch).float().cpu() for batch in self._batches(inputs)]
        return torch.cat(parts)

    def _batches(self, data: Any) -> Iterator[Tree]:
        """All rows in their order, where the network is."""
        device = next((weight.device for weight in self.network.parameters()), torch.device("cpu"))
        if any(
            isinstance(leaf, Field) for leaf in leaves(data)
        ):  # inputs alone: batches of them are made in full
            data = Held((data,), lambda fields: fields)
            return (moved(batch[0], device) for (batch,) in batches(data, AT_ONCE, shuffle=False).once())
        return (moved(batch, device) for (batch,) in batches(data, AT_ONCE, shuffle=False).once())

    @property
    def _result(self) -> dict[str, Any]:
        return _object(self._files.result) if self._files.result.exists() else {}


def _object(path: Path) -> dict[str, Any]:
    """A file of JSON."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{str(path)!r} is damaged ({error}). Remove it and resume the run.") from error
