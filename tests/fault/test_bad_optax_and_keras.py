"""Gradients and state that rules cannot use, in JAX and Keras: a sentence, and nothing has moved."""

import os
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("jax", reason="JAX is not installed")
pytest.importorskip("optax", reason="optax is not installed")

import jax.numpy as jnp

from steepest import rules
from steepest.optax import transformation
from steepest.optim.errors import UnsupportedGradient, UserError

PARAMS = {"a": jnp.ones((3, 2)), "b": jnp.ones(2)}


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_, jnp.complex64])
def test_gradients_are_floats_in_jax(dtype: Any) -> None:
    tx = transformation("adamw")
    gradients = PARAMS | {"a": jnp.ones((3, 2), dtype)}
    with pytest.raises(UnsupportedGradient, match=r"gradients of 'a' are .* They must be floats"):
        tx.update(gradients, tx.init(PARAMS), PARAMS)


def test_a_state_of_another_rule_or_tree_is_named_in_jax() -> None:
    tx = transformation("adamw")
    with pytest.raises(UserError, match="AdamW keeps m, v, and this state is of a rule that keeps m"):
        tx.update(PARAMS, transformation("lion").init(PARAMS), PARAMS)
    less = {"a": PARAMS["a"]}
    with pytest.raises(UserError, match="made for a tree of another form"):
        tx.update(less, tx.init(PARAMS), less)


def test_what_is_no_rule_is_named_in_jax() -> None:
    with pytest.raises(UserError, match="AdamW is a class of rules"):
        transformation(rules.AdamW)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="A rule must be one"):
        transformation(None)  # pyright: ignore[reportArgumentType]


KERAS = """
import numpy as np, keras, torch
from steepest import rules
from steepest.optim.errors import UserError
from steepest.keras import optimizer

w, b = keras.Variable(np.ones((3, 2), "float32")), keras.Variable(np.ones(2, "float32"))
opt = optimizer(rules.AdamW(lr=0.1))
opt.build([w, b])
fine = torch.ones(2)
opt.apply([torch.ones(3, 2), fine], [w, b])

def bits():
    return [x.numpy().tobytes() for x in (w, b, *opt.variables)]

WRONG = {
    "A gradient of shape (3, 3)": torch.ones(3, 3),
    "a gradient in int64": torch.ones(3, 2, dtype=torch.int64),
    "a gradient in complex64": torch.ones(3, 2, dtype=torch.complex64),
    "its gradient on meta": torch.ones(3, 2, device="meta"),
    "is sparse": torch.ones(3, 2).to_sparse(),
}
before = bits()
for words, gradient in WRONG.items():
    for order in ([w, b], [b, w]):
        try:
            opt.apply([gradient if x is w else fine for x in order], order)
        except UserError as error:
            assert words in str(error), error
        else:
            raise AssertionError(words)
        assert bits() == before, words
for wrong in (rules.AdamW, None):
    try:
        optimizer(wrong)
    except UserError as error:
        print(error)
    else:
        raise AssertionError(wrong)
try:
    optimizer("adamw", lr_scale={"*": float("nan")})
except UserError as error:
    assert "lr_scale must" in str(error)
else:
    raise AssertionError("lr_scale")
opt.apply([torch.ones(3, 2), fine], [w, b])
assert bits() != before
print("all refused")
"""


def test_gradients_that_cannot_be_used_move_nothing_in_keras() -> None:
    pytest.importorskip("keras", reason="Keras is not installed")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KERAS],
        env=os.environ | {"KERAS_BACKEND": "torch", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("all refused\n")
