"""Rules that see whole arrays: what their state costs, which shapes they take, what their parts are."""

from math import prod

import numpy as np
import pytest
import torch

from each import each
from steepest import rules
from steepest.optim.engines.on_numpy import NUMPY, step
from steepest.optim.engines.on_torch import TORCH
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError
from steepest.rules.kronecker import eigenbasis, iterated, root
from steepest.rules.low_rank import singular
from steepest.rules.shapes import along, folded, gram, is_matrix, matrix

EPS = np.finfo(np.float64).eps
SHAPES = [(), (5,), (6, 4), (4, 6), (1, 5), (5, 1), (8, 3, 3, 3), (2, 3, 2, 3, 2)]
WHOLE = [rule for rule in rules.RULES if rule.whole]
OF_ALL = [rule for rule in WHOLE if rule().takes((3,))]
OF_MATRICES = [rule for rule in WHOLE if rule not in OF_ALL]


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def cost(rule: rules.Rule, shape: tuple[int, ...]) -> int:
    """Numbers of state for a weight of this shape."""
    return sum(slot.size for slot in rule.init(NUMPY, np.zeros(shape)))


def test_some_rules_see_whole_arrays() -> None:
    assert len(OF_ALL) == 11
    assert len(OF_MATRICES) == 11


@each(
    ("rule", "shape", "expected"),
    [
        (rules.Adafactor(), (60, 40), 100),
        (rules.Adafactor(), (60,), 60),
        (rules.Adafactor(), (60, 40, 3, 3), 9 * 100),
        (rules.AdafactorTorch(), (60, 40), 100),
        (rules.AdafactorTorch(), (60, 40, 3, 3), 60 * 40 * 6),
        (rules.AdafactorBigVision(), (60, 40), 60 * 40 + 100),
        (rules.AdafactorBigVision(), (60, 31), 2 * 60 * 31),
        (rules.AdafactorOptax(), (128, 200), 328),
        (rules.AdafactorOptax(), (127, 200), 127 * 200),
        (rules.CAME(), (60, 40), 60 * 40 + 200),
        (rules.CAME(), (60,), 120),
        (rules.SM3(), (60, 40), 60 * 40 + 100),
        (rules.SM3(), (6, 4, 3, 3), 6 * 4 * 9 + 16),
        (rules.AdamMini(), (60, 40), 60 * 40 + 60),
        (rules.AdamMini(blocks=4), (60, 40), 60 * 40 + 4),
        (rules.AdamMini(), (60,), 61),
        (rules.Muon(), (60, 40), 60 * 40),
        (rules.NorMuon(), (60, 40), 60 * 40 + 60),
        (rules.AdaMuon(), (60, 40), 2 * 60 * 40),
        (rules.SpectralDescent(), (60, 40), 60 * 40),
        (rules.Dion(rank=8), (60, 40), 60 * 40 + 8 * 40),
        (rules.Shampoo(), (6, 4), 2 * 24 + 2 * (36 + 16)),
        (rules.Shampoo(graft="sgd", largest=5), (6, 4), 24 + 2 * 16),
        (rules.SOAP(), (6, 4), 2 * 24 + 2 * (36 + 16)),
        (rules.SOAP(), (6,), 12),
        (rules.KLShampoo(), (6, 4), 24 + 2 * (36 + 16) + 10),
        (rules.Kron(), (6, 4), 24 + 36 + 16),
        (rules.Kron(largest=5), (6, 4), 24 + 6 + 16),
        (rules.GaLore(rank=2), (6, 4), 2 * 2 * 6 + 2 * 4),
        (rules.Fira(rank=2), (4, 6), 2 * 2 * 6 + 2 * 4 + 1),
        (rules.Apollo(rank=2), (4, 6), 2 * 2 * 6 + 2 * 4 + 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, rules.Rule) else str(value),
)
def test_state_costs_what_is_said(rule: rules.Rule, shape: tuple[int, ...], expected: int) -> None:
    assert cost(rule, shape) == expected


@each("shape", SHAPES, ids=str)
@each("rule", WHOLE, ids=lambda rule: rule.__name__)
def test_every_shape_that_is_taken_moves_and_keeps_its_state_in_shape(rule, shape: tuple[int, ...]) -> None:
    chosen, w = rule(), noise(shape)
    if not chosen.takes(shape):
        with pytest.raises(UserError):
            chosen.init(NUMPY, w)
        return
    slots, shared, first = chosen.init(NUMPY, w), dict(rule.shared), w
    for t in range(1, 4):
        before = [slot.shape for slot in slots]
        w, slots, shared = step(chosen, t, t, w, noise(shape, t), slots, shared)
        assert [slot.shape for slot in slots] == before
    assert w.shape == shape
    assert np.isfinite(w).all()
    assert (w != first).any()


@each("shape", [(0,), (0, 3), (3, 0), (2, 0, 3)], ids=str)
@each("rule", WHOLE, ids=lambda rule: rule.__name__)
def test_a_weight_without_elements_is_left_alone(rule, shape: tuple[int, ...]) -> None:
    if rule().takes(shape):
        w = np.zeros(shape)
        assert step(rule(), 1, 1, w, w, rule().init(NUMPY, w), dict(rule.shared))[0].shape == shape
        weight = torch.nn.Parameter(torch.zeros(shape))
        optimizer = RuleOptimizer([weight, torch.nn.Parameter(torch.ones(2, 2))], rule())
        for each in optimizer.param_groups[0]["params"]:
            each.grad = torch.ones_like(each)
        optimizer.step()
        assert weight.shape == shape


@each("rule", WHOLE, ids=lambda rule: rule.__name__)
def test_slots_are_arrays_of_their_own(rule) -> None:
    """Engines write state in place: one array in two slots would be written twice."""
    weight = torch.zeros(4, 6)
    slots = [slot for slot in rule().init(TORCH, weight) if slot.numel()]
    assert len({slot.data_ptr() for slot in (weight, *slots)}) == len(slots) + 1
    assert all(slot.dim() for slot in slots), "torch casts and moves 0-dim state of its own accord"


@each("bad", [np.nan, np.inf])
@each("engine", ["numpy", "torch"])
@each("rule", WHOLE, ids=lambda rule: rule.__name__)
def test_a_gradient_that_is_no_number_is_seen(rule, engine: str, bad: float) -> None:
    g = noise((4, 6), 1)
    g[1, 2] = bad
    if engine == "numpy":
        with np.errstate(all="ignore"):
            w, slots = noise((4, 6)), rule().init(NUMPY, noise((4, 6)))
            shared = dict(rule.shared)
            for t in (1, 2):
                w, slots, shared = step(rule(), t, t, w, g, slots, shared)
        everything = [w, *slots]
    else:
        weight = torch.nn.Parameter(torch.from_numpy(noise((4, 6))))
        optimizer = RuleOptimizer([weight], rule())
        for _ in (1, 2):
            optimizer.step(gradients=[torch.from_numpy(g)])
        everything = [weight.detach().numpy(), *(x.numpy() for x in optimizer.state[weight].values())]
    assert not np.isfinite(everything[0]).all()


@each("rule", OF_MATRICES, ids=lambda rule: rule.__name__)
def test_an_optimizer_of_vectors_is_not_made(rule) -> None:
    first, vector = torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(3))
    with pytest.raises(UserError, match=r"shape \(3,\)"):
        RuleOptimizer([first, vector], rule())
    optimizer = RuleOptimizer([first], rule())
    with pytest.raises(UserError, match=r"shape \(3,\)"):
        optimizer.add_param_group({"params": [vector]})
    assert len(optimizer.param_groups) == 1
    assert len(optimizer.rules) == 1


