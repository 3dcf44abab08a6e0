"""Rules of more than one pass: gradients up the slope (SAM), and curvature (AdaHessian, Sophia)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from steepest import rules, wrap
from steepest.optim.engines.torch import passes
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError

DOUBLE = torch.float64
EPS = torch.finfo(DOUBLE).eps


def points() -> list[torch.nn.Parameter]:
    draw = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape, generator=draw, dtype=DOUBLE)) for shape in ((4, 3), (5,))]


def height(ws: list[torch.nn.Parameter]) -> torch.Tensor:
    """A function whose gradient is 4w³ + w, on all weights."""
    return sum((w**4 + 0.5 * w**2).sum() for w in ws)  # type: ignore[return-value]


def descending(ws: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> Callable[[], torch.Tensor]:
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = height(ws)
        loss.backward()
        return loss

    return closure


def slope(w: np.ndarray) -> np.ndarray:
    return 4 * w**3 + w


@pytest.mark.parametrize(("kind", "radius"), [("sam", 0.05), ("asam", 0.5)])
def test_the_gradient_is_that_up_the_slope(kind: str, radius: float) -> None:
    """Foret et al. 2021, algorithm 1, and Kwon et al. 2021, written out."""
    ws = points()
    optimizer = RuleOptimizer(ws, getattr(wrap, kind)(rules.SGD(lr=0.01), radius=radius))
    expected = [w.detach().numpy().copy() for w in ws]
    for _ in range(5):
        before = sum((w**4 + 0.5 * w**2).sum() for w in expected)
        loss = optimizer.step(descending(ws, optimizer))
        assert loss.item() == pytest.approx(before, rel=64 * EPS)
        stretch = [np.abs(w) if kind == "asam" else np.ones_like(w) for w in expected]
        s = [by * slope(w) for by, w in zip(stretch, expected, strict=True)]
        length = np.sqrt(sum((x**2).sum() for x in s)) + passes.EPS
        e = [radius * by * x / length for by, x in zip(stretch, s, strict=True)]
        expected = [w - 0.01 * slope(w + up) for w, up in zip(expected, e, strict=True)]
        for w, x in zip(ws, expected, strict=True):
            np.testing.assert_allclose(w.detach().numpy(), x, rtol=0, atol=512 * EPS)


def test_maximizing_looks_down_the_slope() -> None:
    """The worst place near a maximum is below it."""
    down, up = points(), points()
    rule = wrap.sam(rules.SGD(lr=0.01))
    falling = RuleOptimizer(down, rule)
    rising = RuleOptimizer([{"params": up, "maximize": True}], rule)
    falling.step(descending(down, falling))

    def closure() -> torch.Tensor:
        rising.zero_grad()
        loss = -height(up)
        loss.backward()
        return loss

    rising.step(closure)
    for x, y in zip(down, up, strict=True):
        assert torch.equal(x, y)


def test_weights_are_put_back_to_the_bit() -> None:
    """With a rate of zero nothing is left of the way up; and where the second pass fails."""
    ws = [torch.nn.Parameter(torch.tensor([1e3, 1.0, -0.1, 0.0]))]
    optimizer = RuleOptimizer(ws, wrap.sam(rules.SGD(lr=0.0), radius=0.3))
    before = ws[0].detach().numpy().tobytes()
    seen = []

    def closure() -> torch.Tensor:
        seen.append(ws[0].detach().clone())
        optimizer.zero_grad()
        loss = ws[0].abs().sum()
        loss.backward()
        if len(seen) == 4:
            raise ZeroDivisionError
        return loss

    optimizer.step(closure)
    assert ws[0].detach().numpy().tobytes() == before
    assert len(seen) == 2
    assert not torch.equal(seen[0], seen[1])
    with pytest.raises(ZeroDivisionError):
        optimizer.step(closure)
    assert ws[0].detach().numpy().tobytes() == before
    assert optimizer.steps == 1


def test_weights_of_other_rules_stay_while_some_go_up() -> None:
    first, second = points()
    groups = [{"params": [first], "rule": wrap.sam(rules.SGD(lr=0.0))}, {"params": [second]}]
    optimizer = RuleOptimizer(groups, rules.SGD(lr=0.0))
    seen = []

    def closure() -> torch.Tensor:
        seen.append((first.detach().clone(), second.detach().clone()))
        loss = height([first, second])
        loss.backward()
        return loss

    optimizer.step(closure)
    assert not torch.equal(seen[0][0], seen[1][0])
    assert torch.equal(seen[0][1], seen[1][1])
    length = float((seen[1][0] - seen[0][0]).norm())
    assert length == pytest.approx(0.05, rel=1e-9)


class Bowl:
    """A quadratic ½wᵀHw, whose Hessian is known."""

    def __init__(self, size: int = 6) -> None:
        draw = torch.Generator().manual_seed(2)
        root = torch.randn((size, size), generator=draw, dtype=DOUBLE)
        self.hessian = root @ root.T
        self.w = torch.nn.Parameter(torch.randn(size, generator=draw, dtype=DOUBLE))

    def loss(self) -> torch.Tensor:
        return 0.5 * self.w @ self.hessian @ self.w


def estimates(count: int) -> torch.Tensor:
    bowl = Bowl()
    draw = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        gradients = torch.autograd.grad(bowl.loss(), [bowl.w], create_graph=True)
        found.append(passes.hutchinson(gradients, [bowl.w], draw)[0])
    return torch.stack(found)  # type: ignore[arg-type]


def test_hutchinson_is_the_diagonal_in_the_mean() -> None:
    """Within five standard errors, which are those of the estimator: 2·Σ_{j≠i} H_ij² for z of ±1."""
    count, hessian = 4000, Bowl().hessian
    found = estimates(count)
    off = hessian - torch.diag(hessian.diag())
    variance = off.square().sum(1)
    error = (found.mean(0) - hessian.diag()).abs() / (variance / count).sqrt()
    assert float(error.max()) < 5
    ratio = found.var(0) / variance
    assert ((ratio > 0.8) & (ratio < 1.25)).all()


def test_signs_are_one_and_minus_one_and_nothing_else() -> None:
    draw = torch.Generator().manual_seed(0)
    z = passes.signs(torch.zeros(10_000), draw)
    assert set(z.tolist()) == {-1.0, 1.0}
    assert abs(float(z.mean())) < 5 / 100


def test_kernels_share_the_mean_of_their_sizes() -> None:
    d = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    shared = passes.by_kernel(d)
    assert shared.shape == d.shape
    torch.testing.assert_close(shared[1, 2], d[1, 2].abs().mean().expand(5, 5))
    matrix = d[0, 0]
    assert passes.by_kernel(matrix) is matrix


def logits_of(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return x @ w


def test_gauss_newton_is_the_diagonal_of_fisher_in_the_mean() -> None:
    """B·E[ĝ²] is the mean over examples of Σ_k p_k (∂ log p_k)², for labels drawn one an example."""
    draw = torch.Generator().manual_seed(3)
    w = torch.nn.Parameter(torch.randn((3, 4), generator=draw, dtype=DOUBLE))
    x = torch.randn((7, 3), generator=draw, dtype=DOUBLE)
    p = logits_of(w, x).softmax(1).detach()
    fisher = torch.einsum("bi,bk->ik", x.square(), p * (1 - p)) / len(x)
    found = torch.stack([passes.gauss_newton(logits_of(w, x), [w], draw)[0] for _ in range(4000)])
    error = (found.mean(0) - fisher).abs() / (found.std(0) / len(found) ** 0.5)
    assert float(error.max()) < 5


CURVED: dict[str, Any] = {
    "adahessian": rules.AdaHessian(lr=0.05),
    "adahessian every 3": rules.AdaHessian(lr=0.05, every=3),
    "sophiah": rules.SophiaH(lr=0.01, every=4),
    "sophiag": rules.SophiaG(lr=0.01, every=4),
    "cautious sophiah": wrap.cautious(rules.SophiaH(lr=0.01, every=4)),
}


def task() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    x = torch.randn(64, 6)
    return net, x, x[:, :3].argmax(1)


def fitting(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, logits: bool) -> Callable[[], Any]:
    def closure() -> Any:
        out = net(x)
        loss = cross_entropy(out, y)
        return (loss, out) if logits else loss

    return closure


@pytest.mark.parametrize("name", CURVED)
def test_rules_of_curvature_learn_and_repeat(name: str) -> None:
    ends = []
    for _ in range(2):
        net, x, y = task()
        optimizer = RuleOptimizer(net.parameters(), CURVED[name])
        closure = fitting(net, x, y, name == "sophiag")
        losses = [optimizer.step(closure).item() for _ in range(60)]
        assert losses[-1] < 0.7 * losses[0]
        ends.append([w.detach().clone() for w in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize("name", CURVED)
def test_the_extra_pass_is_made_when_it_is_due(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for estimator in ("hutchinson", "gauss_newton"):
        plain = getattr(passes, estimator)
        monkeypatch.setattr(passes, estimator, lambda *args, f=plain: made.append(1) or f(*args))
    net, x, y = task()
    optimizer = RuleOptimizer(net.parameters(), CURVED[name])
    closure = fitting(net, x, y, name == "sophiag")
    counts = []
    for _ in range(9):
        before = len(made)
        optimizer.step(closure)
        counts.append(len(made) - before)
    assert counts == [int(step % CURVED[name].every == 0) for step in range(9)]


@pytest.mark.parametrize("name", CURVED)
def test_a_run_goes_on_to_the_same_bits(name: str) -> None:
    net, x, y = task()
    optimizer = RuleOptimizer(net.parameters(), CURVED[name])
    for _ in range(6):
        optimizer.step(fitting(net, x, y, name == "sophiag"))
    again, *_ = task()
    again.load_state_dict(net.state_dict())
    other = RuleOptimizer(again.parameters(), CURVED[name])
    other.load_state_by_name(optimizer.state_by_name())
    for _ in range(6):
        optimizer.step(fitting(net, x, y, name == "sophiag"))
        other.step(fitting(again, x, y, name == "sophiag"))
    for a, b in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_weight_without_curvature_or_gradient_is_no_hindrance() -> None:
    """A loss that is linear in one weight and does not know another."""
    curved, linear, unknown = (torch.nn.Parameter(torch.ones(3)) for _ in range(3))
    optimizer = RuleOptimizer([curved, linear, unknown], rules.AdaHessian(lr=0.1))
    optimizer.step(lambda: (curved**4).sum() + linear.sum())
    assert unknown.grad is None
    assert torch.equal(unknown.detach(), torch.ones(3))
    assert bool((curved < 1).all())
    assert torch.equal(optimizer.state[linear]["v"], torch.zeros(3))


def test_arrays_may_be_given() -> None:
    """A caller who has gradients and curvature needs no closure."""
    bowl = Bowl()
    optimizer = RuleOptimizer([bowl.w], rules.SophiaH(lr=0.01))
    before = bowl.w.detach().clone()
    optimizer.step(gradients=[bowl.hessian @ before], reads={"d": [bowl.hessian.diag()]})
    assert not torch.equal(bowl.w.detach(), before)


MISTAKES: dict[str, tuple[Any, Callable[[Any, Any], Any], str]] = {
    "no closure, sam": (wrap.sam(rules.SGD()), lambda w, o: None, r"step\(closure\)"),
    "no closure, curvature": (rules.SophiaH(), lambda w, o: None, r"step\(closure\)"),
    "backward called": (rules.SophiaH(), lambda w, o: descending([w], o), "leave backward|backward"),
    "a number": (rules.SophiaH(), lambda w, o: lambda: 1.0, "as a tensor"),
    "no graph": (rules.SophiaH(), lambda w, o: lambda: torch.tensor(1.0), "as a tensor"),
    "no logits": (rules.SophiaG(), lambda w, o: lambda: (w**2).sum(), r"\(loss, logits\)"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_said_and_nothing_moves(name: str) -> None:
    rule, make, sentence = MISTAKES[name]
    w = torch.nn.Parameter(torch.ones(3))
    optimizer = RuleOptimizer([w], rule)
    with pytest.raises(UserError, match=sentence):
        optimizer.step(make(w, optimizer))
    assert torch.equal(w.detach(), torch.ones(3))
    assert optimizer.steps == 0
    assert not optimizer.state


@pytest.mark.parametrize("rule", [wrap.sam(rules.SophiaH()), wrap.asam(rules.MARSExact()), rules.MARSExact()])
def test_two_kinds_of_further_passes_do_not_mix(rule: rules.Rule) -> None:
    first, second = points()
    groups = [{"params": [first]}, {"params": [second], "rule": rules.AdaHessian()}]
    with pytest.raises(UserError, match="cannot be together in one optimizer"):
        RuleOptimizer(groups, rule)


@pytest.mark.parametrize("name", ["adahessian", "sophiah", "sophiag"])
def test_chance_is_that_of_the_seed(name: str) -> None:
    ends = []
    for seed in (0, 7, 7, -7):
        net, x, y = task()
        optimizer = RuleOptimizer(net.parameters(), CURVED[name], seed=seed)
        for _ in range(2):
            optimizer.step(fitting(net, x, y, name == "sophiag"))
        ends.append(torch.cat([w.detach().flatten() for w in net.parameters()]))
    assert torch.equal(ends[1], ends[2])
    assert not torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[1], ends[3])
