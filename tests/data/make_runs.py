"""Run folders, as a version of steepest leaves them, kept to see that later versions go on with them.

    PYTHONPATH=src python tests/data/make_runs.py [FOLDER [NAME …]]

Every entry of RUNS is trained twice: to its end, which is the reference, and, where it says so, until it
kills itself with SIGKILL. What then lies in its folder goes to FOLDER/NAME.tar.xz, without reports; results
of the reference go to FOLDER/NAME.json, its weights to FOLDER/NAME.safetensors. made.json names the commit,
the versions and the processor. Only public names are used, so that this runs against any checkout.

tests/data/runs_format_1 was made by commit f0c69f3 under Python 3.11.7, torch 2.13.0 and NumPy 2.4.6.
"""

from __future__ import annotations

import csv
import json
import os
import pickle
import platform
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

import steepest as st
from steepest import rules, schedule, wrap
from steepest import torch as face

PLACE = Path(__file__).parent / "runs_format_1"
TABLE, LONGER, FRESH = "table.csv", "longer.csv", "fresh.csv"

# --- data, by Python's own generator, whose numbers no version of a library changes ---


def table(path: Path, rows: int = 120, seed: int = 1) -> None:
    """A table with numbers, categories, flags, dates, times, a name for each row and gaps in most of them.

    Targets: grade (three classes), left (two), spent (a number)."""
    draw = random.Random(seed)
    with open(path, "w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        names = "name,age,income,city,member,joined,seen,level,empty,weight,grade,left,spent"
        lines.writerow(names.split(","))
        lines.writerows(_row(draw, number) for number in range(rows))


def _row(draw: random.Random, number: int) -> list[Any]:
    age, income = draw.randrange(18, 80), round(1000 + 4000 * draw.random(), 2)
    city, member = draw.choice(["Bern", "Köln", "Łódź", "São Paulo"]), draw.random() < 0.4
    joined = f"20{draw.randrange(10, 25)}-{draw.randrange(1, 13):02d}-{draw.randrange(1, 29):02d}"
    seen = f"2024-05-{draw.randrange(1, 29):02d}T{draw.randrange(24):02d}:{draw.randrange(60):02d}:30"
    score = age / 40 + income / 3000 + (city == "Bern") - member + 0.3 * draw.random()
    gap = [draw.random() < share for share in (0.1, 0.1, 0.1, 0.05, 0.05)]
    cells = [age, income, city, str(member).lower(), joined]
    shown = ["" if missing else cell for cell, missing in zip(cells, gap, strict=True)]
    targets = ["low" if score < 2 else "mid" if score < 3 else "high", "yes" if score > 2.6 else "no"]
    level = draw.choice([1, 2, 3])
    return [f"row {number}", *shown, seen, level, "", 1 + number % 3, *targets, round(100 * score, 1)]


def fresh(path: Path) -> None:
    """Rows that come later: with a city that nobody has seen, and one with next to nothing in it."""
    table(path, rows=12, seed=2)
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[1] = lines[1].replace(lines[1].split(",")[3], "Oz", 1) if lines[1].split(",")[3] else lines[1]
    cells = lines[2].split(",")
    lines[2] = ",".join([cells[0], "", "", "", "", "", cells[6], *cells[7:]])
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def files(place: Path) -> None:
    """The files that the recipes name, which lie beside the run folders."""
    table(place / TABLE)
    table(place / LONGER, rows=480)
    fresh(place / FRESH)


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Small grey pictures in bytes, of three kinds."""
    draw = random.Random(3)
    kinds = np.array([draw.randrange(3) for _ in range(96)])
    noise = np.array([draw.randrange(120) for _ in range(96 * 64)], dtype=np.uint8).reshape(96, 1, 8, 8)
    for picture, kind in zip(noise, kinds, strict=True):
        picture[0, 2 * kind : 2 * kind + 3] += 100
    return noise, kinds


def points() -> tuple[torch.Tensor, torch.Tensor]:
    """48 points of four numbers, and two numbers to learn from them."""
    draw = random.Random(4)
    x = torch.tensor([[draw.uniform(-1, 1) for _ in range(4)] for _ in range(48)])
    return x, torch.stack([x.sum(1), x[:, 0] * x[:, 1]], 1)


def network() -> nn.Sequential:
    """The network of the loops."""
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.2), nn.Linear(6, 2))


# --- what is run, each a function of (folder, hook) ---

Hook = Callable[[Any], object]

SHORT: dict[str, Any] = {"hidden": [6], "batch_size": 16, "num_threads": 1, "keep": 1, "seed": 3}
SHORT |= {"save_every": "10 steps", "evaluate_every": "10 steps"}
OPEN: dict[str, Any] = {"hidden": [6], "num_threads": 1, "keep": 1, "seed": 3, "batch_size": 32}
OPEN |= {"save_every": "20 steps", "evaluate_every": "100 steps"}


def targets(target: str) -> dict[str, Any]:
    """Which column of the table is learnt, and which are not read."""
    return {"target": target, "drop": [one for one in ("grade", "left", "spent") if one != target]}


def table_run(out: str, hook: Hook) -> Any:
    settings = {"rule": "adamw", "lr": 0.02, "schedule": "cosine", "dropout": 0.2, "average": 0.9}
    settings |= {"sample_weight": "weight", "budget": "60 steps", "clip_norm": 1.0, "warmup": "5 steps"}
    return st.fit(TABLE, out=out, on_step=hook, **targets("grade"), **SHORT | settings)


def plateau_run(out: str, hook: Hook) -> Any:
    """Falls, is raised and goes back, so that the machine that stops has a state."""
    settings = {"rule": "momentum", "lr": 0.3, "schedule": "plateau", "patience": 1, "max_decays": 50}
    settings |= {"evaluate_every": "3 steps", "save_every": "5 steps", "raise_after": 2, "budget": "90 steps"}
    return st.fit(TABLE, out=out, on_step=hook, **targets("spent"), **SHORT | settings)


def pictures_run(out: str, hook: Hook) -> Any:
    settings = {"rule": "muon", "lr": 0.01, "schedule": "linear", "budget": "24 steps"}
    settings |= {"save_every": "4 steps", "evaluate_every": "4 steps", "accumulate": 2}
    return st.fit(pictures(), out=out, on_step=hook, **SHORT | settings)


def augmented_run(out: str, hook: Hook) -> Any:
    settings = {"rule": "sgd", "lr": 0.1, "batch_size": 32, "augment": "shift", "budget": "30 steps"}
    return st.fit("digits", out=out, on_step=hook, **SHORT | settings | {"hidden": []})


def growing_run(out: str, hook: Hook) -> Any:
    settings = {"rule": "lion", "lr": 0.005, "schedule": "linear", "batch_size": "growing 8 to 32"}
    return st.fit(
        TABLE, out=out, on_step=hook, **targets("left"), **SHORT | settings | {"budget": "50 steps"}
    )


def classes_run(out: str, hook: Hook) -> Any:
    settings = {"rule": "adamw", "lr": 0.02, "budget": "40 steps", "class_weight": "balanced"}
    return st.fit(TABLE, out=out, on_step=hook, **targets("grade"), **SHORT | settings)


def flags_run(out: str, hook: Hook) -> Any:
    settings = {"rule": "adamw", "lr": 0.02, "budget": "40 steps", "loss": "binary", "impute": "mean"}
    return st.fit(TABLE, out=out, on_step=hook, **targets("left"), **SHORT | settings)


def numbers_run(out: str, hook: Hook) -> Any:
    settings = {"rule": "adamw", "lr": 0.02, "budget": "40 steps", "scale": "minmax", "average": 0.9}
    return st.fit(TABLE, out=out, on_step=hook, **targets("spent"), **SHORT | settings | {"loss": "huber"})


def automatic_run(out: str, hook: Hook) -> Any:
    return st.fit(LONGER, out=out, on_step=hook, budget="500 steps", **targets("grade"), **OPEN)


def plain_loop(out: str, hook: Hook) -> Any:
    """torch's own optimizer under torch's own scheduler."""
    net = network()
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    decay = torch.optim.lr_scheduler.ExponentialLR(opt, 0.95)

    def after(steps: Any) -> None:
        decay.step()
        hook(steps)

    return _looped(out, after, net, opt, carry={"decay": decay})


def own_loop(out: str, hook: Hook) -> Any:
    """An optimizer of ours, with an average and microbatches. (A rate that others set on it did not survive a
    kill in format 1.)"""
    net = network()
    opt = face.AdamW(net.parameters(), lr=0.05, weight_decay=0.1)
    return _looped(out, hook, net, opt, average=0.9, accumulate=2)


def tuned_loop(out: str, hook: Hook) -> Any:
    """Hyperparameters that are turned on the way, by what is saved along without being named."""
    net = network()
    opt = face.optimizer(net, rules.AdamW(lr=0.05), {"3*": rules.AdamW(lr=0.02)})
    x, y = points()

    def loss(n: int) -> torch.Tensor:
        at = torch.arange(16) + 16 * (n % 3)
        return nn.functional.mse_loss(net(x[at]), y[at])

    pace = {"window": 20, "every": 3, "validate_every": 2}
    face.hypertune(net, opt, "lr", "beta1", validation=loss, training=loss, **pace)
    return _looped(out, hook, net, opt, budget="45 steps")


def _looped(out: str, hook: Hook, net: nn.Module, opt: Any, **own: Any) -> nn.Module:
    x, y = points()
    settings: dict[str, Any] = {"budget": "30 steps", "batch_size": 12, "save_every": "4 steps", "keep": 1}
    settings |= {"evaluate": lambda: {"loss": float(nn.functional.mse_loss(net.eval()(x), y).detach())}}
    with face.loop(net, opt, (x, y), out=out, seed=3, on_step=hook, **settings | own) as steps:
        for a, b in steps:
            steps.step(nn.functional.mse_loss(net(a), b))
    return net


def comparison(out: str, hook: Hook) -> Any:
    """One side has a schedule that is an object, which the plan names by its kind; the rate of the other is
    measured."""
    curved = {"rule": "adamw", "schedule": schedule.Cosine(0.01, 20)}
    sides = {"curved": curved, "plain": {"rule": "rprop", "schedule": "linear"}}
    own = {"budget": "20 steps", "on_step": hook}
    return st.compare(TABLE, sides, seeds=2, out=out, **targets("grade"), **SHORT | own)


def tuning(out: str, hook: Hook) -> Any:
    del hook  # a search trains no run
    return st.tune(LONGER, of="500 steps", budget="25%", over=["lr"], out=out, **targets("grade"), **OPEN)


@dataclass(frozen=True)
class Old:
    """One of the folders.

    run      what makes it, to its end or until the hook ends the process
    stop     the update, counted over all its runs, after which it is killed; None: it comes to its end
    search   measurements of its search after which it is killed instead
    objects  what `resume` must be given again"""

    run: Callable[[str, Hook], Any]
    stop: int | None = None
    search: int | None = None
    objects: Callable[[], dict[str, Any]] = dict


RUNS: dict[str, Old] = {
    "table-broken": Old(table_run, stop=33),
    "plateau-broken": Old(plateau_run, stop=47),
    "pictures-broken": Old(pictures_run, stop=13, objects=lambda: {"data": pictures()}),
    "augment-broken": Old(augmented_run, stop=17),
    "growing-broken": Old(growing_run, stop=28),
    "classes-finished": Old(classes_run),
    "flags-finished": Old(flags_run),
    "numbers-finished": Old(numbers_run),
    "automatic-searched": Old(automatic_run, stop=3),
    "automatic-training": Old(automatic_run, stop=250),
    "automatic-searching": Old(automatic_run, search=9),
    "loop-plain": Old(plain_loop, stop=14),
    "loop-own": Old(own_loop, stop=14),
    "loop-tuned": Old(tuned_loop, stop=26),
    "comparison-finished": Old(comparison),
    "comparison-broken": Old(comparison, stop=153),
    "tuning-finished": Old(tuning),
    "tuning-broken": Old(tuning, search=6),
}


def nothing(_: Any) -> None:
    """The hook of a run that nobody ends."""


# --- how they are made ---


def main(place: Path, only: Sequence[str] = ()) -> None:
    """Make all of it in a folder of its own, and put it into `place`."""
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        files(Path())
        for name, old in RUNS.items():
            if only and name not in only:
                continue
            whole = old.run(f"whole-{name}", nothing)
            (place / f"{name}.json").write_text(json.dumps(_reference(whole, name, place), indent=1) + "\n")
            if old.stop is None and old.search is None:
                os.rename(f"whole-{name}", name)
            else:
                _killed(name)
            _pack(Path(name), place / f"{name}.tar.xz")
            print(f"{name}: {(place / f'{name}.tar.xz').stat().st_size / 1000:.1f} kB", file=sys.stderr)
        if not only:
            _pickles(place)
    (place / "made.json").write_text(json.dumps(_made(), indent=1) + "\n")


def _reference(whole: Any, name: str, place: Path) -> dict[str, Any]:
    """What a run that nobody broke off came to; its weights are written beside."""
    if isinstance(whole, list):  # a tuning
        return {"decided": {one.choice: one.decided for one in whole}}
    if isinstance(whole, nn.Module):
        save_file(whole.state_dict(), place / f"{name}.safetensors")
        return {"rows": _rows(Path(f"whole-{name}") / "metrics.csv")}
    if isinstance(whole, st.Comparison):
        values = {f"{one.strategy} {one.seed}": list(one.values) for one in whole.results}
        return {
            "best": whole.best,
            "values": values,
            "decided": {e.choice: e.decided for e in whole.evidence},
        }
    save_file(st.Run(whole.folder).model.state_dict(), place / f"{name}.safetensors")
    found = {"steps": whole.steps, "metrics": whole.metrics, "chosen": whole.chosen}
    found |= {"rows": _rows(whole.folder / "metrics.csv")}
    found |= {"decided": {one.choice: one.decided for one in whole.evidence}}
    return found | (_answers(st.Run(whole.folder), name) if name.endswith("finished") else {})


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv, without their seconds."""
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)
        ]


