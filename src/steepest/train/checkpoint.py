"""Checkpoints: folders that are whole or not there, and that tell when they were damaged.

    checkpoints/step-000500/{model.safetensors, state.safetensors, state.json, MANIFEST.json}

They hold a `Snapshot`: the network's weights under their own names, every other tensor under the place that
it has in the states of the run's parts, and what else these hold as JSON, with marks where tensors were.
Written under another name; the manifest, last, holds size and SHA-256 of every file; then renamed. A
checkpoint is good when its manifest says so. Loading executes no code.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from steepest.files import Folder, Unwritable, sync_folder
from steepest.optim.errors import UserError
from steepest.recipe import FORMAT, READ
from steepest.train import format_1
from steepest.train.packing import packed, unpacked
from steepest.train.state import Snapshot
from steepest.world import ALONE, World

MANIFEST = "MANIFEST.json"
LARGEST_HEADER = 100_000_000
"""Bytes; what safetensors itself allows."""


class Damaged(UserError):
    """A checkpoint or tensor file that is not what was written; the sentence says what is wrong with it."""


def path_of(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return checkpoints / f"step-{step:06d}"


def steps(checkpoints: Path) -> list[int]:
    """Steps of all checkpoints, newest first; good or not."""
    names = (path.name.removeprefix("step-") for path in checkpoints.glob("step-*"))
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def write(checkpoints: Path, snapshot: Snapshot) -> Path:
    """Put a snapshot on the disk, whole or not at all. Raises Unwritable where the disk refuses."""
    final = path_of(checkpoints, snapshot.step)
    made = checkpoints / f".{final.name}.tmp"
    try:
        checkpoints.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        _fill(made, snapshot)
        _replace(made, final)
    except OSError as error:
        shutil.rmtree(made, ignore_errors=True)
        raise Unwritable(
            f"The checkpoint of step {snapshot.step} cannot be written to {str(checkpoints)!r}: "
            f"{error.strerror or error}. Earlier checkpoints are untouched; make room and resume."
        ) from error
    return final


def _fill(folder: Path, snapshot: Snapshot) -> None:
    rest = {name: part for name, part in snapshot.parts.items() if name != "network"}
    plain, tensors = packed(rest)
    files = {
        "model.safetensors": safetensors.torch.save(snapshot.model),
        "state.safetensors": safetensors.torch.save(tensors),
        "state.json": json.dumps({"step": snapshot.step, "parts": plain}, indent=1).encode(),
    }
    for name, content in files.items():
        _write_synced(folder / name, content)
    listed = {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    }
    manifest = {
        "format": FORMAT,
        "step": snapshot.step,
        "finite": snapshot.finite,
        "needs": snapshot.needs,
        "files": listed,
    }
    _write_synced(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
    sync_folder(folder)


def _write_synced(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _replace(made: Path, final: Path) -> None:
    """Give the folder its name; one that has the name steps aside until that is done."""
    old = final.with_name(f".{final.name}.old")
    if final.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(final, old)
    os.replace(made, final)
    sync_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def tidy(checkpoints: Path) -> None:
    """Clear away what a kill left half done; to be called by the holder of the folder's lock."""
    for old in checkpoints.glob(".step-*.old"):
        final = old.with_name(old.name.removeprefix(".").removesuffix(".old"))
        if final.exists():
            shutil.rmtree(old)
        else:
            os.replace(old, final)
    for made in checkpoints.glob(".step-*.tmp"):
        shutil.rmtree(made)


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint. Raises Damaged where there is none that can be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        version, listed = manifest["format"], manifest["files"]
        listed.items()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Damaged(
            f"{folder.name} has no readable {MANIFEST} ({type(error).__name__}). It is left out."
        ) from None
    if version not in READ:
        raise Damaged(f"{folder.name} has format {version!r}; this version of steepest reads up to {FORMAT}.")
    return manifest


def read(folder: Path) -> Snapshot:
    """The snapshot in a checkpoint, in fresh memory. Raises Damaged unless every byte is the one written."""
    manifest = manifest_of(folder)
    content = {name: _verified(folder / name, **entry) for name, entry in manifest["files"].items()}
    held = json.loads(content["state.json"])
    model, state = (
        tensors(content[name], f"{folder.name}/{name}") for name in ("model.safetensors", "state.safetensors")
    )
    if manifest["format"] == FORMAT:
        return Snapshot(held["step"], {"network": model, **unpacked(held["parts"], state)})
    return Snapshot(held["step"], format_1.checkpoint(model, state, held))


def _verified(path: Path, size: int, sha256: str) -> bytes:
    name = f"{path.parent.name}/{path.name}"
    try:
        found = path.stat().st_size
        if found != size:
            raise Damaged(f"{name} has {found} bytes, {size} were written. It was cut short or written over.")
        content = path.read_bytes()
    except OSError as error:
        raise Damaged(f"{name} cannot be read: {error.strerror}.") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise Damaged(f"{name} has other bytes than were written (its SHA-256 differs).")
    return content


