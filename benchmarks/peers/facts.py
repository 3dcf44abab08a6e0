"""Known faults of torch, optax, timm and pytorch-optimizer, measured in the versions that are installed."""

from __future__ import annotations

import inspect
import io
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytorch_optimizer as po
import schedulefree
import torch
from pytorch_optimizer.optimizer.grokfast import gradfilter_ema
from torch import optim

from peers.of_timm import Kron, timm

FACTS: list[tuple[str, Callable[[], tuple[bool, str]]]] = []
"""(what is said, what finds out: whether it holds here, and what was measured)."""


def fact(claim: str) -> Callable[[Callable[[], tuple[bool, str]]], Callable[[], tuple[bool, str]]]:
    def keep(measure: Callable[[], tuple[bool, str]]) -> Callable[[], tuple[bool, str]]:
        FACTS.append((claim, measure))
        return measure

    return keep


def results() -> Iterator[dict[str, Any]]:
    """One result a fact."""
    for claim, measure in FACTS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            holds, measured = measure()
        yield {"fact": claim, "holds": holds, "measured": measured}


def weight(values: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    p = torch.nn.Parameter(values)
    p.grad = gradient
    return p


@fact("torch's fused SGD does not train bfloat16 and float16 weights on a CPU")
def fused_half() -> tuple[bool, str]:
    moved = {}
    for dtype in (torch.bfloat16, torch.float16):
        p = weight(torch.full((40,), 0.5, dtype=dtype), torch.ones(40, dtype=dtype))
        optimiser = optim.SGD([p], lr=0.01, momentum=0.9, fused=True)
        for _ in range(10):
            optimiser.step()
        moved[str(dtype)[6:]] = int((p != 0.5).sum())
    said = ", ".join(f"{count} of 40 {name} weights moved" for name, count in moved.items())
    return any(count < 40 for count in moved.values()), f"{said} in 10 steps of a gradient of 1"


def last_column(kind: Any) -> tuple[int, int]:
    """(neighbours that were overwritten, weights that did not move) of a weight that is base[:, 0]."""
    base = torch.zeros(50, 2)
    p = weight(base[:, 0], torch.ones(50))
    kind([p], lr=0.1, fused=True).step()
    return int((base[:, 1] != 0).sum()), int((base[:, 0] == 0).sum())


@fact("torch's fused Adam, AdamW, SGD and Adagrad write beside a strided weight on a CPU")
def fused_strides() -> tuple[bool, str]:
    found = {kind.__name__: last_column(kind) for kind in (optim.Adam, optim.AdamW, optim.SGD, optim.Adagrad)}
    said = "; ".join(
        f"{name}: {wrong} of 50 neighbours overwritten, {still} of 50 weights still"
        for name, (wrong, still) in found.items()
    )
    return any(wrong for wrong, _ in found.values()), said


@fact("they take gradients of another memory format as if it were the weight's")
def fused_formats() -> tuple[bool, str]:
    off = {}
    for kind in (optim.Adam, optim.SGD):
        paths = []
        for fused in (False, True):
            torch.manual_seed(0)
            p = torch.nn.Parameter(torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last))
            p.grad = torch.randn(4, 3, 5, 5)
            optimiser = kind([p], lr=0.1, fused=fused)
            optimiser.step()
            paths.append(p.detach())
        off[kind.__name__] = float((paths[0] - paths[1]).abs().max())
    said = ", ".join(f"{name} is {value:.2g} off" for name, value in off.items())
    return max(off.values()) > 1e-5, f"channels_last weight, contiguous gradient, one step of lr 0.1: {said}"


@fact("bfloat16 weights stagnate under torch.optim.Adam and optax.adam")
def stagnation() -> tuple[bool, str]:
    p = weight(torch.full((1,), 0.5, dtype=torch.bfloat16), torch.ones(1, dtype=torch.bfloat16))
    optimiser = optim.Adam([p], lr=1e-3)
    for _ in range(3000):
        optimiser.step()
    x = jnp.full((1,), 0.5, jnp.bfloat16)
    adam = optax.adam(1e-3)
    state, update = adam.init(x), jax.jit(adam.update)
    for _ in range(3000):
        u, state = update(jnp.ones_like(x), state, x)
        x = optax.apply_updates(x, u)
    reached = p.item(), float(x[0])
    said = f"torch {reached[0]}, optax {reached[1]}; float32 reaches -2.5"
    return min(reached) > -1, f"after 3000 steps of lr 1e-3 and a gradient of 1, from 0.5: {said}"


