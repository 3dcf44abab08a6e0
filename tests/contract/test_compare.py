"""`compare` from the data to the verdict: pairs that are pairs, equal conditions, and no work done twice."""

import json
import os
import signal
import time

import numpy as np
import pytest
import torch
from torch import nn

import steepest as st
from processes import steepest
from steepest import rules

QUICK = {"budget": "12 steps", "hidden": [8], "batch_size": 16, "evaluate_every": "4 steps"}
TWO = {"adamw": {"lr": 1e-3}, "sgd": {"lr": 0.1}}

draw = np.random.default_rng(0)
X, y = draw.normal(size=(120, 4)).astype(np.float32), draw.integers(0, 3, 120)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def stamps(folder):
    """When each run's result was written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*-seed-*/result.json")}


def test_a_comparison_leaves_a_folder_that_explains_itself(capsys):
    found = st.compare("iris", TWO, seeds=2, **QUICK)
    assert found.folder.as_posix() == "runs/compare-iris"
    held = {path.name for path in found.folder.iterdir()}
    assert {"compare.toml", "results.jsonl", "verdict.json", "report.html"} <= held
    assert {"adamw-seed-0", "adamw-seed-1", "sgd-seed-0", "sgd-seed-1"} <= held
    assert found.verdict.done == found.verdict.asked == 4
    assert not any(one.failed for one in found.results)
    printed = capsys.readouterr().out
    assert "not separable" in printed
    assert "4/4  sgd  seed 1" in printed
    assert "epoch" not in printed.replace("evaluations", "")  # runs keep silent


def test_runs_of_one_seed_start_alike_and_meet_the_same_examples():
    """With a rate of 0 nothing moves: the losses of the two are those of one start on one split."""
    still = {"adamw": {"lr": 0.0, "weight_decay": 0.0}, "sgd": {"lr": 0.0}}
    found = st.compare("iris", still, seeds=2, **QUICK)
    by_seed = {seed: [one for one in found.results if one.seed == seed] for seed in (0, 1)}
    for one, other in by_seed.values():
        assert list(one.values) == list(other.values)
    assert by_seed[0][0].values != by_seed[1][0].values
    first, second = (found.run(name, 0).history["train/loss"].to_list() for name in ("adamw", "sgd"))
    assert first == second


def test_a_run_of_a_comparison_is_that_of_fit():
    found = st.compare("iris", TWO, seeds=2, **QUICK)
    alone = st.fit("iris", rule="sgd", lr=0.1, seed=1, **QUICK)
    assert found.run("sgd", 1).history.drop("seconds").equals(alone.history.drop("seconds"))
    assert found.run("sgd", 1).metrics == alone.metrics


def test_the_same_question_again_trains_nothing_and_more_seeds_are_added():
    found = st.compare("iris", TWO, seeds=2, **QUICK)
    before = stamps(found.folder)
    again = st.compare("iris", TWO, seeds=2, **QUICK)
    assert again.folder == found.folder
    assert stamps(found.folder) == before
    more = st.compare("iris", TWO, seeds=3, **QUICK)
    after = stamps(found.folder)
    assert more.folder == found.folder
    assert {name: after[name] for name in before} == before
    assert len(after) == 6


def test_another_question_has_another_folder():
    first = st.compare("iris", TWO, seeds=1, **QUICK)
    second = st.compare("iris", {**TWO, "sgd": {"lr": 0.2}}, seeds=1, **QUICK)
    assert second.folder.name == "compare-iris-2"
    with pytest.raises(st.UserError, match=r"another comparison: strategies.sgd.lr 0.2, now 0.1"):
        st.compare("iris", TWO, seeds=1, out=second.folder, **QUICK)
    assert first.folder.name == "compare-iris"


def test_other_arrays_are_another_question():
    st.compare((X, y), TWO, seeds=1, **QUICK)
    assert st.compare((X + 1, y), TWO, seeds=1, **QUICK).folder.name == "compare-arrays-2"
    assert st.compare((X, y), TWO, seeds=1, **QUICK).folder.name == "compare-arrays"


def test_a_rate_that_is_left_open_is_measured_on_a_seed_of_its_own():
    found = st.compare("iris", {"adamw": {"lr": 1e-3}, "sgd": {}}, seeds=1, **QUICK)
    (choice,) = found.evidence
    assert choice.choice == "lr of sgd"
    assert found.run("sgd", 0).recipe.lr == choice.decided
    assert len(choice.candidates) >= 5
    best = min(choice.candidates, key=lambda one: one["result"])
    assert best["lr"] == choice.decided
    assert choice.gradients == 12 * len(choice.candidates)


def test_what_a_run_spends_on_its_own_search_counts():
    """It searches within its budget, so that it makes fewer steps; on the clock they are as many."""
    rows = draw.normal(size=(600, 4)).astype(np.float32)
    two = {"found": {"rule": "adamw", "lr": "auto"}, "given": {"rule": "adamw", "lr": 1e-3}}
    settings = QUICK | {"budget": "400 steps", "evaluate_every": "100 steps"}
    found = st.compare((rows, rows[:, 0] * 2), two, seeds=1, **settings)
    own, other = found.results
    assert found.run("found", 0).steps < 400
    assert own.spent["steps"] == own.at[-1] == other.spent["steps"] == other.at[-1] == 400
    assert own.lr == found.run("found", 0).chosen["lr"]
    assert found.verdict.standings[0].lr is not None


def test_a_network_of_ones_own_starts_every_run_as_it_was_given():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    before = [weight.clone() for weight in net.parameters()]
    found = st.compare((X, y), TWO, seeds=2, model=net, **QUICK)
    assert all(torch.equal(one, other) for one, other in zip(before, net.parameters(), strict=True))
    starts = [found.run(name, 0).history["train/loss"][0] for name in ("adamw", "sgd")]
    assert len(found.results) == 4
    assert starts[0] != starts[1]  # after four steps of different rules


def test_a_run_is_compared_under_its_own_settings():
    run = st.fit("iris", rule="adamw", lr=0.5, out="runs/mine", **QUICK)
    found = st.compare(run.folder, {"adamw": {"lr": 1e-3}, "sgd": {"lr": 0.1}}, seeds=1)
    assert found.folder.name == "compare-mine"
    assert found.run("sgd", 0).recipe.hidden == [8]
    assert found.run("sgd", 0).recipe.budget == "12 steps"
    assert found.run("adamw", 0).recipe.lr == 1e-3
    assert st.compare(run.recipe, TWO, seeds=1, out="runs/b").run("sgd", 0).steps == 12


def test_equal_gradients_give_a_rule_of_two_passes_half_the_steps():
    asked = {"sam+sgd": {"lr": 0.1}, "sgd": {"lr": 0.1}}
    found = st.compare("iris", asked, seeds=1, equal="gradients", **QUICK)
    assert found.run("sam+sgd", 0).steps == 6
    assert {one.spent["gradients"] for one in found.results} == {12}


def test_what_a_measured_schedule_brought_along_is_compared_under_too():
    """The average, and the machine that lowers the rate."""
    run = st.fit("breast_cancer", budget="300 steps", hidden=[8], out="mine")
    rivals = {"adam": {"rule": "adam", "lr": 0.01}, "sgd": {"rule": "sgd", "lr": 0.1}}
    found = st.compare(run, rivals, seeds=1, out="beside")
    own = found.run("adam", 0).recipe
    taken = ("average", "stop", "patience", "min_delta")
    assert [getattr(own, name) for name in taken] == [run.chosen[name] for name in taken]
    assert own.schedule == run.chosen["schedule"] == "linear"


def test_equal_time_ends_every_run_by_the_clock():
    found = st.compare("iris", TWO, seeds=1, **QUICK | {"budget": "0.3s", "patience": 10**6})
    assert all(one.spent["seconds"] < 30 for one in found.results)  # without the clock they would not end
    assert all(one.at[-1] <= one.spent["seconds"] + 0.01 for one in found.results)


def test_a_strategy_that_diverges_is_a_miss_and_the_others_go_on():
    asked = {"sgd": {"lr": 0.1}, "wild": {"rule": "sgd", "lr": 1e30}}
    with pytest.warns(UserWarning, match="lr is"):
        found = st.compare("diabetes", asked, seeds=2, **QUICK)
    wild = next(one for one in found.verdict.standings if one.strategy == "wild")
    assert (wild.failed, wild.reached, wild.runs) == (2, 0, 2)
    assert found.verdict.standings[0].failed == 0
    assert "wild failed in 2 of 2 seeds" in " ".join(found.sentences)


def test_a_loss_that_is_never_finite_ends_in_words():
    """No rate came to a number: the rules' own ones stand in. Every run failed: nothing is claimed."""

    def hopeless(outputs, target):
        return outputs.sum() * float("nan")

    found = st.compare((X, y), ["adamw", "sgd"], seeds=1, loss=hopeless, **QUICK)
    assert found.best is None
    assert found.sentences[0] == "Every run failed: there is nothing to compare."
    assert all("came to a number at any rate; the rule's own stands in" in one.why for one in found.evidence)
    assert [one.decided for one in found.evidence] == [1e-3, 1e-3]


