"""`Memory`: what a group of weights keeps and in how many bits; `Layout`: that, for one rule and dtype.

With them the functions of `bits` on torch tensors of any device."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from steepest.optim.engines.precision import bits
from steepest.optim.engines.precision.formats import BLOCK, DRAWN, FULL, MOMENTS, NEAREST, ROUNDINGS, Format
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule


def _down(b: Any, places: int) -> Any:
    """A shift to the right that brings in zeros; torch's brings in the sign."""
    return (b >> places) & ((1 << (32 - places)) - 1)


def _where(condition: Tensor, a: Any, b: Any) -> Tensor:
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        kind = torch.float32 if isinstance(a, float) else torch.int32
        a = torch.tensor(a, dtype=kind, device=condition.device)
    return torch.where(condition, a, b)


TORCH_BITS = SimpleNamespace(
    bits=lambda x: x.view(torch.int32),
    number=lambda b: b.view(torch.float32),
    down=_down,
    where=_where,
)
"""`xp` for `bits`, of float32 and int32, which wraps round on every device."""


class Draws:
    """The random bits of one update of one weight: 16 an element for each array that asks.

    numbers: of `Memory`, the last two of them integers of 32 bits. weight: its number."""

    def __init__(self, numbers: Sequence[float], weight: int) -> None:
        self.numbers, self.weight, self.count = numbers, weight, 0

    def for_array(self, x: Tensor) -> Tensor:
        """Those of the next array, one for each element of x."""
        word, second = divmod(self.count, 2)
        self.count += 1
        a, b = (torch.tensor(int(key)).to(torch.int32) for key in self.numbers[1:])
        keys = [key(TORCH_BITS, a, b, self.weight, word) for key in (bits.first_key, bits.second_key)]
        i = torch.arange(x.numel(), device=x.device).to(torch.int32)
        drawn = bits.chance(TORCH_BITS, i, *(key.to(x.device) for key in keys))
        return (bits.high if second else bits.low)(TORCH_BITS, drawn).view(x.shape)


def load(one: Format, x: Tensor, scale: Tensor | None = None) -> Tensor:
    """The numbers that an array holds. scale: of its blocks."""
    if one is FULL:
        return x
    if scale is None:
        return x.float()
    rows = _in_blocks(x).int()
    return _whole(getattr(bits, one.load)(TORCH_BITS, rows, _floor(one, scale, rows)), x)


def store_array(one: Format, x: Tensor, value: Tensor, draws: Draws, scale: Tensor | None = None) -> None:
    """Write numbers into an array, and their scales beside it."""
    if one is FULL:
        x.copy_(value)
        return
    if not one.draws:
        x.copy_(value.to(x.dtype))
        return
    value = value.float().expand(x.shape).contiguous()
    drawn, word = draws.for_array(value), getattr(bits, one.store)
    if scale is None:
        x.copy_(word(TORCH_BITS, value, drawn).to(torch.int16).view(x.dtype))
        return
    rows = _in_blocks(value)
    scale.copy_(bits.scale_of(TORCH_BITS, bits.top(TORCH_BITS, rows).amax(1)))
    codes = word(TORCH_BITS, rows, _in_blocks(drawn), _floor(one, scale, rows))
    x.copy_(_whole(codes.to(torch.uint8), x))


def _in_blocks(x: Tensor) -> Tensor:
    """All elements in rows of a block, the last one filled with zeros."""
    return pad(x.reshape(-1), (0, -x.numel() % BLOCK)).view(-1, BLOCK)


def _whole(rows: Tensor, like: Tensor) -> Tensor:
    return rows.view(-1)[: like.numel()].view(like.shape)


def _floor(one: Format, scale: Tensor, rows: Tensor) -> Tensor:
    return (scale * one.foot)[:, None].expand_as(rows).contiguous()


_MASK = (1 << 64) - 1
_LOW = (torch.uint8, torch.bfloat16, torch.float16)
SCALE = "_scale"
"""What follows the key of a slot in the key of its scales."""

EXTRAS = ("lost", "average")
"""Keys of what a weight keeps beside slots and counters."""


