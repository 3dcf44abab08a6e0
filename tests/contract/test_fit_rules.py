"""Rules that ask more of a loop: several passes over a batch, or other weights to test than to train."""

from functools import partial

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import steepest as st
from steepest import rules, wrap
from steepest.optim.errors import UserError
from steepest.torch import RuleOptimizer
from steepest.train import checkpoint
from steepest.train.loop import loop

CHANCE = np.random.default_rng(1)
X = CHANCE.normal(size=(240, 4)).astype(np.float32)
Y = (X[:, 0] + 0.3 * X[:, 1] > 0).astype(np.int64)
QUICK = {"budget": "8 epochs", "hidden": [8], "batch_size": 16}
SEVERAL = {
    "sam+adamw": {"lr": 0.01},
    "asam+momentum": {"lr": 0.05},
    "adahessian": {"lr": 0.05},
    "sophiah": {"lr": 0.01},
    "sophiag": {"lr": 0.01},
    "cautious+sophiag": {"lr": 0.01},
    "marsexact": {"lr": 0.01},
}
AVERAGING = {
    "asgd": {"lr": 0.1, "hyper": {"t0": 10.0}},
    "averaged+adamw": {"lr": 0.01, "hyper": {"average_kept": 0.9}},
    "lookahead+adamw": {"lr": 0.01},
    "schedulefreeadamw": {"lr": 0.02},
    "schedulefreesgd": {"lr": 0.5},
}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def normed():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize("rule", [*SEVERAL, *AVERAGING])
def test_a_rule_of_more_demands_learns(rule):
    run = st.fit((X, Y), rule=rule, **QUICK, **(SEVERAL | AVERAGING)[rule])
    assert run.metrics["test/accuracy"] > 0.85


@pytest.mark.parametrize(
    "rule", ["sophiag", *(pytest.param(one, marks=pytest.mark.full) for one in ("sam+adamw", "adahessian"))]
)
def test_a_budget_in_seconds_is_measured_with_all_passes(rule):
    run = st.fit((X, Y), rule=rule, budget="1s", schedule="cosine", hidden=[4], **SEVERAL[rule])
    assert any(one.choice == "horizon" for one in run.evidence)


def test_one_output_for_two_classes_is_enough_for_labels():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    run = st.fit((X, Y), model=net, loss="binary", rule="sophiag", lr=0.01, budget="8 epochs", batch_size=16)
    assert run.metrics["test/accuracy"] > 0.85


@pytest.mark.parametrize("rule", AVERAGING)
def test_averages_are_shipped_and_trained_weights_are_kept(rule, tmp_path):
    run = st.fit((X, Y), rule=rule, out=tmp_path / "run", **QUICK, **AVERAGING[rule])
    kept = checkpoint.read((tmp_path / "run" / "best").resolve())
    shipped = safetensors.torch.load_file(tmp_path / "run" / "model.safetensors")
    part = kept.parts["optimizer"]["slots"]
    for name, weight in kept.model.items():
        if rule == "schedulefreeadamw" or rule == "schedulefreesgd":
            expected = (weight - 0.1 * part[f"{name}/z"]) / 0.9
        else:
            slot = {"asgd": "a", "averaged+adamw": "averaged", "lookahead+adamw": "slow"}[rule]
            expected = part[f"{name}/{slot}"]
        torch.testing.assert_close(shipped[name], expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(shipped[name], run.network.state_dict()[name])
    assert any(not torch.equal(shipped[name], kept.model[name]) for name in shipped)


@pytest.mark.parametrize("settings", [{"rule": "schedulefreeadamw"}, {"average": 0.9}], ids=str)
def test_batch_norms_are_measured_anew_and_this_is_recorded(settings):
    run = st.fit((X, Y), model=normed(), lr=None, **QUICK, **settings)
    told = [one for one in run.evidence if one.choice == "batch_norm"]
    assert len(told) == 1
    assert told[0].decided == len(range(0, 168, 16))
    trained = checkpoint.read((run.folder / "best").resolve()).model
    assert not torch.equal(trained["1.running_mean"], run.network[1].running_mean)
    plain = st.fit((X, Y), model=normed(), lr=None, **QUICK)
    assert not any(one.choice == "batch_norm" for one in plain.evidence)


class Cut(Exception):
    """The process dies here, as far as the folder can tell."""


RESUMED = {
    "sam": wrap.sam(rules.AdamW(lr=0.01)),
    "adahessian": rules.AdaHessian(lr=0.05, every=3),
    "sophiag": rules.SophiaG(lr=0.01, every=4),
    "schedule-free": rules.ScheduleFreeAdamW(lr=0.02, warmup=5),
}


def trained(rule, out, cut=None, net=None, kept=None, **settings):
    """A network after 20 steps; cut: the step at which the process dies; kept: arguments of the optimizer."""
    net = net or normed()

    def computed(x, y):
        outputs = net(x)
        loss = cross_entropy(outputs, y)
        return (loss, outputs) if rule is RESUMED["sophiag"] else loss

    def dies(steps):
        if steps.done == cut:
            raise Cut

    data = torch.from_numpy(X), torch.from_numpy(Y)
    opt = RuleOptimizer(net.parameters(), rule, **(kept or {}))
    settings = {"budget": "20 steps", "save_every": "1 steps", "evaluate_every": "5 steps"} | settings
    with loop(net, opt, data, out=out, batch_size=16, on_step=dies, **settings) as steps:
        for x, y in steps:
            steps.step(partial(computed, x, y))
    return net, steps


@pytest.mark.parametrize("name", RESUMED)
def test_a_cut_run_goes_on_to_the_same_bits(name, tmp_path):
    whole, _ = trained(RESUMED[name], tmp_path / "whole")
    with pytest.raises(Cut):
        trained(RESUMED[name], tmp_path / "cut", cut=11)
    again, _ = trained(RESUMED[name], tmp_path / "cut")
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_clipping_shortens_what_several_passes_found():
    rule = wrap.sam(rules.SGD(lr=1.0))
    short, _ = trained(rule, None, clip_norm=1e-3, budget="1 steps")
    start = normed()
    pairs = zip(short.parameters(), start.parameters(), strict=True)
    moved = torch.cat([(a - b).detach().flatten() for a, b in pairs])
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-3)


