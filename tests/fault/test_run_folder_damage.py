"""Damaged text files of a run folder: named, or done without; checkpoints stay as they are."""

import numpy as np
import pytest

import steepest as st

X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
DATA = (X, (X[:, 0] > 0).astype(np.int64))
GARBAGE = bytes(range(128, 256)) * 4


@pytest.fixture
def run(tmp_path):
    return st.fit(DATA, out=tmp_path / "run", model="linear", lr=None, budget="3 epochs").folder


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def more(run):
    return st.resume(run, data=DATA, budget="+1 epoch")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("metrics.csv", cut),
        ("metrics.csv", lambda path: path.write_bytes(GARBAGE)),
        ("evidence.jsonl", lambda path: path.write_bytes(GARBAGE)),
        ("evidence.jsonl", lambda path: path.write_text('{"choice"\n{"a": 1}\n')),
    ],
)
def test_what_cannot_be_read_is_named_and_can_be_moved_away(run, name, damage):
    damage(run / name)
    kept = (run / name).read_bytes()
    with pytest.raises(st.UserError, match=rf"{name}' is damaged"):
        more(run)
    assert (run / name).read_bytes() == kept
    (run / name).unlink()
    assert more(run).status == "finished"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", GARBAGE])
def test_an_environment_that_cannot_be_read_is_done_without(run, content):
    (run / "env.json").write_bytes(content)
    assert more(run).status == "finished"


def test_a_result_that_cannot_be_read_is_named(run):
    cut(run / "result.json")
    with pytest.raises(st.UserError, match=r"result\.json' is damaged"):
        _ = st.Run(run).metrics


def test_a_run_that_gave_up_does_not_say_that_it_can_be_resumed(tmp_path):
    def not_finite(outputs, target):
        return outputs.sum() * float("nan")

    with pytest.raises(Exception, match="gave up"):
        st.fit(
            DATA,
            out=tmp_path / "run",
            model="linear",
            lr=None,
            loss=not_finite,
            patience=99,
            budget="99 epochs",
        )
    assert "gave up at step" in (tmp_path / "run" / "result.json").read_text()
