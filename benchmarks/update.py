"""What one update of all weights costs: against torch.optim, against the limit of memory, and at first use.

Both sides move their own copy of the same weights in one process, in blocks of steps that alternate; what
counts is the median of the ratios of neighbouring blocks. Blocks of 1 show an update whose code and data have
left the caches, longer ones an update that follows its like. Beside each stands its share of a whole training
step, forward and backward by torch on as many threads.

torch    every rule that torch has, against the fastest of torch's variants of it, and the fused one
limit    every elementwise rule at 25M, against a kernel that moves the same bytes and computes nothing
bound    the same kernel for 162 tensors against torch's fused kernels: what is left to win there
phase    clipping by the global norm, AdamW and an average of the weights, against torch's three
moments  AdamW with its moments in 16 and 8 bits against torch's fused AdamW in 32
first    the first use of a kernel, compiled and from the cache, apart from importing Numba and from making
         the optimizer, for which torch imports its compiler

python benchmarks/update.py [question ...] [--case WORD] [--scale 1.0]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from functools import cache, partial
from typing import Any

import torch
from cases import CASES, Case, warm
from idle import idle
from paired import Step, compare, fastest
from record import write

import steepest.torch
from steepest import rules
from steepest.optim.clipping import ClipNorm
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.rule import Rule

FUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("SGD", "sgd", {}),
    ("SGD", "momentum", {"momentum": 0.9}),
    ("Adagrad", "adagrad", {}),
    ("AdamW", "adamw", {}),
]
"""torch's class, our name of the rule, and its options."""

TORCH: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("Adagrad", {}),
    ("Adadelta", {}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9}),
    ("RMSprop", {"centered": True}),
    ("RMSprop", {"momentum": 0.9, "centered": True}),
    ("Adam", {}),
    ("Adam", {"amsgrad": True}),
    ("AdamW", {}),
    ("AdamW", {"amsgrad": True}),
    ("Adamax", {}),
    ("NAdam", {}),
    ("NAdam", {"decoupled_weight_decay": True, "weight_decay": 0.01}),
    ("RAdam", {}),
    ("RAdam", {"decoupled_weight_decay": True, "weight_decay": 0.01}),
    ("Rprop", {}),
    ("ASGD", {}),
]
VARIANTS = {"fused": {"fused": True}, "foreach": {"foreach": True}, "loop": {"foreach": False}}
FIRST_USE = """
import time, numba, torch, steepest.torch as st
weight = torch.nn.Parameter(torch.zeros(10))
weight.grad = torch.ones(10)
optimizer = st.AdamW([weight])
began = time.perf_counter()
optimizer.step()
print(time.perf_counter() - began)
"""


@cache
def training_us(name: str) -> float:
    """µs of a pass forward and backward of the case."""
    return 1e6 * CASES[name].training()


def measure(question: str, case: str, ours: Step, theirs: Step, scale: float, **told: Any) -> None:
    """Time both in turn, in blocks of every length of the case, and write it down."""
    for block in CASES[case].blocks:
        pairs = max(round(CASES[case].pairs * scale), 3)
        found = compare(ours, theirs, block, pairs)
        around = training_us(case)
        share = found["ours_us"] / (found["ours_us"] + around)
        told |= {"block": block, "n": pairs, "threads": torch.get_num_threads()}
        write("update", question=question, case=case, **told, **found, training_us=around, share=share)


