"""Results as lines that survive a kill, and the tables that are made of them."""

import json
import math
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.suite import finals, frozen, ledger, running, scores
from benchmarks.suite.running import Wanted
from steepest.optim.errors import UserError

pytestmark = pytest.mark.full

NAMES = ("mnist_mlp", "letter_mlp")


def add_some(folder: Path, who: int) -> None:
    for i in range(20):
        ledger.append("runs", {"trial": who, "seed": i, "filling": "x" * 5000}, folder)


def test_two_processes_append_whole_lines(tmp_path: Path) -> None:
    context = get_context("spawn")
    both = [context.Process(target=add_some, args=(tmp_path, who)) for who in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
        assert one.exitcode == 0
    found = [(record["trial"], record["seed"]) for record in ledger.read("runs", tmp_path)]
    assert sorted(found) == [(who, i) for who in range(2) for i in range(20)]


def test_a_torn_line_is_passed_over_and_spoils_no_other(tmp_path: Path) -> None:
    ledger.append("runs", {"seed": 0}, tmp_path)
    with open(tmp_path / "runs.jsonl", "a", encoding="utf-8") as file:
        file.write('{"seed": 1, "cur')
    ledger.append("runs", {"seed": 2}, tmp_path)
    assert [record["seed"] for record in ledger.read("runs", tmp_path)] == [0, 2]


def test_a_run_that_was_made_twice_counts_once(tmp_path: Path) -> None:
    for final in (1.0, 2.0):
        ledger.append("runs", {"seed": 0, "final": final}, tmp_path)
    assert [record["final"] for record in ledger.read("runs", tmp_path)] == [1.0]


def test_a_record_says_where_it_was_made(tmp_path: Path) -> None:
    ledger.append("runs", {"seed": 0}, tmp_path)
    record = next(ledger.read("runs", tmp_path))
    assert record["processor"]
    assert record["versions"]["torch"]


def made_run(method: str, name: str, seed: int, values: list[float], **more: Any) -> dict[str, Any]:
    """A run of a point every ten evaluations, a tenth of a second each."""
    curve = [[10 * i, float(i), value] for i, value in enumerate(values, start=1)]
    record = Wanted("methods", name, method, seed, 1.5).record()
    spent = {"budget": 10 * len(values), "evaluations": 10 * len(values), "seconds": float(len(values))}
    ends = {"final": values[-1], "test": values[-1] ** 2, "diverged": False}
    return record | spent | {"curve": curve} | ends | more


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two methods on two workloads: quick reaches 1.0 at 20, slow at 40 but for one seed, which diverges."""
    monkeypatch.setattr(ledger, "read", lambda name, folder=tmp_path: original(name, folder))
    monkeypatch.setattr(frozen, "PATH", tmp_path / "targets.json")
    targets = {name: {"hard": 1.0, "easy": 2.0, "default_after_epoch": 3.0} for name in NAMES}
    held = {"version": frozen.VERSION, "suite": 1, "targets": targets}
    (tmp_path / "targets.json").write_text(json.dumps(held))
    for name in NAMES:
        for seed in range(3):
            ledger.append("methods", made_run("quick", name, seed, [2.0, 1.0, 0.5, 0.5, 0.5]), tmp_path)
        for seed in range(2):
            ledger.append("methods", made_run("slow", name, seed, [4.0, 3.0, 2.0, 1.0, 0.9]), tmp_path)
        lost = {"diverged": True, "final": None, "test": None, "budget": 50, "evaluations": 12}
        ledger.append("methods", made_run("slow", name, 2, [0.5], **lost), tmp_path)
    return tmp_path


original = ledger.read


def test_times_misses_and_expected_running_time(results: Path) -> None:
    found = scores.results(NAMES, 1.5, "evaluations")
    assert found.times("quick", "mnist_mlp", "hard") == {0: 20, 1: 20, 2: 20}
    assert found.times("slow", "mnist_mlp", "hard") == {0: 40, 1: 40, 2: math.inf}
    assert found.counted("slow", "mnist_mlp", "hard") == {0: 40, 1: 40, 2: 51}
    assert found.finals("slow", "mnist_mlp")[2] == math.inf
    assert scores.expected(found, "slow", "mnist_mlp", "hard") == (40 + 40 + 12) / 2


def test_the_other_clock_counts_seconds(results: Path) -> None:
    found = scores.results(NAMES, 1.5, "seconds")
    assert found.times("quick", "mnist_mlp", "hard") == {0: 2.0, 1: 2.0, 2: 2.0}


def test_a_ratio_is_the_geometric_mean_of_medians() -> None:
    strata = [np.array([(10.0, 20.0), (10.0, 20.0), (500.0, 20.0)]), np.array([(30.0, 15.0)])]
    assert scores.ratio(strata) == pytest.approx(1.0)
    assert scores.ratio(strata[:1]) == pytest.approx(0.5)


def test_gaps_are_in_units_of_the_default_and_capped(results: Path) -> None:
    found = scores.results(NAMES, 1.5, "evaluations")
    assert scores.gap(found, "quick", "mnist_mlp").tolist() == [-0.25] * 3
    assert scores.gap(found, "slow", "mnist_mlp") == pytest.approx([-0.05, -0.05, scores.CAP])


def test_the_profile_is_its_integral(results: Path) -> None:
    found = scores.results(NAMES, 1.5, "evaluations")
    factors = scores.factors(found)
    assert factors["quick"].tolist() == [1, 1, 1, 1]
    assert factors["slow"].tolist() == [2, 3, 2, 3]  # hard 40/20 and easy 30/10
    tau = np.linspace(1, 4, 30001)
    share = (factors["slow"][:, None] <= tau).mean(0)
    assert scores.profile_score(found, "slow") == pytest.approx(np.trapezoid(share, tau) / 3, abs=1e-3)
    assert scores.profile_score(found, "quick") == 1.0


def test_the_report_holds_all_tables_and_draws(results: Path) -> None:
    text = scores.report(NAMES, "slow", 1.5, "evaluations", results / "profile.png")
    assert "20 20 0/3" in text
    assert "40 46 1/3" in text
    assert "quick against slow" in text
    assert (results / "profile.png").stat().st_size > 1000


def test_what_lacks_is_named(results: Path) -> None:
    with pytest.raises(UserError, match="quick on trec_transformer"):
        scores.results((*NAMES, "trec_transformer"), 1.5, "evaluations")
    with pytest.raises(UserError, match="no run of length 2"):
        scores.results(NAMES, 2.0, "evaluations")
    with pytest.raises(UserError, match="There are runs of quick, slow"):
        scores.report(NAMES, "other", 1.5, "evaluations")


def test_targets_of_another_version_are_refused(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "VERSION", 99)
    with pytest.raises(UserError, match="version 99"):
        frozen.read()


def test_targets_are_medians_and_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "read", lambda name, folder=tmp_path: original(name, folder))
    monkeypatch.setattr(frozen, "PATH", tmp_path / "targets.json")
    monkeypatch.setattr(frozen, "epoch", lambda name: 0.2)
    with pytest.raises(UserError, match="pool"):
        frozen.needed("letter_mlp")
    trial = Wanted("pool", "letter_mlp", "nadamw", 1000, trial=3).record()
    ledger.append("pool", trial | {"diverged": False, "final": 0.5, "config": {"lr": 0.1}}, tmp_path)
    for i, one in enumerate(frozen.needed("letter_mlp")):
        final = 3.0 if one.trial is None else 1.0 + 0.1 * i
        done = {"final": final, "diverged": False, "config": one.config}
        ledger.append("targets", one.record() | done, tmp_path)
    frozen.write(["letter_mlp"])
    target = frozen.read()["targets"]["letter_mlp"]
    assert target["hard"] == pytest.approx(1.45)
    assert target["easy"] == pytest.approx(1.45 + 0.1 * (3.0 - 1.45))
    assert target["best"] == {"lr": 0.1}
    monkeypatch.setattr(frozen, "median", lambda values: 0.0)
    frozen.write(["letter_mlp"])
    assert frozen.read()["targets"]["letter_mlp"] == target


def test_a_trial_that_was_lucky_in_the_pool_gives_way_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "read", lambda name, folder=tmp_path: original(name, folder))
    monkeypatch.setattr(ledger, "known", lambda name: {ledger.identity(one) for one in ledger.read(name)})
    monkeypatch.setattr(frozen, "epoch", lambda name: 0.2)
    for trial, final in enumerate((0.6, 0.5, 0.7)):
        one = Wanted("pool", "letter_mlp", "nadamw", 1000, trial=trial).record()
        ledger.append("pool", one | {"diverged": False, "final": final, "config": {}}, tmp_path)
    for seed in range(100, 105):
        assert {one.trial for one in frozen.unknown(["letter_mlp"])} == {1, None}
        one = Wanted("targets", "letter_mlp", "nadamw", seed, trial=1).record()
        ledger.append("targets", one | {"diverged": True, "final": None}, tmp_path)
    assert {one.trial for one in frozen.unknown(["letter_mlp"])} == {0, None}


def test_a_known_run_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(ledger, "known", lambda name, folder=tmp_path: {ledger.identity(r) for r in held})
    monkeypatch.setattr(ledger, "append", lambda name, record: held.append(record))
    done: list[Wanted] = []

    def trained(wanted: Wanted) -> dict[str, Any]:
        done.append(wanted)
        return wanted.record() | {"diverged": False, "final": 1.0, "seconds": 2.0}

    held: list[dict[str, Any]] = []
    monkeypatch.setattr(running, "trained", trained)
    wanted = [Wanted("methods", "letter_mlp", "muon", seed) for seed in (0, 1)]
    running.run(wanted[:1])
    running.run(wanted)
    assert [one.seed for one in done] == [0, 1]
    assert "1 of 2 runs are known" in capsys.readouterr().out


def test_ends_are_held_beside_one_another_without_targets(results: Path) -> None:
    said = finals.report(NAMES, "slow", 1.5)
    row = next(line.split() for line in said.splitlines() if line.startswith("quick "))
    each = math.log(0.5 / 0.9)
    assert float(row[1]) == pytest.approx(math.exp((2 * each - math.log(scores.CAP)) / 3), abs=1e-3)
    tested = row[next(place for place, word in enumerate(row) if word in NAMES) + 1]
    assert float(tested) == pytest.approx(math.exp((4 * each - math.log(scores.CAP)) / 3), abs=1e-3)
    assert row[-4:-1] == ["6/6", "2/2", "6/6"]
    reached = 20 + 10 * (1.0 - 0.9) / (1.0 - 0.5)  # on the line from 1 at 20 to 0.5 at 30
    assert float(row[-1]) == pytest.approx((reached * reached * 10) ** (1 / 3) / 50, abs=2e-3)


def test_a_method_that_never_comes_to_where_another_ends_is_said_to(results: Path) -> None:
    row = next(line for line in finals.report(NAMES, "quick", 1.5).splitlines() if line.startswith("slow "))
    assert " 0/6 " in row
    assert row.split()[-2:] == ["0/6", "1.020"]


def test_ends_beside_a_method_that_never_ran(results: Path) -> None:
    with pytest.raises(UserError, match="no run of 'muon'"):
        finals.report(NAMES, "muon", 1.5)
    with pytest.raises(UserError, match="length 9"):
        finals.report(NAMES, "quick", 9)


def test_what_a_search_took_is_read_off_the_length_of_its_run(results: Path) -> None:
    for seed, (first, *again) in enumerate([[40], [45], [42, 30]]):
        told = [{"choice": "horizon", "decided": steps} for steps in (first, *again)]
        run = made_run("auto", NAMES[0], seed, [1.0, 0.9, 0.8, 0.7, 0.6], config={"evidence": told})
        ledger.append("methods", run, results)
    said = finals.report(NAMES, "quick", 1.5)
    share = f"20.0% of its budget in the median of 3 runs, for 40.0% at most ({NAMES[0]}, seed 2)"
    assert f"auto searched for {share}" in said
