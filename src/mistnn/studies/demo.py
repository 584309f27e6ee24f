"""``mist demo``: from nothing to a page that shows a network learning to find digits, and to read or redraw them."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.utils.data import Dataset

from mistnn.data import ScenesConfig
from mistnn.models.mist import Mist
from mistnn.ops.matching import UNMATCHED, box_iou, greedy_match
from mistnn.presets import Experiment, evaluate, find_preset, mist_parts, open_data, read_log, train
from mistnn.presets.systems import SceneModel
from mistnn.records import Detections, Sample, collate
from mistnn.studies.report import DemoReport, HeatmapHistory, PatchView, SceneView, TrainingExample, write_report
from mistnn.training.runfolder import write_atomically
from mistnn.viz import Curve
from mistnn.weights import package_version

Task = Literal["classify", "discover"]
TEST_IMAGES = 500
SHOWN_SCENES = 12
WATCHED_SCENES = 3


@dataclasses.dataclass(frozen=True)
class Story:
    """What a demo trains and what its page says.

    Attributes:
        preset: what is trained.
        metrics: of ``evaluate``, that go to ``metrics.json``.
        title: of the page.
        intro: the paragraph below the summary.
        told: what the network was told.
        not_told: what it was never told, beside the boxes.
        result: the end of the summary, filled in with the metrics.
        objective: of the settings' table.
    """

    preset: str
    metrics: tuple[str, ...]
    title: str
    intro: str
    told: tuple[str, ...]
    not_told: tuple[str, ...]
    result: str
    objective: str


STORIES: dict[Task, Story] = {
    "classify": Story(
        preset="demo",
        metrics=("iou50", "classified", "both"),
        title="Three digits to an image: found and read, without ever being shown where",
        intro="It learnt from scratch, on images made on the fly from real handwriting. It was told how many of each "
        "digit an image holds, and nothing else: nobody ever told it where a digit is.",
        told=("The image.", "How many of each digit it holds."),
        not_told=(
            "Where any digit is: no box and no point was ever used to learn.",
            "Which of the digits is which.",
        ),
        result="taught a small network to find and read handwritten digits: on images it had never seen it finds "
        "{iou50:.0%} of them, and finds and reads {both:.0%}.",
        objective="equation 9 + {reconstruction:g} x equation 8 of the MIST paper",
    ),
    "discover": Story(
        preset="demo-discover",
        metrics=("iou50", "rmse", "rmse_black", "rmse_mean", "r2"),
        title="Three things to an image: found, without a single label",
        intro="It learnt from scratch, on images made on the fly from real handwriting. It was told that an image is "
        "made of three parts, and nothing else: not where they are, and not that there is such a thing as a digit. It "
        "looked for three patches from which the image can be redrawn.",
        told=("The image.", "That it is made of three parts."),
        not_told=(
            "Where any part is: no box and no point was ever used to learn.",
            "What a part is: no class, no name, no count of anything.",
        ),
        result="taught a small network what handwritten digits are made of, without a label: on images it had never "
        "seen it finds {iou50:.0%} of them, and explains {r2:.0%} of what varies in the images as the sum of its "
        "parts.",
        objective="equation 8 of the MIST paper",
    ),
}


def run_demo(
    out: Path,
    seed: int = 0,
    steps: int | None = None,
    force: bool = False,
    start: float | None = None,
    task: Task = "classify",
) -> dict[str, float]:
    """Trains the preset of a task, tests it, and writes the report.

    Writes ``report.html`` and ``metrics.json`` into the run folder.

    Args:
        out: the run folder.
        seed: of the scenes and the weights.
        steps: how many iterations; the preset's own number if not given.
        force: replace a run that is there.
        start: when the command began, on ``time.monotonic``'s clock.
        task: "classify" digits from counts, or "discover" parts from their number alone.

    Returns:
        What is in ``metrics.json``: the story's metrics (shares; errors on values 0-1), images, seconds, seed, steps.

    Raises:
        MistError: if the folder holds a run or cannot be written.
    """
    start = time.monotonic() if start is None else start
    story = STORIES[task]
    experiment = demo_experiment(seed, steps, task)
    watch = _Watch(open_data(experiment.data, "test", WATCHED_SCENES))
    notes: list[str] = []
    result = train(experiment, out, force=force, observe=watch.look, on_note=notes.append)
    if result.interrupted:
        raise KeyboardInterrupt
    model = watch.model.cpu()  # an accelerator was for the training; what follows is little
    measured = evaluate(model, experiment.data, "test", TEST_IMAGES)
    metrics: dict[str, float] = {name: measured[name] for name in story.metrics}
    metrics |= {"images": TEST_IMAGES, "seconds": 0.0, "seed": seed, "steps": result.steps}
    # The page says how long everything took, so its own making is timed by making it once before.
    report = _report(story, experiment, model, watch, read_log(out), metrics, notes)
    write_report(report, out / "report.html")
    metrics["seconds"] = round(time.monotonic() - start, 1)
    report = dataclasses.replace(report, summary=_summary(story, metrics), metrics=metrics)
    write_report(report, out / "report.html")
    write_atomically(out / "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())
    return metrics


def demo_experiment(seed: int, steps: int | None, task: Task = "classify") -> Experiment:
    """The preset of a task with a seed for scenes and weights and, if given, another length."""
    experiment = find_preset(STORIES[task].preset).experiment
    steps = experiment.train.steps if steps is None else steps
    return dataclasses.replace(
        experiment,
        data=dataclasses.replace(experiment.data, seed=seed),
        step=dataclasses.replace(experiment.step, decay_steps=steps),
        train=dataclasses.replace(experiment.train, steps=steps, seed=seed),
    )


class _Watch:
    """Keeps the heat maps of a few test scenes while the network learns."""

    model: Mist

    def __init__(self, scenes: Dataset[Sample]) -> None:
        self.images = collate([scenes[index] for index in range(WATCHED_SCENES)]).images
        self.frames: dict[int, tuple[Tensor, Tensor]] = {}

    def look(self, step: int, model: object) -> None:
        assert isinstance(model, Mist)
        self.model = model
        if step in self.frames:
            return
        with torch.no_grad():
            heatmaps = model.heatmaps(self.images.to(next(model.parameters()).device))
            points = model.keypoints(heatmaps).keypoints[..., :2]
            self.frames[step] = (heatmaps.sum(1).cpu(), points.cpu())

    def histories(self) -> tuple[HeatmapHistory, ...]:
        return tuple(
            HeatmapHistory(
                image, tuple((step, maps[index], points[index]) for step, (maps, points) in self.frames.items())
            )
            for index, image in enumerate(self.images)
        )


def right_detections(detections: Detections, boxes: Tensor, labels: Tensor | None) -> Bool[Tensor, " found"]:
    """Which detections are right: overlap above .5 with an object of their class, one to one."""
    eligible = None
    if detections.labels is not None and labels is not None:
        eligible = detections.labels[:, None] == labels[None, :]
    return greedy_match(box_iou(detections.boxes, boxes), 0.5, eligible) != UNMATCHED


def view_scenes(model: SceneModel, samples: Sequence[Sample]) -> list[SceneView]:
    """What a model finds in samples of one size, judged against their truth; K is each sample's own count."""
    views = []
    model.eval()
    for sample in samples:
        assert sample.boxes is not None
        with torch.inference_mode():
            explained = model.explain(sample.image[None], len(sample.boxes))
        found, rebuilt = explained.detections[0], None
        if explained.reconstruction is not None and not model.class_names:
            rebuilt = explained.reconstruction[0].clamp(0, 1)
        labels = sample.labels if model.class_names else None
        correct = right_detections(found, sample.boxes, labels)
        views.append(SceneView(sample.image, found, sample.boxes, labels, correct, rebuilt))
    return views


