"""keras.optimizers in float64, on the backend that KERAS_BACKEND names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import keras
import numpy as np
from keras import optimizers
from keras.src import ops
from papers.adam import adam_tf
from papers.classical import adadelta
from papers.closed import decoupled
from papers.orthogonal import moonshots, newton_schulz
from papers.problem import Problem

from peers import matrix_twins, twins
from peers.peer import Cause, Peer

if keras.backend.backend() == "jax":
    import jax

    jax.config.update("jax_enable_x64", True)
keras.config.set_floatx("float64")

Weights = list[np.ndarray]


def run(peer: Peer, h: SimpleNamespace, problem: Problem, steps: int) -> tuple[list[Weights], list[Weights]]:
    """(weights after each step, nothing: Keras ships what it trains)."""
    variables = [
        keras.Variable(w, dtype="float64", name=f"kernel_{i}") for i, w in enumerate(problem.start())
    ]
    optimiser = peer.make(None, h)
    optimiser.build(variables)
    trained = []
    for t in range(1, steps + 1):
        ws = [np.asarray(keras.ops.convert_to_numpy(v)) for v in variables]
        optimiser.apply([keras.ops.convert_to_tensor(g) for g in problem.gradients(ws, t)], variables)
        trained.append([np.array(keras.ops.convert_to_numpy(v)) for v in variables])
    return trained, []


def base(h: SimpleNamespace) -> dict[str, Any]:
    return {"learning_rate": h.lr, "weight_decay": h.weight_decay or None}


def adam(h: SimpleNamespace) -> dict[str, Any]:
    return {**base(h), "beta_1": h.beta1, "beta_2": h.beta2, "epsilon": h.eps}


def rms(h: SimpleNamespace) -> dict[str, Any]:
    return {**base(h), "rho": h.alpha, "epsilon": h.eps, "momentum": h.momentum}


RAW_EPS = Cause(
    "ε is added to the uncorrected root, and decay is decoupled: it is AdamTF", path=decoupled(adam_tf)
)
FLAT = ((6, 4), (4, 6), (3, 5))
"""Keras's Muon moves weights of two axes alone by it."""

CAST = ops.cast
FREE = (
    Cause("decay acts on y alone and not on z", path=twins.schedule_free_decay_of_y(aliased=False)),
    Cause(
        "on the torch and TensorFlow backends the z of the step before is a reference to the one that is "
        "changed in place, so that y is split with the wrong z; decay acts on y alone and not on z",
        path=twins.schedule_free_decay_of_y(aliased=True),
    ),
)


def cast(x: Any, dtype: str) -> Any:
    """Without the way over float32 that Python's numbers take on the TensorFlow backend."""
    return keras.ops.convert_to_tensor(x, dtype) if isinstance(x, float) else CAST(x, dtype)


@contextmanager
def whole_means() -> Iterator[None]:
    """Means, roots, norms and comparisons in float64, as their arguments are."""

    def of(function: Any) -> Any:
        def made(*xs: Any, **options: Any) -> Any:
            found = function(*(np.float64(keras.ops.convert_to_numpy(x)) for x in xs), **options)
            return keras.ops.convert_to_tensor(np.asarray(found))

        return made

    exact: dict[str, Any] = {"mean": np.mean, "sqrt": np.sqrt, "norm": np.linalg.norm}
    exact |= {"maximum": np.maximum, "minimum": np.minimum}
    made = {name: of(function) for name, function in exact.items()}
    with mock.patch.multiple(ops, cast=cast, **made):
        yield


def passing(cause: Cause | None) -> Cause:
    """The cause on the TensorFlow backend, beside any other."""
    words = "Python's numbers pass through float32 (ops.cast)"
    if cause is None:
        return Cause(words, patch=whole_means)
    return replace(cause, words=f"{cause.words}; {words}", patch=whole_means)


def of_sum(x: np.ndarray, steps: int, coefficients: str, eps: float) -> np.ndarray:
    return newton_schulz(20 * x, steps, coefficients, eps)


