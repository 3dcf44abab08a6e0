"""`check_task`: what a task must keep."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

from steepest.data.source import Source
from steepest.tasks.target import Task
from steepest.train import loss, metrics


def check_task(task: Task, source: Source, *, args: dict[str, Any] | None = None) -> None:
    """Hold a task to its contract, on a source of its kind with a target. AssertionError where it fails.

    The target is recognised, posed and fitted; its config, through JSON, restores it; each target is encoded
    alike whatever stands beside it; outputs of the shape that was said go through its loss, its metrics,
    `decode` and `examples`; what is measured adds over batches; the yardstick has the shape too."""
    why = task.recognise(source)
    assert why, "recognise gives no reason for a target of this task"
    assert source.target is not None, "a check needs a source with a target"
    target = task.pose(source, why, args or {}).fitted(source.target)
    again = task.restore(json.loads(json.dumps(target.config())))
    assert again.config() == target.config(), "config does not restore the same config"
    assert target.noun, "a target has a noun"
    assert target.names, "a target has names"
    assert all(line.endswith(".") for line in target.sentences()), "sentences end with a full stop"
    encoded = torch.from_numpy(target.encode(source.target))
    assert torch.equal(torch.from_numpy(target.encode(source.target[2:5])), encoded[2:5]), (
        "three targets alone are encoded otherwise than among all"
    )
    assert torch.equal(torch.from_numpy(again.encode(source.target)), encoded), (
        "restored, it encodes otherwise"
    )
    chosen = loss.build("auto", target)
    outputs = _outputs(target.shape(chosen.target), encoded)
    value = loss.check(outputs, encoded, chosen)
    assert value.isfinite(), f"the loss of outputs around 0 is {value:g}"
    value.backward()
    moved = 0.0 if outputs.grad is None else float(outputs.grad.abs().sum())
    assert moved > 0, "the loss does not depend on the outputs"
    outputs = outputs.detach()
    target.check_outputs(outputs, chosen.target)
    _check_metrics(target, outputs, encoded)
    for name, found in {"decode": target.decode(outputs), "predictions": target.predictions(outputs)}.items():
        assert len(found) == len(outputs), f"{name} gives {len(found)} answers to {len(outputs)} outputs"
    kept = target.examples(outputs, encoded)
    assert {"truth", "guess"} <= kept.keys(), "examples gives truth and guess"
    assert all(isinstance(one, np.ndarray) for one in kept.values()), "examples gives arrays"
    constant = target.constant(encoded)
    assert constant is None or constant.shape == outputs.shape[1:], (
        "the yardstick has another shape than outputs"
    )


def _outputs(shape: tuple[int | None, ...], encoded: torch.Tensor) -> torch.Tensor:
    """Outputs as a network gives them before it is trained; free lengths are those of the targets."""
    free = iter(encoded.shape[1:])
    sizes = [next(free) if size is None else size for size in shape]
    chance = torch.Generator().manual_seed(0)
    return (0.1 * torch.randn(len(encoded), *sizes, generator=chance)).requires_grad_()


def _check_metrics(target: Any, outputs: torch.Tensor, encoded: torch.Tensor) -> None:
    """Sums over batches give what one batch gives; a fresh one has the names that it said."""
    counted = []
    for ends in ([len(outputs)], [1, len(outputs) // 2, len(outputs)]):
        made, begin = metrics.build(target), 0
        for end in ends:
            made.update(outputs[begin:end], encoded[begin:end])
            begin = end
        counted.append(made.compute())
    whole, parts = counted
    assert set(target.metrics().names) == set(whole), (
        f"names says {target.metrics().names}, measured {[*whole]}"
    )
    for name, value in whole.items():
        assert np.isclose(value, parts[name], rtol=1e-6, atol=1e-9, equal_nan=True), (
            f"{name} is {value:g} in one batch and {parts[name]:g} in three"
        )
