"""hypertune: moves only what stands out of the noise, to where theory says, and not into the known traps."""

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from steepest import rules, schedule
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError
from steepest.torch import Dial, hypertune, optimizer
from steepest.train import gate
from steepest.train.knobs import Line
from steepest.train.optimizer_adapter import adapted

DOUBLE = torch.float64


class Bowl(nn.Module):
    """½·Σ curvature·w², a weight tensor for each curvature."""

    def __init__(self, curvatures: list[float], size: int = 1, start: float = 1.0) -> None:
        super().__init__()
        self.curvatures = curvatures
        self.parts = nn.ParameterList(torch.full((size,), start, dtype=DOUBLE) for _ in curvatures)

    def loss(self, noise: Callable[[int], Any] = lambda n: 0.0) -> torch.Tensor:
        terms = [
            h * ((w - noise(n)) ** 2).sum()
            for n, (h, w) in enumerate(zip(self.curvatures, self.parts, strict=True))
        ]
        return 0.5 * torch.stack(terms).sum()

    def grouped(self, rule: Any) -> RuleOptimizer:
        return RuleOptimizer([{"params": [w]} for w in self.parts], rule, engine="torch")


def descend(opt: RuleOptimizer, compute: Callable[[], torch.Tensor], steps: int) -> None:
    for _ in range(steps):
        opt.zero_grad()
        compute().backward()
        opt.step()


QUICK: dict[str, Any] = {"window": 10, "every": 1, "validate_every": 2}


# --- the gate ---


def test_a_mean_within_two_errors_of_zero_moves_nothing() -> None:
    samples = [0.3, -0.2, 0.1, -0.25, 0.2, -0.1]
    mean, error = gate.mean_and_error(samples)
    assert error == pytest.approx(np.std(samples, ddof=1) / math.sqrt(6))
    assert abs(mean) < 2 * error
    assert gate.move(samples, 0.05) == 0.0
    assert gate.move([x - mean + 1.99 * error for x in samples], 0.05) == 0.0
    shifted = [x - mean + 2.01 * error for x in samples]
    assert gate.move(shifted, 0.05) == pytest.approx(-0.05 * min(1, 2.01 * error / 0.1))


def test_a_move_is_against_the_sign_and_no_longer_than_the_gain() -> None:
    assert gate.move([0.5] * 5, 0.05) == -0.05
    assert gate.move([-0.05] * 5, 0.05) == pytest.approx(0.025)
    assert gate.move([0.5] * (gate.LEAST - 1), 0.05) == 0.0


def test_moves_apart_leave_the_level_and_do_not_see_what_all_have_in_common() -> None:
    draw, shares = np.random.default_rng(0), [0.7, 0.2, 0.1]
    rows = draw.normal([0.1, -0.2, 0.3], 0.05, size=(20, 3))
    moves = gate.moves_apart(rows.tolist(), shares, 0.05, lambda *_: True)
    assert all(moves)
    assert max(map(abs, moves)) <= 0.05 * (1 + 1e-12)
    assert sum(s * m for s, m in zip(shares, moves, strict=True)) == pytest.approx(0.0, abs=1e-16)
    common = rows + draw.normal(0.4, 0.2, size=(20, 1))
    again = gate.moves_apart(common.tolist(), shares, 0.05, lambda *_: True)
    assert again == pytest.approx(moves, rel=1e-9)


def test_moves_apart_are_among_those_that_move() -> None:
    """A frozen group, whose cosine is always 0, held the common level of the others against itself."""
    rows = np.random.default_rng(0).normal([-0.5, -0.4, 0.0], [0.02, 0.02, 0.0], size=(20, 3))
    moves = gate.moves_apart(rows.tolist(), [0.3, 0.2, 0.5], 0.05, lambda *_: True)
    apart = gate.moves_apart(rows[:, :2].tolist(), [0.3, 0.2], 0.05, lambda *_: True)
    assert moves == [*apart, 0.0]
    assert gate.moves_apart(rows[:, 1:].tolist(), [0.5, 0.5], 0.05, lambda *_: True) == [0.0, 0.0]


