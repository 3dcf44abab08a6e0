"""Numbers in few bits: casts, rounding, chance; one definition for kernels and for torch.

`Float` is a float32, `Int` an int32 that wraps round; `xp` has what operators cannot say: bits(x), number(b),
where(c, a, b), and down(b, n), a shift to the right that brings in zeros. Whatever is compared fits 31 bits.

Rounding by chance adds random bits under the last bit that is kept, and cuts: a number goes to one of its two
neighbours, to each with the probability that keeps the mean where it is."""

from __future__ import annotations

from typing import Any, TypeAlias

from steepest.optim.engines.precision.formats import HALF, LEAST, MOST

Float: TypeAlias = Any
Int: TypeAlias = Any

HIDE, SIGN = 0x7FFFFFFF, -0x80000000
INFINITY, NAN = 0x7F800000, 0x7FC00000
_HALF_BASE = (127 - 14) << 10
_FIRST, _SECOND, _STRIDE = 0x7FEB352D, 0x846CA68B - (1 << 32), 0x9E3779B1 - (1 << 32)


def scrambled(xp: Any, x: Int) -> Int:
    """A permutation of all integers that looks like chance: multiply and shift, twice."""
    x = (x ^ xp.down(x, 16)) * _FIRST
    x = (x ^ xp.down(x, 15)) * _SECOND
    return x ^ xp.down(x, 16)


def first_key(xp: Any, a: Int, b: Int, weight: Int, word: Int) -> Int:
    """One of the two keys of a word of random bits, from those of the step."""
    return scrambled(xp, (weight * 8 + word) ^ a)


def second_key(xp: Any, a: Int, b: Int, weight: Int, word: Int) -> Int:
    """The other one."""
    return scrambled(xp, first_key(xp, a, b, weight, word) ^ b)


def chance(xp: Any, i: Int, first: Int, second: Int) -> Int:
    """32 random bits of element i under two keys. The second one comes in between the two rounds, or
    sequences of different keys would be parts of one and the same."""
    x = i * _STRIDE + first
    x = (x ^ xp.down(x, 16)) * _FIRST
    x = (x ^ xp.down(x, 15) ^ second) * _SECOND
    return x ^ xp.down(x, 16)


def low(xp: Any, r: Int) -> Int:
    """The lower 16 of 32 random bits."""
    return r & 0xFFFF


def high(xp: Any, r: Int) -> Int:
    """The upper 16 of 32 random bits."""
    return xp.down(r, 16)


def from_bfloat16(xp: Any, h: Int) -> Float:
    """The number in 16 bits that are the upper half of a float32."""
    return xp.number(h << 16)


def bfloat16_near(xp: Any, x: Float) -> Int:
    """Round to the nearest bfloat16, half to even."""
    b = xp.bits(x)
    return xp.where(x == x, xp.down(b + 0x7FFF + (xp.down(b, 16) & 1), 16), 0x7FC0)


def bfloat16_by_chance(xp: Any, x: Float, r: Int) -> Int:
    """Round to a neighbouring bfloat16 by 16 random bits."""
    return xp.where(x == x, xp.down(xp.bits(x) + r, 16), 0x7FC0)


def from_float16(xp: Any, h: Int) -> Float:
    """The number in the 16 bits of a float16."""
    c = h & 0x7FFF
    finite = xp.bits(_unpacked(xp, c, HALF, _HALF_BASE, 13))
    return xp.number((h & 0x8000) << 16 | xp.where(c < 0x7C00, finite, c << 13 | INFINITY))


def float16_near(xp: Any, x: Float) -> Int:
    """Round to the nearest float16, half to even."""
    b = xp.bits(x)
    a = xp.number(b & HIDE)
    even = xp.down((b & HIDE) + 0xFFF + (xp.down(b, 13) & 1), 13) - (112 << 10)
    small = xp.bits(a + 0.5) - 0x3F000000  # between 0.5 and 1 float32 has the grid of float16's subnormals
    return _float16(xp, b, a, xp.where(a < HALF, small, even))


