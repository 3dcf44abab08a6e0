"""A rule is arithmetic on letters: what its source may hold, so that every engine can run it."""

import ast
import inspect
import math
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import torch

from each import each
from steepest import rules
from steepest.optim.engines.kernels.source import source, source_of_sums
from steepest.optim.engines.precision.formats import FULL
from steepest.optim.engines.precision.memory import Layout
from steepest.optim.maths import HOST, VOCABULARY, WHOLE_VOCABULARY
from steepest.optim.rule import Rule

EVERY = list(rules.registry().values())


def over(chosen: list[type[Rule]]) -> Any:
    return each("rule", chosen, ids=lambda rule: rule.__name__)


RULES = over(EVERY)
ELEMENTWISE = over([rule for rule in EVERY if not rule.whole])
SUMMING = over([rule for rule in EVERY if rule.sums])
ARITHMETIC = (
    ast.Assign,
    ast.Attribute,
    ast.BinOp,
    ast.Call,
    ast.Compare,
    ast.Constant,
    ast.Name,
    ast.Return,
    ast.Tuple,
    ast.UnaryOp,
    ast.expr_context,
    ast.operator,
    ast.cmpop,
    ast.unaryop,
)
"""Of a rule that sees one element at a time: no choice, no loop, no keyword."""


def body_of(function: Callable[..., Any]) -> list[ast.AST]:
    """Every node of a function's body, its docstring left out."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(definition, ast.FunctionDef)
    begin = 1 if ast.get_docstring(definition) else 0
    return [node for statement in definition.body[begin:] for node in ast.walk(statement)]


def own(rule: type[Rule]) -> list[Callable[..., Any]]:
    """The functions that run once a weight or an element."""
    names = ["couple", "direction", "follow", *(["measure"] if rule.sums else [])]
    names += ["evaluate"] if rule.evaluates() else []
    return [getattr(rule, name) for name in names]


def named(rule: type[Rule], function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """The functions of ours that a function names: plain ones, and methods of the rule."""
    known = inspect.getclosurevars(function).globals
    for node in body_of(function):
        if isinstance(node, ast.Name):
            one = known.get(node.id)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self":
            one = getattr(rule, node.attr, None)
        else:
            continue
        if inspect.isfunction(one) and one.__module__.startswith("steepest."):
            yield one


def reached(rule: type[Rule]) -> dict[Callable[..., Any], list[ast.AST]]:
    """All functions that a rule runs, with the nodes of each."""
    waiting, found = own(rule), {}
    while waiting:
        function = waiting.pop()
        if function not in found:
            found[function] = body_of(function)
            waiting += named(rule, function)
    return found


def nodes(rule: type[Rule]) -> list[ast.AST]:
    return [node for body in reached(rule).values() for node in body]


def reads(rule: type[Rule]) -> set[str]:
    """The attributes of k that a rule's functions name."""
    attributes = [node for node in nodes(rule) if isinstance(node, ast.Attribute)]
    return {node.attr for node in attributes if ast.unparse(node.value) == "k"}


def constants(rule: type[Rule]) -> tuple[str, ...]:
    """What k holds when weights move."""
    return rule().constants(HOST, 1, rule.shared, 1, [1.0] * len(rule.sums))[0]._fields


@ELEMENTWISE
def test_a_body_is_assignments_and_arithmetic(rule: type[Rule]) -> None:
    strange = [ast.unparse(node) for node in nodes(rule) if not isinstance(node, ARITHMETIC)]
    assert not strange


@RULES
def test_a_body_calls_the_vocabulary_alone(rule: type[Rule]) -> None:
    more = (*WHOLE_VOCABULARY, "zeros_like", "ones_like", "full_like") if rule.whole else ()
    words = {f"xp.{word}" for word in (*VOCABULARY, *more)}
    for node in nodes(rule):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "xp":
            assert ast.unparse(node) in words


@ELEMENTWISE
def test_a_body_calls_plain_functions_of_ours_beside(rule: type[Rule]) -> None:
    for function, body in reached(rule).items():
        known = inspect.getclosurevars(function).globals
        calls = [node.func for node in body if isinstance(node, ast.Call)]
        plain = [known[func.id] for func in calls if isinstance(func, ast.Name)]
        assert all(inspect.isfunction(one) and one.__module__.startswith("steepest.") for one in plain)
        assert all(ast.unparse(func).startswith("xp.") for func in calls if not isinstance(func, ast.Name))


@RULES
def test_a_body_reads_only_what_k_holds(rule: type[Rule]) -> None:
    assert reads(rule) <= set(constants(rule))


@SUMMING
def test_a_measure_reads_nothing_that_is_made_of_its_sums(rule: type[Rule]) -> None:
    before = rule().constants(HOST, 1, rule.shared)[0]._fields
    functions = [rule.couple, rule.measure, *named(rule, rule.measure)]
    attributes = [node for one in functions for node in body_of(one) if isinstance(node, ast.Attribute)]
    assert {node.attr for node in attributes if ast.unparse(node.value) == "k"} <= set(before)


@RULES
def test_a_body_makes_no_constant_of_hyperparameters(rule: type[Rule]) -> None:
    """1 - k.beta2 in float32 is off by 2e-5 of its value: constants are made in `scalars`, in float64."""
    for node in (node for node in nodes(rule) if isinstance(node, ast.BinOp)):
        letters = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
        assert letters != {"k"}, f"{ast.unparse(node)} is the same for every weight"


@RULES
def test_every_scalar_is_used(rule: type[Rule]) -> None:
    made = set(constants(rule)) - set(rule.numbers()) - set(rule.shared)
    assert made <= reads(rule)


@RULES
def test_slots_are_the_arguments_after_what_is_read(rule: type[Rule]) -> None:
    """A star takes as many as there are."""
    for function in (rule.direction, *([rule.measure] if rule.sums else [])):
        parameters = inspect.signature(function).parameters.values()
        names = [one.name for one in parameters if one.kind is not one.VAR_POSITIONAL and one.name != "self"]
        expected = ["xp", "k", "w", "g", *rule.extra_inputs, *rule.slots]
        starred = any(one.kind is one.VAR_POSITIONAL for one in parameters)
        assert names == (expected[: len(names)] if starred else expected)


@RULES
def test_a_rule_explains_itself(rule: type[Rule]) -> None:
    text = inspect.getdoc(rule) or ""
    assert "w ← " in text, "the formula"
    assert "lr: " in text or "lr is" in text, "the unit of lr"
    assert "State: " in text, "the cost"
    assert any(f"{year}" in text for year in range(1950, 2027)), "the source"


@ELEMENTWISE
@each("dtype", [torch.float32, torch.float64], ids=str)
def test_a_rule_of_single_elements_becomes_a_kernel(rule: type[Rule], dtype: torch.dtype) -> None:
    plain = Layout(FULL, (FULL,) * len(rule.slots))
    assert "def kernel" in source(rule(), dtype, plain)
    if rule.sums:
        assert "def kernel" in source_of_sums(rule(), dtype, plain)


@each("name", VOCABULARY)
def test_the_host_knows_every_word(name: str) -> None:
    assert callable(getattr(HOST, name))


@each("name", ["abs", "exp", "expm1", "sign", "sqrt"])
def test_the_host_keeps_nan_in_sight(name: str) -> None:
    assert math.isnan(getattr(HOST, name)(math.nan))


@each("name", ["maximum", "minimum"])
def test_the_host_keeps_nan_in_sight_on_either_side(name: str) -> None:
    assert math.isnan(getattr(HOST, name)(math.nan, 1.0))
    assert math.isnan(getattr(HOST, name)(1.0, math.nan))
