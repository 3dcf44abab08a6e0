"""`"auto"` in `fit`: what is chosen, what it costs, and what is said where nothing can be measured."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_search import LINE, N, X, fit, told, z
from torch import nn
from torch.utils.data import DataLoader, Dataset

import steepest as st
from steepest.evidence import Evidence
from steepest.train import checkpoint
from steepest.tuning import constants, timing
from steepest.tuning.candidates import Candidate
from steepest.tuning.plan import plan

y = (X[:, 0] + X[:, 1] > 0.5 * X[:, 2]).astype(np.int64)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


BESIDE = ("trial", "step", "name", "gradients", "reused")


def chosen(run: st.Run) -> dict[str, Any]:
    found = run.resolved
    return {**found.measured, **(found.schedule or {}), **{key: getattr(found, key) for key in BESIDE}}


def losses(run: st.Run) -> float:
    return run.metrics["val/loss"]


def flat(net: nn.Module) -> torch.Tensor:
    """A copy of all that a network holds."""
    return torch.cat([held.detach().flatten().double() for held in net.state_dict().values()])


# --- the rate ---


def test_a_rate_that_is_wrong_by_far_is_found() -> None:
    """The default of SGD, 1e-3, is some 1000 times too low here."""
    usual, found = fit(**LINE), fit(lr="auto", **LINE)
    assert told(found, "lr").decided > 0.05
    assert losses(found) < losses(usual) / 10


@pytest.mark.full
def test_the_rate_is_near_the_best_of_a_grid() -> None:
    settings = {"model": "mlp", "hidden": [16], "schedule": "linear"}
    grid = [losses(fit((X, y), lr=float(lr), **settings)) for lr in np.geomspace(1e-4, 1, 9)]
    assert losses(fit((X, y), lr="auto", **settings)) < 1.25 * min(grid)


def test_the_recipe_keeps_the_question_and_evidence_has_the_answer() -> None:
    run = fit(lr="auto", **LINE)
    assert run.recipe.lr == "auto"
    assert chosen(run)["lr"] == told(run, "lr").decided
    assert [one.choice for one in run.evidence].count("lr") == 1
    assert (told(run, "edge of sgd").picture or {})["lines"][0]["x"]


def test_a_rule_with_a_schedule_of_its_own_leaves_no_rate_to_measure() -> None:
    from steepest.rules import SGD
    from steepest.schedule import Cosine

    with pytest.raises(st.UserError, match="gives the rate itself"):
        fit(rule=SGD(lr=Cosine(0.1, 600)), lr="auto", model="linear")


# --- all together ---


ALL = dict.fromkeys(("rule", "lr", "schedule", "weight_decay", "stop", "clip_norm", "num_threads"), "auto")


def test_all_settings_at_once() -> None:
    run = fit((X, y), "1200 steps", model="mlp", hidden=[16], **ALL)
    held = chosen(run)
    assert run.status == "finished"
    assert held["rule"] in ("adamw", "muonmatched")
    assert held["clip_norm"] > 0
    assert held["patience"] >= constants.PATIENCE
    assert 0 < held["weight_decay"] <= constants.DECAY_CAP
    assert held["begin"] == held["step"] > held["warmup"] > 0
    assert run.history["lr"][-1] < 0.05 * held["lr"]
    assert {"rule", "lr", "weight_decay", "clip_norm", "stop", "schedule"} <= {e.choice for e in run.evidence}


def test_a_free_schedule_is_named_among_what_was_chosen() -> None:
    assert fit((X, y), "250 steps", hidden=[8], schedule="auto").chosen["schedule"] == "linear"


def test_a_free_schedule_ships_an_average_that_the_race_has_begun() -> None:
    settings: dict[str, Any] = {"hidden": [16], "lr": "auto", "schedule": "auto", "patience": 10_000}
    run = fit((X, y), "1200 steps", **settings)
    last = checkpoint.read(max((run.folder / "checkpoints").glob("step-*")))
    assert chosen(run)["average"] == told(run, "average").decided == constants.WATCHED
    assert last.parts["average"]["updates"] == last.step, "it was not begun anew where the search ended"
    assert "average" not in chosen(fit((X, y), "1200 steps", average=0.9, **settings))


SELDOM = ("batch_size", "weight_decay", "stop", "num_threads")


@pytest.mark.parametrize(
    "setting",
    ["rule", "schedule", "clip_norm", *(pytest.param(one, marks=pytest.mark.full) for one in SELDOM)],
)
def test_each_alone(setting: str) -> None:
    run = fit((X, y), "600 steps", hidden=[8], **{setting: "auto"})
    assert run.status == "finished"
    assert getattr(run.recipe, setting) == "auto"
    assert any(one.choice == setting for one in run.evidence)


def test_threads_are_measured_in_seconds_alone_and_evidence_says_which_way() -> None:
    assert "nothing may depend on the clock" in threads_of("100 steps")[-1].why
    timed = [one for one in threads_of("4s") if one.candidates]
    assert len(timed) == 1, "though it may say what the usual rule has said already"
    assert timed[0].seconds < 0.5 * 4


def threads_of(budget: str) -> list[st.Evidence]:
    run = fit((X, y), budget, hidden=[8], num_threads="auto", lr=0.1)
    return [one for one in run.evidence if one.choice == "num_threads"]


@pytest.mark.full
def test_seconds_of_a_search_are_told_once() -> None:
    run = fit((X, y), "4s", hidden=[16], lr="auto", schedule="auto")
    files = (run.folder / "search").glob("*.json")
    spent = sum(json.loads(path.read_bytes()).get("seconds", 0.0) for path in files)
    assert sum(one.seconds for one in run.evidence) <= 1.1 * spent


@pytest.mark.full
def test_a_budget_in_seconds_is_kept_with_its_search() -> None:
    run = fit((X, y), "6s", hidden=[16], lr="auto", schedule="auto")
    result = json.loads((run.folder / "result.json").read_text())
    assert result["seconds"] < 12  # the deadline cuts; what has begun ends, late on a machine that others use
    assert "ms an update, evaluations included" in told(run, "horizon").why
    assert run.history["lr"][-1] < 0.5 * chosen(run)["lr"]


def test_seconds_are_shared_out_evenly_over_rules_of_unequal_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def slowness(job: Any, candidates: Any) -> Evidence:
        assert [candidate.rule for candidate in candidates] == ["adamw", "muonmatched"]
        return Evidence("pace", {"muonmatched": 3.0}, "said by the test")

    monkeypatch.setattr(timing, "slowness", slowness)
    monkeypatch.setattr(timing, "updates_left", lambda *asked: Evidence("horizon", 1000, "said by the test"))
    run = fit((X, y), "60s", hidden=[16], rule="auto", lr="auto", schedule="auto")
    rows = told(run, "rung 1").candidates
    assert {row["updates"] for row in rows if row["arm"].startswith("adamw")} == {10}
    assert {row["updates"] for row in rows if row["arm"].startswith("muonmatched")} == {3}


def test_of_updates_timed_in_turn_the_quickest_count(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = iter([3.0, 2.0, 9.0, 4.0]), iter([8.0, 70.0, 6.0, 7.0])
    monkeypatch.setattr(timing, "Trial", lambda job, total: SimpleNamespace(job=job, advance=lambda to: None))
    monkeypatch.setattr(timing, "_timed", lambda trial: next(ours if trial.job["rule"] == "sgd" else theirs))
    job: Any = SimpleNamespace(having=dict)
    assert timing.slowness(job, [Candidate("sgd", 1e-3), Candidate("muon", 1e-3)]).decided == {"muon": 3.0}


def test_a_run_that_stops_by_itself_has_lowered_its_rate_first() -> None:
    run = fit((X, y), "3000 steps", hidden=[64, 64], schedule="constant", lr=0.01, stop="auto")
    assert run.steps < 2990
    assert run.history["event"].to_list().count("decay") >= 1
    assert run.history["lr"][-1] < 0.01


# --- what it costs ---


@pytest.mark.parametrize("budget", [600, 1500, 4000])
def test_search_and_its_scores_keep_to_their_share(budget: int) -> None:
    run = fit((X, y), f"{budget} steps", hidden=[8], evaluate_every="500 steps", **ALL)
    held = chosen(run)
    assert 0 < held["reused"] < held["gradients"] <= constants.LARGEST_SHARE * budget
    assert run.steps == budget - math.ceil(held["gradients"] - held["reused"])


class Counted(nn.Sequential):
    """A network that counts what it and its copies are asked: examples with a gradient, and without."""

    with_gradient = without = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            Counted.with_gradient += len(x)
        else:
            Counted.without += len(x)
        return super().forward(x)

    @classmethod
    def gradients(cls, batch: int) -> float:
        """Gradient evaluations of batches of this size."""
        return (cls.with_gradient + constants.FORWARD * cls.without) / batch


@pytest.mark.parametrize("budget", [700, 2000])
def test_a_search_is_within_a_quarter_as_the_network_counts_it(budget: int) -> None:
    """All passes, forward and back: range tests, arms, scores, batches, and looks at the start."""
    spent: list[tuple[int, int]] = []
    Counted.with_gradient = Counted.without = 0

    def first(steps: Any) -> None:
        if not spent:
            spent.append((Counted.with_gradient, Counted.without))

    net = Counted(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    opened = {**ALL, "batch_size": "auto"}
    run = st.fit((X, y), budget=f"{budget} steps", model=net, on_step=first, **opened)
    (Counted.with_gradient, Counted.without), held = spent[0], chosen(run)
    size = held["batch_size"]
    searched = Counted.gradients(size) - 1  # the run's own first update was counted
    evaluations = run.history["val/loss"].count() * run.recipe.val * N * constants.FORWARD / size
    assert searched <= constants.LARGEST_SHARE * budget
    assert searched - held["reused"] + evaluations <= constants.LARGEST_SHARE * budget
    assert searched == pytest.approx(held["gradients"], abs=0.015 * budget), "the ledger tells what was spent"


# --- bad input ---


@pytest.mark.parametrize(
    ("given", "lr", "schedule"), [({}, pytest.approx(0.01), "linear"), ({"rule": "adamw"}, 1e-3, "plateau")]
)
def test_a_budget_too_small_says_so_and_takes_the_default(
    given: dict[str, Any], lr: Any, schedule: str
) -> None:
    """A default rate of AdamW goes further where it does not fall."""
    run = fit((X, y), f"{constants.SHORT - 1} steps", hidden=[8], **ALL | given)
    assert run.status == "finished"
    assert told(run, "lr").decided == lr
    assert "too small to measure it" in told(run, "lr").why
    assert told(run, "schedule").decided == schedule
    assert run.steps == constants.SHORT - 1
    if not given:
        assert told(run, "rule").decided == run.chosen["rule"] == "muonmatched"
        assert run.chosen["average"] == constants.WATCHED


def test_no_part_of_an_instant_is_spent_on_timing() -> None:
    """Its only update may be one that a kernel was loaded for, but it is the run's."""
    run = fit((X, y), f"{constants.INSTANT / 2:g}s", hidden=[8], **ALL)
    assert "too short to measure anything" in told(run, "lr").why
    assert told(run, "lr").decided == 1e-3
    assert told(run, "schedule").decided == "plateau"
    assert not any(one.choice == "horizon" for one in run.evidence)
    assert run.steps >= 1


