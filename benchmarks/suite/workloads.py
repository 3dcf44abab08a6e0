"""The workloads: data, network, loss, metric, batch and length of each.

`named("mnist_mlp").task(seed)` is one of them, ready to be trained by any loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmarks.suite import cache, networks, sources
from benchmarks.suite.cache import Pair, Parts
from steepest.data import rng
from steepest.data.order import Plan, key
from steepest.optim.errors import UserError, did_you_mean

VERSION = 1
"""Of the table of lengths, the networks and the data: results of another one are not compared."""

STEPS = {
    "mnist_mlp": 2000,
    "cifar_resnet8": 300,
    "fsdd_lstm": 600,
    "shakespeare_gpt": 800,
    "shakespeare_rnn": 700,
    "trec_transformer": 500,
    "california_mlp": 3000,
    "letter_mlp": 2000,
    "mnist_cnn": 600,
    "sst2_cnn": 700,
    "digits_mlp": 500,
    "cancer_mlp": 300,
    "wine_mlp": 200,
    "diabetes_mlp": 300,
}
"""Updates of the standard length. One seed of the core costs about 150 seconds of one thread."""

Formula: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def classes(outputs: Tensor, y: Tensor) -> Tensor:
    """Cross entropy in nats of each example; of a window of letters the mean."""
    return F.cross_entropy(outputs, y, reduction="none").reshape(len(y), -1).mean(1)


def squares(outputs: Tensor, y: Tensor) -> Tensor:
    """Squared error of each example, in squared deviations of the training target."""
    return (outputs.reshape(y.shape) - y).square()


class Examples(Dataset[Pair]):
    """Examples handed out as they are: no scaling, no coding of targets."""

    def __init__(self, x: Tensor, y: Tensor):
        self.x, self.targets = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Pair:
        return self.x[index], self.targets[index]


@dataclass(frozen=True)
class Workload:
    """What is trained, and how it is judged.

    data       name of the prepared data set
    network    (parts, factor of the widths) → a fresh network
    formula    (outputs, target) → the loss of each example
    metric     "ce": mean loss;  "rmse": its root, in the target's own unit
    validated  examples that the metric is measured on while training: the first so many
    changed    what a variant makes of the data
    """

    name: str
    data: str
    network: Callable[[Parts, int], nn.Module]
    formula: Formula
    batch_size: int
    steps: int
    metric: Literal["ce", "rmse"] = "ce"
    validated: int = 2000
    changed: Callable[[Parts], Parts] | None = None

    def task(self, seed: int) -> Task:
        """The workload with its start and its order of batches fixed."""
        return self.on(cache.parts(self.data), seed)

    def on(self, parts: Parts, seed: int) -> Task:
        """The same on data at hand."""
        return Task(self, seed, parts if self.changed is None else self.changed(parts))


@dataclass(frozen=True)
class Task:
    """One workload with one seed. All seeds share the split, as a target belongs to a validation set."""

    workload: Workload
    seed: int
    parts: Parts = field(repr=False)

    @property
    def train(self) -> Pair:
        """Inputs and targets to learn from."""
        return self.parts.train

    @property
    def validation(self) -> Pair:
        """What is measured while training."""
        x, y = self.parts.validation
        return x[: self.workload.validated], y[: self.workload.validated]

    @property
    def test(self) -> Pair:
        """What is looked at once, at the end."""
        return self.parts.test

    @property
    def batch_size(self) -> int:
        """Examples of an update."""
        return self.workload.batch_size

    @property
    def steps(self) -> int:
        """Updates of the standard length."""
        return self.workload.steps

    def model(self, wide: int = 1) -> nn.Module:
        """A fresh network, the same weights each time; the global random numbers are left as they were."""
        with rng.preserved():
            rng.seed_all(key(self.seed, "weights"))
            return self.workload.network(self.parts, wide)

    def batches(self, seed: int | None = None, position: int = 0) -> Iterator[Pair]:
        """Batches without end from update `position` on; which is a function of (seed, update) alone."""
        x, y = self.train
        plan = Plan(len(x), self.batch_size, self.seed if seed is None else seed)
        for _, _, index in plan.updates(position):
            rows = torch.from_numpy(index)
            yield x.index_select(0, rows), y.index_select(0, rows)

    def per_example(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The loss of each example."""
        return self.workload.formula(model(x), y)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The mean loss of a batch."""
        return self.per_example(model, x, y).mean()

    @torch.no_grad()
    def measured(self, model: nn.Module, x: Tensor, y: Tensor) -> float:
        """The metric, in test mode; the model is afterwards as before."""
        training = model.training
        model.eval()
        pieces = zip(x.split(500), y.split(500), strict=True)
        mean = float(torch.cat([self.per_example(model, *piece) for piece in pieces]).double().mean())
        model.train(training)
        return self.parts.unit * float(np.sqrt(mean)) if self.workload.metric == "rmse" else mean

    def for_fit(self) -> dict[str, Any]:
        """The arguments with which `steepest.fit` trains the same, in an order of batches of its own."""
        sets = {"data": self.train, "val": self.validation, "test": self.test}
        return {name: Examples(*pair) for name, pair in sets.items()} | {
            "model": self.model(),
            "task": "regression" if self.workload.metric == "rmse" else "classification",
            "loss": self.workload.formula,
            "batch_size": self.batch_size,
            "budget": f"{self.steps} steps",
            "seed": self.seed,
        }


def dense(hidden: tuple[int, ...], outputs: int, activation: type[nn.Module] = nn.ReLU) -> Any:
    """How a network of dense layers is made for inputs of any shape."""

    def network(parts: Parts, wide: int) -> nn.Module:
        widths = tuple(wide * width for width in hidden)
        inputs = parts.train[0][0].numel()
        return nn.Sequential(nn.Flatten(), networks.perceptron(inputs, widths, outputs, activation))

    return network


def _gpt(parts: Parts, wide: int) -> nn.Module:
    return networks.GPT(65, sources.CONTEXT, 64 * wide)


def _letter_rnn(parts: Parts, wide: int) -> nn.Module:
    return networks.LetterRNN(65, 32 * wide, 192 * wide)


def _sentence_transformer(parts: Parts, wide: int) -> nn.Module:
    return networks.SentenceTransformer(parts.words, sources.WORDS, 64 * wide, 6)


def _sentence_cnn(parts: Parts, wide: int) -> nn.Module:
    return networks.SentenceCNN(parts.words, 64 * wide, 50 * wide, 2)


def _made(name: str, data: str, network: Any, formula: Formula, batch_size: int, **more: Any) -> Workload:
    metric = "rmse" if formula is squares else "ce"
    return Workload(name, data, network, formula, batch_size, STEPS[name], metric, **more)


CORE = (
    _made("mnist_mlp", "mnist", dense((256, 256), 10), classes, 128, validated=5000),
    _made("cifar_resnet8", "cifar", lambda parts, wide: networks.resnet8(wide), classes, 128, validated=1000),
    _made("fsdd_lstm", "fsdd", lambda parts, wide: networks.SpokenLSTM(40, 96 * wide, 10), classes, 64),
    _made("shakespeare_gpt", "shakespeare", _gpt, classes, 32),
    _made("shakespeare_rnn", "shakespeare", _letter_rnn, classes, 32),
    _made("trec_transformer", "trec", _sentence_transformer, classes, 50),
    _made("california_mlp", "california", dense((256, 256, 256), 1, nn.SiLU), squares, 128, validated=3312),
    _made("letter_mlp", "letter", dense((256, 256), 26), classes, 128),
)
"""One of each kind of network and of data; what a choice may be designed on."""

HELD_OUT = (
    _made("mnist_cnn", "mnist", lambda parts, wide: networks.digits_cnn(wide), classes, 128),
    _made("sst2_cnn", "sst2", _sentence_cnn, classes, 50),
    _made("digits_mlp", "digits", dense((128, 128), 10), classes, 64),
    _made("cancer_mlp", "breast_cancer", dense((64, 64), 2), classes, 32),
    _made("wine_mlp", "wine", dense((32,), 3), classes, 16),
    _made("diabetes_mlp", "diabetes", dense((64, 64), 1), squares, 32),
)
"""Not to be run before a choice is finished; beside these the variants of the core (variants.py)."""

READERS = {
    name: getattr(sources, name) for name in ("mnist", "cifar", "fsdd", "shakespeare", "trec", "sst2")
} | {
    "california": sources.california,
    "letter": sources.letter,
    **{name: sources.bundled(name) for name in ("digits", "breast_cancer", "wine", "diabetes")},
}
"""How each data set is read from the raw folder."""


def named(name: str) -> Workload:
    """The workload of that name; "mnist_mlp+tanh" is a variant of one, and variants can be joined."""
    from benchmarks.suite.variants import VARIANTS

    first, *changes = name.split("+")
    known = {one.name: one for one in (*CORE, *HELD_OUT)}
    for word, choices in ((first, known), *((change, VARIANTS) for change in changes)):
        if word not in choices:
            raise UserError(f"The suite has no {word!r}.{did_you_mean(word, choices)}")
    workload = known[first]
    for change in changes:
        workload = VARIANTS[change](workload)
    return workload
