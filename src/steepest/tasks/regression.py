"""Numbers: one or several for every example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from steepest.data.source import Source
from steepest.optim.errors import UserError
from steepest.tasks.measures import RegressionMetrics
from steepest.tasks.target import Expressions, Target, check_finite, floats, refuse_args


@dataclass(frozen=True)
class Numbers(Target):
    """Numbers, standardised by the training part: (target - shift) / scale, for every target."""

    names: tuple[str, ...]
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    why: str = ""
    task: ClassVar[str] = "regression"
    noun: ClassVar[str] = "a number"
    loss: ClassVar[str] = "mean_squared_error"
    layouts: ClassVar[tuple[str, ...]] = ("numbers",)

    def shape(self, layout: str) -> tuple[int]:
        """One output a target."""
        return (len(self.names),)

    def fitted(self, target: np.ndarray | None, scale: bool = True, encoders: Any = None) -> Numbers:
        """With mean and deviation of the training targets; without a target, or unscaled, numbers stay."""
        if target is None or not scale:
            return self
        from sklearn.preprocessing import StandardScaler

        with np.errstate(over="ignore", invalid="ignore"):
            scaler: Any = StandardScaler().fit(target.astype(np.float64).reshape(len(target), -1))
        if not np.isfinite([scaler.mean_, scaler.scale_]).all():
            raise UserError(
                f"The target {' or '.join(self.names)} is too large to be standardised (its squares "
                "overflow). Give it in another unit."
            )
        return replace(self, shift=tuple(scaler.mean_.tolist()), scale=tuple(scaler.scale_.tolist()))

    def encode(self, target: np.ndarray) -> np.ndarray:
        """float32 standardised numbers, (n,) or (n, targets)."""
        columns = target.reshape(len(target), -1).T
        if len(columns) != len(self.names):
            raise UserError(
                f"These data have {len(columns)} targets and the training data {len(self.names)} "
                f"({', '.join(self.names)}). They must agree."
            )
        rows = np.stack([finite(name, column) for name, column in zip(self.names, columns, strict=True)], 1)
        return ((rows - self.shift) / self.scale).astype(np.float32).reshape(target.shape)

    def decode(self, outputs: np.ndarray | Tensor) -> np.ndarray:
        """Numbers in the target's units, (n,) or (n, targets)."""
        values = floats(outputs)
        rows = values.reshape(len(values), -1).astype(np.float64) * self.scale + self.shift
        return rows[:, 0] if len(self.names) == 1 else rows

    def metrics(self) -> RegressionMetrics:
        """RMSE, MAE in the target's units; R²."""
        return RegressionMetrics(self.scale)

    def constant(self, target: Tensor) -> Tensor:
        """The mean."""
        return target.double().mean(0).reshape(len(self.names)).float()

    def expressions(self, layout: str) -> Expressions:
        """RMSE in the target's units."""
        one = len(self.scale) == 1
        error = f"{'SD' if one else 'target.new_tensor(SD)'} * (outputs.reshape_as(target) - target)"
        unit = (
            self.scale[0] if one else list(self.scale),
            "standard deviation of the target: the network's unit",
        )
        return Expressions("rmse", f"({error}).square()", "math.sqrt(mean)", constants={"SD": unit})

    def sentences(self) -> list[str]:
        """What is predicted and why; how it is standardised."""
        lines = [f"Predicts the number {' and '.join(self.names)} (regression): {self.why}."]
        if set(self.scale) != {1.0}:
            units = (
                f"{n} by {s:.4g} around {m:.4g}"
                for n, m, s in zip(self.names, self.shift, self.scale, strict=True)
            )
            lines.append(f"Numbers to predict are standardised for training: {'; '.join(units)}.")
        return lines

    def config(self) -> dict[str, Any]:
        """All of it as JSON's own types."""
        scaled = {"shift": list(self.shift), "scale": list(self.scale)}
        return {"names": list(self.names), **scaled, "why": self.why}

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Numbers:
        """The target that `config` describes."""
        return cls(*(tuple(config[name]) for name in ("names", "shift", "scale")), why=config["why"])


def recognise(source: Source) -> str | None:
    """Numbers that are not a few labels; several at once."""
    target = source.target
    assert target is not None
    if target.ndim > 2 or (target.ndim == 1 and target.dtype.kind not in "iuf"):
        return None
    if target.ndim == 2:
        return f"{target.shape[1]} targets at once"
    if not source.view.held:
        return "numbers with a fraction's type" if target.dtype.kind == "f" else None
    distinct = np.unique(target[np.isfinite(target)])
    if not np.equal(np.mod(distinct, 1), 0).all():
        return "its values have fractions"
    return f"{len(distinct)} different whole numbers"


def pose(source: Source, why: str, args: Mapping[str, Any]) -> Numbers:
    """Finite numbers, one column of which at least holds two different ones."""
    refuse_args("regression", args)
    target, names = source.target, source.targets
    assert target is not None
    if target.ndim > 2:
        raise UserError(
            f"A regression predicts one number or a row of numbers for every example, and the target has "
            f"shape {target.shape}. Give y.reshape(len(y), -1), and reshape what comes back."
        )
    _check(target, names)
    return Numbers(names, (0.0,) * len(names), (1.0,) * len(names), why)


def restore(config: Mapping[str, Any]) -> Numbers:
    """The target that a run folder keeps."""
    return Numbers.of(config)


def finite(name: str, column: np.ndarray) -> np.ndarray:
    """A target as float64. Raises UserError for text, NaN and infinity, naming the first row."""
    try:
        values = column.astype(np.float64)
    except (TypeError, ValueError):
        examples = ", ".join(repr(str(value)) for value in sorted(set(map(str, column)))[:3])
        raise UserError(
            f"The target {name!r} holds text ({examples}) where a regression needs numbers. Give "
            "task='classification' or another target."
        ) from None
    check_finite(name, values)
    return values


def _check(target: np.ndarray, names: Sequence[str]) -> None:
    columns = [finite(n, c) for n, c in zip(names, target.reshape(len(target), -1).T, strict=True)]
    if all((values == values[0]).all() for values in columns):
        raise UserError(
            f"The target {names[0]!r} is constant: every row is {columns[0][0]:g}, so there is nothing to "
            "learn. Is it the right column?"
        )
