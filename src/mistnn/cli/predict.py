"""``mist predict``: finds objects in files and folders of images."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from mistnn.cli.main import INTERRUPTED
from mistnn.cli.parsing import Device, Folder, Model, parse, takes
from mistnn.cli.screen import progress_bar
from mistnn.errors import MistError

if TYPE_CHECKING:
    from mistnn.inference import Predictor, PredictSummary

SOME_SKIPPED = 1

DESCRIPTION = """\
Finds the objects in your images. PATH... are image files, or folders that are searched recursively.

Writes into the output folder
  detections.csv  file,x,y,w,h,label,score: one row per object; centre and size in pixels of the image
  counts.csv      file,class,count,at_limit,low,high,unlike: the number of objects of each class in each image;
                  at_limit is 1 where the model found as many objects as it can report: there may be more; in 80 %
                  of images like those of the training, the true count is from low to high (where this was measured);
                  unlike is 1 for an image that differs from those of the training
  overlays/       the images with the boxes drawn on them
  predicted.html  with --report: a page with histograms, examples and heat maps
  detections.json with --coco: images, boxes and classes as COCO JSON
  yolo/, labelme/, rois/, napari/
                          with --formats: the boxes for other programs, one file for each image
  reconstructions/, residuals/    for a model that reconstructs: the images as the sum of the objects found, and
                  what is left unexplained (middle grey: nothing)

MODEL is a run folder or the name of a model that ships with the package, such as mist-mnist-hard. Objects should \
be about as large, in pixels, as those that it was trained on. Images that can't be read are skipped and named; the \
exit code is then 1. Results appear when all images are done; Ctrl-C keeps the finished part aside, and the same \
command with --resume continues from it. Started by accelerate launch, several processes share the images."""


@dataclass(frozen=True)
class Predict:
    """The arguments.

    Attributes:
        model: a run folder, or the name of a shipped model.
        paths: images, or folders of images.
        out: folder for the results, created if it is missing.
        k: how many objects to find in each image.
        force: replace the results that the folder holds.
        resume: continue a prediction that was stopped or killed, with the same images, model and settings.
        coco: also write the detections as COCO JSON, detections.json.
        formats: also write the boxes for other programs: yolo, labelme, imagej (ROIs), napari, one folder each.
        report: also write predicted.html: histograms of the counts, examples with boxes, heat maps.
        device: auto, cpu, cuda or mps; auto is a CUDA device if there is one, else the CPU.
        overlays: draw the boxes on copies of the images; without it no image is written, reconstructions included.
        precision: bfloat16 is faster on hardware that has it (auto: only there); scores change slightly.
        workers: threads that read images, and as many that draw.
    """

    model: Model
    paths: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH...", help_behavior_hint="(required)")
    ]
    out: Folder
    k: Annotated[
        int | None,
        tyro.conf.arg(metavar="N", help_behavior_hint="(default: as many as the model counts, or its own K)"),
    ] = None
    force: bool = False
    resume: bool = False
    coco: bool = False
    formats: tuple[Literal["yolo", "labelme", "imagej", "napari"], ...] = ()
    report: bool = False
    device: Device = "auto"
    overlays: bool = True
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    workers: Annotated[
        int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: one for each processor, at most 8)")
    ] = None


