"""Weights of a Keras optimizer that one rule moves: which these are, their variables of state, and a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from steepest.optim import rules
from steepest.optim.engines.named_state import outputs_first
from steepest.optim.engines.on_keras import cast, ops, rounded, turned, vocabulary, wide, wide_dtype
from steepest.optim.engines.on_numpy import NUMPY
from steepest.optim.engines.pure import Shared, holding, numbers_at, step_all
from steepest.optim.errors import UserError
from steepest.optim.groups import first_match, no_decay
from steepest.optim.rule import Rule
from steepest.optim.rules.shapes import matrix

Assign = Callable[[Any, Any], None]


class Part:
    """Weights, by their number in the optimizer, that move by one rule.

    lr_scale: multiplies the learning rate.   follows: the rate is the optimizer's, not the rule's own.
    compensated: bfloat16 weights keep what rounding takes from them (2 bytes a weight), and lose nothing."""

    def __init__(self, rule: Rule, lr_scale: float, follows: bool, compensated: bool) -> None:
        self.rule, self.lr_scale, self.follows, self.compensated = rule, lr_scale, follows, compensated
        self.copies: list[bool] = []
        self.weights: dict[int, Any] = {}
        self.slots: dict[int, list[Any]] = {}
        self.lost: dict[int, Any] = {}
        self.shared: dict[str, Any] = {}

    def build(self, add: Callable[..., Any]) -> None:
        """Make the variables of state for `weights`; add: the optimizer's add_variable."""
        shapes = [shape for shape in map(self.seen_shape, self.weights.values()) if 0 not in shape]
        self.copies = _copies(self.rule, min(shapes, key=np.prod, default=(0,)))
        for number, w in self.weights.items():
            self.slots[number] = [self._slot(add, w, i) for i in range(len(self.rule.slots))]
            if self.compensated and keras.backend.standardize_dtype(w.dtype) == "bfloat16":
                self.lost[number] = add(tuple(w.shape), "zeros", dtype=w.dtype, name=f"{_flat(w)}_lost")
        rows = len(self.weights) if self.rule.scope == "weight" else 1
        for name, value in self.rule.shared.items():
            first = keras.initializers.Constant(value)
            self.shared[name] = add((rows,), first, dtype=self.dtype, name=name)

    @property
    def dtype(self) -> str:
        """The dtype of scalars: that of the arithmetic of the widest weight."""
        return "float64" if "float64" in map(wide_dtype, self.weights.values()) else "float32"

    def held(self, t: Any, rate: Any, factor: Any) -> Rule:
        """The rule with every number in force in step t."""
        hyper = {"lr": self.rule.lr} | numbers_at(self.rule, vocabulary(self.dtype), t)
        lr = ops.cast(rate, self.dtype) if self.follows else hyper["lr"]
        return holding(self.rule, hyper | {"lr": lr * self.lr_scale * ops.cast(factor, self.dtype)})

    def scalars(self) -> dict[int, Shared]:
        """The shared scalars of each weight; the very same for all where the rule has them in common."""
        tensors = {name: ops.convert_to_tensor(variable) for name, variable in self.shared.items()}
        if self.rule.scope == "model":
            common = {name: tensor[0] for name, tensor in tensors.items()}
            return {number: common for number in self.weights}  # noqa: C420  # the very same, on purpose
        return {
            number: {name: tensor[row] for name, tensor in tensors.items()}
            for row, number in enumerate(self.weights)
        }

    def row(self, number: int, g: Any, t: Any) -> list[Any]:
        """(w, g, *slots) of a weight in the dtype of arithmetic."""
        w = wide(self.weights[number])
        g = cast(ops.convert_to_tensor(g), w.dtype)
        if number in self.lost:
            w = w + cast(ops.convert_to_tensor(self.lost[number]), w.dtype)
        w, g = self._seen(w), self._seen(g)
        slots = [ops.convert_to_tensor(slot) for slot in self.slots[number]]
        return [w, g, *(self._started(w, slots, t) if any(self.copies) else slots)]

    def write(self, number: int, row: Sequence[Any], assign: Assign) -> None:
        """Take the new (w, *slots) of a weight; slots first, for one may be the w of before (LBFGS)."""
        w = self._shown(row[0])
        for variable, value in zip(self.slots[number], row[1:], strict=True):
            assign(variable, value)
        if number in self.lost:
            w, exact = rounded(w), w
            assign(self.lost[number], ops.cast(exact - w, "bfloat16"))
        assign(self.weights[number], ops.cast(w, self.weights[number].dtype))

    def share(self, scalars: dict[int, Shared], assign: Assign) -> None:
        """Take the new shared scalars of those weights that have moved."""
        own = {number: scalars.get(number, before) for number, before in self.scalars().items()}
        if self.rule.scope == "model":
            own = dict([one for one in own.items() if one[0] in scalars][:1])
        for name, variable in self.shared.items() if own else ():
            assign(variable, ops.stack([ops.cast(one[name], self.dtype) for one in own.values()]))

    def shipped(self, number: int, done: Any) -> Any:
        """A weight as it is to be tested and shipped after so many updates."""
        xp, t = vocabulary(self.dtype), ops.cast(done, self.dtype)
        rule = holding(self.rule, numbers_at(self.rule, xp, t))
        k, _ = rule.constants(xp, t, self.scalars()[number])
        slots = [ops.convert_to_tensor(slot) for slot in self.slots[number]]
        w = wide(self.weights[number])
        return ops.where(t == 0, w, self._shown(rule.evaluate(xp, k, self._seen(w), *slots)))

    def first(self, w: Any) -> tuple[np.ndarray, ...]:
        """The slots of a weight before its first update, as if it were zero."""
        return tuple(
            map(np.asarray, self.rule.init(NUMPY, np.broadcast_to(np.float32(0), self.seen_shape(w))))
        )

    def seen_shape(self, w: Any) -> tuple[int, ...]:
        """The shape of a weight as the rule sees it."""
        shape = tuple(w.shape)
        return tuple(shape[axis] for axis in outputs_first(len(shape))) if self.rule.whole else shape

    def _slot(self, add: Callable[..., Any], w: Any, i: int) -> Any:
        first = self.first(w)[i]
        zero = self.copies[i] or not first.any()
        start = "zeros" if zero else lambda shape, dtype=None: ops.convert_to_tensor(first, dtype)
        layout = None if self.rule.whole else getattr(w, "_layout", None)
        return add(
            first.shape, start, dtype=wide_dtype(w), layout=layout, name=f"{_flat(w)}_{self.rule.slots[i]}"
        )

    def _started(self, w: Any, slots: list[Any], t: Any) -> list[Any]:
        """The slots. Those that start as the weights do are filled in the first step: weights may be loaded
        after the optimizer was built."""
        first = self.rule.init(vocabulary(self.dtype), w)
        each = zip(self.copies, first, slots, strict=True)
        return [ops.where(t == 1, new, old) if copies else old for copies, new, old in each]

    def _seen(self, x: Any) -> Any:
        return turned(x) if self.rule.whole else x

    def _shown(self, x: Any) -> Any:
        return turned(x, back=True) if self.rule.whole else x


