"""What a run leaves behind when training is over: the test, the weights to ship, examples, the result."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from steepest import evidence as records
from steepest.evidence import Evidence
from steepest.files import Folder, write_atomic
from steepest.train import metrics
from steepest.train.fitting import averages, measure, predictions, renew
from steepest.train.job import Job
from steepest.train.loop import Loop
from steepest.train.prepare import parts_of

KEPT = 10_000
"""Test examples whose truth and guess are kept for the report."""
SHOWN = 24
"""Mistakes kept as pictures."""
SIDE = 64
"""Pixels of the longer side of a kept picture, at most."""
RENEWED = "batch_norm"
"""Name of the evidence that running statistics were measured anew."""


def finish(job: Job, steps: Loop, folder: Folder) -> dict[str, Any]:
    """Put the best weights in, test once, write all files of a finished run; the content of result.json."""
    ship(job, steps, folder)
    result = steps.result()
    if job.prepared.test is not None:
        data = job.batches_of(job.prepared.test)
        tested = measure(job, data, job.metrics())
        result["metrics"] |= {f"test/{name}": value for name, value in tested.items()}
        result["baseline"] = {f"test/{name}": value for name, value in _baseline(job).items()}
        write_atomic(folder.examples, _examples(job))
    write_atomic(folder.result, json.dumps(result, indent=1).encode())
    return result


def _baseline(job: Job) -> dict[str, float]:
    """What the best constant answer, the most frequent class or the mean, comes to on the test part.

    {} where targets are not held in memory, or the task has no such answer."""
    train, test = parts_of(job.prepared.train), parts_of(job.prepared.test)
    if not train or not test or not all(isinstance(part[1], torch.Tensor) for part in (train, test)):
        return {}
    constant = job.prepared.target.constant(train[1])
    if constant is None:
        return {}
    measures = metrics.build(job.prepared.target)
    measures.update(constant.expand(len(test[1]), *constant.shape), test[1], *test[2:3])
    return measures.compute()


def ship(job: Job, steps: Loop, folder: Folder) -> None:
    """The best weights into the network and into model.safetensors."""
    steps.restore_best()
    if averages(job):
        _say_renewed(renew(job), folder)
    weights = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in job.model.state_dict().items()
    }
    write_atomic(folder.model, save(weights))


def _say_renewed(batches: int, folder: Folder) -> None:
    """Record how the statistics beside the shipped weights came about, once a run."""
    told = any(one.choice == RENEWED for one in records.read(folder.evidence))
    if batches and not told:
        why = (
            "the weights to ship are averages and were never run: statistics are means over training batches"
        )
        records.append(folder.evidence, Evidence(RENEWED, batches, why))


def _examples(job: Job) -> bytes:
    """examples.npz: truth and guess in the target's own words or units, pictures of the worst mistakes."""
    outputs, target = _first_answers(job)
    arrays: dict[str, Any] = job.prepared.target.examples(outputs, target)
    if "score" in arrays and len(arrays["score"]) == len(outputs):
        arrays |= _pictures(job, arrays["truth"], arrays["guess"], arrays["score"])
    content = BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def _first_answers(job: Job) -> tuple[torch.Tensor, torch.Tensor]:
    outputs, target, counted = [], [], 0
    for output, batch in predictions(job, job.batches_of(job.prepared.test)):
        outputs.append(output.float().cpu())
        target.append(batch[1].cpu())
        counted += len(output)
        if counted >= KEPT:
            break
    return torch.cat(outputs)[:KEPT], torch.cat(target)[:KEPT]


def _pictures(job: Job, truth: np.ndarray, guess: np.ndarray, score: np.ndarray) -> dict[str, np.ndarray]:
    """Pictures of the mistakes that the network was surest of; {} where inputs are no pictures."""
    held = parts_of(job.prepared.test)
    images = held[0] if held and isinstance(held[0], torch.Tensor) else torch.empty(0)
    wrong = np.flatnonzero(truth != guess)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(wrong):
        return {}
    worst = wrong[np.argsort(-score[wrong], kind="stable")][:SHOWN]
    return {"pictures": _as_bytes(images[torch.from_numpy(worst)]), "picture_index": worst}


def _as_bytes(images: torch.Tensor) -> np.ndarray:
    """(n, channels, height, width) as uint8 (n, height, width[, 3]), at most SIDE pixels a side."""
    every = -(-max(images.shape[2:]) // SIDE)
    small = images[:, :, ::every, ::every].float()
    low, high = small.amin(dim=(1, 2, 3), keepdim=True), small.amax(dim=(1, 2, 3), keepdim=True)
    pixels = ((small - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).squeeze(3).cpu().numpy()
