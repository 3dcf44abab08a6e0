"""The command line: verbs and a few flags; every other setting goes through --set."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from steepest.optim.errors import UserError


class Descent(TyperCommand):
    """A verb that takes settings by --set, and says so of those that somebody gives as an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As usual, but for options that there are none of."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # typer has this error of click's under a name of its own, which moves
            option = str(getattr(error, "option_name", ""))
            hint = _given_otherwise(option)
            if not hint:
                raise
            raise UserError(f"There is no option {option}. {hint}") from None


app = typer.Typer(
    name="steepest",
    help="Gradient descent for deep learning: train, continue and explain a network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting; `steepest settings` lists them."),
]


@app.command(cls=Descent)
def fit(
    data: Annotated[
        str, typer.Argument(help="digits, iris, …, a .csv, .parquet or .npz file, or a recipe.toml.")
    ],
    target: Annotated[str | None, typer.Option(help="Column to predict; a,b for several.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder.", show_default="runs/<name>")] = None,
    budget: Annotated[str | None, typer.Option(help="60s, 10m, '500 steps', '20 epochs'.")] = None,
    val: Annotated[str | None, typer.Option(help="Share or file that choices are measured on.")] = None,
    test: Annotated[
        str | None, typer.Option(help="Share or file that is looked at once, at the end.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="linear, mlp, cnn or package.module:function.")] = None,
    rule: Annotated[str | None, typer.Option(help="Update rule: adamw, sgd, …; left out: measured.")] = None,
    lr: Annotated[str | None, typer.Option(help="Learning rate; left out: measured; none: default.")] = None,
    batch_size: Annotated[str | None, typer.Option(help="Examples of an update; left out: measured.")] = None,
    schedule: Annotated[str | None, typer.Option(help="plateau, cosine, …; left out: chosen.")] = None,
    seed: Annotated[int | None, typer.Option(help="Origin of every random number.")] = None,
    set_: Settings = None,
) -> None:
    """Train on DATA, test once, and leave a folder that explains itself."""
    from steepest.commands.fit import fit as run_fit
    from steepest.recipe import parse_value

    texts = {"val": val, "test": test, "lr": lr, "batch_size": batch_size}
    settings: dict[str, Any] = {key: parse_value(text) for key, text in texts.items() if text is not None}
    plain = {"budget": budget, "model": model, "rule": rule, "schedule": schedule, "seed": seed}
    settings |= {key: value for key, value in plain.items() if value is not None}
    if target is not None:
        settings["target"] = target.split(",") if "," in target else target
    run_fit(data, out=out, **settings | _assignments(set_))


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    budget: Annotated[str | None, typer.Option(help="A new budget, or '+10 epochs' more.")] = None,
) -> None:
    """Continue a run, a comparison or a search that was stopped or killed, to the identical bits."""
    from steepest.comparison import is_comparison

    if is_comparison(run):
        from steepest.commands.compare import go_on_comparing

        if budget is not None:
            raise UserError(
                "A comparison keeps its budget, which is equal for all. Give it more --seeds instead."
            )
        go_on_comparing(run)
        return
    from steepest.report.records import is_tuning

    if is_tuning(run):
        from steepest.commands.tune import go_on_tuning

        if budget is not None:
            raise UserError("A search keeps its budget. For another one, tune into another folder.")
        go_on_tuning(run)
        return
    from steepest.commands.resume import resume as run_resume

    run_resume(run, budget=budget)


@app.command(cls=Descent)
def compare(
    data: Annotated[str, typer.Argument(help="What fit takes, or the folder of a run.")],
    rules: Annotated[
        str | None, typer.Option(help="Rules to compare, each with its own rate: adamw,sgd,muon.")
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'NAME: KEY=VALUE …'", help="One strategy by its settings; may be given several times."
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Runs of each; default: as few as can separate them.")
    ] = None,
    equal: Annotated[
        str | None, typer.Option(help="steps, time or gradients; default: by the budget.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="Strategy that sets the target of times.")] = None,
    target: Annotated[str | None, typer.Option(help="Column to predict; a,b for several.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder.", show_default="runs/compare-<name>")] = None,
    budget: Annotated[str | None, typer.Option(help="Of each run: 60s, '500 steps', '20 epochs'.")] = None,
    set_: Settings = None,
) -> None:
    """Train strategies under equal conditions, paired by seed, and say what that shows."""
    from steepest.commands.compare import compare as run_compare
    from steepest.comparison.strategies import from_command

    settings = _assignments(set_)
    settings |= {} if budget is None else {"budget": budget}
    if target is not None:
        settings["target"] = target.split(",") if "," in target else target
    sides = from_command(rules, strategy or ())
    run_compare(data, sides, seeds=seeds, equal=equal, reference=reference, out=out, **settings)


@app.command(cls=Descent)
def tune(
    data: Annotated[str, typer.Argument(help="What fit takes, or the folder of a run.")],
    budget: Annotated[
        str, typer.Option(help="Of the search: a share of the run's budget, or 60s, '500 steps'.")
    ] = "10%",
    of: Annotated[
        str | None, typer.Option(help="Budget of the run that is tuned.", show_default="the recipe's")
    ] = None,
    engine: Annotated[str, typer.Option(help="steepest, or optuna, which is an extra.")] = "steepest",
    over: Annotated[
        str | None, typer.Option(help="What to measure: rule,lr,… and, with optuna, beta1,….")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Column to predict; a,b for several.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder.", show_default="runs/tune-<name>")] = None,
    set_: Settings = None,
) -> None:
    """Measure the settings that are open, without the training that follows."""
    from steepest.commands.tune import tune as run_tune

    settings = _assignments(set_)
    if target is not None:
        settings["target"] = target.split(",") if "," in target else target
    if "budget" in settings:
        raise UserError("--budget is that of the search, and --of that of the run; --set budget is neither.")
    names = None if over is None else [name.strip() for name in over.split(",")]
    run_tune(data, budget=budget, of=of, engine=engine, over=names, out=out, **settings)


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Folder of the run.")]) -> None:
    """Write report.html of a run, a comparison or a search anew."""
    from steepest.comparison import is_comparison

    if is_comparison(run):
        from steepest.comparison.comparison import Comparison

        print(f"report: {Comparison(run).report()}")
        return
    from steepest.report import write

    print(f"report: {write(run)}")


@app.command()
def rules(name: Annotated[str | None, typer.Argument(help="adamw, cautious+lion, …")] = None) -> None:
    """List the update rules, or show one: formula, units, state, source, and its path."""
    from steepest.commands.show_rules import show

    show(name)


@app.command()
def settings() -> None:
    """List every setting with its default and meaning."""
    from steepest.recipe import TUNED, Recipe

    print(Recipe.of({"data": "…"}).to_toml(), end="")
    print(f"\n# {', '.join(TUNED)}: fit measures what is not said, unless a rate is")


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 a mistake of the user's, 130/143 stopped."""
    # As with python -m: what lies where one works can be named in package.module:function.
    sys.path.append(os.getcwd())
    try:
        app()
    except UserError as error:
        print(f"steepest: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _given_otherwise(option: str) -> str:
    """How a setting is given that somebody wrote as an option; empty where there is no such setting."""
    from steepest.recipe import ELSEWHERE, Recipe

    name = option.lstrip("-").replace("-", "_")
    if name in ELSEWHERE:
        return f"Here it is called {ELSEWHERE[name]}."
    return f"Write --set {name}=…" if name in Recipe.model_fields else ""


def _assignments(pairs: list[str] | None) -> dict[str, Any]:
    """{"lr": 0.1} of ["lr=0.1"]."""
    from steepest.recipe import parse_value

    for pair in pairs or ():
        if "=" not in pair:
            raise UserError(f"--set takes KEY=VALUE, got {pair!r}. For example --set dropout=0.1.")
    return {key: parse_value(value) for key, value in (pair.split("=", 1) for pair in pairs or ())}