def test_who_is_at_a_bound_stays_and_the_others_go_without_it() -> None:
    rows = [[-0.5, 0.2, 0.4]] * 6
    moves = gate.moves_apart(rows, [1 / 3] * 3, 0.05, lambda number, by: number != 0 or by <= 0)
    assert moves[0] == 0.0
    assert moves[1] == pytest.approx(-moves[2])
    assert moves[1] > 0


@pytest.mark.parametrize("line", [Line(), Line(0.0, 1.0), Line(1.0), Line(-2.0, 5.0)])
def test_a_line_has_the_slope_it_says_and_leads_back(line: Line) -> None:
    value, h = line.low + 0.3, 1e-4
    slope = (line.moved(value, h) - line.moved(value, -h)) / (2 * h)
    assert slope == pytest.approx(line.slope(value), rel=h**2)
    assert line.moved(line.moved(value, 0.7), -0.7) == pytest.approx(value, rel=1e-12)
    assert line.holds(line.moved(value, 20.0))


# --- rates ---


def test_ratios_of_rates_approach_those_of_one_over_the_curvatures() -> None:
    curvatures = [1.0, 2.0, 4.0]
    net = Bowl(curvatures, start=1e60)  # descent is so fast that numbers would run out below
    opt = net.grouped(rules.SGD(lr=0.2))
    hypertune(net, opt, "lr_scale", **QUICK)
    descend(opt, net.loss, 500)
    reached = [group["lr_scale"] * h for group, h in zip(opt.param_groups, curvatures, strict=True)]
    assert reached == pytest.approx([2.0] * 3, rel=0.02)


def test_the_level_of_the_rates_rises_to_one_over_the_curvature_and_stays() -> None:
    net = Bowl([4.0], start=1e60)
    opt = net.grouped(rules.SGD(lr=0.1))
    tuner = hypertune(net, opt, "lr", gain=0.1, **QUICK)
    rates = []
    for _ in range(14):
        descend(opt, net.loss, 10)
        rates.append(opt.rate)
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.25, rel=0.06)
    assert [row["name"] for row in tuner.history] == ["lr"] * len(tuner.history)
    assert tuner.history[-1]["values"] == [opt.rule_of(group).lr for group in opt.param_groups]


@pytest.mark.parametrize("lr", [0.3, 0.45])
def test_a_rate_above_one_over_the_curvature_is_left_to_the_schedule(lr: float) -> None:
    net = Bowl([4.0])
    opt = net.grouped(rules.SGD(lr=lr))
    hypertune(net, opt, "lr", **QUICK)
    descend(opt, net.loss, 60)
    assert opt.rate == lr


def test_a_level_that_has_risen_is_not_raised_again_when_the_schedule_falls() -> None:
    net = Bowl([4.0], start=1e30)
    falling = schedule.Join((schedule.Constant(0.3), schedule.Constant(0.02)), (30,))
    opt = net.grouped(rules.SGD(lr=falling))
    hypertune(net, opt, "lr", **QUICK)
    descend(opt, net.loss, 90)
    assert opt.rate == 0.02


def test_rates_stay_within_three_times_and_below_the_highest() -> None:
    for highest, top in ((math.inf, 0.03), (0.02, 0.02)):
        net = Bowl([1.0])
        opt = net.grouped(rules.SGD(lr=0.01))
        hypertune(net, opt, "lr", highest=highest, **QUICK)
        descend(opt, net.loss, 600)
        assert opt.rate == pytest.approx(top, rel=1e-12)


def test_a_schedule_that_still_rises_keeps_below_the_highest_too() -> None:
    """The level went up while the rate was a thirtieth of its height, and the warm-up took it past."""
    net = Bowl([1.0])
    opt = net.grouped(rules.SGD(lr=schedule.WarmUp(schedule.Constant(0.01), 300)))
    tuner = hypertune(net, opt, "lr", highest=0.02, **QUICK)
    descend(opt, net.loss, 250)
    assert opt.rate < 0.02
    assert tuner.history, "the level has moved while the rate rose"
    descend(opt, net.loss, 350)
    assert opt.rate == pytest.approx(0.02, rel=1e-12)


