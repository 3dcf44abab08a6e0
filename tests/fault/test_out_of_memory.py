"""Memory that runs out: the update is made again in smaller parts, to the same weights, on record."""

import json
import random

import numpy as np
import pytest
import torch
from torch import nn

import steepest as st
from steepest.data.batches import batches
from steepest.optim.errors import UserError
from steepest.train import microbatching as beginnings
from steepest.train.loop import loop
from steepest.train.memory import ran_out
from steepest.train.microbatching import EVERY, LOOKED, StepBackup

SAYS = "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
CHANCE = torch.Generator().manual_seed(0)
X, Y = torch.randn(40, 6, generator=CHANCE), torch.arange(40) % 3


class Cut(Exception):
    """The process dies here, as far as the folder can tell."""


class Scarce(nn.Module):
    """Memory for so many examples; from a given call on, in the forward or in the backward pass."""

    def __init__(self, room, backward=False, since=0, once=False):
        super().__init__()
        self.room, self.backward, self.since, self.once = room, backward, since, once
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        short = len(x) > self.room and (self.calls == self.since if self.once else self.calls >= self.since)
        if short and not self.backward:
            raise RuntimeError(SAYS)
        return Refusing.apply(x) if short else x


class Refusing(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError(SAYS)


def network(scarce=None, dropout=0.0):
    torch.manual_seed(0)
    first = nn.Linear(6, 8)
    # The room lies behind a layer: a backward pass that fails has left gradients in those after it.
    return nn.Sequential(first, scarce or nn.Identity(), nn.Dropout(dropout), nn.Tanh(), nn.Linear(8, 3))


def train(net, out=None, cut=None, closure=True, steps=12, batch_size=16, **settings):
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    source = batches((X, Y), batch_size, accumulate=settings.pop("accumulate", 1))
    with loop(net, opt, source, out=out, budget=f"{steps} steps", **settings) as inside:
        for x, y in inside:
            if inside.done == cut:
                raise Cut
            compute = lambda x=x, y=y: nn.functional.cross_entropy(net(x), y)  # noqa: E731
            inside.step(compute if closure else compute())
    return inside


def weights(net):
    return torch.cat([weight.detach().flatten() for weight in net.parameters()])


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(("room", "parts"), [(8, 2), (4, 4), (9, 2)])
def test_the_update_is_the_one_of_smaller_microbatches(room, parts, backward):
    short, roomy = network(Scarce(room, backward)), network()
    inside = train(short, batch_size=16, steps=2)
    train(roomy, batch_size=16, accumulate=parts, steps=2)
    assert torch.equal(weights(short), weights(roomy))
    assert [row["event"] for row in inside.history].count("memory") == {2: 1, 4: 2}[parts]


def test_the_arithmetic_is_that_of_the_whole_batch_to_rounding():
    short, roomy = network(Scarce(3)), network()
    train(short)
    train(roomy)
    # Twelve updates of sums over 16 numbers: each weight is off by some roundings of float32 an update.
    assert torch.allclose(
        weights(short), weights(roomy), rtol=12 * 16 * torch.finfo(torch.float32).eps, atol=1e-6
    )


class Own(nn.Module):
    """Counts its calls and draws noise, in ways that nobody knows of from outside."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return x + 0.1 * torch.randn(x.shape)


LAYERS = {
    "batch norm": lambda: nn.BatchNorm1d(8),
    "dropout": lambda: nn.Dropout(0.5),
    "own": Own,
    "attention": lambda: nn.Sequential(nn.Unflatten(1, (1, 8)), Attention(8, 2, 0.5), nn.Flatten()),
}


class Attention(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x)[0]


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
def test_the_pass_that_failed_leaves_nothing_behind(layer, backward):
    """Neither statistics nor random numbers: of a microbatch that fitted and of the one that did not."""
    states = []
    for scarce, parts in ((Scarce(4, backward, since=2), 2), (nn.Identity(), 4)):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), LAYERS[layer](), scarce, nn.Tanh(), nn.Linear(8, 3))
        train(net, accumulate=parts, steps=3)
        states.append(net.state_dict())
    assert states[0].keys() == states[1].keys()
    assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == []


LEGACY = np.random.mtrand._rand  # what np.random's functions draw from
DRAWS = {
    "torch": lambda: float(torch.rand(())),
    "numpy": lambda: float(LEGACY.random_sample() + LEGACY.standard_normal()),
    "python": lambda: random.random() + random.gauss(0.0, 1.0),
}
"""Draws of a loss of one's own. Of normal numbers generators make two at once, and keep one."""


def plain(scarce=None):
    """A network of torch's own modules that draw nothing."""
    first = nn.Linear(6, 8)
    if scarce is not None:
        first.register_forward_hook(lambda module, inputs, outputs: scarce(outputs))
    return nn.Sequential(first, nn.Tanh(), nn.Linear(8, 3))


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("update", [1, 2, LOOKED + 21])
@pytest.mark.parametrize("name", DRAWS)
def test_what_a_loss_of_ones_own_has_drawn_is_drawn_again(name, update, backward):
    """In the first updates, in which it is looked, and after them, when it is known."""
    net, drawn = plain(Scarce(8, backward, since=update)), []

    def compute(x, y):
        drawn.append(DRAWS[name]())
        return drawn[-1] * nn.functional.cross_entropy(net(x), y)

    opt = torch.optim.SGD(net.parameters(), lr=1e-3)
    with loop(net, opt, batches((X, Y), 16), budget=f"{update + 3} steps") as inside:
        for x, y in inside:
            inside.step(lambda x=x, y=y: compute(x, y))
    assert drawn[update] == drawn[update - 1]  # the update's first part, and the whole before
    assert len(set(drawn)) == len(drawn) - 1


def test_so_it_is_in_fit():
    drawn = []

    def noisy(outputs, target):
        drawn.append(random.random())
        return nn.functional.cross_entropy(outputs, target)

    data = (X.numpy(), Y.numpy())
    st.fit(
        data,
        model=plain(Scarce(8, True, since=8)),
        loss=noisy,
        val=0,
        test=0,
        monitor="train/loss",
        lr=None,
        budget="12 steps",
        batch_size=16,
    )
    assert len(set(drawn)) == len(drawn) - 1


def counted(monkeypatch):
    """How often each generator's state has been read, as it goes."""
    reads, capture = dict.fromkeys(beginnings.GENERATORS, 0), beginnings.capture

    def counting(names):
        for name in names:
            reads[name] += 1
        return capture(names)

    monkeypatch.setattr(beginnings, "capture", counting)
    return reads


def test_who_draws_nothing_pays_for_few_looks(monkeypatch):
    reads = counted(monkeypatch)
    train(plain(), steps=2 * EVERY)
    assert reads == dict.fromkeys([*DRAWS, "cuda"], 2 * (LOOKED + 1))  # before the passes and after them


def test_who_begins_late_to_draw_is_noticed():
    beginning = StepBackup(nn.Linear(2, 2))
    for update in range(EVERY + 2):
        beginning.keep(True)
        if update >= LOOKED:
            random.random()
        beginning.over()
    beginning.keep(True)
    assert [*beginning._chance] == ["python"]


def test_nothing_is_kept_of_networks_without_such():
    beginning = StepBackup(nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Sequential(nn.ReLU())))
    for _ in range(LOOKED + 1):
        beginning.keep(True)
    assert (beginning._buffers, beginning._chance) == ([], {})