def test_seconds_that_hold_no_search_are_used_to_their_end() -> None:
    """Under a level rate the clock ends a run, and no estimate of how many updates fit."""
    run = fit((X, y), "1.2s", hidden=[8], batch_size=1200, lr="auto", schedule="auto")
    if told(run, "schedule").decided == "plateau":
        assert not any(one.choice == "horizon" for one in run.evidence)


def test_a_rate_that_no_race_has_chosen_does_not_fall() -> None:
    """More than 200 updates, but evaluations that take more than a search may."""
    dear: dict[str, Any] = {"batch_size": 2, "evaluate_every": "1 step"}
    run = fit((X, y), "300 steps", hidden=[8], **ALL | dear | {"rule": "adamw"})
    assert "too few for a race" in told(run, "lr").why
    assert told(run, "schedule").decided == "plateau"


def test_few_rows_seen_again_within_a_race_do_not_choose_a_rate() -> None:
    run = fit((X[:120], y[:120]), "800 steps", hidden=[8], **ALL)
    assert "come again within" in told(run, "lr").why
    assert told(run, "lr").decided == pytest.approx(0.01)
    whole = fit((X, y), "300 steps", hidden=[8], val=0, **ALL)
    assert "stand in" in told(whole, "held_out").why, "a race that ends before the first epoch may go by them"


