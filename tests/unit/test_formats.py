"""Numbers in few bits: the kernels' words, the plain engine's and plain NumPy agree bit by bit."""

import inspect
import platform
import re
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numba import njit

from steepest import rules
from steepest.optim.engines.kernels import intrinsics
from steepest.optim.engines.kernels.source import source
from steepest.optim.engines.precision import bits, memory
from steepest.optim.engines.precision.formats import BLOCK, HALF, POSITIVE, POSITIVE_8, SIGNED, SIGNED_8
from steepest.optim.engines.precision.memory import TORCH_BITS, Memory, layout

CASES = [
    (torch.float32, {"state_dtype": "8bit"}),
    (torch.bfloat16, {"state_dtype": "8bit", "rounding": "stochastic"}),
    (torch.bfloat16, {"state_dtype": "bfloat16", "rounding": "compensated", "average": 0.9}),
    (torch.float16, {"state_dtype": "bfloat16", "rounding": "stochastic"}),
]
SPECIAL = [
    0.0,
    -0.0,
    np.inf,
    -np.inf,
    np.nan,
    1e-45,
    -1e-40,
    3.4028235e38,
    65504.0,
    65519.9,
    65520.0,
    6e-8,
    2.0**-24,
]
RANDOM = np.random.default_rng(7)
FEET = {"signed": SIGNED, "positive": POSITIVE}


def samples(count: int = 1 << 15, spread: float = 30.0) -> np.ndarray:
    """Numbers of both signs over many orders of magnitude, and all special ones."""
    x = RANDOM.standard_normal(count) * 2.0 ** RANDOM.uniform(-spread, spread, count)
    return np.concatenate([x, SPECIAL]).astype(np.float32)


def drawn(count: int) -> np.ndarray:
    return RANDOM.integers(0, 1 << 16, count).astype(np.int32)


@cache
def loop(name: str) -> Any:
    """A compiled loop over arrays that applies a word of kernels to each element: (x, *others, out)."""
    word = getattr(intrinsics, name)
    number = len(inspect.signature(getattr(bits, name)).parameters) - 1

    @njit
    def one(x, out):
        for i in range(x.size):
            out[i] = word(x[i])

    @njit
    def two(x, y, out):
        for i in range(x.size):
            out[i] = word(x[i], y[i])

    @njit
    def three(x, y, z, out):
        for i in range(x.size):
            out[i] = word(x[i], y[i], z[i])

    return (one, two, three)[number - 1]


def made(name: str, dtype: Any, *arrays: np.ndarray) -> np.ndarray:
    """What a word of kernels makes of these arrays."""
    out = np.empty(arrays[0].size, dtype)
    loop(name)(*arrays, out)
    return out


def grid(magnitude: np.ndarray, mantissa: int, least: float) -> np.ndarray:
    """The distance of the numbers around each magnitude, in a format of so many bits of mantissa."""
    _, exponent = np.frexp(np.maximum(magnitude, least))
    return np.ldexp(1.0, exponent - 1 - mantissa)


def by_chance(x: np.ndarray, share: np.ndarray, mantissa: int, least: float) -> np.ndarray:
    """The neighbour of x that a random share in [0, 1) chooses, in float64."""
    magnitude = np.abs(x.astype(np.float64))
    step = grid(magnitude, mantissa, least)
    return np.copysign(np.floor(magnitude / step + share) * step, x)