def test_running_statistics_take_in_the_first_pass_alone():
    climbing, _ = trained(wrap.sam(rules.SGD(lr=0.0), radius=1.0), None, budget="1 steps")
    plain, _ = trained(rules.SGD(lr=0.0), None, budget="1 steps")
    assert torch.equal(climbing[1].running_mean, plain[1].running_mean)
    assert int(climbing[1].num_batches_tracked) == 1


@pytest.mark.parametrize("kept", [{}, {"average": 0.8}], ids=["the rule's", "the optimizer's"])
def test_what_is_evaluated_are_the_weights_to_ship(kept):
    net, seen = normed(), []

    def evaluate():
        seen.append(torch.cat([w.detach().flatten() for w in net.parameters()]))
        return {"loss": -float(len(seen))}

    rule = rules.AdamW(lr=0.05) if kept else RESUMED["schedule-free"]
    _, steps = trained(rule, None, net=net, evaluate=evaluate, kept=kept)
    raw = torch.cat([w.detach().flatten() for w in net.parameters()])
    steps.restore_best()
    shipped = torch.cat([w.detach().flatten() for w in net.parameters()])
    assert torch.equal(shipped, seen[-1])
    assert not torch.equal(raw, shipped)


REFUSED = {
    "accumulate": ({"rule": "sam+adamw", "accumulate": 2}, "accumulate=2"),
    "loss scale": ({"rule": "sophiah", "precision": "16"}, "precision="),
    "compile": ({"rule": "adahessian", "compile": True}, "compile"),
    "numbers": ({"rule": "sophiag", "target": X[:, 0]}, "sophiah"),
    "two averages": ({"rule": "schedulefreesgd", "average": 0.9}, "one too many"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_go_together_gets_a_sentence_before_training(name):
    settings, sentence = REFUSED[name]
    target = settings.get("target", Y)
    settings = {key: value for key, value in settings.items() if key != "target"}
    with pytest.raises(UserError, match=sentence):
        st.fit((X, target), out="refused", **QUICK, **settings)


def loop_over(net, opt, accumulate, loss_of):
    data = torch.from_numpy(X), torch.from_numpy(Y)
    with loop(net, opt, data, epochs=1, batch_size=16, accumulate=accumulate) as steps:
        for x, y in steps:
            steps.step(loss_of(x, y))


def test_a_loop_of_ones_own_says_what_it_needs():
    net = normed()
    climbing = RuleOptimizer(net.parameters(), RESUMED["sam"])
    with pytest.raises(UserError, match=r"steps\.step\(lambda"):
        loop_over(net, climbing, 1, lambda x, y: cross_entropy(net(x), y))
    with pytest.raises(UserError, match="accumulate=1"):
        loop_over(net, climbing, 2, lambda x, y: lambda: cross_entropy(net(x), y))
    assert climbing.steps == 0


def test_a_loop_of_ones_own_refuses_what_does_not_go_together():
    net, data = normed(), (torch.from_numpy(X), torch.from_numpy(Y))
    climbing, averaging = (
        RuleOptimizer(net.parameters(), RESUMED[name]) for name in ("sam", "schedule-free")
    )
    with pytest.raises(UserError, match='precision="16"'):
        loop(net, climbing, data, epochs=1, precision="16")
    with pytest.raises(UserError, match="an average of its own"):
        loop(net, averaging, data, epochs=1, average=0.9)
    with pytest.raises(UserError, match="L-BFGS"):
        loop(net, torch.optim.LBFGS(net.parameters()), data, epochs=1)
