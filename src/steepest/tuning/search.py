"""`choose`: all that a recipe leaves open, measured on the run's own model and data, within its budget.

With a budget in steps nothing here depends on the clock: costs are counted in gradient evaluations. What is
measured lies in <run>/search/ before it is used, so that a search that was killed goes on to the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from safetensors.torch import load, save

from steepest.evidence import Evidence
from steepest.files import Folder, write_atomic
from steepest.train import budget, memory
from steepest.train.growth import power_of
from steepest.train.job import Job
from steepest.train.resolved import Resolved
from steepest.train.settled import rule_of
from steepest.train.state import NetworkState
from steepest.tuning import constants, timing
from steepest.tuning.batch_size import choose_batch
from steepest.tuning.candidates import Candidate, default, families, initial, leader, lowest, number
from steepest.tuning.halving import Halving, lower, winner
from steepest.tuning.journal import Journal, Search, Tell, plain, read, unmeasured
from steepest.tuning.plan import Plan, plan, sprint
from steepest.tuning.preflight import preflight_check, readable_again
from steepest.tuning.range_test import range_test
from steepest.tuning.resolve import clip, finished, settled
from steepest.tuning.timing import threads
from steepest.tuning.trial import evaluations, held_out, least, renewal, too_few

PLACE = "search"
"""Folder of a search in that of its run."""

COMPARED_SETTINGS = {"rule", "lr"}
"""Settings that candidates are compared for."""

WATCHED = {"clip_norm", "stop"}
"""Settings that a few updates of the default tell."""

LEAST = 1 + math.ceil(constants.FEWEST_STEPS * (1 + constants.FORWARD))
"""Updates of the shortest search: a look at the start and one range test."""

_NO_ROOM = "memory ran out beside the copies of the network that a search needs"


def choose(
    job: Job,
    folder: Folder,
    tell: Tell,
    most: float = constants.LARGEST_SHARE,
    asked: Callable[[], object] = lambda: None,
    trains: bool = True,
) -> Resolved:
    """Measure what the recipe of a job leaves open; each decision is told when it is made.

    most   the share of the budget that the search may take
    trains whether the run follows, whose own evaluations come out of that share too
    asked  called at every update; may raise to stop, and the search goes on another time"""
    search = Search(job, Journal(folder.path / PLACE), tell, asked, most, trains)
    _same_start(search)
    try:
        _machine(search)
        return _descent(search)
    except (RuntimeError, MemoryError) as error:
        if not memory.ran_out(error):
            raise
    return finished(search, _untried(search, _NO_ROOM), search.updates(), None)


def _same_start(search: Search) -> None:
    """The weights that the search began with: a network that is handed over again may have others."""
    path = search.journal.place / "start.safetensors"
    if path.exists():
        NetworkState(search.job.model).load_state_dict(read(path, load))
    else:
        write_atomic(path, save(NetworkState(search.job.model).state_dict()))


def _machine(search: Search) -> None:
    """Threads and batches, which all that follows depends on."""
    seconds = search.allowed.seconds
    if "num_threads" in search.open and seconds is None:
        usual = search.job.recipe.num_threads
        search.tell(
            unmeasured("num_threads", usual, "with a budget in steps nothing may depend on the clock")
        )
    elif "num_threads" in search.open and seconds is not None:
        found = search.journal.once("threads", lambda: threads(search.job, seconds).to_json())
        evidence = Evidence.from_json(found)
        search.tell(evidence)
        torch.set_num_threads(evidence.decided)
        search.job = search.job.having({"num_threads": evidence.decided})
    if "batch_size" in search.open:
        _batch(search)


def _batch(search: Search) -> None:
    updates, before = search.updates(), search.job.recipe.batch_size
    why = _too_short(search, updates, constants.SMALL)
    if why or updates is None:
        search.tell(unmeasured("batch_size", before, why))
        return
    seconds, part = search.allowed.seconds, search.most / constants.LARGEST_SHARE
    found = search.journal.once("batch", lambda: choose_batch(search.job, updates, seconds, part).to_json())
    evidence = Evidence.from_json(found)
    search.tell(evidence)
    search.job = search.job.having({"batch_size": evidence.decided})
    if isinstance(before, int):  # spent at one batch, counted in the other's
        search.charge(evidence.gradients * before / evidence.decided)


def _descent(search: Search) -> Resolved:
    """Rule, rate, schedule and what follows from them."""
    updates = search.updates()
    needed = bool(search.open & (COMPARED_SETTINGS | WATCHED))
    why = _too_short(search, updates) or (readable_again(search.job) if needed else "")
    if why or not needed or updates is None:
        return finished(search, _untried(search, why), updates, None)
    beside = search.gradients
    search.told(_looked(search, updates))
    first = _families(search)
    if search.trains:
        beside += evaluations(search.job, round((1 - constants.LARGEST_SHARE) * updates))
        beside += constants.SPARED * updates if "lr" in search.open else 0.0
    drawn = _drawn(search, updates, first, beside)
    if updates < constants.SMALL and not drawn.rungs:
        return finished(search, _untried(search, _few(search, updates)), updates, None)
    if drawn.rungs and search.open & COMPARED_SETTINGS and (why := _by_heart(search, drawn)):
        return finished(search, _untried(search, why), updates, None)
    if not drawn.rungs or not search.open & COMPARED_SETTINGS:
        return _without_halving(search, drawn)
    if drawn.rules < len(first):
        control = _unmeasured(search)
        return _compared(
            search, drawn, [candidate for candidate in first if candidate.rule == control.rule], control
        )
    return _compared(search, drawn, first, leader(first) if "lr" in search.open else first[0])


def _families(search: Search) -> list[Candidate]:
    given = number(search.job.asked.weight_decay)
    return families(default(search.job.recipe), "rule" in search.open, search.job.model, given)


def _unmeasured(search: Search) -> Candidate:
    """The candidate that stands where rule and rate are open and rules are not compared: the one that
    leads; in seconds,
    of which its updates may take more than the default's, and nobody knows how many, the default."""
    known = search.allowed.seconds is None and search.open >= COMPARED_SETTINGS
    return leader(_families(search)) if known else default(search.job.recipe)


