"""Runs whose batches vary repeat and resume to the bit, wherever they are cut."""

import pytest
import torch
from torch import nn

import steepest as st
import steepest.torch
from steepest.batch import BatchPolicy, Compensated, Following, Growing, Stochastic
from steepest.data.batches import batches
from steepest.optim.errors import UserError
from steepest.schedule import Polynomial
from steepest.train import checkpoint
from steepest.train.loop import loop
from steepest.train.stopping import Stopping

STEPS = 70
CHANCE = torch.Generator().manual_seed(0)
X, Y = torch.randn(90, 5, generator=CHANCE), torch.randint(3, (90,), generator=CHANCE)  # nothing to learn
QUICK = {"hidden": [8], "num_threads": 1}

POLICIES = {
    "growing": lambda: Growing(6, 40, Polynomial(0.05, STEPS), 2.0),
    "stochastic": lambda: Stochastic(4, 20),
    "following": lambda: Following(4, 32, every=30),
}
MADE = {
    "AdamW": lambda net, rate: steepest.torch.optimizer(net, st.rules.AdamW(lr=rate)),
    "SGD": lambda net, rate: steepest.torch.optimizer(net, st.rules.SGD(lr=rate)),
}


class Cut(Exception):
    """The process dies here, as far as the folder can tell."""


def train(out, name, rule, cut=None, **settings):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 3))
    source = batches((X, Y), POLICIES[name]())
    policy = source.varied.policy
    curve = Polynomial(0.05, STEPS) if name == "growing" else 0.02
    opt = MADE[rule](net, Compensated(curve, policy))
    settings |= {"budget": f"{STEPS} steps", "save_every": "7 steps"}
    with loop(net, opt, source, out=out, **settings) as inside:
        for x, y in inside:
            if inside.done == cut:
                raise Cut
            inside.step(lambda x=x, y=y: nn.functional.cross_entropy(net(x), y))
    return inside, policy


def remains(inside):
    snapshot = inside.state.snapshot()
    snapshot.progress["seconds"] = 0
    plain, held = checkpoint.packed(snapshot.parts)
    tensors = {name: tensor.numpy().tobytes() for name, tensor in held.items()}
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in inside.history]
    return repr(plain), tensors, repr(rows)


@pytest.mark.parametrize("rule", MADE)
@pytest.mark.parametrize("name", POLICIES)
def test_resumes_to_the_bit_wherever_it_is_cut(tmp_path, name, rule):
    settings = {"evaluate_every": "1 epoch", "stopping": Stopping(patience=2, max_decays=99)}
    whole, policy = train(tmp_path / "alone", name, rule, **settings)
    sizes = {policy.size(step) for step in range(1, STEPS + 1)}
    assert len(sizes) > 1, "the policy did not move: nothing is shown"
    alone = remains(whole)
    for cut in (20, 33, 41, 69):
        out = tmp_path / f"cut{cut}"
        with pytest.raises(Cut):
            train(out, name, rule, cut, **settings)
        assert remains(train(out, name, rule, **settings)[0]) == alone, f"cut at {cut}"


class Rows(torch.utils.data.Dataset):
    """Examples that are read one by one, ahead of their use where workers read them."""

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return X[index], Y[index]


def test_what_workers_have_read_ahead_is_read_anew_when_the_batch_changes(monkeypatch):
    def doubles(policy, step, pair):
        if step == 10:
            policy.changes.append((11, 8))
        return (8, pair) if step == 10 else None

    monkeypatch.setattr(Following, "observe", doubles)

    def seen(workers):
        torch.manual_seed(0)
        net = nn.Linear(5, 3)
        source = batches(Rows(), Following(4, 32), num_workers=workers)
        opt, sizes = torch.optim.SGD(net.parameters(), lr=0.02), []
        with loop(net, opt, source, budget="15 steps") as inside:
            for x, y in inside:
                sizes.append(x[:, 0].tolist())
                inside.step(lambda x=x, y=y: nn.functional.cross_entropy(net(x), y))
        return sizes

    assert seen(2) == (alone := seen(0))
    assert list(map(len, alone)) == [2] * (10 * 2 + 5 * 4)


def test_another_policy_cannot_go_on_with_the_run(tmp_path):
    with pytest.raises(Cut):
        train(tmp_path, "growing", "SGD", 9)
    with pytest.raises(UserError, match="batch_size was growing 6 to 40"):
        train(tmp_path, "stochastic", "SGD")


def test_an_evaluation_by_the_epoch_comes_when_the_epoch_ends():
    inside, _ = train(None, "growing", "SGD")
    epochs = [row["epoch"] for row in inside.history]
    assert epochs[:-1] == [float(n) for n in range(1, len(epochs))]
    steps = [row["step"] for row in inside.history]
    assert steps[1] - steps[0] > steps[-2] - steps[-3], "epochs grow shorter in updates as the batch grows"


