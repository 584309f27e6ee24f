"""The report of a demo: one self-contained HTML page, pictures first, numbers second.

``DemoReport`` holds what the page says and shows; ``write_report`` writes it. A part that is empty leaves its section
out, so that a run without labels (which shows what was rebuilt instead) uses the same page. How each section looks is
in ``report_sections``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path

from jaxtyping import Bool, Float, Int
from torch import Tensor

from mistnn.records import Detections
from mistnn.studies.report_sections import body
from mistnn.viz import Curve


@dataclass(frozen=True)
class SceneView:
    """A test image and what became of it.

    Attributes:
        image: (channels, height, width), values in [0, 1].
        detections: what was found.
        boxes: the true boxes, in pixels; None where they are not known.
        labels: the classes of ``boxes``.
        correct: which detections are right, from the caller's matching; None where nothing was judged.
        rebuilt: the image as the network reconstructs it.
    """

    image: Float[Tensor, "channels height width"]
    detections: Detections
    boxes: Float[Tensor, "objects 4"] | None = None
    labels: Int[Tensor, " objects"] | None = None
    correct: Bool[Tensor, " found"] | None = None
    rebuilt: Float[Tensor, "channels height width"] | None = None


@dataclass(frozen=True)
class TrainingExample:
    """One image as it was given in training, with what was said about it.

    Attributes:
        image: (channels, height, width), values in [0, 1].
        counts: how many objects of each class; said in words on the page.
        words: said instead of the counts, for a run that is told something else.
    """

    image: Float[Tensor, "channels height width"]
    counts: Int[Tensor, " classes"] | None = None
    words: str = ""


@dataclass(frozen=True)
class HeatmapHistory:
    """The heat map of one image over training.

    Attributes:
        image: (channels, height, width), values in [0, 1].
        frames: (step, heat map (rows, columns), keypoints (k, 2) in pixels of the image or None), steps rising.
    """

    image: Float[Tensor, "channels height width"]
    frames: tuple[tuple[int, Tensor, Tensor | None], ...]


@dataclass(frozen=True)
class PatchView:
    """A patch that the network cut out of an image.

    Attributes:
        patch: (channels, size, size), values in [0, 1].
        label: what the network read in it, in words.
        correct: whether that was right; None where nothing was judged.
        rebuilt: the patch as the network reconstructs it.
    """

    patch: Float[Tensor, "channels size size"]
    label: str = ""
    correct: bool | None = None
    rebuilt: Float[Tensor, "channels size size"] | None = None


@dataclass(frozen=True)
class DemoReport:
    """Everything on the page. All text is plain text: the page escapes it.

    Attributes:
        title: of the page.
        summary: one sentence, what happened.
        intro: a paragraph below it.
        scenes: test images, in the order to show.
        class_names: names of the labels.
        example: one training image with what was told about it.
        told: what the network was told, one line each.
        not_told: what it was never told, one line each.
        histories: heat maps over training, all at the same steps.
        patches: what it cut out.
        curves: title -> curve.
        curve_notes: title -> one line below the curve.
        metrics: name -> number, as in ``metrics.json``; None is written as a dash.
        meanings: name -> one plain line; overrides and extends ``METRIC_MEANINGS``.
        settings: name -> value.
        repeat: the command that does the same again.
        notes: problems and warnings, one line each.
    """

    title: str
    summary: str
    intro: str = ""
    scenes: tuple[SceneView, ...] = ()
    class_names: tuple[str, ...] = ()
    example: TrainingExample | None = None
    told: tuple[str, ...] = ()
    not_told: tuple[str, ...] = ()
    histories: tuple[HeatmapHistory, ...] = ()
    patches: tuple[PatchView, ...] = ()
    curves: Mapping[str, Curve] = field(default_factory=dict)
    curve_notes: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float | int | None] = field(default_factory=dict)
    meanings: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    repeat: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses histories that can't share one scrub bar.

        Raises:
            ValueError: if a history is empty, or two were recorded at different steps.
        """
        steps = [tuple(frame[0] for frame in history.frames) for history in self.histories]
        if steps and (not steps[0] or any(other != steps[0] for other in steps)):
            raise ValueError(f"heat-map histories must share the same steps and have at least one, got {steps}")


def render_report(report: DemoReport) -> str:
    """The page as one string of HTML: no file or address outside of it is needed to read it."""
    return html_page(report.title, body(report), scripted=bool(report.histories))


def html_page(title: str, content: str, scripted: bool = False) -> str:
    """A whole page around its content, with the style of all reports inside.

    Args:
        title: plain text.
        content: HTML, everything inside ``<main>``.
        scripted: whether the heat maps' scrub bar is needed.
    """
    assets = resources.files("mistnn.studies") / "assets"
    style = (assets / "report.css").read_text(encoding="utf-8")
    script = (assets / "report.js").read_text(encoding="utf-8")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{style}</style>",
            "</head>",
            "<body>",
            "<main>",
            content,
            "</main>",
            f"<script>\n{script}</script>" if scripted else "",
            "</body>",
            "</html>",
            "",
        )
    )


def write_report(report: DemoReport, path: Path) -> Path:
    """Writes the page, aside first and then renamed, so that a reader never finds half of it.

    Args:
        report: what to write.
        path: of the HTML file; folders that are missing are made.

    Returns:
        The path.
    """
    page = render_report(report)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".partial")
    aside.write_text(page, encoding="utf-8")
    os.replace(aside, path)
    return path
