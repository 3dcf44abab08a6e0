"""What people get wrong with optimizers: a sentence that says so, and nothing has moved."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import steepest.torch as ours
from steepest import rules, wrap
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UnsupportedGradient, UserError
from steepest.torch import optimizer


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 2))


def bits(opt: torch.optim.Optimizer) -> tuple[Any, ...]:
    """Weights, state and counters, to the bit."""
    weights = [w for group in opt.param_groups for w in group["params"]]
    state = [
        (key, x.clone().numpy().tobytes() if isinstance(x, torch.Tensor) else x)
        for w in weights
        for key, x in sorted(opt.state.get(w, {}).items())
    ]
    return [w.detach().numpy().tobytes() for w in weights], state, getattr(opt, "steps", 0)


def two(rule: Any = None, moved: bool = True) -> RuleOptimizer:
    """An optimizer of two groups, after a step."""
    draw = torch.Generator().manual_seed(0)
    first, second = (nn.Parameter(torch.randn(shape, generator=draw)) for shape in ((4, 3), (5,)))
    opt = RuleOptimizer([{"params": [first]}, {"params": [second]}], rule or rules.AdamW(lr=0.1))
    for w in (first, second):
        w.grad = torch.ones_like(w)
    if moved:
        opt.step()
    return opt


def gradient(opt: torch.optim.Optimizer, change: Callable[[torch.Tensor], Any]) -> list[Any]:
    """Gradients of all weights, the last one changed."""
    own = [torch.ones_like(w) for group in opt.param_groups for w in group["params"]]
    return [*own[:-1], change(own[-1])]


GRADIENTS: dict[str, tuple[Callable[[torch.Tensor], Any], type[Exception], str]] = {
    "sparse": (lambda g: g.to_sparse(), RuntimeError, "dense weights.*sparse=False"),
    "whole numbers": (lambda g: g.long(), UnsupportedGradient, "torch.int64. Gradients are floats"),
    "truth values": (lambda g: g.bool(), UnsupportedGradient, "torch.bool"),
    "complex": (lambda g: g.to(torch.complex64), UnsupportedGradient, "complex"),
    "another shape": (lambda g: g[:-1], UserError, r"shape \(4,\) was given for a weight of shape \(5,\)"),
    "another device": (lambda g: g.to("meta"), UserError, "lies on cpu, its gradient on meta"),
    "no tensor": (lambda g: g.numpy(), UserError, "must be a tensor, got ndarray"),
}


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("moved", [True, False], ids=["later", "first step"])
@pytest.mark.parametrize("rule", [rules.AdamW(lr=0.1), rules.AdafactorTorch()], ids=["kernel", "plain"])
@pytest.mark.parametrize("name", GRADIENTS)
def test_a_gradient_that_cannot_be_used_leaves_all_groups(name: str, rule: Any, moved: bool) -> None:
    change, kind, sentence = GRADIENTS[name]
    opt = two(rule, moved)
    before = bits(opt)
    with pytest.raises(UserError, match=sentence) as caught:
        opt.step(gradients=gradient(opt, change))
    assert isinstance(caught.value, kind)
    assert bits(opt) == before
    opt.step()
    assert bits(opt) != before


@pytest.mark.parametrize("count", [0, 1, 3])
def test_gradients_are_as_many_as_weights(count: int) -> None:
    opt = two()
    before = bits(opt)
    with pytest.raises(UserError, match=f"{count} gradients were given for 2 weights"):
        opt.step(gradients=[torch.ones(4, 3), torch.ones(5), torch.ones(1)][:count])
    assert bits(opt) == before


def test_a_sparse_gradient_of_an_embedding_is_refused_by_name_of_the_remedy() -> None:
    model = nn.Embedding(7, 4, sparse=True)
    opt = ours.AdamW(model.parameters())
    model(torch.tensor([1, 2])).sum().backward()
    before = bits(opt)
    with pytest.raises(RuntimeError, match="sparse=False"):
        opt.step()
    assert bits(opt) == before


@pytest.mark.parametrize("name", ["Muon", "Adafactor"])
def test_complex_weights_are_refused_where_torch_refuses_them(name: str) -> None:
    weight = nn.Parameter(torch.ones(2, 3, dtype=torch.complex64))
    weight.grad = torch.ones_like(weight)
    opt = getattr(ours, name)([weight])
    with pytest.raises(RuntimeError, match=f"{name} does not support complex parameters"):
        opt.step()
    plain = RuleOptimizer([weight], rules.SOAP())
    before = bits(plain)
    with pytest.raises(RuntimeError, match="SOAP does not support complex parameters"):
        plain.step()
    assert bits(plain) == before


@pytest.mark.parametrize("value", [-1.0, float("nan"), 1.5])
@pytest.mark.parametrize("entry", ["lr", "weight_decay", "betas"])
def test_a_number_out_of_range_written_into_a_group_stops_the_step(entry: str, value: float) -> None:
    if entry != "betas" and value == 1.5:
        value = float("inf")
    opt = two()
    before = bits(opt)
    opt.param_groups[1][entry] = (0.9, value) if entry == "betas" else value
    word = "beta2" if entry == "betas" else entry
    with pytest.raises(UserError, match=f"AdamW's {word} must lie in"):
        opt.step()
    assert bits(opt) == before


SCALES = [float("nan"), float("inf"), float("-inf"), 0.0, torch.tensor(float("nan"))]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("home", ["ordinary", "watched", "closure", "curvature"])
def test_a_scale_that_is_no_factor_stops_the_step(home: str, moved: bool, scale: Any) -> None:
    opt = two(rules.AdaHessian() if home == "curvature" else None, moved=moved and home != "curvature")
    if home == "watched":
        opt.register_step_pre_hook(lambda *_: None)
    before, closures = (
        bits(opt),
        {"closure": lambda: 1.0, "curvature": lambda: opt.param_groups[0]["params"][0].sum()},
    )
    with pytest.raises(
        UserError, match=r"step\(scale=\) must be a finite number that is not 0, got .*nothing has"
    ):
        opt.step(closures.get(home), scale=scale)
    assert bits(opt) == before


# --- groups ---


def test_a_pattern_that_fits_no_weight_is_named_with_its_neighbours() -> None:
    with pytest.raises(UserError, match=r"'3\.wieght' fits no weight.*Did you mean '3\.weight'"):
        optimizer(net(), "adamw", {"3.wieght": "lion"})
    with pytest.raises(UserError, match="claims no weight: earlier ones claim"):
        optimizer(net(), "adamw", {"3.*": "lion", "3.weight": "sgd"})
    with pytest.raises(UserError, match="fits no weight"):
        optimizer(net(), "adamw", lr_scale={"head*": 0.1})


@pytest.mark.parametrize("home", [lambda groups: RuleOptimizer(groups, rules.AdamW()), ours.AdamW, ours.Lion])
def test_a_weight_in_two_groups_is_refused(home: Callable[[Any], Any]) -> None:
    weight, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match="more than one parameter group"):
        home([{"params": [weight]}, {"params": [weight]}])
    opt = home([weight])
    with pytest.raises(ValueError, match="more than one parameter group"):
        opt.add_param_group({"params": [other, weight], "lr": 0.5})
    assert len(opt.param_groups) == 1
    for w in (weight, other):
        w.grad = torch.ones(3)
    opt.step()
    assert torch.equal(other.detach(), torch.ones(3))


def test_rules_and_weights_that_do_not_fit_are_refused_at_once() -> None:
    vector, matrix = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3, 3))
    with pytest.raises(UserError, match=r"steepest\.torch\.optimizer"):
        RuleOptimizer([vector], rules.Dion())
    opt = RuleOptimizer([matrix], rules.Dion())
    with pytest.raises(UserError, match=r"steepest\.torch\.optimizer"):
        opt.add_param_group({"params": [vector]})
    assert len(opt.param_groups) == 1
    with pytest.raises(UserError, match="There is no update rule 'adamm'"):
        optimizer(net(), "adamm")


# --- state ---


def checkpoint_of(home: Any, shapes: tuple[tuple[int, ...], ...] = ((4, 3), (5,)), **arguments: Any) -> Any:
    weights = [nn.Parameter(torch.ones(shape)) for shape in shapes]
    opt = home(weights, **arguments)
    for w in weights:
        w.grad = torch.ones_like(w)
    opt.step()
    return opt.state_dict()


OTHERS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "another shape": (
        lambda: checkpoint_of(torch.optim.AdamW, ((4, 2), (5,))),
        [r"exp_avg of 0 is \(4, 2\), its weight \(4, 3\)", r"exp_avg_sq of 0 is \(4, 2\)"],
    ),
    "another rule": (
        lambda: checkpoint_of(torch.optim.RMSprop),
        ["square_avg of 0 is nothing of AdamW", "square_avg of 1 is nothing of AdamW"],
    ),
    "a rule that keeps less": (
        lambda: checkpoint_of(ours.Lion),
        ["exp_avg_sq of 0 is missing", "exp_avg_sq of 1 is missing"],
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_that_does_not_fit_is_listed_and_not_loaded(name: str) -> None:
    make, sentences = OTHERS[name]
    weights = [nn.Parameter(torch.ones(shape)) for shape in ((4, 3), (5,))]
    opt = ours.AdamW(weights, lr=0.5)
    for w in weights:
        w.grad = torch.ones_like(w)
    opt.step()
    before, groups = bits(opt), copy.deepcopy(opt.state_dict()["param_groups"])
    with pytest.raises(UserError, match="nothing was loaded") as caught:
        opt.load_state_dict(make())
    for sentence in sentences:
        assert caught.match(sentence)
    assert bits(opt) == before
    assert opt.state_dict()["param_groups"] == groups


def test_numbers_of_groups_and_weights_are_torchs_to_check() -> None:
    opt = ours.AdamW([nn.Parameter(torch.ones(3))])
    with pytest.raises(ValueError, match="doesn't match the size"):
        opt.load_state_dict(checkpoint_of(torch.optim.AdamW, ((3,), (3,))))
    assert not opt.state


@pytest.mark.parametrize("rule", ["adamw", "adafactortorch"])
def test_state_by_name_that_does_not_fit_is_listed_and_not_loaded(rule: str) -> None:
    opt = optimizer(net(), rule)
    for w in (w for group in opt.param_groups for w in group["params"]):
        w.grad = torch.ones_like(w)
    opt.step()
    before, broken = bits(opt), opt.state_by_name()
    slot = "m" if rule == "adamw" else "r"
    broken[f"1.weight/{slot}"] = torch.zeros(2, 2)
    broken["9.weight/m"] = torch.zeros(3)
    del broken[f"3.weight/{slot}"]
    with pytest.raises(UserError, match="nothing was loaded") as caught:
        opt.load_state_by_name(broken)
    for name in (f"1.weight/{slot}", "9.weight/m", f"3.weight/{slot}"):
        assert name in str(caught.value)
    assert bits(opt) == before


# --- closures ---


@pytest.mark.parametrize("rule", [wrap.sam(rules.AdamW()), rules.AdaHessian(), rules.SophiaG()], ids=str)
def test_a_closure_that_is_missing_is_asked_for(rule: Any) -> None:
    opt = two(rule, moved=False)
    before = bits(opt)
    with pytest.raises(UserError, match=r"more than one pass: call step\(closure\)"):
        opt.step()
    assert bits(opt) == before


def test_arrays_beside_gradients_are_checked_as_gradients_are() -> None:
    opt = two(rules.SophiaH(), moved=False)
    before = bits(opt)
    for d in ([torch.ones(4, 3)], [torch.ones(4, 3), torch.ones(4)], [torch.ones(4, 3), None]):
        with pytest.raises(UserError):
            opt.step(gradients=gradient(opt, torch.clone), reads={"d": d})
    with pytest.raises(UserError, match="reads an array 'd'"):
        opt.step(gradients=gradient(opt, torch.clone), reads={"h": []})
    assert bits(opt) == before
