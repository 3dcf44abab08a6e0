"""Resume is bit-exact at any step, whatever changes as a run goes."""

import json
import math
import warnings

import pytest
import torch
from torch import nn

import steepest.torch
from steepest.data.batches import batches
from steepest.optim.errors import UserError
from steepest.train import checkpoint
from steepest.train.loop import loop
from steepest.train.stopping import Stopping
from steepest.train.update import Guard

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
    snapshot = inside.state.snapshot()
    snapshot.progress["seconds"] = 0
    plain, held = checkpoint.packed(snapshot.parts)
    tensors = {name: tensor.numpy().tobytes() for name, tensor in held.items()}
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in inside.history]
    return repr(plain), tensors, repr(rows)


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


SCHEDULERS = {
    "ExponentialLR": lambda opt: torch.optim.lr_scheduler.ExponentialLR(opt, 0.9),
    "MultiStepLR": lambda opt: torch.optim.lr_scheduler.MultiStepLR(opt, [3, 9]),
    "OneCycleLR": lambda opt: torch.optim.lr_scheduler.OneCycleLR(opt, 0.01, total_steps=30),
    "SequentialLR": lambda opt: torch.optim.lr_scheduler.SequentialLR(
        opt,
        [
            torch.optim.lr_scheduler.LinearLR(opt, total_iters=4),
            torch.optim.lr_scheduler.CosineAnnealingLR(opt, 20),
        ],
        [5],
    ),
    "ReduceLROnPlateau": lambda opt: torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=1),
}
MOVED = {
    "torch AdamW": lambda net: torch.optim.AdamW(net.parameters(), lr=0.01),
    "torch SGD": lambda net: torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9),
    "AdamW": lambda net: steepest.torch.AdamW(net.parameters(), lr=0.01),
    "SGD": lambda net: steepest.torch.SGD(net.parameters(), lr=0.01, momentum=0.9),
}


def scheduled(out, make, schedule, cut=None, carried=True, **settings):
    """A run with a scheduler of torch on top; (weights, groups) at the end."""
    torch.manual_seed(0)
    net = nn.Linear(4, 1)
    x = torch.randn(32, 4)
    opt = make(net)
    scheduler = schedule(opt)

    def after(inside):
        plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
        scheduler.step(*([1.0] if plateau else []))
        if inside.done == cut:
            raise Cut

    carry = {"schedule": scheduler} if carried else {}
    held = {"out": out, "epochs": 6, "batch_size": 8, "save_every": "2 steps", "carry": carry} | settings
    with loop(net, opt, (x, x[:, :1]), on_step=after, **held) as inside:
        for a, b in inside:
            inside.step(nn.functional.mse_loss(net(a), b))
    groups = [{key: value for key, value in one.items() if key != "params"} for one in opt.param_groups]
    return net.weight.tolist(), repr(groups)


@pytest.mark.parametrize("optimizer", MOVED)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_rates_and_betas_of_a_scheduler_survive_a_kill(tmp_path, optimizer, scheduler):
    make, schedule = MOVED[optimizer], SCHEDULERS[scheduler]
    with pytest.raises(Cut):
        scheduled(tmp_path / "cut", make, schedule, 7)
    again, alone = (scheduled(tmp_path / name, make, schedule) for name in ("cut", "alone"))
    assert again == alone


def test_a_scheduler_that_is_not_carried_is_named(tmp_path):
    with pytest.warns(UserWarning, match=r"scheduler.*carry=\{'schedule': scheduler\}"):
        scheduled(tmp_path, MOVED["AdamW"], SCHEDULERS["OneCycleLR"], carried=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduled(None, MOVED["AdamW"], SCHEDULERS["OneCycleLR"], carried=False)


HANDS = {"lr": 0.003, "weight_decay": 0.2, "betas": (0.5, 0.7)}


@pytest.mark.parametrize("optimizer", ["torch AdamW", "AdamW"])
def test_what_a_person_sets_by_hand_survives_a_kill_and_a_rewind(tmp_path, optimizer):
    def run(out, cut=None):
        torch.manual_seed(0)
        net, x = nn.Linear(4, 1), torch.randn(32, 4)
        opt = MOVED[optimizer](net)

        def after(inside):
            if inside.done == 5:
                opt.param_groups[0].update(HANDS)
            if inside.done == cut:
                raise Cut

        with loop(
            net,
            opt,
            (x, x[:, :1]),
            out=out,
            epochs=6,
            batch_size=8,
            on_step=after,
            save_every="2 steps",
            stopping=Stopping(patience=3, max_decays=9, decay_factor=0.5),
            evaluate=lambda: {"loss": 1.0},  # after the first look it never improves
            evaluate_every="2 steps",
        ) as inside:
            for a, b in inside:
                inside.step(nn.functional.mse_loss(net(a), b))
        factor = 1.0 if optimizer == "AdamW" else inside.history[-1]["factor"]
        assert [row["event"] for row in inside.history].count("decay") == 3
        now = [opt.param_groups[0][name] for name in HANDS]
        assert now == [pytest.approx(HANDS["lr"] * factor, rel=1e-12), *list(HANDS.values())[1:]]
        return net.weight.tolist(), now

    with pytest.raises(Cut):
        run(tmp_path / "cut", 9)
    assert run(tmp_path / "cut") == run(tmp_path / "alone")


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
