"""A rule's own few lines as a torch.optim.Optimizer: its functions, less what maps them over frameworks."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from types import FunctionType
from typing import Any

from steepest.optim import rules
from steepest.optim.maths import debias
from steepest.optim.rule import Rule, uncoupled

CLASS = '''class {name}(torch.optim.Optimizer):
    """{doc}"""

    def __init__(self, params, **numbers):
        super().__init__(params, numbers)

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is None:
                    continue
                k, state = SimpleNamespace(**group), self.state[w]  # k: numbers of this step
                if not state:
                    state["t"] = 0{shared}{init}
                state["t"] += 1
                {scalars}{following}g = {couple}
                {moved} = direction(k, w, g{slots})
                w.copy_({follow}(k, w, u))


'''

DEBIAS = "def debias(beta, t):\n    return 1 - beta**t"
"""maths.debias, which is written for traced steps."""

ON_NUMBERS = {name: f"math.{name}" for name in ("exp", "expm1", "log", "sqrt")} | {
    "abs": "abs",
    "maximum": "max",
    "minimum": "min",
}
ON_ARRAYS = {
    name: f"torch.{name}"
    for name in (
        "abs",
        "exp",
        "expm1",
        "log",
        "maximum",
        "minimum",
        "sign",
        "sqrt",
        "where",
        "zeros_like",
        "full_like",
    )
}
"""What the vocabulary of rules is called on floats and on tensors."""


class NotPlain(Exception):
    """A rule is more than its own lines: sums over weights, whole arrays, wrappers."""


def written(rule: Rule) -> str:
    """Source of the optimizer, the functions that it calls after it. Raises NotPlain."""
    kind = type(rule)
    if kind not in rules.RULES or kind.whole or kind.sums or kind.evaluates():
        raise NotPlain(kind.__name__)
    if kind.shared and kind.scope != "weight":
        raise NotPlain(f"{kind.__name__} has numbers that all weights share")
    functions = _Functions(rule)
    scalars = _scalars(functions, kind)
    functions.add(kind.direction, "direction", on_arrays=True)
    follow = functions.add(kind.follow, kind.follow.__name__, on_arrays=True)
    slots = [f'state["{slot}"]' for slot in kind.slots]
    places = "\n" + 20 * " "
    head = CLASS.format(
        name=kind.__name__,
        doc=inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].replace("\n", "\n    "),
        shared="".join(
            f'\n                    state["{name}"] = {first!r}' for name, first in kind.shared.items()
        ),
        init=f"{places}{', '.join(slots)} = {_init(functions, kind)}" if slots else "",
        slots="".join(f", {slot}" for slot in slots),
        moved=", ".join(["u", *slots]) if slots else "(u,)",
        scalars=scalars,
        following="".join(f'state["{name}"] = k.{name}\n                ' for name in kind.shared),
        couple=_coupled(functions, kind),
        follow=follow,
    )
    return head + "".join(f"{source}\n\n\n" for source in functions.sources.values())


def _init(functions: _Functions, kind: type[Rule]) -> str:
    if kind.init is Rule.init:
        zero = "torch.zeros_like(w)"
        return ", ".join([zero] * len(kind.slots))
    called = functions.add(kind.init, "init", on_arrays=True)
    return f"{called}(k, w)" if len(kind.slots) > 1 else f"{called}(k, w)[0]"


def _scalars(functions: _Functions, kind: type[Rule]) -> str:
    """The line that adds what depends on the time to k."""
    if kind.scalars is Rule.scalars:
        return ""
    shared = "".join(f', {name}=state["{name}"]' for name in kind.shared)
    name = functions.add(kind.scalars, "scalars", on_arrays=False)
    return f'vars(k).update({name}(k, state["t"]{shared}))\n                '


def _coupled(functions: _Functions, kind: type[Rule]) -> str:
    if kind.couple is uncoupled:
        return "w.grad"
    return f"{functions.add(kind.couple, kind.couple.__name__, on_arrays=True)}(k, w, w.grad)"


class _Functions:
    """Functions of a rule by their names, as plain source; what they call comes along."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.sources: dict[str, str] = {}
        self._kinds: dict[str, bool] = {}

    def add(self, function: Callable[..., Any], name: str, on_arrays: bool) -> str:
        """Write a function down under a name, which is returned."""
        if name in self.sources:
            if self._kinds[name] != on_arrays and "xp" in inspect.signature(function).parameters:
                raise NotPlain(f"{name} is called on numbers and on arrays")
            return name
        self.sources[name], self._kinds[name] = "", on_arrays  # its place, before those that it calls
        self.sources[name] = DEBIAS if function is debias else self._plain(function, name, on_arrays)
        return name

    def _plain(self, function: Callable[..., Any], name: str, on_arrays: bool) -> str:
        if not isinstance(function, FunctionType):
            raise NotPlain(f"{function!r} is not a plain function")
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        if not isinstance(tree, ast.FunctionDef):
            raise NotPlain(f"{name} is not a def")
        tree.name = name
        made = _Plain(self, function, on_arrays).visit(tree)
        return ast.unparse(ast.fix_missing_locations(made))


