"""The global random generators of Python, NumPy and torch, and work that leaves no trace in them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from steepest.data.order import key


def _numpy_state() -> tuple[Any, ...]:
    return np.random.get_state()  # type: ignore[return-value]  # noqa: NPY002


def _cuda_states() -> list[torch.Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def _put_to_cuda(states: list[torch.Tensor]) -> None:
    for device, state in enumerate(states):
        torch.cuda.set_rng_state(state, device)


GENERATORS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "torch": (torch.get_rng_state, torch.set_rng_state),
    "cuda": (_cuda_states, _put_to_cuda),
    "numpy": (_numpy_state, np.random.set_state),
    "python": (random.getstate, random.setstate),
}
"""What gives the state of a global generator, and what puts it back."""


def capture(names: Iterable[str] = GENERATORS) -> dict[str, Any]:
    """The states of these global generators, by name; of all devices of CUDA once it is in use."""
    return {name: GENERATORS[name][0]() for name in names}


def restore(states: Mapping[str, Any]) -> None:
    """Put back what `capture` gave."""
    for name, state in states.items():
        GENERATORS[name][1](state)


def seed_all(number: int) -> None:
    """Start all global generators from one number."""
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(number % 2**63)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number % 2**63)


def begin(seed: int, rank: int = 0) -> None:
    """Start all global generators for the training stream of this seed, and of this process."""
    seed_all(key(seed, "training", rank) if rank else key(seed, "training"))


class Generators:
    """The global generators as a part of a checkpoint: tensors and numbers, no pickles."""

    def state_dict(self) -> dict[str, Any]:
        """The states as they stand."""
        states = capture()
        _, words, spare = states["python"]
        return {
            "torch": states["torch"],
            "cuda": states["cuda"],
            "numpy": torch.from_numpy(states["numpy"][1].astype(np.int64)),
            "numpy place": list(states["numpy"][2:]),
            "python": torch.tensor(words, dtype=torch.int64),
            "python spare": spare,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the generators to what `state_dict` gave."""
        version, words = random.getstate()[0], tuple(state["python"].tolist())
        keys = state["numpy"].numpy().astype(np.uint32)
        restore(
            {
                "torch": state["torch"],
                "cuda": state["cuda"] if torch.cuda.is_initialized() else [],
                "numpy": ("MT19937", keys, *state["numpy place"]),
                "python": (version, words, state["python spare"]),
            }
        )


@contextmanager
def preserved(
    net: nn.Module | None = None,
    *,
    training: bool | None = None,
    buffers: bool = True,
    generators: Iterable[torch.Generator] = (),
) -> Iterator[None]:
    """What is done inside leaves no trace in the global random generators, nor in these generators.

    net       its modes, its buffers, and which of its weights train are afterwards as before, too
    training  the mode that the network is in inside; None: as it is
    buffers   False: buffers may change, as where their statistics are measured"""
    states = capture()
    own = [(generator, generator.get_state()) for generator in generators]
    modules = [] if net is None else list(net.modules())
    modes = [(module, module.training) for module in modules]
    trained = [] if net is None else [(weight, weight.requires_grad) for weight in net.parameters()]
    held = [
        (module._buffers, name, buffer, buffer.clone())
        for module in (modules if buffers else ())
        for name, buffer in module._buffers.items()
        if buffer is not None and not is_lazy(buffer)
    ]
    try:
        if net is not None and training is not None:
            net.train(training)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for weight, trains in trained:
            if weight.requires_grad != trains:
                weight.requires_grad_(trains)
        with torch.no_grad():
            for place, name, buffer, before in held:
                place[name] = buffer.copy_(before)
        for generator, state in own:
            generator.set_state(state)
        restore(states)


class Apart:
    """A life of its own for the global generators: each `with` goes on where the last one ended."""

    def __init__(self, number: int) -> None:
        with preserved():
            seed_all(number)
            self._inside = capture()

    def __enter__(self) -> None:
        self._outside = capture()
        restore(self._inside)

    def __exit__(self, *_: object) -> None:
        self._inside = capture()
        restore(self._outside)