PEERS = [
    Peer("sgd", "keras.SGD", lambda _, h: optimizers.SGD(**base(h))),
    Peer("momentumtf", "keras.SGD", lambda _, h: optimizers.SGD(**base(h), momentum=h.momentum)),
    Peer(
        "nesterovtf", "keras.SGD", lambda _, h: optimizers.SGD(**base(h), momentum=h.momentum, nesterov=True)
    ),
    Peer(
        "adagradtf",
        "keras.Adagrad",
        lambda _, h: optimizers.Adagrad(**base(h), initial_accumulator_value=h.initial, epsilon=h.eps),
    ),
    Peer(
        "adadelta", "keras.Adadelta", lambda _, h: optimizers.Adadelta(**base(h), rho=h.rho, epsilon=h.eps),
        Cause("decay is decoupled", path=decoupled(adadelta)),
    ),
    Peer("rmsproptf", "keras.RMSprop", lambda _, h: optimizers.RMSprop(**rms(h))),
    Peer("rmsproptfcentered", "keras.RMSprop", lambda _, h: optimizers.RMSprop(**rms(h), centered=True)),
    Peer("adam", "keras.Adam", lambda _, h: optimizers.Adam(**adam(h)), RAW_EPS),
    Peer("adamtf", "keras.Adam", lambda _, h: optimizers.Adam(**adam(h))),
    Peer("adamw", "keras.AdamW", lambda _, h: optimizers.AdamW(**adam(h)), RAW_EPS),
    Peer("amsgradtf", "keras.Adam", lambda _, h: optimizers.Adam(**adam(h), amsgrad=True)),
    Peer("adamaxtf", "keras.Adamax", lambda _, h: optimizers.Adamax(**adam(h))),
    Peer("nadamtf", "keras.Nadam", lambda _, h: optimizers.Nadam(**adam(h))),
    Peer(
        "ftrl",
        "keras.Ftrl",
        lambda _, h: optimizers.Ftrl(
            h.lr, learning_rate_power=-h.power, initial_accumulator_value=h.initial,
            l1_regularization_strength=h.l1, l2_regularization_strength=h.l2, beta=h.beta,
            l2_shrinkage_regularization_strength=h.l2_shrinkage,
        ),
    ),
    Peer("lion", "keras.Lion", lambda _, h: optimizers.Lion(**base(h), beta_1=h.beta1, beta_2=h.beta2)),
    Peer("lamb", "keras.Lamb", lambda _, h: optimizers.Lamb(**adam(h)),
        Cause("decay acts before the step and outside the trust ratio", path=twins.lamb_decay_outside),
    ),
    Peer(
        "adafactor",
        "keras.Adafactor",
        lambda _, h: optimizers.Adafactor(
            **base(h), beta_2_decay=-h.decay_rate, epsilon_1=h.eps1, epsilon_2=h.eps2,
            clip_threshold=h.threshold,
        ),
        Cause(
            "of a convolution the last two axes are factored and not the largest two; decay acts before the "
            "size of the weights is taken; means and comparisons are in float32",
            path=matrix_twins.adafactor_relative_decay(matrix_twins.last_two, first=True),
            patch=whole_means,
        ),
    ),
    Peer(
        "muonmatched",
        "keras.Muon",
        lambda _, h: optimizers.Muon(
            **base(h), momentum=h.momentum, epsilon=h.eps, ns_steps=h.steps, nesterov=h.nesterov
        ),
        Cause(
            "momentum is a sum and not a mean, twenty times as long, so that the 1e-7 beside its norm counts "
            "less; the norm and √max(rows, columns) are in float32",
            path=matrix_twins.muon(moonshots, of_sum),
            patch=whole_means,
        ),
        shapes=FLAT,
    ),
    Peer(
        "schedulefreeadamw",
        "keras.ScheduleFreeAdamW",
        lambda _, h: optimizers.ScheduleFreeAdamW(**adam(h), warmup_steps=h.warmup),
        FREE[keras.backend.backend() != "jax"],
    ),
]  # fmt: skip

if keras.backend.backend() == "tensorflow":
    PEERS = [replace(peer, cause=passing(peer.cause)) for peer in PEERS]