def theirs_of(name: str, case: Case, options: dict[str, Any]) -> dict[str, Step]:
    """The fastest of torch's variants of an optimizer by its name, and the fused one where there is one."""
    made: dict[str, Step] = {}
    for variant, flags in VARIANTS.items():
        try:
            made[variant] = warm(getattr(torch.optim, name)(case.weights(), **options, **flags).step)
        except (TypeError, RuntimeError):  # there is no such variant
            continue
    best = fastest(made, max(case.pairs // 3, 5))
    return {name: made[name] for name in dict.fromkeys([best, "fused"]) if name in made}


def against_torch(case: str, scale: float) -> None:
    """Every rule that torch has."""
    for name, options in TORCH:
        ours = warm(getattr(steepest.torch, name)(CASES[case].weights(), **options).step)
        rule = ", ".join([name, *(f"{key}={value}" for key, value in options.items())])
        variants = theirs_of(name, CASES[case], options)
        for number, (variant, theirs) in enumerate(variants.items()):
            told = {"rule": rule, "against": variant, "fastest": number == 0}
            measure("torch", case, ours, theirs, scale, **told)


def step_of(rule: Rule, case: Case) -> Step:
    """The step of a rule, with arrays in the place of what it reads besides gradients."""
    weights = case.weights()
    reads = {name: [torch.ones_like(w, requires_grad=False) for w in weights] for name in rule.extra_inputs}
    step = RuleOptimizer(weights, rule).step
    given = {"gradients": [w.grad for w in weights], "reads": reads} if reads else {}
    return warm(partial(step, **given))


def against_the_limit(case: str, scale: float) -> None:
    """Every elementwise rule, where memory is all that counts."""
    for name, kind in rules.registry().items():
        if case == "1 tensor, 25M" and not kind.whole and not kind.sums:
            rule = rules.named(name)
            ours, bare = step_of(rule, CASES[case]), step_of(idle(rule), CASES[case])
            measure("limit", case, ours, bare, scale, rule=name, against="idle")


def limit_against_torch(case: str, scale: float) -> None:
    """How near to torch's fused kernels nothing but moving the bytes comes, where many tensors are small."""
    for name, rule, options in FUSED if case == "162 tensors, 2M" else ():
        bare = step_of(idle(rules.named(rule)), CASES[case])
        fused = warm(getattr(torch.optim, name)(CASES[case].weights(), fused=True, **options).step)
        measure("bound", case, bare, fused, scale, rule=rule, against="fused")


def whole_phase(case: str, scale: float) -> None:
    """Clipping by the global norm, AdamW, and an average of the weights."""
    own, weights, clip = CASES[case].weights(), CASES[case].weights(), ClipNorm(1.0)
    optimizer = RuleOptimizer(own, rules.AdamW(), average=0.999)
    fused = torch.optim.AdamW(weights, fused=True)
    averages = [weight.detach().clone() for weight in weights]

    def ours() -> None:
        optimizer.step(scale=clip.scale(optimizer.gradient_norm()))

    def theirs() -> None:
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        fused.step()
        torch._foreach_lerp_(averages, [weight.detach() for weight in weights], 0.001)

    measure("phase", case, warm(ours), warm(theirs), scale, rule="clip, AdamW, average", against="fused")


def low_moments(case: str, scale: float) -> None:
    """AdamW with moments of few bits."""
    fused = warm(torch.optim.AdamW(CASES[case].weights(), fused=True).step)
    for moments in ("bfloat16", "8bit"):
        optimizer = RuleOptimizer(CASES[case].weights(), rules.AdamW(), state_dtype=moments)
        ours = warm(optimizer.step)
        kept = sum(x.nbytes for entry in optimizer.state.values() for x in entry.values() if x.dim())
        full = 2 * sum(w.nbytes for w in optimizer.param_groups[0]["params"])
        told = {"rule": f"AdamW, moments {moments}", "against": "fused", "state": kept / full}
        measure("moments", case, ours, fused, scale, **told)


def first_use(times: int) -> None:
    """Seconds until the first step is done, with an empty cache folder and with a filled one."""
    empty, filled = [], []
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            for found in (empty, filled):
                environment = {**os.environ, "STEEPEST_CACHE": folder}
                command = [sys.executable, "-c", FIRST_USE]
                done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                found.append(float(done.stdout))
    write("update", question="first", case="compiled", n=times, seconds=statistics.median(empty))
    write("update", question="first", case="from the cache", n=times, seconds=statistics.median(filled))


QUESTIONS = {
    "torch": against_torch,
    "limit": against_the_limit,
    "bound": limit_against_torch,
    "phase": whole_phase,
    "moments": low_moments,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("questions", nargs="*", help=f"of {', '.join([*QUESTIONS, 'first'])}; all by default")
    parser.add_argument("--case", default="", help="only cases with this in their name")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of pairs")
    chosen = parser.parse_args()
    for question, answer in QUESTIONS.items():
        for name in CASES:
            if question in (chosen.questions or QUESTIONS) and chosen.case in name:
                answer(name, chosen.scale)
    if "first" in (chosen.questions or ["first"]):
        first_use(max(round(5 * chosen.scale), 1))
