"""Wrappers: names, classes, refusals, and each formula beside a loop that was written for it."""

import copy
import pickle
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from steepest import rules, schedule, wrap
from steepest.optim.engines import on_numpy
from steepest.optim.errors import UserError
from steepest.optim.maths import HOST
from steepest.optim.rule import Number, Rule

STEPS = 20
SIZE = 6
EPS = np.finfo(np.float64).eps
LR, KEPT, DECAY = 0.05, 0.8, 0.1


def start() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SIZE)


def gradient(w: np.ndarray, t: int) -> np.ndarray:
    return 0.5 * w + np.random.default_rng(t).normal(size=SIZE)


def walked(rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """Weights after each step, and the weights to test after each."""
    w, slots, shared, path, tested = start(), rule.init(on_numpy.NUMPY, start()), dict(rule.shared), [], []
    for t in range(1, STEPS + 1):
        now = rule.at(t)
        k, _ = now.constants(HOST, t, shared)
        w, slots, shared = on_numpy.step(rule, t, t, w, gradient(w, t), slots, shared)
        path.append(w)
        tested.append(now.evaluate(on_numpy.NUMPY, k, w, *slots))
    return np.stack(path), np.stack(tested)


def assert_near(found: np.ndarray, expected: np.ndarray) -> None:
    """Ten roundings a step, of numbers as large as the largest weight."""
    atol = 10 * STEPS * EPS * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


class HeavyBall:
    """Momentum by hand: b ← 0.8b + g."""

    def __init__(self) -> None:
        self.b = np.zeros(SIZE)

    def __call__(self, g: np.ndarray) -> np.ndarray:
        self.b = KEPT * self.b + g
        return self.b


def heavy_ball(**hyper: Any) -> Rule:
    return rules.Momentum(lr=LR, momentum=KEPT, **hyper)


def stepped(move: Callable[[np.ndarray, np.ndarray, int], np.ndarray]) -> np.ndarray:
    """Weights after each step of w ← move(w, g, t)."""
    w, path = start(), []
    for t in range(1, STEPS + 1):
        w = move(w, gradient(w, t), t)
        path.append(w)
    return np.stack(path)


@pytest.mark.parametrize(
    ("wrapper", "factor"),
    [
        (wrap.cautious, lambda agreeing: SIZE / (agreeing + 1)),
        (wrap.cautious_clamped, lambda agreeing: 1 / max(agreeing / SIZE, 1e-3)),
    ],
)
def test_a_cautious_step_leaves_out_what_goes_against_the_gradient(wrapper: Any, factor: Any) -> None:
    ball, left_out = HeavyBall(), []

    def move(w: np.ndarray, g: np.ndarray, t: int) -> np.ndarray:
        u = ball(g)
        mask = (u * g > 0).astype(float)
        left_out.append(SIZE - mask.sum())
        return w - LR * u * mask * factor(mask.sum())

    assert_near(walked(wrapper(heavy_ball()))[0], stepped(move))
    assert max(left_out) > 0


def test_a_cautious_step_where_nothing_agrees_is_none() -> None:
    for wrapper in (wrap.cautious, wrap.cautious_clamped):
        rule = wrapper(heavy_ball())
        against = (-10 * np.ones(SIZE),)
        w, *_ = on_numpy.step(rule, 1, 2, start(), np.ones(SIZE), against, {})
        assert np.array_equal(w, start())


def test_a_trust_ratio_around_adamw_is_lamb() -> None:
    numbers = {"lr": LR, "beta1": KEPT, "beta2": 0.9, "eps": 1e-3, "weight_decay": DECAY}
    assert_near(walked(wrap.trust_ratio(rules.AdamW(**numbers)))[0], walked(rules.LAMB(**numbers))[0])


def test_a_trust_ratio_makes_steps_as_long_as_weights() -> None:
    rule = wrap.trust_ratio(rules.SGD(lr=LR), trust=0.3)
    path = np.vstack([start(), walked(rule)[0]])
    lengths = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert_near(lengths, 0.3 * LR * np.linalg.norm(path[:-1], axis=1))


@pytest.mark.parametrize(("w", "g"), [(0.0, 1.0), (1.0, 0.0)])
def test_without_a_norm_there_is_no_ratio(w: float, g: float) -> None:
    rule, w, g = wrap.trust_ratio(rules.SGD(lr=LR)), np.full(SIZE, w), np.full(SIZE, g)
    assert np.array_equal(on_numpy.step(rule, 1, 1, w, g, (), {})[0], w - LR * g)


def test_grokfast_adds_a_moving_average_of_gradients() -> None:
    ball, h = HeavyBall(), None

    def move(w: np.ndarray, g: np.ndarray, t: int) -> np.ndarray:
        nonlocal h
        h = g if h is None else 0.7 * h + 0.3 * g
        return w - LR * ball(g + 1.5 * h + DECAY * w)

    rule = wrap.grokfast(heavy_ball(weight_decay=DECAY), decay=0.7, gain=1.5)
    assert_near(walked(rule)[0], stepped(move))


def test_grokfast_of_a_window_adds_the_mean_of_the_last_gradients_once_it_is_full() -> None:
    ball, last = HeavyBall(), deque(maxlen=4)

    def move(w: np.ndarray, g: np.ndarray, t: int) -> np.ndarray:
        last.append(g)
        return w - LR * ball(g + (1.5 * np.mean(last, axis=0) if len(last) == 4 else 0))

    assert_near(walked(wrap.grokfast_window(heavy_ball(), window=4, gain=1.5))[0], stepped(move))


def test_lookahead_meets_its_slow_weights() -> None:
    ball, slow, shipped = HeavyBall(), start(), []

    def move(w: np.ndarray, g: np.ndarray, t: int) -> np.ndarray:
        nonlocal slow
        w = w - LR * ball(g)
        if t % 3 == 0:
            w = slow = slow + 0.4 * (w - slow)
        shipped.append(slow)
        return w

    path, tested = walked(wrap.lookahead(heavy_ball(), every=3, share=0.4))
    assert_near(path, stepped(move))
    assert_near(tested, np.stack(shipped))


def test_lookahead_resets_what_is_momentum_and_nothing_else() -> None:
    """Curvature and means for centring stay, and so does what another wrapper keeps."""
    slots = {
        "sophiah": ("m",),
        "rmspropcenteredmomentum": ("b",),
        "adan": ("m", "d"),
        "grokfast+adamw": ("m",),
        "galore": ("m",),
    }
    for name, expected in slots.items():
        kind = type(rules.named(f"lookaheadpullback+{name}"))
        assert [slot for slot in kind.slots if slot.startswith("slow_")] == [
            *(["slow_gradient"] if "grok" in name else []),
            *(f"slow_{slot}" for slot in expected),
        ]
        assert kind.slots[-1] == "slow"


@pytest.mark.parametrize("kept", [0.5, 0.999])
def test_an_average_follows_its_formula_and_leaves_the_path_alone(kept: float) -> None:
    path, tested = walked(wrap.averaged(heavy_ball(), kept))
    average, expected = start(), []
    for t, w in enumerate(path, start=1):
        share = min(kept, (1 + t) / (10 + t))
        average = share * average + (1 - share) * w
        expected.append(average)
    assert np.array_equal(path, walked(heavy_ball())[0])
    assert_near(tested, np.stack(expected))


def test_an_average_of_a_rule_that_ships_other_weights_is_of_these() -> None:
    inner = rules.ScheduleFreeSGD(lr=LR)
    _, shipped = walked(inner)
    average = start()
    for t, x in enumerate(shipped, start=1):
        average = average + (1 - (1 + t) / (10 + t)) * (x - average)
    assert_near(walked(wrap.averaged(inner))[1][-1], average)


def test_schedule_free_is_three_sequences() -> None:
    """x, y and z of Defazio et al. 2024, equations 7 to 9, the rule at z with its own decay."""
    x, z, total, largest, ball, shipped = start(), start(), 0.0, 0.0, HeavyBall(), []

    def move(w: np.ndarray, g: np.ndarray, t: int) -> np.ndarray:
        nonlocal x, z, total, largest
        lr = LR * (2 if t > 10 else 1) * min(1, t / 4)
        z = z - lr * ball(g + DECAY * z)
        largest = max(largest, lr)
        total += t**1.5 * largest**2
        x = x + t**1.5 * largest**2 / total * (z - x)
        shipped.append(x)
        return 0.3 * z + 0.7 * x

    inner = replace(heavy_ball(weight_decay=DECAY), lr=lambda t: LR * (2 if t > 10 else 1))
    path, tested = walked(wrap.schedule_free(inner, beta=0.7, power=1.5, warmup=4))
    assert_near(path, stepped(move))
    assert_near(tested, np.stack(shipped))


@pytest.mark.parametrize("momentum", [rules.SGD(lr=LR), rules.LARS(lr=LR), rules.Prodigy(), rules.DoG()])
def test_schedule_free_at_no_average_is_the_rule_itself(momentum: Rule) -> None:
    assert_near(walked(wrap.schedule_free(momentum, beta=0.0))[0], walked(momentum)[0])


def test_schedule_free_and_the_rule_that_is_so_agree_where_nothing_decays() -> None:
    one = rules.ScheduleFreeSGD(lr=LR, beta=0.7, power=1.5, warmup=4)
    other = wrap.schedule_free(rules.SGD(lr=LR), beta=0.7, power=1.5, warmup=4)
    for ours, theirs in zip(walked(one), walked(other), strict=True):
        assert_near(ours, theirs)


@pytest.mark.parametrize(
    ("rule", "unit"),
    [(wrap.sam(rules.SGD(), 0.2), np.ones(SIZE)), (wrap.asam(rules.SGD(), 0.2), np.abs(start()))],
)
def test_sam_goes_up_by_its_radius_and_along_the_steepest_way(rule: Any, unit: np.ndarray) -> None:
    """Of all e with ‖e/unit‖ = radius the one with the largest g·e, which is radius·‖unit·g‖."""
    w, g = start(), gradient(start(), 1)
    s = rule.perturb(on_numpy.NUMPY, w, g)
    e = rule.radius * rule.perturb(on_numpy.NUMPY, w, s) / np.linalg.norm(s)
    assert np.linalg.norm(e / unit) == pytest.approx(0.2)
    assert g @ e == pytest.approx(0.2 * np.linalg.norm(unit * g))
    assert np.array_equal(walked(rule)[0], walked(rules.SGD())[0]), "the step itself is the rule's"


KINDS = {
    "l2": lambda w, g, ball, lr: w - lr * ball(g + DECAY * w),
    "decoupled": lambda w, g, ball, lr: w - lr * (ball(g) + DECAY * w),
    "fixed": lambda w, g, ball, lr: w - lr * ball(g) - DECAY * w,
    "corrected": lambda w, g, ball, lr: w - lr * (ball(g) + lr / 0.5 * DECAY * w),
    "cautious": lambda w, g, ball, lr: w - lr * ((u := ball(g)) + DECAY * w * (u * w >= 0)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("own", [0.0, 0.7])
def test_each_kind_of_decay_follows_its_formula_in_place_of_the_rules_own(kind: Any, own: float) -> None:
    ball, rate = HeavyBall(), schedule.Polynomial(LR, total=2 * STEPS)
    inner = replace(heavy_ball(weight_decay=own), lr=rate)
    rule = wrap.decayed(inner, kind, DECAY, peak=0.5)
    assert_near(walked(rule)[0], stepped(lambda w, g, t: KINDS[kind](w, g, ball, rate(t))))


def test_decay_around_rules_that_are_known_otherwise() -> None:
    numbers = {"lr": LR, "eps": 1e-3}
    pairs = [
        (wrap.decayed(rules.AdamW(**numbers), "l2", DECAY), rules.Adam(**numbers, weight_decay=DECAY)),
        (wrap.decayed(rules.Adam(**numbers), "decoupled", DECAY), rules.AdamW(**numbers, weight_decay=DECAY)),
        (
            wrap.decayed(rules.Adam(**numbers), "corrected", DECAY, peak=0.2),
            rules.AdamC(**numbers, weight_decay=DECAY, peak=0.2),
        ),
        (
            wrap.decayed(rules.AdamC(**numbers, peak=0.2), "decoupled", DECAY),
            rules.AdamW(**numbers, weight_decay=DECAY),
        ),
        (
            wrap.decayed(rules.RMSpropTF(**numbers), "decoupled", DECAY),
            rules.RMSpropTF(**numbers, weight_decay=DECAY),
        ),
    ]
    for ours, known in pairs:
        assert np.array_equal(walked(ours)[0], walked(known)[0])


def test_corrected_decay_goes_by_the_largest_rate() -> None:
    assert wrap.decayed(rules.Adam(lr=0.3), "corrected", DECAY).peak == 0.3  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="lr is a schedule: give peak="):
        wrap.decayed(rules.Adam(lr=schedule.Constant(0.3)), "corrected", DECAY)


def test_a_wrapped_rule_has_the_numbers_of_both_side_by_side() -> None:
    rule: Any = wrap.lookahead(wrap.cautious(rules.Lion(lr=0.3, weight_decay=DECAY)), every=7)
    assert type(rule).__name__ == "LookaheadCautiousLion"
    assert (rule.lr, rule.weight_decay, rule.sync_every, rule.sync_share) == (0.3, DECAY, 7, 0.5)
    assert isinstance(rule, rules.Lion)
    assert "sync_share" in rule.numbers()
    assert "sync_every" not in rule.numbers()
    assert rule == rules.named("lookahead+cautious+lion", lr=0.3, weight_decay=DECAY, sync_every=7)
    assert rules.name_of(rule) == "lookahead+cautious+lion"


@pytest.mark.parametrize("name", sorted(wrap.WRAPPERS))
def test_a_wrapped_rule_is_a_value_that_can_be_kept_and_sent(name: str) -> None:
    rule = rules.named(f"{name}+adamw", lr=0.3)
    assert type(rule) is type(rules.named(f"{name}+adamw"))
    assert pickle.loads(pickle.dumps(rule)) == copy.deepcopy(rule) == copy.copy(rule) == rule
    assert rules.name_of(pickle.loads(pickle.dumps(rule))) == f"{name}+adamw"
    assert rule != rules.AdamW(lr=0.3)
    assert hash(rule) == hash(replace(rule, lr=0.3))
    assert all(type(rule).quantity(field.name) for field in fields(rule))


@pytest.mark.parametrize("name", ["Schedule_Free+SGD", "schedule-free+sgd", "schedulefree+sgd"])
def test_a_wrapper_is_found_however_it_is_spelt(name: str) -> None:
    assert type(rules.named(name)) is type(wrap.schedule_free(rules.SGD()))


@dataclass(frozen=True)
class Trusting(Rule):
    """A rule of somebody's own."""

    lr: Number = 0.1
    trust: Number = 1.0

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any) -> tuple[Any, ...]:
        return (k.trust * g,)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: rules.named("cautius+lion"), r"no wrapper 'cautius'\. Did you mean 'cautious'"),
        (lambda: rules.named("cautious+lino"), r"no update rule 'cautious\+lino'\. Did you mean 'lion'"),
        (
            lambda: rules.named("lookahead+lion", sync_evry=3),
            r"LookaheadLion has no hyperparameter 'sync_evry'\. Did you mean 'sync_every'",
        ),
        (lambda: wrap.lookahead(wrap.lookahead(rules.SGD())), "LookaheadSGD is wrapped in lookahead already"),
        (
            lambda: wrap.lookahead(rules.SGD(), momentum="reset"),
            'SGD has no momentum .*"keep", or take a rule',
        ),
        (
            lambda: wrap.lookahead(rules.Lion(), momentum="pull"),
            "no way with momentum 'pull'.*'pullback'",
        ),
        (lambda: wrap.sam(wrap.asam(rules.SGD())), "ASAMSGD goes up the slope already"),
        (lambda: wrap.cautious(rules.LAMB()), r"LAMB moves by sums of its own \(weights, proposals\), and a"),
        (lambda: wrap.trust_ratio(wrap.cautious(rules.SGD())), r"CautiousSGD moves by sums of its own"),
        (lambda: wrap.trust_ratio(rules.MomentumTF()), "MomentumTF's direction holds its rate"),
        (lambda: wrap.trust_ratio(Trusting()), "Trusting has a hyperparameter 'trust', as trustratio has"),
        (
            lambda: wrap.lookahead(rules.ScheduleFreeSGD()),
            "ships other weights than it trains, and lookahead",
        ),
        (lambda: wrap.schedule_free(wrap.averaged(rules.SGD())), "AveragedSGD ships other weights than it"),
        (lambda: wrap.decayed(rules.LAMB(), "fixed", 0.1), "LAMB's weight decay is part of its formula"),
        (lambda: wrap.decayed(rules.Adan(), "l2", 0.1), "Adan's weight decay is part of its formula"),
        (lambda: wrap.decayed(rules.SGD(), "l3", 0.1), r"no kind of weight decay 'l3'\. Did you mean 'l2'"),
        (
            lambda: wrap.decayed(rules.SGD(), "fixed", 1.5),
            r"FixedDecaySGD's weight_decay must lie in \[0, 1\), got 1\.5\. It is the share of a weight that",
        ),
    ],
)
def test_what_cannot_be_wrapped_is_refused_with_the_reason(make: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make()


def test_rules_of_ones_own_can_be_wrapped() -> None:
    path, _ = walked(wrap.lookahead(Trusting(lr=LR, trust=2.0), every=STEPS + 1))
    assert_near(path, walked(rules.SGD(lr=2 * LR))[0])


def test_wrappers_within_and_around_do_the_same_where_they_touch_different_things() -> None:
    inner, outer = partial(wrap.lookahead, every=3), wrap.cautious
    for ours, theirs in zip(
        walked(outer(inner(heavy_ball()))), walked(inner(outer(heavy_ball()))), strict=True
    ):
        assert np.array_equal(ours, theirs)


def test_no_generated_class_bears_the_name_of_a_rule() -> None:
    plain = {kind.__name__.lower() for kind in rules.RULES}
    joined = {made.prefix.lower() + name for made in wrap.WRAPPERS.values() for name in plain}
    assert not plain & joined