@dataclass(frozen=True)
class Memory:
    """How the weights of a group and their state are kept, and what is kept besides.

    state_dtype  "float32": state in the precision of arithmetic. "bfloat16" or "8bit": the moving averages
                 that the rule names in `signed` and `positive` in 16 or 8 bits, rounded by chance
    rounding     of weights in 16 bits: "nearest", "stochastic", or "compensated", which keeps what rounding
                 loses in 16 bits more
    average      the share that a moving average of the weights keeps in an update, in (0, 1); None for none.
                 a ← a + (1-d)(w - a),  d = min(average, (1+t)/(10+t)). State: 1 float a weight
    seed         of chance"""

    state_dtype: str = "float32"
    rounding: str = "nearest"
    average: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _among("state_dtype", self.state_dtype, MOMENTS)
        _among("rounding", self.rounding, ROUNDINGS)
        if self.average is not None and not 0 < self.average < 1:
            raise UserError(
                f"average must lie in (0, 1), got {self.average!r}. It is the decay: 0.999 is usual."
            )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise UserError(f"seed must be an integer, got {self.seed!r}.")

    def __setstate__(self, state: dict[str, Any]) -> None:
        """From a pickle; those of earlier versions say `moments`."""
        vars(self).update({"state_dtype" if name == "moments" else name: own for name, own in state.items()})

    @property
    def numbered(self) -> bool:
        """True where updates take more numbers than the rule's."""
        return self.state_dtype != "float32" or self.rounding == "stochastic" or self.average is not None

    def numbers(self, t: int) -> tuple[float, float, float]:
        """What kernels take in update t: the share 1 - d of the average, and two uint32 that all random bits
        of the update are made from."""
        x = (self.seed * 0x9E3779B97F4A7C15 + t * 0xD1B54A32D192ED03) & _MASK
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
        x ^= x >> 31
        return 1 - min(self.average or 0.0, (1 + t) / (10 + t)), float(x >> 32), float(x & 0xFFFFFFFF)


def split(memory: Memory, group: dict[str, Any]) -> tuple[Memory, dict[str, Any]]:
    """(memory of a group, its other entries), from what it says itself and what otherwise holds."""
    names = [field.name for field in fields(Memory)]
    if "moments" in group:
        group = group | {"state_dtype": called_moments(group.get("state_dtype"), group["moments"])}
        del group["moments"]
    own = {name: value for name, value in group.items() if name in names}
    rest = {name: value for name, value in group.items() if name not in names}
    return replace(memory, **own), rest


def called_moments(state_dtype: Any, moments: Any) -> Any:
    """What `state_dtype` shall be where it may have been given under its old name."""
    if moments is None:
        return state_dtype
    told = f"moments={moments!r} is called state_dtype now; the old name goes with the next version."
    warnings.warn(told, FutureWarning, stacklevel=4)
    return moments


def _among(name: str, value: object, known: Any) -> None:
    if value not in known:
        raise UserError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}.")


@dataclass(frozen=True)
class Layout:
    """The formats of a weight and of its slots, and which arrays it keeps besides: "lost", "average".

    All arrays of one weight stand in the order of `keys`: slots, scales of those in blocks, the others."""

    weight: Format
    slots: tuple[Format, ...]
    extras: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """True where everything is kept in the dtype of arithmetic, and nothing besides."""
        return not self.extras and all(one is FULL for one in (self.weight, *self.slots))

    @property
    def blocks(self) -> list[int]:
        """The numbers of the slots that are kept in blocks."""
        return [number for number, one in enumerate(self.slots) if one.foot]

    def keys(self, slots: Sequence[str]) -> tuple[str, ...]:
        """Keys of the optimizer's state, from those of the slots."""
        return *slots, *(f"{slots[number]}{SCALE}" for number in self.blocks), *self.extras

    def places(self) -> dict[Any, int]:
        """Where in the order of `keys` the scale of a slot (by its number) and each of the others stands."""
        besides: list[Any] = [*self.blocks, *self.extras]
        return {one: len(self.slots) + number for number, one in enumerate(besides)}


@cache
def layout(rule: type[Rule], memory: Memory, dtype: torch.dtype) -> Layout:
    """How a weight of this dtype and its state are kept. Slots of complex weights are kept in full."""
    signed, positive = (FULL, FULL) if dtype.is_complex else MOMENTS[memory.state_dtype]
    slots = [signed if s in rule.signed else positive if s in rule.positive else FULL for s in rule.slots]
    low = dtype in NEAREST
    formats = DRAWN if memory.rounding == "stochastic" else NEAREST
    extras = ["lost"] * (low and memory.rounding == "compensated") + ["average"] * (
        memory.average is not None
    )
    return Layout(formats[dtype] if low else FULL, tuple(slots), tuple(extras))


