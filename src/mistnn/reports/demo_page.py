"""The demo's report: one self-contained page, pictures first, numbers second."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from mistnn import viz
from mistnn.inference.judged import JudgedScene, draw_judged
from mistnn.metrics.meanings import MEANINGS
from mistnn.reports.page import Picture, Tile, in_both_themes, render
from mistnn.viz import Curve

MAX_FRAMES = 16  #: More frames than this are thinned to keep the page small.

METRIC_MEANINGS = {
    **MEANINGS,
    "seconds": "duration of the whole command, in seconds",
    "seed": "seed of the random numbers: the same seed repeats the run",
    "steps": "training steps",
}

_FRACTIONS = ("iou50", "classified", "both")
_NUMBERS = "no one two three four five six seven eight nine ten eleven twelve".split()


@dataclass(frozen=True)
class HeatmapHistory:
    """The heat map of one image over the training.

    Attributes:
        image: in [0, 1].
        frames: (step, heat map (rows, columns), keypoints (k, 2) in pixels of the image or None), by rising step.
    """

    image: Float[Tensor, "channels height width"]
    frames: tuple[tuple[int, Tensor, Tensor | None], ...]


@dataclass(frozen=True)
class PatchView:
    """A patch that the network cut out of an image.

    Attributes:
        patch: in [0, 1].
        label: the predicted class, in words.
        correct: whether the class is right; ``None`` if not judged.
        rebuilt: the network's reconstruction of the patch.
    """

    patch: Float[Tensor, "channels size size"]
    label: str = ""
    correct: bool | None = None
    rebuilt: Float[Tensor, "channels size size"] | None = None


@dataclass(frozen=True)
class DemoReport:
    """The content of the page, as plain text. Sections without content are left out.

    Attributes:
        summary: one sentence: what happened.
        intro: paragraphs below it.
        scenes: test images.
        example: a training image.
        label: the label of ``example``, in words.
        given: what the network was given in training, one line each.
        withheld: what it was not given, one line each.
        histories: heat maps over the training, all at the same steps.
        curve_notes: title -> a line below the curve.
        metrics: as in ``metrics.json``; ``None`` is shown as a dash.
        repeat: the command that repeats the run.
        notes: problems and warnings, one line each.
    """

    title: str
    summary: str
    intro: str = ""
    scenes: tuple[JudgedScene, ...] = ()
    class_names: tuple[str, ...] = ()
    example: Float[Tensor, "channels height width"] | None = None
    label: str = ""
    given: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    histories: tuple[HeatmapHistory, ...] = ()
    patches: tuple[PatchView, ...] = ()
    curves: Mapping[str, Curve] = field(default_factory=dict)
    curve_notes: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float | int | None] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    repeat: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks that all histories can share one scrub bar. Raises ``ValueError`` if their steps differ."""
        steps = [tuple(frame[0] for frame in history.frames) for history in self.histories]
        if steps and (not steps[0] or any(other != steps[0] for other in steps)):
            raise ValueError(f"heat-map histories must share the same steps and have at least one, got {steps}")


def render_report(report: DemoReport) -> str:
    """The page as one string of HTML."""
    with_rebuilt = [(scene, scene.rebuilt) for scene in report.scenes if scene.rebuilt is not None]
    return render(
        "demo.html.j2",
        title=report.title,
        report=report,
        scenes=[_scene(number, scene, report.class_names) for number, scene in enumerate(report.scenes, start=1)],
        legend=_legend(report.scenes),
        example=None if report.example is None else _bare(report.example, "A training image without any marks."),
        images=[_bare(one.image, f"Test image {number}.") for number, one in enumerate(report.histories, start=1)],
        film=_film(report.histories),
        patches=[_patch(view) for view in report.patches],
        rebuilt=[_rebuilt(number, scene, rebuilt) for number, (scene, rebuilt) in enumerate(with_rebuilt, start=1)],
        curves=[_curve(name, curve, report.curve_notes.get(name, "")) for name, curve in report.curves.items()],
        metrics=[(name, metric_text(name, x), METRIC_MEANINGS.get(name, "")) for name, x in report.metrics.items()],
    )


def counts_in_words(counts: Tensor, class_names: Sequence[str]) -> str:
    """Counts in words, such as ``two 3s, one 7``; ``nothing`` if all are zero."""
    words = []
    for index, number in enumerate(counts.tolist()):
        if number > 0:
            word = _NUMBERS[number] if number < len(_NUMBERS) else str(number)
            words.append(f"{word} {viz.class_label(index, class_names)}{'s' if number > 1 else ''}")
    # A line may break between two classes, not between a number and its class.
    return ", ".join(word.replace(" ", "\N{NO-BREAK SPACE}") for word in words) or "nothing"


