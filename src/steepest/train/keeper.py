"""The states that a run can go back to: its best, its last good one, and what lies on the disk."""

from __future__ import annotations

from pathlib import Path

from steepest.files import Folder
from steepest.optim.errors import UserError
from steepest.train import checkpoint
from steepest.train.checkpoint import Damaged
from steepest.train.state import Snapshot


class Keeper:
    """Holds the best and the last good snapshot in memory; with a folder, saves them with every checkpoint.

    Each snapshot names in its numbers the `best` and the `good` one that belong to it, so that a run which
    goes on from any of them goes on exactly."""

    def __init__(self, folder: Folder | None, keep: int = 3) -> None:
        self.best: Snapshot | None = None
        self.good: Snapshot | None = None
        self._folder = folder
        self._keep = keep
        self._on_disk: set[int] = set()

    def load(self) -> tuple[Snapshot | None, list[str]]:
        """(the newest state that is good in all its parts, a sentence for each newer one that is not).

        Raises UserError where there are checkpoints and none is good: beginning again would lose them."""
        refused: list[str] = []
        if self._folder is None or not self._folder.checkpoints.exists():
            return None, refused
        checkpoint.tidy(self._folder.checkpoints)
        for step in checkpoint.steps(self._folder.checkpoints):
            try:
                return self._whole(step), refused
            except Damaged as error:
                refused.append(str(error))
        if refused:
            raise UserError(
                f"None of the checkpoints in {str(self._folder.checkpoints)!r} can be used: "
                f"{' '.join(refused)} Restore one of them, or remove that folder to begin again."
            )
        return None, refused

    def save(self, snapshot: Snapshot) -> None:
        """Put the snapshot, and what it needs, on the disk; then delete what no state needs."""
        if self._folder is None:
            return
        place = self._folder.checkpoints
        for needed in (self.best, self.good):
            if needed is not None and needed.step not in self._on_disk | {snapshot.step}:
                self._write(place, needed)
        self._write(place, snapshot)
        checkpoint.link(self._folder.last, checkpoint.path_of(place, snapshot.step))
        if self.best is not None:
            checkpoint.link(self._folder.best, checkpoint.path_of(place, self.best.step))
        checkpoint.rotate(place, self._keep, snapshot.step)
        self._on_disk &= set(checkpoint.steps(place))

    def _write(self, place: Path, snapshot: Snapshot) -> None:
        checkpoint.write(place, snapshot)
        self._on_disk.add(snapshot.step)

    def _whole(self, step: int) -> Snapshot:
        assert self._folder is not None
        read = {step: checkpoint.read(checkpoint.path_of(self._folder.checkpoints, step))}
        for needed in read[step].needs:
            if needed not in read:
                read[needed] = checkpoint.read(checkpoint.path_of(self._folder.checkpoints, needed))
        self.best = read.get(read[step].numbers["best"])
        self.good = read.get(read[step].numbers["good"])
        self._on_disk = set(read)
        return read[step]
