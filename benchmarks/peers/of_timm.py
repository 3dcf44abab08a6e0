"""timm.optim."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from papers.closed import decoupled
from papers.orthogonal import jordans, moonshots

from peers import matrix_twins, twins
from peers.of_torch import betas, sgd
from peers.patches import double_scalars, our_noise, whole_precision, without_casts
from peers.peer import Cause, Peer


def optimisers_alone() -> Any:
    """timm.optim without timm.models, which wants a torchvision built for this very torch."""
    spec = importlib.util.find_spec("timm")
    timm, models = ModuleType("timm"), ModuleType("timm.models")
    timm.__path__ = list(spec.submodule_search_locations) if spec else []  # type: ignore[attr-defined]
    models.group_parameters = None  # type: ignore[attr-defined]
    sys.modules.setdefault("timm", timm)
    sys.modules.setdefault("timm.models", models)
    return importlib.import_module("timm.optim")


timm = optimisers_alone()
Kron = importlib.import_module("timm.optim.kron").Kron
newton_schulz = importlib.import_module("timm.optim.muon").zeropower_via_newtonschulz
torch.compiler.set_stance("force_eager")  # Kron compiles its pieces, which would take minutes

FROM_ONE = Cause("v starts at 1", numbers=lambda h: {**vars(h), "initial": 1.0})
NOISY = ((7,), (6, 4), (3, 2, 2, 2))
EPS_IN_RATE = Cause("ε is added to the rate, as in the authors' code", path=twins.madgrad_eps_in_rate)


class Adahessian(timm.Adahessian):
    """With the curvature that it is given."""

    def step(self, hessian: list[Any]) -> None:  # type: ignore[override]
        self.given = hessian
        super().step()

    def zero_hessian(self) -> None:
        """Nothing is summed up."""

    def set_hessian(self) -> None:
        """In the place of a second backward pass."""
        for p, d in zip(self.param_groups[0]["params"], self.given, strict=True):
            p.hess = d


PEERS = [
    Peer(
        "adahessian",
        "timm.Adahessian",
        lambda p, h: Adahessian(p, **betas(h), hessian_power=h.power),
    ),
    Peer(
        "rmsproptf",
        "timm.RMSpropTF",
        lambda p, h: timm.RMSpropTF(
            p, **sgd(h), alpha=h.alpha, eps=h.eps, momentum=h.momentum, decoupled_decay=True
        ),
        FROM_ONE,
    ),
    Peer(
        "rmsproptfcentered",
        "timm.RMSpropTF",
        lambda p, h: timm.RMSpropTF(
            p, **sgd(h), alpha=h.alpha, eps=h.eps, momentum=h.momentum, decoupled_decay=True, centered=True
        ),
        FROM_ONE,
    ),
    Peer("adamw", "timm.AdamWLegacy", lambda p, h: timm.AdamWLegacy(p, **betas(h))),
    Peer(
        "nadam",
        "timm.NAdamLegacy",
        lambda p, h: timm.NAdamLegacy(p, **betas(h), schedule_decay=h.momentum_decay),
    ),
    Peer("nadamwsimple", "timm.NAdamW", lambda p, h: timm.NAdamW(p, **betas(h)),
        Cause(
            "the average looked ahead is divided by 1 - β₁ᵗ as a whole, in Dozat's rule m by 1 - β₁ᵗ⁺¹",
            path=decoupled(twins.nadam_one_correction),
        ),
    ),
    Peer(
        "radamw",
        "timm.RAdamLegacy",
        lambda p, h: timm.RAdamLegacy(p, **betas(h)),
        Cause("computed in float32 whatever the weights are", patch=without_casts),
    ),
    Peer("adabelief", "timm.AdaBelief", lambda p, h: timm.AdaBelief(p, **betas(h))),
    Peer(
        "adan",
        "timm.Adan",
        lambda p, h: timm.Adan(
            p, lr=h.lr, betas=(h.beta1, h.beta2, h.beta3), eps=h.eps, weight_decay=h.weight_decay
        ),
    ),
    Peer(
        "adanw",
        "timm.Adan",
        lambda p, h: timm.Adan(
            p, lr=h.lr, betas=(h.beta1, h.beta2, h.beta3), eps=h.eps, weight_decay=h.weight_decay,
            no_prox=True,
        ),
    ),
    Peer("adopt", "timm.Adopt", lambda p, h: timm.Adopt(p, **betas(h), clip_exp=0.25, decoupled=True)),
    Peer("laprop", "timm.LaProp", lambda p, h: timm.LaProp(p, **betas(h)),
        Cause(
            "the bias correction is kept in a tensor of float32; decay acts on the weights that have moved",
            path=twins.laprop_decay_last,
            patch=double_scalars,
        ),
    ),
    Peer(
        "lion",
        "timm.Lion",
        lambda p, h: timm.Lion(p, **sgd(h), betas=(h.beta1, h.beta2)),
    ),
    Peer("lamb", "timm.Lamb", lambda p, h: timm.Lamb(p, **betas(h), max_grad_norm=None, always_adapt=True)),
    Peer(
        "lars",
        "timm.Lars",
        lambda p, h: timm.Lars(
            p, **sgd(h), momentum=h.momentum, trust_coeff=h.trust, eps=h.eps, always_adapt=True
        ),
    ),
    Peer(
        "madgrad",
        "timm.MADGRAD",
        lambda p, h: timm.MADGRAD(p, **sgd(h), momentum=h.momentum, eps=h.eps),
        EPS_IN_RATE,
    ),
    Peer("mars", "timm.Mars", lambda p, h: timm.Mars(p, **betas(h), gamma=h.gamma, optimize_1d=True)),
    Peer("novograd", "timm.NvNovoGrad", lambda p, h: timm.NvNovoGrad(p, **betas(h)),
        Cause("the second moment is kept in a tensor of float32", patch=double_scalars),
    ),
    Peer(
        "adafactor",
        "timm.Adafactor",
        lambda p, h: timm.Adafactor(
            p, lr=None, eps=h.eps1, eps_scale=h.eps2, clip_threshold=h.threshold, decay_rate=-h.decay_rate,
            weight_decay=h.weight_decay, min_dim_size_to_factor=1,
        ),
        Cause(
            "of a convolution the first two axes are factored and not the largest two; decay is times the "
            "relative rate and not lr",
            path=matrix_twins.adafactor_relative_decay(matrix_twins.first_two),
        ),
    ),
    Peer(
        "adafactorbigvision",
        "timm.AdafactorBigVision",
        lambda p, h: timm.AdafactorBigVision(
            p, **sgd(h), decay_rate=h.decay_rate, beta2_cap=h.cap, momentum=h.momentum, eps=h.eps1,
            momentum_dtype=torch.float64, min_dim_size_to_factor=h.factor_from,
        ),
    ),
    Peer(
        "kron",
        "timm.Kron",
        lambda p, h: Kron(
            p, **sgd(h), momentum=h.momentum, precond_lr=h.precondition_lr, max_size_triangular=h.largest,
            decoupled_decay=True,
        ),
        Cause(
            "other random numbers; given ours, and with its float32 solves made in float64, it agrees",
            patch=lambda: our_noise(len(NOISY)),
        ),
        shapes=NOISY,
    ),
]  # fmt: skip


def muon(p: Any, h: SimpleNamespace, scale: str) -> Any:
    names = {"jordan": "original", "quintic": "quintic", "polar_express": "polar_express"}
    return timm.Muon(
        p, **sgd(h), momentum=h.momentum, nesterov=h.nesterov, ns_steps=h.steps, eps=h.eps,
        ns_coefficients=names[h.coefficients], adjust_lr_fn=scale, normalize_spatial=False,
    )  # fmt: skip


def half(scale: Any) -> Cause:
    words = (
        "the Newton-Schulz iteration is in bfloat16, from u/max(‖u‖, ε) where the authors have u/(‖u‖ + ε)"
    )
    return Cause(words, path=matrix_twins.muon(scale), patch=whole_precision(newton_schulz))


LARGE = ((6, 4), (4, 6), (5, 2, 2, 2))
"""timm moves weights with a side below 4 by AdamW."""

PEERS += [
    Peer("muon", "timm.Muon", lambda p, h: muon(p, h, "original"), half(jordans), shapes=LARGE),
    Peer(
        "muonmatched", "timm.Muon", lambda p, h: muon(p, h, "match_rms_adamw"), half(moonshots), shapes=LARGE
    ),
]
