"""The sections of the report page: each takes the report and returns its HTML, or nothing where it has nothing."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from torch import Tensor

from mistnn.viz import (
    DARK,
    LIGHT,
    class_label,
    draw_curves,
    draw_heatmap,
    draw_scenes,
    figure_to_png,
    heatmap_peak,
    missed_truth,
    picture_to_png,
    residual,
)

if TYPE_CHECKING:
    from mistnn.studies.report import DemoReport, HeatmapHistory, PatchView, SceneView

MAX_FRAMES = 16
"""More frames than this are thinned, the first and the last kept: the page should stay small enough to send."""

METRIC_MEANINGS = {
    "iou50": "Where: the share of objects that have a box that overlaps more than half (intersection over union).",
    "classified": "What: the share of objects that were counted under the right class, wherever the box was put.",
    "both": "Where and what: the share of objects with a box on them, more than half overlap, and the right class.",
    "rmse": "How far the redrawn images are from the true ones: root mean square error of a pixel, black 0, white 1.",
    "rmse_black": "The same error of an all-black image, for comparison.",
    "rmse_mean": "The same error of the mean of all test images, for comparison.",
    "r2": "The share of what varies in the images that the redrawn ones explain: 1 - (rmse / rmse_mean) squared.",
    "images": "How many test images the numbers come from; none of them was used to learn.",
    "seconds": "How long the whole command took, in seconds.",
    "seed": "The start of the random numbers: the same seed repeats the run.",
    "steps": "How many times the network was corrected, each time on a handful of images.",
}

_FRACTIONS = ("iou50", "classified", "both")
_NUMBERS = "no one two three four five six seven eight nine ten eleven twelve".split()


def body(report: DemoReport) -> str:
    """Everything inside ``<main>``, in reading order."""
    parts = (
        _header(report),
        _scenes(report),
        _notes(report),
        _told(report),
        _film(report),
        _patches(report),
        _rebuilt(report),
        _curves(report),
        _metrics(report),
        _settings(report),
    )
    return "\n".join(part for part in parts if part)


def number_word(number: int) -> str:
    """A whole number as a word up to twelve, as figures above."""
    return _NUMBERS[number] if 0 <= number < len(_NUMBERS) else str(number)


def counts_in_words(counts: Tensor, class_names: Sequence[str]) -> str:
    """Counts as one says them: ``two 3s, one 7``; ``nothing`` where all are zero."""
    said = [
        f"{number_word(number)} {class_label(index, class_names)}{'s' if number > 1 else ''}"
        for index, number in enumerate(counts.tolist())
        if number > 0
    ]
    return ", ".join(said) or "nothing"


def image_tag(png: bytes, alt: str, *, dark: bytes | None = None, pixels: bool = False) -> str:
    """A picture inside the page, with a second version for dark screens if there is one."""
    css = ' class="pixels"' if pixels else ""
    image = f'<img{css} src="{_data(png)}" alt="{escape(alt)}">'
    if dark is None:
        return image
    source = f'<source media="screen and (prefers-color-scheme: dark)" srcset="{_data(dark)}">'
    return f"<picture>{source}{image}</picture>"


def _data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _paragraphs(text: str) -> str:
    return "\n".join(f"<p>{escape(part)}</p>" for part in text.split("\n\n") if part.strip())


def _items(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _header(report: DemoReport) -> str:
    return (
        f'<header>\n<h1>{escape(report.title)}</h1>\n<p class="lead">{escape(report.summary)}</p>\n'
        f"{_paragraphs(report.intro)}</header>"
    )


def _scenes(report: DemoReport) -> str:
    if not report.scenes:
        return ""
    figures = []
    judged = any(scene.correct is not None for scene in report.scenes)
    missing = False
    for number, scene in enumerate(report.scenes, start=1):
        figure = draw_scenes(
            [scene.image],
            [scene.detections],
            None if scene.boxes is None else [scene.boxes],
            None if scene.labels is None else [scene.labels],
            report.class_names,
            1,
            correct=None if scene.correct is None else [scene.correct],
        )
        words, said, missed = _outcome(scene, report.class_names)
        missing = missing or missed > 0
        alt = f"Test image {number} with the boxes the network drew: {words}; {said}."
        mark = "" if scene.correct is None else ' class="good"' if said == "all right" else ' class="bad"'
        figures.append(
            f"<figure>{image_tag(figure_to_png(figure), alt)}"
            f"<figcaption>{escape(words)} · <span{mark}>{escape(said)}</span></figcaption></figure>"
        )
    named = any(scene.detections.labels is not None for scene in report.scenes)
    legend = [("found", "found")]
    if judged:
        right = "found and named right" if named else "found"
        legend = [("right", right), ("wrong", "wrong place or wrong name" if named else "nothing there")]
        legend += [("missed", "what it missed or misread" if named else "what it missed")] if missing else []
    keys = "".join(f'<li class="{name}">{text}</li>' for name, text in legend)
    return (
        "<section>\n<h2>What it finds in images it has never seen</h2>\n"
        f'<ul class="legend">{keys}</ul>\n<div class="grid scenes">\n' + "\n".join(figures) + "\n</div>\n</section>"
    )


def _outcome(scene: SceneView, class_names: Sequence[str]) -> tuple[str, str, int]:
    """What was found in a scene, the verdict on it, and how many objects were missed."""
    found = scene.detections
    number = len(found.boxes)
    if found.labels is None:
        words = f"{number} found"
    else:
        # Left to right, as one reads the picture.
        order = found.boxes[:, 0].argsort().tolist() if number else []
        words = ", ".join(class_label(int(found.labels[index]), class_names) for index in order) or "nothing found"
    if scene.correct is None:
        return words, "not judged", 0
    right = int(scene.correct.sum())
    missed = 0
    if scene.boxes is not None:
        missed = int(missed_truth(found, scene.correct, scene.boxes, scene.labels).sum())
    if right == number and not missed:
        return words, "all right", 0
    return words, f"{right} of {max(number, right + missed)} right", missed


def _notes(report: DemoReport) -> str:
    if not report.notes:
        return ""
    return f'<section class="note">\n<h3>Worth knowing</h3>\n{_items(report.notes)}\n</section>'


def _told(report: DemoReport) -> str:
    if report.example is None and not report.told and not report.not_told:
        return ""
    parts = ["<section>", "<h2>What it had to learn from</h2>"]
    example = report.example
    if example is not None:
        words = example.words
        if not words and example.counts is not None:
            words = counts_in_words(example.counts, report.class_names)
            # A line may break between two classes, not between a number and its class.
            words = words.replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")
        said = f"<small>All it was told about this image:</small> “{escape(words)}”" if words else "Only the image."
        picture = image_tag(_bare(example.image), "A training image, without any marks in it.", pixels=True)
        parts.append(f'<div class="told">{picture}<blockquote>{said}</blockquote></div>')
    columns = (("What the network was told", report.told), ("What it was never told", report.not_told))
    lists = "".join(f"<div><h3>{name}</h3>{_items(lines)}</div>" for name, lines in columns if lines)
    if lists:
        parts.append(f'<div class="lists">{lists}</div>')
    return "\n".join([*parts, "</section>"])


def _bare(picture: Tensor, side: int = 192) -> bytes:
    """A picture without marks, enlarged by a whole number so that its pixels stay square in every viewer."""
    return picture_to_png(picture, max(1, side // max(picture.shape[-2:])))


def thinned(frames: int, limit: int = MAX_FRAMES) -> list[int]:
    """Evenly spread indices of at most ``limit`` frames, the first and the last among them."""
    if frames <= limit:
        return list(range(frames))
    return [round(index * (frames - 1) / (limit - 1)) for index in range(limit)]


def _film(report: DemoReport) -> str:
    histories = report.histories
    if not histories:
        return ""
    images = "".join(
        image_tag(_bare(history.image), f"Test image {number}.", pixels=True)
        for number, history in enumerate(histories, start=1)
    )
    kept = thinned(len(histories[0].frames))
    frames = "\n".join(_frame(histories, index) for index in kept)
    return (
        "<section>\n<h2>Watching it learn where to look</h2>\n"
        "<p>Bright means “here is something”. Nobody drew these maps: the network worked them out, because looking in "
        "the right places made its task easier.</p>\n"
        f'<div class="frames" data-film style="--columns: {len(histories)}">\n'
        f'<div class="strip"><span class="when">the image</span>{images}</div>\n{frames}\n'
        '<div class="controls"><button type="button">Play</button>'
        f'<input type="range" min="0" max="{len(kept) - 1}" value="{len(kept) - 1}" step="1" '
        'aria-label="Training step"><output></output></div>\n</div>\n'
        '<ul class="legend"><li class="ring">the places it chose to look at</li></ul>\n</section>'
    )


def _frame(histories: Sequence[HeatmapHistory], index: int) -> str:
    """One row: the heat maps of every image at one step, each image on its own brightness scale over all steps."""
    step = histories[0].frames[index][0]
    maps = []
    for number, history in enumerate(histories, start=1):
        _, heatmap, keypoints = history.frames[index]
        figure = draw_heatmap(
            heatmap,
            keypoints,
            size=(history.image.shape[-1], history.image.shape[-2]),
            peak=heatmap_peak([frame[1] for frame in history.frames]),
            inches=1.5,
        )
        maps.append(image_tag(figure_to_png(figure), f"Heat map of test image {number} at step {step}."))
    name = "before learning" if step == 0 else f"step {step:,}"
    return f'<div class="strip frame" data-step="{name}"><span class="when">{name}</span>{"".join(maps)}</div>'


def _patches(report: DemoReport) -> str:
    if not report.patches:
        return ""
    rebuilt = any(view.rebuilt is not None for view in report.patches)
    text = "These are the pieces it cut out of the images at those places"
    text += ", and what it read in each." if any(view.label for view in report.patches) else "."
    text += " Below each piece: the same piece, redrawn by the network." if rebuilt else ""
    tiles = "\n".join(_patch(view) for view in report.patches)
    return (
        "<section>\n<h2>The patches it cut out</h2>\n"
        f'<p>{text}</p>\n<div class="grid patches">\n{tiles}\n</div>\n</section>'
    )


def _patch(view: PatchView) -> str:
    about = f", read as {view.label}" if view.label else ""
    pictures = image_tag(_bare(view.patch, 96), f"A patch{about}.", pixels=True)
    if view.rebuilt is not None:
        pictures += image_tag(_bare(view.rebuilt, 96), "The same patch, redrawn by the network.", pixels=True)
    caption = escape(view.label)
    if view.correct is not None:
        caption = f'<span class="good">{caption}</span>' if view.correct else f'<span class="bad">✗ {caption}</span>'
    return f"<figure>{pictures}" + (f"<figcaption>{caption}</figcaption>" if caption else "") + "</figure>"


def _rebuilt(report: DemoReport) -> str:
    scenes = [scene for scene in report.scenes if scene.rebuilt is not None]
    if not scenes:
        return ""
    trios = []
    for number, scene in enumerate(scenes, start=1):
        assert scene.rebuilt is not None  # selected above
        left = residual(scene.image, scene.rebuilt)
        pictures = (
            image_tag(_bare(scene.image), f"Image {number}.", pixels=True),
            image_tag(_bare(scene.rebuilt), f"Image {number}, redrawn from its patches.", pixels=True),
            image_tag(
                figure_to_png(draw_heatmap(left, peak=1.0, gamma=1.0, inches=1.2)),
                "What is left over: bright is wrong.",
            ),
        )
        trios.append(f'<figure class="trio">{"".join(pictures)}</figure>')
    return (
        "<section>\n<h2>The images, redrawn</h2>\n"
        "<p>Left the image, in the middle the image put together again from the redrawn patches, right what is left "
        'over (dark: nothing).</p>\n<div class="grid rebuilt">\n' + "\n".join(trios) + "\n</div>\n</section>"
    )


def _curves(report: DemoReport) -> str:
    figures = []
    for name, curve in report.curves.items():
        light, dark = (
            figure_to_png(draw_curves({name: curve}, 1, title=False, theme=theme)) for theme in (LIGHT, DARK)
        )
        finite = [value for value in curve.values if math.isfinite(value)]
        ends = f" From {finite[0]:.3g} to {finite[-1]:.3g}." if finite else ""
        picture = image_tag(light, f"{name} over the steps of training.{ends}", dark=dark)
        note = report.curve_notes.get(name, "")
        caption = f"<figcaption>{escape(note)}</figcaption>" if note else ""
        figures.append(f"<figure><h3>{escape(name)}</h3>{picture}{caption}</figure>")
    if not figures:
        return ""
    return (
        '<section>\n<h2>How the learning went</h2>\n<div class="grid curves">\n' + "\n".join(figures) + "\n</div>\n"
        "</section>"
    )


def metric_text(name: str, value: float | int | None) -> str:
    """A number as the table shows it: fractions with three digits, seconds whole, a dash where there is none."""
    if value is None:
        return "–"
    if name == "seed":
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "not a number"
    if name == "seconds":
        return f"{value:.0f}"
    return f"{value:.3f}" if name in _FRACTIONS or abs(value) < 1 else f"{value:.4g}"


def _metrics(report: DemoReport) -> str:
    if not report.metrics:
        return ""
    meanings = {**METRIC_MEANINGS, **report.meanings}
    rows = "\n".join(
        f'<tr><th scope="row"><code>{escape(name)}</code></th><td class="value">{escape(metric_text(name, value))}</td>'
        f"<td>{escape(meanings.get(name, ''))}</td></tr>"
        for name, value in report.metrics.items()
    )
    return (
        "<section>\n<h2>The numbers</h2>\n<p>Shares run from 0 (none) to 1 (all). The same numbers are in "
        "<code>metrics.json</code>.</p>\n<table>\n<thead><tr><th>name</th><th>value</th><th>what it means</th></tr>"
        f"</thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</section>"
    )


def _settings(report: DemoReport) -> str:
    if not report.settings and not report.repeat:
        return ""
    parts = ["<section>", "<h2>How to repeat it</h2>"]
    if report.repeat:
        parts.append(f"<pre><code>{escape(report.repeat)}</code></pre>")
    if report.settings:
        rows = "\n".join(
            f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
            for name, value in report.settings.items()
        )
        parts.append(f'<table class="settings">\n<tbody>\n{rows}\n</tbody>\n</table>')
    return "\n".join([*parts, "</section>"])
