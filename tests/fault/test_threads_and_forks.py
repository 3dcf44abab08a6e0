"""Optimizers in several threads at once, in forked processes, and over memory that is laid out oddly."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from processes import Process
from steepest import rules
from steepest.optim.engines.kernels import compiled
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError

BELOW, ABOVE = (63, 64), (1024, 512)
HOW = {"adamw": {}, "adamw in 8 bits": {"state_dtype": "8bit"}, "adafactortorch": {}, "dog": {}}


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def weights(shape: tuple[int, ...], seed: int) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(size, generator=draw)) for size in (shape, (9,))]


def moved(opt: RuleOptimizer, first: int, last: int) -> list[bytes]:
    """The weights after the steps from `first` to before `last`, to the bit."""
    own = [w for group in opt.param_groups for w in group["params"]]
    for step in range(first, last):
        draw = torch.Generator().manual_seed(step)
        for w in own:
            w.grad = torch.randn(w.shape, generator=draw)
        opt.step()
    return [w.detach().numpy().tobytes() for w in own]


def alone(shape: tuple[int, ...], how: str, seed: int, steps: int = 3) -> list[bytes]:
    opt = RuleOptimizer(weights(shape, seed), how.split()[0], **HOW[how])
    return moved(opt, 0, steps)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("shape", [BELOW, ABOVE], ids=["below", "above"])
def test_threads_that_step_at_once_end_as_each_alone(shape: tuple[int, ...], how: str) -> None:
    assert BELOW[0] * BELOW[1] < compiled.PARALLEL_FROM <= ABOVE[0] * ABOVE[1]
    want = [alone(shape, how, seed) for seed in range(4)]
    found: dict[int, Any] = {}
    together = threading.Barrier(4)

    def work(seed: int) -> None:
        together.wait()
        found[seed] = alone(shape, how, seed)

    running = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    assert [found[seed] for seed in range(4)] == want


FIRST = """
import threading, torch
from steepest.optim.engines.torch.optimizer import RuleOptimizer

def work(at):
    weight = torch.nn.Parameter(torch.ones(5))
    opt = RuleOptimizer([weight], "adamw")
    together.wait()
    opt.step(gradients=[torch.full((5,), 1.0)])
    found[at] = weight.tolist()

found, together = {}, threading.Barrier(6)
running = [threading.Thread(target=work, args=(at,)) for at in range(6)]
for one in running:
    one.start()
for one in running:
    one.join()
assert len(found) == 6 and len({tuple(w) for w in found.values()}) == 1, found
"""


def test_threads_may_all_be_the_first_to_need_a_kernel(tmp_path: Path) -> None:
    process = Process(FIRST, STEEPEST_CACHE=str(tmp_path / "kernels"))
    _, complained = process.communicate()
    assert (process.returncode, complained) == (0, "")
    assert list((tmp_path / "kernels").glob("*.py"))
    assert not list((tmp_path / "kernels").glob("*.tmp"))


OPENMP = """
import ctypes, os
{imports}
from steepest.optim.engines.kernels import compiled
from steepest.optim.engines.torch.optimizer import RuleOptimizer

def tasks():
    return len(os.listdir("/proc/self/task"))

torch.set_num_threads(2)
weight = torch.nn.Parameter(torch.ones(1024, 512))
opt = RuleOptimizer([weight], "adamw")
(weight.detach() + 1).sum()  # torch's threads are there
before = tasks()
opt.step(gradients=[torch.ones_like(weight)])
assert compiled._parallel() is not None
assert tasks() == before, (before, tasks())
"""
TORCH = "import torch"
OTHER = "from sklearn.utils import _openmp_helpers as other; other._openmp_effective_n_threads()"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kernels are serial elsewhere")
@pytest.mark.parametrize("how", ["before", "after", "preloaded"])
def test_kernels_run_on_the_threads_of_torch_where_another_openmp_is_loaded(how: str) -> None:
    imports = {"before": f"{OTHER}\n{TORCH}", "after": f"{TORCH}\n{OTHER}", "preloaded": TORCH}[how]
    environment = dict(os.environ)
    if how == "preloaded":  # then it is this one that torch itself is bound to
        sklearn = Path(pytest.importorskip("sklearn").__file__).parent
        found = sorted(sklearn.parent.glob("scikit_learn.libs/libgomp*"))
        if not found:
            pytest.skip("scikit-learn brings no OpenMP along")
        environment["LD_PRELOAD"] = str(found[0])
    program = [sys.executable, "-c", OPENMP.format(imports=imports)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_way_into_torchs_threads_kernels_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert compiled._parallel.__wrapped__() is None
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(compiled, "Path", lambda _: Path("/nowhere"))  # as where there is no /proc
    assert compiled._parallel.__wrapped__() is not None
    monkeypatch.setattr(compiled, "_entry", lambda library: None)
    assert compiled._parallel.__wrapped__() is None


# --- processes ---


@pytest.mark.usefixtures("two_threads")
def test_after_a_fork_the_child_and_the_parent_go_on_to_the_same_bits() -> None:
    opt = RuleOptimizer(weights(ABOVE, 0), "adamw")
    moved(opt, 0, 2)
    other = RuleOptimizer(weights(ABOVE, 0), "adamw")
    moved(other, 0, 2)
    want = moved(other, 2, 4)
    child = os.fork()
    if child == 0:
        os._exit(0 if compiled._forked and moved(opt, 2, 4) == want else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert moved(opt, 2, 4) == want
    assert not compiled._forked


class Steps(torch.utils.data.Dataset[Any]):
    """Examples that are made by training."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> bytes:
        return alone(ABOVE, "adamw", index)[0]


