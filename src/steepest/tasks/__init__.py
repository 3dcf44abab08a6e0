"""Tasks: what there is to learn, each in a file of its own, found by name.

Another package brings one under the entry point group "steepest.tasks": a module or object with the
functions of `Task`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steepest.data.source import Source
from steepest.optim.errors import UserError, did_you_mean
from steepest.optim.registry import Registry
from steepest.tasks.target import Target, Task

__all__ = ["TASKS", "Target", "Task", "pose", "restore"]

TASKS: Registry[Task] = Registry(
    "task",
    "steepest.tasks",
    {name: f"steepest.tasks.{name}" for name in ("positions", "multilabel", "classification", "regression")},
)
"""A target is of the first that recognises it."""


def pose(source: Source, task: str = "auto", args: Mapping[str, Any] | None = None) -> Target:
    """The target that a source poses, checked: of the task that was asked for, or the first that
    recognises it. Nothing is fitted yet."""
    if task != "auto" and task not in TASKS:
        known = ", ".join(map(repr, TASKS.names()))
        near = did_you_mean(task, TASKS.names())
        raise UserError(f"task must be 'auto' or one of {known}, got {task!r}.{near}")
    if source.target is None:
        return _derived(source, task, args or {})
    if task == "classification" and source.target.ndim > 1:  # the word covers classes at every position
        handed_out = not source.view.held
        task = "positions" if handed_out or TASKS["positions"].recognise(source) is not None else task
    if task != "auto":
        return TASKS[task].pose(source, "as asked", args or {})
    for _, one in TASKS.items():
        if not getattr(one, "derives", False) and (why := one.recognise(source)) is not None:
            return one.pose(source, why, args or {})
    raise UserError(
        f"Cannot tell what is to be learnt from a target of shape {source.target.shape} and type "
        f"{source.target.dtype}. Name the task: task={' or '.join(map(repr, TASKS.names()))}."
    )


def _derived(source: Source, task: str, args: Mapping[str, Any]) -> Target:
    """The target of a source that has none: of a task that makes it of the inputs."""
    for name, one in TASKS.items():
        if not getattr(one, "derives", False) or task not in ("auto", name):
            continue
        why = "as asked" if task == name else one.recognise(source)
        if why is not None:
            return one.pose(source, why, args)
    raise UserError("There is no target to learn from. Give target=, or (X, y).")


def restore(config: Mapping[str, Any]) -> Target:
    """The target that `{"task": name, …}` describes."""
    return TASKS[config["task"]].restore(config)
