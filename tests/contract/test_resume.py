"""Resume is bit-exact at any step, whatever changes as a run goes."""

import json
import math

import pytest
import torch
from torch import nn

import steepest.torch
from steepest.data.batches import batches
from steepest.optim.errors import UserError
from steepest.train import checkpoint
from steepest.train.guard import Guard
from steepest.train.loop import loop
from steepest.train.stopping import Stopping

STEPS = 24
CHANCE = torch.Generator().manual_seed(0)
X, Y = torch.randn(50, 1, 8, 8, generator=CHANCE), torch.arange(50) % 3
BAD = X.clone()
BAD[::9] = math.nan


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(144, 3)
    )


OPTIMIZERS = {
    "torch AdamW": lambda net: torch.optim.AdamW(net.parameters(), lr=0.01),
    "torch SGD": lambda net: torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
    "torch NAdam": lambda net: torch.optim.NAdam(net.parameters(), lr=0.01),
    "steepest AdamW": lambda net: steepest.torch.optimizer(net, "adamw"),
    "steepest Lion": lambda net: steepest.torch.Lion(net.parameters(), lr=0.001),
}
SETTINGS = {
    "plain": {},
    "average": {"average": 0.9},
    "accumulate": {"accumulate": 3, "clip_norm": 0.5},
    "plateau": {"stopping": Stopping(patience=1, max_decays=99, raise_after=2), "evaluate_every": "2 steps"},
    "guard": {"guard": Guard(strikes=2, rewinds=99), "evaluate_every": "4 steps"},
    "half": {"precision": "bf16"},
}


class Cut(Exception):
    """The process dies here, as far as the folder can tell."""


def train(out, optimizer, settings, cut=None, augment=None):
    net = network()
    opt = OPTIMIZERS[optimizer](net)
    settings = {"evaluate_every": "5 steps"} | settings
    data = BAD if "guard" in settings else X
    source = batches((data, Y), 16, accumulate=settings.pop("accumulate", 1), augment=augment)

    def evaluate():
        net.eval()
        with torch.no_grad():
            return {"loss": float(nn.functional.cross_entropy(net(X), Y)), "noise": float(torch.rand(1))}

    def die(inside):
        if inside.done == cut:
            raise Cut

    with loop(
        net,
        opt,
        source,
        out=out,
        budget=f"{STEPS} steps",
        evaluate=evaluate,
        save_every="3 steps",
        on_step=die,
        **settings,
    ) as inside:
        for x, y in inside:
            with inside.autocast():
                loss = nn.functional.cross_entropy(net(x), y)
            inside.step(loss)
    return inside, opt


def remains(inside):
    snapshot = inside.watch.subject.take()
    snapshot.numbers["progress"]["seconds"] = 0
    tensors = {name: tensor.numpy().tobytes() for name, tensor in (snapshot.model | snapshot.state).items()}
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in inside.history]
    return repr(snapshot.numbers), tensors, repr(rows)


def check(tmp_path, optimizer, settings, cuts, augment=None):
    alone = remains(train(tmp_path / "alone", optimizer, settings, augment=augment)[0])
    for cut in cuts:
        out = tmp_path / f"cut{cut}"
        with pytest.raises(Cut):
            train(out, optimizer, settings, cut, augment)
        assert remains(train(out, optimizer, settings, augment=augment)[0]) == alone, f"cut at {cut}"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_with_every_kind_of_optimizer(tmp_path, optimizer):
    check(tmp_path, optimizer, {}, [2, 11])


@pytest.mark.parametrize("settings", SETTINGS)
def test_with_all_that_changes(tmp_path, settings):
    check(tmp_path, "torch AdamW", SETTINGS[settings], [4, 7, 14, 19])


def test_with_augmented_data(tmp_path):
    check(tmp_path, "torch SGD", {}, [8], augment="shift")


def test_at_every_step(tmp_path):
    check(tmp_path, "torch SGD", SETTINGS["plateau"], range(1, STEPS))


