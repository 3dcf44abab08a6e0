"""Weights that are split over two processes: every rule moves them as one process would, or refuses to."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = '''
import json, math, os, sys, warnings
from datetime import timedelta

warnings.simplefilter("ignore")
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from steepest.optim import rules, wrappers
from steepest.optim.clipping import ClipNorm
from steepest.optim.engines.torch.in_backward import in_backward
from steepest.optim.engines.torch.of_model import optimizer
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError

torch.set_num_threads(1)
dist.init_process_group("gloo", timeout=timedelta(seconds=60))
rank, mesh = dist.get_rank(), init_device_mesh("cpu", (2,))
found = {}
SHAPES, STEPS = [(5, 4), (6, 3), (7,), (1,)], 4


def numbers(seed, shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moved(rule, split, nudge=0.0, **options):
    """The weights after some steps, whole; of weights that are split or not."""
    shapes = [shape for shape in SHAPES if rule.takes(shape)]
    lay = (lambda x: distribute_tensor(x, mesh, [Shard(0)])) if split else (lambda x: x)
    start = [numbers(n, shape) * (1 + nudge) for n, shape in enumerate(shapes)]
    weights = [torch.nn.Parameter(lay(w)) for w in start]
    moves = RuleOptimizer(weights, rule, engine="torch", **options)
    for step in range(STEPS):
        gradients = [lay(numbers(100 * step + n, w.shape)) for n, w in enumerate(start)]
        reads = {name: [g * g for g in gradients] for name in rule.extra_inputs}
        moves.step(gradients=gradients, reads=reads or None)
    with moves.evaluate():
        shipped = [w.detach().clone() for w in weights]
    whole = [w.detach().full_tensor() if split else w.detach() for w in (*weights, *shipped)]
    return torch.cat([w.flatten() for w in whole])


def compared(rule, **options):
    try:
        ours = moved(rule, True, **options)
    except UserError as refusal:
        return {"refused": str(refusal)}
    eps = torch.finfo(torch.float64).eps
    alone = moved(rule, False, **options)
    # What a relative error of eps in the start becomes, and roundings of STEPS updates of sums of 20 terms.
    rounding = (moved(rule, False, eps, **options) - alone).abs().max() + 32 * STEPS * eps * alone.abs().max()
    return {"off": float((ours - alone).abs().max()), "allowed": 8 * float(rounding)}


every = {kind.__name__: kind() for kind in rules.RULES}
adamw = rules.AdamW()
every |= {
    "Cautious": wrappers.cautious(adamw), "TrustRatio": wrappers.trust_ratio(adamw),
    "Lookahead": wrappers.lookahead(adamw, every=2), "Averaged": wrappers.averaged(adamw),
    "ScheduleFreed": wrappers.schedule_free(rules.SGD()), "Grokfast": wrappers.grokfast(adamw),
    "CautiousMuon": wrappers.cautious(rules.Muon()),
}
for name, rule in every.items():
    found[name] = compared(rule)
found["compensated and averaged"] = compared(adamw, average=0.9)
found["8bit"] = compared(adamw, state_dtype="8bit")
found["stochastic"] = compared(adamw, rounding="stochastic")


def network():
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)).double()


def apart(split, whole):
    pairs = zip(split.parameters(), whole.parameters(), strict=True)
    return max(float((a.detach().full_tensor() - b.detach()).abs().max()) for a, b in pairs)


def trained(net, rule, x, y, steps=5):
    moves, norms = optimizer(net, rule), []
    for _ in range(steps):
        moves.zero_grad()
        torch.nn.functional.mse_loss(net(x), y).backward()
        norms.append(moves.gradient_norm())
        moves.step(scale=ClipNorm(0.5).scale(norms[-1]))
    return moves, norms


X, Y = numbers(1, (8, 6)), numbers(2, (8, 1))
half = slice(4 * rank, 4 * rank + 4)
net, alone = network(), network()
fully_shard(net[0], mesh=mesh), fully_shard(net, mesh=mesh)
moves, norms = trained(net, rules.LAMB(lr=0.05), X[half], Y[half])
_, wanted = trained(alone, rules.LAMB(lr=0.05), X, Y)
found["fully_shard"] = {
    "off": apart(net, alone),
    "norms": [norms, wanted],
}
# A slot that somebody replaces counts from the next step on, and so does a whole state that is loaded.
before = [w.detach().full_tensor() for w in net.parameters()]
sgd = RuleOptimizer(net.parameters(), rules.Momentum(lr=0.1, momentum=0.9))
for _ in range(2):
    sgd.step()
    for w in net.parameters():
        sgd.state[w]["momentum_buffer"] = torch.zeros_like(w)
steps = [(a - b.detach().full_tensor()).abs().max() for a, b in zip(before, net.parameters())]
grads = [0.1 * 2 * w.grad.full_tensor().abs().max() for w in net.parameters()]
found["replaced state"] = {"off": max(float(abs(a - b)) for a, b in zip(steps, grads))}
kept = moves.state_dict()
moves.load_state_dict(kept)
moves.step()
found["loaded"] = {"finite": all(bool(w.detach().full_tensor().isfinite().all()) for w in net.parameters())}
sam = optimizer(net, wrappers.sam(rules.SGD(lr=0.1)))
alone_sam = optimizer(alone, wrappers.sam(rules.SGD(lr=0.1)))
alone.load_state_dict({name: w.detach().full_tensor() for name, w in net.named_parameters()})


def closure(model, x, y):
    def loss():
        model.zero_grad()
        value = torch.nn.functional.mse_loss(model(x), y)
        value.backward()
        return value
    return loss


sam.step(closure(net, X[half], Y[half]))
alone_sam.step(closure(alone, X, Y))
found["sam"] = {"off": apart(net, alone)}


def refusal(make):
    try:
        make()
    except UserError as error:
        return str(error)
    return ""


plain = [torch.zeros(w.shape, dtype=w.dtype) for w in net.parameters()]
replica = DistributedDataParallel(network())
adahessian = optimizer(replica.module, rules.AdaHessian())
found["refused"] = {
    "in_backward under DDP": refusal(lambda: in_backward(optimizer(replica.module, adamw))),
    "AdaHessian under DDP": refusal(lambda: adahessian.step(lambda: replica(X).square().mean())),
    "a plain gradient": refusal(lambda: RuleOptimizer(net.parameters(), adamw).step(gradients=plain)),
}
flat = FullyShardedDataParallel(network(), use_orig_params=True, device_id=torch.device("cpu"))
flat(X).square().mean().backward()
found["refused"] |= {
    "LAMB on flat shards": refusal(lambda: RuleOptimizer(flat.parameters(), rules.LAMB())),
    "Adafactor on flat shards": refusal(lambda: RuleOptimizer(flat.parameters(), rules.Adafactor())),
    "the norm of flat shards": refusal(RuleOptimizer(flat.parameters(), rules.AdamW()).gradient_norm),
}
RuleOptimizer(flat.parameters(), rules.AdamW()).step()
if rank == 0:
    print(json.dumps(found))
dist.barrier()
dist.destroy_process_group()
'''

WHOLE_AND_RIGHT = {"Muon", "MuonMatched", "AdaMuon", "MuonSpectral"}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What two processes have found, by rule or situation."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meet = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, **meet, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        told = [process.communicate(timeout=240) for process in started]
    finally:
        for process in started:
            process.kill()
    assert all(process.returncode == 0 for process in started), told[0][1] + told[1][1]
    return json.loads(told[0][0])


def test_every_rule_moves_split_weights_as_one_process_does_or_refuses(found: dict[str, Any]) -> None:
    from steepest import rules

    wrong = {}
    for kind in rules.RULES:
        told = found[kind.__name__]
        if kind.whole and kind.__name__ not in WHOLE_AND_RIGHT:
            said = told.get("refused", "")
            right = said.startswith(f"{kind.__name__} looks at whole weights") and "AdamW" in said
        else:
            right = "off" in told and told["off"] <= told["allowed"]
        if not right:
            wrong[kind.__name__] = told
    assert not wrong


def test_wrapped_rules_and_averages_do_so_too(found: dict[str, Any]) -> None:
    names = (
        "Cautious", "TrustRatio", "Lookahead", "Averaged", "ScheduleFreed", "Grokfast", "CautiousMuon",
        "compensated and averaged",
    )  # fmt: skip
    assert not {
        name: found[name] for name in names if not found[name].get("off", 1) <= found[name]["allowed"]
    }


def test_few_bits_are_refused_in_a_sentence(found: dict[str, Any]) -> None:
    for name, word in (("8bit", "state_dtype='8bit'"), ("stochastic", "rounding='stochastic'")):
        assert word in found[name]["refused"]
        assert "split over processes" in found[name]["refused"]


def test_a_sharded_network_trains_as_one_process_trains_the_whole(found: dict[str, Any]) -> None:
    """Norms, clipping by them, and LAMB's sums; gradients are means of two halves: roundings differ."""
    assert found["fully_shard"]["off"] < 1e-12
    ours, alone = found["fully_shard"]["norms"]
    assert ours == pytest.approx(alone, rel=1e-12)
    assert found["sam"]["off"] < 1e-12
    assert found["loaded"]["finite"]


def test_state_that_is_replaced_counts(found: dict[str, Any]) -> None:
    """Two steps whose momentum is put back to 0 after each are two plain steps."""
    assert found["replaced state"]["off"] < 1e-12


def test_what_would_let_replicas_drift_apart_is_refused(found: dict[str, Any]) -> None:
    said = found["refused"]
    assert "averaged over the 2 processes" in said["in_backward under DDP"]
    assert said["AdaHessian under DDP"].startswith("AdaHessian uses gradients of this process alone")
    assert "either both are split over processes or none is" in said["a plain gradient"]
    assert said["LAMB on flat shards"].startswith("LAMB needs whole weights")
    assert said["Adafactor on flat shards"].startswith("Adafactor needs whole weights")
    assert "clip_grad_norm_" in said["the norm of flat shards"]
