"""The classes of torch.optim: its arguments, numbers, state, checkpoints, complaints, hooks and schedulers.

The arguments are those that torch's own tests try, and so are the errors."""

import copy
import inspect
import io
import multiprocessing
import pickle
import sys
import types
import unittest
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_pre_hook

import steepest.torch as ours

SAME = ["ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Muon", "NAdam", "RAdam"]
SAME += ["RMSprop", "Rprop", "SGD"]
THEIRS = ["LBFGS", "SparseAdam"]
REAL = ("Adafactor", "Muon")
STEPS = 50
HALF = STEPS // 2
DOUBLE = torch.finfo(torch.float64).eps
SINGLE = torch.finfo(torch.float32).eps


@pytest.fixture(scope="session")
def infos() -> dict[str, Any]:
    """What torch's own tests try with each class."""
    # Their module imports a package for snapshot tests, which nothing here needs.
    stand_in = types.ModuleType("expecttest")
    stand_in.TestCase = unittest.TestCase  # type: ignore[attr-defined]
    sys.modules.setdefault("expecttest", stand_in)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_optimizers import optim_db
    return {info.name: info for info in optim_db}


@pytest.fixture
def exact_muon(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's Muon without its rounding to bfloat16."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)


def inputs_of(info: Any) -> list[dict[str, Any]]:
    return [copy.deepcopy(one.kwargs) for one in info.optim_inputs_func(device="cpu")]


def weights(name: str, dtype: torch.dtype = torch.float64) -> list[torch.nn.Parameter]:
    shapes = ((17, 5), (4, 9), (3, 3)) if name == "Muon" else ((17, 5), (33,), ())
    draw = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=draw, dtype=dtype)) for shape in shapes]


def groups(name: str, arguments: dict[str, Any], dtype: torch.dtype = torch.float64) -> list[dict[str, Any]]:
    """Two groups, the second with a rate of its own."""
    first, *others = weights(name, dtype)
    lr = arguments.get("lr", inspect.signature(getattr(torch.optim, name)).parameters["lr"].default)
    return [{"params": [first]}, {"params": others, "lr": 0.5 * float(lr)}]


