"""Mistakes shown one by one."""

from __future__ import annotations

import base64
import io

import numpy as np
from matplotlib.image import imsave

from steepest.report.markup import Markup, element, joined, number, share, table

WORST = 24
"""Most mistakes shown."""


def section(examples: dict[str, np.ndarray], wrong: np.ndarray) -> Markup:
    """Pictures of mistakes where there are some, else their rows; the surest first."""
    if "pictures" not in examples:
        return _listed(examples, wrong)
    cards = (
        _card(picture, examples, int(index))
        for picture, index in zip(examples["pictures"][:WORST], examples["picture_index"], strict=False)
    )
    title = element("h3", "mistakes seen ", element("small", "the model was surest of the first ones"))
    return joined((title, element("div", *cards, class_="gallery")))


def _card(picture: np.ndarray, examples: dict[str, np.ndarray], index: int) -> Markup:
    truth, guess = examples["truth"][index], examples["guess"][index]
    sure = f"{share(float(examples['score'][index]))} sure" if "score" in examples else f"example {index}"
    said = element(
        "figcaption", element("b", truth), " taken for ", element("b", guess), element("small", sure)
    )
    return element("figure", element("img", src=_png(picture), alt=f"{truth} taken for {guess}"), said)


def _png(picture: np.ndarray) -> str:
    """A picture of bytes as a data address."""
    written = io.BytesIO()
    imsave(written, picture, format="png", cmap="gray", vmin=0, vmax=255)
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()


def _listed(examples: dict[str, np.ndarray], wrong: np.ndarray) -> Markup:
    sure = examples.get("score")
    order = wrong if sure is None else wrong[np.argsort(-sure[wrong], kind="stable")]
    rows = (
        (
            number(int(i)),
            examples["truth"][i],
            examples["guess"][i],
            "–" if sure is None else share(float(sure[i])),
        )
        for i in order[:WORST]
    )
    title = element("h3", "single mistakes ", element("small", "the model was surest of the first ones"))
    return joined((title, table(("test example", "truly", "taken for", "how sure"), rows, "rllr")))
