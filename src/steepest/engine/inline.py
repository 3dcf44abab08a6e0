"""Inlining: the body of a rule's functions as straight lines of arithmetic on named numbers."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from types import CodeType, FunctionType
from typing import Any, cast

XP, K = object(), object()
OPERATORS = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**", ast.BitAnd: "&", ast.BitOr: "|",
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.USub: "-", ast.UAdd: "+",
}  # fmt: skip
FUNCTIONS = {
    "abs": "abs({0})",
    "exp": "math.exp({0})",
    "expm1": "math.expm1({0})",
    "log": "math.log({0})",
    "sqrt": "math.sqrt({0})",
    "maximum": "({0} if ({0} > {1}) | ({0} != {0}) else {1})",
    "minimum": "({0} if ({0} < {1}) | ({0} != {0}) else {1})",
    "sign": "(T(1.0) if {0} > T(0.0) else (T(-1.0) if {0} < T(0.0) else {0}))",
    "where": "({1} if {0} else {2})",
}
"""The closed vocabulary on numbers of dtype T; NaN goes through each of them. Operands are names."""


class NotInlinable(Exception):
    """A rule's body holds something beyond the closed vocabulary; the plain engine runs it."""


class Body:
    """Lines of the loop so far. A value is the text of an expression, a list of them, or XP or K."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.constants: set[str] = set()

    def bind(self, text: str) -> str:
        """A new name for a value, so that it is computed once."""
        if text.isidentifier():
            return text
        name = f"x{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        return name

    def call(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        """Inline a function of these values; what it returns."""
        tree = _definition(function)
        parameters = [argument.arg for argument in tree.args.args]
        names: dict[str, Any] = dict(zip(parameters, arguments[: len(parameters)], strict=True))
        if tree.args.vararg or tree.args.kwonlyargs or len(arguments) != len(parameters):
            raise NotInlinable(f"{tree.name} takes other arguments than it is given")
        for statement in tree.body:
            if isinstance(statement, ast.Return) and statement.value is not None:
                return self.value(statement.value, names, function)
            self._statement(statement, names, function)
        raise NotInlinable(f"{tree.name} returns nothing")

    def _statement(self, node: ast.stmt, names: dict[str, Any], function: Any) -> None:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            raise NotInlinable(f"{ast.unparse(node)!r} is no assignment")
        target, value = node.targets[0], self.value(node.value, names, function)
        if isinstance(target, ast.Name) and isinstance(value, str):
            names[target.id] = self.bind(value)
        elif isinstance(target, ast.Tuple) and isinstance(value, list) and len(value) == len(target.elts):
            names.update(
                {ast.unparse(to): self.bind(one) for to, one in zip(target.elts, value, strict=True)}
            )
        else:
            raise NotInlinable(f"{ast.unparse(node)!r} does not unpack")

    def value(self, node: ast.expr, names: dict[str, Any], function: Any) -> Any:
        """The value of an expression in the scope of a function that is being inlined."""
        rule = getattr(self, f"_{type(node).__name__}", None)
        if rule is None:
            raise NotInlinable(f"{ast.unparse(node)!r} is beyond the vocabulary of rules")
        return rule(node, names, function)

    def number(self, node: ast.expr, names: dict[str, Any], function: Any) -> str:
        """The same where one number is due."""
        value = self.value(node, names, function)
        if not isinstance(value, str):
            raise NotInlinable(f"{ast.unparse(node)!r} is not one number")
        return value

    def _Constant(self, node: ast.Constant, names: dict[str, Any], function: Any) -> str:
        return _literal(node.value)

    def _Name(self, node: ast.Name, names: dict[str, Any], function: Any) -> Any:
        return names[node.id] if node.id in names else _literal(_global(function, node.id))

    def _Tuple(self, node: ast.Tuple, names: dict[str, Any], function: Any) -> list[str]:
        return [self.bind(self.number(element, names, function)) for element in node.elts]

    def _Attribute(self, node: ast.Attribute, names: dict[str, Any], function: Any) -> str:
        if self.value(node.value, names, function) is not K:
            raise NotInlinable(f"{ast.unparse(node)!r} is no constant of the step")
        self.constants.add(node.attr)
        return f"k_{node.attr}"

    def _UnaryOp(self, node: ast.UnaryOp, names: dict[str, Any], function: Any) -> str:
        return f"({_operator(node.op)}{self.number(node.operand, names, function)})"

    def _BinOp(self, node: ast.BinOp, names: dict[str, Any], function: Any) -> str:
        left = self.number(node.left, names, function)
        if isinstance(node.op, ast.Pow) and isinstance(node.right, ast.Constant):
            return f"({left} ** {node.right.value!r})"
        return f"({left} {_operator(node.op)} {self.number(node.right, names, function)})"

    def _Compare(self, node: ast.Compare, names: dict[str, Any], function: Any) -> str:
        if len(node.ops) > 1:
            raise NotInlinable(f"{ast.unparse(node)!r} compares more than two")
        left, right = (self.number(side, names, function) for side in (node.left, node.comparators[0]))
        return f"({left} {_operator(node.ops[0])} {right})"

    def _Call(self, node: ast.Call, names: dict[str, Any], function: Any) -> Any:
        if node.keywords:
            raise NotInlinable(f"{ast.unparse(node)!r} has keywords")
        values = [self.value(argument, names, function) for argument in node.args]
        arguments = [self.bind(value) if isinstance(value, str) else value for value in values]
        if isinstance(node.func, ast.Attribute) and self.value(node.func.value, names, function) is XP:
            if node.func.attr not in FUNCTIONS:
                raise NotInlinable(f"xp.{node.func.attr} is beyond the vocabulary of rules")
            return FUNCTIONS[node.func.attr].format(*arguments)
        return self.call(_global(function, ast.unparse(node.func)), arguments)


def _definition(function: Any) -> ast.FunctionDef:
    """Syntax tree of a function written in Python."""
    if not isinstance(function, FunctionType):
        raise NotInlinable(f"{function!r} is not a plain function")
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, SyntaxError) as error:
        raise NotInlinable(f"the source of {function.__name__} is not to be had") from error
    if not isinstance(tree, ast.FunctionDef) or not _is_source_of(tree, function):
        raise NotInlinable(f"{function.__name__} is not a def, or its file has changed since it was imported")
    return tree


def _is_source_of(tree: ast.FunctionDef, function: FunctionType) -> bool:
    fields: dict[str, Any] = {**vars(tree), "decorator_list": [], "returns": None}
    bare = ast.Module([cast(ast.stmt, ast.FunctionDef(**fields))], [])
    for argument in tree.args.args:
        argument.annotation = None
    module = compile(ast.fix_missing_locations(bare), "<rule>", "exec")
    found = next(constant for constant in module.co_consts if isinstance(constant, CodeType))
    code = function.__code__
    return (found.co_code, found.co_consts, found.co_names) == (code.co_code, code.co_consts, code.co_names)


def _operator(node: ast.AST) -> str:
    if type(node) not in OPERATORS:
        raise NotInlinable(f"the operator {type(node).__name__} is beyond the vocabulary of rules")
    return OPERATORS[type(node)]


def _literal(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotInlinable(f"{value!r} is not a number")
    return f"T({float(value)!r})"


def _global(function: Any, name: str) -> Any:
    scope = inspect.getclosurevars(function)
    for names in (scope.nonlocals, scope.globals):
        if name in names:
            return names[name]
    raise NotInlinable(f"{name!r} is not known where {function.__name__} is written")