@pytest.mark.parametrize("batch_size", ["growing 8 to 64", "stochastic 8 to 24", "following 8 to 64", "full"])
def test_fit_takes_it_by_name_and_its_recipe_repeats_it(tmp_path, monkeypatch, batch_size):
    monkeypatch.chdir(tmp_path)
    schedule = "constant" if "following" in batch_size else "linear"
    settings = {"rule": "adamw", "lr": 0.01, "schedule": schedule, "budget": "5 epochs", "patience": None}
    run = st.fit("iris", batch_size=batch_size, **settings, **QUICK)
    assert run.recipe.batch_size == batch_size
    assert f'batch_size = "{batch_size}"' in (run.folder / "recipe.toml").read_text()
    again = st.fit(run.folder / "recipe.toml")
    assert run.history.drop("seconds").equals(again.history.drop("seconds"))
    assert run.metrics == again.metrics


def test_a_search_knows_how_many_updates_of_random_size_its_epochs_hold(tmp_path):
    """Their sizes are a function of the seed, so that the budget is not overrun by what a mean would say."""
    run = st.fit(
        (X, Y), batch_size="stochastic 4 to 40", lr="auto", budget="20 epochs", out=tmp_path, **QUICK
    )
    (horizon,) = (one for one in run.evidence if one.choice == "horizon")
    assert run.steps == horizon.decided
    assert 17 < float(run.history["epoch"][-1]) <= 20


def test_growth_takes_the_budgets_epochs_in_fewer_updates_and_keeps_the_rate_up(tmp_path):
    settings = {"rule": "sgd", "lr": 0.05, "schedule": "linear", "budget": "12 epochs"}
    fixed = st.fit("iris", batch_size=8, out=tmp_path / "fixed", **settings, **QUICK)
    grown = st.fit("iris", batch_size="growing 8 to 64", out=tmp_path / "grown", **settings, **QUICK)
    assert grown.steps < 0.6 * fixed.steps
    assert grown.history["epoch"][-1] == pytest.approx(12, abs=8 / 100)
    halfway = len(grown.history) // 2
    assert grown.history["lr"][halfway] > 1.3 * fixed.history["lr"][halfway]
    assert grown.history["lr"][-1] < 0.2 * 0.05  # the limit is reached, and the rate falls after it


def test_a_fit_that_was_cut_in_the_midst_of_growth_resumes_to_the_same_bits(tmp_path):
    settings = {"batch_size": "growing 8 to 64", "schedule": "cosine", "budget": "20 epochs", "dropout": 0.2}
    settings |= QUICK

    def dies(inside):
        if inside.done == 25:
            raise Cut

    whole = st.fit("iris", out=tmp_path / "whole", **settings)
    assert whole.steps > 50
    with pytest.raises(Cut):
        st.fit("iris", out=tmp_path / "cut", on_step=dies, save_every="7 steps", **settings)
    again = st.resume(tmp_path / "cut")
    assert whole.history.drop("seconds").equals(again.history.drop("seconds"))
    assert whole.metrics == again.metrics


def test_a_policy_object_is_written_down_where_its_text_says_all(tmp_path):
    def recipe(policy: BatchPolicy):
        settings = {"schedule": "linear", "budget": "30 steps", "out": tmp_path / str(policy), **QUICK}
        run = st.fit("iris", batch_size=policy, **settings)
        return run.recipe.batch_size

    assert recipe(Growing(8, 32)) == "growing 8 to 32"
    assert recipe(Growing(8, 33, power=1.5)).startswith("object ")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": "growing", "schedule": "plateau"}, "does not fall"),
        ({"batch_size": "following", "schedule": "cosine", "budget": "5 epochs"}, "budget in steps"),
        ({"batch_size": "following", "rule": "sam+sgd"}, "more than one pass"),
        ({"batch_size": "growing", "schedule": "auto"}, "leaves nothing to measure"),
        ({"batch_size": "growing 9 to 3"}, "from the smaller to the larger"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(tmp_path, settings, words):
    with pytest.raises(UserError, match=words):
        st.fit("iris", out=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_a_full_batch_beside_batch_norms_says_what_that_means(tmp_path):
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    run = st.fit("iris", model=net, batch_size="full", lr=None, budget="3 epochs", out=tmp_path / "run")
    assert any("full batch" in one.why for one in run.evidence if one.choice == "batch norms")


def test_a_batch_that_is_found_by_the_last_update_before_a_pause_is_taken_after_it() -> None:
    """The epoch went on in the old size, though the rate had gone up with the new one."""

    draw = torch.Generator().manual_seed(0)
    noise = tuple(torch.randn(1000, columns, generator=draw) for columns in (5, 1))

    def sizes(pause: int | None) -> list[int]:
        torch.manual_seed(0)
        net, policy, found = nn.Linear(5, 1), Following(2, 256, every=60, power=2.0), [0]
        opt = steepest.torch.AdamW(net.parameters(), lr=Compensated(1e-3, policy))
        steps = loop(net, opt, noise, budget="300 steps", batch_size=policy, evaluate_every="1 epoch")
        with steps:
            for stop in (pause, None) if pause else (None,):
                for x, target in steps:
                    found[-1] += len(x)
                    done = steps.done
                    steps.step(lambda x=x, target=target: (net(x) - target).square().mean())
                    found += [0] if steps.done > done else []
                    if steps.done == stop:
                        break
        return found

    whole = sizes(None)
    changes = [at for at in range(1, 300) if whole[at] != whole[at - 1]]
    assert changes, "the batch has changed"
    assert sizes(changes[0]) == whole
