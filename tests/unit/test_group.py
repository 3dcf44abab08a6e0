"""Patterns over parameter names: the first that fits claims, nothing stays unclaimed, none claims nothing."""

import pytest

from steepest.optim.errors import UserError
from steepest.optim.groups import matches, no_decay, split

NAMES = ["embed.weight", "body.0.weight", "body.0.bias", "norm.weight", "head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("name", "pattern", "fits"),
    [
        ("embed.weight", "embed*", True),
        ("embed.weight", "embed", False),
        ("body.embed.weight", "embed*", False),
        ("head.bias", "embed*|head*|*bias", True),
        ("body.0.bias", "embed* | *bias", True),
        ("body.12.weight", "body.[0-9].*", False),
        ("Head.bias", "head*", False),
    ],
)
def test_a_pattern_is_globs_between_bars(name: str, pattern: str, fits: bool) -> None:
    assert matches(name, pattern) is fits


def test_the_first_pattern_that_fits_claims_and_the_rest_comes_last() -> None:
    assert split(NAMES, ["head*", "*bias|embed*"]) == [
        ["head.weight", "head.bias"],
        ["embed.weight", "body.0.bias"],
        ["body.0.weight", "norm.weight"],
    ]


@pytest.mark.parametrize("patterns", [[], ["*"], ["head*", "*"], ["*.weight", "*.bias"]])
def test_every_name_is_claimed_once(patterns: list[str]) -> None:
    groups = split(NAMES, patterns)
    assert len(groups) == len(patterns) + 1
    assert sorted(name for group in groups for name in group) == sorted(NAMES)


def test_a_pattern_that_fits_nothing_is_refused_with_near_names() -> None:
    with pytest.raises(UserError, match=r"'heads.weight' fits no weight\. Did you mean 'head\.weight'"):
        split(NAMES, ["heads.weight"])


def test_a_pattern_whose_weights_are_all_claimed_is_told_apart() -> None:
    with pytest.raises(
        UserError, match=r"'head.bias' claims no weight: .* all 1 .*'head\.bias'.*before them"
    ):
        split(NAMES, ["head*", "head.bias"])


@pytest.mark.parametrize(
    ("name", "shape", "kind", "spared"),
    [
        ("body.0.weight", (8, 4), "Linear", False),
        ("body.0.weight", (8, 4, 3, 3), "Conv2d", False),
        ("patch_embed.proj.weight", (8, 3, 4, 4), "Conv2d", False),
        ("attention.in_proj_weight", (24, 8), "MultiheadAttention", False),
        ("body.0.bias", (8,), "Linear", True),
        ("attention.in_proj_bias", (24,), "MultiheadAttention", True),
        ("norm.weight", (8,), "LayerNorm", True),
        ("norm.weight", (8, 6), "LayerNorm", True),
        ("norm.weight", (8,), "BatchNorm2d", True),
        ("norm.weight", (8,), "RMSNorm", True),
        ("norm.gain", (8,), "MyOwnScale", True),
        ("words.weight", (100, 8), "Embedding", True),
        ("words.weight", (100, 8), "EmbeddingBag", True),
        ("pos_embed", (1, 16, 8), "VisionTransformer", True),
        ("temperature", (), "Clip", True),
    ],
)
def test_biases_norms_and_embeddings_are_spared_decay(
    name: str, shape: tuple[int, ...], kind: str, spared: bool
) -> None:
    assert no_decay(name, shape, kind) is spared