def test_rows_that_blocks_do_not_divide_are_refused() -> None:
    with pytest.raises(UserError, match=r"blocks \(4\) must divide the rows.*\(6, 3\)"):
        rules.AdamMini(blocks=4).init(NUMPY, np.zeros((6, 3)))


@each(("rule", "word"), [(rules.Shampoo, "graft"), (rules.Apollo, "per")])
def test_words_that_are_not_known_are_refused(rule, word: str) -> None:
    with pytest.raises(UserError, match=f"{rule.__name__}'s {word} cannot be 'best'"):
        rule(**{word: "best"})


def test_adam_mini_of_single_weights_is_adam() -> None:
    w, g = noise((5, 1)), noise((5, 1), 1)
    mini, adam = rules.AdamMini(), rules.AdamW(weight_decay=0.0)
    ours = step(mini, 1, 1, w, g, mini.init(NUMPY, w), {})[0]
    np.testing.assert_array_equal(ours, step(adam, 1, 1, w, g, adam.init(NUMPY, w), {})[0])


def test_a_gradient_of_rank_one_is_factored_without_loss() -> None:
    """V = rcᵀ/mean(r) is g² itself, so that the first direction is the sign of the gradient."""
    g = np.outer(noise((6,)), noise((4,), 1))
    for rule in (rules.Adafactor(), rules.AdafactorTorch(eps1=0.0), rules.AdafactorBigVision(factor_from=1)):
        moved = -step(rule, 1, 1, np.zeros((6, 4)), g, rule.init(NUMPY, np.zeros((6, 4))), {})[0]
        np.testing.assert_allclose(moved / np.abs(moved).max(), np.sign(g), rtol=0, atol=1000 * EPS)


