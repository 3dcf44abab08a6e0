"""What torch lets one do to an optimizer in the middle of training: groups, state, schedules, compilers."""

import copy
import gc
import pickle
import random
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import steepest.torch as st
from each import each
from steepest import rules
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError

STEPS = 20
EPS = torch.finfo(torch.float64).eps


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def backward(model: nn.Module) -> None:
    model.zero_grad()
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(4, 6)
    (model(x) - 1).square().mean().backward()


def train(model: nn.Module, optimizer: Any, steps: int = 1) -> None:
    for _ in range(steps):
        backward(model)
        optimizer.step()


def test_a_schedule_may_give_the_same_float_twice() -> None:
    high, low = 0.1, 0.01
    model = net()
    optimizer = st.SGD(model.parameters(), lr=lambda step: high if step <= 2 else low)  # type: ignore[arg-type]
    rates = []
    for _ in range(4):
        train(model, optimizer)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [high, high, low, low]


KEEP: dict[str, Callable[[Any], Any]] = {
    "at once": lambda both: both,
    "copied": copy.deepcopy,
    "pickled": lambda both: pickle.loads(pickle.dumps(both)),
}


@pytest.mark.parametrize("how", KEEP)
@pytest.mark.parametrize("edit", [lambda groups: groups.pop(0), lambda groups: groups.reverse()])
def test_a_group_keeps_its_rule_where_others_go(edit: Callable[[list[Any]], None], how: str) -> None:
    model, alone = net(), net()
    optimizer = st.optimizer(model, "lion", {"2.*": rules.SGD(lr=0.5)})
    edit(optimizer.param_groups)
    model, optimizer = KEEP[how]((model, optimizer))
    assert all(
        name.split("/")[0] in dict(model.named_parameters())
        for name in optimizer.state_by_name()
        if "/" in name
    )
    train(model, optimizer, STEPS)
    kinds = {group["param_names"][0]: type(optimizer.rule_of(group)) for group in optimizer.param_groups}
    assert all(kind is (rules.SGD if name.startswith("2") else rules.Lion) for name, kind in kinds.items())
    frozen = [w for n, w in alone.named_parameters() if len(kinds) > 1 or n.startswith("2")]
    both = st.optimizer(alone, "lion", {"2.*": rules.SGD(lr=0.5)})
    for group in both.param_groups:
        group["params"] = [w for w in group["params"] if any(w is one for one in frozen)]
        group["param_names"] = group["param_names"][: len(group["params"])]
    train(alone, both, STEPS)
    for w, v in zip(model.parameters(), alone.parameters(), strict=True):
        assert torch.equal(w, v)


def test_a_group_that_nobody_added_is_refused() -> None:
    model = net()
    optimizer = st.AdamW(model.parameters())
    optimizer.param_groups.append(dict(optimizer.param_groups[0]))
    backward(model)
    with pytest.raises(UserError, match="add_param_group"):
        optimizer.step()


@pytest.mark.parametrize("kind", [st.AdamW, st.Lion])
def test_weights_may_get_their_shape_later(kind: type[RuleOptimizer]) -> None:
    model = nn.LazyLinear(4)
    optimizer = kind(model.parameters(), lr=0.1)  # type: ignore[arg-type]
    model(torch.ones(2, 3)).sum().backward()
    before = model.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(model.weight, before)


def test_a_given_gradient_is_not_taken_for_another_that_lay_there() -> None:
    w = nn.Parameter(torch.zeros(8, dtype=torch.bfloat16))
    optimizer = st.SGD([w], lr=1.0)
    gradient = torch.ones(8, dtype=torch.bfloat16)
    optimizer.step(gradients=[gradient])
    optimizer.step(gradients=[gradient.view(torch.float16).fill_(1)])
    assert w.tolist() == [-2.0] * 8
    w = nn.Parameter(torch.zeros(2, 3))
    optimizer, gradient = st.SGD([w], lr=1.0), torch.ones(2, 3)
    optimizer.step(gradients=[gradient])
    with pytest.raises(UserError, match="shape"):
        optimizer.step(gradients=[gradient.view(3, 2)])


@pytest.mark.parametrize(
    ("name", "flag", "off"),
    [
        ("SGD", "momentum", 0),
        ("RMSprop", "momentum", 0),
        ("RMSprop", "centered", False),
        ("Adam", "amsgrad", False),
    ],
)
def test_a_checkpoint_may_hold_what_its_flags_do_not_need_any_more(name: str, flag: str, off: Any) -> None:
    model = net()
    optimizer = getattr(st, name)(
        model.parameters(), lr=0.1, **{flag: 0.9 if off == 0 and off is not False else True}
    )
    train(model, optimizer)
    optimizer.param_groups[0][flag] = off
    train(model, optimizer)
    theirs = getattr(torch.optim, name)(model.parameters(), lr=0.1)
    saved = copy.deepcopy(optimizer.state_dict())
    theirs.load_state_dict({key: saved[key] for key in ("state", "param_groups")})
    for held in (saved, theirs.state_dict()):
        optimizer.load_state_dict(held)
        train(model, optimizer)
    with pytest.raises(UserError, match="is nothing of"):
        st.Adamax(model.parameters()).load_state_dict(
            saved | {"param_groups": theirs.state_dict()["param_groups"]}
        )


