"""`Recipe`: a complete, frozen, serialisable description of a training run.

Every setting has its one default here; the command line, `fit`, the docs and recipe.toml all read this table.
"""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from steepest.optim.batch import named
from steepest.optim.errors import UserError, did_you_mean

FORMAT = 2
"""The format of run folders that is written."""

READ = (1, 2)
"""The formats that are read; train/format_1.py says what became of what earlier ones held."""

ADDED = ("task_args", "kind_args", "model_args")
"""Settings that earlier versions did not write; their defaults are what was done then."""

PATHS = ("data", "val", "test", "init")
"""Settings that may name files; in a file they are relative to it and start with a dot."""

HEADINGS = {
    "data": "data",
    "model": "model",
    "loss": "descent",
    "budget": "when to evaluate, save and stop",
    "seed": "machine",
}
"""Setting that opens a part of recipe.toml → its heading."""

ELSEWHERE = {
    "learning_rate": "lr",
    "optimizer": "rule",
    "criterion": "loss",
    "scheduler": "schedule",
    "epochs": 'budget, as in budget="20 epochs"',
    "max_epochs": 'budget, as in budget="20 epochs"',
    "max_steps": 'budget, as in budget="500 steps"',
    "time_limit": 'budget, as in budget="60s"',
    "random_state": "seed",
    "validation_split": "val",
    "label": "target",
    "gradient_clip_val": "clip_norm",
}
"""What other libraries call a setting → our name of it."""

TUNED = ("rule", "lr", "batch_size", "schedule", "weight_decay")
"""Settings that decide most: `fit` measures those that are not said. Batch and decay belong to the rate."""

AUTOMATIC = (*TUNED, "stop", "clip_norm", "num_threads")
"""Settings that may be "auto": measured on the run's own model and data, within its budget."""

STANDS_IN = {"schedule": "linear"}
"""What takes the place of an "auto" until it is measured, where that is not the setting's default."""

Name = str
Measured = Literal["auto"]
Least = Annotated[float, Field(ge=0)]
Above = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]