def test_a_rule_object_and_a_metric_to_rise_are_taken():
    asked = {"lion": rules.Lion(lr=1e-3), "adamw": {"lr": 1e-2}}
    found = st.compare("iris", asked, seeds=2, monitor="val/accuracy", **QUICK)
    assert found.verdict.metric == "val/accuracy"
    assert not found.verdict.falls
    assert found.run("lion", 0).recipe.lr == 1e-3


SMALL = ("--seeds", "1", "--set", "hidden=[8]", "--set", "patience=1000000")
SIDES = ("--strategy", "adamw: lr=1e-3", "--strategy", "sgd: lr=0.1")


def until(there, process):
    """Wait for a file, as long as the process lives."""
    while not there():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


STRUCK = """
import os, sys
from steepest.commands.cli import main
from steepest.train.checkpoint import Checkpoints

number, save = int(sys.argv.pop(1)), Checkpoints.save

def struck(self, snapshot):
    save(self, snapshot)
    if self._folder is not None and self._folder.path.name == "sgd-seed-0" and snapshot.step == 120:
        os.kill(os.getpid(), number)

Checkpoints.save = struck
main()
"""
"""Sends itself a signal when the second run has saved its 120th step: never too early, never too late."""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_comparison_that_was_cut_goes_on_to_the_same_bits(tmp_path, number):
    out, whole = tmp_path / "cut", tmp_path / "whole"
    long = ("--budget", "240 steps", *SMALL, "--set", "save_every=40 steps")
    process = steepest(number.value, "compare", "iris", *SIDES, *long, "--out", out, program=STRUCK)
    printed, complained = process.communicate()
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), complained
    if number != signal.SIGKILL:
        assert "steepest resume" in printed
        assert "1 of 2 runs are done" in (out / "report.html").read_text()
    before = stamps(out)["adamw-seed-0"]
    process = steepest("resume", out)
    _, complained = process.communicate()
    assert process.returncode == 0, complained
    assert stamps(out)["adamw-seed-0"] == before
    other = st.compare(
        "iris",
        TWO,
        seeds=1,
        out=whole,
        budget="240 steps",
        hidden=[8],
        patience=1000000,
        save_every="40 steps",
    )
    once = st.Comparison(out)
    for name in TWO:
        one, two = once.run(name, 0), other.run(name, 0)
        assert one.history.drop("seconds").equals(two.history.drop("seconds"))
        assert one.metrics == two.metrics


