"""The recipe: round trip, defaults, and a sentence for each thing that can be wrong with one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steepest.optim.errors import UserError
from steepest.recipe import Recipe, parse_value, settings_in

texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=20)
recipes = st.builds(
    Recipe,
    data=st.just("digits"),
    target=st.none() | st.lists(texts.filter(lambda t: t.lower() not in ("none", "off")), max_size=3),
    scale=st.sampled_from(["standard", "minmax", None]),
    hidden=st.lists(st.integers(1, 1000), max_size=4),
    hyper=st.dictionaries(texts, st.floats(allow_nan=False), max_size=3),
    lr=st.none() | st.floats(0, 10),
    batch_size=st.integers(1, 10**6) | st.just("full"),
    guard=st.booleans(),
)


@given(recipes)
def test_text_and_back(tmp_path_factory, recipe):
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    assert Recipe.read(path) == recipe


def test_files_are_named_from_the_recipes_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    moved = Recipe.of({"data": "./people.csv", "init": "digits"}).relative_to(tmp_path / "runs" / "people")
    assert moved.data == "../../people.csv"
    (tmp_path / "runs" / "people").mkdir(parents=True)
    (tmp_path / "runs" / "people" / "recipe.toml").write_text(moved.to_toml())
    assert Recipe.read(tmp_path / "runs" / "people" / "recipe.toml").data == str(tmp_path / "people.csv")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"paitence": 3}, "Did you mean 'patience'"),
        ({"learning_rate": 3}, "Here it is called lr"),
        ({"lerning_rate": 3}, "Did you mean 'learning_rate'. Here it is called lr"),
        ({"optimiser": "sgd"}, "Did you mean 'optimizer'. Here it is called rule"),
        ({"bach_size": 8}, "Did you mean 'batch_size'"),
        ({"epochs": 3}, 'budget="20 epochs"'),
        ({"lr": "fast"}, "'lr' cannot be 'fast'"),
        ({"lr": -1.0}, "greater than or equal to 0"),
        ({"split": "rand"}, "'random', 'stratified'"),
        ({"batch_size": "huge"}, '"full", or a policy such as "growing'),
        ({"batch_size": "grow 3 to 5"}, "Did you mean 'growing'"),
        ({"batch_size": 0}, "'batch_size' cannot be 0"),
        ({"rule": "auto", "hyper": {"beta1": 0.5}}, "leaves open which"),
        ({"val": 1.5}, "'val' cannot be 1.5"),
    ],
)
def test_a_wrong_setting_gets_a_sentence(settings, words):
    with pytest.raises(UserError, match=words):
        Recipe.of({"data": "digits"} | settings)


def test_a_recipe_needs_data():
    with pytest.raises(UserError, match="lacks the setting 'data'"):
        Recipe.of({})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"format = 3\ndata = 'digits'", "format 3; this version of steepest reads"),
        (b"data = ", "is not a recipe"),
        (b"\xff\xfe", "is not a recipe"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path, content, words):
    (tmp_path / "recipe.toml").write_bytes(content)
    with pytest.raises(UserError, match=words):
        settings_in(tmp_path / "recipe.toml")


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="No recipe can be read"):
        Recipe.read(tmp_path / "recipe.toml")


@pytest.mark.parametrize(
    ("text", "value"), [("3e-4", 3e-4), ("true", True), ("[64, 32]", [64, 32]), ("20 epochs", "20 epochs")]
)
def test_command_line_values(text, value):
    assert parse_value(text) == value


def test_off_switches_off():
    assert Recipe.of({"data": "digits", "scale": "off", "clip_norm": "none"}).scale is None


@pytest.mark.parametrize("off", [None, "none", 0])
def test_a_part_of_the_rows_that_is_none_has_none(off):
    recipe = Recipe.of({"data": "digits", "val": off, "test": off})
    assert (recipe.val, recipe.test) == (0.0, 0.0)
