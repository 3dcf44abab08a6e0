"""The vocabulary of rules in Keras' operations, which TensorFlow, JAX or torch run, compiled or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import keras

from steepest.optim.engines.named_state import outputs_first, outputs_last
from steepest.optim.engines.on_numpy import normal
from steepest.optim.engines.pure import with_floats
from steepest.optim.maths import VOCABULARY

ops: Any = keras.ops  # its signatures name the tensors of every backend at once

_SAME = ("sum", "mean", "max", "swapaxes", "triu", "tril", "take", "eigh", "qr", "solve_triangular")
_LIKE = ("zeros_like", "ones_like", "full_like")


def is_float(x: Any) -> bool:
    """True of tensors of floating-point numbers."""
    return ops.is_tensor(x) and keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype))


def cast(x: Any, dtype: Any) -> Any:
    """Floating-point tensors in that dtype; anything else as it is."""
    return ops.cast(x, keras.backend.standardize_dtype(dtype)) if is_float(x) else x


def wide(x: Any) -> Any:
    """A tensor or variable in the dtype of arithmetic and state: float32 for 16-bit floats, else its own."""
    x = ops.convert_to_tensor(x)
    return ops.cast(x, wide_dtype(x))


def wide_dtype(x: Any) -> str:
    """The dtype of arithmetic and state."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def turned(x: Any, back: bool = False) -> Any:
    """A kernel as torch keeps it, outputs first; or back again."""
    return ops.transpose(x, (outputs_last if back else outputs_first)(len(x.shape)))


def rounded(x: Any) -> Any:
    """float32 to the nearest number that bfloat16 holds, as float32 (Veltkamp's splitting).

    A compiler may leave out a cast to bfloat16 and back again; it may not leave out additions."""
    far = 65537.0 * x
    return ops.where(ops.abs(x) < 1e30, far - (far - x), x)


def as_it_is(update: Callable[..., Any]) -> Callable[..., Any]:
    """An update that torch, where it runs the operations, neither records for gradients nor compiles.

    Dynamo does not follow a rule that holds tensors for its numbers. Other backends trace the update."""
    if keras.backend.backend() != "torch":
        return update
    import torch

    return torch.compiler.disable(torch.no_grad()(update))


@cache
def vocabulary(dtype: str) -> SimpleNamespace:
    """`xp` for Keras: the closed vocabulary of rules, and that of whole arrays; scalars are of this dtype."""
    names = set(VOCABULARY) - {"sign", "where"} | {"cos"}
    return SimpleNamespace(
        **{name: with_floats(name, getattr(ops, name)) for name in sorted(names)},
        sign=with_floats("sign", _sign),
        where=with_floats("where", lambda condition, a, b: _where(dtype, condition, a, b)),
        **{name: getattr(ops, name) for name in (*_SAME, *_LIKE)},
        reshape=lambda x, shape: ops.reshape(x, tuple(shape)),
        stack=lambda arrays, axis=0: ops.stack(list(arrays), axis),
        argsort=lambda x: ops.argsort(x, axis=-1),
        addmm=lambda c, a, b, beta=1.0, alpha=1.0: beta * c + alpha * (a @ b),
        zeros=lambda shape, like: ops.zeros(tuple(shape), like.dtype),
        eye=lambda n, like: ops.eye(n, dtype=like.dtype),
        svd=lambda x: ops.svd(x, full_matrices=False),
        normal=_normal,
        cond=_cond,
        cast=cast,
        total=lambda x, shape: ops.sum(ops.cast(ops.broadcast_to(x, tuple(shape)), dtype)),
    )


def _sign(x: Any) -> Any:
    """-1, 0 or 1, and NaN of NaN, which torch.sign turns into 0."""
    return ops.where(x != x, x, ops.sign(x))


def _where(dtype: str, condition: Any, a: Any, b: Any) -> Any:
    """Choose; two Python numbers become tensors of the dtype of scalars, not of Keras' floatx."""
    if not (ops.is_tensor(a) or ops.is_tensor(b)):
        a = ops.convert_to_tensor(a, dtype)
    return ops.where(condition, a, b)


def _normal(shape: Sequence[int], seed: int, t: Any, like: Any) -> Any:
    if isinstance(t, int):
        return ops.convert_to_tensor(normal(tuple(shape), seed, t), like.dtype)
    return _drawn(tuple(shape), seed, t, like.dtype)


def _drawn(shape: tuple[int, ...], seed: int, t: Any, dtype: Any) -> Any:
    """Standard normal numbers of (seed, t), where t may be traced: Keras takes no such seed."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.random.normal(
            jax.random.fold_in(jax.random.key(seed), ops.cast(t, "uint32")), shape, dtype
        )
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.random.stateless_normal(shape, tf.stack([seed, tf.cast(t, tf.int32)]), dtype=dtype)
    return ops.convert_to_tensor(normal(shape, seed, int(t)), dtype)


def _cond(condition: Any, f: Callable[..., Any], g: Callable[..., Any], *arrays: Any) -> Any:
    if isinstance(condition, bool):
        return (f if condition else g)(*arrays)
    return ops.cond(condition, lambda: f(*arrays), lambda: g(*arrays))
