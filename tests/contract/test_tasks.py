"""Every task goes through `fit`, and comes back as predictions, probabilities and metrics of its own."""

import ast
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

import steepest as st
from steepest import tasks
from steepest.data import sources
from steepest.tasks.positions import IGNORED
from steepest.train import loss, metrics

rng = np.random.default_rng(0)
N = 160
X = rng.normal(size=(N, 4)).astype(np.float32)
FLAGS = np.stack([X[:, 0] > 0, X[:, 1] > 0.5, X[:, 2] + X[:, 3] > 0], 1)
QUICK = {"budget": "20 epochs", "rule": "adamw", "lr": 0.05, "log": []}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", [bool, np.int64, np.float64])
def test_several_labels_at_once_are_a_task_of_their_own(kind):
    run = st.fit((X, FLAGS.astype(kind)), **QUICK)
    assert (run.recipe.task, run.recipe.loss) == ("multilabel", "binary")
    assert run.metrics["test/f1"] > 0.8
    assert {f"test/f1_target{i}" for i in range(3)} | {"test/exact", "test/accuracy"} <= run.metrics.keys()
    found, sure = run.predict(X), run.probabilities(X)
    assert found.shape == sure.shape == (N, 3)
    assert ((sure > 0.5) == found).all()
    measured = run.evaluate((X, FLAGS.astype(kind)))
    assert measured["exact"] == pytest.approx((found == FLAGS).all(1).mean())
    assert measured["accuracy"] == pytest.approx((found == FLAGS).mean())


def test_columns_of_yes_and_no_in_a_table_are_labels_by_name():
    table = pl.DataFrame(X, schema=list("abcd"), orient="row").with_columns(
        hot=pl.Series(FLAGS[:, 0]), wet=pl.Series(FLAGS[:, 1])
    )
    run = st.fit(table, target=["hot", "wet"], **QUICK)
    assert {"test/f1_hot", "test/f1_wet"} <= run.metrics.keys()


def test_one_hot_labels_are_told_how_to_exclude_each_other():
    target = tasks.pose(sources.read((X, np.eye(3)[np.arange(N) % 3])))
    assert target.task == "multilabel"
    assert "argmax" in target.why


def test_label_metrics_equal_scikit_learns():
    from sklearn import metrics as sklearn
    from tests.posed import posed

    outputs, weight = rng.normal(size=(N, 3)), rng.uniform(0, 2, N)
    made = metrics.build(posed("multilabel", 3))
    for cut in (slice(0, 50), slice(50, N)):
        made.update(
            torch.tensor(outputs[cut]), torch.tensor(FLAGS[cut].astype(float)), torch.tensor(weight[cut])
        )
    macro = sklearn.precision_recall_fscore_support(
        FLAGS, outputs > 0, average="macro", sample_weight=weight, zero_division=0
    )
    found = made.compute()
    assert [found[name] for name in ("precision", "recall", "f1")] == pytest.approx(macro[:3])
    assert found["exact"] == pytest.approx(sklearn.accuracy_score(FLAGS, outputs > 0, sample_weight=weight))


def test_a_loss_of_ones_own_never_meets_scaled_targets():
    seen = []

    def mine(outputs, target):
        seen.append(target)
        return (outputs - target).square()

    far = 1000 + 50 * X[:, 0]
    run = st.fit((X, far), loss=mine, budget="2 steps", lr=0.01, log=[])
    assert torch.cat([one.flatten() for one in seen]).min() > 500
    assert run.preprocessing.target.scale == (1.0,)
    assert st.fit((X, far), budget="2 steps", lr=0.01, log=[]).preprocessing.target.scale != (1.0,)


class Tagger(nn.Module):
    """A class at every step, of the features of that step."""

    def __init__(self, classes=3):
        super().__init__()
        self.layer = nn.Linear(2, classes)

    def forward(self, x):
        return self.layer(x).transpose(1, 2)


def sequences(padded):
    x = rng.normal(size=(N, 6, 2)).astype(np.float32)
    y = (x[..., 0] > 0).astype(np.int64) + (x[..., 1] > 0)
    if padded:
        for row, length in enumerate(rng.integers(2, 7, N)):
            y[row, length:] = IGNORED
    return x, y


@pytest.mark.parametrize("padded", [False, True])
def test_sequences_have_a_label_at_every_position(padded):
    x, y = sequences(padded)
    run = st.fit((x, y), model=Tagger(), **QUICK)
    assert run.recipe.task == "positions"
    found = st.Run(run.folder, model=Tagger()).predict(x)
    counts = y != IGNORED
    assert found.shape == y.shape
    measured = st.Run(run.folder, model=Tagger()).evaluate((x, y))
    assert measured["accuracy"] == pytest.approx((found == y)[counts].mean())
    assert measured["accuracy"] > 0.6
    with torch.no_grad():
        outputs = torch.from_numpy(st.Run(run.folder, model=Tagger()).probabilities(x)).log()
    mean = nn.functional.cross_entropy(outputs, torch.from_numpy(y), ignore_index=IGNORED)
    assert measured["loss"] == pytest.approx(mean.item(), rel=1e-4), "a mean over positions, not examples"


