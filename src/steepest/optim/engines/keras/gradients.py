"""Gradients that a rule cannot use, refused before anything is moved."""

from __future__ import annotations

from typing import Any

import keras

from steepest.optim.errors import UnsupportedGradient, UserError


def refuse(gradient: Any, w: Any) -> None:
    """UserError where a gradient is not one of this variable; it may be a symbol in compiled code."""
    dtype = keras.backend.standardize_dtype(gradient.dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise UnsupportedGradient(
            f"The variable {w.path!r} has a gradient in {dtype}. Gradients are real floats."
        )
    if keras.backend.backend() == "torch":
        _refuse_tensor(gradient, w)
    given = tuple(gradient.shape)
    if None not in given and given != tuple(w.shape):
        raise UserError(f"A gradient of shape {given} was given for {w.path!r} of shape {tuple(w.shape)}.")


def _refuse_tensor(gradient: Any, w: Any) -> None:
    if gradient.is_sparse:
        raise UnsupportedGradient(f"The gradient of {w.path!r} is sparse: make it dense, by to_dense().")
    if gradient.device != w.value.device:
        raise UserError(f"{w.path!r} lies on {w.value.device}, its gradient on {gradient.device}.")
