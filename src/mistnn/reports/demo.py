"""``mist demo``: trains a small network to find digits, and reports what it learnt on a page."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from mistnn.data import ScenesConfig
from mistnn.devices import DeviceName
from mistnn.experiments import Experiment, evaluate, lifted_parts, read_log, train
from mistnn.inference.judged import JudgedScene, judge_scenes
from mistnn.interfaces import SampleDataset
from mistnn.models.mist import Mist
from mistnn.presets import find_preset
from mistnn.reports.demo_page import DemoReport, HeatmapHistory, PatchView, counts_in_words, render_report
from mistnn.reports.page import write_page
from mistnn.training.runfolder import run_folder, write_atomically
from mistnn.viz import Curve
from mistnn.weights import package_version

Task = Literal["classify", "discover"]
TEST_IMAGES = 500
SHOWN_SCENES = 12
SHOWN_PATCHES = 24
WATCHED_SCENES = 3
NETWORK_WORDS = {
    "paper": "the paper's network",
    "released": "the network of the released code",
    "half": "half resolution (not in the paper)",
    "small": "half resolution, narrow ends (not in the paper)",
}
"""What the page says about a heat-map network."""
STEP_WORDS = {
    "task-first": "the order of the paper: task network, then keypoints, then heat map",
    "keypoints-first": "the order of the released code: keypoints, then task network, then heat map",
    "single-pass": "one gradient of the task loss for task network and keypoints, then heat map (not in the paper)",
}
"""What the page says about the order of a step."""
LOSSES = {
    "Counting loss": ("classification", "The error of the predicted counts; lower is better."),
    "Reconstruction loss": (
        "reconstruction",
        "The share of the image that the reconstructed patches leave unexplained.",
    ),
    "Heat-map loss": (
        "heatmap",
        "The distance of the heat map from one that peaks exactly at the optimised keypoints.",
    ),
}
"""Title of a curve -> its loss in the log, and the line below it."""


@dataclasses.dataclass(frozen=True)
class Story:
    """What a demo trains and what its page says, see ``DemoReport``.

    Attributes:
        metrics: of ``evaluate``, for ``metrics.json``.
        result: the end of the summary, a format of the metrics.
        objective: for the table of settings, a format of ``reconstruction``.
    """

    preset: str
    metrics: tuple[str, ...]
    title: str
    intro: str
    given: tuple[str, ...]
    withheld: tuple[str, ...]
    result: str
    objective: str


STORIES: dict[Task, Story] = {
    "classify": Story(
        preset="demo",
        metrics=("iou50", "classified", "both"),
        title="Digits detected and classified from counts alone",
        intro="The network was trained from scratch on images that are composed on the fly from real handwriting. Its "
        "only labels are counts: how many of each digit an image holds, never where a digit is.",
        given=("The image.", "How many of each digit it holds."),
        withheld=(
            "Where any digit is: no box and no point was used in training.",
            "Which digit of the image is which.",
        ),
        result="trained a small network to detect and classify handwritten digits. On new test images it detects "
        "{iou50:.0%} of the digits, and detects and classifies {both:.0%}.",
        objective="equation 9 + {reconstruction:g} x equation 8 of the MIST paper",
    ),
    "discover": Story(
        preset="demo-discover",
        metrics=("iou50", "rmse", "rmse_black", "rmse_mean", "r2"),
        title="Digits discovered without a single label",
        intro="The network was trained from scratch on images that are composed on the fly from real handwriting. It "
        "knows that an image is made of three parts, but not where they are, nor that there are digits. It searches "
        "for three patches from which the image can be reconstructed.",
        given=("The image.", "That it is made of three parts."),
        withheld=(
            "Where any part is: no box and no point was used in training.",
            "What a part is: no class, no name, no count.",
        ),
        result="trained a small network to discover the parts of images without labels. On new test images it detects "
        "{iou50:.0%} of the digits, and its reconstruction explains {r2:.0%} of the images' variance.",
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
    device: DeviceName = "auto",
) -> dict[str, float]:
    """Trains the preset of a task, tests it, and writes ``report.html`` and ``metrics.json`` into the run folder.

    Args:
        out: the run folder.
        seed: of the scenes and the weights.
        steps: the preset's own if not given.
        force: replace a run that is there.
        start: when the command began, on ``time.monotonic``'s clock.
        task: "classify" digits from counts, or "discover" parts from their number alone.
        device: for the training.

    Returns:
        The content of ``metrics.json``: the story's metrics (shares; errors on values 0-1), images, seconds, seed,
        steps.

    Raises:
        MistError: if the folder holds a run or cannot be written.
    """
    with run_folder(out):
        start = time.monotonic() if start is None else start
        story = STORIES[task]
        experiment = demo_experiment(seed, steps, task)
        experiment = dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, device=device))
        watch = _Watch(experiment.data.open("test", WATCHED_SCENES))
        notes: list[str] = []
        result = train(experiment, out, force=force, observe=watch.look, on_note=notes.append)
        if result.interrupted:
            raise KeyboardInterrupt
        model = watch.model.cpu()  # an accelerator is not needed for the rest
        measured = evaluate(model, experiment.data, "test", TEST_IMAGES)
        metrics = {name: measured[name] for name in story.metrics}
        metrics |= {"images": TEST_IMAGES, "seconds": 0.0, "seed": seed, "steps": result.steps}
        report = _report(task, experiment, watch, out, metrics, notes)
        render_report(report)  # the duration on the page includes making the page
        metrics["seconds"] = round(time.monotonic() - start, 1)
        report = dataclasses.replace(report, summary=_summary(story, metrics), metrics=metrics)
        write_page(render_report(report), out / "report.html")
        write_atomically(out / "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())
        return metrics


def demo_experiment(seed: int, steps: int | None, task: Task = "classify") -> Experiment:
    """The preset of a task with a seed for scenes and weights and, if given, another number of steps."""
    experiment = find_preset(STORIES[task].preset).experiment
    return experiment.with_seed_and_steps(seed, experiment.train.steps if steps is None else steps)


class _Watch:
    """Records the heat maps of a few test scenes during the training."""

    model: Mist

    def __init__(self, scenes: SampleDataset) -> None:
        self.images = torch.stack([scenes[index].image for index in range(WATCHED_SCENES)])
        self.frames: dict[int, tuple[Tensor, Tensor]] = {}

    def look(self, step: int, model: object) -> None:
        self.model = model = cast(Mist, model)
        if step in self.frames:
            return
        with torch.no_grad():
            heatmaps = model.heatmaps(self.images.to(next(model.parameters()).device))
            points = model.keypoints(heatmaps).keypoints[..., :2]
            self.frames[step] = (heatmaps.sum(1).cpu(), points.cpu())

    def histories(self) -> tuple[HeatmapHistory, ...]:
        frames = [[(step, *one) for one in zip(*seen, strict=True)] for step, seen in self.frames.items()]
        return tuple(HeatmapHistory(*one) for one in zip(self.images, zip(*frames, strict=True), strict=True))


def _report(
    task: Task, experiment: Experiment, watch: _Watch, out: Path, metrics: dict[str, float], notes: list[str]
) -> DemoReport:
    story, model = STORIES[task], watch.model
    shown = experiment.data.open("test", SHOWN_SCENES)
    scenes = judge_scenes(model, [shown[index] for index in range(SHOWN_SCENES)])
    example = experiment.data.open("train", 1)[0]
    label = f"It is made of {model.config.k} parts."
    if model.class_names and example.counts is not None:
        label = counts_in_words(example.counts, model.class_names)
    option = "" if task == "classify" else f" --task {task}"
    boxes = (
        "The true boxes: they are used after the training only, to count what is correct. The size of a box, "
        f"{model.config.box_size:g} px, is a setting."
    )
    return DemoReport(
        title=story.title,
        summary=_summary(story, metrics),
        intro=story.intro,
        scenes=tuple(scenes),
        class_names=model.class_names,
        example=example.image,
        label=label,
        given=story.given,
        withheld=(*story.withheld, boxes),
        histories=watch.histories(),
        patches=tuple(_patches(model, scenes)),
        curves=_curves(read_log(out)),
        curve_notes={title: note for title, (_, note) in LOSSES.items()},
        metrics=metrics,
        settings=_settings(story, experiment),
        repeat=f"mist demo{option} --seed {experiment.train.seed} --steps {experiment.train.steps}",
        notes=tuple(notes),
    )


def _summary(story: Story, metrics: dict[str, float]) -> str:
    minutes, seconds = divmod(round(metrics["seconds"]), 60)
    duration = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    return f"In {duration} this computer {story.result.format(**metrics)}"


def _patches(model: Mist, scenes: Sequence[JudgedScene]) -> list[PatchView]:
    patches = []
    for scene in scenes:
        with torch.inference_mode():
            cut = model.cut(scene.image[None], model.keypoints_of(scene.detections.boxes[None]))[0]
            decoded = model.task_network(cut[None]).decoded
        label, correct = scene.detections.labels, scene.correct
        for index, patch in enumerate(cut):
            name = "" if label is None else model.class_names[int(label[index])]
            right = None if correct is None else bool(correct[index])
            patches.append(PatchView(patch, name, right, None if decoded is None else decoded[0, index]))
    return patches[:SHOWN_PATCHES]


def _curves(log: Sequence[dict[str, float]]) -> dict[str, Curve]:
    curves = {}
    for title, (name, _) in LOSSES.items():
        rows = [line for line in log if name in line]
        if rows:
            curves[title] = Curve([int(row["step"]) for row in rows], [row[name] for row in rows], "log", "loss")
    return curves


def _settings(story: Story, experiment: Experiment) -> dict[str, str]:
    model, step = lifted_parts(experiment)
    data = cast(ScenesConfig, cast(Any, experiment.data))
    task_network = "classifier" if model.class_names else "auto-encoder"
    return {
        "preset": story.preset,
        "heat map": NETWORK_WORDS[model.heatmap.network]
        + f", {model.heatmap.blocks} blocks of {model.heatmap.channels} channels",
        task_network: f"{model.encoder.network}, {model.patch_size} px patches, a code of {model.encoder.code} numbers",
        "step": STEP_WORDS[step.order],
        "objective": story.objective.format(reconstruction=step.reconstruction),
        "digits": "scikit-learn's load_digits, with disjoint training and test digits"
        + (f"; training digits are distorted at random (data.warp {data.warp:g})" if data.warp else ""),
        "scenes": f"{data.counts[0]} digits on {data.canvas} x {data.canvas} px",
        "images per step": str(experiment.train.batch_size),
        "versions": f"mistnn {package_version()}, torch {torch.__version__}",
    }
