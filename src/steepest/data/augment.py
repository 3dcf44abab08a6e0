"""Changes to training inputs that keep their meaning; each a pure function of (inputs, generator)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch

from steepest.data.order import key
from steepest.data.tree import Tree
from steepest.optim.errors import UserError, did_you_mean

Augmentation: TypeAlias = Callable[[Tree, torch.Generator], Tree]
"""Inputs of one update and a generator on the CPU → inputs of the same shape."""


def shift(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Every picture moved by up to an eighth of its sides, at least one pixel; the rim that opens takes the
    picture's darkest value.   pictures: (n, channels, height, width)"""
    n, _, height, width = _four(pictures, "shift").shape
    rows, inside_rows = _moved(n, height, generator, pictures.device)
    columns, inside_columns = _moved(n, width, generator, pictures.device)
    moved = pictures.gather(2, rows[:, None, :, None].expand_as(pictures))
    moved = moved.gather(3, columns[:, None, None, :].expand_as(pictures))
    inside = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    return torch.where(inside, moved, pictures.amin(dim=(2, 3), keepdim=True))


def flip(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Every second picture, by chance, mirrored left to right.   pictures: (n, channels, height, width)"""
    mirrored = torch.rand(len(_four(pictures, "flip")), generator=generator) < 0.5
    return torch.where(mirrored.to(pictures.device)[:, None, None, None], pictures.flip(3), pictures)


AUGMENTATIONS: dict[str, Augmentation] = {"shift": shift, "flip": flip}


def named(how: str | Augmentation | None) -> Augmentation | None:
    """The augmentation of this name; a function of the user's is taken as it is."""
    if how is None or callable(how):
        return how
    if how not in AUGMENTATIONS:
        raise UserError(f"There is no augmentation {how!r}.{did_you_mean(str(how), AUGMENTATIONS)}")
    return AUGMENTATIONS[how]


def augmented(batch: Tree, how: Augmentation | None, seed: int, step: int) -> Tree:
    """The batch with its inputs changed, pure in (seed, step). Inputs are the first part of a tuple or list,
    or the whole batch otherwise."""
    if how is None:
        return batch
    generator = torch.Generator().manual_seed(key(seed, "augment", step) % 2**63)
    if isinstance(batch, tuple | list):
        return type(batch)((how(batch[0], generator), *batch[1:]))
    return how(batch, generator)


def _moved(
    n: int, side: int, generator: torch.Generator, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each place along one side comes from, and whether that lies inside.   both (n, side)"""
    reach = max(1, side // 8)
    by = torch.randint(-reach, reach + 1, (n, 1), generator=generator)
    source = (torch.arange(side) + by).to(device)
    return source.clamp(0, side - 1), (source >= 0) & (source < side)


def _four(pictures: torch.Tensor, name: str) -> torch.Tensor:
    if isinstance(pictures, torch.Tensor) and pictures.ndim == 4:
        return pictures
    got = tuple(pictures.shape) if isinstance(pictures, torch.Tensor) else type(pictures).__name__
    raise UserError(
        f"augment={name!r} works on pictures of shape (n, channels, height, width), got {got}. "
        "Give a function (inputs, generator) → inputs for other inputs, or augment=None."
    )
