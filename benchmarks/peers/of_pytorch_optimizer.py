"""pytorch-optimizer (kozistr), each with foreach left to the library, as its users have it."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytorch_optimizer as po
import torch
from papers.closed import coupled, decoupled
from papers.orthogonal import jordans, moonshots
from papers.rectified import radam
from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_newton_schulz_5

from peers import matrix_twins, twins
from peers.of_torch import betas, sgd
from peers.patches import double_scalars, our_noise, our_projection, whole_precision, without_casts
from peers.peer import Cause, Peer


def three(h: SimpleNamespace) -> dict[str, Any]:
    return {**sgd(h), "betas": (h.beta1, h.beta2, h.beta3)}


def two(h: SimpleNamespace) -> dict[str, Any]:
    return {**sgd(h), "betas": (h.beta1, h.beta2)}


def muons(p: Any, **settings: Any) -> list[dict[str, Any]]:
    return [{"params": p, "use_muon": True, **settings}]


RAW_EPS = "ε is added to the uncorrected root, and 1e-15 beneath it"
IN_SINGLE = Cause("sums over the model are kept in tensors of float32", patch=double_scalars)
WHOLE = whole_precision(zero_power_via_newton_schulz_5)
FLAT = ((6, 4), (4, 6), (3, 5))
SQUARE = ((7,), (5, 5), (4, 4))
NOISY = ((4, 5), (6, 4), (3, 2, 2, 2))


HALF = "the Newton-Schulz iteration is in bfloat16"


def half(scale: Any) -> Cause:
    words = (
        "the Newton-Schulz iteration is in bfloat16, from u/max(‖u‖, ε) where the authors have u/(‖u‖ + ε)"
    )
    return Cause(words, path=matrix_twins.muon(scale), patch=WHOLE)


def low_rank(kind: str) -> Cause:
    words = (
        "m and v are not corrected within, √bc₂/bc₁ is on the step; decay acts on the weights that have moved"
    )
    if kind == "apollo":
        words += "; the projected gradient is scaled and projected back, in the paper the gradient itself is"
        return Cause(words, path=matrix_twins.low_rank(kind), patch=lambda: our_projection(2))
    return Cause(
        f"{words}; singular vectors in float32", path=matrix_twins.low_rank(kind), patch=without_casts
    )


def ranked(p: Any, h: SimpleNamespace) -> list[dict[str, Any]]:
    return [
        {"params": p, "rank": h.rank, "update_proj_gap": h.every, "scale": h.scale, "projection_type": "std"}
    ]


PEERS = [
    Peer(
        "adahessian",
        "pytorch-optimizer.AdaHessian",
        lambda p, h: po.AdaHessian(p, **betas(h), hessian_power=h.power),
    ),
    Peer(
        "sophiah",
        "pytorch-optimizer.SophiaH",
        lambda p, h: po.SophiaH(
            p, lr=h.lr / h.clip, betas=(h.beta1, h.beta2), weight_decay=h.weight_decay * h.clip, p=h.clip,
            update_period=h.every, eps=h.eps / h.clip,
        ),
        given={"lr": 0.01, "clip": 1.0, "eps": 0.01, "every": 3},
    ),
    Peer(
        "adamc",
        "pytorch-optimizer.AdamC",
        lambda p, h: po.AdamC(p, **betas(h)),
        Cause(
            f"{RAW_EPS}; decay falls with the square of the rate only in groups marked normalized",
            path=decoupled(twins.adam_raw_eps),
            numbers=lambda h: {name: one for name, one in vars(h).items() if name != "peak"},
        ),
    ),
    Peer("adabelief", "pytorch-optimizer.AdaBelief", lambda p, h: po.AdaBelief(p, **betas(h), rectify=True)),
    Peer("adamax", "pytorch-optimizer.AdaMax", lambda p, h: po.AdaMax(p, **betas(h))),
    Peer("adan", "pytorch-optimizer.Adan", lambda p, h: po.Adan(p, **three(h), eps=h.eps)),
    Peer(
        "adanw",
        "pytorch-optimizer.Adan",
        lambda p, h: po.Adan(p, **three(h), eps=h.eps, weight_decouple=True),
    ),
    Peer(
        "ademamix",
        "pytorch-optimizer.AdEMAMix",
        lambda p, h: po.AdEMAMix(p, **three(h), eps=h.eps, alpha=h.mix, weight_decouple=True),
    ),
    Peer("adopt", "pytorch-optimizer.ADOPT", lambda p, h: po.ADOPT(p, **betas(h), weight_decouple=True),
        Cause(
            "gradients of step t are clipped to t^¼ and not (t-1)^¼; decay acts in the first step too",
            path=twins.adopt_later_clip,
        ),
    ),
    Peer(
        "adafactor",
        "pytorch-optimizer.AdaFactor",
        lambda p, h: po.AdaFactor(
            p, lr=None, betas=(0.0, 0.999), weight_decay=h.weight_decay, decay_rate=-h.decay_rate,
            clip_threshold=h.threshold, eps1=h.eps1, eps2=h.eps2, momentum_dtype=torch.float64,
        ),
        Cause(
            "of a convolution the last two axes are factored and not the largest two; decay is times the "
            "relative rate and not lr",
            path=matrix_twins.adafactor_relative_decay(matrix_twins.last_two),
        ),
    ),
    Peer(
        "came",
        "pytorch-optimizer.CAME",
        lambda p, h: po.CAME(p, **three(h), clip_threshold=h.threshold, eps1=h.eps1, eps2=h.eps2),
    ),
    Peer(
        "sm3",
        "pytorch-optimizer.SM3",
        lambda p, h: po.SM3(p, lr=h.lr, momentum=h.momentum, eps=h.eps),
        decays=False,
    ),
    Peer(
        "dadaptadam",
        "pytorch-optimizer.DAdaptAdam",
        lambda p, h: po.DAdaptAdam(p, **betas(h), d0=h.initial, growth_rate=h.growth, weight_decouple=True),
        IN_SINGLE,
    ),
    Peer(
        "prodigy",
        "pytorch-optimizer.Prodigy",
        lambda p, h: po.Prodigy(
            p, **betas(h), d0=h.initial, d_coef=h.coefficient, growth_rate=h.growth,
            safeguard_warmup=h.safeguard_warmup, bias_correction=h.bias_correction,
        ),
        IN_SINGLE,
    ),
    Peer(
        "ftrl",
        "pytorch-optimizer.FTRL",
        lambda p, h: po.FTRL(p, lr=h.lr, lr_power=-h.power, beta=h.beta, lambda_1=h.l1, lambda_2=h.l2),
        Cause(
            "the sum of squares starts at 0, there is no argument for it",
            numbers=lambda h: {**vars(h), "initial": 0.0},
        ),
    ),
    Peer("lamb", "pytorch-optimizer.Lamb", lambda p, h: po.Lamb(p, **betas(h), max_grad_norm=0.0),
        Cause(
            "v is not corrected for the start, and m outside the ratio; decay comes before the ratio; ‖w‖ "
            "counts as 10 at most, ε is added to ‖r‖",
            path=twins.lamb_uncorrected,
        ),
    ),
    Peer("laprop", "pytorch-optimizer.LaProp", lambda p, h: po.LaProp(p, **betas(h)),
        Cause(
            f"{RAW_EPS}; corrections in float32; decay acts on the weights that have moved",
            path=partial(twins.laprop_decay_last, under=1e-15),
            patch=double_scalars,
        ),
    ),
    Peer(
        "lars",
        "pytorch-optimizer.LARS",
        lambda p, h: po.LARS(p, **sgd(h), momentum=h.momentum, trust_coefficient=h.trust),
        Cause("vectors are neither scaled nor decayed; there is no ε", path=twins.lars_not_vectors),
    ),
    Peer("lion", "pytorch-optimizer.Lion", lambda p, h: po.Lion(p, **two(h))),
    Peer(
        "madgrad",
        "pytorch-optimizer.MADGRAD",
        lambda p, h: po.MADGRAD(p, **sgd(h), momentum=h.momentum, eps=h.eps),
        Cause("ε is added to the rate, as in the authors' code", path=twins.madgrad_eps_in_rate),
    ),
    Peer(
        "mars",
        "pytorch-optimizer.MARS",
        lambda p, h: po.MARS(p, **betas(h), gamma=h.gamma, optimize_1d=True),
        Cause(RAW_EPS, path=twins.mars_raw_eps),
    ),
    Peer("novograd", "pytorch-optimizer.NovoGrad", lambda p, h: po.NovoGrad(p, **betas(h))),
    Peer(
        "qhadam",
        "pytorch-optimizer.QHAdam",
        lambda p, h: po.QHAdam(p, **betas(h), nus=(h.nu1, h.nu2), weight_decouple=True),
        Cause("the weights of the averages are kept in tensors of float32", patch=double_scalars),
    ),
    Peer(
        "radam",
        "pytorch-optimizer.RAdam",
        lambda p, h: po.RAdam(p, **betas(h), weight_decouple=False, degenerated_to_sgd=True),
        Cause(
            "weight_decay is ignored with weight_decouple=False",
            path=coupled(radam),
            numbers=lambda h: {**vars(h), "weight_decay": 0.0},
        ),
    ),
    Peer("radamw", "pytorch-optimizer.RAdam", lambda p, h: po.RAdam(p, **betas(h), degenerated_to_sgd=True)),
    Peer(
        "schedulefreesgd",
        "pytorch-optimizer.ScheduleFreeSGD",
        lambda p, h: po.ScheduleFreeSGD(p, **sgd(h), momentum=h.beta, r=h.power, warmup_steps=h.warmup),
    ),
    Peer(
        "schedulefreeadamw",
        "pytorch-optimizer.ScheduleFreeAdamW",
        lambda p, h: po.ScheduleFreeAdamW(p, **betas(h), r=h.power, warmup_steps=h.warmup),
    ),
    Peer(
        "shampoo",
        "pytorch-optimizer.Shampoo",
        lambda p, h: po.Shampoo(p, **sgd(h), momentum=0.0, weight_decouple=True, matrix_eps=h.damping),
        given={"graft": "none", "beta1": 0.0, "damping": 1e-4},
        shapes=((7,), (6, 4), (3, 2, 2, 2)),
    ),
    Peer("signsgd", "pytorch-optimizer.SignSGD", lambda p, h: po.SignSGD(p, **sgd(h), momentum=0.0)),
    Peer("signum", "pytorch-optimizer.SignSGD", lambda p, h: po.SignSGD(p, **sgd(h), momentum=h.momentum)),
    Peer(
        "soap",
        "pytorch-optimizer.SOAP",
        lambda p, h: po.SOAP(p, **betas(h), precondition_frequency=h.every, max_precondition_dim=h.largest),
        Cause(
            "decay acts on the weights that have moved; bases are turned in float32; ours has a ramp of 1e-6 "
            "under equal eigenvalues",
            path=matrix_twins.soap_without_ramp,
            patch=without_casts,
        ),
        shapes=SQUARE,
    ),
    Peer(
        "stableadamw",
        "pytorch-optimizer.StableAdamW",
        lambda p, h: po.StableAdamW(p, **betas(h), kahan_sum=False),
    ),
    Peer(
        "yogi",
        "pytorch-optimizer.Yogi",
        lambda p, h: po.Yogi(p, **betas(h), initial_accumulator=h.initial, weight_decouple=False),
    ),
    Peer(
        "kron",
        "pytorch-optimizer.Kron",
        lambda p, h: po.Kron(
            p, **sgd(h), momentum=h.momentum, max_size_triangular=h.largest, precondition_dtype=torch.float64,
            balance_prob=0.0,
        ),
        Cause(
            "other random numbers, float32 solves (and vectors are not decayed); given ours in float64, what "
            "is left is 1e-6 instead of 1e-8 beside the root mean square in the clipping",
            patch=lambda: our_noise(len(NOISY)),
        ),
        shapes=NOISY,
    ),
    Peer(
        "galore",
        "pytorch-optimizer.GaLore",
        lambda p, h: po.GaLore(ranked(p, h), **betas(h)),
        low_rank("galore"),
        shapes=FLAT,
        given={"rank": 2},
    ),
    Peer(
        "fira",
        "pytorch-optimizer.Fira",
        lambda p, h: po.Fira(ranked(p, h), **betas(h)),
        low_rank("fira"),
        shapes=FLAT,
        given={"rank": 2},
    ),
    Peer(
        "apollo",
        "pytorch-optimizer.APOLLO",
        lambda p, h: po.APOLLO(ranked(p, h), **betas(h), scale_type=h.per),
        low_rank("apollo"),
        shapes=FLAT,
        given={"rank": 2},
    ),
    Peer(
        "muon",
        "pytorch-optimizer.Muon",
        lambda p, h: po.Muon(
            muons(p), **sgd(h), momentum=h.momentum, nesterov=h.nesterov, ns_steps=h.steps
        ),
        half(jordans),
    ),
    Peer(
        "muonmatched",
        "pytorch-optimizer.Muon",
        lambda p, h: po.Muon(
            muons(p), **sgd(h), momentum=h.momentum, nesterov=h.nesterov, ns_steps=h.steps,
            use_adjusted_lr=True,
        ),
        half(moonshots),
    ),
    Peer(
        "normuon",
        "pytorch-optimizer.NorMuon",
        lambda p, h: po.NorMuon(
            muons(p), **sgd(h), momentum=h.momentum, beta2=h.beta2, nesterov=h.nesterov, ns_steps=h.steps,
            eps=h.eps, update_scale="match_rms",
        ),
        Cause(HALF, path=matrix_twins.normuon(True), patch=WHOLE),
    ),
    Peer(
        "adamuon",
        "pytorch-optimizer.AdaMuon",
        lambda p, h: po.AdaMuon(
            muons(p), **sgd(h), betas=(h.momentum, h.beta2), ns_steps=h.steps, eps=h.eps
        ),
        Cause(
            "the average itself is made orthogonal, in the paper its signs; v is corrected for the start; "
            "the Newton-Schulz iteration is in bfloat16",
            path=matrix_twins.normuon(False),
            patch=WHOLE,
        ),
    ),
]  # fmt: skip