def _report(
    story: Story,
    experiment: Experiment,
    model: Mist,
    watch: _Watch,
    log: Sequence[dict[str, float]],
    metrics: dict[str, float],
    notes: Sequence[str],
) -> DemoReport:
    shown = open_data(experiment.data, "test", SHOWN_SCENES)
    views = view_scenes(model, [shown[index] for index in range(SHOWN_SCENES)])
    example = open_data(experiment.data, "train", 1)[0]
    learnt = TrainingExample(example.image, example.counts)
    if not model.class_names:
        learnt = TrainingExample(example.image, words=f"It is made of {model.config.k} parts.")
    seed, steps = experiment.train.seed, experiment.train.steps
    box_size = mist_parts(experiment)[0].box_size
    task = "" if story is STORIES["classify"] else " --task discover"
    return DemoReport(
        title=story.title,
        summary=_summary(story, metrics),
        intro=story.intro,
        scenes=tuple(views),
        class_names=model.class_names,
        example=learnt,
        told=story.told,
        not_told=(
            *story.not_told,
            f"The true boxes are used after training only, to count what is right. The size of a box, "
            f"{box_size:g} px, is a setting.",
        ),
        histories=watch.histories(),
        patches=tuple(_patches(model, views)),
        curves=_curves(log),
        curve_notes={
            "Counting loss": "How far its counts are from the true ones; lower is better.",
            "Redrawing loss": "The share of the image that its patches, redrawn and put back, leave unexplained.",
            "Heat-map loss": "How far the heat map is from one that fires exactly at the improved keypoints.",
        },
        metrics=metrics,
        settings=_settings(story, experiment),
        repeat=f"mist demo{task} --seed {seed} --steps {steps}",
        notes=tuple(notes),
    )


