"""Rules that see whole arrays against the libraries that have them too, where these are installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from steepest import rules
from steepest.optim.engines import on_numpy
from steepest.optim.engines.on_numpy import NUMPY
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.rules import kronecker

EPS = np.finfo(np.float64).eps
SINGLE = float(np.finfo(np.float32).eps)
STEPS = 25
SHAPES = [(6, 4), (4, 6), (5, 5)]
OVER_SHAPES = pytest.mark.parametrize("shape", SHAPES, ids=str)

Maker = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


def library(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


def start(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


def gradient(w: np.ndarray, t: int) -> np.ndarray:
    return 0.3 * w + np.random.default_rng(t).normal(size=w.shape)


def ours(rule: rules.Rule, shape: tuple[int, ...], steps: int = STEPS) -> np.ndarray:
    w, slots, shared = start(shape), rule.init(NUMPY, start(shape)), dict(rule.shared)
    for t in range(1, steps + 1):
        w, slots, shared = on_numpy.step(rule, t, t, w, gradient(w, t), slots, shared)
    return w


def theirs(make: Maker, shape: tuple[int, ...], steps: int = STEPS) -> np.ndarray:
    weight = torch.nn.Parameter(torch.from_numpy(start(shape)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = make([weight])
        for t in range(1, steps + 1):
            weight.grad = torch.from_numpy(np.asarray(gradient(weight.detach().numpy(), t)))
            optimizer.step()
    return weight.detach().numpy()


def agree(
    rule: rules.Rule, make: Maker, shape: tuple[int, ...], eps: float = EPS, steps: int = STEPS
) -> None:
    """A hundred roundings a step: products of matrices have as many terms as a side is long."""
    np.testing.assert_allclose(
        ours(rule, shape, steps), theirs(make, shape, steps), rtol=0, atol=100 * steps * eps
    )


@pytest.fixture
def no_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.optim.Muon computes in bfloat16, whatever its weights are."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)


@OVER_SHAPES
@pytest.mark.usefixtures("no_16_bits")
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(
    ("rule", "scale"), [(rules.Muon, "original"), (rules.MuonMatched, "match_rms_adamw")]
)
def test_muon_is_torchs(rule, scale: str, nesterov: bool, shape: tuple[int, int]) -> None:
    """torch's guard of the norm is a bound, ours an addend: 1e-7 of the norm, and it is near 1 or more."""
    given = {"lr": 0.03, "momentum": 0.9, "weight_decay": 0.1, "nesterov": nesterov}
    make = partial(torch.optim.Muon, **given, adjust_lr_fn=scale, eps=1e-30)
    agree(rule(**given, eps=1e-30), make, shape)


@OVER_SHAPES
def test_muon_in_16_bits_is_near(shape: tuple[int, int]) -> None:
    given = {"lr": 0.03, "momentum": 0.9, "weight_decay": 0.1}
    found, expected = ours(rules.Muon(**given), shape), theirs(partial(torch.optim.Muon, **given), shape)
    worst = STEPS * given["lr"] * float(torch.finfo(torch.bfloat16).eps) * 3.4445**5 / 10
    np.testing.assert_allclose(found, expected, rtol=0, atol=worst)


@pytest.mark.parametrize("shape", [*SHAPES, (7,), (3, 4, 5), ()], ids=str)
def test_adafactor_is_torchs(shape: tuple[int, ...]) -> None:
    rule = rules.AdafactorTorch(
        lr=0.05, decay_rate=0.7, eps1=1e-2, eps2=1e-2, threshold=1.0, weight_decay=0.1
    )
    make = partial(
        torch.optim.Adafactor, lr=0.05, beta2_decay=-0.7, eps=(1e-2, 1e-2), d=1.0, weight_decay=0.1
    )
    agree(rule, make, shape)


@pytest.mark.parametrize("shape", [*SHAPES, (7,), (3, 4, 5)], ids=str)
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_adafactor_is_optaxs(decay: float, shape: tuple[int, ...]) -> None:
    optax, jax = library("optax"), library("jax")
    rule = rules.AdafactorOptax(lr=0.05, decay_rate=0.7, threshold=0.8, weight_decay=decay, factor_from=4)
    made = optax.adafactor(
        0.05,
        decay_rate=0.7,
        clipping_threshold=0.8,
        weight_decay_rate=decay or None,
        min_dim_size_to_factor=4,
    )
    w = jax.numpy.asarray(start(shape), jax.numpy.float32)
    state = made.init(w)
    for t in range(1, STEPS + 1):
        g = jax.numpy.asarray(gradient(np.asarray(w, np.float64), t), jax.numpy.float32)
        change, state = made.update(g, state, w)
        w = optax.apply_updates(w, change)
    np.testing.assert_allclose(ours(rule, shape), np.asarray(w), rtol=0, atol=100 * STEPS * SINGLE)


