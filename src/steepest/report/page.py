"""report.html: one file that needs nothing else, made from a run folder alone."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from steepest.files import Folder, write_atomic
from steepest.report import choices, curves, evaluations, mistakes, settings, verdict
from steepest.report.markup import Markup, element, joined
from steepest.report.records import Records, read

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What the browser may do with the page: show it. No script, no network."""


def write(path: str | Path) -> Path:
    """Write report.html into the run folder at `path` and return where it is. Raises UserError for no run.

    The same records give the same bytes."""
    page = render(read(Path(path)))
    target = Folder(path).report
    write_atomic(target, page.encode("utf-8"))
    return target


def render(records: Records) -> str:
    """The page as text."""
    return document(records.name, _header(records), element("main", *_sections(records)), _footer(records))


def document(title: str, *body: Markup) -> str:
    """A whole page of this look, that needs nothing beside it and runs nothing."""
    style = Markup(files("steepest.report").joinpath("page.css").read_text("utf-8"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{title} · steepest"),
        element("style", style),
    )
    return "<!doctype html>\n" + element("html", head, element("body", *body), lang="en") + "\n"


def _sections(records: Records) -> list[Markup]:
    parts = {
        "Metrics": evaluations.section(records),
        "Curves": curves.section(records),
        "Mistakes": mistakes.section(records),
        "Evidence": choices.section(records.evidence),
        "Recipe": settings.recipe(records.recipe),
        "Environment": settings.environment(records.env),
    }
    links = (element("a", title, href=f"#{title.lower()}") for title in parts)
    sections = (
        element("section", element("h2", title), part, id=title.lower()) for title, part in parts.items()
    )
    return [element("nav", *links, aria_label="Sections"), *sections]


def _header(records: Records) -> Markup:
    word = verdict.status(records)
    top = element(
        "p",
        element("span", "steepest", class_="brand"),
        element("span", word, class_=f"status {word.replace(' ', '-')}"),
        class_="top",
    )
    tiles = (
        element("div", element("dd", value), element("dt", said)) for value, said in verdict.tiles(records)
    )
    told = (
        joined((element("dt", topic), element("dd", said)))
        for topic, said in verdict.sentences(records).items()
    )
    return element(
        "header",
        top,
        element("h1", records.name),
        element("p", verdict.headline(records), class_="headline"),
        element("dl", *tiles, class_="tiles"),
        element("dl", *told, class_="told"),
        _problems(records.problems),
    )


def _problems(found: list[str]) -> Markup:
    if not found:
        return Markup("")
    listed = element("ul", *(element("li", problem) for problem in found))
    return element("aside", element("h2", "What this report could not see"), listed, class_="problems")


def _footer(records: Records) -> Markup:
    commands = (
        element("code", f"steepest fit {records.place}/recipe.toml"),
        " repeats this run; ",
        element("code", f"steepest resume {records.place}"),
        " continues it; ",
        element("code", f"steepest report {records.place}"),
        " writes this page anew from the files beside it.",
    )
    return element("footer", element("p", *commands))