@each("rule", WHOLE, ids=lambda rule: rule.__name__)
def test_a_row_and_a_column_that_never_have_a_gradient_stay(rule) -> None:
    """Dead inputs and dead units, in float32, where the product of two small averages is 0.

    SOAP and Kron see them in bases that they share with others, and divide rounding errors by their size."""
    weight = torch.nn.Parameter(torch.ones(4, 6))
    optimizer = RuleOptimizer([weight], rule(weight_decay=0.0))
    for t in range(1, 30):
        g = torch.from_numpy(1e-4 * noise((4, 6), t)).float()
        g[1], g[:, 2] = 0, 0
        optimizer.step(gradients=[g])
    assert weight.isfinite().all()
    moved = (weight.detach() - 1).abs()
    if rule not in (rules.SOAP, rules.Kron):
        assert max(moved[1].max(), moved[:, 2].max()) < 0.01 * moved.max()


def test_shampoo_of_a_vector_is_adagrad_with_all_products() -> None:
    rule = rules.Shampoo(graft="none", beta1=0.0, damping=1e-3)
    w, slots, s = np.zeros(4), rule.init(NUMPY, np.zeros(4)), np.zeros((4, 4))
    for t in range(1, 6):
        g, before = noise((4,), t), w
        w, slots, _ = step(rule, t, t, w, g, slots, {})
        s = s + np.outer(g, g)
        values, vectors = np.linalg.eigh(s + 1e-3 * np.eye(4))
        u = (vectors * values**-0.5) @ vectors.T @ g
        np.testing.assert_allclose(before - w, rule.lr * u, rtol=0, atol=1000 * EPS)


def test_kron_whitens_gradients_of_one_distribution() -> None:
    """After many fits the directions of u have about one size, whatever the size of the gradients."""
    rule = rules.Kron(lr=1.0, weight_decay=0.0, momentum=0.0)
    mix = np.diag([10.0, 3.0, 1.0, 0.3]) @ np.linalg.qr(noise((4, 4)))[0]
    w, slots, shared = np.zeros((4, 4)), rule.init(NUMPY, np.zeros((4, 4))), dict(rule.shared)
    steps = []
    for t in range(1, 400):
        before = w
        w, slots, shared = step(rule, t, t, w, mix @ noise((4, 4), t), slots, shared)
        steps.append((before - w).ravel())
    spread = np.linalg.eigvalsh(np.cov(np.stack(steps[200:]).T))
    assert spread.max() / spread.min() < 30 < (10 / 0.3) ** 2
    assert 0.3 < np.sqrt(np.mean(np.square(steps[200:]))) < 1.1


