"""Rules as optax transformations: the reference's numbers, compiled once, whatever stands around them."""

import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax", reason="JAX is not installed")
pytest.importorskip("optax", reason="optax is not installed")

import jax
import jax.numpy as jnp
import optax
from small_model import NAMES, STEPS, assert_near, gradients, reads, rule_of, start, with_common_noise

from each import each
from steepest import rules, schedule, wrap
from steepest.optax import RuleState, evaluate, transformation
from steepest.optim.engines import on_jax
from steepest.optim.errors import UserError

EPS = float(np.finfo(np.float32).eps)
Tree = dict[str, Any]


@pytest.fixture(autouse=True)
def quick() -> Any:
    """Compile without optimizing: each program runs a few times."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def wide() -> Any:
    """Let JAX compute in float64."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def trees() -> tuple[Tree, Tree]:
    """Weights and gradients of several dtypes, with a leaf that is nothing."""
    params = {"a": jnp.ones((4, 3)), "b": {"half": jnp.full(5, 2.0, jnp.bfloat16), "none": None}}
    return params, jax.tree.map(lambda w: jnp.full_like(w, 0.25), params)


@each("name", NAMES, push=3)
def test_a_rule_moves_as_the_reference_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_common_noise(monkeypatch, on_jax.JAX, jnp.asarray)
    rule = rule_of(name)
    tx = transformation(rule, kernels="out_in")
    params, step = jax.tree.map(jnp.asarray, start(rule)), jax.jit(tx.apply, donate_argnums=(0, 1))
    state = tx.init(params)
    for t in range(1, STEPS + 1):
        params, state = step(state, params, gradients(rule, t), **reads(rule, t))
    assert step._cache_size() == 1, "compiled more than once"
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.float32.dtype}
    assert int(state.count) == STEPS
    assert_near(params, rule, EPS)


@pytest.mark.parametrize("name", ["adamw", "kron", "nadam", "prodigy", "soap"])
def test_in_float64_it_is_the_reference(name: str, monkeypatch: pytest.MonkeyPatch, wide: None) -> None:
    with_common_noise(monkeypatch, on_jax.JAX, jnp.asarray)
    rule = rule_of(name)
    tx = transformation(rule, kernels="out_in")
    params = {name: jnp.asarray(w, jnp.float64) for name, w in start(rule).items()}
    state, step = tx.init(params), jax.jit(tx.apply)
    for t in range(1, STEPS + 1):
        params, state = step(state, params, gradients(rule, t))
    assert_near(params, rule, float(np.finfo(np.float64).eps))


@pytest.mark.parametrize("name", ["adammini", "muon"])
def test_kernels_of_flax_are_seen_as_those_of_torch(name: str) -> None:
    rule = rule_of(name)
    one, other = transformation(rule), transformation(rule, kernels="out_in")
    params = {"conv": np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)}
    turned = {"conv": params["conv"].transpose(3, 2, 0, 1)}
    found, _ = one.apply(one.init(params), params, params)
    wanted, _ = other.apply(other.init(turned), turned, turned)
    np.testing.assert_allclose(found["conv"].transpose(3, 2, 0, 1), wanted["conv"], rtol=0, atol=64 * EPS)


@pytest.mark.parametrize("wrapper", sorted(wrap.WRAPPERS))
def test_wrapped_rules_trace(wrapper: str) -> None:
    rule = rules.named(f"{wrapper}+momentum")
    tx = transformation(rule)
    params = jax.tree.map(jnp.asarray, start(rule))
    extra = {"gradient": lambda w: w} if rule.perturb else {}
    new, _ = jax.jit(lambda s, p: tx.apply(s, p, p, **extra))(tx.init(params), params)
    assert not np.array_equal(new["a"], params["a"])


def test_dtypes_and_holes_of_the_tree_stay() -> None:
    params, grads = trees()
    tx = transformation("adamw")
    state = tx.init(params)
    updates, state = jax.jit(tx.update)(grads, state, params)
    new = optax.apply_updates(params, updates)
    for tree in (updates, new):
        assert jax.tree.structure(tree) == jax.tree.structure(params)
        assert jax.tree.map(lambda x: x.dtype, tree) == jax.tree.map(lambda x: x.dtype, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.slots)} == {jnp.float32.dtype}
    written, _ = jax.jit(tx.apply)(tx.init(params), params, grads)
    np.testing.assert_array_equal(written["b"]["half"], new["b"]["half"])


