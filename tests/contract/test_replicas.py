"""Replicas under DistributedDataParallel train as one run: one folder, the same decisions, the same bits."""

import json
import signal
import time

import pytest
import torch

import processes
from steepest.train import checkpoint
from steepest.world import World

PROGRAM = """
import json, os, sys, time
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import steepest.torch
from steepest.train.control import Interrupted
from steepest.train.loop import loop

rank, place, out, said = int(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
os.environ["GLOO_SOCKET_IFNAME"] = "lo"
distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
torch.manual_seed(rank)  # DistributedDataParallel gives all the weights of the first
net = DistributedDataParallel(nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1)))
x = torch.randn(24, 4, generator=torch.Generator().manual_seed(rank))
y = x.sum(1, keepdim=True)
if said.get("bad") == rank:
    x[3] = float("nan")
opt = steepest.torch.AdamW(net.module.parameters(), lr=0.01)


def after(inside):
    if inside.done == said.get("kill"):
        os._exit(9)
    if said.get("slow"):
        time.sleep(0.05)
        if rank == 0:
            print(inside.done, flush=True)


def evaluate():
    net.eval()
    with torch.no_grad():
        return {"loss": float((net.module(x.nan_to_num()) - y).square().mean()), "rank": rank}


steps = loop(
    net, opt, (x, y), out=out, epochs=said.get("epochs", 5), batch_size=8, evaluate=evaluate, average=0.9,
    evaluate_every="4 steps", save_every="2 steps", on_step=after,
)
try:
    with steps:
        for a, b in steps:
            steps.step(lambda: nn.functional.mse_loss(net(a), b))
except Interrupted as stopped:
    print(json.dumps({"stopped": stopped.signal, "done": steps.done}), flush=True)
    sys.exit(0)
weights = torch.cat([w.detach().flatten() for w in net.parameters()]).tolist()
rows = [{k: v for k, v in row.items() if k != "seconds"} for row in steps.history]
print(json.dumps({"weights": weights, "rows": rows, "status": steps.status, "done": steps.done}), flush=True)
"""


def start(tmp_path, out, **said):
    place = tmp_path / f"meeting-{time.monotonic_ns()}"
    return [processes.Process(PROGRAM, rank, place, out, json.dumps(said)) for rank in (0, 1)]


def ended(pair):
    told = [one.communicate() for one in pair]
    return [json.loads(text.splitlines()[-1]) if text.strip() else error for text, error in told]


def test_two_processes_make_one_run_killed_and_resumed_to_the_bit(tmp_path):
    alone = ended(start(tmp_path, tmp_path / "alone"))
    assert alone[0] == alone[1]
    assert [row["val/rank"] for row in alone[0]["rows"]] == [0] * len(alone[0]["rows"])
    assert (alone[0]["status"], alone[0]["done"]) == ("finished", 15)
    killed = start(tmp_path, tmp_path / "cut", kill=7)
    ended(killed)
    assert [one.returncode for one in killed] == [9, 9]
    again = ended(start(tmp_path, tmp_path / "cut"))
    assert again[0]["weights"] == again[1]["weights"] == alone[0]["weights"]
    assert again[0]["rows"] == alone[0]["rows"]
    saved = [checkpoint.read(tmp_path / name / "last") for name in ("alone", "cut")]
    for one in saved:
        one.progress["seconds"] = 0
        assert one.model.keys() == {"0.weight", "0.bias", "2.weight", "2.bias"}
    (plain, tensors), (other, others) = (checkpoint.packed(one.parts) for one in saved)
    assert json.dumps(plain, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())


def test_what_one_meets_both_answer(tmp_path):
    told = ended(start(tmp_path, tmp_path / "bad", bad=1, epochs=2))
    assert told[0] == told[1]
    assert [row["event"] for row in told[0]["rows"]].count("guard") == 2
    pair = start(tmp_path, tmp_path / "slow", slow=True, epochs=100)
    while "3\n" not in pair[0].printed():
        assert pair[0].poll() is None, pair[0].communicate()
        time.sleep(0.01)
    pair[1].send_signal(signal.SIGTERM)
    told = ended(pair)
    assert told[0] == told[1] == {"stopped": "SIGTERM", "done": told[0]["done"]}
    assert checkpoint.read(tmp_path / "slow" / "last").step == told[0]["done"]
    assert '"stopped"' in (tmp_path / "slow" / "result.json").read_text()


def test_a_process_alone_is_a_world_of_its_own():
    world = World.current()
    assert (world.rank, world.size, world.is_main) == (0, 1, True)
    assert world.sum(0.1) == world.max(0.1) == world.broadcast(0.1) == world.on_main(lambda: 0.1) == 0.1
    assert (world.any(False), world.all(True), world.gather(b"one")) == (False, True, [b"one"])
    world.barrier()
    with pytest.raises(KeyError):
        world.on_main(lambda: {}["none"])