@OVER_SHAPES
def test_newton_schulz_is_optaxs(shape: tuple[int, int]) -> None:
    """Its Muon debiases momentum and gradient apart, for other first steps; the iteration is the same."""
    library("jax")
    theirs = library("optax.contrib._muon").orthogonalize_via_newton_schulz
    x = start(shape).astype(np.float32)
    coefficients = np.asarray((3.4445, -4.7750, 2.0315), np.float32)
    found = rules.orthogonal.orthogonal(NUMPY, x.astype(np.float64), 5, "jordan", 1e-8)
    atol = 100 * 3.4445**5 * SINGLE
    np.testing.assert_allclose(found, theirs(x, coefficients, 5, eps=1e-8), rtol=0, atol=atol)


@pytest.mark.parametrize("shape", [*SHAPES, (7,), (3, 4, 5)], ids=str)
@pytest.mark.parametrize("least", [4, 100])
def test_adafactor_is_timms(timms, least: int, shape: tuple[int, ...]) -> None:
    big_vision = timms("adafactor_bv").AdafactorBigVision
    given = {"lr": 0.03, "decay_rate": 0.7, "momentum": 0.8, "weight_decay": 0.1}
    rule = rules.AdafactorBigVision(**given, cap=0.9, factor_from=least)
    make = partial(
        big_vision, **given, beta2_cap=0.9, min_dim_size_to_factor=least, eps=1e-30, momentum_dtype="float32"
    )
    agree(rule, make, shape, SINGLE)


