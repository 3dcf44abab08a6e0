"""Known faults of Keras, on the backend that KERAS_BACKEND names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import optimizers

BACKEND = keras.backend.backend()
if BACKEND == "jax":
    import jax

    jax.config.update("jax_enable_x64", True)
NAMES = ("Adam", "AdamW", "Nadam", "Lamb", "Muon", "ScheduleFreeAdamW", "SGD", "RMSprop", "Lion", "Adafactor")


def results() -> Iterator[dict[str, Any]]:
    """One result a fact."""
    for claim, measured in (one() for one in (half, state, decay, relative, integer, numbers)):
        yield {"fact": claim, "holds": measured[0], "measured": measured[1], "backend": BACKEND}


def stepped(optimiser: Any, value: float, dtype: str, shape: tuple[int, ...] = (4, 4), steps: int = 5) -> Any:
    """A weight after some steps of a gradient of 1."""
    weight = keras.Variable(np.full(shape, value), dtype=dtype)
    optimiser.build([weight])
    for _ in range(steps):
        optimiser.apply([keras.ops.ones(shape, dtype=dtype)], [weight])
    return np.float64(keras.ops.convert_to_numpy(keras.ops.cast(weight, "float32")))


def half() -> tuple[str, tuple[bool, str]]:
    found: dict[str, list[str]] = {"still": [], "not a number": [], "an error": []}
    for name in NAMES:
        try:
            w = stepped(getattr(optimizers, name)(0.1), 0.5, "bfloat16")
        except TypeError:
            found["an error"].append(name)
            continue
        if np.isnan(w).any():
            found["not a number"].append(name)
        elif (w == 0.5).all():
            found["still"].append(name)
    said = "; ".join(f"{what}: {', '.join(names)}" for what, names in found.items() if names)
    return "bfloat16 weights stand still or become NaN under most of Keras's rules", (
        any(found.values()),
        said,
    )


def state() -> tuple[str, tuple[bool, str]]:
    weight = keras.Variable(np.zeros((100, 100)))
    optimiser = optimizers.Adafactor()
    optimiser.build([weight])
    share = sum(int(np.prod(v.shape)) for v in optimiser.variables) / 10_000
    return "Keras's Adafactor keeps a full-size v", (
        share > 0.5,
        f"{share:.2f} numbers a weight of 100 by 100",
    )


def decay() -> tuple[str, tuple[bool, str]]:
    weight = keras.Variable(np.ones(1))
    optimiser = optimizers.SGD(0.1, momentum=0.9, weight_decay=0.5)
    optimiser.build([weight])
    for _ in range(2):
        optimiser.apply([keras.ops.zeros(1)], [weight])
    w = float(keras.ops.convert_to_numpy(weight)[0])
    said = f"{w:.4f} after two steps without a gradient (L2 as torch's: 0.8575)"
    return "weight_decay is decoupled for every rule of Keras", (abs(w - 0.9025) < 1e-4, said)


def relative() -> tuple[str, tuple[bool, str]]:
    ends = [stepped(optimizers.Adafactor(0.9, relative_step=on), 1.0, "float32") for on in (True, False)]
    off = float(np.abs(ends[0] - ends[1]).max())
    return "Adafactor's relative_step=False has no effect", (off == 0, f"lr 0.9, 5 steps: {off:.1e} apart")


def integer() -> tuple[str, tuple[bool, str]]:
    try:
        optimizers.SGD(1)
    except ValueError as error:
        return "an integer learning rate is refused", (True, str(error).partition(",")[0])
    return "an integer learning rate is refused", (False, "it is taken")


def numbers() -> tuple[str, tuple[bool, str]]:
    keras.config.set_floatx("float64")
    try:
        passed = float(keras.ops.cast(0.9, "float64"))
        two = keras.ops.maximum(*(keras.ops.convert_to_tensor(np.array(x)) for x in (0.1, 0.9)))
        kind = keras.backend.standardize_dtype(two.dtype)
    finally:
        keras.config.set_floatx("float32")
    said = f"ops.cast(0.9, 'float64') is {passed!r}; the maximum of two float64 is {kind}"
    return "Keras's operations pass through float32 with floatx float64", (
        passed != 0.9 or kind != "float64",
        said,
    )
