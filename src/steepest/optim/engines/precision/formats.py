"""How weights and their state are kept in memory: formats of few bits, and which array has which.

Arithmetic is done in float32 (float64 for float64 weights) whatever the format in memory.

Chance. A moving average with 1 - β₂ = 0.001 changes by a thousandth of itself in a step, less than half of
bfloat16's last place: rounded to nearest it stands still. Rounded by chance it is right in the mean. The
random bits are a function of seed, step, weight, array and element, so that a run repeats and resumes, and
depends on neither threads nor pieces.

Eight bits. Blocks of 256 elements share a scale, which is a power of two: the numbers of a block then lie on
the same grid whatever its scale, and are rounded anew only by what has changed. With a scale equal to the
largest magnitude all of a block would be rounded anew whenever its largest element moves. Measured over
10,000 steps of Gaussian gradients whose sizes lie within a factor of 100 in a block, β₂ = 0.999: √v is off
by 10 % (standard deviation; bias -0.5 %), by 11.5 % with the other scale, by 2 % in bfloat16; rounded to
nearest, 8 bits are biased by +9 to -48 %. Slots that are never negative have 5 bits of exponent and 3 of
mantissa, those of either sign 4 and 3 and gradual underflow. 4 and 4 would make that 7 %, and 3 and 5 fail,
because squares of gradients of a block differ by more than a factor of 1000. The smallest number but 0 is
2⁻³¹ of the scale in v, that of m is 2⁻¹⁷ of its own, a third of √v's: so the two cannot make a large step
of nothing. For the same reason v is never rounded to 0. NaN has a code of its own; infinity becomes NaN.

Compensation (Kahan's) keeps what a 16-bit weight loses in rounding in a second number of 16 bits."""

from __future__ import annotations

from dataclasses import dataclass

import torch

BLOCK = 256
"""Elements that share a scale in 8 bits."""

SIGNED, POSITIVE, HALF = 2.0**-14, 2.0**-31, 2.0**-14
"""From the scale of a block (1 for float16) to the foot of its window: 4, 5 and 5 bits of exponent."""

LEAST, MOST = (127 - 90) << 23, (127 + 127) << 23
"""Bits of the least and the largest scale: nothing in a window under 2⁻⁹⁰ is subnormal in float32."""


@dataclass(frozen=True)
class Format:
    """One way to keep numbers.

    dtype: of the tensor; None for that of arithmetic. load, store: names of the words in `bits` and
    `rounding`. draws: whether `store` takes random bits. foot: from a block's scale to its window; 0 where
    there are no blocks. memory: Numba's name of the type in memory."""

    dtype: torch.dtype | None = None
    memory: str = "T"
    load: str = ""
    store: str = ""
    draws: bool = False
    foot: float = 0.0


FULL = Format()
_BFLOAT16 = torch.bfloat16, "uint16", "from_bfloat16"
_FLOAT16 = torch.float16, "uint16", "from_float16"
BFLOAT16, BFLOAT16_DRAWN = (
    Format(*_BFLOAT16, "bfloat16_near"),
    Format(*_BFLOAT16, "bfloat16_by_chance", draws=True),
)
FLOAT16, FLOAT16_DRAWN = (
    Format(*_FLOAT16, "float16_near"),
    Format(*_FLOAT16, "float16_by_chance", draws=True),
)
SIGNED_8 = Format(torch.uint8, "uint8", "from_signed", "signed", True, SIGNED)
POSITIVE_8 = Format(torch.uint8, "uint8", "from_positive", "positive", True, POSITIVE)

NEAREST = {torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}
DRAWN = {torch.bfloat16: BFLOAT16_DRAWN, torch.float16: FLOAT16_DRAWN}
MOMENTS = {
    "float32": (FULL, FULL),
    "bfloat16": (BFLOAT16_DRAWN, BFLOAT16_DRAWN),
    "8bit": (SIGNED_8, POSITIVE_8),
}
ROUNDINGS = ("nearest", "stochastic", "compensated")


NARROW = {"mps"}
"""Devices without float64, by torch's name: Apple's GPUs. They sum in float32."""


def widest(x: torch.Tensor) -> torch.dtype:
    """The widest real float of the tensor's device."""
    return torch.float32 if x.device.type in NARROW else torch.float64


def widened(x: torch.Tensor) -> torch.Tensor:
    """The tensor in the widest real float of its device."""
    return x.to(widest(x))