def _drawn(search: Search, updates: int, first: list[Candidate], beside: float) -> Plan:
    """Successive halving that the budget holds: of rules and rates; where it is small, of rates alone."""
    cost, range_tests = (least(search.job), renewal(search.job)), _range_tests(search, first)
    most = constants.CANDIDATES[1] if leader(first) is first[0] else constants.LED
    drawn = plan(updates, search.most, range_tests, beside, *cost, rules=len(first), candidates=most)
    none = replace(drawn, candidates=0, rungs=())
    if "lr" not in search.open:
        return none if updates < constants.SMALL else drawn
    if updates >= constants.SMALL and drawn.rungs:
        return drawn
    led = _unmeasured(search).rule != first[0].rule
    small = sprint(
        updates,
        search.most,
        beside,
        *cost,
        candidates=constants.CANDIDATES[0] if led else constants.CANDIDATES[1],
    )
    return small if small.rungs else none


def _by_heart(search: Search, drawn: Plan) -> str:
    """Why successive halving would tell no more than which candidate learns its examples by heart first."""
    why, per_epoch = too_few(search.job), search.job.source.per_epoch
    if not why or per_epoch is None or drawn.rungs[-1] <= per_epoch:
        return ""
    return f"{why}, and training batches, which could stand in, come again within {drawn.rungs[-1]} updates"


def _range_tests(search: Search, first: list[Candidate]) -> int:
    return len({rule_tested(candidate) for candidate in first}) if "lr" in search.open else 0


def _looked(search: Search, updates: int) -> Evidence:
    found = Evidence.from_json(
        search.journal.once("sanity", lambda: preflight_check(search.job, updates).to_json())
    )
    search.charge(found.gradients)
    return found