@pytest.mark.parametrize(
    "highest", [2.01e-3, *(pytest.param(one, marks=pytest.mark.full) for one in (math.inf, 1.3e-3))]
)
def test_level_and_ratios_together_keep_to_the_bounds_of_each(highest: float) -> None:
    """A group whose gradients agree beside one of noise: the ratio and the level push the same rate."""
    net, draw = Bowl([1.0, 1.0], size=50), torch.Generator().manual_seed(0)
    opt = net.grouped(rules.SGD(lr=1e-3))
    hypertune(net, opt, "lr", "lr_scale", highest=highest, window=25, every=1, validate_every=5)
    reached = 0.0
    for _ in range(1500):
        for w, mean, noise in zip(net.parts, (1.0, 0.3), (0.1, 1.0), strict=True):
            w.grad = mean + noise * torch.randn(50, generator=draw, dtype=DOUBLE)
        opt.step()
        reached = max(reached, *(opt.rule_of(group).lr for group in opt.param_groups))
    assert reached == pytest.approx(min(highest, 3e-3), rel=0.05)
    assert reached <= min(highest, 3e-3) * (1 + 1e-12)


def test_one_noisy_window_does_not_stop_the_level_for_ever() -> None:
    net = Bowl([4.0])
    opt = net.grouped(rules.SGD(lr=0.1))
    (knob,) = hypertune(net, opt, "lr", **QUICK).knobs
    column = {"noise": [0.3, -0.28, 0.3, -0.29, 0.02], "longer": [-0.3, -0.2, -0.25, -0.3, -0.2]}
    column["shorter"] = [-x for x in column["longer"]]
    rates = []
    for window in ("noise", "longer", "shorter", "longer"):
        knob.samples = [[x, x] for x in column[window]]
        knob.turn(0.1, False)
        rates.append(opt.rate)
    assert rates == pytest.approx([0.1, 0.1 * math.exp(0.1), 0.1 * math.exp(0.1), 0.1 * math.exp(0.1)])


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("lr", [0.1, 0.5, 1.0, 1.5, 3.0])
def test_a_sample_is_what_a_step_has_left_of_its_gradient(lr: float, scale: float) -> None:
    """1 - lr·h on a parabola, so that it fades where the step becomes right; a cosine would be ±1."""
    net = Bowl([1.0], size=2)
    opt = net.grouped(rules.SGD(lr=lr / scale))
    (knob,) = hypertune(net, opt, "lr", **QUICK).knobs
    for _ in range(2):
        opt.zero_grad()
        net.loss().backward()
        opt.step(scale=scale)
    assert knob.samples == [pytest.approx([max(lr - 1, -1.0) if lr < 2 else 1.0] * 2, abs=1e-12)]


def noisy(curvatures: list[float], size: int) -> tuple[Bowl, Callable[[], torch.Tensor]]:
    """The noisy quadratic of Wu et al. 2018, arXiv:1803.02021: the optimum jumps by ξ of variance 1/h."""
    net, draw = Bowl(curvatures, size, start=5.0), torch.Generator().manual_seed(0)

    def compute() -> torch.Tensor:
        jumps = [torch.randn(size, generator=draw, dtype=DOUBLE) / math.sqrt(h) for h in curvatures]
        return net.loss(lambda n: jumps[n])

    return net, compute


@pytest.mark.full
def test_where_a_plain_hypergradient_collapses_the_guarded_one_does_not() -> None:
    curvatures = [1.0, 0.1, 0.01, 0.001]
    net, compute = noisy(curvatures, 10)
    plain = RuleOptimizer(net.parameters(), rules.HypergradientSGD(lr=0.5, kappa=1e-3), engine="torch")
    descend(plain, compute, 3000)
    gained = float(plain.state[net.parts[0]]["gained"])
    assert 0 < 0.5 + gained < 0.05
    stuck = float(net.parts[-1].detach().norm())

    net, compute = noisy(curvatures, 10)
    opt = net.grouped(rules.SGD(lr=0.5))
    hypertune(net, opt, "lr", "lr_scale", highest=1.0)
    descend(opt, compute, 3000)
    level = sum(math.log(group["lr_scale"]) for group in opt.param_groups) / len(curvatures)
    assert level >= -1e-12
    assert float(net.parts[-1].detach().norm()) < 0.6 * stuck