@OVER_SHAPES
@pytest.mark.parametrize(
    ("rule", "scale"),
    [(rules.Muon, "original"), (rules.MuonMatched, "match_rms_adamw"), (rules.MuonSpectral, "rms_to_rms")],
)
@pytest.mark.parametrize(("ours", "names"), [("jordan", "original"), ("quintic", "quintic")])
def test_muon_is_timms(
    timms, rule, scale: str, ours: str, names: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = timms("muon")
    monkeypatch.setattr(
        module, "zeropower_via_newtonschulz", partial(module.zeropower_via_newtonschulz, dtype=torch.float64)
    )
    given = {"lr": 0.03, "momentum": 0.9, "weight_decay": 0.1, "nesterov": True, "eps": 1e-30}
    make = partial(module.Muon, **given, ns_coefficients=names, adjust_lr_fn=scale)
    agree(rule(**given, coefficients=ours), make, shape)


@OVER_SHAPES
def test_kron_is_timms(timms, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """With our random numbers in the place of its own."""
    module = timms("kron")
    drawn = iter(range(1, STEPS + 1))
    noise = lambda shape, **_: torch.from_numpy(on_numpy.normal(tuple(shape), 0, next(drawn)))  # noqa: E731
    monkeypatch.setattr(module.torch, "randn", noise)
    make = partial(module.Kron, lr=0.03, momentum=0.8, precond_lr=0.2, weight_decay=0.1, decoupled_decay=True)
    make.keywords["precond_dtype"] = torch.float64
    rule = rules.Kron(lr=0.03, momentum=0.8, precondition_lr=0.2, weight_decay=0.1)
    # timm solves its triangular systems in float32, whatever the weights are.
    agree(rule, make, shape, SINGLE)


def test_kron_rests_as_often_as_timms(timms, monkeypatch: pytest.MonkeyPatch) -> None:
    module = timms("kron")
    monkeypatch.setattr(module, "precond_update_prob_schedule", _schedule(flat=3, decay=0.2, least=0.1))
    drawn: list[int] = []

    def noise(shape: Any, **_: Any) -> torch.Tensor:
        drawn.append(1)
        return torch.ones(tuple(shape), dtype=torch.float64)

    monkeypatch.setattr(module.torch, "randn", noise)
    counts, weight = [], torch.nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = module.Kron([weight])
        for _ in range(60):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
            counts.append(len(drawn))
    rule, shared, due = rules.Kron(flat=3, fall=0.2, every=10), {"waited": 0.0}, []
    for t in range(1, 61):
        k, shared = rule.constants(on_numpy.HOST, t, shared)
        due.append(int(k.due))
    assert np.cumsum(due).tolist() == counts


def _schedule(flat: int, decay: float, least: float) -> Callable[[int], float]:
    return lambda n: min(1.0, max(least, float(np.exp(-decay * (n - flat)))))


def kozistrs(name: str) -> Any:
    return getattr(library("pytorch_optimizer"), name)


@pytest.mark.parametrize("shape", [*SHAPES, (7,), (3, 4, 5)], ids=str)
def test_came_is_kozistrs(shape: tuple[int, ...]) -> None:
    rule = rules.CAME(lr=0.03, beta1=0.8, beta2=0.9, beta3=0.95, eps2=1e-6, threshold=0.9, weight_decay=0.1)
    make = partial(
        kozistrs("CAME"),
        lr=0.03,
        betas=(0.8, 0.9, 0.95),
        eps2=1e-6,
        clip_threshold=0.9,
        weight_decay=0.1,
        foreach=False,
    )
    agree(rule, make, shape)


@pytest.mark.parametrize("shape", [*SHAPES, (7,), (3, 4, 5)], ids=str)
def test_sm3_is_kozistrs(shape: tuple[int, ...]) -> None:
    agree(
        rules.SM3(lr=0.1, momentum=0.8), partial(kozistrs("SM3"), lr=0.1, momentum=0.8, foreach=False), shape
    )


@OVER_SHAPES
def test_normuon_is_kozistrs(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    kind = kozistrs("NorMuon")
    module = library("pytorch_optimizer.optimizer.muon.normuon")
    iteration = module.zero_power_via_newton_schulz_5
    monkeypatch.setattr(
        module, "zero_power_via_newton_schulz_5", partial(iteration, dtype=torch.float64, eps=1e-30)
    )
    given = {"lr": 0.03, "momentum": 0.8, "beta2": 0.9, "weight_decay": 0.1, "eps": 1e-8}

    def make(weights: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        group = {"params": weights, "use_muon": True}
        return kind([group], **given, nesterov=False, update_scale="match_rms", foreach=False)

    # Our guard of the norm is 1e-7, and adds.
    agree(rules.NorMuon(**given), make, shape, eps=1e-7 / 100)


@pytest.mark.parametrize("shape", [(5, 5), (4, 4)], ids=str)
def test_soap_is_kozistrs(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact until the first power iteration, done in float32. A gradient of full rank has one basis."""
    monkeypatch.setattr(kronecker, "RAMP", 0.0)
    given = {"lr": 0.03, "weight_decay": 0.0, "eps": 1e-6}
    make = partial(kozistrs("SOAP"), **given, betas=(0.8, 0.9), precondition_frequency=10)
    rule = rules.SOAP(**given, beta1=0.8, beta2=0.9, every=10)
    agree(rule, make, shape, steps=11)
    agree(rule, make, shape, eps=SINGLE)


@OVER_SHAPES
def test_shampoo_is_kozistrs(shape: tuple[int, int]) -> None:
    rule = rules.Shampoo(lr=0.1, beta1=0.0, damping=1e-3, graft="none")
    agree(rule, partial(kozistrs("Shampoo"), lr=0.1, matrix_eps=1e-3), shape)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)], ids=str)
@pytest.mark.parametrize(
    ("rule", "betas", "scale"), [(rules.GaLore, (0.8, 0.9), 0.3), (rules.Fira, (0.0, 0.0), 1.0)]
)
def test_low_rank_is_kozistrs(rule, betas: tuple[float, float], scale: float, shape: tuple[int, int]) -> None:
    """It finds singular vectors in float32, and corrects Adam's ε not at all: here there is hardly any.

    Its Fira limits growth before it debiases, we after: here there is nothing to debias."""
    kind = kozistrs(rule.__name__)

    def make(weights: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        low = {"rank": 2, "update_proj_gap": 100, "scale": scale, "projection_type": "std"}
        return kind([{"params": weights, **low}], lr=0.03, betas=betas, eps=1e-30, foreach=False)

    chosen = rule(lr=0.03, beta1=betas[0], beta2=betas[1], eps=1e-30, scale=scale, rank=2, every=100)
    agree(chosen, make, shape, SINGLE)


@pytest.mark.parametrize(("name", "blocks"), [("plain", 1), ("q_proj", 3)])
def test_adam_mini_is_kozistrs(name: str, blocks: int) -> None:
    """Of a whole tensor, and of the heads of a query; its state is float32."""
    kind = kozistrs("AdamMini")

    def make(weights: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        layer = torch.nn.Linear(6, 6, bias=False, dtype=torch.float64)
        layer.weight = weights[0]
        given = {"lr": 0.03, "betas": (0.8, 0.9), "weight_decay": 0.1, "num_embeds": 6, "num_heads": 3}
        return kind(torch.nn.ModuleDict({name: layer}), **given)

    rule = rules.AdamMini(lr=0.03, beta1=0.8, beta2=0.9, weight_decay=0.1, blocks=blocks)
    agree(rule, make, (6, 6), SINGLE)


def banana(ws: list[torch.nn.Parameter]) -> torch.Tensor:
    return torch.stack([((1 - w[:-1]) ** 2).sum() + 5 * ((w[1:] - w[:-1] ** 2) ** 2).sum() for w in ws]).sum()


def descended(make: Callable[[Any], Any]) -> list[np.ndarray]:
    draw, path = torch.Generator().manual_seed(0), []
    ws = [torch.nn.Parameter(0.3 * torch.randn(n, generator=draw, dtype=torch.float64)) for n in (7, 12)]
    optimizer = make(ws)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = banana(ws)
        loss.backward()
        return loss

    for _ in range(STEPS):
        optimizer.step(closure)
        path.append(torch.cat([w.detach() for w in ws]).numpy())
    return path


def test_lbfgs_is_torchs_without_a_search() -> None:
    """Two weights in one Hessian, more steps than pairs, some without curvature; on a path that bends."""
    exact = {"max_iter": 1, "history_size": 10, "tolerance_grad": 0, "tolerance_change": 0}
    found = descended(lambda ws: RuleOptimizer(ws, rules.LBFGS(lr=0.8)))
    theirs = descended(lambda ws: torch.optim.LBFGS(ws, lr=0.8, **exact))
    np.testing.assert_allclose(found, theirs, rtol=0, atol=1e4 * STEPS * EPS)
