"""From a rule's body to a kernel: what is inlined, what is refused, and what a kernel is known by."""

import ctypes
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numba import njit

from steepest import rules
from steepest.optim.engines import on_numba
from steepest.optim.engines.kernels import compiled
from steepest.optim.engines.kernels.inline import NotInlinable
from steepest.optim.engines.kernels.intrinsics import cube_root
from steepest.optim.engines.kernels.source import source
from steepest.optim.engines.precision.memory import Memory, layout
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.rule import Number, Rule

SHARE = 0.5


def halved(x):
    return x * SHARE


@dataclass(frozen=True)
class Wordy(Rule):
    """Uses all of the vocabulary."""

    lr: Number = 1.0

    slots = ("m",)

    @staticmethod
    def direction(xp, k, w, g, m):
        """A docstring is no arithmetic."""
        low, high = xp.minimum(g, m), xp.maximum(g, m)
        kept = xp.where((low < high) & (high > 0), -low, +high)
        u = halved(xp.abs(kept)) + xp.expm1(xp.log(xp.exp(kept))) * xp.sign(g) + xp.sqrt(kept**2)
        return u, m + g


@dataclass(frozen=True)
class Branching(Rule):
    """Something that the vocabulary does not have."""

    lr: Number = 1.0

    @staticmethod
    def direction(xp, k, w, g):
        if k.lr > 0.5:
            return (g,)
        return (-g,)


def text_of(rule: Rule) -> str:
    return source(rule, torch.float32, layout(type(rule), Memory(), torch.float32))


def moved(rule: Rule, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, str]:
    weight = torch.nn.Parameter(torch.linspace(-2, 2, 41, dtype=dtype))
    optimizer = RuleOptimizer([weight], rule)
    for sign in (1.0, -0.5, 2.0):
        weight.grad = sign * torch.linspace(-1, 1.5, 41, dtype=dtype)
        optimizer.step()
    return weight.detach(), type(optimizer._plan.weight_groups[0].engines[0]).__name__


def test_the_whole_vocabulary_is_inlined(monkeypatch: pytest.MonkeyPatch) -> None:
    fused, engine = moved(Wordy())
    assert engine == "Table"
    monkeypatch.setattr(on_numba, "table", lambda *_: None)
    plain, engine = moved(Wordy())
    assert engine == "Leaves"
    torch.testing.assert_close(fused, plain, rtol=0, atol=1e3 * torch.finfo(torch.float64).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cube_roots_are_right_to_the_last_place(dtype: type) -> None:
    @njit
    def roots(x, y):
        for i in range(x.size):
            y[i] = cube_root(x[i])

    limits = np.finfo(dtype)
    draw = np.random.default_rng(0)
    powers = draw.uniform(np.log(float(limits.tiny)), np.log(float(limits.max)) * 0.999, 100_000)
    below = draw.random(1000) * float(limits.tiny)
    x = np.concatenate([np.exp(powers), below, [limits.max, limits.tiny, 1.0, 8.0]]).astype(dtype)
    y, special = np.empty_like(x), np.empty(5, dtype)
    roots(x, y)
    wanted = np.cbrt(x.astype(np.longdouble))
    assert float(np.max(np.abs(y - wanted) / np.spacing(wanted.astype(dtype)))) < 1
    roots(np.array([0.0, np.inf, np.nan, -1.0, -np.inf], dtype), special)
    np.testing.assert_array_equal(special, [0.0, np.inf, np.nan, np.nan, np.nan])


def test_what_is_beyond_the_vocabulary_runs_on_the_plain_engine() -> None:
    with pytest.raises(NotInlinable, match="no assignment"):
        text_of(Branching())
    weight, engine = moved(Branching())
    assert engine == "Leaves"
    assert torch.isfinite(weight).all()


def test_a_file_that_changed_after_its_import_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "steepest.optim.engines.kernels.inline.inspect.getsource",
        lambda _: "def direction(xp, k, w, g):\n    return (-g,)\n",
    )
    with pytest.raises(NotInlinable, match="changed since"):
        text_of(rules.SGD())


def test_literals_and_constants_have_the_dtype_of_the_weight() -> None:
    text = text_of(rules.Lion())
    assert "from numba import float32 as T" in text
    assert "T(1.0)" in text
    assert "k_c1 = T(k[" in text


def test_an_edited_rule_is_another_kernel(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a function in another file, which is what a cache by file and date would miss."""
    import importlib.util
    import sys

    def load(sign: str) -> Rule:
        (tmp_path / "sense.py").write_text(f"def sense(g):\n    return {sign}g\n")
        (tmp_path / "edited.py").write_text(
            "from steepest.optim.rule import Rule\nfrom sense import sense\n\n\nclass Edited(Rule):\n"
            "    @staticmethod\n    def direction(xp, k, w, g):\n        return (sense(g),)\n"
        )
        for name in ("sense", "edited"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module("edited").Edited(lr=1.0)

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("STEEPEST_CACHE", str(tmp_path / "cache"))
    up, first = moved(load("-"))
    down, second = moved(load("+"))
    assert first == second == "Table"
    assert not torch.equal(up, down)
    assert len(list((tmp_path / "cache").glob("edited_float64_*.py"))) == 2


@pytest.fixture
def fresh(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """An empty cache folder, and no kernel in memory."""
    monkeypatch.setenv("STEEPEST_CACHE", str(tmp_path / "cache"))
    compiled._compiled.cache_clear()
    monkeypatch.setattr(on_numba, "_kernels", {})
    yield tmp_path / "cache"
    compiled._compiled.cache_clear()


EXPECTED = torch.linspace(-2, 2, 41) - 2.5e-3 * torch.linspace(-1, 1.5, 41)


@pytest.mark.parametrize("damage", ["read-only", "open to others", "a file in its place", "torn"])
def test_a_cache_that_cannot_be_used_is_done_without(fresh, damage: str) -> None:
    if damage == "read-only":
        fresh.mkdir(mode=0o500)
    elif damage == "open to others":
        fresh.mkdir()
        fresh.chmod(0o777)
    elif damage == "a file in its place":
        fresh.write_text("")
    else:
        moved(rules.SGD(), torch.float32)
        for file in (fresh / "__pycache__").iterdir():
            file.write_bytes(file.read_bytes()[:20])
        compiled._compiled.cache_clear()
        on_numba._kernels.clear()
    weight, engine = moved(rules.SGD(), torch.float32)
    assert engine == "Table"
    torch.testing.assert_close(weight, EXPECTED)
    if damage == "open to others":
        assert not list(fresh.iterdir())


def test_kernels_are_kept_where_nobody_else_writes(fresh) -> None:
    moved(rules.SGD(), torch.float32)
    assert fresh.stat().st_mode & 0o077 == 0
    assert {file.suffix for file in fresh.rglob("*") if file.is_file()} >= {".py", ".nbi", ".nbc"}


def test_without_a_home_kernels_are_made_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> None:
        raise RuntimeError("Could not determine home directory.")

    for name in ("STEEPEST_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(compiled.Path, "home", homeless)
    source = compiled.SOURCE + "\n# of nobody's cache"
    assert not hasattr(compiled.compiled("team", source, ctypes.c_void_p).module, "__file__")