class Recipe(BaseModel):
    """All settings of one run. `None`, written "none" in files and commands, switches a thing off."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    format: int = Field(FORMAT, ge=FORMAT, le=FORMAT, description="version of this file's format")

    data: str = Field(description="a bundled name, a path, or the kind of object that was given")
    data_fingerprint: str | None = Field(None, description="SHA-256 of the content that was read")
    target: str | list[str] | None = Field(None, description="column or columns to predict")
    features: list[str] | None = Field(None, description="columns to predict from; none: all others")
    drop: list[str] = Field([], description="columns to leave out")
    task: Name = Field(
        "auto", description="auto, classification, regression, multilabel, positions, or one of a package"
    )
    task_args: dict[str, Any] = Field({}, description="settings of the task, as it names them")
    val: Share | str = Field(
        0.15, description="share of the rows, or a path, that choices are measured on; none: 0"
    )
    test: Share | str = Field(
        0.15, description="share of the rows, or a path, that is looked at once, at the end; none: 0"
    )
    split: Literal["auto", "random", "stratified", "group", "time"] = Field(
        "auto", description="how rows are shared out; auto: stratified for classes, else random"
    )
    split_by: str | None = Field(None, description="column of groups or of time for that split")
    sample_weight: str | None = Field(None, description="column of weights of the rows in the loss")
    class_weight: Literal["balanced"] | list[float] | dict[str, float] | None = Field(
        None, description="weights of the classes in the loss"
    )
    scale: Literal["standard", "minmax"] | None = Field("standard", description="scaling of number columns")
    impute: Literal["median", "mean"] | None = Field(
        "median", description="what fills gaps in number columns"
    )
    kind_args: dict[str, dict[str, Any]] = Field(
        {}, description="settings of fields or kinds of data by name; kind: what a field is"
    )
    augment: Name | None = Field(None, description="random change of training images: shift, flip")

    model: Name = Field(
        "auto", description="auto (cnn for images, else mlp), linear, mlp, cnn, or package.module:function"
    )
    model_args: dict[str, Any] = Field({}, description="settings of the model, as it names them")
    hidden: list[int] = Field([256, 128], description="widths of the hidden dense layers of mlp and cnn")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of hidden units dropped in training")
    init: Name = Field(
        "default", description="default, kaiming, xavier, orthogonal, lsuv, or a .safetensors file"
    )
    freeze: list[str] = Field([], description="patterns of parameter names that stay as they are")

    loss: Name = Field(
        "auto", description="auto, cross_entropy, focal, binary, mse, huber, l1, or the name of a function"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of a label spread over all classes")
    focal_gamma: float = Field(2.0, ge=0, description="power with which the focal loss fades easy examples")
    huber_delta: float = Field(1.0, gt=0, description="residual where Huber turns from square to line")
    l1: float = Field(0.0, ge=0, description="weight of Σ|w| in the loss")
    l2: float = Field(0.0, ge=0, description="weight of ½Σw² in the loss")
    rule: Name = Field("adamw", description="update rule: adamw, sgd, momentum, lion, …; auto")
    hyper: dict[str, bool | int | float | str] = Field({}, description="other hyperparameters of the rule")
    lr: Least | Measured | None = Field(None, description="learning rate; none: the rule's own default; auto")
    lr_scale: dict[str, float] = Field({}, description="pattern of parameter names → factor on the rate")
    weight_decay: Least | Measured | None = Field(
        None, description="weight decay; none: the rule's own default; auto"
    )
    schedule: Name = Field("plateau", description="plateau, constant, cosine, one_cycle, wsd, …; auto")
    warmup: str = Field("0 steps", description="length of the linear rise of the rate")
    batch_size: Positive | Name = Field(
        64, description="examples of one update; full, growing 64 to 1024, stochastic …, following …; auto"
    )
    accumulate: int = Field(1, ge=1, description="microbatches that an update is computed in")
    clip_norm: Above | Measured | None = Field(None, description="largest norm of the whole gradient; auto")
    clip_value: float | None = Field(None, gt=0, description="largest size of one coordinate of the gradient")
    clip_adaptive: float | None = Field(
        None, gt=0, description="largest norm of a unit's gradient, in norms of its weights"
    )
    average: float | None = Field(None, gt=0, lt=1, description="decay of the moving average of the weights")
    precision: Literal["32", "bf16", "16"] = Field("32", description="number format of the forward pass")
    compile: bool = Field(False, description="whether torch.compile is used")

    budget: str = Field("100 epochs", description="60s, 10m, 500 steps, 20 epochs: never more than this")
    evaluate_every: str = Field("1 epoch", description="steps or epochs between evaluations")
    monitor: str = Field("val/loss", description="metric that the best weights, decay and stop go by")
    mode: Literal["auto", "min", "max"] = Field("auto", description="whether less or more of it is better")
    stop: Measured | Literal["lower"] | None = Field(
        None,
        description="lower: patience lowers the rate before it ends a run, under any schedule; auto: so too, "
        "with patience and min_delta from the measured noise of evaluations",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="evaluations without gain before decay or stop; none: 6 under a level schedule",
    )
    min_delta: float = Field(0.0, ge=0, description="smallest change of the monitor that counts as gain")
    decay_factor: float = Field(0.3, gt=0, lt=1, description="factor on the rate at a plateau")
    max_decays: int = Field(2, ge=0, description="decays without gain after which training stops")
    raise_after: int | None = Field(
        None, ge=1, description="clear gains in a row after which the rate rises; none: never"
    )
    guard: bool = Field(True, description="whether a non-finite loss or gradient is kept from the weights")
    save_every: str = Field("30s", description="seconds, steps or epochs between checkpoints")
    keep: int = Field(3, ge=1, description="newest checkpoints kept, beside the best")

    seed: int = Field(0, ge=0, description="origin of every random number of the run")
    device: str = Field("cpu", description="where to compute: cpu, cuda, mps, auto")
    deterministic: bool = Field(False, description="whether torch must refuse non-deterministic operations")
    num_workers: int = Field(0, ge=0, description="processes that fetch the examples of a Dataset")
    num_threads: Positive | Measured | None = Field(
        None, description="threads of torch; none: one for small networks, else as torch chooses; auto"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _none(cls, value: Any, at: ValidationInfo) -> Any:
        if value is None or (isinstance(value, str) and value.lower() in ("none", "off")):
            return 0.0 if at.field_name in ("val", "test") else None
        return value

    @field_validator("precision", mode="before")
    @classmethod
    def _digits(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value

    @field_validator("class_weight", mode="before")
    @classmethod
    def _labels(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        labelled = cast("dict[Any, Any]", value).items()
        return {str(k).lower() if isinstance(k, bool) else str(k): weight for k, weight in labelled}

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Recipe:
        """A checked recipe. Raises UserError that names the key, what was got and what is possible."""
        for key in settings:
            if key not in cls.model_fields:
                raise UserError(f"The recipe has no setting {key!r}.{nearest(key)}")
        _check_auto(settings)
        _check_open(settings)
        _check_batch(settings.get("batch_size"))
        try:
            return cls(**settings)
        except ValidationError as error:
            raise UserError(_sentence(error)) from None

    @property
    def open(self) -> tuple[str, ...]:
        """The settings that are to be measured."""
        return tuple(name for name in AUTOMATIC if getattr(self, name) == "auto")

    def provisional(self) -> Recipe:
        """The same recipe with the default in the place of what is to be measured."""
        fields = type(self).model_fields
        return self.model_copy(update={n: STANDS_IN.get(n, fields[n].default) for n in self.open})

    def to_toml(self) -> str:
        """The recipe as text, one setting a line with its meaning."""
        lines = ["# steepest recipe: `steepest fit recipe.toml` repeats this run"]
        for key, field in type(self).model_fields.items():
            if key in HEADINGS:
                lines += ["", f"# {HEADINGS[key]}"]
            lines.append(f"{f'{key} = {toml_of(getattr(self, key))}':<40}  # {field.description}")
        return "\n".join(lines) + "\n"

    def relative_to(self, folder: Path) -> Recipe:
        """The same recipe with its files named as seen from `folder`."""
        return self.model_copy(update=seen_from(folder, {key: getattr(self, key) for key in PATHS}))

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """The recipe in a file. Raises UserError for a missing file, no recipe, or one of a newer version."""
        return cls.of(settings_in(path))


def settings_in(path: Path) -> dict[str, Any]:
    """The settings that a recipe file holds, its files found from its own folder, not yet checked."""
    try:
        held = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"No recipe can be read at {str(path)!r}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{str(path)!r} is not a recipe: {error}. A recipe is a TOML file of `setting = value` lines."
        ) from None
    if (version := held.get("format", FORMAT)) not in READ:
        raise UserError(
            f"{str(path)!r} is written in recipe format {version!r}; this version of steepest reads "
            f"up to format {FORMAT}. Install a newer steepest."
        )
    return found_from(path.parent, {**held, "format": FORMAT} if "format" in held else held)


def same_settings(one: str, other: str) -> bool:
    """Whether two recipe texts say the same, whichever version wrote them."""
    added: dict[str, Any] = {name: {} for name in ADDED}
    first, second = (added | tomllib.loads(text) for text in (one, other))
    return {**first, "format": 0} == {**second, "format": 0}


def found_from(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they stand in a file of `folder`, their files named as seen from here."""
    found = {k: os.path.normpath(folder / settings[k]) for k in PATHS if _is_path(settings.get(k))}
    return {**settings, **{k: path if os.path.isabs(path) else f"./{path}" for k, path in found.items()}}


