"""A task of the suite is the same for every loop; its variants change what they say, and nothing else."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import steepest as st
from benchmarks.suite import cache, sources, workloads
from benchmarks.suite.cache import Parts
from benchmarks.suite.variants import VARIANTS
from benchmarks.suite.workloads import CORE, HELD_OUT, STEPS, Task, named
from steepest.optim.errors import UserError

pytestmark = pytest.mark.full

ALL = {one.name: one for one in (*CORE, *HELD_OUT)}
SHAPES = {
    "mnist": ((1, 28, 28), 10),
    "cifar": ((3, 32, 32), 10),
    "fsdd": ((63, 40), 10),
    "california": ((8,), None),
    "letter": ((16,), 26),
    "digits": ((64,), 10),
    "breast_cancer": ((30,), 2),
    "wine": ((13,), 3),
    "diabetes": ((10,), None),
}


def made_up(data: str, n: int = 60) -> Parts:
    """Parts of the right shapes, of noise."""
    draw = np.random.default_rng(0)

    def pair() -> tuple[torch.Tensor, torch.Tensor]:
        if data == "shakespeare":
            text = torch.from_numpy(draw.integers(0, 65, (n, sources.CONTEXT + 1)))
            return text[:, :-1].contiguous(), text[:, 1:].contiguous()
        if data in ("trec", "sst2"):
            x = draw.integers(1, 30, (n, sources.WORDS))
            return torch.from_numpy(x), torch.from_numpy(draw.integers(0, 2, n))
        shape, classes = SHAPES[data]
        x = torch.from_numpy(draw.normal(size=(n, *shape)).astype(np.float32))
        y = draw.normal(size=n).astype(np.float32) if classes is None else np.arange(n) % classes
        return x, torch.from_numpy(y)

    return Parts(pair(), pair(), pair(), unit=2.0 if SHAPES.get(data, (0, 0))[1] is None else 1.0, words=30)


def task_of(name: str, seed: int = 0) -> Task:
    workload = named(name)
    return workload.on(made_up(workload.data), seed)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_every_workload_has_a_length_and_every_length_a_workload() -> None:
    assert set(STEPS) == set(ALL)
    assert {one.data for one in ALL.values()} == set(workloads.READERS)


@pytest.mark.parametrize("name", ALL)
def test_a_mean_of_examples_is_the_loss_and_has_a_gradient_for_every_weight(name: str) -> None:
    task = task_of(name)
    model = task.model()
    x, y = next(task.batches())
    each = task.per_example(model.eval(), x, y)
    assert each.shape == (len(x),)
    torch.testing.assert_close(task.loss(model, x, y), each.mean())
    task.loss(model.train(), x, y).backward()
    assert [key for key, w in model.named_parameters() if w.grad is None] == []


def test_start_and_batches_are_functions_of_the_seed() -> None:
    task, other = task_of("letter_mlp", 3), task_of("letter_mlp", 4)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert same(task.model(), task.model())
    assert not same(task.model(), other.model())
    assert torch.equal(before, torch.get_rng_state())
    task = replace(task, workload=replace(task.workload, batch_size=7))
    forward, later = task.batches(), task.batches(position=11)
    skipped = [next(forward) for _ in range(12)][-1]
    assert all(torch.equal(a, b) for a, b in zip(skipped, next(later), strict=True))
    assert not torch.equal(next(task.batches(5))[1], next(task.batches(6))[1])


def test_the_metric_is_the_loss_in_test_mode_and_leaves_the_mode() -> None:
    task = task_of("cifar_resnet8")
    model = task.model().train()
    x, y = task.validation
    found = task.measured(model, x, y)
    assert model.training
    assert found == pytest.approx(float(task.loss(model.eval(), x, y).detach()), rel=1e-5)


def test_the_root_of_squares_is_in_the_unit_of_the_target() -> None:
    task = task_of("california_mlp")
    x, y = task.validation
    expected = 2.0 * float(task.loss(task.model(), x, y).detach().sqrt())
    assert task.measured(task.model(), x, y) == pytest.approx(expected, rel=1e-5)


def test_only_so_many_examples_are_validated_on() -> None:
    task = task_of("letter_mlp")
    few = replace(task, workload=replace(task.workload, validated=5))
    assert len(few.validation[0]) == len(few.validation[1]) == 5


@pytest.mark.parametrize("name", ["letter_mlp", "california_mlp", "shakespeare_gpt"])
def test_fit_trains_the_very_same_thing(name: str, tmp_path: Any) -> None:
    task = task_of(name)
    given = task.for_fit() | {"budget": "3 steps", "rule": "sgd", "lr": 0.1, "schedule": "constant"}
    given |= {"weight_decay": 0.0, "evaluate_every": "3 steps"}  # so that the last weights are the best
    run = st.fit(given.pop("data"), out=tmp_path / "run", **given)
    model = task.model()
    made = torch.optim.SGD(model.parameters(), 0.1)
    for _, (x, y) in zip(range(3), task.batches(), strict=False):
        made.zero_grad()
        task.loss(model, x, y).backward()
        made.step()
    x, y = task.test
    assert run.metrics["test/loss"] == pytest.approx(float(task.loss(model, x, y).detach()), rel=1e-4)


@pytest.mark.parametrize("change", ["tanh", "bad_start", "wide"])
def test_a_variant_of_the_network_changes_the_outputs_alone(change: str) -> None:
    plain, other = task_of("mnist_mlp"), task_of(f"mnist_mlp+{change}")
    x = plain.train[0]
    assert torch.equal(x, other.train[0])
    assert other.workload.name == f"mnist_mlp+{change}"
    assert not torch.allclose(plain.model()(x), other.model()(x))


def test_tanh_takes_the_place_of_every_activation() -> None:
    kinds = [type(module).__name__ for module in task_of("mnist_mlp+tanh").model().modules()]
    assert kinds.count("Tanh") == 2
    assert "ReLU" not in kinds


def test_a_bad_start_is_three_times_the_usual_one() -> None:
    plain, other = task_of("letter_mlp").model(), task_of("letter_mlp+bad_start").model()
    for a, b in zip(plain.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(b, 3 * a if a.dim() > 1 else a)


def test_wrong_labels_are_few_and_in_training_alone() -> None:
    plain, other = task_of("letter_mlp"), task_of("letter_mlp+wrong_labels")
    assert 1 <= int((plain.train[1] != other.train[1]).sum()) <= 6
    assert torch.equal(plain.validation[1], other.validation[1])
    assert torch.equal(plain.train[1].sort().values, other.train[1].sort().values)


def test_unscaled_inputs_are_stretched_alike_in_all_parts() -> None:
    plain, other = task_of("letter_mlp"), task_of("letter_mlp+unscaled")
    factors = other.train[0][0] / plain.train[0][0]
    torch.testing.assert_close(other.test[0], plain.test[0] * factors)
    assert 0.1 <= float(factors.min()) < 0.5
    assert 2 < float(factors.max()) <= 10


def test_variants_are_joined_and_refuse_what_they_would_not_change() -> None:
    both = task_of("mnist_mlp+small_batch+wrong_labels+unscaled")
    assert both.batch_size == 32
    assert not torch.equal(both.train[1], task_of("mnist_mlp").train[1])
    assert not torch.equal(both.train[0], task_of("mnist_mlp").train[0])
    with pytest.raises(UserError, match="no BatchNorm2d"):
        task_of("mnist_mlp+no_norm").model()
    with pytest.raises(UserError, match="no scale"):
        task_of("trec_transformer+unscaled")
    task_of("cifar_resnet8+no_norm").model()


@pytest.mark.parametrize("name", ["mnist_mpl", "mnist_mlp+tan"])
def test_an_unknown_name_is_met_with_the_nearest(name: str) -> None:
    with pytest.raises(UserError, match="Did you mean"):
        named(name)
    assert set(VARIANTS) >= {
        "tanh",
        "no_norm",
        "wide",
        "small_batch",
        "bad_start",
        "wrong_labels",
        "unscaled",
    }


def test_data_that_are_not_prepared_are_named(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache.parts.cache_clear()
    with pytest.raises(UserError, match="prepare --data"):
        named("letter_mlp").task(0)
    with pytest.raises(UserError, match=r"letter\.dat\.gz"):
        cache.prepare(tmp_path, {"letter": sources.letter})
    cache.prepare(tmp_path, {"wine": workloads.READERS["wine"]})
    x, y = cache.parts("wine").train
    assert x.shape == (108, 13)
    assert y.dtype == torch.int64
    torch.testing.assert_close(x.mean(0), torch.zeros(13), atol=0.05, rtol=0)


def test_pictures_are_scaled_by_the_training_part() -> None:
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (50, 3, 4, 4), dtype=np.uint8)
    x[:40, 1] //= 2
    held = cache.tensors(sources.scaled(sources.shared(x, np.arange(50), (40, 5, 5)), axis=(0, 2, 3)))
    found = held.train[0]
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_bands_of_a_tone_peak_where_the_tone_is() -> None:
    tone = (2**14 * np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)).astype(np.int16)
    found = sources.bands(tone)
    assert found.shape == (63, 40)
    mel = 2595 * np.log10(1 + 1000 / 700)
    top = 2595 * np.log10(1 + 4000 / 700)
    assert abs(found[30].argmax() - (mel / top * 41 - 1)) < 1


def test_words_are_numbered_by_the_training_part() -> None:
    held = sources.numbered([(0, ["a", "b", "a"]), (1, ["b", "c"])], [(1, ["c", "b"])], [(0, ["a"] * 50)])
    assert held["train_x"][0, :4].tolist() == [2, 3, 2, 0]
    assert held["validation_x"][0, :3].tolist() == [1, 3, 0]
    assert held["test_x"].shape == (1, sources.WORDS)
    assert held["words"] == 4