def test_16_bit_weights_are_computed_in_float32() -> None:
    """β₂ = 0.999 is 1 in bfloat16: the weight would never move, or be no number."""
    tx = transformation(rules.AdamW(lr=0.1, weight_decay=0.0))
    params, state = (w := jnp.ones(3, jnp.bfloat16)), tx.init(w)
    for _ in range(10):
        params, state = tx.apply(state, params, jnp.ones_like(w))
    np.testing.assert_allclose(np.asarray(params, np.float32), 0.0, atol=10 * 2**-8)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_compensated_16_bit_weights_go_where_float32_ones_go(dtype: Any) -> None:
    """Steps of 0.0001 from 1, where bfloat16 has numbers 0.004 apart, and float16 0.0005: none is lost."""
    ends = []
    for kind, rounding in ((jnp.float32, "nearest"), (dtype, "compensated")):
        tx = transformation(rules.AdamW(lr=1e-4, weight_decay=0.0), rounding=rounding)
        params, step = {"w": jnp.ones(5, kind), "b": jnp.ones(2)}, jax.jit(tx.apply)
        state = tx.init(params)
        for _ in range(100):
            params, state = step(state, params, jax.tree.map(jnp.ones_like, params))
        ends.append(np.asarray(params["w"], np.float32))
        again = tx.load_state_by_name(params, tx.state_by_name(state, params))
        assert jax.tree.all(jax.tree.map(np.array_equal, again, state))
    assert ends[0].max() < 0.9905
    np.testing.assert_allclose(ends[1], ends[0], rtol=float(jnp.finfo(dtype).eps))
    with pytest.raises(UserError, match=r"compensated' writes weights: .*tx\.apply"):
        tx.update(params, state, params)


@pytest.mark.parametrize(
    "around",
    [
        lambda tx: optax.chain(optax.clip_by_global_norm(1.0), tx),
        lambda tx: optax.masked(tx, {"a": True, "b": False}),
        lambda tx: optax.MultiSteps(tx, 2),
        lambda tx: optax.apply_if_finite(tx, 3),
        lambda tx: optax.partition({"x": tx, "y": optax.sgd(0.1)}, {"a": "x", "b": "y"}),
    ],
    ids=["chain", "masked", "MultiSteps", "apply_if_finite", "partition"],
)
def test_it_stands_among_transformations(around: Callable[[Any], Any]) -> None:
    params, grads = trees()
    tx = around(transformation("nadamw"))
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(2):
        updates, state = update(grads, state, params)
    assert update._cache_size() == 1
    assert float(updates["a"][0, 0]) < 0
    shipped = evaluate(rules.NAdamW(), state, params)
    assert jax.tree.structure(shipped) == jax.tree.structure(params)
    assert float(optax.tree.get(state, "lr")) == pytest.approx(2e-3)


def test_a_bad_gradient_is_kept_out_by_apply_if_finite() -> None:
    params, grads = trees()
    tx = optax.apply_if_finite(transformation("adamw"), 3)
    bad = jax.tree.map(lambda g: g * jnp.nan, grads)
    updates, state = jax.jit(tx.update)(bad, tx.init(params), params)
    assert float(jnp.abs(updates["a"]).max()) == 0
    assert int(state.inner_state.count) == 0


def test_a_changed_number_compiles_nothing() -> None:
    params, grads = trees()
    tx = transformation("adamw")
    state, step = tx.init(params), jax.jit(tx.apply)
    first, state = step(state, params, grads)
    nested = tx.with_hyperparams((state, optax.EmptyState()), lr=0.0, weight_decay=0.0)
    second, state = step(nested[0], first, grads)
    third, _ = step(optax.tree.set(state, lr=jnp.float32(0.5)), second, grads)
    assert step._cache_size() == 1
    np.testing.assert_array_equal(first["a"], second["a"])
    np.testing.assert_allclose(second["a"] - third["a"], 0.5, rtol=1e-4)


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ({"lrr": 1.0}, r"no number 'lrr'\. Did you mean 'lr'"),
        ({"beta2": 1.5}, r"beta2 must lie in \[0, 1\)"),
        ({"lr": 0.1}, r"lr follows Cosine\("),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(numbers: dict[str, float], sentence: str) -> None:
    tx = transformation(rules.AdamW(lr=schedule.Cosine(0.1, 10)))
    with pytest.raises(UserError, match=sentence):
        tx.with_hyperparams(tx.init(trees()[0]), **numbers)