def test_an_optimizer_that_updates_in_backward_goes_with_its_weights() -> None:
    model = net()
    optimizer = st.AdamW(model.parameters())
    held = st.in_backward(optimizer)
    train(model, optimizer)
    known = [weakref.ref(one) for one in (optimizer, held, *model.parameters())]
    del model, optimizer, held
    gc.collect()
    assert [one() for one in known] == [None] * len(known)


def test_a_step_in_compiled_code_is_left_as_it_is() -> None:
    model, alone = net(), net()
    optimizer, other = st.AdamW(model.parameters()), st.AdamW(alone.parameters())
    compiled = torch.compile(lambda: optimizer.step(), backend="eager")
    backward(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as where the compiler meets what it cannot follow
        compiled()
    train(alone, other)
    assert all(map(torch.equal, model.parameters(), alone.parameters()))
    assert optimizer.steps == 1


def test_threads_do_not_disturb_each_other() -> None:
    gradient = torch.randn(600, 600, generator=torch.Generator().manual_seed(0))
    ends: dict[int, torch.Tensor] = {}

    def work(number: int) -> None:
        w = nn.Parameter(torch.zeros(600, 600))
        optimizer = (st.AdamW, st.Lion)[number % 2]([w], lr=0.1)
        for _ in range(STEPS):
            optimizer.step(gradients=[gradient])
        ends[number] = w.detach()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ends) == 6
    assert all(torch.equal(ends[number], ends[number % 2]) for number in ends)


WALKS = [
    ("SGD", {"lr": 0.05, "momentum": 0.9}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("AdamW", {"lr": 0.01}),
]
WALKS += [
    ("RMSprop", {"lr": 0.01, "momentum": 0.5, "centered": True}),
    ("Adadelta", {"lr": 1.0}),
    ("RAdam", {"lr": 0.01}),
]


class Side:
    """An optimizer, ours or torch's, with what is done to it."""

    def __init__(self, home: Any, name: str, numbers: dict[str, Any]) -> None:
        draw = torch.Generator().manual_seed(0)
        shapes = ((3, 4), (4,), (), (5, 2, 2), (0, 3), (7,))
        self.weights = [
            nn.Parameter(torch.randn(shape, generator=draw, dtype=torch.float64)) for shape in shapes
        ]
        parts = [{"params": self.weights[:2]}, {"params": self.weights[2:5], "lr": 0.02}]
        self.optimizer = getattr(home, name)(parts, **numbers)

    def do(self, what: str, share: float) -> None:
        groups = self.optimizer.param_groups
        group, weight = groups[int(share * len(groups))], self.weights[int(share * 5)]
        slots = [x for x in self.optimizer.state.get(weight, {}).values() if torch.is_tensor(x) and x.dim()]
        if what in ("lr", "weight_decay"):
            group[what] = 0.02 * share
        elif what == "maximize":
            group[what] = not group[what]
        elif what == "reload":
            self.optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        elif what == "copy":
            self.weights, self.optimizer = copy.deepcopy((self.weights, self.optimizer))
        elif what == "pickle":
            self.weights, self.optimizer = pickle.loads(pickle.dumps((self.weights, self.optimizer)))
        elif what == "add" and all(len(one["params"]) > 1 for one in groups):
            self.optimizer.add_param_group({"params": self.weights[5], "lr": 0.03})
        elif what == "forget":
            self.optimizer.state.pop(weight, None)
        elif what == "halve":
            for slot in slots:
                slot.mul_(0.5)
        elif what == "swap":
            groups.reverse()
        elif what == "move":
            weight.data = weight.data.clone()

    def step(self, gradients: list[torch.Tensor | None]) -> Iterator[torch.Tensor]:
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.grad = None if gradient is None else gradient.clone()
        self.optimizer.step()
        return (weight.detach() for weight in self.weights)


@each("seed", range(6), push=3)
@each(("name", "numbers"), WALKS)
def test_whatever_is_done_to_it_the_numbers_are_torchs(name: str, numbers: dict[str, Any], seed: int) -> None:
    chance, draw = random.Random(seed), torch.Generator().manual_seed(seed)
    sides = Side(st, name, numbers), Side(torch.optim, name, numbers | {"foreach": False})
    edits = [
        "lr",
        "weight_decay",
        "maximize",
        "reload",
        "copy",
        "pickle",
        "add",
        "forget",
        "halve",
        "swap",
        "move",
    ]
    done = []
    for _ in range(STEPS):
        done.append(chance.choice(edits))
        share = chance.random()
        for side in sides:
            side.do(done[-1], share)
        gradients = [
            None if chance.random() < 0.2 else torch.randn(w.shape, generator=draw, dtype=torch.float64)
            for w in sides[0].weights
        ]
        for w, theirs in zip(*(side.step(gradients) for side in sides), strict=True):
            # Roundings of a few operations a step; what is small beside its own history is not worse.
            torch.testing.assert_close(w, theirs, rtol=0, atol=100 * STEPS * EPS, msg=f"after {done}")
