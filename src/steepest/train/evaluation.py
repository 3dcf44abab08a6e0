"""One evaluation: the user's function, called so that it leaves no trace in the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import nn

from steepest.data.rng import preserved
from steepest.optim.errors import UserError, did_you_mean


class Evaluation:
    """Measures the weights to ship: the averaged ones where an average is kept.

    shipped  gives a context in which the network holds them; None: they are those that are trained
    measure  a function without arguments → {metric: number}; a name without "/" is put under val/; None: the
             training loss is all there is"""

    def __init__(
        self,
        net: nn.Module,
        measure: Callable[[], Mapping[str, float]] | None,
        monitor: str,
        shipped: Callable[[], AbstractContextManager[None]] | None,
    ) -> None:
        self.monitor = monitor
        self._net = net
        self._measure = measure
        self._shipped = shipped

    def __call__(self, train_loss: float) -> tuple[dict[str, float], float]:
        """(metrics of this moment, the monitored one). Raises UserError where that is not among them."""
        metrics = {"train/loss": train_loss} | self._measured()
        if self.monitor not in metrics:
            raise UserError(
                f"monitor is {self.monitor!r}, which the evaluation does not measure."
                + did_you_mean(self.monitor, metrics)
            )
        return metrics, metrics[self.monitor]

    @property
    def averages(self) -> bool:
        """Whether the weights to ship are others than those that are trained."""
        return self._shipped is not None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Within it the network holds the weights to ship; after it all is as it was."""
        averaged = nullcontext() if self._shipped is None else self._shipped()
        with preserved(self._net), averaged:
            yield

    def _measured(self) -> dict[str, float]:
        if self._measure is None:
            return {}
        with self.shown():
            found = self._measure()
        return {name if "/" in name else f"val/{name}": float(value) for name, value in found.items()}