def run(arguments: Sequence[str]) -> int:
    """Predicts, and prints what was done and what was skipped."""
    request = parse(Predict, arguments, "mist predict", DESCRIPTION)
    times = sum(argument.partition("=")[0] == "--formats" for argument in arguments)
    if times > 1 or (times and not request.formats):
        raise MistError("--formats: name all formats after one --formats, such as --formats yolo labelme")
    from mistnn.inference import Predictor, predict_folder
    from mistnn.inference.other_formats import check_formats, unwritten
    from mistnn.inference.stage import died_at, stopped_after
    from mistnn.processes import PATIENCE, join_processes
    from mistnn.training.memory import keep_freed_memory

    processes = join_processes(request.device, "--device", PATIENCE)
    predictor = Predictor.from_pretrained(request.model, processes.device)
    predictor.precision = request.precision
    if predictor.device.type == "cpu":
        keep_freed_memory()  # photographs are processed twice as fast
    complete = request.resume and stopped_after(request.out) is None and unwritten(request.out, request.formats)
    if complete and processes.count == 1:  # of several, one might look when another has written already
        _write_formats(predictor, request, complete)
        print(f"The tables were complete; the other formats are now in {request.out} too")
        if ignored := [name for name in ("--coco", "--report", "--k") if takes(arguments, name)]:
            print(f"mist: {', '.join(ignored)} had no effect on the complete tables", file=sys.stderr)
        return 0
    if processes.main:
        check_formats(request.out, request.formats, request.force)
    if processes.main and request.resume and stopped_after(request.out) is not None:
        for names in died_at(request.out):
            print(f"mist: the last run died while it processed {names}", file=sys.stderr)
    try:
        with progress_bar("predicting") if processes.main else nullcontext() as progress:
            summary = predict_folder(
                predictor,
                request.paths,
                request.out,
                request.k,
                request.force,
                request.overlays,
                progress,
                request.coco,
                request.resume,
                _page_of(predictor, request, arguments) if request.report else None,
                request.workers,
                processes,
            )
    except KeyboardInterrupt:
        if not processes.main:
            return INTERRUPTED
        done = stopped_after(request.out)
        if done is None:
            raise
        print(f"mist: stopped after {_count(done, 'image')}; the same command with --resume continues", file=sys.stderr)
        return INTERRUPTED
    if not processes.main:
        return 0
    if request.formats:
        _write_formats(predictor, request)
    _tell(predictor, request, summary)
    return SOME_SKIPPED if summary.skipped else 0


def _write_formats(predictor: Predictor, request: Predict, complete: bool = False) -> None:
    """Writes the boxes for other programs; from ``complete`` tables only if they are of these images and this model."""
    from mistnn.data.images import find_images
    from mistnn.inference.other_formats import check_same, write_formats
    from mistnn.inference.stage import identity_of

    classes, identity = predictor.model.class_names, identity_of(predictor, find_images(request.paths, request.out))
    if complete:
        check_same(request.out, request.paths, classes, identity)
    write_formats(request.out, request.paths, classes, request.formats, identity)


def _tell(predictor: Predictor, request: Predict, summary: PredictSummary) -> None:
    """Prints what was done, what was skipped, and what to know about the counts."""
    from mistnn.data.text_files import printable

    if predictor.finds_k and request.k is None:
        why = "needs the number of objects as input" if predictor.model.needs_counts else "was trained without counts"
        print(
            f"mist: this model {why}, so it finds K = {predictor.model.config.k} objects in every image, "
            "whatever it shows: their positions mean something, their number doesn't; --k sets another number",
            file=sys.stderr,
        )
    print(f"{_count(summary.detections, 'object')} in {_count(summary.images, 'image')}; results in {request.out}")
    if summary.approximate:
        print(
            f"{_count(summary.approximate, 'image')} too large for one pass: this model processed them in tiles, and "
            "scores near tile borders are approximate"
        )
    for file, reason in summary.skipped:
        print(f"mist: skipped {printable(file)}: {reason}", file=sys.stderr)
    if summary.skipped:
        print(f"mist: {_count(len(summary.skipped), 'image')} skipped", file=sys.stderr)
    for note in summary.notes:
        print(note)


def _page_of(
    predictor: Predictor, request: Predict, arguments: Sequence[str]
) -> Callable[[Path, PredictSummary], bytes]:
    """The function that makes the page about a prediction from the folder of its results and its summary."""
    from mistnn.reports.count_page import render_counts
    from mistnn.reports.prediction_report import report_on_prediction

    command = shlex.join(["mist", "predict", *(argument for argument in arguments if argument != "--resume")])

    def page(results: Path, summary: PredictSummary) -> bytes:
        found = report_on_prediction(predictor, request.paths, request.out, results, summary, command)
        return render_counts(found).encode("utf-8", "replace")

    return page


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
