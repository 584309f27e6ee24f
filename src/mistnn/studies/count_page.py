"""A page about counting: what was counted in images, beside what is true where that is known. Pictures first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from mistnn.records import Detections
from mistnn.studies.report import html_page
from mistnn.studies.report_sections import image_tag
from mistnn.viz import DARK, LIGHT, draw_counts, draw_heatmap, draw_histogram, draw_scenes, figure_to_png

INCHES = 3.0
"""Longer side of a picture with boxes; at 160 dots per inch this is twice what the page shows."""
MOST_ROWS = 500
"""Rows of the table of images; more would make the page slow, and are in counts.csv."""


class Example(NamedTuple):
    """An image and what became of it, in its own pixels.

    Attributes:
        name: of the file.
        image: in [0, 1].
        found: what was counted.
        words: what was counted, in words.
        verdict: how that compares with the truth; empty where it isn't known.
        good: whether it is right; ``None`` where nothing is known.
        boxes: the true boxes, where they are known.
        labels: their classes.
        correct: which of the found boxes are right.
        heatmap: of the image; ``None`` where none is shown.
    """

    name: str
    image: Float[Tensor, "channels height width"]
    found: Detections
    words: str
    verdict: str = ""
    good: bool | None = None
    boxes: Float[Tensor, "objects 4"] | None = None
    labels: Int[Tensor, " objects"] | None = None
    correct: Bool[Tensor, " found"] | None = None
    heatmap: Float[Tensor, "rows columns"] | None = None


class Compared(NamedTuple):
    """Numbers of one class: true and counted in each image, and the mean of the training images."""

    true: Sequence[int]
    counted: Sequence[int]
    mean: float


class Table(NamedTuple):
    """A table as it is shown; the first column names the row, the others are numbers."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class CountPage:
    """Everything on the page, as plain text: the page escapes it. What is empty leaves its section out.

    Attributes:
        title: of the page.
        summary: one or two sentences.
        notes: what is worth knowing, one line each.
        class_names: names of the labels.
        unnamed: the class whose boxes carry no name, so that pictures stay readable; "" for none.
        compared: name -> its numbers.
        histograms: name -> number of objects -> how many images.
        examples: heading -> the images below it.
        heatmaps: images that have one.
        numbers: the measures.
        found: measures of the places, where boxes are known.
        images: what was counted in each image.
        more: how many images the table leaves out.
        repeat: the command.
        settings: name -> value.
    """

    title: str
    summary: str
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    unnamed: str = ""
    compared: Mapping[str, Compared] = field(default_factory=dict)
    histograms: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    examples: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    heatmaps: Sequence[Example] = ()
    numbers: Table | None = None
    found: Table | None = None
    images: Table | None = None
    more: int = 0
    repeat: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


def render_counts(page: CountPage) -> str:
    """The page as one string of HTML: no file or address outside of it is needed to read it."""
    sections = (
        f'<header>\n<h1>{escape(page.title)}</h1>\n<p class="lead">{escape(page.summary)}</p>\n</header>',
        _notes(page),
        _compared(page),
        _histograms(page),
        _examples(page),
        _heatmaps(page),
        _numbers(page),
        _found(page),
        _images(page),
        _repeat(page),
    )
    return html_page(page.title, "\n".join(section for section in sections if section))


def _section(heading: str, *parts: str) -> str:
    return "\n".join(["<section>", f"<h2>{escape(heading)}</h2>", *parts, "</section>"])


def _notes(page: CountPage) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in page.notes)
    return f'<section class="note">\n<h3>Worth knowing</h3>\n<ul>{items}</ul>\n</section>' if items else ""