def tensors(content: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, in fresh memory; its header is mistrusted. Raises Damaged."""
    header = int.from_bytes(content[:8], "little")
    if len(content) < 8 or header > min(len(content) - 8, LARGEST_HEADER):
        raise Damaged(
            f"{name} is no safetensors file: it announces a header of {header} bytes and has {len(content)} "
            "in all. Write it anew or take another."
        )
    try:
        held = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise Damaged(
            f"{name} is no sound safetensors file: {error}. Write it anew or take another."
        ) from None
    return {key: tensor.clone() for key, tensor in held.items()}


def rotate(checkpoints: Path, keep: int, last: float = math.inf) -> None:
    """Delete all but the newest `keep`, the newest known to be finite, and what those need.

    last  the step of a run that has gone back to before damaged ones: these wait to be written anew"""
    known = [step for step in steps(checkpoints) if step <= last]
    manifests = {step: _manifest_or_empty(path_of(checkpoints, step)) for step in known}
    finite = next((step for step in known if manifests[step].get("finite") is True), None)
    kept = {*known[:keep]} | ({finite} if finite is not None else set())
    needed = {need for step in kept for need in manifests[step].get("needs", [])}
    for step in set(known) - kept - needed:
        remove(path_of(checkpoints, step))


def remove(folder: Path) -> None:
    """Take away the name first: a kill half-way leaves nothing that looks like a checkpoint."""
    doomed = folder.with_name(f".{folder.name}.tmp")
    if doomed.exists():  # of such a kill
        shutil.rmtree(doomed)
    os.replace(folder, doomed)
    shutil.rmtree(doomed)


def _manifest_or_empty(folder: Path) -> dict[str, Any]:
    try:
        return manifest_of(folder)
    except Damaged:
        return {}


def link(name: Path, target: Path) -> None:
    """Make `name` a relative link to `target`, in one go."""
    made = name.with_name(f".{name.name}.link")
    made.unlink(missing_ok=True)
    made.symlink_to(os.path.relpath(target, name.parent))
    os.replace(made, name)


class Checkpoints:
    """The states that a run can go back to: its best, its last good one, and what lies on the disk.

    Holds the best and the last good snapshot in memory; with a folder, saves them with every checkpoint.
    Each snapshot names in its progress the `best` and the `good` one that belong to it, so that a run which
    goes on from any of them goes on exactly."""

    def __init__(self, folder: Folder | None, keep: int = 3, world: World = ALONE) -> None:
        self.best: Snapshot | None = None
        self.good: Snapshot | None = None
        self._folder, self._world = folder, world
        self._keep = keep
        self._on_disk: set[int] = set()
        self._read: Snapshot | None = None

    @property
    def kept(self) -> bool:
        """Whether anything is written to a disk."""
        return self._folder is not None

    def load(self) -> tuple[Snapshot | None, list[str]]:
        """(the newest state that is good in all its parts, a sentence for each newer one that is not).

        Raises UserError where there are checkpoints and none is good: beginning again would lose them."""
        step, refused = self._world.on_main(self._newest)
        if step is None:
            return None, refused
        return self._read or self._whole(step), refused

    def _newest(self) -> tuple[int | None, list[str]]:
        refused: list[str] = []
        if self._folder is None or not self._folder.checkpoints.exists():
            return None, refused
        tidy(self._folder.checkpoints)
        for step in steps(self._folder.checkpoints):
            try:
                self._read = self._whole(step)
            except Damaged as error:
                refused.append(str(error))
            else:
                return step, refused
        if refused:
            raise UserError(
                f"None of the checkpoints in {str(self._folder.checkpoints)!r} can be used: "
                f"{' '.join(refused)} Restore one of them, or remove that folder to begin again."
            )
        return None, refused

    def remember(self, snapshot: Snapshot, *, best: bool, good: bool) -> None:
        """Hold this snapshot as the best, as the one that the guard would go back to, or as both."""
        self.best = snapshot if best else self.best
        self.good = snapshot if good else self.good

    def save(self, snapshot: Snapshot) -> None:
        """Put the snapshot, and what it needs, on the disk; then delete what no state needs. The main process
        writes, and the others wait for it."""
        if self._folder is not None:
            self._world.on_main(partial(self._save, snapshot, self._folder))

    def _save(self, snapshot: Snapshot, folder: Folder) -> None:
        place = folder.checkpoints
        for needed in (self.best, self.good):
            if needed is not None and needed.step not in self._on_disk | {snapshot.step}:
                self._write(place, needed)
        self._write(place, snapshot)
        link(folder.last, path_of(place, snapshot.step))
        if self.best is not None:
            link(folder.best, path_of(place, self.best.step))
        rotate(place, self._keep, snapshot.step)
        self._on_disk &= set(steps(place))

    def _write(self, place: Path, snapshot: Snapshot) -> None:
        write(place, snapshot)
        self._on_disk.add(snapshot.step)

    def _whole(self, step: int) -> Snapshot:
        assert self._folder is not None
        found = {step: read(path_of(self._folder.checkpoints, step))}
        for needed in found[step].needs:
            if needed not in found:
                found[needed] = read(path_of(self._folder.checkpoints, needed))
        progress = found[step].progress
        self.best, self.good = found.get(progress["best"]), found.get(progress["good"])
        self._on_disk = set(found)
        return found[step]
