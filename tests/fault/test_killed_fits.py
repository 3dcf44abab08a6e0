"""`fit` under rules that are hard to go on with: SIGKILL, resumed, and the identical bits.

Once at an instant drawn by a seed; in the full run three times at instants that are others in every run.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import steepest as st
from processes import Process
from steepest.torch import loop, optimizer

draw = np.random.default_rng(0)
X, y = draw.normal(size=(200, 8)).astype(np.float32), draw.integers(0, 3, 200)
STEPS = 150
Hook = Callable[[Any], None]
Work = Callable[[Path, Hook | None], None]
RULES = ["lookahead+cautious+lion", "sam+adamw", "schedule_free+adamw", "adahessian", "muon"]


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import here what children need, so that they are killed in training."""
    fit(tmp_path_factory.mktemp("warm") / "run")


def fit(out: Path, on_step: Hook | None = None, **settings: Any) -> None:
    """The run, begun or gone on with."""
    if (out / "recipe.toml").exists():
        st.resume(str(out), data=(X, y), on_step=on_step)
        return
    st.fit(
        (X, y),
        out=str(out),
        budget=f"{STEPS} steps",
        batch_size=16,
        hidden=[16],
        dropout=0.1,
        lr=None,
        save_every="10 steps",
        on_step=on_step,
        **settings,
    )


def in_few_bits(out: Path, on_step: Hook | None = None) -> None:
    """A loop of one's own whose moments lie in 8 bits, rounded by chance, beside an average."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 64), nn.Dropout(0.1), nn.ReLU(), nn.Linear(64, 3))
    opt = optimizer(net, "adamw", state_dtype="8bit", average=0.9, seed=3)
    data = torch.from_numpy(X), torch.from_numpy(y)
    asked: dict[str, Any] = {"budget": f"{STEPS} steps", "batch_size": 16, "save_every": "5 steps"}
    with loop(net, opt, data, out=out, on_step=on_step, **asked) as steps:
        for x, target in steps:
            steps.step(nn.functional.cross_entropy(net(x), target))


def child(work: Callable[[], object]) -> int:
    """The process id of a fork that does the work in silence."""
    started = os.fork()
    if started:
        return started
    code = 1
    try:
        torch.set_num_threads(1)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        work()
        code = 0
    finally:
        os._exit(code)


def saved(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").glob("step-*"))


def waits(at: int) -> Hook:
    """A hook that holds a run at a step until it is killed: no machine is so fast that it ends before."""

    def hook(steps: Any) -> None:
        while steps.done >= at:
            time.sleep(0.001)

    return hook


def killed(work: Work, out: Path, at: int, chance: random.Random) -> None:
    """Let the run write some checkpoints, then kill it at a random instant, at the latest at a step."""
    before = saved(out)
    running = child(lambda: work(out, waits(at)))
    while len(set(saved(out)) - set(before)) < 2:
        assert os.waitpid(running, os.WNOHANG) == (0, 0), "it ended by itself"
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.05))
    os.kill(running, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(running, 0)[1])


def remains(out: Path) -> dict[str, Any]:
    """What a run left, but for the seconds."""
    lines = (out / "metrics.csv").read_text().splitlines()
    rows = [[cell for i, cell in enumerate(line.split(",")) if i != 2] for line in lines]
    files = [path for path in out.rglob("*.safetensors") if not path.is_symlink()]
    assert files
    return {"rows": rows} | {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.fixture
def kills(full: bool) -> int:
    return 3 if full else 1


def survives(work: Work, place: Path, kills: int) -> None:
    chance = random.Random(place.name) if kills == 1 else random.Random()
    assert os.waitpid(child(lambda: work(place / "alone", None)), 0)[1] == 0
    for number in range(1, kills + 1):
        killed(work, place / "killed", number * STEPS // (kills + 1), chance)
    assert os.waitpid(child(lambda: work(place / "killed", None)), 0)[1] == 0
    one, other = remains(place / "alone"), remains(place / "killed")
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


@pytest.mark.parametrize("rule", RULES)
def test_a_fit_that_was_killed_ends_as_one_left_alone(tmp_path: Path, rule: str, kills: int) -> None:
    survives(lambda out, hook: fit(out, hook, rule=rule), tmp_path, kills)


def test_so_does_one_with_an_average(tmp_path: Path, kills: int) -> None:
    survives(lambda out, hook: fit(out, hook, average=0.9), tmp_path, kills)


def test_so_does_a_loop_with_moments_in_8_bits(tmp_path: Path, kills: int) -> None:
    survives(in_few_bits, tmp_path, kills)


def test_the_comparison_sees_another_run(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        assert os.waitpid(child(lambda name=name, seed=seed: fit(tmp_path / name, seed=seed)), 0)[1] == 0
    one, other = remains(tmp_path / "a"), remains(tmp_path / "b")
    assert one["rows"] != other["rows"]
    assert one["model.safetensors"] != other["model.safetensors"]


# --- a disk that is full, and two at once ---

FILL = """
import resource, sys, numpy as np, steepest as st
limit = int(sys.argv[2])
draw = np.random.default_rng(0)
X, y = draw.normal(size=(200, 8)).astype(np.float32), draw.integers(0, 3, 200)
class Fills:
    def config(self, settings): pass
    def close(self, status): pass
    def log(self, metrics, step):
        if step >= 60 and limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
settings = dict(rule="lookahead+cautious+lion", lr=None, budget="200 steps", batch_size=16, hidden=[64],
                evaluate_every="20 steps", save_every="20 steps")
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    st.fit((X, y), out=sys.argv[1], log=[Fills()], **settings)
except st.UserError as error:
    print("SENTENCE", error)
"""


def test_a_disk_that_takes_no_more_ends_in_a_sentence_and_the_run_can_go_on(tmp_path: Path) -> None:
    full, alone = tmp_path / "full", tmp_path / "alone"
    for place, limit in ((full, "4096"), (alone, "0")):
        process = Process(FILL, place, limit)
        printed, complained = process.communicate()
        assert process.returncode == 0, complained[-3000:]
        if limit != "0":
            sentence = next(line for line in printed.splitlines() if line.startswith("SENTENCE"))
            assert "cannot be written" in sentence
            assert "File too large" in sentence
    assert saved(full)
    assert saved(full)[-1] in ("step-000040", "step-000060")
    assert not list((full / "checkpoints").glob(".*"))
    st.resume(str(full), data=(X, y))
    assert remains(full) == remains(alone)


def test_a_second_fit_and_a_resume_beside_a_running_one_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    running = child(lambda: fit(out, waits(20), rule="sam+adamw"))
    try:
        while not saved(out):
            assert os.waitpid(running, os.WNOHANG) == (0, 0), "it ended by itself"
            time.sleep(0.001)
        with pytest.raises(st.UserError, match="Another process is training in"):
            st.resume(str(out), data=(X, y))
        with pytest.raises(st.UserError, match="holds a run already"):
            st.fit((X, y), out=str(out), budget="1 step")
    finally:
        os.kill(running, signal.SIGKILL)
        os.waitpid(running, 0)
    st.resume(str(out), data=(X, y))
    assert st.Run(str(out)).metrics["test/loss"] > 0