def test_a_loader_is_resumed_by_skipping(tmp_path):
    def run(out, cut=None):
        torch.manual_seed(0)
        net = nn.Linear(4, 1)
        x = torch.arange(120.0).reshape(30, 4) / 100
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x[:, :1]), 7, shuffle=True)
        opt = torch.optim.SGD(net.parameters(), lr=0.01)

        def die(inside):
            if inside.done == cut:
                raise Cut

        with loop(net, opt, loader, out=out, epochs=3, save_every="2 steps", on_step=die) as inside:
            for a, b in inside:
                inside.step(nn.functional.mse_loss(net(a), b))
        return net.weight

    with pytest.raises(Cut):
        run(tmp_path / "cut", 8)
    assert torch.equal(run(tmp_path / "cut"), run(tmp_path / "alone"))


def test_a_scheduler_of_torch_is_carried_along(tmp_path):
    def run(out, cut=None):
        torch.manual_seed(0)
        net = nn.Linear(4, 1)
        x = torch.randn(32, 4)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        decay = torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)

        def after(inside):
            decay.step()
            if inside.done == cut:
                raise Cut

        held = loop(
            net,
            opt,
            (x, x[:, :1]),
            out=out,
            epochs=3,
            batch_size=8,
            save_every="2 steps",
            on_step=after,
            carry={"decay": decay},
        )
        with held as inside:
            for a, b in inside:
                inside.step(nn.functional.mse_loss(net(a), b))
        return net.weight, opt.param_groups[0]["lr"]

    with pytest.raises(Cut):
        run(tmp_path / "cut", 7)
    (one, rate), (other, same) = run(tmp_path / "cut"), run(tmp_path / "alone")
    assert torch.equal(one, other)
    assert rate == same == pytest.approx(0.1 * 0.9**12, rel=12 * 2**-52)


def test_a_finished_run_is_only_loaded(tmp_path):
    first, _ = train(tmp_path, "torch SGD", {})
    before = {path: path.read_bytes() for path in tmp_path.rglob("step-*/*")}
    again, _ = train(tmp_path, "torch SGD", {})
    assert remains(again) == remains(first)
    assert {path: path.read_bytes() for path in tmp_path.rglob("step-*/*")} == before


def test_a_compiled_network_is_saved_under_its_own_names(tmp_path):
    nets = [network() for _ in range(2)]
    for net, seen in zip(nets, (nets[0], torch.compile(nets[1], backend="eager")), strict=True):
        data, opt = (X, Y), torch.optim.SGD(net.parameters(), lr=0.1)
        with loop(seen, opt, data, out=tmp_path, epochs=1 + nets.index(net), average=0.9) as steps:
            for x, y in steps:
                steps.step(nn.functional.cross_entropy(net(x), y))
    saved = checkpoint.read(tmp_path / "last")
    assert saved.step == 2
    assert saved.model.keys() == nets[0].state_dict().keys()


def test_a_change_of_machine_is_named(tmp_path):
    train(tmp_path, "torch SGD", {})
    env = json.loads((tmp_path / "env.json").read_text())
    (tmp_path / "env.json").write_text(json.dumps(env | {"threads": 99}))
    with pytest.warns(UserWarning, match="bits may differ: threads was 99"):
        train(tmp_path, "torch SGD", {})


def test_other_carried_objects_are_refused(tmp_path):
    train(tmp_path, "torch SGD", {})
    with pytest.raises(UserError, match=r"carries nothing; got \['more'\]"):
        train(tmp_path, "torch SGD", {"carry": {"more": nn.Linear(1, 1)}})


def test_the_number_of_workers_may_change_on_the_way(tmp_path):
    examples = torch.utils.data.ConcatDataset([torch.utils.data.TensorDataset(X, Y)])

    def run(out, workers, epochs):
        net = network()
        opt, data = torch.optim.SGD(net.parameters(), lr=0.1), batches(examples, 16, num_workers=workers)
        with loop(net, opt, data, out=out, epochs=epochs) as steps:
            for x, y in steps:
                steps.step(nn.functional.cross_entropy(net(x), y))
        return remains(steps)[1]

    run(tmp_path / "changed", 2, 1)
    assert run(tmp_path / "changed", 0, 2) == run(tmp_path / "alone", 0, 2)