def test_projections_of_full_rank_change_nothing_for_apollo_and_little_for_galore() -> None:
    """GaLore of full rank turns the gradient, moves by Adam, and turns back; every element of u is then below
    scale·√cols."""
    w, g = np.zeros((3, 5)), noise((3, 5))
    rule = rules.GaLore(rank=3, scale=1.0)
    u = -step(rule, 1, 1, w, g, rule.init(NUMPY, w), {})[0] / rule.lr
    left = np.linalg.svd(g, full_matrices=False)[0]
    turned = left.T @ u
    np.testing.assert_allclose(np.abs(turned), 1, rtol=1e-6)  # Adam's first step: the sign
    rule = rules.Apollo(rank=3)
    u = -step(rule, 1, 1, w, g, rule.init(NUMPY, w), {})[0]
    cosine = (u * g).sum(0) / np.linalg.norm(u, axis=0) / np.linalg.norm(g, axis=0)
    np.testing.assert_allclose(cosine, 1, rtol=0, atol=10 * EPS)


def test_fira_grows_slowly() -> None:
    """‖s‖ is at most growth_limit times what it was in the step before."""
    rule = rules.Fira(rank=1, scale=0.0, lr=1.0)
    w, slots, lengths = np.zeros((4, 6)), rule.init(NUMPY, np.zeros((4, 6))), []
    for t in range(1, 8):
        before = w
        w, slots, _ = step(rule, t, t, w, noise((4, 6), t), slots, {})
        lengths.append(np.linalg.norm(w - before))
    ratios = np.array(lengths[1:]) / np.array(lengths[:-1])
    assert ratios.max() == pytest.approx(1.01, rel=1e-6)
    assert ratios.max() <= 1.01 * (1 + 1e-6)


@each("shape", SHAPES, ids=str)
def test_shapes_are_seen_with_all_their_elements(shape: tuple[int, ...]) -> None:
    assert prod(folded(shape)) == prod(shape)
    assert 1 <= len(folded(shape)) <= 4
    if is_matrix(shape):
        assert prod(matrix(shape)) == prod(shape)
        assert matrix(shape)[0] == shape[0]


def test_axes_meet_matrices_as_einsum_has_it() -> None:
    x, a = noise((3, 4, 5)), noise((4, 4), 1)
    np.testing.assert_allclose(along(NUMPY, x, 1, a), np.einsum("ij,ajb->aib", a, x), rtol=0, atol=100 * EPS)
    np.testing.assert_allclose(gram(NUMPY, x, 1), np.einsum("aib,ajb->ij", x, x), rtol=0, atol=100 * EPS)


def test_bases_are_orthogonal_and_find_eigenvectors() -> None:
    g = noise((5, 5))
    s = g @ g.T
    q = eigenbasis(NUMPY, s)
    values = np.diag(q.T @ s @ q)
    assert (np.diff(values) < 0).all(), "the largest first"
    np.testing.assert_allclose(q.T @ q, np.eye(5), rtol=0, atol=100 * EPS)
    basis = np.eye(5)
    for _ in range(2000):
        basis = iterated(NUMPY, s, basis)
    np.testing.assert_allclose(np.diag(basis.T @ s @ basis), values, rtol=1e-4)


def test_equal_eigenvalues_have_one_basis_in_both_engines() -> None:
    """Of a matrix of rank 1, LAPACK leaves the other directions to chance; a ramp settles them."""
    s = np.outer(np.arange(1.0, 9), np.arange(1.0, 9))
    ours, theirs = eigenbasis(NUMPY, s), eigenbasis(TORCH, torch.from_numpy(s)).numpy()
    np.testing.assert_allclose(np.abs((ours * theirs).sum(0)), 1, rtol=0, atol=1e-6)


def test_a_root_is_a_power_of_the_matrix() -> None:
    g = noise((4, 6))
    s = g @ g.T
    r = root(NUMPY, s, 1e-3, -0.25)
    np.testing.assert_allclose(
        np.linalg.inv(np.linalg.matrix_power(r, 4)), s + 1e-3 * np.eye(4), rtol=0, atol=1e5 * EPS
    )


def test_singular_vectors_have_one_sign() -> None:
    g = noise((4, 6))
    for x, left in ((g, True), (g, False)):
        p = singular(NUMPY, x, 3, left)
        assert (p.sum(0) > 0).all()
        np.testing.assert_allclose(p.T @ p, np.eye(3), rtol=0, atol=100 * EPS)
        np.testing.assert_allclose(singular(NUMPY, -x, 3, left), p, rtol=0, atol=100 * EPS)
