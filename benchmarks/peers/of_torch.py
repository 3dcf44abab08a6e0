"""torch.optim, and its three single-kernel variants."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from papers.orthogonal import jordans, moonshots
from torch import optim

from peers import matrix_twins
from peers.patches import double_scalars, without_casts
from peers.peer import Cause, Peer


def betas(h: SimpleNamespace) -> dict[str, Any]:
    return {"lr": h.lr, "betas": (h.beta1, h.beta2), "eps": h.eps, "weight_decay": h.weight_decay}


def sgd(h: SimpleNamespace) -> dict[str, Any]:
    return {"lr": h.lr, "weight_decay": h.weight_decay}


def rms(h: SimpleNamespace) -> dict[str, Any]:
    return {**sgd(h), "alpha": h.alpha, "eps": h.eps}


def muon(p: Any, h: SimpleNamespace, scale: str) -> Any:
    return optim.Muon(
        p, **sgd(h), momentum=h.momentum, nesterov=h.nesterov, eps=h.eps, ns_steps=h.steps, adjust_lr_fn=scale
    )


def half(scale: Any) -> Cause:
    words = (
        "the Newton-Schulz iteration is in bfloat16, from u/max(‖u‖, ε) where the authors have u/(‖u‖ + ε)"
    )
    return Cause(words, path=matrix_twins.muon(scale), patch=without_casts)


SINGLE_RATES = Cause("the rates η and μ are kept in tensors of float32", patch=double_scalars)
SINGLE_PRODUCT = Cause("the product of the momenta is kept in a tensor of float32", patch=double_scalars)
FLAT = ((6, 4), (4, 6), (3, 5))
"""torch.optim.Muon takes weights of two axes alone."""

PEERS = [
    Peer("sgd", "torch.optim.SGD", lambda p, h: optim.SGD(p, **sgd(h))),
    Peer("sgd", "torch.optim.SGD fused", lambda p, h: optim.SGD(p, **sgd(h), fused=True)),
    Peer(
        "momentum",
        "torch.optim.SGD",
        lambda p, h: optim.SGD(p, **sgd(h), momentum=h.momentum, dampening=h.dampening),
    ),
    Peer(
        "momentum",
        "torch.optim.SGD fused",
        lambda p, h: optim.SGD(p, **sgd(h), momentum=h.momentum, dampening=h.dampening, fused=True),
    ),
    Peer(
        "nesterov", "torch.optim.SGD", lambda p, h: optim.SGD(p, **sgd(h), momentum=h.momentum, nesterov=True)
    ),
    Peer(
        "adagrad",
        "torch.optim.Adagrad",
        lambda p, h: optim.Adagrad(
            p, **sgd(h), lr_decay=h.lr_decay, eps=h.eps, initial_accumulator_value=h.initial
        ),
    ),
    Peer(
        "adagrad",
        "torch.optim.Adagrad fused",
        lambda p, h: optim.Adagrad(
            p, **sgd(h), lr_decay=h.lr_decay, eps=h.eps, initial_accumulator_value=h.initial, fused=True
        ),
    ),
    Peer("adadelta", "torch.optim.Adadelta", lambda p, h: optim.Adadelta(p, **sgd(h), rho=h.rho, eps=h.eps)),
    Peer("rmsprop", "torch.optim.RMSprop", lambda p, h: optim.RMSprop(p, **rms(h))),
    Peer(
        "rmspropmomentum", "torch.optim.RMSprop", lambda p, h: optim.RMSprop(p, **rms(h), momentum=h.momentum)
    ),
    Peer("rmspropcentered", "torch.optim.RMSprop", lambda p, h: optim.RMSprop(p, **rms(h), centered=True)),
    Peer(
        "rmspropcenteredmomentum",
        "torch.optim.RMSprop",
        lambda p, h: optim.RMSprop(p, **rms(h), momentum=h.momentum, centered=True),
    ),
    Peer(
        "rprop",
        "torch.optim.Rprop",
        lambda p, h: optim.Rprop(p, lr=h.lr, etas=(h.shrink, h.grow), step_sizes=(h.shortest, h.longest)),
    ),
    Peer(
        "asgd",
        "torch.optim.ASGD",
        lambda p, h: optim.ASGD(p, **sgd(h), lambd=h.lambd, alpha=h.power, t0=h.t0),
        SINGLE_RATES,
    ),
    Peer("adam", "torch.optim.Adam", lambda p, h: optim.Adam(p, **betas(h))),
    Peer("adam", "torch.optim.Adam fused", lambda p, h: optim.Adam(p, **betas(h), fused=True)),
    Peer("adamw", "torch.optim.AdamW", lambda p, h: optim.AdamW(p, **betas(h))),
    Peer("adamw", "torch.optim.AdamW fused", lambda p, h: optim.AdamW(p, **betas(h), fused=True)),
    Peer("amsgrad", "torch.optim.Adam", lambda p, h: optim.Adam(p, **betas(h), amsgrad=True)),
    Peer("amsgradw", "torch.optim.AdamW", lambda p, h: optim.AdamW(p, **betas(h), amsgrad=True)),
    Peer("adamax", "torch.optim.Adamax", lambda p, h: optim.Adamax(p, **betas(h))),
    Peer(
        "nadam",
        "torch.optim.NAdam",
        lambda p, h: optim.NAdam(p, **betas(h), momentum_decay=h.momentum_decay),
        SINGLE_PRODUCT,
    ),
    Peer(
        "nadamw",
        "torch.optim.NAdam",
        lambda p, h: optim.NAdam(p, **betas(h), momentum_decay=h.momentum_decay, decoupled_weight_decay=True),
        SINGLE_PRODUCT,
    ),
    Peer("radam", "torch.optim.RAdam", lambda p, h: optim.RAdam(p, **betas(h))),
    Peer("radamw", "torch.optim.RAdam", lambda p, h: optim.RAdam(p, **betas(h), decoupled_weight_decay=True)),
    Peer(
        "adafactortorch",
        "torch.optim.Adafactor",
        lambda p, h: optim.Adafactor(
            p, **sgd(h), beta2_decay=-h.decay_rate, eps=(h.eps1, h.eps2), d=h.threshold
        ),
    ),
    Peer("muon", "torch.optim.Muon", lambda p, h: muon(p, h, "original"), half(jordans), shapes=FLAT),
    Peer(
        "muonmatched",
        "torch.optim.Muon",
        lambda p, h: muon(p, h, "match_rms_adamw"),
        half(moonshots),
        shapes=FLAT,
    ),
]