def of(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().numpy()


def test_nearest_is_what_torch_and_numpy_round_to() -> None:
    x = samples()
    as_bfloat16, as_float16 = made("bfloat16_near", np.uint16, x), made("float16_near", np.uint16, x)
    wanted = torch.from_numpy(x).to(torch.bfloat16)
    np.testing.assert_array_equal(of(torch.from_numpy(as_bfloat16).view(torch.bfloat16)), of(wanted))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(as_float16.view(np.float16), x.astype(np.float16))


def test_every_half_is_read_as_what_it_is() -> None:
    every = np.arange(1 << 16).astype(np.uint16)
    out = made("from_float16", np.float32, every)
    np.testing.assert_array_equal(out, every.view(np.float16).astype(np.float32))
    out = made("from_bfloat16", np.float32, every)
    np.testing.assert_array_equal(out, torch.from_numpy(every).view(torch.bfloat16).float().numpy())


@pytest.mark.parametrize(("name", "mantissa", "shown"), [("bfloat16", 7, 16), ("float16", 10, 13)])
def test_chance_chooses_a_neighbour(name: str, mantissa: int, shown: int) -> None:
    x = samples(spread=6.0)
    x = x[np.isfinite(x) & (np.abs(x) < 65504) & (np.abs(x) > 1e-6)]
    r = drawn(x.size)
    out = made(f"{name}_by_chance", np.uint16, x, r)
    found = of(torch.from_numpy(out).view(getattr(torch, name)))
    share = (r >> (16 - shown)) / 2.0**shown
    seen = np.where(np.abs(x) < HALF, np.abs(x) + np.float32(HALF) - np.float32(HALF), np.abs(x))
    x = (
        np.copysign(seen, x) if name == "float16" else x
    )  # a subnormal is first rounded to 13 bits under its last
    np.testing.assert_array_equal(found, by_chance(x, share, mantissa, HALF if name == "float16" else 1e-38))


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_chance_is_right_in_the_mean(name: str) -> None:
    """Over all that the random bits may be, the mean is the number itself."""
    r = np.arange(1 << 16).astype(np.int32)
    for value in (1.0, 1.001, -3.14159, 1.9999, 0.1):
        x = np.full(r.size, value, np.float32)
        out = made(f"{name}_by_chance", np.uint16, x, r)
        mean = of(torch.from_numpy(out).view(getattr(torch, name))).mean()
        assert mean == float(x[0])


def test_what_is_not_finite_stays_in_sight() -> None:
    x = np.array([np.nan, -np.nan, np.inf, -np.inf], np.float32)
    x = np.concatenate([x, np.array([0x7FFFFFFF, 0xFFFFFFFF], np.uint32).view(np.float32)])
    r, floor = np.full(x.size, 0xFFFF, np.int32), np.ones(x.size, np.float32)
    for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        for word, arguments in ((f"{name}_near", (x,)), (f"{name}_by_chance", (x, r))):
            out = torch.from_numpy(made(word, np.uint16, *arguments))
            np.testing.assert_array_equal(of(out.view(dtype)), x.astype(np.float64))
    for kind in ("signed", "positive"):
        codes = made(kind, np.uint8, x, r, floor)
        shown = np.isnan(made(f"from_{kind}", np.float32, codes, floor))
        assert (shown | (x < 0 if kind == "positive" else False)).all()


def blocks(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(scale of every block, the scale of each element), by the definition: in float64."""
    rows = np.abs(x.astype(np.float64)).reshape(-1, BLOCK)
    largest = np.where(np.isfinite(rows), rows, 0.0).max(axis=1)
    _, exponent = np.frexp(np.maximum(largest, 2.0**-90))
    scale = np.ldexp(1.0, exponent - 1)
    scale = np.clip(np.where(largest > 1.75 * scale, 2 * scale, scale), 2.0**-90, 2.0**127)
    return scale, np.repeat(scale, BLOCK)


def by_words(kind: str, x: np.ndarray, r: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(scales, codes, numbers read back), with the words of kernels."""
    largest = made("top", np.int32, x).reshape(-1, BLOCK).max(axis=1)
    scales = made("scale_of", np.float32, largest)
    floor = np.repeat(scales * np.float32(FEET[kind]), BLOCK)
    codes = made(kind, np.uint8, x, r, floor)
    return scales, codes, made(f"from_{kind}", np.float32, codes, floor)


def in_blocks(kind: str) -> tuple[np.ndarray, np.ndarray]:
    sizes = np.repeat(2.0 ** RANDOM.uniform(-60, 60, 64), BLOCK)
    x = RANDOM.standard_normal(sizes.size) * 2.0 ** RANDOM.uniform(-20, 4, sizes.size) * sizes
    x[5 * BLOCK : 6 * BLOCK] = 0.0
    x = np.abs(x) if kind == "positive" else x
    return x.astype(np.float32), drawn(x.size)


@pytest.mark.parametrize(("kind", "least"), [("signed", SIGNED), ("positive", 1.125 * POSITIVE)])
def test_eight_bits_are_the_neighbour_that_chance_chooses(kind: str, least: float) -> None:
    x, r = in_blocks(kind)
    scales, _, back = by_words(kind, x, r)
    wanted, scale = blocks(x)
    np.testing.assert_array_equal(scales, wanted)
    share = (16.0 * r + 8.0) / 2**20
    floor = (scale * SIGNED).astype(np.float32)
    below = kind == "signed" and np.abs(x) < floor  # first rounded to 20 bits under the last one kept
    seen = np.where(below, np.abs(x) + floor - floor, np.abs(x)) if kind == "signed" else x
    chosen = by_chance(np.copysign(seen, x) / scale, share, 3, SIGNED if kind == "signed" else 1e-300) * scale
    if kind == "positive":
        chosen = np.where(x > 0, np.maximum(chosen, least * scale), 0.0)
    np.testing.assert_array_equal(back, chosen)


def test_the_largest_of_a_block_can_be_rounded_up_and_never_overflows() -> None:
    for value in (1.0, 1.75, 1.76, 1.99, 3.4e38):
        x = np.full(BLOCK, value, np.float32)
        _, _, back = by_words("positive", x, np.full(BLOCK, 0xFFFF, np.int32))
        if value < 2.0**127:
            assert (back >= x).all()
            assert (back <= 1.125 * x).all()
            np.testing.assert_array_equal(by_words("signed", -x, np.full(BLOCK, 0xFFFF, np.int32))[2], -back)
        else:
            assert np.isnan(back).all(), "beyond the largest scale: in sight, not wrapped round"


def test_a_positive_number_is_never_rounded_to_nothing() -> None:
    x = np.zeros(BLOCK, np.float32)
    x[0], x[1], x[2] = 1.0, 1e-30, 1e-44
    _, codes, back = by_words("positive", x, np.zeros(BLOCK, np.int32))
    assert codes[1] == codes[2] == 1
    assert back[1] == np.float32(1.125 * 2.0**-31)
    assert not codes[3:].any()
    assert not back[3:].any()


@pytest.mark.parametrize("kind", ["signed", "positive"])
def test_numbers_on_the_grid_stay_where_they_are(kind: str) -> None:
    """Whatever chance says, and whatever becomes of the block's scale: else noise would add up."""
    x, r = in_blocks(kind)
    _, _, once = by_words(kind, x, r)
    inside = np.abs(once) > np.repeat(blocks(once)[0], BLOCK) * FEET[kind] * 8
    _, _, twice = by_words(kind, once, drawn(x.size))
    np.testing.assert_array_equal(twice, once)
    grown = once.copy()
    grown[::BLOCK] = 7 * np.repeat(blocks(once)[0], BLOCK)[::BLOCK]
    _, _, moved = by_words(kind, grown, drawn(x.size))
    inside[::BLOCK] = False
    np.testing.assert_array_equal(moved[inside], once[inside])


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_the_plain_engine_rounds_halves_alike(name: str) -> None:
    x = samples()
    r = drawn(x.size)
    out = made(f"{name}_by_chance", np.uint16, x, r)
    plain = getattr(bits, f"{name}_by_chance")(TORCH_BITS, torch.from_numpy(x), torch.from_numpy(r))
    np.testing.assert_array_equal(plain.numpy().astype(np.uint16), out)


@pytest.mark.parametrize("kind", ["signed", "positive"])
def test_the_plain_engine_has_the_same_eight_bits(kind: str) -> None:
    """Of an array with axes whose last block is not full, with all that the random bits of one update are."""
    x = in_blocks(kind)[0][: 5 * BLOCK + 76]
    x[:: 2 * BLOCK], x[1 :: 2 * BLOCK] = np.nan, np.inf
    stored, scale = torch.empty(x.size // 3, 3, dtype=torch.uint8), torch.empty(6)
    form = {"signed": SIGNED_8, "positive": POSITIVE_8}[kind]
    numbers = Memory(seed=5).numbers(3)
    memory.store_array(form, stored, torch.from_numpy(x).view_as(stored), memory.Draws(numbers, 4), scale)
    r = random_bits(x.size, 4, 0, *map(int, numbers[1:])) & 0xFFFF
    padded = np.pad(np.stack([x, r.view(np.float32)]), ((0, 0), (0, -x.size % BLOCK)))
    scales, codes, back = by_words(kind, padded[0], padded[1].view(np.int32))
    np.testing.assert_array_equal(scale.numpy(), scales)
    np.testing.assert_array_equal(stored.flatten().numpy(), codes[: x.size])
    np.testing.assert_array_equal(memory.load(form, stored, scale).flatten().numpy(), back[: x.size])


@njit
def _chances(count, weight, word, a, b, out):
    first, second = intrinsics.first_key(a, b, weight, word), intrinsics.second_key(a, b, weight, word)
    for i in range(count):
        out[i] = intrinsics.chance(i, first, second)


def random_bits(count: int, weight: int = 0, word: int = 0, a: int = 1, b: int = 2) -> np.ndarray:
    out = np.empty(count, np.uint32)
    _chances(count, weight, word, np.uint32(a), np.uint32(b), out)
    return out


def test_the_plain_engine_draws_the_same() -> None:
    for weight, a, b in ((0, 1, 2), (7, 0xFFFFFFFF, 0x80000000), (1 << 20, 12345, 0)):
        draws, x = memory.Draws((0.0, a, b), weight), torch.empty(10, 100)
        for word in range(3):
            wanted = random_bits(1000, weight, word, a, b)
            np.testing.assert_array_equal(draws.for_array(x).flatten().numpy(), wanted & 0xFFFF)
            np.testing.assert_array_equal(draws.for_array(x).flatten().numpy(), wanted >> 16)


def test_random_bits_look_like_chance() -> None:
    """Each half uniform, and alike halves of neighbours, weights, words and steps without common cause."""
    count = 1 << 20
    one = random_bits(count)
    others = [
        one[1:],
        one >> 16,
        *(random_bits(count, **{n: v}) for n, v in (("weight", 1), ("word", 1), ("a", 3), ("b", 3))),
    ]
    halves = [(x & 0xFFFF).astype(np.float64) / 65536 for x in (one, *others)]
    for half in halves:
        square = ((np.bincount((half * 256).astype(int), minlength=256) - half.size / 256) ** 2).sum() / (
            half.size / 256
        )
        assert abs(square - 255) < 5 * np.sqrt(2 * 255), "chi² of 256 classes, within 5 standard deviations"
    for other in halves[1:]:
        size = min(count, other.size)
        assert abs(np.corrcoef(halves[0][:size], other[:size])[0, 1]) < 5 / np.sqrt(size)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="looks for instructions of x86")
@pytest.mark.parametrize(("dtype", "kept"), CASES, ids=str)
def test_compilers_make_vector_code_of_kernels(dtype: torch.dtype, kept: dict[str, Any]) -> None:
    """Of the arithmetic and of the random bits: roots and integer products of many numbers at once."""
    form = layout(rules.AdamW, Memory(**kept), dtype)
    module = ModuleType("kernel")
    exec(compile(source(rules.AdamW(), dtype, form), "<kernel>", "exec"), module.__dict__)
    instructions = module.kernel._library.get_asm_str()
    assert re.search(r"sqrtps|rsqrt14ps", instructions)
    assert re.search(r"pmulld", instructions)