def float16_by_chance(xp: Any, x: Float, r: Int) -> Int:
    """Round to a neighbouring float16 by the upper 13 of 16 random bits."""
    b = xp.bits(x)
    a = xp.number(b & HIDE)
    return _float16(xp, b, a, _packed(xp, a, xp.down(r, 3), HALF, _HALF_BASE, 13))


def _float16(xp: Any, b: Int, a: Float, c: Int) -> Int:
    c = xp.where((a < 65536.0) & (c < 0x7C00), c, 0x7C00)
    return xp.where(a == a, c, 0x7E00) | xp.down(b, 16) & 0x8000


def top(xp: Any, x: Float) -> Int:
    """What the scale of a block is the largest of: a magnitude's bits, 0 of what is not finite. An integer,
    because compilers make no vector code of the largest of floats."""
    b = xp.bits(x) & HIDE
    return xp.where(b < INFINITY, b, 0)


def larger(xp: Any, a: Int, b: Int) -> Int:
    """The larger one."""
    return xp.where(a < b, b, a)


def scale_of(xp: Any, largest: Int) -> Float:
    """The scale of a block: the power of two under its largest magnitude, or over it where that is more than
    1.75 times it, so that the largest can be rounded up."""
    b = xp.where(largest < MOST, largest + 0x1FFFFF, MOST) & INFINITY
    return xp.number(xp.where(b < LEAST, LEAST, b))


def from_signed(xp: Any, c: Int, floor: Float) -> Float:
    """The number in 8 bits: sign, 4 of exponent, 3 of mantissa; all ones are NaN."""
    finite = xp.bits(_unpacked(xp, c & 0x7F, floor, xp.down(xp.bits(floor), 20), 20))
    return xp.number((c & 0x80) << 24 | xp.where((c & 0x7F) < 0x7F, finite, NAN))


def signed(xp: Any, x: Float, r: Int, floor: Float) -> Int:
    """Round to 8 bits by chance; what is not finite is NaN."""
    b = xp.bits(x)
    c = _packed(xp, xp.number(b & HIDE), _wide(r), floor, xp.down(xp.bits(floor), 20), 20)
    return xp.where(c < 0x7F, c, 0x7F) | xp.down(b, 24) & 0x80


def from_positive(xp: Any, c: Int, floor: Float) -> Float:
    """The number in 8 bits: 5 of exponent, 3 of mantissa; 0 is 0, all ones are NaN, nothing is subnormal."""
    b = (c + xp.down(xp.bits(floor), 20)) << 20
    return xp.number(xp.where(c > 0, xp.where(c < 0xFF, b, NAN), 0))


def positive(xp: Any, x: Float, r: Int, floor: Float) -> Int:
    """Round to 8 bits by chance, but not to 0: a mean square of 0 would make a step infinite."""
    c = xp.down((xp.bits(x) & HIDE) + _wide(r), 20) - xp.down(xp.bits(floor), 20)
    c = xp.where(c < 0xFF, xp.where(c < 1, 1, c), 0xFF)
    return xp.where(x <= 0.0, 0, c)


def _packed(xp: Any, x: Float, r: Int, floor: Float, base: Int, shift: int) -> Int:
    """Cut a number ≥ 0, raised by random bits r, to a small float: exponent, mantissa, gradual underflow.

    floor: its smallest normal number, a power of two; base: its bits. shift: how many bits of x go."""
    y = xp.where(x < floor, x + floor, x)
    return xp.down(xp.bits(y) + r, shift) - xp.where(x < floor, base, base - (1 << 23 >> shift))


def _unpacked(xp: Any, c: Int, floor: Float, base: Int, shift: int) -> Float:
    """The number that `_packed` made these bits of."""
    one = 1 << 23 >> shift
    y = xp.number((c + xp.where(c < one, base, base - one)) << shift)
    return y - xp.where(c < one, floor, 0.0)


def _wide(r: Int) -> Int:
    """20 random bits of 16; the middle of what the missing ones could be."""
    return (r << 4) + 8
