"""`loop` is the bare loop with safety around it: the same weights, and nothing bad reaches them."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import steepest.torch
from steepest import report
from steepest.data.order import Plan
from steepest.optim.errors import UserError
from steepest.train.loop import loop
from steepest.train.stopping import Stopping
from steepest.train.update import Diverged, Guard

X = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
Y = (X[:, :1] > 0).float()
MAKERS = {
    "torch": lambda net: torch.optim.AdamW(net.parameters(), lr=0.01),
    "steepest": lambda net: steepest.torch.AdamW(net.parameters(), lr=0.01),
}


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1)).to(dtype)


def train(net, opt, data=(X, Y), **settings):
    settings = {"epochs": 3, "batch_size": 16} | settings
    with loop(net, opt, data, **settings) as steps:
        for x, y in steps:
            with steps.autocast():
                loss = nn.functional.mse_loss(net(x).to(y.dtype), y)
            steps.step(loss)
    return steps


def weights(net):
    return torch.cat([weight.detach().flatten() for weight in net.parameters()])


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("guard", [True, False])
def test_the_weights_are_those_of_the_bare_loop(maker, guard):
    bare, safe = network(), network()
    opt = MAKERS[maker](bare)
    updates = Plan(60, 16).updates(0)
    for _ in range(12):
        index = torch.from_numpy(next(updates)[2])
        nn.functional.mse_loss(bare(X[index]), Y[index]).backward()
        opt.step()
        opt.zero_grad()
    train(safe, MAKERS[maker](safe), guard=guard)
    assert torch.equal(weights(bare), weights(safe))


@pytest.mark.parametrize("accumulate", [2, 3, 16])
def test_microbatches_add_up_to_the_whole_batch(accumulate):
    nets = [network(torch.float64) for _ in range(2)]
    data = X.double(), Y.double()
    for net, parts in zip(nets, (1, accumulate), strict=True):
        train(net, torch.optim.SGD(net.parameters(), lr=0.1), data, accumulate=parts)
    steps, terms = 12, 16
    bound = 2**-52 * steps * terms * float(weights(nets[0]).abs().max())
    assert float((weights(nets[0]) - weights(nets[1])).abs().max()) <= bound


@pytest.mark.parametrize("maker", MAKERS)
def test_a_clipped_update_is_that_of_the_clipped_gradient(maker):
    def sgd(net):
        return (
            steepest.torch.SGD(net.parameters(), lr=1.0)
            if maker == "steepest"
            else torch.optim.SGD(net.parameters(), lr=1.0)
        )

    net = network()
    before = weights(net)
    train(net, sgd(net), clip_norm=0.01, batch_size="full", epochs=1)
    moved = float((weights(net) - before).norm())
    assert abs(moved - 0.01) <= 50 * 2**-24


@pytest.mark.parametrize(
    "settings", [{"clip_value": 1e-3}, {"clip_adaptive": 1e-3}, {"clip_value": 1e-3, "clip_norm": 1e-4}]
)
def test_other_clipping_shortens_the_step_and_both_kinds_of_optimizer_agree(settings):
    moved = []
    for make in (torch.optim.SGD, steepest.torch.SGD):
        net = network()
        before = weights(net)
        train(net, make(net.parameters(), lr=1.0), batch_size="full", epochs=1, **settings)
        moved.append(weights(net) - before)
    free = network()
    train(free, torch.optim.SGD(free.parameters(), lr=1.0), batch_size="full", epochs=1)
    assert float(moved[0].norm()) < 0.5 * float((weights(free) - before).norm())
    assert float((moved[0] - moved[1]).abs().max()) <= 4 * 2**-24 * float(weights(free).abs().max())


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_reaches_the_weights(maker, bad):
    x = X.clone()
    x[7] = bad
    net = nn.Sequential(nn.BatchNorm1d(5), network())
    seen = []
    steps = train(
        net, MAKERS[maker](net), (x, Y), on_step=lambda s: seen.append(torch.isfinite(weights(net)).all())
    )
    assert all(seen)
    assert [row["event"] for row in steps.history].count("guard") == 3
    assert all(torch.isfinite(buffer).all() for buffer in net.buffers())


def test_after_strikes_the_run_goes_back_and_then_gives_up_with_the_batch(tmp_path):
    net, rare = network(), {"evaluate_every": "9 epochs"}
    with pytest.raises(Diverged, match=r"gave up at step 6: loss nan.*after 2 rewinds.*offending-batch.npz"):
        train(net, MAKERS["steepest"](net), (X * math.nan, Y), guard=Guard(2, 2, 0.5), out=tmp_path, **rare)
    assert torch.equal(weights(net), weights(network()))
    with np.load(tmp_path / "offending-batch.npz", allow_pickle=False) as saved:
        assert np.isnan(saved["batch0/0"]).all()
    assert '"status": "failed"' in (tmp_path / "result.json").read_text()
    rows = (tmp_path / "metrics.csv").read_text().splitlines()[1:]
    assert [row.rsplit(",", 1)[1] for row in rows] == ["guard", "rewind"] * 2 + ["guard", "failed"]
    assert rows[-1].rsplit(",", 2)[1] == "0.25"


def test_at_a_plateau_the_best_weights_come_back_and_the_rate_falls(tmp_path):
    values = iter([1.0, 2.0, 3.0, 0.5, 2.0, 2.0, 2.0, 2.0])
    net, kept = network(), {}

    def evaluate():
        kept[len(kept) + 1] = weights(net)
        return {"loss": next(values)}

    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    machine = Stopping(patience=2, max_decays=1, decay_factor=0.5)
    rates, steps = [], None

    def note(loop_, row):
        rates.append(row["lr"])
        if row["event"] == "decay":
            assert torch.equal(weights(net), kept[loop_.best_step])

    often = {"evaluate": evaluate, "evaluate_every": "1 step", "epochs": 9, "out": tmp_path}
    steps = train(net, opt, stopping=machine, on_evaluation=note, **often)
    events = [row["event"] for row in steps.history]
    assert events == ["improved", "", "decay", "improved", "", "decay", "", "stop"]
    assert rates == [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.025]
    assert steps.why == "val/loss did not improve for 2 evaluations after 2 decays of the rate"
    assert "The learning rate was lowered twice" in report.write(tmp_path).read_text()
    steps.restore_best()
    assert torch.equal(weights(net), kept[4])


def test_averaged_weights_are_what_is_evaluated_and_shipped():
    net, seen = network(), []
    opt = torch.optim.SGD(net.parameters(), lr=0.5)

    def evaluate():
        seen.append(weights(net))
        return {"loss": -float(len(seen))}

    steps = train(net, opt, average=0.9, evaluate=evaluate)
    raw = weights(net)
    steps.restore_best()
    assert torch.equal(weights(net), seen[-1])
    assert not torch.equal(raw, seen[-1])


@pytest.mark.parametrize("average", [None, 0.9])
def test_the_weights_to_ship_are_shown_in_the_middle_of_a_loop(average):
    net, shown = network(), []

    def look(steps):
        before = weights(net)
        with steps.evaluated():
            shown.append(weights(net))
        assert torch.equal(weights(net), before)
        assert steps.averages == (average is not None) == (not torch.equal(before, shown[-1]))

    steps = train(net, torch.optim.SGD(net.parameters(), lr=0.5), average=average, on_step=look)
    steps.restore_best()
    assert torch.equal(weights(net), shown[-1])


def test_evaluations_leave_no_trace():
    nets = [network() for _ in range(2)]

    def disturb():
        nets[1].eval()
        torch.rand(3), np.random.rand()  # noqa: NPY002
        return {"loss": 0.0}

    for net in nets:
        noisy = nn.Sequential(nn.Dropout(0.5), net)
        train(
            noisy,
            MAKERS["torch"](noisy),
            evaluate=disturb if net is nets[1] else None,
            evaluate_every="2 steps",
        )
    assert torch.equal(weights(nets[0]), weights(nets[1]))


@pytest.mark.parametrize("precision", ["bf16", "16"])
def test_lower_precision_trains(precision):
    net = network()
    steps = train(net, MAKERS["steepest"](net), precision=precision, epochs=30)
    assert steps.history[-1]["train/loss"] < 0.7 * steps.history[0]["train/loss"]


def test_overflow_of_16_bits_is_answered_by_the_scale_and_no_strike():
    net = network()
    steps = train(
        net, torch.optim.SGD(net.parameters(), lr=0.1), (X, Y * 1e4), precision="16", clip_norm=1.0, epochs=10
    )
    assert {row["event"] for row in steps.history} == {"", "improved"}


def test_a_budget_in_seconds_cuts_and_says_where():
    net = network()
    steps = train(net, MAKERS["torch"](net), epochs=None, budget="0.05s")
    assert steps.why == f"the budget of 0.05 seconds was used up at step {steps.done}"
    assert steps.history[-1]["step"] == steps.done


def test_a_hook_may_end_the_run():
    net = network()
    steps = train(net, MAKERS["torch"](net), on_step=lambda s: s.done == 2 and s.stop("enough"))
    assert (steps.done, steps.why, steps.status) == (2, "enough", "finished")


def test_a_stream_of_unknown_length_counts_its_epochs():
    class Endless:
        def __iter__(self):
            return ((X[i : i + 20], Y[i : i + 20]) for i in range(0, 60, 20))

    net = network()
    steps = train(net, MAKERS["torch"](net), Endless(), epochs=2)
    assert steps.done == 6
    assert [row["epoch"] for row in steps.history] == [1.0, 2.0]


def test_more_epochs_go_on_with_a_finished_run(tmp_path):
    nets = [network() for _ in range(3)]
    train(nets[0], MAKERS["torch"](nets[0]), out=tmp_path / "a", epochs=2)
    train(nets[1], MAKERS["torch"](nets[1]), out=tmp_path / "a", epochs=4)
    train(nets[2], MAKERS["torch"](nets[2]), out=tmp_path / "b", epochs=4)
    assert torch.equal(weights(nets[1]), weights(nets[2]))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"epochs": None}, "Say how long to train"),
        ({"budget": "1s"}, "Say how long to train"),
        ({"evaluate_every": "5s"}, "evaluate_every must be in steps or epochs"),
        ({"precision": "8"}, "precision must be"),
        ({"evaluate": lambda: {"lss": 1.0}}, "monitor is 'val/loss'.*Did you mean 'val/lss'"),
        ({"budget": "+3 epochs", "epochs": None}, "begins with a budget of its own"),
        ({"average": 2.0}, "average must lie in"),
    ],
)
def test_a_wrong_setting_gets_a_sentence(settings, sentence):
    net = network()
    with pytest.raises(UserError, match=sentence):
        train(net, MAKERS["torch"](net), **settings)


def test_a_batch_without_its_step_gets_a_sentence():
    net = network()
    with (
        pytest.raises(UserError, match="went by without"),
        loop(net, MAKERS["torch"](net), (X, Y), epochs=1) as steps,
    ):
        list(steps)


def test_a_loss_twice_gets_a_sentence():
    net = network()
    with loop(net, MAKERS["torch"](net), (X, Y), epochs=1) as steps:
        for x, y in steps:
            steps.step(lambda x=x, y=y: nn.functional.mse_loss(net(x), y))
            with pytest.raises(UserError, match="twice for one batch"):
                steps.step(nn.functional.mse_loss(net(x), y))
            break


def test_weights_of_another_network_are_refused():
    with pytest.raises(UserError, match="weights that the network does not have"):
        loop(network(), MAKERS["torch"](network()), (X, Y), epochs=1)