def step(
    parts: Sequence[Part], gradients: dict[int, Any], rate: Any, factor: Any, done: Any, assign: Assign
) -> None:
    """Move the weights that have a gradient, in parts whose rules are of one form; done: updates before."""
    dtype = max(part.dtype for part in parts)  # "float64" comes after "float32"
    t = ops.cast(done, dtype) + 1
    due = [(part, number) for part in parts for number in part.weights if number in gradients]
    rules = {id(part): part.held(t, rate, factor) for part in parts}
    shared = {id(part): part.scalars() for part in parts}
    moved, following = step_all(
        vocabulary(dtype),
        [rules[id(part)] for part, _ in due],
        t,
        [part.row(number, gradients[number], t) for part, number in due],
        [shared[id(part)][number] for part, number in due],
    )
    for (part, number), row in zip(due, moved, strict=True):
        part.write(number, row, assign)
    scalars = {number: own for (_, number), own in zip(due, following, strict=True)}
    for part in parts:
        part.share(scalars, assign)


def _copies(rule: Rule, shape: tuple[int, ...]) -> list[bool]:
    """For each slot whether its first value depends on the weight's."""
    low, high = (rule.init(NUMPY, np.full(shape, value)) for value in (1.0, 2.0))
    return [not np.array_equal(a, b) for a, b in zip(low, high, strict=True)]


