"""metrics.csv, the loggers and the mean loss."""

import csv
import math

import pytest
import torch

from steepest.train.record import MeanLoss, Record


def rows_in(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def row(step, event="", **metrics):
    return {
        "step": step,
        "epoch": step / 4,
        "seconds": 0.5,
        **metrics,
        "lr": 0.1,
        "factor": 1.0,
        "event": event,
    }


def test_columns_stand_in_their_order_and_grow_with_new_metrics(tmp_path):
    record = Record(tmp_path / "metrics.csv")
    record.add(row(1, "guard"))
    record.add(row(4, "improved", **{"train/loss": 0.25, "val/loss": 0.5}))
    text = (tmp_path / "metrics.csv").read_text().splitlines()
    assert text[0] == "step,epoch,seconds,train/loss,val/loss,lr,grad_norm,factor,event"
    assert [r["val/loss"] for r in rows_in(tmp_path / "metrics.csv")] == ["", "0.5"]


def test_numbers_read_back_to_the_bit(tmp_path):
    value = 1 / 3 + 1e-17
    Record(tmp_path / "metrics.csv").add(row(1, **{"train/loss": value}))
    assert float(rows_in(tmp_path / "metrics.csv")[0]["train/loss"]) == value


def test_resume_keeps_the_rows_of_the_checkpoint_and_drops_later_and_torn_ones(tmp_path):
    path = tmp_path / "metrics.csv"
    record = Record(path)
    for step in range(1, 4):
        record.add(row(step, **{"train/loss": step / 3}))
    whole = path.read_bytes()
    record.add(row(4, **{"train/loss": 4 / 3}))
    path.write_bytes(path.read_bytes() + b"5,1.2")
    again = Record(path)
    again.load_state_dict({"rows": 3})
    assert path.read_bytes() == whole
    assert [r["step"] for r in again.rows] == [1, 2, 3]
    again.add(row(4, **{"train/loss": 4 / 3}))
    assert len(rows_in(path)) == 4


def test_loggers_get_numbers_settings_and_the_end():
    heard = []

    class Ear:
        def log(self, metrics, step):
            heard.append((step, metrics))

        def config(self, settings):
            heard.append(settings)

        def close(self, status):
            heard.append(status)

    record = Record(None, [Ear()])
    record.config({"lr": 0.1})
    record.add(row(3, "improved", **{"val/loss": 0.5}))
    record.close("finished")
    assert heard[0] == {"lr": 0.1}
    assert heard[1] == (3, {"epoch": 0.75, "seconds": 0.5, "val/loss": 0.5, "lr": 0.1, "factor": 1.0})
    assert heard[2] == "finished"


@pytest.mark.parametrize("cut", [0, 1, 100, 255, 256, 300, 599])
def test_the_mean_loss_does_not_depend_on_when_it_was_saved(cut):
    losses = torch.rand(600, generator=torch.Generator().manual_seed(0))
    counts = [1 + i % 7 for i in range(600)]
    whole, first, second = MeanLoss(), MeanLoss(), MeanLoss()
    for i in range(600):
        whole.add(losses[i], counts[i])
        (first if i < cut else second).add(losses[i], counts[i])
        if i == cut - 1:
            second.load_state_dict(first.state_dict())
    mean = whole.take()
    assert second.take() == mean
    exact = math.fsum(float(x) * n for x, n in zip(losses, counts, strict=True)) / sum(counts)
    assert abs(mean - exact) <= 3 * 2**-52 * exact
    assert math.isnan(whole.take())