def _answers(run: st.Run, name: str) -> dict[str, Any]:
    """What a run says of rows that it has not seen."""
    found = {"predict": run.predict(FRESH).tolist(), "evaluate": run.evaluate(FRESH)}
    return (
        found if name.startswith("numbers") else found | {"probabilities": run.probabilities(FRESH).tolist()}
    )


def _killed(name: str) -> None:
    """Run it in a process of its own that kills itself. A fork would wait for the threads of Polars."""
    child = subprocess.run([sys.executable, __file__, "--break-off", name], stdout=subprocess.DEVNULL)
    if child.returncode != -signal.SIGKILL:
        raise SystemExit(f"{name} was not broken off")
    if RUNS[name].search is not None and list(Path(name).glob("*/chosen.json")):
        raise SystemExit(f"the search of {name} ended before it could be broken off")


def _break_off(name: str) -> None:
    old = RUNS[name]
    if old.search is not None:
        threading.Thread(target=_watch, args=(Path(name), old.search), daemon=True).start()
    old.run(name, _killing(old.stop))


def _killing(stop: int | None) -> Hook:
    seen = 0

    def hook(_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == stop:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def _watch(folder: Path, measurements: int) -> None:
    while len(list((folder / "search").glob("*.json"))) < measurements:
        time.sleep(0.0002)
    os.kill(os.getpid(), signal.SIGKILL)


def _pack(folder: Path, path: Path) -> None:
    """The folder as an archive of the same bytes each time, without what nothing reads back."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if entry.name.endswith(("/report.html", "/.lock", ".tmp")):
            return None
        entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
        return entry

    with tarfile.open(path, "w:xz", preset=9) as archive:
        archive.add(folder, folder.name, filter=plain)


def _pickles(place: Path) -> None:
    """What people pickle: rules, wrapped rules, optimizers, evidence, an opened run."""
    net = network()
    opt = face.AdamW(net.parameters(), lr=0.05)
    rule_opt = face.optimizer(net, wrap.lookahead(rules.Lion(lr=1e-3)))
    for one in (opt, rule_opt):
        net(points()[0]).square().mean().backward()
        one.step()
    held = {
        "rules": [rules.AdamW(lr=0.1), rules.Muon(), rules.SGD(lr=schedule.Cosine(0.1, 50))],
        "wrapped": [wrap.lookahead(rules.Lion(lr=1e-3)), wrap.cautious(wrap.lookahead(rules.AdamW()))],
        "schedules": [schedule.Cosine(0.1, 50), schedule.OneCycle(0.1, 50)],
        "evidence": st.Run("classes-finished").evidence,
        "run": st.Run("classes-finished"),
        "optimizers": [opt, rule_opt],
    }
    for name, value in held.items():
        (place / f"{name}.pickle").write_bytes(pickle.dumps(value))


def _made() -> dict[str, Any]:
    asked = {"cwd": Path(st.__file__).parent, "capture_output": True, "text": True}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], **asked).stdout.strip()
    packages = ("steepest", "torch", "numpy", "numba", "polars", "safetensors", "scikit-learn")
    versions = {one: version(one) for one in packages}
    return {"commit": commit, "python": platform.python_version(), **versions, "processor": processor()}


def processor() -> str:
    """What the last bits depend on besides versions."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    lines = dict(line.split("\t", 1) for line in text.splitlines() if "\t" in line)
    return (
        lines.get("model name", platform.machine()).strip(" \t:")
        + f" {torch.backends.cpu.get_cpu_capability()}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--break-off"]:
        _break_off(sys.argv[2])
    else:
        main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else PLACE, sys.argv[2:])
