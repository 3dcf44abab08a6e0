"""A run is a folder: where each file of it lies, who may write in it, and how a file is written whole."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_ident

from steepest.optim.errors import UserError

LOCK = ".lock"
"""The file whose lock says that a process writes here."""


class Unwritable(UserError, OSError):
    """The disk refuses a file: there is no space, or no right to write."""


class Folder:
    """The paths of one run folder; `path` need not exist yet."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.recipe = self.path / "recipe.toml"
        self.resolved = self.path / "resolved.json"
        self.evidence = self.path / "evidence.jsonl"
        self.metrics = self.path / "metrics.csv"
        self.result = self.path / "result.json"
        self.env = self.path / "env.json"
        self.checkpoints = self.path / "checkpoints"
        self.best = self.path / "best"
        self.last = self.path / "last"
        self.report = self.path / "report.html"
        self.model = self.path / "model.safetensors"
        self.preprocessing = self.path / "preprocessing.json"
        self.examples = self.path / "examples.npz"

    def create(self) -> None:
        """Make the folder and see that it can be written to. Raises UserError where it cannot."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path / ".writable", b"")
            (self.path / ".writable").unlink()
        except OSError as error:
            reason = getattr(error.__cause__ or error, "strerror", error)
            raise Unwritable(
                f"The run folder {str(self.path)!r} cannot be written: {reason}. "
                "Choose another with --out, or free space and give yourself the right to write there."
            ) from error

    def names(self) -> set[str] | None:
        """What lies in it by now; None where there is no such folder."""
        return {path.name for path in self.path.iterdir()} if self.path.is_dir() else None

    def give_back(self, found: set[str] | None, *written: str) -> None:
        """Take away what a refused command has written, but for what was found here; and the folder, where
        there was none."""
        for name in {*written, LOCK, self.env.name, self.evidence.name} - (found or set()):
            place = self.path / name
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        if found is None:
            with suppress(OSError):  # something else lies in it by now
                self.path.rmdir()

    @contextmanager
    def lock(self) -> Generator[None]:
        """Hold the folder for this process; the kernel lets go when the process ends, however it ends."""
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / LOCK, "ab")  # noqa: SIM115
        with lock as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"Another process is training in {str(self.path)!r}. "
                    "Wait for it, stop it, or give this run a folder of its own with --out."
                ) from None
            yield


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: a neighbour is written and synced, then takes the name."""
    neighbour = path.with_name(f".{path.name}.{os.getpid()}-{get_ident()}.tmp")  # of this thread alone
    with writing(path):
        try:
            with open(neighbour, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(neighbour, path)
        except BaseException:
            with suppress(OSError):
                neighbour.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Within it a disk that refuses is a sentence that names the file."""
    try:
        yield
    except OSError as error:
        raise Unwritable(
            f"{str(path)!r} cannot be written: {error.strerror or error}. Free space, or give yourself the "
            "right to write there; what was saved before stands, and `steepest resume` goes on from it."
        ) from error


def sync_folder(path: Path) -> None:
    """Make names made, replaced or removed in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