# --- decays, momenta, dials ---


@pytest.mark.parametrize(("wanted", "sign"), [(0.5, 1), (3.0, -1)])
def test_a_decay_goes_where_the_validation_loss_wants_it(wanted: float, sign: int) -> None:
    net = Bowl([1.0], start=1.5)
    opt = net.grouped(rules.AdamW(lr=0.01, weight_decay=0.1))
    seen: list[int] = []

    def validation(n: int) -> torch.Tensor:
        seen.append(n)
        return ((net.parts[0] - wanted) ** 2).sum()

    tuner = hypertune(net, opt, "weight_decay", validation=validation, **QUICK)
    descend(opt, lambda: ((net.parts[0] - 2.0) ** 2).sum(), 100)
    decay = opt.param_groups[0]["weight_decay"]
    assert sign * math.log(decay / 0.1) == pytest.approx(0.05 * len(tuner.history), rel=1e-9)
    assert len(tuner.history) >= 8
    assert seen == list(range(len(seen)))


def test_momentum_moves_in_log_odds_and_stays_a_share() -> None:
    net = Bowl([1.0, 0.01], size=3)
    opt = RuleOptimizer(net.parameters(), rules.AdamW(lr=0.001, beta1=0.5), engine="torch")
    tuner = hypertune(net, opt, "beta1", **QUICK)
    descend(opt, net.loss, 400)
    beta1, beta2 = opt.param_groups[0]["betas"]
    assert tuner.history
    assert beta2 == 0.999
    assert beta1 != 0.5
    assert 1 / 11 <= beta1 <= 10 / 11
    odds = math.log(beta1 / (1 - beta1))
    assert odds == pytest.approx(sum(tuner.knobs[0].moved), rel=1e-9)


def test_a_dial_that_no_gradient_reaches_is_turned_to_what_validates() -> None:
    net = Bowl([1.0])
    target = Dial("target", 1.0)
    opt = net.grouped(rules.SGD(lr=0.05))

    def training(n: int = 0) -> torch.Tensor:
        return ((net.parts[0] - float(target)) ** 2).sum()

    hypertune(
        net, opt, target, training=training, validation=lambda n: ((net.parts[0] - 2.0) ** 2).sum(), **QUICK
    )
    descend(opt, training, 600)
    assert target.value == pytest.approx(2.0, rel=0.1)


class Restless(nn.Module):
    """A net that draws random numbers and keeps statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_looking_leaves_no_trace_until_something_moves() -> None:
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    runs = []
    for tuned in (False, True):
        torch.manual_seed(0)
        net, dial = Restless(), Dial("scale", 1.0)
        opt = optimizer(net, "adamw")

        def loss(n: int = 0, net: nn.Module = net, dial: Dial = dial) -> torch.Tensor:
            return (net(x) * float(dial)).pow(2).mean()

        if tuned:
            hypertune(net, opt, "lr_scale", "weight_decay", dial, training=loss, validation=loss)
        descend(opt, loss, 50)
        assert all(module.training for module in net.modules())
        runs.append([*net.state_dict().values(), torch.get_rng_state()])
    assert all(map(torch.equal, *runs))


class Counting(Restless):
    """A buffer that every pass adds to, in test mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: torch.Tensor
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return super().forward(x)


def test_a_validation_loss_leaves_buffers_that_change_in_test_mode_too() -> None:
    net, x = Counting(), torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    opt = optimizer(net, "adamw")
    tuner = hypertune(net, opt, "weight_decay", validation=lambda n: net(x).pow(2).mean(), **QUICK)
    descend(opt, lambda: net(x).pow(2).mean(), 20)
    assert tuner.losses.validated > 0
    assert int(net.passes) == 20