def test_two_processes_do_not_work_in_one_comparison(tmp_path):
    asked = ("compare", "iris", *SIDES, "--budget", "100000000 steps", *SMALL, "--out", tmp_path / "c")
    first = steepest(*asked)
    until((tmp_path / "c" / "adamw-seed-0" / "recipe.toml").exists, first)
    os.kill(first.pid, signal.SIGSTOP)  # it holds the folder, however long the second one takes to begin
    try:
        second = steepest(*asked)
        _, complained = second.communicate()
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()
    assert second.returncode == 2
    assert "Another process is training in" in complained


def test_the_command_line_compares_rules_and_reports_anew(tmp_path):
    done = steepest(
        "compare",
        "iris",
        "--rules",
        "adamw,sgd",
        "--seeds",
        "1",
        "--budget",
        "8 steps",
        "--out",
        tmp_path / "c",
    )
    printed, complained = done.communicate()
    assert done.returncode == 0, complained
    assert "lr of adamw" in printed
    assert "One pair separates nothing" in printed
    (tmp_path / "c" / "report.html").unlink()
    again = steepest("report", tmp_path / "c")
    again.communicate()
    assert again.returncode == 0
    assert (tmp_path / "c" / "report.html").exists()
    verdict = json.loads((tmp_path / "c" / "verdict.json").read_text())
    assert verdict["best"] is None
