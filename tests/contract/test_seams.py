"""Three kinds of data that are not built yet, as sketches: the seams carry them from files to predictions.

Recordings of unequal length, of which one file is damaged; a text as windows, with the next letter as target;
a long table of several series with a horizon."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

import steepest as st
from steepest.data import kinds, sources
from steepest.data.batches import Held, batches
from steepest.data.fields import Ragged, Windows
from steepest.data.kinds import Encoder
from steepest.data.source import Source, fingerprint
from steepest.data.view import Rows, Spans, readable
from steepest.models import MODELS
from steepest.tasks import TASKS, Target
from steepest.tasks.measures import ClassificationMetrics, RegressionMetrics

rng = np.random.default_rng(0)
QUICK = {"rule": "adamw", "lr": 0.02, "log": [], "batch_size": 16}


def registered(monkeypatch, registry, name, thing):
    for field in ("_own", "_loaded"):
        monkeypatch.setattr(registry, field, dict(getattr(registry, field)))
    registry.add(name, thing)


# --- recordings of unequal length ---------------------------------------------------------------------------


class Recordings(Encoder):
    suits = "pooled"

    def __init__(self, mean, spread):
        super().__init__()
        self.kind, self.shape, self.learnt = "recordings", (None, 1), (mean, spread)

    def read(self, raw):
        return raw

    def forward(self, values, lengths):
        inside = torch.arange(values.shape[1], device=values.device) < lengths[:, None]
        mean, spread = self.learnt
        return ((values.float() - mean) / spread * inside)[..., None], inside

    def config(self):
        return {"learnt": list(self.learnt)}


class Pooled(nn.Module):
    """A layer at every step, then the mean over the steps that are there."""

    def __init__(self, outputs):
        super().__init__()
        self.steps, self.out = nn.Linear(1, 8), nn.Linear(8, outputs)

    def forward(self, x, inside):
        kept = self.steps(x).relu() * inside[..., None]
        return self.out(kept.sum(1) / inside.sum(1, keepdim=True))


def open_recordings(data, target):
    if not (isinstance(data, list) and all(isinstance(one, Path) for one in data)):
        return None
    contents, numbers, said = readable(data, lambda path: np.load(path, allow_pickle=False))
    field = Ragged.of(contents)
    labels = np.array([data[number].parent.name for number in numbers])
    named = {"target": labels, "fingerprint": fingerprint(field, labels), "notes": said}
    return Source(view=Rows(len(field)), name="recordings", inputs=field, **named)


def learnt(field):
    steps = torch.cat([field.values[a : a + n] for a, n in zip(field.starts, field.lengths, strict=True)])
    return Recordings(float(steps.float().mean()), float(steps.float().std()))


RECORDINGS = SimpleNamespace(
    open=open_recordings,
    recognise=lambda field, settings: "recordings" if isinstance(field, Ragged) else None,
    fit=lambda field, name, settings: learnt(field),
    restore=lambda config: Recordings(*config["learnt"]),
)
POOLED = SimpleNamespace(
    fits=lambda shape, outputs: shape == (None, 1) and len(outputs) == 1,
    make=lambda shape, outputs: Pooled(outputs[0]),
)


@pytest.fixture
def recordings(tmp_path):
    """Eighty files of two classes, of 5 to 40 steps; one is cut short."""
    paths = []
    for number in range(80):
        loud = number % 2
        path = tmp_path / ("loud" if loud else "soft") / f"{number}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, (rng.normal(size=rng.integers(5, 40)) * (400 if loud else 50)).astype(np.int16))
        paths.append(path)
    paths[7].write_bytes(paths[7].read_bytes()[:100])
    return paths


def test_recordings_of_unequal_length(recordings, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    registered(monkeypatch, kinds.KINDS, "recordings", RECORDINGS)
    registered(monkeypatch, MODELS, "pooled", POOLED)
    run = st.fit(recordings, budget="40 epochs", **QUICK)
    assert "1 of 80 files cannot be read and are left out" in " ".join(capsys.readouterr().out.split())
    assert run.recipe.model == "pooled"
    whole = [path for number, path in enumerate(recordings) if number != 7]
    found = st.Run(run.folder).predict(whole)
    assert np.mean(found == [path.parent.name for path in whole]) > 0.9
    assert np.array_equal(found[:3], st.Run(run.folder).predict(whole[:3])), "padding changes nothing"
    assert run.evaluate(whole)["accuracy"] == np.mean(found == [path.parent.name for path in whole])


def test_a_batch_of_unequal_lengths_is_padded_to_its_longest():
    field = Ragged.of([np.arange(1, n + 1) for n in (2, 5, 3)])
    values, lengths = field.take(torch.tensor([2, 0]))
    assert values.tolist() == [[1, 2, 3], [1, 2, 0]]
    assert lengths.tolist() == [3, 2]
    assert len(field[np.array([1])]) == 1
    assert field[1:].take(torch.tensor([0]))[0].tolist() == [[1, 2, 3, 4, 5]]


# --- a text, with the next letter as target -----------------------------------------------------------------


class Letters(Encoder):
    suits = "letters"

    def __init__(self, known, window):
        super().__init__()
        self.kind, self.shape, self.known = "letters", (window,), known

    def read(self, raw):
        place = torch.full((0x110000,), len(self.known))
        place[torch.tensor([ord(letter) for letter in self.known])] = torch.arange(len(self.known))
        return replace(raw, values=place[raw.values.long()])

    def forward(self, ids):
        return ids.long()

    def config(self):
        return {"known": self.known, "window": self.shape[0]}


@dataclass(frozen=True)
class NextLetter(Target):
    names: tuple = ("the next letter",)
    letters: str = ""
    why: str = ""
    task, noun, loss, layouts = "next_letter", "letters", "cross_entropy", ("classes",)

    def shape(self, layout):
        return (len(self.letters) + 1, None)

    def fitted(self, target, scale=True, encoders=None):
        return replace(self, letters=encoders.known)

    def derive(self, fields):
        return fields.later(1)

    def encode(self, target):
        raise NotImplementedError

    def decode(self, outputs):
        return np.array([*self.letters, "�"])[np.asarray(outputs).argmax(1)]

    def metrics(self):
        return ClassificationMetrics(len(self.letters) + 1)

    def examples(self, outputs, target):
        letters = np.array([*self.letters, "�"])
        return {"truth": letters[target].reshape(-1), "guess": letters[outputs.argmax(1)].reshape(-1)}

    def sentences(self):
        return [f"Predicts the next of {len(self.letters)} letters."]

    def config(self):
        return {"letters": self.letters, "why": self.why}

    @classmethod
    def of(cls, config):
        return cls(letters=config["letters"], why=config["why"])


WINDOW = 12


def open_text(data, target):
    if not str(data).endswith(".txt"):
        return None
    points = torch.tensor([ord(letter) for letter in Path(data).read_text()])
    view = Spans((len(points),), WINDOW + 1)
    field = Windows(points, torch.from_numpy(view.starts()), WINDOW)
    made = {"target": None, "targets": (), "fingerprint": fingerprint(field)}
    return Source(view=view, name="text", inputs=field, **made)


def vocabulary(field):
    seen = field.take(torch.arange(len(field))).unique()
    return Letters("".join(map(chr, seen.tolist())), field.length)


LETTERS = SimpleNamespace(
    open=open_text,
    recognise=lambda field, settings: "a text" if isinstance(field, Windows) else None,
    fit=lambda field, name, settings: vocabulary(field),
    restore=lambda config: Letters(config["known"], config["window"]),
)
NEXT = SimpleNamespace(
    derives=True,
    recognise=lambda source: "a text" if source.view.word == "series" else None,
    pose=lambda source, why, args: NextLetter(why=why),
    restore=NextLetter.of,
)


class Bigram(nn.Module):
    def __init__(self, letters):
        super().__init__()
        self.table = nn.Embedding(letters, letters)

    def forward(self, ids):
        return self.table(ids).transpose(1, 2)


BIGRAM = SimpleNamespace(
    fits=lambda shape, outputs: len(outputs) == 2, make=lambda _, outputs: Bigram(outputs[0])
)


def test_a_text_as_windows_with_the_next_letter_as_target(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "abcd" * 200 + "z" * 40
    (tmp_path / "some.txt").write_text(text)
    registered(monkeypatch, kinds.KINDS, "letters", LETTERS)
    registered(monkeypatch, TASKS, "next_letter", NEXT)
    registered(monkeypatch, MODELS, "letters", BIGRAM)
    run = st.fit("some.txt", budget="40 steps", **(QUICK | {"lr": 0.3}))
    assert run.preprocessing.target.letters == "abcd", "the vocabulary has seen the training part alone"
    assert run.metrics["val/accuracy"] == 1.0
    assert st.Run(run.folder).predict("some.txt")[0].tolist() == [*"bcdabcdabcda"]
    assert (run.recipe.task, run.recipe.model) == ("next_letter", "letters")


# --- a long table of several series, with a horizon ---------------------------------------------------------

PAST, HORIZON = 8, 3


class Long(NamedTuple):
    frame: pl.DataFrame
    horizon: int


class Series(Encoder):
    def __init__(self, mean, spread):
        super().__init__()
        self.kind, self.shape, self.learnt = "series", (PAST,), (mean, spread)

    def read(self, raw):
        return raw

    def forward(self, values):
        return ((values - self.learnt[0]) / self.learnt[1]).float()

    def config(self):
        return {"learnt": list(self.learnt)}


@dataclass(frozen=True)
class Forecast(Target):
    names: tuple = ("value",)
    learnt: tuple = (0.0, 1.0)
    task, noun, loss, layouts = "forecast", "the future of a series", "mean_squared_error", ("numbers",)
    why = "a long table"

    def shape(self, layout):
        return (HORIZON,)

    def fitted(self, target, scale=True, encoders=None):
        return replace(self, learnt=encoders.learnt)

    def derive(self, fields):
        mean, spread = self.learnt
        later = fields.later(PAST, HORIZON)
        return replace(later, values=((later.values - mean) / spread).float())

    def encode(self, target):
        raise NotImplementedError

    def decode(self, outputs):
        return np.asarray(outputs) * self.learnt[1] + self.learnt[0]

    def metrics(self):
        return RegressionMetrics((self.learnt[1],) * HORIZON)

    def sentences(self):
        return [f"Predicts the next {HORIZON} steps."]

    def config(self):
        return {"learnt": list(self.learnt)}

    @classmethod
    def of(cls, config):
        return cls(learnt=tuple(config["learnt"]))


def open_series(data, target):
    if not isinstance(data, Long):
        return None
    parts = data.frame.sort("id", "time").partition_by("id", maintain_order=True)
    view = Spans(tuple(map(len, parts)), PAST + data.horizon)
    values = torch.from_numpy(np.concatenate([part["value"].to_numpy() for part in parts]))
    field = Windows(values, torch.from_numpy(view.starts()), PAST)
    made = {"target": None, "targets": (), "fingerprint": fingerprint(field)}
    return Source(view=view, name="series", inputs=field, **made)


def centred(field):
    seen = field.take(torch.arange(len(field)))
    return Series(float(seen.mean()), float(seen.std()))


SERIES = SimpleNamespace(
    open=open_series,
    recognise=lambda field, settings: "series" if isinstance(field, Windows) else None,
    fit=lambda field, name, settings: centred(field),
    restore=lambda config: Series(*config["learnt"]),
)
FORECAST = SimpleNamespace(
    derives=True,
    recognise=lambda source: "a long table",
    pose=lambda source, why, args: Forecast(),
    restore=Forecast.of,
)


def test_a_long_table_of_several_series_with_a_horizon(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    registered(monkeypatch, kinds.KINDS, "series", SERIES)
    registered(monkeypatch, TASKS, "forecast", FORECAST)
    rows = [(who, t, 100 + 20 * np.sin(t / 3 + who)) for who in range(3) for t in range(150)]
    long = Long(pl.DataFrame(rows, schema=["id", "time", "value"], orient="row"), HORIZON)
    run = st.fit(long, budget="60 epochs", model="linear", **QUICK)
    assert run.metrics["test/rmse"] < 2, "in units of the table"
    found = st.Run(run.folder).predict(long)
    assert found.shape == (3 * (150 - PAST - HORIZON + 1), HORIZON)
    truth = np.array([100 + 20 * np.sin((PAST + step) / 3) for step in range(HORIZON)])
    assert np.abs(found[0] - truth).max() < 6


@pytest.mark.parametrize("lengths", [(100,), (60, 25, 140), (30, 3)])
@pytest.mark.parametrize("stride", [1, 4])
def test_windows_are_cut_with_a_gap_as_long_as_a_window(lengths, stride):
    window = 10
    view = Spans(lengths, window, stride)
    starts = view.starts()
    series = np.searchsorted(np.cumsum(lengths), starts, side="right")
    assert (np.searchsorted(np.cumsum(lengths), starts + window - 1, side="right") == series).all()
    parts = view.cut([0.2, 0.2])
    steps = [{step for row in part for step in range(starts[row], starts[row] + window)} for part in parts]
    assert len(parts[0])
    for early, late in ((0, 1), (1, 2), (0, 2)):
        assert not steps[early] & steps[late], "no step is seen in two parts"
        for one in range(len(lengths)):
            first, last = (starts[part[series[part] == one]] for part in (parts[early], parts[late]))
            assert not len(first) or not len(last) or last.min() - first.max() >= window
    assert (np.diff(starts[parts[0][series[parts[0]] == 0]]) == stride).all()


def test_batches_of_windows_hold_the_text_once():
    field = Windows(torch.arange(1000), torch.arange(900), 50)
    assert field.nbytes == 8000
    data = Held((field, field.later(1)), lambda inputs: inputs)
    (batch,) = next(batches(data, 4, shuffle=False).start(2))
    assert torch.equal(batch[0][:, 0], torch.arange(8, 12))
    assert torch.equal(batch[1], batch[0] + 1)


def test_files_that_cannot_be_read_at_all_are_refused(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"no array")
    with pytest.raises(st.UserError, match="None of the 1 files can be read"):
        readable([tmp_path / "a.npy"], lambda path: np.load(path, allow_pickle=False))


def test_without_a_target_nothing_is_guessed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    registered(monkeypatch, kinds.KINDS, "letters", LETTERS)
    (tmp_path / "some.txt").write_text("abcd" * 50)
    assert sources.read("some.txt").target is None
    with pytest.raises(st.UserError, match="no target to learn from"):
        st.fit("some.txt", model="linear", **QUICK)
