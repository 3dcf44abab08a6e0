"""The one machine of plateau, rewind, decay, raise and stop."""

import json
import math
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steepest.optim.errors import UserError
from steepest.train.stopping import Action, PlateauState, Stopping, sign

WAIT, IMPROVED, DECAY, RAISE, STOP = Action


def run(machine, values):
    state, actions = PlateauState(), []
    for value in values:
        state, action = machine.observe(state, value)
        actions.append(action)
    return state, actions


def test_plateau_decays_and_then_stops():
    machine = Stopping(patience=2, max_decays=1, decay_factor=0.5)
    state, actions = run(machine, [1.0, 2.0, 2.0, 2.0, 2.0])
    assert actions == [IMPROVED, WAIT, DECAY, WAIT, STOP]
    assert state.factor == 0.5
    assert state.stopped


def test_a_decay_that_helped_earns_new_decays():
    machine = Stopping(patience=1, max_decays=1, decay_factor=0.5)
    state, actions = run(machine, [3.0, 3.0, 2.0, 2.0, 2.0])
    assert actions == [IMPROVED, DECAY, IMPROVED, DECAY, STOP]
    assert state.factor == 0.25


def test_without_patience_only_the_best_is_kept():
    state, actions = run(Stopping(), [3.0] + [5.0] * 50)
    assert set(actions[1:]) == {WAIT}
    assert state.best == 3.0


def test_no_decays_means_stop_at_the_first_plateau():
    assert run(Stopping(patience=2, max_decays=0), [1.0, 1.0, 1.0])[1] == [IMPROVED, WAIT, STOP]


def test_a_streak_of_gains_raises_the_rate_until_the_first_decay():
    machine = Stopping(patience=1, raise_after=2, raise_factor=2.0, decay_factor=0.5)
    state, actions = run(machine, [9.0, 8.0, 7.0, 6.0, 6.0, 5.0, 4.0, 3.0])
    assert actions == [IMPROVED, RAISE, IMPROVED, RAISE, DECAY, IMPROVED, IMPROVED, IMPROVED]
    assert state.factor == 2.0


def test_a_gain_below_min_delta_is_none():
    assert run(Stopping(patience=5, min_delta=0.5), [1.0, 0.6, 0.4])[1] == [IMPROVED, WAIT, IMPROVED]


def test_what_is_not_finite_is_no_gain():
    assert run(Stopping(patience=5), [math.nan, 1.0, math.nan, math.inf])[1] == [WAIT, IMPROVED, WAIT, WAIT]


def test_a_stopped_run_can_be_reopened():
    state = PlateauState(stopped=True, waited=4, decays=2, factor=0.1, best=1.0).reopened()
    assert state == PlateauState(factor=0.1, best=1.0)


@given(st.lists(st.floats(allow_nan=True), max_size=40), st.integers(0, 39))
def test_a_saved_state_goes_on_as_the_one_in_memory(values, cut):
    machine = Stopping(patience=2, max_decays=2, raise_after=2)
    state, actions = run(machine, values)
    middle, before = run(machine, values[:cut])
    middle = PlateauState(**json.loads(json.dumps(asdict(middle))))
    for value in values[cut:]:
        middle, action = machine.observe(middle, value)
        before.append(action)
    assert (middle, before) == (state, actions)


@pytest.mark.parametrize(
    "setting",
    [{"patience": 0}, {"decay_factor": 1.0}, {"max_decays": -1}, {"raise_factor": 0.5}, {"min_delta": -1}],
)
def test_a_setting_out_of_range_gets_a_sentence(setting):
    with pytest.raises(UserError, match=next(iter(setting))):
        replace(Stopping(), **setting)


@pytest.mark.parametrize(
    ("monitor", "mode", "factor"),
    [
        ("val/loss", "auto", 1.0),
        ("val/rmse", "auto", 1.0),
        ("val/accuracy", "auto", -1.0),
        ("val/loss", "max", -1.0),
        ("val/score", "min", 1.0),
    ],
)
def test_the_sense_of_a_metric(monitor, mode, factor):
    assert sign(monitor, mode) == factor


def test_an_unknown_mode_gets_a_sentence():
    with pytest.raises(UserError, match="mode must be auto, min or max"):
        sign("val/loss", "least")
