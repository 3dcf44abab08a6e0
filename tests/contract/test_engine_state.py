"""Whatever is put into the optimizer's state is used at the next step, and nothing of it gets lost."""

import copy
import pickle
from collections import defaultdict
from collections.abc import Callable

import pytest
import torch

from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.rules import AdamW, NAdam

HIGH = 100.0


def trained(steps: int = 3) -> tuple[RuleOptimizer, list[torch.nn.Parameter]]:
    weights = [torch.nn.Parameter(torch.ones(n)) for n in (5, 3)]
    optimizer = RuleOptimizer(weights, AdamW(weight_decay=0.0))
    for _ in range(steps):
        step(optimizer)
    return optimizer, weights


def step(optimizer: RuleOptimizer) -> None:
    optimizer.step(gradients=[torch.ones(5), torch.ones(3)])


def put(optimizer: RuleOptimizer, weight: torch.Tensor, how: str) -> Callable[[], None]:
    """A function that puts a high moment into the state, by what was got hold of before."""
    entry, new = optimizer.state[weight], torch.full((5,), HIGH)
    moment = entry["exp_avg"]

    def put_data() -> None:
        optimizer.state[weight]["exp_avg"].data = new

    return {
        "an entry": lambda: optimizer.state[weight].__setitem__("exp_avg", new),
        "an entry got before": lambda: entry.__setitem__("exp_avg", new),
        "several": lambda: entry.update(exp_avg=new),
        "a dict": lambda: optimizer.state.__setitem__(weight, dict(entry, exp_avg=new)),
        "another state": lambda: setattr(
            optimizer, "state", defaultdict(dict, {weight: dict(entry, exp_avg=new)})
        ),
        "in place": lambda: moment.fill_(HIGH),  # type: ignore[dict-item]
        "its memory": put_data,
        "none": lambda: (entry.clear(), entry.update(exp_avg=new)),  # type: ignore[dict-item]
    }[how]  # type: ignore[return-value]


@pytest.mark.parametrize(
    "how",
    [
        "an entry",
        "an entry got before",
        "several",
        "a dict",
        "another state",
        "in place",
        "its memory",
        "none",
    ],
)
def test_a_moment_that_is_put_into_the_state_is_used(how: str) -> None:
    optimizer, (weight, _) = trained()
    act = put(optimizer, weight, how)
    for _ in range(3):  # the state is no longer looked at before each step
        step(optimizer)
    assert not optimizer.state.watch.touched
    act()
    step(optimizer)
    assert float(optimizer.state[weight]["exp_avg"].min()) > 0.8 * HIGH


def test_a_dict_that_was_put_in_is_looked_at_before_every_step() -> None:
    optimizer, (weight, _) = trained()
    own = dict(optimizer.state[weight])
    optimizer.state[weight] = own
    for _ in range(3):
        step(optimizer)
    own["exp_avg"] = torch.full((5,), HIGH)
    step(optimizer)
    assert float(own["exp_avg"].min()) > 0.8 * HIGH


def test_state_in_shared_memory_is_written_there() -> None:
    optimizer, (_, other) = trained()
    moment = optimizer.state[other]["exp_avg"]  # lies beside those of the other weight
    step(optimizer)
    step(optimizer)
    moment.share_memory_()
    before = moment.clone()
    step(optimizer)
    assert moment.is_shared()
    assert not torch.equal(moment, before)
    assert optimizer.state[other]["exp_avg"] is moment


def test_slots_of_small_weights_lie_side_by_side() -> None:
    optimizer, weights = trained()
    slots = [optimizer.state[w][key] for w in weights for key in ("exp_avg", "exp_avg_sq")]
    assert len({slot.untyped_storage().data_ptr() for slot in slots}) == 1
    assert all(slot.data_ptr() % 64 == 0 for slot in slots)
    twin = RuleOptimizer(weights, AdamW())
    twin.load_state_dict(optimizer.state_dict())
    loaded = [twin.state[w][key] for w in weights for key in ("exp_avg", "exp_avg_sq")]
    assert len({slot.untyped_storage().data_ptr() for slot in loaded}) == 1
    assert not {x.data_ptr() for x in slots} & {x.data_ptr() for x in loaded}


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_go_on_alone(twin: Callable[[RuleOptimizer], RuleOptimizer]) -> None:
    optimizer, weights = trained()
    other = twin(optimizer)
    copies = [w for group in other.param_groups for w in group["params"]]
    for _ in range(2):
        step(other)
    assert [int(optimizer.state[w]["step"]) for w in weights] == [3, 3]
    assert [int(other.state[w]["step"]) for w in copies] == [5, 5]
    for _ in range(2):
        step(optimizer)
    assert all(torch.equal(a, b) for a, b in zip(weights, copies, strict=True))


def test_what_is_saved_is_plain() -> None:
    optimizer, _ = trained()
    assert {type(entry) for entry in optimizer.state_dict()["state"].values()} == {dict}
    assert type(pickle.loads(pickle.dumps(optimizer.state))) is defaultdict
    assert type(copy.deepcopy(next(iter(optimizer.state.values())))) is dict


def test_counters_outlive_tensors_that_share_their_memory() -> None:
    weight = torch.nn.Parameter(torch.ones(5))
    optimizer = RuleOptimizer([weight], NAdam())
    for _ in range(2):
        optimizer.step(gradients=[torch.ones(5)])
    step, product = (optimizer.state[weight][key] for key in ("step", "mu_product"))
    step.share_memory_()
    product.share_memory_()
    optimizer.step(gradients=[torch.ones(5)])
    assert int(optimizer.state[weight]["step"]) == 3


def test_a_tensor_that_is_still_held_is_written_in_place_or_taken_out_again() -> None:
    """The limit of noting who reaches in: other memory is seen when the tensor is taken out anew."""
    optimizer, weights = trained()
    ends = []
    for again in (False, True):
        held = optimizer.state[weights[0]]["exp_avg"]
        step(optimizer)
        held.zero_()
        step(optimizer)
        ends.append(held.clone())
        step(optimizer)
        held.data = torch.zeros_like(held)
        if again:
            assert optimizer.state[weights[0]]["exp_avg"] is held
            step(optimizer)
            assert torch.equal(held, ends[0])
    assert torch.equal(*ends)