def metric_text(name: str, value: float | int | None) -> str:
    """A number as the table shows it: fractions with three digits, seconds rounded, a dash if it is missing."""
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


def thinned(frames: int, limit: int = MAX_FRAMES) -> list[int]:
    """Evenly spaced indices of at most ``limit`` frames, including the first and the last."""
    shown = min(frames, limit)
    return [round(index * (frames - 1) / max(shown - 1, 1)) for index in range(shown)]


def _bare(image: Tensor, alt: str, side: int = 192) -> Picture:
    """An image enlarged by a whole number, so that its pixels stay square in every viewer."""
    return Picture(viz.picture_to_png(image, max(1, side // max(image.shape[-2:]))), alt, pixels=True)


def _scene(number: int, scene: JudgedScene, class_names: Sequence[str]) -> Tile:
    figure = draw_judged([scene], class_names)
    words, verdict, good = _outcome(scene, class_names)
    picture = Picture(viz.figure_to_png(figure), f"Test image {number} with the predicted boxes: {words}; {verdict}.")
    return Tile((picture,), caption=words, verdict=verdict, good=good)


def _outcome(scene: JudgedScene, class_names: Sequence[str]) -> tuple[str, str, bool | None]:
    """What was detected in a scene, the verdict, and whether it is good."""
    found = scene.detections
    number = len(found.boxes)
    words = f"{number} found"
    if found.labels is not None:
        left_to_right = found.labels[found.boxes[:, 0].argsort()].tolist()
        words = ", ".join(viz.class_label(label, class_names) for label in left_to_right) or "nothing found"
    if scene.correct is None:
        return words, "not judged", None
    right, missed = int(scene.correct.sum()), _missed(scene)
    if right == number and not missed:
        return words, "all correct", True
    return words, f"{right} of {max(number, right + missed)} correct", False


def _missed(scene: JudgedScene) -> int:
    if scene.correct is None or scene.boxes is None:
        return 0
    return int(viz.missed_truth(scene.detections, scene.correct, scene.boxes, scene.labels).sum())


def _legend(scenes: Sequence[JudgedScene]) -> list[tuple[str, str]]:
    """Class and text of each entry of the legend."""
    if all(scene.correct is None for scene in scenes):
        return [("found", "found")]
    named = any(scene.detections.labels is not None for scene in scenes)
    legend = [
        ("right", "detected and classified correctly" if named else "detected"),
        ("wrong", "wrong place or wrong class" if named else "nothing there"),
    ]
    if any(_missed(scene) for scene in scenes):
        legend.append(("missed", "missed or misclassified" if named else "missed"))
    return legend


def _film(histories: Sequence[HeatmapHistory]) -> list[Tile]:
    """A tile for each step, with the heat map of every image; each image has one brightness scale for all steps."""
    if not histories:
        return []
    tiles = []
    for index in thinned(len(histories[0].frames)):
        step = histories[0].frames[index][0]
        maps = []
        for number, history in enumerate(histories, start=1):
            _, heatmap, keypoints = history.frames[index]
            height, width = history.image.shape[-2:]
            peak = viz.heatmap_peak([frame[1] for frame in history.frames])
            figure = viz.draw_heatmap(heatmap, keypoints, size=(width, height), peak=peak, inches=1.5)
            maps.append(Picture(viz.figure_to_png(figure), f"Heat map of test image {number} at step {step}."))
        tiles.append(Tile(tuple(maps), title="before training" if step == 0 else f"step {step:,}"))
    return tiles


def _patch(view: PatchView) -> Tile:
    about = f", classified as {view.label}" if view.label else ""
    pictures = [_bare(view.patch, f"A patch{about}.", 96)]
    if view.rebuilt is not None:
        pictures.append(_bare(view.rebuilt, "The reconstruction of the patch.", 96))
    return Tile(tuple(pictures), caption=f"✗ {view.label}" if view.correct is False else view.label, good=view.correct)


def _rebuilt(number: int, scene: JudgedScene, rebuilt: Tensor) -> tuple[Picture, ...]:
    difference = viz.draw_heatmap(viz.residual(scene.image, rebuilt), peak=1.0, gamma=1.0, inches=1.2)
    return (
        _bare(scene.image, f"Image {number}."),
        _bare(rebuilt, f"Image {number}, reconstructed from its patches."),
        Picture(viz.figure_to_png(difference), "The difference: bright where the reconstruction is wrong."),
    )


def _curve(name: str, curve: Curve, note: str) -> Tile:
    finite = [value for value in curve.values if math.isfinite(value)]
    ends = f" From {finite[0]:.3g} to {finite[-1]:.3g}." if finite else ""
    picture = in_both_themes(
        lambda theme: viz.draw_curves({name: curve}, 1, title=False, theme=theme),
        f"{name} over the training steps.{ends}",
    )
    return Tile((picture,), title=name, caption=note)