def _untried(search: Search, why: str) -> Candidate:
    """The default, said to be one where something else was asked for."""
    known = why and search.updates() is not None
    candidate = _unmeasured(search) if known else default(search.job.recipe)
    for setting in sorted(search.open & (COMPARED_SETTINGS | WATCHED)) if why else ():
        stays = getattr(candidate if setting in COMPARED_SETTINGS else search.job.recipe, setting)
        search.tell(unmeasured(setting, stays, why))
    return candidate


def _without_halving(search: Search, drawn: Plan) -> Resolved:
    """A short budget bounds the default rate by the edge; rule and rate that are given are watched."""
    candidate = _unmeasured(search)
    if search.open & COMPARED_SETTINGS:
        candidate = _bounded(search, drawn, candidate)
    fewest, most = constants.CLIP_STEPS
    part = search.most / constants.LARGEST_SHARE
    watched = min(max(round(part * constants.CLIP_SHARE * drawn.updates), fewest), most)
    if not search.open & WATCHED:
        return finished(search, candidate, drawn.updates, None)
    halving, before = _halving(search, drawn, [candidate], drawn.scores), search.gradients
    halving.run(0, watched // 2)
    halving.run(0, watched)
    spent, why = search.gradients - before, f"updates of {candidate.name}, with which the run begins"
    search.told(Evidence("watched", watched, why, gradients=math.ceil(spent), reused=watched))
    return finished(search, candidate, drawn.updates, halving)


def _bounded(search: Search, drawn: Plan, candidate: Candidate) -> Candidate:
    lr = candidate.lr
    if "lr" in search.open:
        lr = min(lr, _range_test(search, candidate, drawn.range_test) / constants.CAUTIOUS)
    few = f"{_few(search, drawn.updates)}: "
    if "rule" in search.open:
        search.tell(unmeasured("rule", candidate.rule, few + "the default"))
    if "lr" in search.open:
        why = f"{few}the default, at most the edge of divergence over {constants.CAUTIOUS:g}"
        search.tell(Evidence("lr", lr, why))
    return candidate.at(lr)


def _compared(search: Search, drawn: Plan, first: list[Candidate], control: Candidate) -> Resolved:
    candidates = _initial(search, drawn, first, control)
    halving = _halving(search, drawn, candidates, drawn.scores, _slowness(search, first))
    if halving.held.why:
        search.told(Evidence("held_out", "training batches", halving.held.why))
    if (
        "clip_norm" in search.open
    ):  # the default candidate goes first, the others are clipped from their start
        halving.run(0, halving.fewer(0, drawn.rungs[0]))
        search.job = search.job.having({"clip_norm": clip(search, halving)})
        halving.under(search.job)
    ranked = halving.decide(search.told)
    if not ranked[0].loss < halving.start():
        return _hopeless(search, halving)
    index = winner(halving.candidates, ranked, 0, halving.start())
    if len(halving.losses) == 1:  # of a small budget, or of one whose clock cut it short
        index = lower(halving.candidates, ranked, index)
    candidate = settled(search, halving, ranked, index)
    return finished(search, candidate, halving.fewer(index, drawn.updates), halving, index)


def _initial(search: Search, drawn: Plan, first: list[Candidate], control: Candidate) -> list[Candidate]:
    """Those to begin with: rates of these families, moved by their edges where the plan holds range tests."""
    if "lr" not in search.open:
        return initial(control, first, False, drawn.candidates)
    tested = _tested(first) if drawn.range_test else {}
    edges = {rule: _range_test(search, candidate, drawn.range_test) for rule, candidate in tested.items()}
    begin = [_lowest(search, candidate, edges.get(rule_tested(candidate))) for candidate in first]
    return initial(control, begin, True, _beginning(drawn, control))


def _beginning(drawn: Plan, control: Candidate) -> int:
    """Candidates to begin with; a rule that leads has hardly anything to climb to beyond its own."""
    fewest = constants.LED - constants.CLIMBS if control.rule in constants.LEADS else constants.CANDIDATES[0]
    return max(drawn.candidates - constants.CLIMBS, min(fewest, drawn.candidates))


def _lowest(search: Search, candidate: Candidate, edge: float | None) -> Candidate:
    job = search.job.having(candidate.settings())
    return candidate.at(lowest(candidate, edge, power_of(rule_of(job.recipe, job.given))))


def _slowness(search: Search, first: list[Candidate]) -> dict[str, float]:
    """How long updates of other rules take, where the budget is in seconds."""
    if search.allowed.seconds is None or len(first) == 1:
        return {}
    evidence = Evidence.from_json(
        search.journal.once("slowness", lambda: timing.slowness(search.job, first).to_json())
    )
    search.told(replace(evidence, seconds=search.journal.took["slowness"]))
    search.charge(evidence.gradients)
    return evidence.decided


def _tested(first: list[Candidate]) -> dict[str, Candidate]:
    """The candidates whose edge is looked for, by rule."""
    return {rule_tested(candidate): candidate for candidate in reversed(first)}


def rule_tested(candidate: Candidate) -> str:
    """The rule whose edge bounds a candidate: steps of "muonmatched" are as long as AdamW's, by its
    making."""
    return "adamw" if candidate.rule == "muonmatched" else candidate.rule


def _halving(
    search: Search,
    drawn: Plan,
    candidates: list[Candidate],
    scores: float,
    slow: Mapping[str, float] | None = None,
) -> Halving:
    warmup = None
    if "schedule" in search.open:
        asked = budget.parse(search.job.recipe.warmup).steps(search.job.source.per_epoch)
        warmup = asked or drawn.warmup
    held = held_out(search.job, scores, drawn.times)
    climbs = "lr" in search.open
    calls = search.asked, search.late, search.charge
    return Halving(search.job, search.journal, drawn, held, candidates, climbs, warmup, *calls, slow or {})


def _range_test(search: Search, candidate: Candidate, steps: int) -> float:
    rule = candidate.rule.removeprefix("object ")
    found = search.journal.once(
        f"edge-{rule}", lambda: range_test(search.job, candidate, steps, search.asked)
    )
    search.charge(found["gradients"])
    line = {"name": rule, "x": found["rates"], "y": [plain(x) for x in found["losses"]]}
    curve = {"kind": "range", "lines": [line], "marks": [{"name": "edge", "x": found["rate"]}]}
    evidence = Evidence(
        f"edge of {rule}",
        found["rate"],
        found["why"],
        seconds=search.journal.took[f"edge-{rule}"],
        gradients=found["gradients"],
        picture=curve,
    )
    search.told(evidence)
    return found["rate"]


def _hopeless(search: Search, halving: Halving) -> Resolved:
    control, long = default(search.job.recipe), halving.long(halving.plan.rungs[-1])
    why = f"no arm got below the loss it began with in {long}, so that {control.name} stays"
    for setting in sorted(search.open & (COMPARED_SETTINGS | WATCHED) - search.settings.keys()):
        stays = getattr(control if setting in COMPARED_SETTINGS else search.job.recipe, setting)
        search.tell(unmeasured(setting, stays, why))
    return finished(search, control, halving.plan.updates, None)


def _few(search: Search, updates: int) -> str:
    return f"{100 * search.most:.3g} % of {updates} updates are too few for a race"


def _too_short(search: Search, updates: int | None, fewest: int = constants.SHORT) -> str:
    if (seconds := search.allowed.seconds) is not None and seconds < constants.INSTANT:
        return f"a budget of {seconds:g} seconds is too short to measure anything ({constants.INSTANT:g})"
    if updates is None:
        return "the length of an epoch is not known before it has been read"
    if updates < fewest:
        return f"a budget of {updates} updates is too small to measure it ({fewest})"
    if updates >= constants.SMALL and search.most * updates < LEAST:
        return f"a search of {search.most * updates:.0f} updates is too short to measure anything ({LEAST})"
    return ""