def test_nothing_but_the_level_moves_while_a_rate_warms_up() -> None:
    net = Bowl([1.0, 4.0])
    lr = schedule.WarmUp(schedule.Constant(0.1), warmup=100)
    opt = net.grouped(rules.SGD(lr=lr))
    hypertune(net, opt, "lr_scale", **QUICK)
    descend(opt, net.loss, 100)
    assert [group.get("lr_scale", 1.0) for group in opt.param_groups] == [1.0, 1.0]
    descend(opt, net.loss, 30)
    assert opt.param_groups[0]["lr_scale"] > 1.0 > opt.param_groups[1]["lr_scale"]


def test_a_number_that_steps_do_not_feel_is_named_once_and_left() -> None:
    net = Bowl([1.0], size=4)
    opt = net.grouped(rules.Lion(lr=0.001))
    tuner = hypertune(net, opt, "beta1", **QUICK)
    with pytest.warns(UserWarning, match=r"leaves beta1 at \[0\.9\]: a step does not depend on it"):
        descend(opt, net.loss, 15)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        descend(opt, net.loss, 50)
    assert opt.param_groups[0]["betas"] == (0.9, 0.99)
    assert tuner.history == []


def test_what_steps_have_felt_is_known_to_a_process_that_goes_on() -> None:
    nets = [Bowl([4.0]) for _ in range(2)]
    opts = [net.grouped(rules.SGD(lr=0.3)) for net in nets]
    pace: dict[str, Any] = {"window": 25, "every": 5, "validate_every": 5}
    first, again = (hypertune(net, opt, "lr", **pace) for net, opt in zip(nets, opts, strict=True))
    descend(opts[0], nets[0].loss, 23)  # the last look before the decision has come to its sample
    for old, new in ((nets[0], nets[1]), (opts[0], opts[1]), (first, again)):
        new.load_state_dict(old.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        descend(opts[1], nets[1].loss, 3)
    assert not again.knobs[0].settled


def test_a_look_ahead_does_not_outlive_weights_that_are_put_back() -> None:
    net = Bowl([4.0])
    opt = optimizer(net, "sgd")
    tuner, face = hypertune(net, opt, "lr", **QUICK), adapted(opt, net)
    good = face.state_dict()
    descend(opt, net.loss, 2)
    assert len(tuner.knobs[0].samples) == 1
    face.load_slots(good["slots"])
    descend(opt, net.loss, 1)
    assert len(tuner.knobs[0].samples) == 1


def test_copies_are_not_tuned_and_stopping_ends_it() -> None:
    net = Bowl([1.0, 2.0])
    opt = net.grouped(rules.SGD(lr=0.2))
    tuner = hypertune(net, opt, "lr_scale", **QUICK)
    assert copy.deepcopy(opt).listeners == []
    descend(opt, net.loss, 100)
    before = [group["lr_scale"] for group in opt.param_groups]
    opt.load_state_dict(opt.state_dict())
    assert opt.listeners == [tuner]
    tuner.stop()
    descend(opt, net.loss, 100)
    assert [group["lr_scale"] for group in opt.param_groups] == before != [1.0, 1.0]


def test_rules_of_several_passes_are_tuned_by_the_gradient_they_use() -> None:
    from steepest import wrap

    net = Bowl([1.0, 4.0], size=2)
    opt = net.grouped(wrap.sam(rules.SGD(lr=0.1)))
    hypertune(net, opt, "lr_scale", **QUICK)

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = net.loss()
        loss.backward()
        return loss

    for _ in range(60):
        opt.step(closure)
    assert opt.param_groups[0]["lr_scale"] > 1.1 > 0.9 > opt.param_groups[1]["lr_scale"]


# --- bad input ---

HELD_OUT: dict[str, Any] = {"validation": lambda n: None}
REFUSED: list[tuple[Any, Any, dict[str, Any], str]] = [
    (rules.SGD(), (), {}, "Name what to tune"),
    (rules.SGD(), ("lr", "lr"), {}, "each once"),
    (rules.SGD(), ("lr_scale",), {}, "has one group"),
    (rules.SGD(), ("momentun",), {}, r"no rule here has a number|No rule here has a number 'momentun'"),
    (rules.AdamW(), ("weight_decay",), {}, "on a validation loss alone"),
    (rules.AdamW(weight_decay=0), ("weight_decay",), HELD_OUT, "the end of its range"),
    (rules.AdamW(beta1=schedule.Constant(0.5)), ("beta1",), {}, "follows a schedule"),
    (rules.SGD(), (Dial("mixing", 0.5),), HELD_OUT, "needs training="),
    (rules.SGD(), ("lr",), {"window": 20}, "fewer than 5 looks"),
    (rules.SGD(), ("lr",), {"gain": 2.0}, r"gain must lie in \(0, 0\.5\]"),
    (rules.SGD(), ("lr",), {"highest": 0.0}, "highest must be above 0, got 0.0"),
    (rules.SGD(), ("lr",), {"highest": "a"}, "highest must be above 0, got 'a'"),
    (rules.SGD(), ("lr",), {"gain": "x"}, r"gain must lie in \(0, 0\.5\], got 'x'"),
    (rules.SGD(), ("lr",), {"window": "100"}, "window is a number of steps.* got '100'"),
    (rules.SGD(), ("lr",), {"every": 2.5}, "every is a number of steps.* got 2.5"),
    (rules.SGD(), ("lr",), {"every": 0}, "every is a number of steps.* at least 1; got 0"),
    (rules.SGD(), ("lr",), {"warmup": "10 steps"}, "warmup is a number of steps.* got '10 steps'"),
    (rules.SGD(), ("lr",), {"validation": 3}, "validation must be a function.* got 3"),
    (rules.SGD(), (["lr"],), {}, r"Name what to tune one by one.* got \['lr'\]"),
    (rules.AdamW(), ("weight_decay",), HELD_OUT | {"window": 25, "every": 1}, "one in 10 steps"),
    (rules.SGD(), ("lr", Dial("lr", 0.1)), {}, "each once"),
]


@pytest.mark.parametrize(("rule", "what", "settings", "said"), REFUSED)
def test_what_cannot_be_tuned_is_refused_with_the_reason(
    rule: Any, what: Any, settings: dict[str, Any], said: str
) -> None:
    net = Bowl([1.0])
    with pytest.raises(UserError, match=said):
        hypertune(net, net.grouped(rule), *what, **settings)


def test_only_a_pace_that_something_goes_by_needs_a_window() -> None:
    net = Bowl([1.0])
    hypertune(net, net.grouped(rules.SGD()), "lr", window=25, every=1)


def test_a_dial_may_not_have_the_name_of_the_rates() -> None:
    net = Bowl([1.0, 2.0])
    both = {"validation": lambda n: net.loss(), "training": lambda n: net.loss()}
    with pytest.raises(UserError, match="A dial has the name 'lr'"):
        hypertune(net, net.grouped(rules.SGD()), "lr_scale", Dial("lr", 0.1), **both)


def test_other_optimizers_bad_dials_and_losses_are_named() -> None:
    net = Bowl([1.0])
    with pytest.raises(UserError, match="was given SGD"):
        hypertune(net, torch.optim.SGD(net.parameters()), "lr")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="must begin between 0 and 1, got 0"):
        Dial("mixing", 0.0, high=1.0)
    with pytest.raises(UserError, match="between two numbers, got 'b'"):
        Dial("mixing", "b")  # type: ignore[arg-type]
    opt = net.grouped(rules.AdamW())
    hypertune(net, opt, "weight_decay", validation=lambda n: 0.5, **QUICK)  # type: ignore[arg-type,return-value]
    with pytest.raises(UserError, match="must give the loss as a tensor"):
        descend(opt, net.loss, 3)


def test_losses_that_are_not_finite_are_said() -> None:
    net = Bowl([1.0])
    opt = net.grouped(rules.AdamW())
    tuner = hypertune(net, opt, "weight_decay", validation=lambda n: net.loss() * math.nan, **QUICK)
    with pytest.warns(UserWarning, match="saw nothing of weight_decay: the validation loss or its gradient"):
        descend(opt, net.loss, 2 * QUICK["window"])
    assert tuner.history == []
