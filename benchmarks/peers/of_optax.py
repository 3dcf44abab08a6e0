"""optax and optax.contrib, in 64-bit JAX."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import optax
from optax import contrib
from papers import PAPERS
from papers.orthogonal import jordans, moonshots, newton_schulz
from papers.parameter_free import as_one
from papers.problem import Problem

from peers import matrix_twins, twins
from peers.peer import Cause, Peer

jax.config.update("jax_enable_x64", True)

Weights = list[np.ndarray]


def run(peer: Peer, h: SimpleNamespace, problem: Problem, steps: int) -> tuple[list[Weights], list[Weights]]:
    """(weights after each step, weights to ship after each step)."""
    ws: Any = [jax.numpy.asarray(w) for w in problem.start()]
    transformation, kind = peer.make(None, h), PAPERS[peer.rule].reads
    update = jax.jit(transformation.update)
    state, trained, shipped = transformation.init(ws), [], []
    for t in range(1, steps + 1):
        gs = [jax.numpy.asarray(g) for g in problem.gradients([np.asarray(w) for w in ws], t)]
        reads = {"d": [problem.reading(kind, i, t) for i in range(len(ws))]} if kind else {}
        updates, state = update(gs, state, ws, **reads)
        ws = optax.apply_updates(ws, updates)
        trained.append([np.asarray(w) for w in ws])
        if isinstance(state, contrib.ScheduleFreeState):
            shipped.append([np.asarray(x) for x in contrib.schedule_free_eval_params(state, ws)])
    return trained, shipped


def adam(h: SimpleNamespace) -> dict[str, Any]:
    return {"learning_rate": h.lr, "b1": h.beta1, "b2": h.beta2, "eps": h.eps}


def adamw(h: SimpleNamespace) -> dict[str, Any]:
    return {**adam(h), "weight_decay": h.weight_decay}


def rms(h: SimpleNamespace) -> dict[str, Any]:
    return {"learning_rate": h.lr, "decay": h.alpha, "eps": h.eps}


def muon(h: SimpleNamespace, **scale: Any) -> Any:
    return contrib.muon(
        h.lr,
        ns_steps=h.steps,
        beta=h.momentum,
        eps=h.eps,
        weight_decay=h.weight_decay,
        nesterov=h.nesterov,
        muon_weight_dimension_numbers=OUT_IN,
        **scale,
    )


OUT_IN = contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=0)
"""Our matrices are (out, in), Flax's are (in, out)."""

FLAT = ((6, 4), (4, 6), (3, 5))


def corrected(scale: Any) -> Cause:
    words = "in Nesterov's mix m is corrected for the start by 1 - μᵗ⁺¹ and g by 1 - μᵗ"
    return Cause(words, path=matrix_twins.muon(scale, newton_schulz, corrected=True))


GIVEN = optax.GradientTransformationExtraArgs(lambda _: (), lambda _, state, params, *, d: (d, state))
"""Curvature as it is given."""