@fact("load_state_dict swaps the moments of weights whose order has changed, though it is given names")
def reordered() -> tuple[bool, str]:
    a, b = (weight(torch.zeros(2), torch.full((2,), value)) for value in (1.0, 5.0))
    first = optim.Adam([("a", a), ("b", b)])
    first.step()
    second = optim.Adam([("b", b), ("a", a)])
    second.load_state_dict(first.state_dict())
    swapped = bool(second.state[a]["exp_avg"][0] > 0.4)
    return swapped, f"exp_avg of a was 0.1, after loading {second.state[a]['exp_avg'][0]:.1f}"


@fact("load_state_dict casts float32 moments to the weights' bfloat16")
def cast_on_load() -> tuple[bool, str]:
    p = weight(torch.zeros(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16))
    optimiser = optim.Adam([p])
    optimiser.step()
    state = optimiser.state_dict()
    state["state"][0]["exp_avg"] = torch.full((2,), 0.1)
    optimiser.load_state_dict(state)
    dtype = optimiser.state[p]["exp_avg"].dtype
    return dtype == torch.bfloat16, f"exp_avg is {str(dtype)[6:]} after loading"


def different(make: Callable[..., Any]) -> float:
    """The largest difference between the loop and foreach after 5 steps."""
    ends = []
    for foreach in (False, True):
        torch.manual_seed(0)
        ps = [torch.nn.Parameter(torch.randn(6, 4)), torch.nn.Parameter(torch.randn(5))]
        optimiser = make(ps, foreach=foreach)
        for _ in range(5):
            for p in ps:
                p.grad = torch.randn(p.shape)
            optimiser.step()
        ends.append(torch.cat([p.detach().flatten() for p in ps]))
    return float((ends[0] - ends[1]).abs().max())


@fact("pytorch-optimizer's AdaBelief, AdaFactor and StableAdamW differ between loop and foreach")
def loop_or_foreach() -> tuple[bool, str]:
    off = {name: different(getattr(po, name)) for name in ("AdaBelief", "AdaFactor", "StableAdamW")}
    return max(off.values()) > 1e-5, ", ".join(
        f"{name} {value:.1e}" for name, value in off.items()
    ) + " after 5 steps"


@fact("torch's foreach equals its loop on a CPU")
def torch_foreach() -> tuple[bool, str]:
    names = (
        "ASGD",
        "Adadelta",
        "Adagrad",
        "Adam",
        "AdamW",
        "Adamax",
        "NAdam",
        "RAdam",
        "RMSprop",
        "Rprop",
        "SGD",
        "Adafactor",
    )
    off = {name: different(getattr(optim, name)) for name in names}
    apart = ", ".join(f"{name} {value:.1e}" for name, value in off.items() if value)
    return not any(
        value > 1e-6 for value in off.values()
    ), f"{len(names)} rules, 5 steps, float32; apart: {apart or 'none'}"


@fact("torch's rules leave p.grad as it was")
def gradients_kept() -> tuple[bool, str]:
    touched = []
    for name in (
        "ASGD",
        "Adadelta",
        "Adagrad",
        "Adam",
        "AdamW",
        "Adamax",
        "NAdam",
        "RAdam",
        "RMSprop",
        "Rprop",
        "SGD",
        "Adafactor",
    ):
        p = weight(torch.randn(6, 4), torch.randn(6, 4))
        before = p.grad.clone()
        getattr(optim, name)([p], **({"weight_decay": 0.1} if name != "Rprop" else {})).step()
        touched += [name] * (not torch.equal(p.grad, before))
    return not touched, "touched by " + (", ".join(touched) or "none of 12")


@fact("many of pytorch-optimizer's rules change p.grad")
def gradients_changed() -> tuple[bool, str]:
    touched = tried = 0
    for kind in vars(po).values():
        if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer):
            p = weight(torch.randn(6, 4), torch.randn(6, 4))
            before = p.grad.clone()
            try:
                kind([p], weight_decay=0.1).step()
            except Exception:  # other arguments, a closure, a model
                continue
            tried += 1
            touched += not torch.equal(p.grad, before)
    return touched > 0, f"{touched} of the {tried} that can be made with a weight decay alone"


@fact("pytorch-optimizer's AdaHessian draws -1 alone where it should draw ±1")
def rademacher() -> tuple[bool, str]:
    source = inspect.getsource(po.AdaHessian) + inspect.getsource(inspect.getmro(po.AdaHessian)[1])
    line = next((one.strip() for one in source.splitlines() if "randint" in one), "no randint")
    return "randint_like(p, 0, 1)" in line, f"`{line}`"