def test_it_is_kept_once_an_update_of_several_microbatches(monkeypatch):
    kept = []
    monkeypatch.setattr(StepBackup, "keep", lambda self, wanted: kept.append(wanted))
    train(network(), accumulate=4, steps=3)
    assert kept == [True] * 3


def test_nor_where_a_loss_cannot_be_made_again(monkeypatch):
    wanted = []
    monkeypatch.setattr(StepBackup, "keep", lambda self, asked: wanted.append(asked))
    train(network(dropout=0.5), closure=False, steps=3)
    assert wanted == [True, False, False]


def test_what_is_put_back_is_of_this_update():
    """The losses before were there already, so that nothing was kept; what they drew is not drawn again."""
    beginning = StepBackup(nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5)))
    beginning.keep(True)
    torch.rand(3)
    beginning.keep(False)
    before = torch.get_rng_state()
    beginning.put_back()
    assert torch.equal(torch.get_rng_state(), before)


def test_it_is_on_record(tmp_path):
    net = network(Scarce(8, since=4))
    inside = train(net, out=tmp_path)
    rows = [row for row in inside.history if row["event"] == "memory"]
    assert [row["step"] for row in rows] == [3]
    noted = [json.loads(line) for line in (tmp_path / "evidence.jsonl").read_text().splitlines()]
    (found,) = [one for one in noted if one["choice"] == "microbatch"]
    assert found["decided"] == 8
    assert "16 examples at once in step 4" in found["why"]


def test_the_best_step_keeps_its_metrics_where_memory_runs_out_after_it():
    values = iter([1.0, 2.0, 3.0, 4.0])
    measured = {"evaluate": lambda: {"loss": next(values)}, "evaluate_every": "3 steps"}
    result = train(network(Scarce(8, since=4)), **measured).result()
    assert result["best_step"] == 3
    assert result["metrics"]["val/loss"] == 1.0


@pytest.mark.parametrize("cut", [3, 4, 5, 8])
def test_a_run_that_ran_out_once_resumes_to_the_same_bits(tmp_path, cut):
    settings = {"steps": 12, "save_every": "3 steps"}
    alone = network(Scarce(8, since=5, once=True), dropout=0.5)
    train(alone, out=tmp_path / "alone", **settings)
    first = network(Scarce(8, since=5, once=True), dropout=0.5)
    with pytest.raises(Cut):
        train(first, cut=cut, out=tmp_path / "cut", **settings)
    # Memory runs out in the fifth call; a process that goes on from step 3 meets it in its second.
    again = network(Scarce(8, since=2 if cut < 5 else 0, once=True), dropout=0.5)
    train(again, out=tmp_path / "cut", **settings)
    assert torch.equal(weights(alone), weights(again))


