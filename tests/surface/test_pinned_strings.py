"""Strings that are data: what the code is called may change, these may not.

Numbers drawn, starts of weights, splits and orders hang on the names of random streams; recipes, evidence and
plans hold names and import paths; pickles hold the paths of modules. Old folders and files must keep their
meaning, so each is pinned here by what it brings about, under public names."""

from __future__ import annotations

import json
import pickle
import random
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import make_runs
import numpy as np
import pytest
import torch
from make_runs import PLACE
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import steepest as st
from steepest import rules, schedule, wrap
from steepest import torch as face
from steepest.data.order import key

SHORT: dict[str, Any] = {"hidden": [4], "budget": "2 steps", "batch_size": 8, "num_threads": 1, "seed": 3}
SHORT |= {"lr": 0.01, "rule": "sgd", "scale": None}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def numbered(rows: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Rows that bear their number, and two classes in turn."""
    return np.arange(rows, dtype=np.float32)[:, None], np.arange(rows) % 2


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(1, 1)


# --- random streams ---

KEYS = {
    "order": (0, "order", 0),
    "split": (0, "split"),
    "augment": (0, "augment", 7),
    "start": (0, "start"),
    "weights": (0, "weights"),
    "training": (0, "training"),
    "example": (0, "example", 2, 5),
    "stream": (0, "stream", 1),
    "trial": (0, "trial", 4),
    "untried": (0, "untried", 3),
}
NUMBERS = {
    "order": 113245886653597248659558219078374899138,
    "split": 330309365882709075698344803971542336274,
    "augment": 52729708194448938448164746042387681736,
    "start": 174679040900517866286555924462252477783,
    "weights": 247806361425913453964854917239522341742,
    "training": 227384249831791120914943455926844165960,
    "example": 286587652953443228398207647410683546998,
    "stream": 304415591639600004472246430072894894906,
    "trial": 205354707577262403923571974960815474653,
    "untried": 145801854018842061754758468690953087484,
}
"""What a key of these words is, on every machine."""
SPLIT = {"val": [4, 13, 20], "test": [3, 11, 16, 18]}
ORDER = [0, 7, 8, 10, 4, 11, 6, 1, 3, 9, 2, 5, 1, 3, 7, 11, 10, 9, 8, 2, 5, 4, 0, 6]
CHANCE = [0.35734814667622594, 0.8184367197100015]
SIZES = [37, 47, 46, 8, 13, 8, 17, 61]
CURVED = [-0.20553399622440338, -0.07347045093774796, 0.06683535128831863]


def test_the_number_of_a_stream_is_that_of_its_names() -> None:
    assert {name: key(*words) for name, words in KEYS.items()} == NUMBERS


def seeds(name: str, *at: int) -> int:
    """The seed of a generator of torch for a stream of seed 3."""
    return key(3, name, *at) % 2**63


def test_splits_and_weights_of_a_run_come_from_their_streams() -> None:
    seen: list[int] = []

    def model(shape: tuple[int, ...], outputs: int) -> nn.Module:
        seen.append(torch.initial_seed())
        return nn.Linear(1, outputs)

    run = st.fit(numbered(), model=model, **SHORT)
    assert seen[0] == seeds("weights")
    rows = {name: part[0].ravel().int().tolist() for name, part in run.tensors().items()}
    assert {name: sorted(part) for name, part in rows.items() if name != "train"} == SPLIT


def test_changes_of_inputs_come_from_their_stream() -> None:
    seen: list[int] = []

    def change(inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        seen.append(generator.initial_seed())
        return inputs

    st.fit(numbered(), augment=change, **SHORT)
    assert list(dict.fromkeys(seen)) == [seeds("augment", 0), seeds("augment", 1)]


def test_a_start_that_is_drawn_comes_from_its_stream() -> None:
    run = st.fit(numbered(), init="kaiming", **SHORT | {"lr": 0.0, "weight_decay": 0.0})
    drawn = torch.empty(4, 1).normal_(generator=torch.Generator().manual_seed(seeds("start"))) * 2**0.5
    assert torch.allclose(run.model.state_dict()["1.weight"], drawn)


def test_a_loop_has_the_order_and_the_chance_of_its_streams() -> None:
    made, inner = net(), []
    x = torch.arange(12.0)[:, None]
    order = []
    opt = torch.optim.SGD(made.parameters(), lr=0.0)
    with face.loop(made, opt, (x, x), epochs=2, batch_size=4, seed=3) as steps:
        for a, b in steps:
            if not order:
                inner += [torch.initial_seed(), random.random(), float(np.random.rand())]  # noqa: NPY002
            order += a.ravel().int().tolist()
            steps.step(nn.functional.mse_loss(made(a), b))
    assert order == ORDER
    assert inner[0] == seeds("training")
    assert inner[1:] == pytest.approx(CHANCE, rel=1e-15)


class Drawing(Dataset):
    """Remembers what each example was drawn with."""

    def __init__(self) -> None:
        self.seen: dict[int, int] = {}

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen[index] = torch.initial_seed()
        return torch.tensor([float(index)]), torch.tensor([0.0])


def test_examples_of_a_dataset_are_drawn_from_their_stream() -> None:
    made, data = net(), Drawing()
    opt = torch.optim.SGD(made.parameters(), lr=0.0)
    with face.loop(made, opt, data, epochs=1, batch_size=4, seed=3) as steps:
        for a, b in steps:
            steps.step(nn.functional.mse_loss(made(a), b))
    assert data.seen == {index: seeds("example", 0, index) for index in range(8)}


def test_a_loader_is_seeded_from_its_stream() -> None:
    made, chance = net(), torch.Generator()
    x = torch.arange(8.0)[:, None]
    loader = DataLoader(TensorDataset(x, x), 4, shuffle=True, generator=chance)
    seen = []
    opt = torch.optim.SGD(made.parameters(), lr=0.0)
    with face.loop(made, opt, loader, epochs=2, seed=3) as steps:
        for a, b in steps:
            seen.append(chance.initial_seed())
            steps.step(nn.functional.mse_loss(made(a), b))
    assert list(dict.fromkeys(seen)) == [seeds("stream", 0), seeds("stream", 1)]


def test_random_sizes_of_batches_stay() -> None:
    policy = st.batch.Stochastic(8, 64, seed=3)
    assert [policy.size(step) for step in range(8)] == SIZES


def test_labels_drawn_for_curvature_stay() -> None:
    """Signs that AdaHessian probes with are a function of seed and step."""
    torch.manual_seed(0)
    made = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([[0.1, 0.2, 0.3]]))
    opt = face.optimizer(made, rules.AdaHessian(lr=0.1))
    x = torch.tensor([[1.0, 2.0, 3.0], [0.5, -1.0, 2.0]])
    for _ in range(2):
        opt.step(lambda: made(x).pow(3).sum())
    assert made.weight.ravel().tolist() == pytest.approx(CURVED, rel=1e-5)


# --- words in files ---

RULES = """
adabelief adadelta adafactor adafactorbigvision adafactoroptax adafactortorch adagrad adagradtf adahessian
adam adamax adamaxtf adamc adaminside adammini adamtf adamuon adamw adan adanw ademamix adopt amsgrad
amsgradhat amsgradtf amsgradw apollo asgd came dadaptadam dion dog dowg fira ftrl galore hypergradientadam
hypergradientsgd klshampoo kron lamb laprop lars lbfgs ldog lion madgrad mars marsexact momentum momentumtf
muon muonmatched muonspectral nadam nadamsimple nadamtf nadamw nadamwsimple nesterov nesterovtf normuon
novograd prodigy qhadam radam radamhat radamw rmsprop rmspropcentered rmspropcenteredmomentum
rmspropmomentum rmsproptf rmsproptfcentered rprop schedulefreeadamw schedulefreesgd sgd shampoo signsgd
signum sm3 soap sophiag sophiah spectraldescent stableadamw yogi
"""
WRAPPERS = """
asam averaged cautious cautiousclamped cautiousdecay correcteddecay decoupleddecay fixeddecay grokfast
grokfastwindow l2decay lookahead lookaheadpullback lookaheadreset sam schedulefree trustratio
"""
FILES = {
    *("recipe.toml", "evidence.jsonl", "metrics.csv", "result.json", "env.json", "preprocessing.json"),
    *("model.safetensors", "examples.npz", "report.html", "checkpoints", "best", "last"),
}


def test_a_batch_policy_is_written_as_it_was() -> None:
    assert str(st.batch.Stochastic(8, 64)) == "stochastic 8 to 64"
    assert str(st.batch.Growing(8, 64)) == "growing 8 to 64"
    assert str(st.batch.Following(8, 64)) == "following 8 to 64"


def test_objects_stand_in_a_recipe_as_they_did() -> None:
    data, made = numbered(), nn.Linear(1, 2)
    settings = SHORT | {"rule": rules.SGD(lr=schedule.Cosine(0.1, 10)), "loss": nn.CrossEntropyLoss()}
    run = st.fit(data, model=made, **{key: value for key, value in settings.items() if key != "lr"})
    held = tomllib.loads((run.folder / "recipe.toml").read_text(encoding="utf-8"))
    assert held["data"] == "object builtins.tuple"
    assert held["model"] == "object torch.nn.modules.linear.Linear"
    assert held["loss"] == "object torch.nn.modules.loss.CrossEntropyLoss"
    assert held["rule"] == "object sgd"


def test_functions_stand_in_a_recipe_by_their_import_path() -> None:
    run = st.fit(numbered(), loss=nn.functional.multi_margin_loss, **SHORT)
    assert run.recipe.loss == "torch.nn.functional:multi_margin_loss"
    assert st.resume(run.folder, data=numbered(), budget="+1 steps").steps == 3


def test_rules_bear_the_names_of_recipes() -> None:
    assert set(RULES.split()) <= set(rules.registry())
    assert set(WRAPPERS.split()) <= set(wrap.WRAPPERS)
    held = tomllib.loads((st.fit(numbered(), **wrapped()).folder / "recipe.toml").read_text(encoding="utf-8"))
    assert held["rule"] == "cautious+lookahead+adamw"
    assert held["hyper"].keys() == {"beta1", "beta2", "eps", "sync_every", "sync_share"}


def wrapped() -> dict[str, Any]:
    settings = SHORT | {"rule": wrap.cautious(wrap.lookahead(rules.AdamW(lr=0.01)))}
    return {key: value for key, value in settings.items() if key != "lr"}


def test_a_run_folder_holds_the_files_that_people_open() -> None:
    run = st.fit("iris", **SHORT | {"average": 0.9})
    names = {path.name for path in run.folder.iterdir()}
    assert names >= FILES
    assert (run.folder / "last").resolve() == (run.folder / "checkpoints" / "step-000002").resolve()
    inside = {path.name for path in (run.folder / "last").iterdir()}
    assert inside >= {"MANIFEST.json", "model.safetensors"}
    metrics = (run.folder / "metrics.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert metrics[:3] == ["step", "epoch", "seconds"]
    assert {"train/loss", "val/loss", "val/accuracy", "lr", "event"} <= set(metrics)
    result = json.loads((run.folder / "result.json").read_text(encoding="utf-8"))
    assert result.keys() >= {"status", "step", "best_step", "why", "metrics"}


def test_saved_weights_bear_the_names_of_the_network() -> None:
    from safetensors.torch import load_file

    run = st.fit("iris", **SHORT)
    names = set(nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)).state_dict())
    assert set(load_file(run.folder / "model.safetensors")) == names
    assert set(load_file(run.folder / "last" / "model.safetensors")) == names


def test_state_by_name_is_weight_and_slot() -> None:
    made = nn.Linear(2, 1)
    opt = face.optimizer(made, rules.AdamW(lr=0.1))
    made(torch.ones(1, 2)).sum().backward()
    opt.step()
    assert set(opt.state_by_name()) >= {"weight/m", "weight/v", "bias/m", "bias/v"}


# --- pickles of the version that made tests/data/runs_format_1 ---


def unpickled(name: str) -> Any:
    return pickle.loads((PLACE / f"{name}.pickle").read_bytes())


def test_pickled_rules_load() -> None:
    assert unpickled("rules") == [rules.AdamW(lr=0.1), rules.Muon(), rules.SGD(lr=schedule.Cosine(0.1, 50))]
    assert unpickled("schedules") == [schedule.Cosine(0.1, 50), schedule.OneCycle(0.1, 50)]


def test_pickled_rules_that_are_wrapped_load() -> None:
    one, other = unpickled("wrapped")
    assert one == wrap.lookahead(rules.Lion(lr=1e-3))
    assert other == wrap.cautious(wrap.lookahead(rules.AdamW()))


def test_pickled_evidence_loads() -> None:
    found = unpickled("evidence")
    assert all(isinstance(one, st.Evidence) for one in found)
    told = json.loads((PLACE / "classes-finished.json").read_text(encoding="utf-8"))["decided"]
    assert {one.choice: one.decided for one in found} == told


def test_a_pickled_run_loads_and_answers(tmp_path: Path) -> None:
    with tarfile.open(PLACE / "classes-finished.tar.xz") as held:
        held.extractall(tmp_path, filter="data")
    make_runs.files(tmp_path)
    told = json.loads((PLACE / "classes-finished.json").read_text(encoding="utf-8"))
    assert unpickled("run").predict(make_runs.FRESH).tolist() == told["predict"]


def test_pickled_optimizers_load_and_step() -> None:
    for one in unpickled("optimizers"):
        weights = [weight for group in one.param_groups for weight in group["params"]]
        before = [weight.detach().clone() for weight in weights]
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        assert len(one.state_dict()["state"]) == len(weights)
        one.step()
        assert all(bool((weight != old).all()) for weight, old in zip(weights, before, strict=True))