def test_an_epoch_whose_length_a_search_finds_out() -> None:
    """The first epoch ends between the rungs, so that snapshots of arms do and do not know how long it is."""
    rows = [(torch.from_numpy(X[i : i + 16]), torch.from_numpy(z[i : i + 16])) for i in range(0, 304, 16)]
    net = nn.Sequential(nn.Linear(6, 1), nn.Flatten(0))
    run = st.fit(Endless(rows), model=net, loss="mse", rule="adamw", budget="400 steps", val=(X, z), test=0)
    assert run.steps > 200
    assert " of 0 evaluations" not in told(run, "stop").why
    assert st.fit(Endless(rows), model=net, loss="mse", budget="400 steps", val=(X, z), test=0).steps > 200


class Endless:
    """Batches of which nobody knows how many there are."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __iter__(self) -> Any:
        return iter(self.rows)


def test_a_bound_that_nobody_will_wait_for_is_searched_as_a_long_run() -> None:
    long, endless = (plan(updates, rules=2) for updates in (constants.LONGEST, 100 * constants.LONGEST))
    assert endless.rungs == long.rungs == (3000, 9000)
    assert endless.range_test == long.range_test
    assert endless.scores == pytest.approx(long.scores)


@pytest.mark.parametrize(("rule", "candidates"), [("auto", {3}), ("adamw", {3, 4, 5})])
def test_a_small_budget_races_rates_of_one_rule_without_a_range_test(rule: str, candidates: set[int]) -> None:
    """Those of the rule that leads, or of the one that is said."""
    run = fit((X, y), "120 steps", hidden=[8], **ALL | {"rule": rule})
    assert not [one for one in run.evidence if one.choice.startswith("edge")]
    assert [one.choice for one in run.evidence if one.choice.startswith("rung")] == ["rung 1"]
    rows = told(run, "rung 1").candidates
    assert {row["arm"].split()[0] for row in rows} == {"muonmatched" if rule == "auto" else "adamw"}
    assert len(rows) in candidates
    assert told(run, "lr").decided > 1e-3, "in so few updates the default rate does not come far"
    if rule == "auto":
        assert "a race of rates, not of rules" in told(run, "rule").why
    assert chosen(run)["gradients"] <= constants.LARGEST_SHARE * 120


def test_in_a_small_budget_nothing_races_for_a_rule_at_a_given_rate() -> None:
    run = fit((X, y), "120 steps", hidden=[8], rule="auto", lr=0.01)
    assert told(run, "rule").decided == "adamw"
    assert "too few for a race" in told(run, "rule").why
    assert run.status == "finished"


@pytest.mark.parametrize("opened", [("clip_norm", "stop"), ("lr", "schedule")])
def test_evidence_adds_up_to_what_was_spent(opened: tuple[str, ...]) -> None:
    run = fit((X, y), "600 steps", hidden=[8], **dict.fromkeys(opened, "auto"))
    assert sum(one.gradients for one in run.evidence) == pytest.approx(chosen(run)["gradients"], abs=3)
    assert sum(one.reused for one in run.evidence) == chosen(run)["reused"] > 0


def test_a_run_at_a_measured_rate_lowers_it_where_it_goes_wrong() -> None:
    settings: dict[str, Any] = {"hidden": [16], "lr": "auto"}
    both = fit((X, y), "1200 steps", schedule="auto", **settings)
    assert chosen(both)["stop"] == "lower"
    assert told(both, "stop").decided["patience"] >= 3
    assert "stop" not in chosen(fit((X, y), "600 steps", schedule="linear", **settings)), (
        "a person's own curve"
    )


def test_where_evaluations_leave_no_room_for_a_race_the_edge_alone_bounds_the_default() -> None:
    budget = f"{constants.SMALL} steps"
    run = fit(budget=budget, lr="auto", evaluate_every="1 steps", val=0.3, **LINE)
    assert "too few for a race" in told(run, "lr").why
    assert told(run, "lr").decided <= 1e-3


def test_a_loss_that_is_not_finite_names_its_cause() -> None:
    def hopeless(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return outputs.sum() * float("nan")

    with pytest.raises(st.UserError, match="outputs are finite and the loss 'hopeless' gives nan"):
        fit((X, y), lr="auto", loss=hopeless, hidden=[8])
    assert not list(Path("runs").glob("*/search"))


def test_a_network_that_does_not_train_at_any_rate_gets_the_default_and_a_doubt() -> None:
    class Deaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 0 * self.w + torch.stack([x[:, 0], x[:, 1]], 1).detach()

    run = fit((X, y), lr="auto", stop="auto", model=Deaf())
    assert "no arm got below the loss it began with" in told(run, "lr").why
    assert "no arm got below the loss it began with" in told(run, "stop").why
    assert "no gradient reaches w" in told(run, "sanity").why
    assert told(run, "lr").decided == 1e-3


@pytest.mark.parametrize("rows", [0, 2])
def test_without_enough_held_out_rows_batches_stand_in(rows: int) -> None:
    val = 0 if not rows else (X[:rows], z[:rows])
    run = fit(lr="auto", val=val, **LINE)
    assert "too few to compare on" in told(run, "held_out").why
    assert "has a loss on training batches of" in told(run, "lr").why
    assert told(run, "lr").decided > 0.05


def test_weights_that_are_all_frozen_are_said_before_a_search() -> None:
    with pytest.raises(st.UserError, match="no weight to train: all are frozen"):
        fit((X, y), lr="auto", hidden=[8], freeze=["*"])


def test_data_that_come_in_another_order_each_time_are_not_compared() -> None:
    class Restless(Dataset):
        """Whatever is asked for, an example by chance that no seed reaches."""

        def __len__(self) -> int:
            return len(X)

        def __getitem__(self, i: int) -> Any:
            other = int(np.random.default_rng().integers(len(X)))
            return X[other], y[other]

    run = fit(DataLoader(Restless(), 16), lr="auto", hidden=[8], val=(X[:100], y[:100]), test=0)
    assert "another order at every reading" in told(run, "lr").why
    assert told(run, "lr").decided == 1e-3


def test_a_loader_that_shuffles_is_seeded_and_can_be_compared() -> None:
    class Pairs(Dataset):
        def __len__(self) -> int:
            return len(X)

        def __getitem__(self, i: int) -> Any:
            return X[i], y[i]

    loader = DataLoader(Pairs(), 16, shuffle=True)
    run = fit(loader, lr="auto", hidden=[8], val=(X[:100], y[:100]), test=0)
    assert "held-out loss" in told(run, "lr").why


def test_a_model_of_ones_own_is_left_alone_until_its_turn() -> None:
    """Search works on copies: all begin with the person's weights, which nothing moves meanwhile."""
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    begun, strange, copies = flat(net), [], set()

    def look(module: nn.Module, inputs: Any) -> None:
        if module is not net and module.training:
            if not torch.equal(flat(net), begun):
                strange.append("moved")
            if id(module) not in copies and not torch.equal(flat(module), begun):
                strange.append("began elsewhere")
            copies.add(id(module))
            kept.append(module)

    kept: list[nn.Module] = []  # alive, so that no id comes twice
    net.register_forward_pre_hook(look)
    state = torch.get_rng_state()
    one = fit((X, y), lr="auto", model=net, out="one")
    assert strange == []
    assert copies
    assert not torch.equal(flat(net), begun)
    assert torch.equal(torch.get_rng_state(), state)
    assert one.status == "finished"


def test_numbers_of_a_rule_need_the_rule() -> None:
    with pytest.raises(st.UserError, match="leaves open which"):
        fit(rule="auto", hyper={"beta1": 0.5})


def test_a_budget_that_ends_before_the_first_evaluation_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    run = fit((X, y), "0.000001s", hidden=[8])
    assert run.steps == 0
    assert "nothing was evaluated" in capsys.readouterr().out