CURVES = [
    schedule.Constant(0.3),
    schedule.Step(0.3, every=6, factor=0.5),
    schedule.Exponential(0.3, factor=0.9),
    schedule.Polynomial(0.3, 20, power=2.0, floor=0.1),
    schedule.Cosine(0.3, 20, floor=0.01),
    schedule.WarmRestarts(0.3, first=3, floor=0.01),
    schedule.WarmRestarts(0.3, first=7, growth=1),
    schedule.Cyclic(0.3, up=3, down=4, shrink=0.5),
    schedule.OneCycle(0.3, 20),
    schedule.OneCycle(0.3, 20, rise=0.02),
    schedule.InverseSqrt(0.3, warmup=7),
    schedule.WarmupStableDecay(0.3, warmup=4, total=30),
    schedule.WarmUp(schedule.Cosine(0.3, 20), warmup=5),
    schedule.Join(
        (schedule.Constant(0.3), schedule.InverseSqrt(0.2, 3), lambda step: 1 / step), ends=(5, 20)
    ),
]


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: type(curve).__name__)
def test_a_curve_is_the_same_on_a_traced_step(curve: schedule.Schedule) -> None:
    steps = np.arange(1, 41)
    traced = jax.jit(jax.vmap(lambda step: on_jax.scalar(schedule.valued(curve, on_jax.JAX, step))))
    found = traced(jnp.asarray(steps, jnp.float32))
    np.testing.assert_allclose(found, [curve(int(step)) for step in steps], rtol=0, atol=16 * EPS)


def test_schedules_are_read_at_updates_and_written_down() -> None:
    params, _ = trees()
    tx = transformation(rules.SGD(lr=schedule.Exponential(1.0, 0.5), weight_decay=lambda step: 0.0 / step))
    state, step = tx.init(params), jax.jit(tx.apply)
    for t in (1, 2, 3):
        new, state = step(state, params, jax.tree.map(jnp.ones_like, params))
        assert float(state.hyperparams["lr"]) == 0.5 ** (t - 1)
        np.testing.assert_allclose(params["a"] - new["a"], 0.5 ** (t - 1), rtol=4 * EPS)
        params = new


def test_a_function_that_cannot_be_traced_is_refused_with_a_remedy() -> None:
    tx = transformation(rules.SGD(lr=lambda step: 0.1 if step < 5 else 0.01))
    params, grads = trees()
    with pytest.raises(UserError, match=r"SGD's lr .* curve of steepest\.schedule"):
        jax.jit(tx.update)(grads, tx.init(params), params)


def test_a_complex_weight_is_a_pair_of_numbers() -> None:
    tx = transformation("adamw")
    w, g = jnp.asarray([1 + 2j, 3 - 1j]), jnp.asarray([0.5 - 1j, -2 + 0.25j])
    pairs = tuple(jnp.stack([x.real, x.imag], -1) for x in (w, g))
    new, _ = tx.apply(tx.init(w), w, g)
    apart, _ = tx.apply(tx.init(pairs[0]), *pairs)
    np.testing.assert_array_equal(jnp.stack([new.real, new.imag], -1), apart)
    with pytest.raises(UserError, match=r"rows and columns, and '0' is complex64"):
        transformation("muon").init(jnp.ones((2, 2), jnp.complex64))


def test_a_weight_without_gradient_stays() -> None:
    params, grads = trees()
    tx = transformation("adamw")
    updates, state = tx.update({"a": None, "b": grads["b"]}, tx.init(params), params)
    assert float(jnp.abs(updates["a"]).max()) == 0
    assert float(jnp.abs(state.slots["m"]["a"]).max()) == 0
    assert float(updates["b"]["half"][0]) != 0


def test_the_weights_to_ship_are_those_of_the_rule() -> None:
    tx = transformation(rules.ScheduleFreeSGD(lr=0.1, beta=0.9))
    params, state = (w := jnp.ones(3)), tx.init(w)
    chained = (optax.EmptyState(), state)
    np.testing.assert_allclose(evaluate(tx, chained, params), 1.0, rtol=4 * EPS)
    for t in (1, 2, 3):
        params, state = tx.apply(state, params, jnp.full(3, float(t)))
    z = 1 - 0.1 * np.asarray([1, 3, 6])
    np.testing.assert_allclose(tx.evaluate(state, params), z.mean(), rtol=16 * EPS)
    with pytest.raises(UserError, match="0 states of rules, and one of ScheduleFreeSGD is wanted"):
        tx.evaluate(optax.EmptyState(), params)