def _summary(story: Story, metrics: dict[str, float]) -> str:
    minutes, seconds = divmod(round(metrics["seconds"]), 60)
    took = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    return f"In {took} this computer {story.result.format(**metrics)}"


def _patches(model: Mist, views: Sequence[SceneView], count: int = 24) -> list[PatchView]:
    patches = []
    for view in views:
        with torch.inference_mode():
            cut = model.cut(view.image[None], model.keypoints_of(view.detections.boxes[None]))[0]
            decoded = model.task_network(cut[None]).decoded
        for index, patch in enumerate(cut):
            label, correct = view.detections.labels, view.correct
            patches.append(
                PatchView(
                    patch,
                    "" if label is None else model.class_names[int(label[index])],
                    None if correct is None else bool(correct[index]),
                    None if decoded is None else decoded[0, index],
                )
            )
    return patches[:count]


def _curves(log: Sequence[dict[str, float]]) -> dict[str, Curve]:
    curves = {}
    for title, name in (
        ("Counting loss", "classification"),
        ("Redrawing loss", "reconstruction"),
        ("Heat-map loss", "heatmap"),
    ):
        rows = [line for line in log if name in line]
        if rows:
            curves[title] = Curve([int(row["step"]) for row in rows], [row[name] for row in rows], "log", "loss")
    return curves


def _settings(story: Story, experiment: Experiment) -> dict[str, str]:
    (model, step), data = mist_parts(experiment), experiment.data
    assert isinstance(data, ScenesConfig)
    task_network = "classifier" if model.class_names else "auto-encoder"
    return {
        "preset": story.preset,
        "heat map": f"{model.heatmap.network}, {model.heatmap.blocks} blocks of {model.heatmap.channels} channels",
        task_network: f"{model.encoder.network}, {model.patch_size} px patches, a code of {model.encoder.code} numbers",
        "objective": story.objective.format(reconstruction=step.reconstruction),
        "digits": "scikit-learn's load_digits; training and test digits are different ones"
        + (f", training digits are bent at random (data.warp {data.warp:g})" if data.warp else ""),
        "scenes": f"{data.counts[0]} digits on {data.canvas} x {data.canvas} px",
        "images a step": str(experiment.train.batch_size),
        "versions": f"mistnn {package_version()}, torch {torch.__version__}",
    }