def seen_from(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with their files named as seen from `folder`."""
    moved = {key: _seen_from(folder, str(settings[key])) for key in PATHS if _is_path(settings.get(key))}
    return {**settings, **moved}


def parse_value(text: str) -> Any:
    """A value from the command line: TOML where it is TOML ("3e-4", "true", "[64, 32]"), else the text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def nearest(key: str) -> str:
    """What a setting that is none may mean, by its name here or elsewhere, slips in either taken for it."""
    near = get_close_matches(key, [*ELSEWHERE, *Recipe.model_fields], 1, 0.7)
    if near and near[0] in ELSEWHERE:
        slip = "" if near[0] == key else f" Did you mean {near[0]!r}?"
        return f"{slip} Here it is called {ELSEWHERE[near[0]]}."
    return did_you_mean(key, Recipe.model_fields) + " `steepest settings` lists them all."


def _check_auto(settings: Mapping[str, Any]) -> None:
    """A slip in "auto" is near no other value, and would be taken for one."""
    for name in AUTOMATIC:
        value = settings.get(name)
        if isinstance(value, str) and value != "auto" and get_close_matches(value.lower(), ["auto"], 1, 0.7):
            raise UserError(f"{name} cannot be {value!r}. Did you mean 'auto'?")


def _check_open(settings: Mapping[str, Any]) -> None:
    """What is left open must not be settled elsewhere."""
    if settings.get("rule") == "auto" and settings.get("hyper"):
        raise UserError('hyper= holds numbers of one rule, and rule="auto" leaves open which. Leave one out.')


def _check_batch(size: Any) -> None:
    """A policy is known by its name, or is an object."""
    if isinstance(size, str) and size != "auto" and not size.startswith("object "):
        named(size)


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    key = str(first["loc"][0]) if first["loc"] else "recipe"
    if first["type"] == "missing":
        return f"The recipe lacks the setting {key!r}."
    wanted = "; or ".join(
        dict.fromkeys(e["msg"].lower() for e in error.errors() if e["loc"] and e["loc"][0] == key)
    )
    meaning = Recipe.model_fields[key].description
    return f"The setting {key!r} cannot be {first['input']!r}: {wanted}. Its meaning: {meaning}."


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and (value.startswith((".", "/")) or os.sep in value)


def _seen_from(folder: Path, value: str) -> str:
    relative = os.path.relpath(value, folder)
    return relative if relative.startswith(".") else f"./{relative}"


def toml_of(value: Any) -> str:
    """A setting as TOML writes it; None as "none"."""
    if value is None:
        return '"none"'
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value).items()
        return "{" + ", ".join(f"{_quoted(k)} = {toml_of(v)}" for k, v in pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_of, cast("list[Any]", value))) + "]"
    if value in (math.inf, -math.inf):
        return str(value)  # which JSON has no word for
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def _quoted(text: str) -> str:
    # JSON leaves DEL as it is, TOML wants it escaped; all else of a JSON string is a TOML string.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
