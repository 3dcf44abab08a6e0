"""Rules of matrices get the hidden ones, AdamW the rest, and what a person says goes first."""

import copy

import pytest
import torch
from torch import nn

from steepest import rules, schedule
from steepest.optim.errors import UserError
from steepest.torch import RuleOptimizer, optimizer

WHOLE = [rule for rule in rules.RULES if rule.whole]


class Text(nn.Module):
    """Embeddings, attention, a head that shares the embedding."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.words, self.place_embed = nn.Embedding(20, 8), nn.Parameter(torch.zeros(1, 5, 8))
        self.start = nn.Parameter(torch.zeros(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2)
        self.widen, self.narrow, self.norm = nn.Linear(8, 16), nn.Linear(16, 8), nn.LayerNorm(8)
        self.head = nn.Linear(8, 20, bias=False)
        if tied:
            self.head.weight = self.words.weight


def pictures() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1), nn.Flatten(),
        nn.Linear(16, 12), nn.Linear(12, 10),
    )  # fmt: skip


def moved_by(made: RuleOptimizer) -> dict[str, str]:
    """Name of each weight → name of its rule."""
    return {
        name: type(made.rule_of(group)).__name__
        for group in made.param_groups
        for name in group["param_names"]
    }


def of_muon(model: nn.Module, **options) -> set[str]:
    return {name for name, rule in moved_by(optimizer(model, "muon", **options)).items() if rule == "Muon"}


HIDDEN = {"attention.in_proj_weight", "attention.out_proj.weight", "widen.weight", "narrow.weight"}


def test_of_a_transformer_the_matrices_inside() -> None:
    assert of_muon(Text(tied=False)) == HIDDEN
    assert of_muon(Text(tied=True)) == HIDDEN


def test_of_a_network_for_pictures_the_convolutions_but_the_depthwise_ones() -> None:
    assert of_muon(pictures()) == {"0.weight", "3.weight", "5.weight"}


def test_of_convolutions_alone_the_last_is_the_head() -> None:
    assert of_muon(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 2, 1))) == {
        "0.weight",
        "1.weight",
    }


def test_of_a_recurrent_network_both_its_matrices() -> None:
    model = nn.ModuleDict({"words": nn.Embedding(9, 4), "lstm": nn.LSTM(4, 6), "head": nn.Linear(6, 9)})
    assert of_muon(model) == {"lstm.weight_ih_l0", "lstm.weight_hh_l0"}


@pytest.mark.parametrize("rule", [rule for rule in WHOLE if not rule().takes((3,))], ids=lambda r: r.__name__)
def test_every_rule_of_matrices_is_split(rule) -> None:
    made = optimizer(pictures(), rule())
    assert set(moved_by(made).values()) == {rule.__name__, "AdamW"}
    for group in made.param_groups:
        for weight in group["params"]:
            weight.grad = torch.randn_like(weight)
    made.step()
    assert all(weight.isfinite().all() for group in made.param_groups for weight in group["params"])


@pytest.mark.parametrize("rule", [rule for rule in WHOLE if rule().takes((3,))], ids=lambda r: r.__name__)
def test_a_rule_of_all_shapes_is_not(rule) -> None:
    assert set(moved_by(optimizer(pictures(), rule())).values()) == {rule.__name__}
    with pytest.raises(UserError, match="there is no rest"):
        optimizer(pictures(), rule(), rest="sgd")


def test_patterns_go_first() -> None:
    muon = rules.Muon(lr=0.5)
    made = optimizer(Text(), muon, {"widen*": "lion", "head*|words*": rules.Muon(lr=0.25)})
    by = moved_by(made)
    assert by["widen.weight"] == by["widen.bias"] == "Lion"
    assert by["words.weight"] == "Muon"
    assert {name for name, rule in by.items() if rule == "Muon"} == HIDDEN - {"widen.weight"} | {
        "words.weight"
    }


def test_a_pattern_that_gives_a_vector_to_a_rule_of_matrices_is_refused() -> None:
    with pytest.raises(UserError, match=r"Muon moves matrices.*\(8,\)"):
        optimizer(Text(), "adamw", {"norm*": "muon"})


def test_a_model_without_hidden_matrices_is_refused() -> None:
    with pytest.raises(UserError, match=r"hidden matrices, and this model has none.*AdamW.*groups="):
        optimizer(nn.Linear(4, 3), "muon")
    assert moved_by(optimizer(nn.Linear(4, 3), "muon", {"weight": "muon", "bias": "sgd"})) == {
        "weight": "Muon",
        "bias": "SGD",
    }


def rates(made: RuleOptimizer) -> dict[str, float]:
    return {type(made.rule_of(group)).__name__: made.rule_of(group).lr for group in made.param_groups}


def test_one_rate_serves_both_where_steps_are_matched() -> None:
    made = optimizer(pictures(), rules.MuonMatched(lr=0.004, weight_decay=0.05))
    assert rates(made) == {"MuonMatched": 0.004, "AdamW": 0.004}
    decays = {made.rule_of(group).weight_decay for group in made.param_groups}
    assert decays == {0.05, 0.0}, "biases and norms do not decay"
    assert made.rate == 0.004


def test_elsewhere_the_rest_has_the_share_that_is_usual() -> None:
    assert rates(optimizer(pictures(), rules.Muon(lr=0.02))) == pytest.approx({"Muon": 0.02, "AdamW": 3e-4})


def test_the_rest_may_have_a_rule_of_its_own() -> None:
    made = optimizer(pictures(), rules.Muon(lr=0.02), rest=rules.Lion(lr=1e-5))
    assert rates(made) == {"Muon": 0.02, "Lion": 1e-5}


def test_schedules_and_factors_reach_both() -> None:
    made = optimizer(pictures(), rules.Muon(lr=schedule.Polynomial(1.0, total=10)), lr_scale={"0.*": 0.5})
    for _ in range(6):
        made.step(gradients=[torch.zeros_like(w) for group in made.param_groups for w in group["params"]])
    found = {
        (type(made.rule_of(group)).__name__, group["lr_scale"]): made.rule_of(group).lr
        for group in made.param_groups
    }
    # The rule of the next step, of which the rate is 1 - 6/10.
    assert found == pytest.approx(
        {("Muon", 0.5): 0.2, ("Muon", 1.0): 0.4, ("AdamW", 0.0075): 0.003, ("AdamW", 0.015): 0.006}
    )


def test_the_summary_says_who_moves_what() -> None:
    lines = optimizer(Text(), "muon").summary()
    assert lines[0].startswith("Muon, lr 0.02, no weight decay: hidden matrices, 4 tensors")
    assert lines[1].startswith("AdamW, lr 0.0003, no weight decay: the rest, ")


def test_the_summary_tells_the_height_of_a_rate_that_still_rises() -> None:
    rising = rules.Muon(lr=schedule.WarmupStableDecay(0.02, 10, 100))
    lines = optimizer(Text(), rising).summary()
    assert lines[0].startswith("Muon, lr up to 0.02,")
    assert lines[1].startswith("AdamW, lr up to 0.0003,")


def trained(rule: type[rules.Rule], steps: range, made: RuleOptimizer) -> None:
    for t in steps:
        draw = torch.Generator().manual_seed(t)
        gradients = [
            torch.randn(w.shape, generator=draw) for group in made.param_groups for w in group["params"]
        ]
        made.step(gradients=gradients)


@pytest.mark.parametrize("way", ["state_dict", "state_by_name"])
@pytest.mark.parametrize("rule", WHOLE, ids=lambda rule: rule.__name__)
def test_a_run_resumes_to_the_bit(rule, way: str) -> None:
    """State of other shapes than its weight, and of none."""
    first = pictures()
    made = optimizer(first, rule())
    trained(rule, range(4), made)
    second = copy.deepcopy(first)
    resumed = optimizer(second, rule())
    getattr(resumed, f"load_{way}")(copy.deepcopy(getattr(made, way)()))
    trained(rule, range(4, 14), made)
    trained(rule, range(4, 14), resumed)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_state_of_another_rank_is_refused() -> None:
    model = pictures()
    made = optimizer(model, rules.Dion(rank=2))
    trained(rules.Dion, range(1), made)
    with pytest.raises(UserError, match="q"):
        optimizer(model, rules.Dion(rank=3)).load_state_by_name(made.state_by_name())
