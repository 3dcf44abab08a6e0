"""Where a kernel's inputs and outputs lie: (…, in, out) in Keras and flax, (out, in, …) in torch."""

from __future__ import annotations

from typing import Any


def outputs_first(axes: int) -> tuple[int, ...]:
    """The permutation that takes (…, in, out) to (out, in, …); with fewer than two axes nothing moves."""
    return (axes - 1, axes - 2, *range(axes - 2)) if axes > 1 else tuple(range(axes))


def outputs_last(axes: int) -> tuple[int, ...]:
    """The way back."""
    return (*range(2, axes), 1, 0) if axes > 1 else tuple(range(axes))


def turned(x: Any, back: bool = False) -> Any:
    """An array seen as torch keeps its kernels, or back again."""
    return x.transpose((outputs_last if back else outputs_first)(x.ndim))
