"""Inlining: the body of a rule's functions as straight lines of arithmetic on named numbers."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from types import CodeType, FunctionType, MethodType
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
    """Lines of the loop so far. A value is the text of an expression, a list of them, XP, K or the rule."""

    def __init__(self, rule: Any = None) -> None:
        self.rule = rule
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
        if isinstance(function, MethodType):
            return self.call(function.__func__, [function.__self__, *arguments])
        tree = _definition(function)
        names = _named(tree, arguments)
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
        elif isinstance(target, ast.Tuple) and isinstance(value, list):
            names.update(_unpacked(target, [self.bind(one) for one in value]))
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
        return [
            self.bind(value) for element in node.elts for value in self._several(element, names, function)
        ]

    def _several(self, node: ast.expr, names: dict[str, Any], function: Any) -> list[Any]:
        """The values that an element of a tuple or an argument stands for; a starred one for many."""
        if isinstance(node, ast.Starred):
            return self.value(node.value, names, function)
        return [self.value(node, names, function)]

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
        if isinstance(node.op, ast.Pow):  # the compiler takes the choice, the same for all i, out of the loop
            x, power = self.bind(left), self.number(node.right, names, function)
            root = f"cube_root({x}) if {power} == T({1 / 3!r}) else {x} ** {power}"
            return f"(math.sqrt({x}) if {power} == T(0.5) else ({root}))"
        return f"({left} {_operator(node.op)} {self.number(node.right, names, function)})"

    def _Compare(self, node: ast.Compare, names: dict[str, Any], function: Any) -> str:
        if len(node.ops) > 1:
            raise NotInlinable(f"{ast.unparse(node)!r} compares more than two")
        left, right = (self.number(side, names, function) for side in (node.left, node.comparators[0]))
        return f"({left} {_operator(node.ops[0])} {right})"

    def _Call(self, node: ast.Call, names: dict[str, Any], function: Any) -> Any:
        if node.keywords:
            raise NotInlinable(f"{ast.unparse(node)!r} has keywords")
        values = [value for argument in node.args for value in self._several(argument, names, function)]
        arguments = [self.bind(value) if isinstance(value, str) else value for value in values]
        if not isinstance(node.func, ast.Attribute):
            return self.call(_global(function, ast.unparse(node.func)), arguments)
        owner = self._owner(node.func.value, names, function)
        if owner is not XP:
            return self.call(getattr(owner, node.func.attr), arguments)
        if node.func.attr not in FUNCTIONS:
            raise NotInlinable(f"xp.{node.func.attr} is beyond the vocabulary of rules")
        return FUNCTIONS[node.func.attr].format(*arguments)

    def _owner(self, node: ast.expr, names: dict[str, Any], function: Any) -> Any:
        """XP, the rule, or the class of rules that a name stands for."""
        owner = names.get(node.id) if isinstance(node, ast.Name) else None
        owner = _global(function, ast.unparse(node)) if owner is None else owner
        if owner is XP or owner is self.rule or isinstance(owner, type):
            return owner
        raise NotInlinable(f"{ast.unparse(node)!r} is neither xp nor a rule")


def _named(tree: ast.FunctionDef, arguments: Sequence[Any]) -> dict[str, Any]:
    """The arguments by the names of a function's parameters; what is left over under the starred one."""
    parameters = [argument.arg for argument in tree.args.args]
    rest = list(arguments[len(parameters) :])
    if tree.args.kwonlyargs or len(arguments) < len(parameters) or (rest and not tree.args.vararg):
        raise NotInlinable(f"{tree.name} takes other arguments than it is given")
    starred = {tree.args.vararg.arg: rest} if tree.args.vararg else {}
    return dict(zip(parameters, arguments, strict=False)) | starred


def _unpacked(target: ast.Tuple, values: Sequence[str]) -> dict[str, Any]:
    """The values by the names of a tuple that is assigned to, of which one may be starred."""
    starred = [place for place, element in enumerate(target.elts) if isinstance(element, ast.Starred)]
    spare = len(values) - (len(target.elts) - len(starred))
    if spare < 0 or (spare > 0 and not starred):
        raise NotInlinable(f"{len(values)} values do not unpack to {ast.unparse(target)!r}")
    rest, names = list(values), {}
    for element in target.elts:
        if isinstance(element, ast.Starred):
            names[ast.unparse(element.value)], rest = rest[:spare], rest[spare:]
        else:
            names[ast.unparse(element)] = rest.pop(0)
    return names


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
    for argument in (*tree.args.args, *([tree.args.vararg] if tree.args.vararg else [])):
        argument.annotation = None
    code = function.__code__
    bare = ast.Module([_enclosed(cast(ast.stmt, ast.FunctionDef(**fields)), code.co_freevars)], [])
    found = compile(ast.fix_missing_locations(bare), "<rule>", "exec")
    for _ in range(2 if code.co_freevars else 1):
        found = next(constant for constant in found.co_consts if isinstance(constant, CodeType))
    return (found.co_code, found.co_consts, found.co_names) == (code.co_code, code.co_consts, code.co_names)


def _enclosed(definition: ast.stmt, names: Sequence[str]) -> ast.stmt:
    """A definition within a function that has these names, as it stood where it closed over them."""
    if not names:
        return definition
    outer = ast.parse(f"def enclosing({', '.join(names)}): pass").body[0]
    assert isinstance(outer, ast.FunctionDef)
    outer.body = [definition]
    return outer


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