class _Plain(ast.NodeTransformer):
    """Takes `xp` and annotations out of a function; what it calls on xp is torch's or math's."""

    def __init__(self, functions: _Functions, function: FunctionType, on_arrays: bool) -> None:
        self.functions, self.function, self.on_arrays = functions, function, on_arrays
        self.known = inspect.getclosurevars(function)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        arguments = node.args
        arguments.args = [ast.arg(one.arg) for one in arguments.args if one.arg != "xp"]
        if self.on_arrays and arguments.args and arguments.args[0].arg == "self" and node.name != "init":
            raise NotPlain(f"{node.name} looks at its rule")
        if arguments.vararg is not None:
            arguments.vararg = ast.arg(arguments.vararg.arg)
        if arguments.kwarg is not None:
            arguments.kwarg = ast.arg(arguments.kwarg.arg)
        node.decorator_list, node.returns = [], None
        node.body = [self.visit(one) for one in node.body]
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        called, arguments = node.func, [self.visit(one) for one in node.args if not _is_xp(one)]
        if isinstance(called, ast.Attribute) and _is_xp(called.value):
            return self._on_xp(called.attr, arguments)
        words = [ast.keyword(one.arg, self.visit(one.value)) for one in node.keywords]
        if isinstance(called, ast.Attribute):
            function, name, first = self._owned(called)
            arguments = [*first, *arguments]
        else:
            function = self._global(ast.unparse(called))
            name = function.__name__.lstrip("_")
        return ast.Call(ast.Name(self.functions.add(function, name, self.on_arrays)), arguments, words)

    def _owned(self, called: ast.Attribute) -> tuple[Any, str, list[ast.expr]]:
        """(function, its name in the program, first argument) of a method of the rule, or of a class."""
        if isinstance(called.value, ast.Name) and called.value.id == "self":
            function = getattr(type(self.functions.rule), called.attr)
            return function, called.attr.lstrip("_"), [ast.Name("self")]
        owner = self._global(ast.unparse(called.value))
        if not isinstance(owner, type):
            raise NotPlain(f"{ast.unparse(called)} is beyond plain functions")
        return getattr(owner, called.attr), f"{called.attr}_of_{owner.__name__.lower()}", []

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if isinstance(node.ctx, ast.Store) or node.id not in {**self.known.globals, **self.known.nonlocals}:
            return node
        value = self._global(node.id)
        if not isinstance(value, int | float):
            raise NotPlain(f"{node.id} is no number")
        return ast.Constant(value)

    def _global(self, name: str) -> Any:
        for names in (self.known.nonlocals, self.known.globals, self.known.builtins):
            if name in names:
                return names[name]
        raise NotPlain(f"{name} is not known where {self.function.__name__} is written")

    def _on_xp(self, word: str, values: list[ast.expr]) -> ast.expr:
        numbers = [_is_number(one) for one in values] if self.on_arrays else [True] * len(values)
        if word == "where" and numbers[0]:
            return ast.IfExp(*values)
        if word in ("maximum", "minimum") and numbers in ([True, False], [False, True]):
            bound, array = values if numbers[0] else values[::-1]
            end = ast.keyword("min" if word == "maximum" else "max", bound)
            return ast.Call(ast.parse("torch.clamp", mode="eval").body, [array], [end])
        names = ON_NUMBERS if all(numbers) else ON_ARRAYS
        if word not in names:
            raise NotPlain(f"xp.{word} is beyond elements")
        return ast.Call(ast.parse(names[word], mode="eval").body, values, [])


def _is_xp(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "xp"


def _is_number(node: ast.expr) -> bool:
    """Whether an expression is made of the step's numbers alone."""
    if isinstance(node, ast.Attribute):
        return isinstance(node.value, ast.Name) and node.value.id == "k"
    if isinstance(node, ast.Constant):
        return True
    parts = [one for one in ast.iter_child_nodes(node) if isinstance(one, ast.expr)]
    return bool(parts) and not isinstance(node, ast.Name) and all(map(_is_number, parts))
