"""From a folder of raw data to arrays: each function reads one data set, by the split that README.md names.

All give {"train_x", "train_y", "validation_x", …}; with "shift" and "scale" where inputs are still to be
scaled, since pictures stay bytes in the cache; with "unit" where the metric has another unit than the target.
"""

from __future__ import annotations

import gzip
import io
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from steepest.optim.errors import UserError

Arrays: TypeAlias = dict[str, np.ndarray]
CONTEXT, STRIDE, WINDOWS = 64, 32, 256
"""Letters of a window; from the start of one window to the next in training; windows to validate on."""
WORDS = 37
"""Length of the longest sentence of TREC; longer ones of other sets are cut."""


def found(folder: Path, *parts: str) -> Path:
    """The path of a raw file. Raises UserError that says what is missing."""
    path = folder.joinpath(*parts)
    if not path.is_file():
        raise UserError(f"There is no {path}. Give the folder that holds {'/'.join(parts)} as --data.")
    return path


def parts(**pairs: tuple[np.ndarray, np.ndarray]) -> Arrays:
    """{"train_x": …, "train_y": …} of train=(x, y), …"""
    return {
        f"{part}_{name}": array
        for part, pair in pairs.items()
        for name, array in zip("xy", pair, strict=True)
    }


def shared(x: np.ndarray, y: np.ndarray, sizes: Sequence[int]) -> Arrays:
    """The first, next and last examples, as many of each as `sizes` says."""
    first, second = sizes[0], sizes[0] + sizes[1]
    cuts = {"train": slice(first), "validation": slice(first, second), "test": slice(second, sum(sizes))}
    return parts(**{name: (x[cut], y[cut]) for name, cut in cuts.items()})


def scaled(arrays: Arrays, axis: int | tuple[int, ...] = 0) -> Arrays:
    """The same with mean and deviation of the training inputs beside them."""
    x = arrays["train_x"].astype(np.float64)
    shift, scale = x.mean(axis, keepdims=True), x.std(axis, keepdims=True)
    return arrays | {"shift": shift.astype(np.float32), "scale": np.maximum(scale, 1e-6).astype(np.float32)}


def mnist(folder: Path) -> Arrays:
    """50,000, 10,000 and 10,000 handwritten digits, as (1, 28, 28) bytes."""
    with np.load(found(folder, "mnist", "mnist.npz")) as raw:
        x = np.concatenate([raw["x_train"], raw["x_test"]])[:, None]
        y = np.concatenate([raw["y_train"], raw["y_test"]]).astype(np.int64)
    return scaled(shared(x, y, (50_000, 10_000, 10_000)), axis=(0, 1, 2, 3))


def cifar(folder: Path) -> Arrays:
    """17,000, 3,000 and 5,000 small pictures of ten kinds, (3, 32, 32) bytes, from JPEG."""
    with np.load(found(folder, "cifar10-jpeg", "cifar10_jpeg_20k_5k.npz")) as raw:
        held = {name: raw[name] for name in raw.files}
    x = np.concatenate(
        [pictures(held[f"{part}_jpeg"], held[f"{part}_offsets"]) for part in ("train", "test")]
    )
    y = np.concatenate([held["train_label"], held["test_label"]]).astype(np.int64)
    order = np.concatenate([np.random.default_rng(0).permutation(20_000), np.arange(20_000, 25_000)])
    return scaled(shared(x[order], y[order], (17_000, 3_000, 5_000)), axis=(0, 2, 3))