def move(optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Steps with random gradients; the last weight has none in step 3."""
    own = [w for group in optimizer.param_groups for w in group["params"]]
    for step in steps:
        draw = torch.Generator().manual_seed(step)
        for w in own:
            w.grad = torch.randn(w.shape, generator=draw, dtype=w.dtype)
        if step == 3:
            own[-1].grad = None
        optimizer.step()


def pair(name: str, arguments: dict[str, Any], dtype: torch.dtype = torch.float64) -> Iterator[Any]:
    for home in (torch.optim, ours):
        yield getattr(home, name)(groups(name, arguments, dtype), **copy.deepcopy(arguments))


def assert_same(a: torch.optim.Optimizer, b: torch.optim.Optimizer, steps: int = STEPS) -> None:
    """Weights equal within rounding of the steps; where torch keeps numbers in float32, within theirs."""
    name, lr = type(a).__name__, float(a.param_groups[0]["lr"])
    atol = 64 * steps * DOUBLE
    if name in ("NAdam", "ASGD"):  # mu_product and eta
        atol += 4 * steps * lr * SINGLE
    if name == "Muon":  # the guard of a norm is a floor there and a term here
        atol += 4 * steps * lr * 1e-7
        if isinstance(a.param_groups[0]["lr"], torch.Tensor):  # 1 - lr·weight_decay in the tensor's float32
            atol += 4 * steps * SINGLE
    for x, y in zip(a.param_groups, b.param_groups, strict=True):
        for v, w in zip(x["params"], y["params"], strict=True):
            torch.testing.assert_close(w.detach(), v.detach(), rtol=64 * steps * DOUBLE, atol=atol)


@pytest.mark.usefixtures("exact_muon")
@pytest.mark.parametrize("name", SAME)
def test_numbers_and_state_are_torchs(infos: dict[str, Any], name: str) -> None:
    for arguments in inputs_of(infos[name]):
        theirs, mine = pair(name, arguments)
        move(theirs, range(STEPS))
        move(mine, range(STEPS))
        assert_same(theirs, mine)
        held, kept = mine.state_dict()["state"], theirs.state_dict()["state"]
        for index, entry in kept.items():
            for key, value in entry.items():
                if value is not None:
                    close = {"rtol": 1e-4, "atol": 1e-7}
                    torch.testing.assert_close(held[index][key].double(), value.double(), **close)


@pytest.mark.parametrize("name", [name for name in SAME if name not in REAL])
def test_complex_weights_move_as_torchs(name: str) -> None:
    lr = 1e-3 if name == "ASGD" else 1e-2
    theirs, mine = pair(name, {"lr": lr}, torch.complex128)
    move(theirs, range(STEPS))
    move(mine, range(STEPS))
    assert_same(theirs, mine)


@pytest.mark.usefixtures("exact_muon")
@pytest.mark.parametrize("name", SAME)
def test_checkpoints_pass_both_ways(infos: dict[str, Any], name: str) -> None:
    for arguments in inputs_of(infos[name])[-2:]:
        theirs, mine = pair(name, arguments)
        move(theirs, range(HALF))
        move(mine, range(HALF))
        forth, back = pair(name, {})
        for new, old in ((forth, mine), (back, theirs)):
            for x, y in zip(new.param_groups, old.param_groups, strict=True):
                for w, value in zip(x["params"], y["params"], strict=True):
                    w.data.copy_(value.detach())
            file = io.BytesIO()
            torch.save(old.state_dict(), file)
            file.seek(0)
            new.load_state_dict(torch.load(file, weights_only=True))
        for optimizer in (theirs, mine, forth, back):
            move(optimizer, range(HALF, STEPS))
        for optimizer in (mine, forth, back):
            assert_same(theirs, optimizer)


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize(
    "twin_of", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["copy", "pickle"]
)
def test_a_copy_goes_on_alone(name: str, twin_of: Callable[[Any], Any]) -> None:
    mine = getattr(ours, name)(groups(name, {}))
    move(mine, range(HALF))
    twin = twin_of(mine)
    move(twin, range(HALF, STEPS))
    assert mine.steps == HALF
    move(mine, range(HALF, STEPS))
    for x, y in zip(mine.param_groups, twin.param_groups, strict=True):
        for v, w in zip(x["params"], y["params"], strict=True):
            assert v is not w
            assert torch.equal(v, w)


@pytest.mark.parametrize("name", SAME)
def test_arguments_are_torchs(name: str) -> None:
    theirs, mine = getattr(torch.optim, name), getattr(ours, name)
    arguments = list(inspect.signature(mine).parameters.values())
    own = [
        argument for argument in arguments if argument.name in ("state_dtype", "rounding", "average", "seed")
    ]
    assert arguments == [*inspect.signature(theirs).parameters.values(), *own]
    assert all(argument.kind is argument.KEYWORD_ONLY for argument in own)
    assert mine(weights(name)).defaults == theirs(weights(name)).defaults
    with pytest.raises(TypeError):
        mine(weights(name), speed=3)


@pytest.mark.parametrize("name", [*SAME, *THEIRS])
def test_complaints_are_torchs(infos: dict[str, Any], name: str) -> None:
    for error in infos[name].optim_error_inputs_func(device="cpu", dtype=torch.float32):
        given = error.optimizer_error_input
        params = weights(name, torch.float32) if given.params is None else given.params
        at_step = error.error_on.name == "STEP_ERROR"
        refused = pytest.warns if issubclass(error.error_type, Warning) else pytest.raises
        if at_step:
            optimizer = getattr(ours, name)(params, **given.kwargs)
            with refused(error.error_type, match=error.error_regex):
                optimizer.step()
        else:
            with refused(error.error_type, match=error.error_regex):
                getattr(ours, name)(params, **given.kwargs)


@pytest.mark.parametrize("name", [*SAME, *THEIRS])
def test_public_names_are_torchs(name: str) -> None:
    """Methods, properties and constants of torch's class are there, and methods take what torch's take."""
    theirs, own = getattr(torch.optim, name), getattr(ours, name)
    public = [word for word in dir(theirs) if not word.startswith("_")]
    assert [word for word in public if not hasattr(own, word)] == []
    for word in public:
        if inspect.isfunction(getattr(theirs, word)):
            taken = inspect.signature(getattr(own, word)).parameters
            given = inspect.signature(getattr(theirs, word)).parameters.items()
            assert [(one, taken[one].kind, taken[one].default) for one, _ in given] == [
                (one, its.kind, its.default) for one, its in given
            ]


def test_every_optimizer_of_torchs_has_its_class() -> None:
    found = [one for one in vars(torch.optim).values() if isinstance(one, type)]
    theirs = {one.__name__ for one in found if issubclass(one, torch.optim.Optimizer)}
    assert theirs - {"Optimizer"} == {*SAME, *THEIRS}


@pytest.mark.parametrize("moved", [False, True])
def test_sums_of_adagrad_may_be_shared_with_other_processes(moved: bool) -> None:
    """What a child's step adds to them, its parent sees; before the first step as well, as with torch's."""
    found = []
    for home in (ours.Adagrad, torch.optim.Adagrad):
        own = weights("Adagrad")
        opt = home(own, lr=0.1, initial_accumulator_value=0.5)
        if moved:
            move(opt, range(2))
        opt.share_memory()
        assert all(opt.state[w]["sum"].is_shared() for w in own)
        assert not any(opt.state[w]["step"].is_shared() for w in own)
        child = multiprocessing.get_context("fork").Process(target=move, args=(opt, range(2, 3)))
        child.start()
        child.join()
        assert child.exitcode == 0
        move(opt, range(3, 6))
        found.append([*(opt.state[w]["sum"] for w in own), *(w.detach() for w in own)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=STEPS * DOUBLE, atol=STEPS * DOUBLE)


@pytest.mark.parametrize("name", THEIRS)
def test_two_are_torchs_own(name: str) -> None:
    assert issubclass(getattr(ours, name), getattr(torch.optim, name))


@pytest.mark.parametrize("flag", ["foreach", "fused", "capturable"])
def test_flags_for_torchs_implementations_change_nothing(flag: str) -> None:
    plain, flagged = ours.AdamW(weights("AdamW")), ours.AdamW(weights("AdamW"), **{flag: True})
    move(plain, range(3))
    move(flagged, range(3))
    for x, y in zip(plain.param_groups[0]["params"], flagged.param_groups[0]["params"], strict=True):
        assert torch.equal(x, y)
    assert flagged.state_dict()["param_groups"][0][flag] is True


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(("name", "arguments"), [("SGD", {"momentum": 0.9}), ("Adagrad", {"lr": 0.1})])
def test_sparse_gradients_are_taken_where_torch_takes_them(name: str, arguments: dict[str, Any]) -> None:
    theirs, mine = (getattr(home, name)(weights(name)[:1], **arguments) for home in (torch.optim, ours))
    for step in range(3):
        for optimizer in (theirs, mine):
            values = torch.tensor([1.0 + step, -2.0], dtype=torch.float64)[:, None].expand(2, 5)
            (w,) = optimizer.param_groups[0]["params"]
            w.grad = torch.sparse_coo_tensor(torch.tensor([[1, 4]]), values, (17, 5), check_invariants=True)
            optimizer.step()
    assert_same(theirs, mine)


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "step": lambda o: lr_scheduler.StepLR(o, 3),
    "multi": lambda o: lr_scheduler.MultiStepLR(o, [2, 5]),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 20),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4, 2),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 3),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=STEPS),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=2),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=5), lr_scheduler.ExponentialLR(o, 0.9)], [5]
    ),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.5), lr_scheduler.PolynomialLR(o, 30)]
    ),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize(("name", "arguments"), [("SGD", {"momentum": 0.9}), ("AdamW", {}), ("RAdam", {})])
def test_torchs_schedulers_work(scheduler: str, name: str, arguments: dict[str, Any]) -> None:
    both = list(pair(name, arguments))
    for optimizer in both:
        schedule = SCHEDULERS[scheduler](optimizer)
        for step in range(HALF):
            move(optimizer, range(step, step + 1))
            schedule.step(*([1.0] if scheduler == "plateau" else []))
    theirs, mine = both
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in both]
    assert rates[0] == rates[1]
    assert_same(theirs, mine)


def test_schedulers_write_into_a_tensor_in_place() -> None:
    rate = torch.tensor(0.1)
    optimizer = ours.AdamW(weights("AdamW"), lr=rate)
    schedule = lr_scheduler.ExponentialLR(optimizer, 0.5)
    move(optimizer, range(1))
    schedule.step()
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == optimizer.rate == float(torch.tensor(0.05))


def test_hyperparameters_may_be_tensors_written_in_place() -> None:
    rate = torch.tensor(0.1)
    mine, theirs = ours.AdamW(weights("AdamW"), lr=rate), torch.optim.AdamW(weights("AdamW"), lr=0.1)
    move(mine, range(1))
    rate.fill_(0.5)
    move(mine, range(1, 2))
    move(theirs, range(1))
    theirs.param_groups[0]["lr"] = 0.5
    move(theirs, range(1, 2))
    for x, y in zip(theirs.param_groups[0]["params"], mine.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=SINGLE)


def test_hooks_see_the_step() -> None:
    optimizer = ours.AdamW(weights("AdamW"))
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    handle = register_optimizer_step_pre_hook(lambda *_: seen.append("anywhere"))
    move(optimizer, range(1))
    handle.remove()
    assert sorted(seen) == ["after", "anywhere", "before"]


def test_hooks_of_checkpoints_are_called_and_may_change_them() -> None:
    optimizer = ours.AdamW(weights("AdamW"))
    move(optimizer, range(1))
    optimizer.register_state_dict_post_hook(lambda _, state: state | {"note": 1})
    saved = optimizer.state_dict()
    assert saved["note"] == 1
    seen = []
    optimizer.register_load_state_dict_pre_hook(lambda _, state: state | {"factor": 0.5})
    optimizer.register_load_state_dict_post_hook(lambda _: seen.append("after"))
    optimizer.load_state_dict(saved)
    assert (optimizer.factor, seen) == (0.5, ["after"])


def test_a_hook_may_mend_a_checkpoint_before_it_is_checked() -> None:
    """As torch's documentation shows it: names that a wrapper has lengthened are made short again."""
    names = ["a", "b", "c"]
    wrapped = ours.AdamW([(f"module.{name}", w) for name, w in zip(names, weights("AdamW"), strict=True)])
    move(wrapped, range(1))
    plain = ours.AdamW(list(zip(names, weights("AdamW"), strict=True)))

    def shorten(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        (group,) = state["param_groups"]
        short = [name.removeprefix("module.") for name in group["param_names"]]
        return state | {"param_groups": [group | {"param_names": short}]}

    plain.register_load_state_dict_pre_hook(shorten)
    plain.load_state_dict(wrapped.state_dict())
    assert plain.param_groups[0]["param_names"] == names
    assert len(plain.state) == 3


@pytest.mark.parametrize("name", SAME)
def test_older_checkpoints_are_taken(name: str) -> None:
    """From before there were flags, and when steps were plain numbers."""
    mine = getattr(ours, name)(groups(name, {}))
    move(mine, range(HALF))
    saved = copy.deepcopy(mine.state_dict())
    for group in saved["param_groups"]:
        for flag in ("foreach", "maximize", "capturable", "differentiable", "fused"):
            group.pop(flag, None)
    for entry in saved["state"].values():
        entry["step"] = float(entry["step"])
    again = getattr(ours, name)(groups(name, {}))
    for x, y in zip(again.param_groups, mine.param_groups, strict=True):
        for w, value in zip(x["params"], y["params"], strict=True):
            w.data.copy_(value.detach())
    again.load_state_dict(saved)
    move(mine, range(HALF, STEPS))
    move(again, range(HALF, STEPS))
    for x, y in zip(again.param_groups, mine.param_groups, strict=True):
        for v, w in zip(x["params"], y["params"], strict=True):
            assert torch.equal(v, w)


def test_a_rate_of_one_element_is_a_rate() -> None:
    first, second = ours.AdamW(weights("AdamW"), lr=torch.tensor([0.5])), ours.AdamW(weights("AdamW"), lr=0.5)
    move(first, range(3))
    move(second, range(3))
    assert_same(first, second)


def test_a_step_without_gradients_moves_nothing() -> None:
    optimizer = ours.AdamW(weights("AdamW"))
    optimizer.step()
    for w, start in zip(optimizer.param_groups[0]["params"], weights("AdamW"), strict=True):
        assert torch.equal(w, start)
    assert not any(optimizer.state.values())


def test_the_profiler_sees_the_step() -> None:
    optimizer = ours.AdamW(weights("AdamW"))
    with torch.profiler.profile() as profile:
        move(optimizer, range(1))
    assert any("Optimizer.step#AdamW.step" in event.key for event in profile.key_averages())


def test_closures_are_run_with_gradients_on() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = ours.SGD([weight], lr=0.5)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert optimizer.step(closure).item() == 3.0
    assert torch.equal(weight.detach(), torch.zeros(3))