def test_a_loss_that_is_there_already_cannot_be_made_again():
    with pytest.raises(UserError, match=r"steps.step\(lambda"):
        train(network(Scarce(8, backward=True)), closure=False)


def test_no_room_at_all_is_said():
    with pytest.raises(UserError, match="at every size of batch, down to a single example"):
        train(network(Scarce(0)))


def test_batch_norms_need_two():
    net = nn.Sequential(Scarce(1), nn.BatchNorm1d(6), nn.Linear(6, 3))
    with pytest.raises(UserError, match="batch norms need two"):
        train(net)


def test_other_errors_are_left_alone():
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        train(network(Broken()))


def test_a_rule_of_several_passes_says_why_it_cannot():
    from steepest.torch import optimizer

    net = network(Scarce(8))
    opt = optimizer(net, "sam+sgd")
    with loop(net, opt, (X, Y), epochs=1, batch_size=16) as inside:
        x, y = next(iter(inside))
        with pytest.raises(UserError, match="must be whole"):
            inside.step(lambda: nn.functional.cross_entropy(net(x), y))


def test_fit_goes_on_in_smaller_parts(tmp_path):
    run = st.fit(
        (X.numpy(), Y.numpy()),
        model=network(Scarce(8, since=8)),
        out=tmp_path / "run",
        lr=None,
        budget="6 epochs",
        batch_size=16,
    )
    assert run.status == "finished"
    assert any(one.choice == "microbatch" and one.decided in (6, 8) for one in run.evidence)


# --- outside updates: the look at a fresh network, evaluations, searches ---

SOME = torch.randn(400, 6, generator=CHANCE)
SEARCHED = {"budget": "600 steps", "batch_size": 16}


def labelled():
    return SOME.numpy(), (SOME[:, 0] > 0).long().add(SOME[:, 1] > 0).numpy()


def fit(scarce, **settings):
    return st.fit(labelled(), model=network(scarce), **{"lr": None} | settings)


@pytest.fixture
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_empty_folder")
def test_what_is_measured_in_parts_is_what_is_measured_at_once():
    roomy, short = (fit(Scarce(room), budget="2 epochs", batch_size=4) for room in (10**6, 5))
    assert not [one for one in short.evidence if one.choice == "microbatch"]
    for name, value in roomy.metrics.items():
        assert short.metrics[name] == pytest.approx(value, rel=400 * torch.finfo(torch.float32).eps)


@pytest.mark.usefixtures("_empty_folder")
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("opened", [("lr",), ("rule", "lr", "batch_size", "schedule", "clip_norm", "stop")])
def test_a_search_goes_on_in_smaller_parts_and_says_so(opened, backward):
    run = fit(Scarce(5, backward), **SEARCHED | dict.fromkeys(opened, "auto"))
    assert run.status == "finished"
    told = {one.choice: one for one in run.evidence}
    assert "held-out loss" in told["lr"].why
    assert told["microbatch"].decided <= 5
    assert "in the search" in told["microbatch"].why


@pytest.mark.usefixtures("_empty_folder")
def test_a_search_chooses_as_one_with_room_does():
    roomy, short = (fit(Scarce(room), lr="auto", **SEARCHED) for room in (10**6, 5))
    assert short.resolved.name == roomy.resolved.name


@pytest.mark.usefixtures("_empty_folder")
@pytest.mark.parametrize("engine", ["steepest", "optuna"])
def test_so_does_tune(engine):
    asked = {**SEARCHED, "of": SEARCHED["budget"], "budget": "25%", "lr": "auto"}
    found = st.tune(labelled(), engine=engine, model=network(Scarce(5)), **asked)
    assert any(one.choice == "lr" for one in found)


@pytest.mark.usefixtures("_empty_folder")
def test_a_search_without_room_for_a_single_example_says_so():
    with pytest.raises(UserError, match="at every size of batch, down to a single example"):
        fit(Scarce(0), lr="auto", **SEARCHED)


@pytest.mark.usefixtures("_empty_folder")
def test_without_room_for_copies_the_default_is_taken_and_it_is_said():
    class Large(Scarce):
        def __deepcopy__(self, memo):
            raise RuntimeError(SAYS)

    run = fit(Large(10**6), lr="auto", rule="auto", schedule="auto", **SEARCHED)
    told = {one.choice: one for one in run.evidence}
    assert run.status == "finished"
    assert told["lr"].decided == pytest.approx(0.01)
    assert told["rule"].decided == "muonmatched"
    assert "not measured: memory ran out" in told["lr"].why


@pytest.mark.usefixtures("_empty_folder")
def test_an_error_of_a_network_is_not_taken_for_memory():
    class Narrow(nn.Module):
        def forward(self, x):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(UserError, match="cannot take inputs of shape"):
        fit(Narrow(), lr="auto", **SEARCHED)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError(SAYS),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    ],
)
def test_what_allocators_say_is_understood(error):
    assert ran_out(error)


def test_a_real_allocator_is_understood():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert ran_out(raised.value)
    assert not ran_out(RuntimeError("shapes differ"))