def pictures(stream: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(n, 3, height, width) bytes of JPEG files that lie one after another."""
    from PIL import Image

    files = (io.BytesIO(stream[a:b].tobytes()) for a, b in pairwise(offsets))
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]).transpose(0, 3, 1, 2)


def fsdd(folder: Path) -> Arrays:
    """Spoken digits as 63 frames of 40 bands; recordings 0–4 of each are the test, 5–9 the validation."""
    with np.load(found(folder, "fsdd", "fsdd.npz")) as raw:
        audio, offsets, take = raw["audio"], raw["offsets"], raw["index"]
        y = raw["label"].astype(np.int64)
    x = np.stack([bands(audio[a:b]) for a, b in pairwise(offsets)])
    of = {"train": take >= 10, "validation": (take >= 5) & (take < 10), "test": take < 5}
    return scaled(parts(**{name: (x[rows], y[rows]) for name, rows in of.items()}), axis=(0, 1))


def bands(samples: np.ndarray, rate: int = 8000, size: int = 256) -> np.ndarray:
    """(63, 40) logarithms of the energy in bands of equal width on the mel scale, of one second."""
    second = np.zeros(rate, np.float32)
    second[: len(samples)] = samples[:rate] / 2**15
    wave, window = torch.from_numpy(second), torch.hann_window(size)
    energy = torch.stft(wave, size, size // 2, window=window, return_complex=True).abs().square().numpy()
    return np.log(triangles(40, size, rate) @ energy + 1e-6).T.astype(np.float32)


def triangles(count: int, size: int, rate: int) -> np.ndarray:
    """(count, size/2 + 1) triangles that overlap by half, evenly spaced in mel = 2595 log₁₀(1 + f/700)."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, count + 2) / 2595) - 1)
    f = np.linspace(0, rate / 2, size // 2 + 1)
    low, middle, high = (corners[i : i + count, None] for i in range(3))
    return np.maximum(0, np.minimum((f - low) / (middle - low), (high - f) / (high - middle)))


def shakespeare(folder: Path) -> Arrays:
    """Windows of letters and the letters after them; the last tenth of the text is held out in two halves."""
    text = found(folder, "tinyshakespeare", "input.txt").read_text(encoding="utf-8")
    coded = np.unique(list(text), return_inverse=True)[1].astype(np.int64)
    cut, half = int(0.9 * len(coded)), int(0.95 * len(coded))
    starts = {
        "train": np.arange(0, cut - CONTEXT, STRIDE),
        "validation": np.linspace(cut, half - CONTEXT - 1, WINDOWS).astype(int),
        "test": np.linspace(half, len(coded) - CONTEXT - 1, WINDOWS).astype(int),
    }
    places = {name: begin[:, None] + np.arange(CONTEXT) for name, begin in starts.items()}
    return parts(**{name: (coded[at], coded[at + 1]) for name, at in places.items()})


def trec(folder: Path) -> Arrays:
    """4,952, 500 and 500 questions of six kinds."""
    learnt = sentences(found(folder, "trec", "TREC.train.all.gz"))
    order = np.random.default_rng(0).permutation(len(learnt))
    held_out, kept = ([learnt[i] for i in part] for part in (order[:500], order[500:]))
    return numbered(kept, held_out, sentences(found(folder, "trec", "TREC.test.all.gz")))


def sst2(folder: Path) -> Arrays:
    """Sentences on films, good or bad, by their own split."""
    files = (f"stsa.binary.{part}.gz" for part in ("train", "dev", "test"))
    return numbered(*(sentences(found(folder, "sst2", file)) for file in files))


def sentences(path: Path) -> list[tuple[int, list[str]]]:
    """(label, words) of each line."""
    lines = gzip.decompress(path.read_bytes()).decode("latin-1").split("\n")
    cut = (line.partition(" ") for line in lines if line)
    return [(int(label), words.lower().split()) for label, _, words in cut]


def numbered(*three: list[tuple[int, list[str]]]) -> Arrays:
    """Words by number: 0 fills up, 1 stands for those that occur in the training part less than twice."""
    counts = Counter(word for _, words in three[0] for word in words)
    number = {word: i for i, word in enumerate(sorted(w for w, n in counts.items() if n > 1), start=2)}
    made = {}
    for name, part in zip(("train", "validation", "test"), three, strict=True):
        x = np.zeros((len(part), WORDS), np.int64)
        for row, (_, words) in zip(x, part, strict=True):
            row[: len(words)] = [number.get(word, 1) for word in words[:WORDS]]
        made[name] = x, np.array([label for label, _ in part])
    return parts(**made) | {"words": np.array(len(number) + 2)}


def california(folder: Path) -> Arrays:
    """Prices of houses in 100,000 $, from eight numbers of a district; outliers cut at five deviations."""
    import polars as pl

    raw = gzip.decompress(found(folder, "california-housing", "housing.csv.gz").read_bytes())
    frame = pl.read_csv(io.BytesIO(raw))
    number = {name: frame[name].to_numpy().astype(np.float64) for name in frame.columns[:-1]}
    by_house = {
        name: number[name] / number["households"] for name in ("total_rooms", "total_bedrooms", "population")
    }
    by_house["total_bedrooms"] = np.nan_to_num(
        by_house["total_bedrooms"], nan=float(np.nanmedian(by_house["total_bedrooms"]))
    )
    own = ("longitude", "latitude", "housing_median_age", "population", "median_income")
    x = np.stack([*(number[name] for name in own), *by_house.values()], 1)
    return table(x, number["median_house_value"] / 1e5, (13_200, 3_312, 4_128))


def letter(folder: Path) -> Arrays:
    """14,000, 2,000 and 4,000 printed letters, described by 16 numbers."""
    text = gzip.decompress(found(folder, "letter", "letter.dat.gz").read_bytes()).decode()
    rows = [line.split(",") for line in text.splitlines() if line]
    x = np.array([row[:16] for row in rows], np.float64)
    return table(
        x, np.array([ord(row[16]) - ord("A") for row in rows]), (14_000, 2_000, 4_000), shuffled=False
    )


def bundled(name: str) -> Callable[[Path], Arrays]:
    """A set that comes with scikit-learn, of which nothing is read from the folder."""

    def read(folder: Path) -> Arrays:
        from sklearn import datasets

        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        held = len(y) // 5
        return table(x, y, (len(y) - 2 * held, held, held))

    return read


def table(x: np.ndarray, y: np.ndarray, sizes: Sequence[int], shuffled: bool = True) -> Arrays:
    """Rows of numbers, scaled; a target of fractions too, with its deviation as the unit of the metric."""
    order = np.random.default_rng(0).permutation(len(x)) if shuffled else np.arange(len(x))
    x, y = x[order], y[order]
    taught = slice(sizes[0])
    x = (x - x[taught].mean(0)) / np.maximum(x[taught].std(0), 1e-6)
    x = x.clip(-5, 5).astype(np.float32)
    if y.dtype.kind != "f":
        return shared(x, y.astype(np.int64), sizes)
    shift, unit = y[taught].mean(), y[taught].std()
    return shared(x, ((y - shift) / unit).astype(np.float32), sizes) | {"unit": np.array(unit)}