def loaded(layout: Layout, w: Tensor, kept: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The numbers of a weight and of its slots, in the dtype of arithmetic."""
    places = layout.places()
    numbers = w if layout.weight is FULL else w.float()
    if "lost" in places:
        numbers = numbers + kept[places["lost"]].float()
    slots = []
    for number, (one, x) in enumerate(zip(layout.slots, kept, strict=False)):
        slots.append(load(one, x, kept[places[number]] if one.foot else None).to(numbers.dtype))
    return numbers, slots


def store(
    layout: Layout,
    w: Tensor,
    kept: Sequence[Tensor],
    moved: Tensor,
    new: Sequence[Tensor],
    share: float,
    draws: Draws,
) -> None:
    """Write the new numbers of a weight and of its slots; share: of `Memory.numbers`."""
    places = layout.places()
    for number, (one, x, value) in enumerate(zip(layout.slots, kept, new, strict=False)):
        store_array(one, x, value, draws, kept[places[number]] if one.foot else None)
    store_array(layout.weight, w, moved, draws)
    if "lost" in places:
        kept[places["lost"]].copy_(moved - w.float())
    if "average" in places:
        average = kept[places["average"]]
        average.copy_(average + share * (moved - average))


def found(entry: dict[str, Any], layout: Layout, keys: Sequence[str]) -> list[Tensor] | None:
    """What a weight keeps, from its entry of the state; None where something is missing or kept otherwise."""
    kept: list[Any] = [entry.get(key) for key in layout.keys(keys)]
    if any(x is None for x in kept):
        return None
    apt = all(
        x.dtype is one.dtype if one.dtype else x.dtype not in _LOW
        for one, x in zip(layout.slots, kept, strict=False)
    )
    return kept if apt else None


def completed(
    entry: dict[str, Any],
    layout: Layout,
    keys: Sequence[str],
    rule: type[Rule],
    w: Tensor,
    fresh: Sequence[Tensor],
    draws: Draws,
) -> list[Tensor]:
    """The same; what is missing is made, slots from these fresh ones; what is kept otherwise is converted."""
    full = [
        slot if entry.get(key) is None else in_full(entry, key, slot_format)
        for key, slot, slot_format in zip(keys, fresh, in_8_bits(rule), strict=True)
    ]
    kept = [_empty(one, slot) for one, slot in zip(layout.slots, full, strict=True)]
    kept += [torch.empty(-(-full[number].numel() // BLOCK), device=w.device) for number in layout.blocks]
    places = layout.places()
    for number, (one, slot) in enumerate(zip(layout.slots, full, strict=True)):
        store_array(one, kept[number], slot, draws, kept[places[number]] if one.foot else None)
    begun = {"lost": torch.zeros_like(w), "average": w.detach().to(_full(w.dtype), copy=True)}
    return kept + [begun[name] if entry.get(name) is None else entry[name] for name in layout.extras]


def put(entry: dict[str, Any], layout: Layout, keys: Sequence[str], kept: Sequence[Tensor]) -> None:
    """Write what a weight keeps into its entry of the state, and take out what it does not."""
    own = dict(zip(layout.keys(keys), kept, strict=True))
    for name in (*(f"{key}{SCALE}" for key in keys), *EXTRAS):
        if name in entry and name not in own and name not in keys:
            del entry[name]
    entry.update(own)


def in_full(entry: dict[str, Any], key: str, in_blocks: Format) -> Tensor:
    """The numbers of a slot however it is kept. in_blocks: its format where it is kept in 8 bits."""
    x, what = entry[key], flaw(entry, key, in_blocks)
    if what:
        raise UserError(f"The state {key!r} of shape {tuple(x.shape)} cannot be read: it {what}.")
    if x.dtype is torch.uint8:
        return load(in_blocks, x, entry[f"{key}{SCALE}"])
    return x.float() if x.dtype in _LOW else x


def flaw(entry: dict[str, Any], key: str, in_blocks: Format) -> str:
    """Why the numbers of a slot in 8 bits cannot be read; empty where they can."""
    x, scale = entry[key], entry.get(f"{key}{SCALE}")
    if x.dtype is not torch.uint8:
        return ""
    if in_blocks is FULL:
        return "is in 8 bits, and the rule has no moving average of that name"
    if scale is None or scale.shape != (-(-x.numel() // BLOCK),):
        return f"is in 8 bits, and {key + SCALE!r} is not beside it, one number for {BLOCK} elements"
    return ""


def slots_in_full(entry: dict[str, Any], keys: Sequence[str], rule: type[Rule]) -> list[Tensor]:
    """The numbers of all slots of a weight, however they are kept."""
    return [in_full(entry, key, one) for key, one in zip(keys, in_8_bits(rule), strict=True)]


def in_8_bits(rule: type[Rule]) -> tuple[Format, ...]:
    """The format of each slot where it is kept in 8 bits; FULL of those that never are."""
    return layout(rule, Memory("8bit"), torch.float32).slots


def _full(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in NEAREST else dtype


def _empty(one: Format, slot: Tensor) -> Tensor:
    return slot if one is FULL else torch.empty(slot.shape, dtype=one.dtype, device=slot.device)