def test_padding_does_not_move_the_weights():
    x, y = sequences(padded=True)
    other = x.copy()
    other[y == IGNORED] = 0.5
    settings = {"scale": None, "budget": "5 steps", "lr": 0.1, "log": []}
    torch.manual_seed(0)
    nets = [Tagger()]
    nets.append(Tagger())
    nets[1].load_state_dict(nets[0].state_dict())
    runs = [st.fit((data, y), model=net, **settings) for data, net in zip((x, other), nets, strict=True)]
    for one, two in zip(*(run.network.parameters() for run in runs), strict=True):
        assert torch.equal(one, two)


def test_microbatches_of_padded_sequences_add_up_to_the_whole_batch():
    x, y = sequences(padded=True)
    settings = {"budget": "5 steps", "lr": 0.1, "log": [], "rule": "sgd", "batch_size": 32}
    torch.manual_seed(0)
    first = Tagger().state_dict()
    weights = []
    for accumulate in (1, 4):
        net = Tagger()
        net.load_state_dict(first)
        run = st.fit((x, y), model=net, accumulate=accumulate, **settings)
        weights.append(torch.cat([p.flatten() for p in run.network.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


class Segmenter(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))


def test_pictures_are_segmented():
    pictures = rng.normal(size=(60, 1, 8, 8)).astype(np.float32)
    truth = (pictures[:, 0] > 0.3).astype(np.uint8) * 5
    truth[:, 0] = 255
    run = st.fit(
        (pictures, truth), model=Segmenter(), task_args={"ignore_index": 255}, task="positions", **QUICK
    )
    run = st.Run(run.folder, model=Segmenter())
    assert set(np.unique(run.predict(pictures))) <= {0, 5}
    assert run.metrics["test/accuracy"] > 0.9
    assert run.preprocessing.target.classes == ("0", "5")


def test_presets_say_that_they_give_no_outputs_at_positions():
    x, y = sequences(padded=False)
    with pytest.raises(st.UserError, match="outputs at every position"):
        st.fit((x, y), **QUICK)
    with pytest.raises(st.UserError, match="takes one output for each class"):
        st.fit((x, y), model=nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), **QUICK)


@pytest.mark.parametrize(
    ("target", "settings", "says"),
    [
        (FLAGS * 2, {"task": "multilabel"}, "must be 0 or 1"),
        (FLAGS[:, 0], {"task": "multilabel"}, "takes targets of shape"),
        (np.ones((N, 2)), {"task": "multilabel"}, "same labels"),
        (FLAGS, {"class_weight": "balanced"}, "class_weight is for classes"),
        (FLAGS, {"loss": "cross_entropy"}, "is for classes"),
        (FLAGS, {"split": "stratified"}, "needs classes"),
        (FLAGS[:, 0], {"task": "positions"}, "takes whole numbers of shape"),
        (FLAGS[:, 0], {"task": "clasification"}, "Did you mean 'classification'"),
        (FLAGS[:, 0], {"task_args": {"bins": 3}}, "takes none"),
    ],
)
def test_wishes_that_cannot_be(target, settings, says):
    with pytest.raises(st.UserError, match=says):
        st.fit((X, target), **QUICK | settings)


def test_the_best_constant_answer_is_on_record():
    found = {}
    for name, target in {
        "class": np.where(X[:, 0] > -0.5, "often", "seldom"),
        "number": X[:, 0],
        "flags": FLAGS,
    }.items():
        run = st.fit((X, target), budget="2 steps", lr=0.01, log=[], out=name)
        found[name] = json.loads((run.folder / "result.json").read_text())["baseline"]
        kept = np.load(run.folder / "examples.npz")["truth"]
        if name == "class":
            assert found[name]["test/accuracy"] == pytest.approx(np.mean(kept == "often"))
    assert found["number"]["test/r2"] <= 0
    assert found["number"]["test/rmse"] == pytest.approx(1, rel=0.4)
    assert "test/f1" in found["flags"]


NAMES = {"classification", "regression", "multilabel", "positions"}


def test_nothing_but_the_tasks_asks_which_task_it_is():
    source = Path(st.__file__).parent
    rooms = {source / "tasks", source / "train" / "format_1.py"}
    named = [
        f"{path}:{node.lineno}"
        for path in source.rglob("*.py")
        if not rooms & {path, path.parent}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Compare)
        for side in (node.left, *node.comparators)
        if isinstance(side, ast.Constant) and side.value in NAMES
    ]
    assert named == []


@pytest.mark.parametrize("target", [FLAGS, FLAGS[:, 0], X, X[:, 0], np.arange(N) % 5])
def test_a_target_comes_back_from_its_file(target):
    made = tasks.pose(sources.read((X, target))).fitted(target)
    again = tasks.restore({"task": made.task, **made.config()})
    assert again == made
    encoded = torch.from_numpy(made.encode(target))
    chosen = loss.build("auto", made)
    guess = made.constant(encoded).expand(N, *made.shape(chosen.target))
    assert loss.check(guess, encoded, chosen).isfinite()
