"""The packages of the authors: schedulefree and prodigyopt."""

from __future__ import annotations

import prodigyopt
import schedulefree

from peers.of_torch import betas, sgd
from peers.peer import Peer

PEERS = [
    Peer(
        "schedulefreesgd",
        "schedulefree.SGDScheduleFree",
        lambda p, h: schedulefree.SGDScheduleFree(
            p, **sgd(h), momentum=h.beta, r=h.power, warmup_steps=h.warmup
        ),
    ),
    Peer(
        "schedulefreesgd",
        "schedulefree.SGDScheduleFreeReference",
        lambda p, h: schedulefree.SGDScheduleFreeReference(
            p, **sgd(h), momentum=h.beta, r=h.power, warmup_steps=h.warmup
        ),
    ),
    Peer(
        "schedulefreeadamw",
        "schedulefree.AdamWScheduleFree",
        lambda p, h: schedulefree.AdamWScheduleFree(p, **betas(h), r=h.power, warmup_steps=h.warmup),
    ),
    Peer(
        "schedulefreeadamw",
        "schedulefree.AdamWScheduleFreeReference",
        lambda p, h: schedulefree.AdamWScheduleFreeReference(p, **betas(h), r=h.power, warmup_steps=h.warmup),
    ),
    Peer(
        "prodigy",
        "prodigyopt.Prodigy",
        lambda p, h: prodigyopt.Prodigy(
            p, **betas(h), d0=h.initial, d_coef=h.coefficient, growth_rate=h.growth,
            safeguard_warmup=h.safeguard_warmup, use_bias_correction=h.bias_correction,
        ),
    ),
]  # fmt: skip
