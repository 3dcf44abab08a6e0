"""`loop`: a training loop of one's own, made safe.

    with loop(net, opt, data, out="runs/mine", epochs=20) as steps:
        for x, y in steps:
            steps.step(cross_entropy(net(x), y))

Killed at any instant and started again, it goes on to the identical bits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from steepest.data.batches import Batches, batches
from steepest.data.varied import VariedPlan
from steepest.files import Folder
from steepest.optim.batch import BatchPolicy
from steepest.optim.errors import UserError
from steepest.train import descent
from steepest.train.average import Average
from steepest.train.budget import Budget, parse
from steepest.train.cadence import Cadence
from steepest.train.division import Division
from steepest.train.evaluation import Evaluation
from steepest.train.guard import Guard
from steepest.train.keeper import Keeper
from steepest.train.loggers import Logger
from steepest.train.record import MeanLoss, Record
from steepest.train.scaler import LossScale
from steepest.train.session import Loop
from steepest.train.state import plain
from steepest.train.stopping import Stopping, sign
from steepest.train.subject import Stateful, Subject
from steepest.train.update import Update
from steepest.train.watch import Watch

__all__ = ["Loop", "loop"]


def loop(
    net: nn.Module,
    opt: torch.optim.Optimizer,
    data: Any,
    *,
    out: str | os.PathLike[str] | Folder | None = None,
    epochs: float | None = None,
    budget: str | Budget | None = None,
    horizon: int | None = None,
    batch_size: int | str | BatchPolicy = 64,
    accumulate: int = 1,
    seed: int = 0,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    clip_adaptive: float | None = None,
    precision: Literal["32", "bf16", "16"] = "32",
    average: float | None = None,
    stopping: Stopping | None = None,
    guard: bool | Guard = True,
    evaluate: Callable[[], Mapping[str, float]] | None = None,
    evaluate_every: str | Budget = "1 epoch",
    monitor: str | None = None,
    mode: Literal["auto", "min", "max"] = "auto",
    save_every: str | Budget = "30s",
    keep: int = 3,
    log: Sequence[Logger] = (),
    on_step: Callable[[Loop], object] | None = None,
    on_evaluation: Callable[[Loop, dict[str, Any]], object] | None = None,
    carry: Mapping[str, Stateful] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Loop:
    """A loop over microbatches that updates, evaluates, saves, resumes and stops.

    opt             steepest's optimizer or any of torch.optim
    data            what `data.batches.batches` takes, or such Batches (then batch_size, accumulate and their
                    seed are theirs)
    batch_size      examples an update, "full", or a policy; the rate beside a policy is the caller's:
                    lr=batch.Compensated(1e-3, policy)
    out             a run folder, resumed by itself when it holds a run; None: nothing is written. A path is
                    locked and its result.json written; a `Folder` is the caller's, who does both
    epochs, budget  how long; "60s", "500 steps", "20 epochs"
    horizon         steps that a budget in seconds was measured to hold; it ends at whichever comes first
    seed            of the data's order, and of the global random generators inside the loop
    clip_*          largest norm, largest coordinate, largest norm of a unit's gradient beside its weights
    precision       of the forward pass, inside `steps.autocast()`
    average         decay of a moving average of the weights, which is then what is evaluated and shipped
    stopping        when to decay, rewind and stop; None: only the best is kept
    guard           keep non-finite losses and gradients from the weights
    evaluate        function → {metric: number}; sees the weights to ship
    monitor, mode   metric that the best goes by (default val/loss, without `evaluate` train/loss)
    save_every      "30s", "500 steps", "1 epoch"; also saved: the start, the end, and at SIGINT and SIGTERM
    keep            newest checkpoints kept, beside those needed
    log             loggers; metrics.csv is always written when there is a folder. One that raises is told no
                    more, with a warning, and the run goes on
    on_step, on_evaluation  called with the loop (and the row) after each; where one raises, the run is saved
                    and ended
    carry           further objects with state_dict, saved along (a scheduler of torch.optim); what listens to
                    the optimizer (`hypertune`) is so by itself
    settings        what loggers are told of the run before its first row"""
    source = data if hasattr(data, "start") else batches(data, batch_size, accumulate=accumulate, seed=seed)
    monitor = monitor or ("train/loss" if evaluate is None else "val/loss")
    folder = out if isinstance(out, Folder) or out is None else Folder(out)
    averaged = None if average is None else Average(plain(net), average)
    face = descent.of(opt, plain(net))
    if averaged is not None and face.averages:
        raise UserError(
            f"average={average} would average weights of which the optimizer ships an average of its own. "
            "Leave it out, or take a rule without one."
        )
    shipped = averaged.swapped if averaged is not None else face.evaluated if face.averages else None
    update = Update(
        face,
        guard=Guard() if guard is True else guard or None,
        clip_norm=clip_norm,
        clip_value=clip_value,
        clip_adaptive=clip_adaptive,
        scale=LossScale() if _known(precision) == "16" else None,
    )
    record = Record(folder.metrics if folder else None, log)
    carried = _listening(opt) | dict(carry or {})
    subject = Subject(
        net,
        face,
        update,
        MeanLoss(),
        record,
        averaged,
        carried,
        data=_described(source, seed),
        division=Division(_varied(source)),
    )
    watch = Watch(
        subject=subject,
        cadence=_cadence(epochs, budget, horizon, evaluate_every, save_every, source),
        evaluation=Evaluation(net, evaluate, monitor, shipped),
        stopping=stopping or Stopping(),
        sign=sign(monitor, mode),
        keeper=Keeper(folder, keep),
        folder=folder,
        seed=seed,
    )
    return Loop(watch, source, precision, folder is not out, on_step, on_evaluation, settings or {})


def _cadence(
    epochs: float | None,
    budget: str | Budget | None,
    horizon: int | None,
    evaluate_every: str | Budget,
    save_every: str | Budget,
    source: Batches,
) -> Cadence:
    if (epochs is None) == (budget is None):
        raise UserError('Say how long to train: epochs=20, or budget="60s" or "500 steps"; one of the two.')
    allowed = Budget(float(epochs), "epochs") if epochs is not None else parse(budget or "")
    return Cadence(
        allowed,
        horizon,
        parse(evaluate_every, "evaluate_every"),
        parse(save_every, "save_every"),
        source.per_epoch,
        _varied(source),
    )


def _listening(opt: torch.optim.Optimizer) -> dict[str, Stateful]:
    """What listens to the optimizer and has a state, as `hypertune` does: it is a part of the run."""
    found = [one for one in getattr(opt, "listeners", ()) if hasattr(one, "state_dict")]
    return {f"{type(one).__name__} {number}": one for number, one in enumerate(found, 1)}


def _described(source: Batches, seed: int) -> dict[str, Any]:
    """What of the data must be the same when a run is resumed."""
    varied = _varied(source)
    policy = {} if varied is None else {"batch_size": str(varied.policy)}
    return {"examples": source.examples, "updates an epoch": source.per_epoch, "seed": seed} | policy


def _varied(source: Batches) -> VariedPlan | None:
    """What a person's own batches need not have."""
    return getattr(source, "varied", None)


def _known(precision: str) -> str:
    if precision not in ("32", "bf16", "16"):
        raise UserError(f'precision must be "32", "bf16" or "16", got {precision!r}.')
    return precision
