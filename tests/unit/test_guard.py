"""The guard's machine, and the batch that it leaves behind."""

import numpy as np
import torch

from steepest.train.update import Guard, LossScale, Strikes, Verdict, save_batches

GO, SKIP, REWIND, GIVE_UP = Verdict


def verdicts(guard, finite):
    state, given = Strikes(), []
    for one in finite:
        state, verdict = guard.observe(state, one)
        given.append(verdict)
    return given


def test_strikes_in_a_row_rewind_and_rewinds_run_out():
    assert verdicts(Guard(strikes=2, rewinds=1), [False] * 4) == [SKIP, REWIND, SKIP, GIVE_UP]


def test_a_finite_update_wipes_the_strikes():
    assert verdicts(Guard(strikes=2), [False, True, False, True]) == [SKIP, GO, SKIP, GO]


def test_batches_are_saved_by_their_place_without_pickles(tmp_path):
    tree = {"image": torch.ones(2, 3), "more": (torch.zeros(2), torch.ones(2, dtype=torch.bfloat16))}
    save_batches(tmp_path / "b.npz", [tree, (torch.arange(2),)])
    with np.load(tmp_path / "b.npz", allow_pickle=False) as saved:
        assert set(saved.files) == {"batch0/image", "batch0/more/0", "batch0/more/1", "batch1/0"}
        assert saved["batch0/more/1"].dtype == np.float32


def test_the_loss_scale_halves_at_once_and_doubles_with_patience():
    scale = LossScale(value=8.0, patience=2)
    assert scale.after(False).value == 4.0
    assert scale.after(True).value == 8.0
    assert scale.after(True).after(True).value == 16.0
    assert scale.after(True).after(False).after(True).value == 4.0
