"""Every rule in every library and in every engine of ours, against its paper.

python benchmarks/conformance.py libraries   libraries and facts; writes results/conformance.jsonl (5 minutes)
python benchmarks/conformance.py engines     engines and faces; writes results/engines.jsonl (20 minutes)
python benchmarks/conformance.py document    docs/conformance.md from these two

Each part is a process of its own, since frameworks are set up once (64-bit JAX, Keras's backend):
python benchmarks/conformance.py part of_torch   its results as JSON lines, and nothing is written
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from contextlib import redirect_stdout
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "oracle")]

from record import RESULTS, surroundings  # noqa: E402

PACKAGES = (
    "steepest", "numpy", "torch", "optax", "jax", "keras", "tensorflow", "tensorflow_cpu", "timm",
    "pytorch_optimizer", "schedulefree", "prodigyopt",
)  # fmt: skip
BACKENDS = ("jax", "tensorflow", "torch")
LIBRARIES = (
    "ours", "of_torch", "of_timm", "of_pytorch_optimizer", "of_authors", "of_wrappers", "of_optax",
    *(f"of_keras {one}" for one in BACKENDS), "facts", *(f"keras_facts {one}" for one in BACKENDS),
)  # fmt: skip
ENGINES = ("engines_torch", "engines_jax", *(f"engines_keras {one}" for one in BACKENDS))


def part(name: str, backend: str = "") -> list[dict[str, Any]]:
    """The results of one module of peers, in this process."""
    module = import_module(f"peers.{name}")
    if hasattr(module, "results"):
        return list(module.results())
    from peers import deviation, torch_like

    run = getattr(module, "run", torch_like.run)
    rows = [row for peer in module.PEERS for row in deviation.measured(peer, run)]
    return [row | {"backend": backend} for row in rows] if backend else rows


def lines(name: str, backend: str = "") -> list[str]:
    """The same in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, "part", name]
    if backend:
        environment |= {"KERAS_BACKEND": backend}
        command.append(backend)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout.splitlines()


def anew(file: str, parts: tuple[str, ...]) -> None:
    """A file of results: what they were made with, then one a line."""
    made = surroundings() | {"versions": dict(installed())}
    found = []
    for one in parts:
        found += lines(*one.split())
        print(f"{one}: {len(found)} results so far", flush=True)
    (RESULTS / f"{file}.jsonl").write_text("\n".join([json.dumps(made), *found]) + "\n", encoding="utf-8")


def installed() -> Any:
    """(package, version) of those that are."""
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue


def main(command: str = "libraries", *arguments: str) -> None:
    """One of the commands above."""
    if command == "part":
        warnings.simplefilter("ignore")
        with redirect_stdout(sys.stderr):
            rows = part(*arguments)
        print("\n".join(map(json.dumps, rows)))
    elif command == "document":
        from peers.document import PAGE, page

        PAGE.write_text(page(), encoding="utf-8")
    elif command == "engines":
        anew("engines", ENGINES)
    else:
        anew("conformance", LIBRARIES)


if __name__ == "__main__":
    main(*sys.argv[1:])