@fact("pytorch-optimizer's gradfilter_ema starts three times too large, for it keeps p.grad itself")
def aliased() -> tuple[bool, str]:
    model = torch.nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.ones(1, 2)
    kept = gradfilter_ema(model, lamb=2.0)
    value = float(next(iter(kept.values()))[0, 0])
    return value != 1.0, f"of a gradient of 1 it keeps {value:g}"


@fact("pytorch-optimizer's Kron cannot be pickled")
def pickled() -> tuple[bool, str]:
    p = weight(torch.randn(4, 4), torch.randn(4, 4))
    optimiser = po.Kron([p])
    optimiser.step()
    try:
        pickle.dump(optimiser, io.BytesIO())
    except Exception as error:
        return True, f"{type(error).__name__}: {str(error)[:80]}"
    return False, "it is pickled"


@fact("optax.adadelta with its default learning rate climbs")
def adadelta_climbs() -> tuple[bool, str]:
    x = jnp.array([1.0, 2.0, 3.0])
    rule = optax.adadelta()
    state = rule.init(x)
    start = float((x**2).sum())
    for _ in range(200):
        u, state = rule.update(2 * x, state, x)
        x = optax.apply_updates(x, u)
    end = float((x**2).sum())
    return end > start, f"f = Σx² went from {start:.1f} to {end:.1f} in 200 steps"


@fact("AdEMAMix's α is 5 in optax's alias and 6 in the transformation it is made of")
def alphas() -> tuple[bool, str]:
    names = ("ademamix", "scale_by_ademamix")
    found = {
        name: inspect.signature(getattr(optax.contrib, name)).parameters["alpha"].default for name in names
    }
    return len(set(found.values())) > 1, ", ".join(f"{name} {value}" for name, value in found.items())


@fact("timm's AdafactorBigVision clips where it should not, and does not where it should (off by default)")
def reversed_clamp() -> tuple[bool, str]:
    ends = []
    for threshold in (None, 1.0):
        p = weight(torch.zeros(4, 4), torch.ones(4, 4))
        optimiser = timm.AdafactorBigVision([p], lr=1.0, momentum=None, clipping_threshold=threshold)
        optimiser.step()
        p.grad = torch.full((4, 4), 0.1)  # an update of about 0.1, which needs no clipping
        before = p.detach().clone()
        optimiser.step()
        ends.append(float((p.detach() - before).abs().mean()))
    return abs(
        ends[0] - ends[1]
    ) > 1e-6, f"an update of {ends[0]:.2f} below the threshold of 1 becomes {ends[1]:.2f}"


@fact("timm's Kron defines __setstate__ twice")
def twice() -> tuple[bool, str]:
    count = inspect.getsource(Kron).count("def __setstate__")
    return count > 1, f"{count} definition{'s' * (count != 1)}"


@fact("optax.rprop is a step late: its first update is 0")
def rprop_late() -> tuple[bool, str]:
    rule = optax.rprop(0.01)
    x = jnp.ones(1)
    state = rule.init(x)
    given = []
    for g in (1.0, 1.0, 1.0):
        u, state = rule.update(jnp.array([g]), state, x)
        given.append(float(u[0]))
    return given[0] == 0, "updates for a gradient of 1: " + ", ".join(f"{u:g}" for u in given)


@fact("schedulefree's wrapper cannot be put around torch.optim.AdamW")
def unwrapped() -> tuple[bool, str]:
    optimiser = schedulefree.ScheduleFreeWrapper(optim.AdamW([weight(torch.ones(3), torch.ones(3))]))
    optimiser.train()
    try:
        optimiser.step()
    except Exception as error:
        return (
            True,
            f"{type(error).__name__}: {error} (its state stands where AdamW's first step looks for none)",
        )
    return False, "it steps"


@fact("pytorch-optimizer's RAdam ignores weight_decay with weight_decouple=False")
def ignored() -> tuple[bool, str]:
    p = weight(torch.ones(3), torch.zeros(3))
    optimiser = po.RAdam([p], weight_decay=0.5, weight_decouple=False, degenerated_to_sgd=True)
    for _ in range(20):
        optimiser.step()
    return bool(
        (p == 1).all()
    ), f"without a gradient, after 20 steps of decay 0.5, a weight of 1 is {float(p[0]):g}"
