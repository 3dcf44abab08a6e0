"""Rules as Keras optimizers, under the backend of this process; `test_keras.py` runs this file for each."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from small_model import NAMES, STEPS, assert_near, gradients, rule_of, start, with_common_noise

from steepest import rules, schedule
from steepest.keras import RuleOptimizer, optimizer
from steepest.optim.engines.on_keras import vocabulary
from steepest.optim.errors import UserError
from steepest.optim.rule import Number, Rule

BACKEND = keras.backend.backend()
EPS = float(np.finfo(np.float32).eps)
MINE = NAMES[["jax", "tensorflow", "torch"].index(BACKEND) :: 3]
"""Every rule meets one backend here."""

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own

Step = Callable[[list[np.ndarray]], None]


def compiled(by: keras.optimizers.Optimizer, variables: list[Any]) -> Step:
    """One step from given gradients, as the backend compiles it."""
    by.build(variables)
    if BACKEND == "torch":
        return lambda grads: by.apply([ops.convert_to_tensor(g) for g in grads], variables)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        step = tf.function(lambda *grads: by.apply(list(grads), variables))
        return lambda grads: step(*map(tf.constant, grads))
    import jax

    pure = jax.jit(by.stateless_apply)

    def step(grads: list[np.ndarray]) -> None:
        values = [variable.value for variable in by.variables], grads, [w.value for w in variables]
        for held, new in zip((variables, by.variables), pure(*values), strict=True):
            for variable, value in zip(held, new, strict=True):
                variable.assign(value)

    return step


def numbers(variables: Any) -> list[np.ndarray]:
    return [ops.convert_to_numpy(w).copy() for w in variables]


@pytest.mark.parametrize("name", [name for name in MINE if not rule_of(name).extra_inputs])
def test_a_rule_moves_as_the_reference_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_common_noise(monkeypatch, vocabulary("float32"), ops.convert_to_tensor)
    rule = rule_of(name)
    variables = [keras.Variable(w, name=key) for key, w in start(rule).items()]
    groups = {} if rule.takes((2,)) else {"*": rule}
    step = compiled(optimizer(rule, groups, decay_all=True), variables)
    for t in range(1, STEPS + 1):
        step(list(gradients(rule, t).values()))
    found = {w.name: ops.convert_to_numpy(w) for w in variables}
    assert_near(found, rule, EPS, turned=True)


@dataclass(frozen=True)
class Trailing(Rule):
    """Remembers the weights of before, and goes on from them as it came."""

    lr: Number = 0.5
    slots = ("o",)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        return (1.0 * w,)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, o: Any) -> tuple[Any, ...]:
        return g + (o - w), w


def test_a_slot_may_hold_the_weights_of_before() -> None:
    """Where a backend writes in place, they are read before the weights are written."""
    variable = keras.Variable(np.ones(3, np.float32), name="w")
    step, path = compiled(optimizer(Trailing()), [variable]), [1.0, 1.0]
    for t in range(4):
        step([np.full(3, t, np.float32)])
        path.append(path[-1] - 0.5 * (t + path[-2] - path[-1]))
        np.testing.assert_allclose(ops.convert_to_numpy(variable), path[-1], rtol=100 * EPS)


def model(seed: int = 0, dtype: str | None = None) -> keras.Model:
    keras.utils.set_random_seed(seed)
    layers = [
        keras.layers.Dense(8, "tanh", name="one", dtype=dtype),
        keras.layers.Dense(2, name="two", dtype=dtype),
    ]
    return keras.Sequential([keras.Input((4,), dtype=dtype), *layers])


def data() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(64, 4)).astype(np.float32)
    return x, np.tanh(x[:, :2] + x[:, 2:])


def fitted(by: Any, epochs: int = 2, net: Any = None, **how: Any) -> keras.Model:
    net = net or model()
    net.compile(by, loss="mse", **how)
    net.fit(*data(), batch_size=16, epochs=epochs, shuffle=False, verbose=0)
    return net


HOW = [{"run_eagerly": True}, {"jit_compile": BACKEND != "torch"}]


@pytest.mark.parametrize("how", HOW, ids=["eager", "compiled"])
def test_it_trains_a_model_as_keras_own_does(how: dict[str, bool]) -> None:
    ours = fitted(optimizer(rules.Momentum(lr=0.1, momentum=0.9)), **how)
    theirs = fitted(keras.optimizers.SGD(0.1, momentum=0.9), **how)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=8 * 8 * EPS)


OPTIONS: list[dict[str, Any]] = [
    {"clipnorm": 0.1},
    {"clipvalue": 0.01},
    {"global_clipnorm": 0.1},
    {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3},
    {"gradient_accumulation_steps": 2},
    {"loss_scale_factor": 64.0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
def test_options_of_keras_mean_what_they_mean_there(options: dict[str, Any]) -> None:
    ours = fitted(optimizer(rules.SGD(lr=0.1), **options))
    theirs = fitted(keras.optimizers.SGD(0.1, **options))
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=8 * 8 * EPS)


def test_a_loss_scale_that_looks_for_bad_gradients_goes_around_it() -> None:
    w = keras.Variable(np.ones(3, np.float32))
    by = keras.optimizers.LossScaleOptimizer(optimizer("sgd", learning_rate=1), initial_scale=4.0)
    step = compiled(by, [w])
    step([np.full(3, np.inf, np.float32)])
    np.testing.assert_array_equal(ops.convert_to_numpy(w), 1.0)
    step([np.full(3, 2.0, np.float32)])
    np.testing.assert_array_equal(ops.convert_to_numpy(w), 0.0)


@pytest.mark.parametrize("name", ["adamw", "lamb", "nadam", "schedulefreeadamw"])
def test_bfloat16_variables_go_where_float32_ones_go(name: str) -> None:
    """Steps of 0.001 from 1, where bfloat16 has numbers 0.004 apart: none is lost, none is no number."""
    ends = {}
    for dtype in ("float32", "bfloat16"):
        w = keras.Variable(np.ones(7), dtype=dtype, name=dtype)
        step = compiled(optimizer(rules.named(name, lr=1e-3, weight_decay=0.0)), [w])
        for t in range(40):
            step([np.full(7, 0.5 + 0.25 * (t % 3), np.float32)])
        ends[dtype] = np.asarray(ops.convert_to_numpy(ops.cast(w, "float32")))
    assert (ends["float32"] < 0.99).all()
    np.testing.assert_allclose(ends["bfloat16"], ends["float32"], rtol=2**-8)


def test_a_model_in_bfloat16_learns() -> None:
    net = fitted(optimizer(rules.AdamW(lr=1e-2)), epochs=1, net=model(dtype="bfloat16"))
    before = net.evaluate(*data(), verbose=0)
    net.fit(*data(), batch_size=16, epochs=10, verbose=0)
    assert net.evaluate(*data(), verbose=0) < 0.8 * before
    assert {w.dtype for w in net.weights} == {"bfloat16"}


def scheduled() -> RuleOptimizer:
    curve = schedule.WarmUp(schedule.Cosine(0.02, 100), 3)
    rule = rules.NAdamW(lr=curve, beta1=schedule.Constant(0.8), weight_decay=0.1)
    return optimizer(rule, {"*two*": rules.named("lookahead+lion", lr=1e-3)}, lr_scale={"*one*kernel": 0.5})


def test_it_is_saved_and_loaded_with_its_model_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    net = fitted(scheduled(), jit_compile=False)
    net.save(tmp_path / "net.keras")
    again = keras.saving.load_model(tmp_path / "net.keras")
    assert [a.tobytes() for a in numbers(again.optimizer.variables)] == [
        a.tobytes() for a in numbers(net.optimizer.variables)
    ]
    assert again.optimizer.get_config() == net.optimizer.get_config()
    for one in (net, again):
        one.fit(*data(), batch_size=16, shuffle=False, verbose=0)
    assert [w.tobytes() for w in again.get_weights()] == [w.tobytes() for w in net.get_weights()]


def test_what_is_saved_is_data() -> None:
    config = json.loads(json.dumps(scheduled().get_config()))
    assert config["rule"]["rule"] == "nadamw"
    assert config["rule"]["beta1"] == {"schedule": "Constant", "value": 0.8}
    assert config["learning_rate"]["config"]["curve"]["then"]["schedule"] == "Cosine"
    assert RuleOptimizer.from_config(config).get_config() == scheduled().get_config() | {
        "name": config["name"]
    }
    by = optimizer(rules.SGD(lr=lambda step: 0.1))
    with pytest.raises(UserError, match=r"cannot be written down.*steepest\.schedule"):
        by.get_config()


@dataclass(frozen=True)
class Own(Rule):
    """A rule that a user wrote."""

    lr: Number = 0.1
    direction = staticmethod(lambda xp, k, w, g: (g,))


def test_a_rule_of_ones_own_trains_and_is_not_written_down() -> None:
    by = optimizer(Own())
    fitted(by)
    with pytest.raises(UserError, match=r"Own is no rule of steepest.*without its optimizer"):
        by.get_config()


def rates(by: RuleOptimizer, steps: int) -> list[float]:
    """How far a weight goes in each step, of gradient 1."""
    w = keras.Variable(np.zeros(2, np.float32))
    step, found = compiled(by, [w]), []
    for _ in range(steps):
        before = numbers([w])[0]
        step([np.ones(2, np.float32)])
        found.append(float((before - numbers([w])[0])[0]))
    return found


def test_the_learning_rate_is_a_number_or_a_schedule_of_either_kind() -> None:
    halving = schedule.Exponential(1.0, 0.5)
    keras_halving = keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    for by in (
        optimizer(rules.SGD(lr=halving)),
        optimizer("sgd", learning_rate=halving),
        optimizer("sgd", learning_rate=keras_halving),
        optimizer(rules.SGD(lr=lambda step: 2.0 / 2.0**step)),
    ):
        np.testing.assert_allclose(rates(by, 3), [1, 0.5, 0.25], rtol=4 * EPS)
    assert rates(optimizer("sgd", learning_rate=1), 2) == [1, 1]


def test_the_learning_rate_and_the_factor_are_variables() -> None:
    w = keras.Variable(np.zeros(2, np.float32))
    by = optimizer("sgd", learning_rate=1.0)
    step = compiled(by, [w])
    step([np.ones(2, np.float32)])
    by.learning_rate = 0.25
    step([np.ones(2, np.float32)])
    by.factor.assign(2.0)
    step([np.ones(2, np.float32)])
    np.testing.assert_allclose(numbers([w])[0], -(1 + 0.25 + 0.5), rtol=4 * EPS)


def test_schedules_are_read_at_updates_where_gradients_are_accumulated() -> None:
    curve = schedule.Join((schedule.Constant(1.0), schedule.Constant(0.25)), ends=(1,))
    by = optimizer(rules.SGD(lr=curve), gradient_accumulation_steps=2)
    np.testing.assert_allclose(rates(by, 4), [0, 1, 0, 0.25], rtol=4 * EPS)


def parts(by: RuleOptimizer, net: keras.Model) -> dict[str, tuple[str, float, float]]:
    """Of each weight the rule, its decay, and the factor of its rate."""
    by.build(net.trainable_variables)
    return {
        w.path.removeprefix(f"{net.name}/"): (type(part.rule).__name__, part.rule.weight_decay, part.lr_scale)
        for part in by.parts()
        for w in part.weights.values()
    }


def test_groups_go_by_pattern_and_vectors_do_not_decay() -> None:
    by = optimizer(rules.AdamW(weight_decay=0.5), {"*two/*": "lion"}, lr_scale={"*one/kernel": 0.1})
    assert parts(by, model()) == {
        "one/kernel": ("AdamW", 0.5, 0.1),
        "one/bias": ("AdamW", 0, 1),
        "two/kernel": ("Lion", 0, 1),
        "two/bias": ("Lion", 0, 1),
    }
    by = optimizer(rules.AdamW(weight_decay=0.5), decay_all=True)
    by.exclude_from_weight_decay(var_names=["kernel"])
    assert {path: decay for path, (_, decay, _) in parts(by, model()).items()} == {
        "one/kernel": 0,
        "one/bias": 0.5,
        "two/kernel": 0,
        "two/bias": 0.5,
    }


def test_hidden_matrices_go_to_a_rule_of_matrices_and_the_rest_beside_it() -> None:
    found = parts(optimizer(rules.MuonMatched(weight_decay=0.0)), model())
    assert {path: rule for path, (rule, *_) in found.items()} == {
        "one/kernel": "MuonMatched",
        "one/bias": "AdamW",
        "two/kernel": "AdamW",
        "two/bias": "AdamW",
    }
    assert found["two/bias"][2] == rules.MuonMatched.fallback_lr_ratio
    assert parts(optimizer("muon", rest="lion"), model())["two/kernel"] == ("Lion", 0, 1)
    claimed = parts(optimizer("muon", {"*two/*": "lion"}), model())
    assert [claimed[f"{name}/kernel"][0] for name in ("one", "two")] == ["Muon", "Lion"]


def test_the_weights_to_ship_are_in_the_model_for_as_long_as_they_are_asked_for() -> None:
    w = keras.Variable(np.ones(3, np.float32))
    by = optimizer(rules.ScheduleFreeSGD(lr=0.1, beta=0.9))
    step = compiled(by, [w])
    with by.evaluate():
        np.testing.assert_array_equal(numbers([w])[0], 1)
    for t in (1, 2, 3):
        step([np.full(3, float(t), np.float32)])
    trained = numbers([w])[0]
    with by.evaluate():
        with by.evaluate():
            np.testing.assert_allclose(
                numbers([w])[0], (1 - 0.1 * np.asarray([1, 3, 6])).mean(), rtol=16 * EPS
            )
        np.testing.assert_allclose(numbers([w])[0], (1 - 0.1 * np.asarray([1, 3, 6])).mean(), rtol=16 * EPS)
    np.testing.assert_array_equal(numbers([w])[0], trained)


def test_weights_that_were_loaded_after_the_optimizer_was_built_are_where_it_starts() -> None:
    ends = []
    for late in (True, False):
        w = keras.Variable(np.full(3, 5.0 if late else 1.0, np.float32))
        by = optimizer(rules.ScheduleFreeSGD(lr=0.1))
        step = compiled(by, [w])
        w.assign(np.ones(3, np.float32))
        for t in (1, 2):
            step([np.full(3, float(t), np.float32)])
        ends.append(numbers([w])[0])
    np.testing.assert_array_equal(*ends)


def ones(net: keras.Model, t: int) -> list[np.ndarray]:
    return [np.full(w.shape, 0.5 + t, np.float32) for w in net.trainable_variables]


@pytest.mark.parametrize("name", ["adafactor", "nadamw", "prodigy"])
def test_state_by_name_goes_on_to_the_same_bits(name: str) -> None:
    nets = model(), model(seed=1)
    first, second = (optimizer(name, lr_scale={"*bias": 0.5}) for _ in nets)
    steps = [compiled(by, net.trainable_variables) for by, net in zip((first, second), nets, strict=True)]
    for t in (1, 2):
        steps[0](ones(nets[0], t))
    nets[1].set_weights(nets[0].get_weights())
    pairs = zip(nets[0].weights, nets[1].weights, strict=True)
    second.load_state_by_name(
        first.state_by_name(), {here.path: (there.path, "same") for here, there in pairs}
    )
    for t in (3, 4):
        for step, net in zip(steps, nets, strict=True):
            step(ones(net, t))
    assert [w.tobytes() for w in nets[0].get_weights()] == [w.tobytes() for w in nets[1].get_weights()]


def test_a_state_that_does_not_fit_is_refused_whole() -> None:
    net = model()
    by = optimizer("adamw")
    with pytest.raises(UserError, match=r"Call optimizer\.build"):
        by.state_by_name()
    by.build(net.trainable_variables)
    state = by.state_by_name()
    path = net.trainable_variables[0].path
    bad = {f"{path}/m": np.zeros(3), "other/m": state.pop(f"{path}/v")}
    with pytest.raises(UserError) as caught:
        by.load_state_by_name(state | bad)
    for part in (f"'{path}/v' is missing", "'other/m' is nothing of it", f"'{path}/m' is (3,), not (4, 8)"):
        assert part in str(caught.value)
    with pytest.raises(UserError, match=r"'other' is not in the map; .*has the layout 'hwio'"):
        by.load_state_by_name(state | bad, {w.path: (w.path, "hwio") for w in net.trainable_variables})


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: optimizer("adamw", weight_decay=0.1), r"weight_decay is the rule's own"),
        (lambda: optimizer("adamw", rounding="up"), r"rounding must be 'compensated' or 'nearest', got 'up'"),
        (lambda: optimizer("adamw", learning_rate=-1), r"learning_rate must lie in \[0, ∞\), got -1"),
        (lambda: optimizer("adamww"), r"no update rule 'adamww'"),
        (lambda: optimizer("sophiag"), r"SophiaG needs more than one gradient a step"),
        (lambda: optimizer("sam+sgd"), r"needs more than one gradient a step"),
        (
            lambda: optimizer("adamw", {"*three*": "lion"}).build(model().trainable_variables),
            r"fits no weight",
        ),
        (lambda: optimizer("adamw", rest="lion").build(model().trainable_variables), r"there is no rest"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make()


if BACKEND == "tensorflow":
    import tensorflow as tf

    DEVICES = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], DEVICES)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TensorFlow's own
    def test_replicas_move_as_one() -> None:
        with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
            spread = fitted(optimizer(rules.AdamW(lr=0.01)), jit_compile=False)
            with pytest.raises(UserError, match=r"Prodigy looks at all weights at once.*tf\.distribute"):
                fitted(optimizer("prodigy"), jit_compile=False)
        alone = fitted(optimizer(rules.AdamW(lr=0.01)), jit_compile=False)
        for a, b in zip(spread.get_weights(), alone.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=8 * 8 * EPS)


def test_a_missing_gradient_leaves_its_weight_where_it_is() -> None:
    a, b = (keras.Variable(np.ones(2, np.float32), name=name) for name in "ab")
    by = optimizer("adamw", learning_rate=0.1)
    by.build([a, b])
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        by.apply([None, ops.ones(2)], [a, b])
    np.testing.assert_array_equal(numbers([a])[0], 1)
    assert (numbers([b])[0] < 1).all()