def test_sam_takes_its_gradient_uphill() -> None:
    tx = transformation(rules.named("sam+sgd", lr=1.0, radius=0.5))
    w = jnp.asarray([3.0, 4.0])
    new, _ = tx.apply(tx.init(w), w, w, gradient=lambda there: there)
    np.testing.assert_allclose(w - new, [3.3, 4.4], rtol=16 * EPS)
    with pytest.raises(UserError, match=r"needs 'gradient', a function of the weights"):
        tx.update(w, tx.init(w), w)


@pytest.mark.parametrize(
    ("do", "sentence"),
    [
        (lambda tx, s, p, g: tx.update(g, s), r"AdamW needs the weights: update\(grads, state, params\)"),
        (lambda tx, s, p, g: tx.update(g | {"a": jnp.ones(3)}, s, p), r"gradients of 'a' have shape \(3,\)"),
        (lambda tx, s, p, g: tx.update(g["a"], s, p), "gradients are no tree of the same form"),
        (lambda tx, s, p, g: tx.init({"n": jnp.ones(2, jnp.int32)}), "'n' is int32, and rules move floating"),
        (lambda tx, s, p, g: transformation("muon").init(p), r"'b\.half' .*optax\.partition"),
        (lambda tx, s, p, g: transformation("adamw", kernels="oihw"), "kernels must be 'in_out' or 'out_in'"),
        (lambda tx, s, p, g: transformation("adamww"), r"no update rule 'adamww'\. Did you mean 'adamw'"),
        (
            lambda tx, s, p, g: transformation("sophiag").update(g, transformation("sophiag").init(p), p),
            r"SophiaG needs 'd', a tree like the weights",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(do: Callable[..., Any], sentence: str) -> None:
    params, grads = trees()
    tx = transformation("adamw")
    with pytest.raises(UserError, match=sentence):
        do(tx, tx.init(params), params, grads)


def test_a_transformation_pickles() -> None:
    again = pickle.loads(pickle.dumps(transformation(rules.Lion(lr=0.5))))
    assert again.rule == rules.Lion(lr=0.5)
    assert isinstance(again.init(jnp.ones(2)), RuleState)


SHARDED = """
    import jax, numpy as np, optax
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    from steepest.optax import transformation

    mesh = jax.make_mesh((2,), ("half",), axis_types=(AxisType.Auto,))
    places = {"w": NamedSharding(mesh, P("half")), "b": NamedSharding(mesh, P())}
    host = {"w": np.arange(12, dtype=np.float32).reshape(4, 3), "b": np.ones(3, np.float32)}
    for tx in (transformation("adamw"), transformation("prodigy")):
        ends = []
        for spread in (True, False):
            params = jax.device_put(host, places) if spread else jax.tree.map(jax.numpy.asarray, host)
            state, step = tx.init(params), jax.jit(tx.apply, donate_argnums=(0, 1))
            for _ in range(3):
                params, state = step(state, params, host)
            trees = (params, *state.slots.values())
            kept = all(tree[name].sharding.is_equivalent_to(places[name], tree[name].ndim)
                       for tree in trees for name in places)
            assert kept or not spread, jax.tree.map(lambda x: x.sharding, trees)
            ends.append(jax.tree.map(np.asarray, params))
        for name in host:
            np.testing.assert_allclose(ends[0][name], ends[1][name], rtol=1e-6)
"""


def test_shards_stay_where_they_are() -> None:
    flags = "--xla_force_host_platform_device_count=2"
    run(SHARDED, XLA_FLAGS=flags, JAX_DISABLE_MOST_OPTIMIZATIONS="1")


def test_without_jax_the_error_says_what_to_install() -> None:
    run("""
        import sys
        sys.modules["jax"] = None
        try:
            import steepest.optax
        except ImportError as error:
            assert "pip install 'steepest[jax]'" in str(error) and error.exit_code == 2
        else:
            raise AssertionError("imported")
    """)


def run(program: str, **environment: str) -> None:
    """Run a program in a fresh interpreter; fails where it fails."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
