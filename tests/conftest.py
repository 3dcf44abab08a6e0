"""What holds for all tests: one thread each, no deadlines, repeatable random cases, no litter; which run.

`pytest` runs what every push must pass. `pytest -m full` runs that and the tests that are marked `full`: the
other backends, more instants to be killed at, statistics over many draws, the suite of benchmarks. A test
that is named by its id runs whatever its mark.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import each
import processes

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side, one process a core

settings.register_profile("house", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--case", default="", help="of tests that loop over cases, those with this in their name"
    )


def pytest_configure(config: pytest.Config) -> None:
    each.wanted = config.getoption("case")
    each.full = config.option.markexpr == "full" or bool(each.wanted)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A full run is all tests; another leaves out those that are marked `full`, unless it asks for more."""
    if config.option.markexpr == "full":
        for item in items:
            item.add_marker(pytest.mark.full)
    elif not config.option.markexpr and not any("::" in argument for argument in config.args):
        left_out = [item for item in items if item.get_closest_marker("full")]
        items[:] = [item for item in items if not item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(autouse=True, scope="session")
def no_process_outlives_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with processes.served(tmp_path_factory.mktemp("printed")):
        yield


@pytest.fixture(autouse=True, scope="module")
def charts_where_they_are_looked_at(request: pytest.FixtureRequest) -> Iterator[None]:
    """Charts are drawn in modules marked `charts`; where tests do not look at them they are blank."""
    from charts import Figure, left_blank

    with pytest.MonkeyPatch.context() as patch:
        if not request.node.get_closest_marker("charts"):
            patch.setattr(Figure, "savefig", left_blank)
        yield


@pytest.fixture
def full(pytestconfig: pytest.Config) -> bool:
    """Whether this is the full run, where random things are drawn anew and more often."""
    return pytestconfig.option.markexpr == "full"


@pytest.fixture(autouse=True, scope="session")
def nothing_is_left_where_the_tests_were_started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Relative paths, such as the default run folder, lead to a temporary folder."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("here"))
    yield
    os.chdir(before)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """The records of a finished run that told ten classes of pictures apart, as `fit` leaves them."""
    import numpy as np

    folder = tmp_path / "digits"
    folder.mkdir()
    draw = np.random.default_rng(0)
    truth = np.arange(200) % 10
    guess = np.where(draw.random(200) < 0.9, truth, (truth + 1) % 10)
    wrong = np.flatnonzero(truth != guess)
    pictures = draw.integers(0, 256, (len(wrong), 8, 8), dtype=np.uint8)
    files = {"truth": truth, "guess": guess, "score": draw.random(200), "pictures": pictures}
    np.savez(folder / "examples.npz", **files, picture_index=wrong)
    rows = ["step,epoch,seconds,train/loss,val/loss,val/accuracy,lr,grad_norm,factor,event"]
    events = {1: "improved", 2: "improved", 3: "guard", 4: "decay", 6: "stop"}
    for n in range(1, 7):
        losses = f"{1 / n},{1.2 / n if n < 3 else 0.7}"
        rows.append(f"{20 * n},{n},{n / 2},{losses},0.{n},0.001,{2 / n},1.0,{events.get(n, '')}")
    metrics = {"test/loss": 0.31, "test/accuracy": float((truth == guess).mean())}
    result = {"status": "finished", "step": 120, "best_step": 40, "seconds": 3.1, "metrics": metrics}
    choice = {"choice": "init", "decided": "default", "why": "no layer vanishes", "seconds": 0.03}
    choice["candidates"] = [{"layer": "conv", "std": 0.5}, {"layer": "head", "std": 0.61234567}]
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    (folder / "result.json").write_text(json.dumps(result | {"why": "val/loss no longer fell"}))
    (folder / "evidence.jsonl").write_text(json.dumps(choice) + "\n")
    (folder / "env.json").write_text(json.dumps({"steepest": "0.1.0", "threads": 2}))
    (folder / "recipe.toml").write_text('format = 1\ndata = "digits"\nlr = 0.00123456\ntarget = "none"\n')
    return folder