@pytest.mark.usefixtures("two_threads")
def test_forked_workers_of_a_loader_step() -> None:
    want = [alone(ABOVE, "adamw", seed)[0] for seed in range(4)]
    loader = torch.utils.data.DataLoader(
        Steps(), batch_size=None, num_workers=1, multiprocessing_context="fork"
    )
    assert list(loader) == want


# --- memory ---


def leaf(x: torch.Tensor) -> torch.Tensor:
    return x.detach().requires_grad_(True)


def laid_out() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    matrix, images = torch.randn(6, 4, generator=draw), torch.randn(2, 3, 4, 5, generator=draw)
    return {
        "transposed": leaf(matrix.clone().t()),
        "strided": leaf(matrix.repeat(1, 2)[:, ::2]),
        "channels last": leaf(images.to(memory_format=torch.channels_last)),
        "within another": leaf(torch.cat([matrix[:1], matrix])[1:]),
        "no elements": leaf(torch.zeros(0, 3)),
        "no axes": leaf(torch.tensor(1.5)),
    }


@pytest.mark.parametrize(
    "rule", ["adamw", "lion", "adafactortorch", "muon", "shampoo", "adammini", "dog", "sm3"]
)
@pytest.mark.parametrize("name", laid_out())
def test_weights_move_alike_however_they_lie(name: str, rule: str) -> None:
    made = rules.named(rule)
    odd = laid_out()[name]
    even = leaf(odd.detach().clone(memory_format=torch.contiguous_format))
    steps, draw = 3, torch.Generator().manual_seed(1)
    if not made.takes(odd.shape):
        with pytest.raises(UserError, match="moves matrices"):
            RuleOptimizer([odd], made)
        return
    opts = [RuleOptimizer([w], made) for w in (odd, even)]
    for _ in range(steps):
        gradient = torch.randn(odd.shape, generator=draw)
        for opt in opts:
            opt.step(gradients=[gradient])
    # The same sums in another order: each step may round the longest of them once an element.
    eps, terms = float(torch.finfo(torch.float32).eps), max(odd.shape, default=1)
    assert torch.all((odd - even).abs() <= steps * terms * eps * (1 + even.abs()))


@pytest.mark.parametrize("rule", ["sgd", "adamw"])
def test_what_is_beside_a_strided_weight_is_left_alone(rule: str) -> None:
    memory = torch.ones(6, 8)
    opt = RuleOptimizer([w := leaf(memory[:, ::2])], rule)
    opt.step(gradients=[torch.ones_like(w)])
    assert torch.equal(memory[:, 1::2], torch.ones(6, 4))
    assert bool((memory[:, ::2] != 1).all())


def test_an_expanded_weight_is_refused_before_anything_moves() -> None:
    first, wide = nn.Parameter(torch.ones(3)), leaf(torch.ones(1, 3).expand(4, 3))
    with pytest.raises(UserError, match=r"shape \(4, 3\) is expanded.*Give a clone\(\)"):
        RuleOptimizer([first, wide], "adamw")
    opt = RuleOptimizer([first], "adamw")
    with pytest.raises(UserError, match="is expanded"):
        opt.add_param_group({"params": [wide]})
    assert len(opt.param_groups) == 1


RULES = ["sgd", "momentum", "adamw", "lion", "lamb", "dog", "adafactortorch", "adamw in 8 bits"]


@pytest.mark.parametrize("how", RULES)
@pytest.mark.parametrize("alias", ["the weight", "an expanded number", "shared by two weights"])
def test_a_gradient_may_lie_where_a_weight_or_another_gradient_does(how: str, alias: str) -> None:
    name, kept = how.split()[0], HOW.get(how, {})
    pairs = []
    for copied in (False, True):
        own = [nn.Parameter(torch.arange(1.0, 5.0)), nn.Parameter(torch.arange(2.0, 6.0))]
        opt = RuleOptimizer(own, name, **kept)
        one = torch.full((4,), 0.5)
        gradients = {
            "the weight": [w.detach() for w in own],
            "an expanded number": [torch.tensor(0.5).expand(4)] * 2,
            "shared by two weights": [one, one],
        }[alias]
        for _ in range(2):
            opt.step(gradients=[g.clone() for g in gradients] if copied else gradients)
        pairs.append(own)
    eps = float(torch.finfo(torch.float32).eps)
    for w, other in zip(*pairs, strict=True):
        assert torch.allclose(w, other, rtol=8 * eps, atol=0)


def test_weights_that_are_no_parameters() -> None:
    with pytest.raises(ValueError, match="non-leaf"):
        RuleOptimizer([torch.ones(3, requires_grad=True) * 2], "adamw")
    frozen = torch.ones(3)
    opt = RuleOptimizer([frozen], "adamw")
    opt.step()
    assert torch.equal(frozen, torch.ones(3))
    opt.step(gradients=[torch.ones(3)])
    assert bool((frozen < 1).all())


def test_weights_on_two_devices_are_moved_each_where_it_lies() -> None:
    here, there = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3, device="meta"))
    alone = nn.Parameter(torch.ones(3))
    opts = RuleOptimizer([here, there], "adamw"), RuleOptimizer([alone], "adamw")
    for w in (here, there, alone):
        w.grad = torch.ones_like(w)
    for opt in opts:
        opt.step()
    assert torch.equal(here, alone)
    assert opts[0].state[there]["exp_avg"].device.type == "meta"
