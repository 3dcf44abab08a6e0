"""A rule is arithmetic on letters: what its source may hold, so that every engine can run it."""

import ast
import inspect
import math
import textwrap

import pytest

from steepest import rules
from steepest.maths import HOST, VOCABULARY
from steepest.rule import Rule

RULES = pytest.mark.parametrize("rule", rules.registry().values(), ids=lambda rule: rule.__name__)
ALLOWED = (
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
FUNCTIONS = {"lerp"}


def body_of(function: object) -> list[ast.AST]:
    """Every node of a function's body, its docstring left out."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(definition, ast.FunctionDef)
    start = 1 if ast.get_docstring(definition) else 0
    return [node for statement in definition.body[start:] for node in ast.walk(statement)]


def bodies(rule: type[Rule]) -> list[ast.AST]:
    return body_of(rule.direction) + body_of(rule.follow)


def known(rule: type[Rule]) -> set[str]:
    """What k holds."""
    made = rule().scalars(HOST, 1, **rule.shared)
    return {*rule.numbers(), *made}


@RULES
def test_a_body_is_assignments_and_arithmetic(rule: type[Rule]) -> None:
    strange = [type(node).__name__ for node in bodies(rule) if not isinstance(node, ALLOWED)]
    assert not strange


@RULES
def test_a_body_calls_the_vocabulary_alone(rule: type[Rule]) -> None:
    for call in (node for node in bodies(rule) if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Attribute):
            assert ast.unparse(call.func) in {f"xp.{name}" for name in VOCABULARY}
        else:
            assert ast.unparse(call.func) in FUNCTIONS


@RULES
def test_a_body_reads_only_what_k_holds(rule: type[Rule]) -> None:
    reads = {ast.unparse(node) for node in bodies(rule) if isinstance(node, ast.Attribute)}
    assert {read for read in reads if not read.startswith("xp.")} <= {f"k.{name}" for name in known(rule)}


@RULES
def test_a_body_makes_no_constant_of_hyperparameters(rule: type[Rule]) -> None:
    """1 - k.beta2 in float32 is off by 2e-5 of its value: constants are made in `scalars`, in float64."""
    for node in (node for node in bodies(rule) if isinstance(node, ast.BinOp)):
        letters = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
        assert letters - {"k"}, f"{ast.unparse(node)} is the same for every weight"


@RULES
def test_every_scalar_is_used(rule: type[Rule]) -> None:
    reads = {node.attr for node in bodies(rule) if isinstance(node, ast.Attribute)}
    made = set(rule().scalars(HOST, 1, **rule.shared)) - set(rule.shared)
    assert made <= reads


@RULES
def test_slots_are_the_arguments_after_the_gradient(rule: type[Rule]) -> None:
    assert tuple(inspect.signature(rule.direction).parameters) == ("xp", "k", "w", "g", *rule.slots)


@RULES
def test_a_rule_explains_itself(rule: type[Rule]) -> None:
    text = inspect.getdoc(rule) or ""
    assert "w ← w - lr·" in text, "the formula"
    assert "lr: " in text, "the unit of lr"
    assert "State: " in text, "the cost"


@pytest.mark.parametrize("name", VOCABULARY)
def test_the_host_knows_every_word(name: str) -> None:
    assert callable(getattr(HOST, name))


@pytest.mark.parametrize("name", ["abs", "exp", "expm1", "sign", "sqrt"])
def test_the_host_keeps_nan_in_sight(name: str) -> None:
    assert math.isnan(getattr(HOST, name)(math.nan))


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_the_host_keeps_nan_in_sight_on_either_side(name: str) -> None:
    assert math.isnan(getattr(HOST, name)(math.nan, 1.0))
    assert math.isnan(getattr(HOST, name)(1.0, math.nan))
