"""State in few bits is saved, loaded, converted or refused; averages and zeroed gradients in one pass."""

import copy
import io
from typing import Any

import pytest
import torch

import steepest.torch as st
from steepest import rules
from steepest.optim.engines import on_numba
from steepest.optim.engines.precision.formats import BLOCK
from steepest.optim.engines.precision.memory import slots_in_full
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError
from steepest.train.evaluation import Average

KEPT: list[dict[str, Any]] = [
    {"state_dtype": "bfloat16"},
    {"state_dtype": "8bit"},
    {"rounding": "stochastic"},
    {"rounding": "compensated", "state_dtype": "8bit", "average": 0.9},
]
KEYS = ("exp_avg", "exp_avg_sq")


def net(dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    torch.manual_seed(0)
    layers = torch.nn.Linear(30, 20), torch.nn.Tanh(), torch.nn.Linear(20, 5)
    return torch.nn.Sequential(*layers).to(dtype)


def train(model: torch.nn.Module, optimizer: RuleOptimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for weight in model.parameters():
            weight.grad = torch.randn(weight.shape, generator=generator).to(weight.dtype)
        optimizer.step()


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("kept", KEPT, ids=str)
def test_training_goes_on_to_the_same_bits(kept: dict[str, Any], by_name: bool) -> None:
    model, again = net(torch.bfloat16), net(torch.bfloat16)
    first = st.optimizer(model, "adamw", seed=3, **kept)
    train(model, first, range(4))
    again.load_state_dict(model.state_dict())
    second = st.optimizer(again, "adamw", seed=3, **kept)
    if by_name:
        second.load_state_by_name(through_a_file(first.state_by_name()))
    else:
        second.load_state_dict(through_a_file(first.state_dict()))
    train(model, first, range(4, 8))
    train(again, second, range(4, 8))
    assert same(model, again)
    saved = first.state_by_name()
    assert all(torch.equal(saved[key], value) for key, value in second.state_by_name().items())
    assert saved.keys() == second.state_by_name().keys()


@pytest.mark.parametrize("kept", KEPT, ids=str)
def test_a_copy_goes_on_to_the_same_bits(kept: dict[str, Any]) -> None:
    weight = torch.nn.Parameter(torch.linspace(-1, 1, 300).bfloat16())
    optimizer = RuleOptimizer([weight], rules.AdamW(), **kept)
    optimizer.step(gradients=[torch.ones(300).bfloat16()])
    other = copy.deepcopy(optimizer)
    for one in (optimizer, other):
        one.step(gradients=[torch.ones(300).bfloat16()])
    assert torch.equal(weight, other.param_groups[0]["params"][0])


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("to", ["float32", "bfloat16", "8bit"])
@pytest.mark.parametrize("from_", ["float32", "bfloat16", "8bit"])
def test_state_of_another_precision_is_converted(from_: str, to: str, by_name: bool) -> None:
    """Exactly where the new format has the numbers, else to one of its neighbours."""
    weight, other = (torch.nn.Parameter(torch.ones(1000)) for _ in range(2))
    first = RuleOptimizer([weight], rules.AdamW(), state_dtype=from_)
    for step in range(3):
        own = torch.randn(1000, generator=torch.Generator().manual_seed(step))
        first.step(gradients=[own])
    before = slots_in_full(first.state[weight], KEYS, rules.AdamW)
    second = RuleOptimizer([other], rules.AdamW(lr=0.0, beta1=1 - 1e-12, beta2=1 - 1e-12), state_dtype=to)
    if by_name:
        second.load_state_by_name(first.state_by_name())
    else:
        second.load_state_dict(through_a_file(first.state_dict()))
        second.param_groups[0].update(lr=0.0, betas=(1 - 1e-12, 1 - 1e-12))
    second.step(gradients=[torch.zeros(1000)])
    entry = second.state[other]
    wanted = {"float32": torch.float32, "bfloat16": torch.bfloat16, "8bit": torch.uint8}[to]
    assert all(entry[key].dtype is wanted for key in KEYS)
    assert ("exp_avg_scale" in entry) == (to == "8bit")
    apart = {"float32": 1e-7, "bfloat16": 2.0**-7, "8bit": 2.0**-3}[to] if to != from_ else 1e-7
    for a, b in zip(before, slots_in_full(entry, KEYS, rules.AdamW), strict=True):
        floor = b.abs().max() * 2.0**-14  # under which 8 bits have a grid that is not relative
        assert ((a - b).abs() <= apart * torch.maximum(a.abs(), floor)).all()


def test_a_checkpoint_of_torch_comes_in_and_full_state_goes_back() -> None:
    weight, theirs = (torch.nn.Parameter(torch.ones(300)) for _ in range(2))
    torchs = torch.optim.AdamW([theirs])
    theirs.grad = torch.linspace(-1, 1, 300)
    torchs.step()
    ours = st.AdamW([weight], state_dtype="8bit", average=0.9)
    ours.load_state_dict(torchs.state_dict())
    ours.step(gradients=[torch.linspace(-1, 1, 300)])
    assert ours.state[weight]["exp_avg"].dtype is torch.uint8
    full = st.AdamW([theirs])
    full.load_state_dict(ours.state_dict())
    full.step()
    assert set(full.state[theirs]) == {"step", *KEYS}
    torchs.load_state_dict(full.state_dict())
    torchs.step()


def spoilt(change: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    state = dict(state)
    if change == "no scales":
        del state["0/m_scale"]
    elif change == "scales of another length":
        state["0/m_scale"] = state["0/m_scale"][:-1]
    elif change == "average of another shape":
        state["0/average"] = torch.zeros(3)
    return state


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("average of another shape", r"'0/average' is \(3,\)"),
        ("no scales", "'0/m' is in 8 bits, and 'exp_avg_scale' is not beside it"),
        ("scales of another length", "'0/m' is in 8 bits, and 'exp_avg_scale' is not beside it"),
    ],
)
def test_what_cannot_be_read_is_refused_and_nothing_is_loaded(change: str, words: str) -> None:
    weight = torch.nn.Parameter(torch.ones(600))
    optimizer = RuleOptimizer([weight], rules.AdamW(), state_dtype="8bit")
    optimizer.step(gradients=[torch.ones(600)])
    before = optimizer.state_by_name()
    with pytest.raises(UserError, match=words):
        optimizer.load_state_by_name(spoilt(change, before))
    assert all(torch.equal(before[key], value) for key, value in optimizer.state_by_name().items())
    saved = optimizer.state_dict()
    del saved["state"][0]["exp_avg_scale"]
    with pytest.raises(UserError, match=r"exp_avg of 0 is in 8 bits"):
        optimizer.load_state_dict(saved)


def test_codes_of_a_slot_that_is_no_moving_average_are_refused() -> None:
    weight = torch.nn.Parameter(torch.ones(600))
    optimizer = RuleOptimizer([weight], rules.ASGD())
    optimizer.step(gradients=[torch.ones(600)])
    saved = optimizer.state_by_name() | {
        "0/a": torch.zeros(600, dtype=torch.uint8),
        "0/a_scale": torch.ones(3),
    }
    with pytest.raises(UserError, match="no moving average of that name"):
        optimizer.load_state_by_name(saved)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("plain", [False, True])
def test_the_average_is_that_of_the_weights(
    dtype: torch.dtype, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `Average` takes it after each update; of weights in 16 bits it takes them as they were unrounded."""
    if plain:
        monkeypatch.setattr(on_numba, "table", lambda *_: None)
    model = net(dtype)
    optimizer = st.optimizer(model, "adamw", average=0.9)
    other = Average(model, 0.9)
    for step in range(30):
        train(model, optimizer, range(step, step + 1))
        other.update()
    unit = 8 * float(torch.finfo(dtype).eps)
    with optimizer.evaluate():
        inside = [w.detach().clone() for w in model.parameters()]
    with other.swapped():
        pairs = zip(inside, model.parameters(), strict=True)
        assert all(((a - b).abs() <= unit * (1 + b.abs())).all() for a, b in pairs)


def test_groups_keep_memories_of_their_own() -> None:
    weights = [torch.nn.Parameter(torch.ones(BLOCK)) for _ in range(3)]
    groups = [{"params": [weights[0]]}, {"params": [weights[1]], "state_dtype": "8bit", "average": 0.5}]
    optimizer = RuleOptimizer(groups, rules.AdamW(), state_dtype="bfloat16")
    optimizer.add_param_group({"params": [weights[2]], "state_dtype": "float32"})
    optimizer.step(gradients=[torch.ones(BLOCK)] * 3)
    kinds = [optimizer.state[w]["exp_avg"].dtype for w in weights]
    assert kinds == [torch.bfloat16, torch.uint8, torch.float32]
    assert ["average" in optimizer.state[w] for w in weights] == [False, True, False]
    assert not any("state_dtype" in group for group in optimizer.param_groups)


def test_a_model_keeps_moments_by_names() -> None:
    model = net()
    optimizer = st.optimizer(model, "adamw", state_dtype={"0.*": "8bit", "*bias": "bfloat16"})
    train(model, optimizer, range(1))
    kinds = [optimizer.state[w]["exp_avg"].dtype for w in model.parameters()]
    assert kinds == [torch.uint8, torch.uint8, torch.float32, torch.bfloat16]


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ({"state_dtype": "int8"}, "state_dtype must be one of 'float32', 'bfloat16', '8bit', got 'int8'"),
        ({"rounding": "up"}, "rounding must be one of"),
        ({"average": 1.0}, r"average must lie in \(0, 1\)"),
        ({"seed": 0.5}, "seed must be an integer"),
    ],
    ids=str,
)
def test_what_is_no_memory_is_refused(kept: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        RuleOptimizer([torch.nn.Parameter(torch.ones(3))], rules.AdamW(), **kept)


def test_recorded_updates_keep_all_in_full() -> None:
    weight = torch.ones(3, requires_grad=True) * 1.0
    optimizer = st.AdamW([weight], differentiable=True, state_dtype="8bit")
    weight.grad = torch.ones(3)
    with pytest.raises(UserError, match="differentiable"):
        optimizer.step()


LAID_OUT: list[dict[str, Any]] = [{}, {"state_dtype": "8bit", "average": 0.9}, {"state_dtype": "bfloat16"}]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kept", LAID_OUT, ids=str)
def test_gradients_are_zeroed_where_asked_and_weights_move_alike(
    dtype: torch.dtype, kept: dict[str, Any]
) -> None:
    ends = []
    for asked in (False, True):
        weights = [torch.nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in ((700,), (0,), (20, 30))]
        weights.append(torch.nn.Parameter(torch.ones(20, 30, dtype=dtype).t()))
        optimizer = RuleOptimizer(weights, rules.AdamW(), **kept)
        for step in range(3):
            for weight in weights:
                weight.grad = torch.full_like(weight, step + 1.0)
            before, version = weights[0].grad, weights[0].grad._version
            optimizer.step(zero_grad=asked)
            assert weights[0].grad is before
            assert (before._version > version) == asked
            assert not any(w.grad.any() for w in weights) or not asked
        ends.append(weights)
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_a_gradient_that_two_weights_share_is_zeroed_after_both() -> None:
    weights, own = [torch.nn.Parameter(torch.ones(50)) for _ in range(2)], torch.ones(60)
    optimizer = RuleOptimizer(weights, rules.SGD(lr=1.0))
    optimizer.step(gradients=[own[:50], own[10:]], zero_grad=True)
    assert not any(w.any() for w in weights)
    assert not own.any()


def test_zeroing_works_with_closures_hooks_and_several_passes() -> None:
    model = net()
    optimizer = st.optimizer(model, "adamw")
    seen = []
    optimizer.register_step_post_hook(
        lambda *_: seen.append(all(not w.grad.any() for w in model.parameters()))
    )

    def closure() -> torch.Tensor:
        loss = model(torch.ones(2, 30)).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure, zero_grad=True)
    assert seen == [True]
    hessian = st.optimizer(model, rules.AdaHessian())
    hessian.step(lambda: model(torch.ones(2, 30)).square().sum(), zero_grad=True)
    assert all(not w.grad.any() for w in model.parameters())