def _compared(page: CountPage) -> str:
    figures = []
    for name, one in page.compared.items():
        light, dark = (
            figure_to_png(draw_counts(one.true, one.counted, one.mean, theme=theme)) for theme in (LIGHT, DARK)
        )
        off = sum(abs(a - b) for a, b in zip(one.true, one.counted, strict=True)) / len(one.true)
        alt = f"Counted against true numbers of {name}: off by {off:.2f} an image on average."
        right = sum(a == b for a, b in zip(one.true, one.counted, strict=True))
        caption = f"off by {off:.2f} an image on average; exactly right in {right:,} of {len(one.true):,}"
        figures.append(
            f"<figure><h3>{escape(name)}</h3>{image_tag(light, alt, dark=dark)}"
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    if not figures:
        return ""
    text = (
        "A dot is an image (a larger one several). On the line the count is right; above it there are too many, below "
        "it too few. Dots that only followed the dotted line would be no better than guessing without looking."
    )
    return _section("Counted against true", f"<p>{text}</p>", f'<div class="grid counts">{"".join(figures)}</div>')


def _histograms(page: CountPage) -> str:
    figures = []
    for name, images in page.histograms.items():
        light, dark = (figure_to_png(draw_histogram(images, theme=theme)) for theme in (LIGHT, DARK))
        total, many = sum(number * times for number, times in images.items()), sum(images.values())
        words = f"{min(images)} to {max(images)} an image, {total / many:.1f} on average, {total:,} in all"
        figures.append(
            f"<figure><h3>{escape(name)}</h3>{image_tag(light, f'How many {name} an image holds: {words}.', dark=dark)}"
            f"<figcaption>{escape(words)}</figcaption></figure>"
        )
    return _section("How many there are", f'<div class="grid counts">{"".join(figures)}</div>') if figures else ""


def _examples(page: CountPage) -> str:
    groups = {heading: examples for heading, examples in page.examples.items() if examples}
    if not groups:
        return ""
    shown = [example for examples in groups.values() for example in examples]
    judged = any(example.correct is not None for example in shown)
    legend = [("found", "counted")]
    if judged:
        legend = [("right", "right"), ("wrong", "nothing of that class there"), ("missed", "missed")]
    keys = "".join(f'<li class="{name}">{text}</li>' for name, text in legend)
    if page.unnamed:
        keys += f'<li class="plain">a box without a name: {escape(page.unnamed)}</li>'
    parts = [f'<ul class="legend">{keys}</ul>']
    for heading, examples in groups.items():
        tiles = "\n".join(_example(example, page) for example in examples)
        parts.append(f'<h3 class="group">{escape(heading)}</h3>\n<div class="grid examples">\n{tiles}\n</div>')
    return _section("Examples", *parts)


def _picture(example: Example, page: CountPage) -> str:
    names = ["" if name == page.unnamed else name for name in page.class_names]
    figure = draw_scenes(
        [example.image],
        [example.found],
        None if example.boxes is None else [example.boxes],
        None if example.labels is None else [example.labels],
        names,
        1,
        correct=None if example.correct is None else [example.correct],
        inches=INCHES,
    )
    alt = f"{example.name} with the boxes that were counted: {example.words}" + (
        f"; {example.verdict}." if example.verdict else "."
    )
    return image_tag(figure_to_png(figure), alt)


def _caption(example: Example) -> str:
    mark = "" if example.good is None else f' class="{"good" if example.good else "bad"}"'
    verdict = f"<br><span{mark}>{escape(example.verdict)}</span>" if example.verdict else ""
    return f"<figcaption><strong>{escape(example.name)}</strong><br>{escape(example.words)}{verdict}</figcaption>"


def _example(example: Example, page: CountPage) -> str:
    return f"<figure>{_picture(example, page)}{_caption(example)}</figure>"


def _heatmaps(page: CountPage) -> str:
    pairs = []
    for example in page.heatmaps:
        if example.heatmap is None:
            continue
        height, width = example.image.shape[-2:]
        centres = example.found.boxes[:, :2]
        figure = draw_heatmap(example.heatmap, centres, size=(width, height), inches=INCHES)
        bright = image_tag(figure_to_png(figure), f"Heat map of {example.name}: bright where something was found.")
        pairs.append(f'<figure><div class="duo">{_picture(example, page)}{bright}</div>{_caption(example)}</figure>')
    if not pairs:
        return ""
    text = (
        "Bright means “here is something to look at”. Nobody drew these maps: the network worked them out by "
        "itself. A ring is the centre of a box that was counted."
    )
    return _section("Where it looks", f"<p>{text}</p>", f'<div class="grid duos">{"".join(pairs)}</div>')


def _table(table: Table) -> str:
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in table.heads)
    rows = "\n".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f'<td class="value">{escape(cell)}</td>' for cell in row[1:])
        + "</tr>"
        for row in table.rows
    )
    return f'<div class="scroll"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'


def _numbers(page: CountPage) -> str:
    if page.numbers is None:
        return ""
    text = (
        "How far a count is off, mean over the images, whatever its sign; the same of always guessing the mean of the "
        "training images; and whether counts lean to too many (+) or too few (-)."
    )
    return _section("The numbers", f"<p>{text}</p>", _table(page.numbers))


def _found(page: CountPage) -> str:
    if page.found is None:
        return ""
    text = (
        "Boxes were never used to learn, only for this table. A box that was found is right where its centre lies in a "
        "true box of its class, each true box once. Precision: the share of found boxes that are right. Recall: the "
        "share of true boxes that were found. F1 is high only where both are. All run from 0 to 1."
    )
    return _section("Are the boxes in the right places?", f"<p>{text}</p>", _table(page.found))


def _images(page: CountPage) -> str:
    if page.images is None:
        return ""
    left = f"<p>{page.more:,} more are left out here.</p>" if page.more else ""
    rows = len(page.images.rows)
    state = " open" if rows <= 40 else ""
    return _section(
        "Image by image",
        f"<details{state}><summary>{rows:,} images</summary>\n{_table(page.images)}\n</details>",
        left,
    )


def _repeat(page: CountPage) -> str:
    if not page.repeat:
        return ""
    rows = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in page.settings.items()
    )
    table = f'<table class="settings">\n<tbody>\n{rows}\n</tbody>\n</table>' if rows else ""
    return _section("How to repeat it", f"<pre><code>{escape(page.repeat)}</code></pre>", table)


def signed(value: float) -> str:
    """A number with its sign, none for what rounds to 0."""
    return "0.00" if math.isclose(value, 0, abs_tol=0.005) else f"{value:+.2f}"