PEERS = [
    Peer(
        "sophiah",
        "optax.contrib.sophia",
        lambda _, h: contrib.sophia(
            **adamw(h), gamma=h.clip, update_interval=h.every, hessian_diagonal_fn=GIVEN
        ),
        Cause(
            "m is corrected for the start; the curvature counts from the step after it was measured",
            path=twins.sophia_late,
        ),
        given={"lr": 0.01, "clip": 1.0, "eps": 0.01, "every": 3},
    ),
    Peer("sgd", "optax.sgd", lambda _, h: optax.sgd(h.lr), decays=False),
    Peer("momentum", "optax.sgd", lambda _, h: optax.sgd(h.lr, h.momentum), decays=False),
    Peer("nesterov", "optax.sgd", lambda _, h: optax.sgd(h.lr, h.momentum, nesterov=True), decays=False),
    Peer("adagradtf", "optax.adagrad", lambda _, h: optax.adagrad(h.lr, h.initial, h.eps), decays=False),
    Peer(
        "adadelta",
        "optax.adadelta",
        lambda _, h: optax.adadelta(h.lr, h.rho, h.eps, weight_decay=h.weight_decay),
    ),
    Peer(
        "rmsprop",
        "optax.rmsprop",
        lambda _, h: optax.rmsprop(**rms(h), eps_in_sqrt=False),
        decays=False,
    ),
    Peer(
        "rmspropcentered",
        "optax.rmsprop",
        lambda _, h: optax.rmsprop(**rms(h), eps_in_sqrt=False, centered=True),
        decays=False,
    ),
    Peer(
        "rmspropmomentum",
        "optax.rmsprop",
        lambda _, h: optax.rmsprop(**rms(h), eps_in_sqrt=False, momentum=h.momentum),
        decays=False,
    ),
    Peer(
        "rmsproptf",
        "optax.rmsprop",
        lambda _, h: optax.rmsprop(**rms(h), initial_scale=h.initial, momentum=h.momentum or None),
        decays=False,
    ),
    Peer(
        "rmsproptfcentered",
        "optax.rmsprop",
        lambda _, h: optax.rmsprop(
            **rms(h), initial_scale=h.initial, momentum=h.momentum or None, centered=True
        ),
        decays=False,
    ),
    Peer("adam", "optax.adam", lambda _, h: optax.adam(**adam(h)), decays=False),
    Peer("adamw", "optax.adamw", lambda _, h: optax.adamw(**adamw(h))),
    Peer(
        "adaminside",
        "optax.adam",
        lambda _, h: optax.adam(h.lr, h.beta1, h.beta2, eps=0.0, eps_root=h.eps),
        decays=False,
    ),
    Peer("amsgradhat", "optax.amsgrad", lambda _, h: optax.amsgrad(**adam(h)), decays=False),
    Peer("adamax", "optax.adamax", lambda _, h: optax.adamax(**adam(h)), decays=False),
    Peer("nadamsimple", "optax.nadam", lambda _, h: optax.nadam(**adam(h)), decays=False),
    Peer("nadamwsimple", "optax.nadamw", lambda _, h: optax.nadamw(**adamw(h))),
    Peer("radamhat", "optax.radam", lambda _, h: optax.radam(**adam(h)), decays=False),
    Peer(
        "adabelief", "optax.adabelief", lambda _, h: optax.adabelief(**adam(h), eps_root=h.eps),
        Cause("not rectified; ε on the corrected root", path=twins.belief_unrectified),
        decays=False,
    ),
    Peer("yogi", "optax.yogi", lambda _, h: optax.yogi(**adam(h)), decays=False),
    Peer("lion", "optax.lion", lambda _, h: optax.lion(h.lr, h.beta1, h.beta2, weight_decay=h.weight_decay)),
    Peer(
        "adanw", "optax.adan", lambda _, h: optax.adan(**adamw(h), b3=h.beta3, eps_root=0.0),
        Cause(
            "the change of the gradient is multiplied by 1 - β₂ = 0.08: the paper's β are what is new, so "
            "that its 1 - β₂ is the 0.92 that is kept",
            path=twins.adan_small_beta,
        ),
    ),
    Peer(
        "lars",
        "optax.lars",
        lambda _, h: optax.lars(
            h.lr, h.weight_decay, trust_coefficient=h.trust, eps=h.eps, momentum=h.momentum
        ),
        Cause(
            "divided by ‖g + weight_decay·w‖, in the paper by ‖g‖ + weight_decay·‖w‖", path=twins.lars_of_sum
        ),
    ),
    Peer("lamb", "optax.lamb", lambda _, h: optax.lamb(**adamw(h))),
    Peer("novograd", "optax.novograd", lambda _, h: optax.novograd(**adamw(h))),
    Peer("signsgd", "optax.sign_sgd", lambda _, h: optax.sign_sgd(h.lr), decays=False),
    Peer("signum", "optax.signum", lambda _, h: optax.signum(h.lr, h.momentum), decays=False),
    Peer(
        "rprop",
        "optax.rprop",
        lambda _, h: optax.rprop(h.lr, h.shrink, h.grow, h.shortest, h.longest),
        Cause(
            "every step is a step late: the update given out is the one kept from the step before, so that "
            "the first moves nothing",
            path=twins.rprop_late,
        ),
    ),
    Peer("sm3", "optax.sm3", lambda _, h: optax.sm3(h.lr, h.momentum),
        Cause("ε is 1e-8, without an argument for it", numbers=lambda h: {**vars(h), "eps": 1e-8}),
        decays=False,
    ),
    Peer(
        "adafactoroptax",
        "optax.adafactor",
        lambda _, h: optax.adafactor(
            h.lr, min_dim_size_to_factor=h.factor_from, decay_rate=h.decay_rate,
            clipping_threshold=h.threshold, eps=h.eps1, weight_decay_rate=h.weight_decay or None,
        ),
        Cause("1 - t^-0.8 is computed in float32", path=matrix_twins.adafactor_single),
        given={"factor_from": 3},
    ),
    Peer(
        "ademamix",
        "optax.contrib.ademamix",
        lambda _, h: contrib.ademamix(**adamw(h), b3=h.beta3, alpha=h.mix),
    ),
    Peer("adopt", "optax.contrib.adopt", lambda _, h: contrib.adopt(**adam(h)), decays=False),
    Peer(
        "dadaptadam",
        "optax.contrib.dadapt_adamw",
        lambda _, h: contrib.dadapt_adamw(
            h.lr, (h.beta1, h.beta2), h.eps, estim_lr0=h.initial, weight_decay=h.weight_decay
        ),
        Cause(
            "the rate is multiplied by Adam's bias corrections, which the paper leaves out",
            path=as_one(twins.dadapt_corrected),
        ),
    ),
    Peer(
        "prodigy",
        "optax.contrib.prodigy",
        lambda _, h: contrib.prodigy(
            h.lr, (h.beta1, h.beta2), eps=h.eps, estim_lr0=h.initial, estim_lr_coef=h.coefficient,
            weight_decay=h.weight_decay, safeguard_warmup=h.safeguard_warmup,
        ),
        Cause(
            "the rate is multiplied by Adam's bias corrections, which are off in the authors' package",
            numbers=lambda h: {**vars(h), "bias_correction": True},
        ),
    ),
    Peer(
        "dog",
        "optax.contrib.dog",
        lambda _, h: contrib.dog(h.lr, ("heuristic", h.reps), h.eps, weight_decay=h.weight_decay),
    ),
    Peer(
        "dowg",
        "optax.contrib.dowg",
        lambda _, h: contrib.dowg(h.lr, h.reps, h.eps, weight_decay=h.weight_decay),
    ),
    Peer(
        "madgrad",
        "optax.contrib.madgrad",
        lambda _, h: contrib.madgrad(h.lr, h.momentum, h.weight_decay, h.eps),
        Cause(
            "ε is added to the rate, as in the authors' code; the rate times √t is in float32",
            path=partial(twins.madgrad_eps_in_rate, single=True),
        ),
    ),
    Peer("muon", "optax.contrib.muon", lambda _, h: muon(h), corrected(jordans), shapes=FLAT),
    Peer(
        "muonmatched",
        "optax.contrib.muon",
        lambda _, h: muon(h, consistent_rms=0.2),
        corrected(moonshots),
        shapes=FLAT,
    ),
    Peer(
        "schedulefreesgd",
        "optax.contrib.schedule_free_sgd",
        lambda _, h: contrib.schedule_free_sgd(
            h.lr, h.warmup or None, h.beta, weight_decay=h.weight_decay or None
        ),
    ),
    Peer(
        "schedulefreeadamw",
        "optax.contrib.schedule_free_adamw",
        lambda _, h: contrib.schedule_free_adamw(
            h.lr, h.warmup or None, h.beta1, h.beta2, h.eps, h.weight_decay
        ),
    ),
]  # fmt: skip
