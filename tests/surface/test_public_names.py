"""The names that people write in their programs; a change here is a change to them."""

import pytest
import torch

import steepest as st
import steepest.torch

PUBLIC = [
    "Comparison",
    "Evidence",
    "Recipe",
    "Run",
    "UserError",
    "__version__",
    "batch",
    "compare",
    "fit",
    "resume",
    "rules",
    "schedule",
    "tune",
    "wrap",
]

TORCHS = {
    *("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "LBFGS", "Muon", "NAdam"),
    *("RAdam", "RMSprop", "Rprop", "SGD", "SparseAdam"),
}
FACE = (
    TORCHS
    | {rule.__name__ for rule in st.rules.RULES}
    | {
        "Dial",
        "RuleOptimizer",
        "find_rate",
        "hypertune",
        "in_backward",
        "loop",
        "optimizer",
    }
)


def test_the_list_of_public_names_is_frozen() -> None:
    assert st.__all__ == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_stands_and_is_listed(name: str) -> None:
    assert getattr(st, name) is not None
    assert name in dir(st)


def test_functions_are_functions_and_modules_are_modules() -> None:
    assert callable(st.fit)
    assert callable(st.resume)
    assert callable(st.compare)
    assert callable(st.tune)
    assert st.rules.AdamW().lr == 1e-3
    assert st.schedule.Constant(0.5)(1) == 0.5


def test_an_unknown_name_is_an_attribute_error_that_lists_the_known() -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'fitt'; it has .*\bfit\b"):
        st.fitt  # noqa: B018


def test_the_face_for_own_loops_holds_every_class_of_torch() -> None:
    theirs = {name for name in dir(torch.optim) if isinstance(getattr(torch.optim, name), type)}
    assert theirs - {"Optimizer"} == TORCHS


def test_the_face_for_own_loops_holds_its_names() -> None:
    assert set(steepest.torch.__all__) == FACE
    assert all(callable(getattr(steepest.torch, name)) for name in FACE)
