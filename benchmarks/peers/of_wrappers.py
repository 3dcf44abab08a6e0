"""What wraps an optimiser in torch's world: timm, pytorch-optimizer, schedulefree."""

from __future__ import annotations

import pytorch_optimizer as po
import schedulefree
from papers.adam import adam
from torch import optim

from peers.of_timm import timm
from peers.of_torch import betas, sgd
from peers.peer import Cause, Peer
from peers.twins import lookahead_late
from peers.wrapped import ADAM, AHEAD, around

LATE = around(lookahead_late, adam, ADAM, AHEAD)
PEERS = [
    Peer(
        "cautious_clamped+adamw",
        "timm.AdamWLegacy caution",
        lambda p, h: timm.AdamWLegacy(p, **betas(h), caution=True),
    ),
    Peer(
        "cautious_clamped+lion",
        "timm.Lion caution",
        lambda p, h: timm.Lion(p, **sgd(h), betas=(h.beta1, h.beta2), caution=True),
    ),
    Peer(
        "lookahead+adamw",
        "timm.Lookahead",
        lambda p, h: timm.Lookahead(optim.AdamW(p, **betas(h)), h.sync_share, h.sync_every),
        Cause("the slow weights start at the first synchronisation, which so moves nothing", path=LATE),
    ),
    Peer(
        "lookahead+adamw",
        "pytorch-optimizer.Lookahead",
        lambda p, h: po.Lookahead(optim.AdamW(p, **betas(h)), k=h.sync_every, alpha=h.sync_share),
    ),
    Peer(
        "schedule_free+sgd",
        "schedulefree.ScheduleFreeWrapper",
        lambda p, h: schedulefree.ScheduleFreeWrapper(
            optim.SGD(p, **sgd(h)), momentum=h.free_beta, r=h.free_power
        ),
        decays=False,
    ),
]
