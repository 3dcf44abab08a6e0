"""Checkpoints: folders that are whole or not there, and that tell when they were damaged.

    checkpoints/step-000500/{model.safetensors, state.safetensors, state.json, MANIFEST.json}

Written under another name; the manifest, last, holds size and SHA-256 of every file; then renamed. A
checkpoint is good when its manifest says so. Loading executes no code.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from steepest.files import Unwritable, sync_folder
from steepest.optim.errors import UserError
from steepest.train.state import Snapshot

FORMAT = 1
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
    files = {
        "model.safetensors": safetensors.torch.save(snapshot.model),
        "state.safetensors": safetensors.torch.save(snapshot.state),
        "state.json": json.dumps({"step": snapshot.step, **snapshot.numbers}, indent=1).encode(),
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
    if version != FORMAT:
        raise Damaged(f"{folder.name} has format {version!r}; this version of steepest reads {FORMAT}.")
    return manifest


def read(folder: Path) -> Snapshot:
    """The snapshot in a checkpoint, in fresh memory. Raises Damaged unless every byte is the one written."""
    listed = manifest_of(folder)["files"]
    content = {name: _verified(folder / name, **entry) for name, entry in listed.items()}
    numbers = json.loads(content["state.json"])
    model, state = (
        tensors(content[name], f"{folder.name}/{name}") for name in ("model.safetensors", "state.safetensors")
    )
    return Snapshot(numbers.pop("step"), model, state, numbers)


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
