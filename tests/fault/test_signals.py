"""SIGINT and SIGTERM stop at a step boundary, saved; exit codes 130 and 143."""

import signal
import threading

import pytest
import torch
from torch import nn

from processes import Process
from steepest.files import Folder
from steepest.optim.errors import UserError
from steepest.train.control import Interrupted
from steepest.train.loop import loop

X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))


def train(out, at=None, number=signal.SIGTERM, steps=30):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    opt = torch.optim.AdamW(net.parameters(), lr=0.01)

    def strike(inside):
        if inside.done == at:
            signal.raise_signal(number)

    held = loop(
        net,
        opt,
        (X, X[:, :1]),
        out=out,
        budget=f"{steps} steps",
        batch_size=8,
        evaluate_every="5 steps",
        on_step=strike,
    )
    with held as inside:
        for a, b in inside:
            inside.step(nn.functional.mse_loss(net(a), b))
    return net, inside


def rows(out):
    return [
        line.split(",")[:2] + line.split(",")[3:] for line in (out / "metrics.csv").read_text().splitlines()
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [3, 5, 29])
def test_a_signal_stops_at_the_step_and_the_run_goes_on_to_the_same_bits(tmp_path, number, at):
    alone, _ = train(tmp_path / "alone")
    with pytest.raises(Interrupted) as stopped:
        train(tmp_path / "struck", at, number)
    assert stopped.value.code == 128 + number
    assert '"status": "stopped"' in (tmp_path / "struck" / "result.json").read_text()
    assert (tmp_path / "struck" / "last").readlink().name == f"step-{at:06d}"
    again, inside = train(tmp_path / "struck")
    assert inside.status == "finished"
    assert rows(tmp_path / "struck") == rows(tmp_path / "alone")
    for a, b in zip(alone.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_handlers_are_put_back(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted):
        train(None, 3)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_ctrl_c_ends_at_once():
    def twice(inside):
        if inside.done == 2:
            # In this thread, and handled at once: of two that are sent to the process one may be lost.
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    net = nn.Linear(4, 1)
    held = loop(net, torch.optim.SGD(net.parameters(), lr=0.1), (X, X[:, :1]), epochs=3, on_step=twice)

    def train_on():
        with held as inside:
            for a, b in inside:
                inside.step(nn.functional.mse_loss(net(a), b))

    with pytest.raises(KeyboardInterrupt):
        train_on()


def test_training_works_outside_the_main_thread():
    done = []
    thread = threading.Thread(target=lambda: done.append(train(None)[1].done))
    thread.start()
    thread.join()
    assert done == [30]


def test_uncaught_it_ends_the_process_with_143(tmp_path):
    script = (
        "import os, signal, torch\n"
        "from steepest.train.loop import loop\n"
        "net = torch.nn.Linear(4, 1); x = torch.ones(8, 4)\n"
        "with loop(net, torch.optim.SGD(net.parameters(), lr=0.1), (x, x[:, :1]), epochs=5) as steps:\n"
        "    for a, b in steps:\n"
        "        steps.step((net(a) - b).square().mean()); os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('not reached')\n"
    )
    process = Process(script)
    printed, _ = process.communicate()
    assert (process.returncode, printed) == (143, "")


def test_a_second_run_in_one_folder_is_refused(tmp_path):
    with Folder(tmp_path).lock(), pytest.raises(UserError, match="Another process is training"):
        train(tmp_path)