def _flat(w: Any) -> str:
    return str(getattr(w, "path", w.name)).replace("/", "_").replace(":", "_")


def assigned(
    weights: Mapping[int, Any],
    main: Rule,
    rest: Rule | None,
    groups: Mapping[str, Rule],
    lr_scale: Mapping[str, float],
    decays: Callable[[Any], bool],
    compensated: bool,
) -> list[Part]:
    """The parts of the optimizer. Those whose rate is the optimizer's stand first."""
    names = {w.path: w for w in weights.values()}
    claimed, scales = first_match(names, groups, None), first_match(names, lr_scale, 1.0)
    free = [w for w in weights.values() if claimed[w.path] is None]
    own = _of_main(main, rest, free, _head(list(weights.values())))
    parts: dict[Any, Part] = {}
    for number, w in weights.items():
        rule, share, follows = own.get(w.path) or (claimed[w.path], 1.0, False)
        rule = rule if decays(w) or not hasattr(rule, "weight_decay") else replace(rule, weight_decay=0.0)
        key = (rule, share * scales[w.path], follows)
        parts.setdefault(key, Part(*key, compensated)).weights[number] = w
    return sorted(parts.values(), key=lambda part: not part.follows)


def _of_main(
    main: Rule, rest: Rule | None, weights: list[Any], head: str | None
) -> dict[str, tuple[Rule, float, bool]]:
    """(rule, factor of its rate, whether that is the optimizer's) of the weights that no pattern claims.

    head: the path of the model's last layer, claimed or not."""
    if main.takes((2,)):
        if rest is not None:
            raise UserError(f"{type(main).__name__} moves weights of every shape: there is no rest.")
        return {w.path: (main, 1.0, True) for w in weights}
    hidden = _hidden(main, weights, head)
    beside = rules.AdamW(lr=main.lr, weight_decay=getattr(main, "weight_decay", 0.0))
    others = (beside, type(main).fallback_lr_ratio, True) if rest is None else (rest, 1.0, False)
    return {w.path: (main, 1.0, True) if w.path in hidden else others for w in weights}


def _hidden(rule: Rule, weights: list[Any], head: str | None) -> set[str]:
    """Paths of what a rule of matrices should move: no embeddings, no vectors, not the last layer."""
    found = {
        w.path
        for w in weights
        for shape in [tuple(w.shape[axis] for axis in outputs_first(len(w.shape)))]
        if rule.takes(shape) and w.path != head and min(matrix(shape)) > 1 and not no_decay(w.name, shape, "")
    }
    if weights and not found:
        raise UserError(
            f"{type(rule).__name__} moves hidden matrices, and this model has none: its weights are "
            f"embeddings, vectors and its last layer. Use a rule that goes by elements, such as AdamW; or "
            f"say which weights are meant, groups={{{weights[0].path!r}: rule}}."
        )
    return found


def _head(weights: list[Any]) -> str | None:
    """The path of the last dense kernel, or of the last convolution where there is none."""
    kernels = [w for w in weights if len(w.shape) > 1 and not no_decay(w.name, w.shape, "")]
    dense = [w for w in kernels if len(w.shape) == 2]
    return next((w.path for w in reversed(dense or kernels)), None)
