"""Red cells of blood smears (the BCCD data set), learnt from counts alone, beside two baselines.

    python -m benchmarks.blood_cells --data-root BCCD [--seeds 3] [--steps N] [--ledger results] [--runs runs/tables]

BCCD is a folder in VOC layout, with JPEGImages, Annotations and ImageSets.
"""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.ablation import ledger_options, report
from benchmarks.blobs import choose_blobs, find_blobs
from mistnn.data.folder.content import FolderImage, OwnFolder, read_folder
from mistnn.data.folder.images import evenly, ground_of, load_image, measured_images, object_size_of
from mistnn.errors import MistError
from mistnn.experiments import evaluate_stored, train
from mistnn.experiments.folder_plan import plan_shapes
from mistnn.metrics import CentreMetrics
from mistnn.presets import find_preset
from mistnn.records import Detections
from mistnn.reproduce.ledger import Entry, make_entry, study_entry
from mistnn.training.runfolder import CONFIG

CELL = "RBC"
"""The measured class: red cells, by their name in the data set."""
METRICS = ("count_error", "f1", "precision", "recall")
COMMAND = "python -m benchmarks.blood_cells --data-root BCCD"
Measure = Callable[[OwnFolder, Sequence[FolderImage], int], tuple[dict[str, float], str]]


def studies(
    root: str, runs: Path, seeds: int, steps: int | None = None, cell: str = CELL
) -> dict[str, Callable[[], Entry]]:
    """What measures each entry, by the name of its file in the ledger.

    Training and tuning see counts only; the boxes of the test images are for measuring. The baselines: predicting the
    mean count of the training images, which finds nothing, and ``find_blobs`` with the settings that fit the counts of
    the training images best.

    Args:
        root: the folder, see ``mist inspect``; images of the test split must have boxes.
        runs: folder of the run folders.
        seeds: number of trainings, with seeds from 0.
        steps: of each training; the preset's if not given.
        cell: the measured class.

    Raises:
        MistError: if the folder can't be used, lacks the class, or has no test image with boxes.
    """
    folder = read_folder(root)
    if cell not in folder.class_names:
        raise MistError(f"{root}: no class is called {cell!r}; it has {', '.join(folder.class_names)}")
    test = [image for image in folder.images if image.split == "test" and image.counts is not None]
    if not test or any(image.boxes is None for image in test):
        raise MistError(f"{root}: all images of the test split must have boxes, by which detections are measured")
    if not _training(folder):
        raise MistError(f"{root}: no training image has counts, so there is nothing to learn from")
    index = folder.class_names.index(cell)

    def baseline(name: str, measure: Measure) -> Entry:
        metrics, note = measure(folder, test, index)
        metrics = {metric: round(value, 5) for metric, value in metrics.items()}
        return study_entry(name, metrics, len(test), f"{COMMAND} --seeds 1", note)

    def trained(name: str, seed: int) -> Entry:
        out = _trained(root, runs / f"{name}-seed{seed}", seed, steps)
        metrics = evaluate_stored(out, len(test), root=root)
        chosen = {metric: metrics[f"{metric}:{cell}"] for metric in METRICS if f"{metric}:{cell}" in metrics}
        command = f"{COMMAND} --seeds {seed + 1}" + (f" --steps {steps}" if steps is not None else "")
        note = f"{cell}; trained on counts of {', '.join(folder.class_names)} alone, threshold by validation counts."
        return make_entry(out, chosen, len(test), 0, command, name, note)

    baselines = {"blood-cells-mean": _mean_count, "blood-cells-blobs": tuned_blobs}
    name = "blood-cells-mist" + ("" if steps is None else f"-{steps}-steps")
    return {one: partial(baseline, one, measure) for one, measure in baselines.items()} | {
        f"{name}-seed{seed}": partial(trained, name, seed) for seed in range(seeds)
    }


def _trained(root: str, out: Path, seed: int, steps: int | None) -> Path:
    planned = plan_shapes(find_preset("my-folder").experiment.at(root)).experiment
    experiment = planned.with_seed_and_steps(seed, planned.train.steps if steps is None else steps)
    try:
        result = train(experiment, out, resume=(out / CONFIG).exists())
    except MistError as error:
        raise MistError(f"{error}; to train it anew, remove {out}") from error
    if result.interrupted:
        raise KeyboardInterrupt
    return out


def _mean_count(folder: OwnFolder, test: Sequence[FolderImage], index: int) -> tuple[dict[str, float], str]:
    known = _training(folder)
    mean = sum(_count(image, index) for image in known) / len(known)
    error = sum(abs(_count(image, index) - mean) for image in test) / len(test)
    return {"count_error": error}, f"Predicts {mean:.2f} for every image, the mean of {len(known)} training images."


def tuned_blobs(
    folder: OwnFolder, test: Sequence[FolderImage], index: int, most: int | None = None
) -> tuple[dict[str, float], str]:
    """The metrics of ``find_blobs`` for one class, tuned on the counts of training images, and how it was tuned.

    Of these, at most ``most`` are used, evenly spaced; all if not given.
    """
    measured, tuned = measured_images(folder), _training(folder)
    tuned = tuned if most is None else list(evenly(tuned, most))
    images, counts = [load_image(image, 3) for image in tuned], [_count(image, index) for image in tuned]
    config = choose_blobs(images, counts, object_size_of(measured).size, ground_of(measured))
    found = [find_blobs(load_image(image, 3), config) for image in test]
    note = (
        f"Threshold, distance transform and watershed, tuned on the counts of {len(tuned)} training images: "
        f"{config.factor:g} of Otsu's threshold, {config.apart:g} of {config.size:.0f} px apart, at least "
        f"{config.least:g} of a disc; every blob is called an object."
    )
    return _measured(found, test, index), note


def _measured(found: Sequence[Detections], test: Sequence[FolderImage], index: int) -> dict[str, float]:
    """Count error, and scores by centre, of detections of one class."""
    error = sum(abs(len(one.boxes) - _count(image, index)) for one, image in zip(found, test, strict=True)) / len(test)
    metrics = CentreMetrics()
    boxes, labels = [], []
    for image in test:
        assert image.boxes is not None and image.labels is not None
        of_class = torch.tensor(image.labels) == index
        boxes.append(torch.tensor(image.boxes, dtype=torch.float32).reshape(-1, 4)[of_class])
        labels.append(torch.zeros(int(of_class.sum()), dtype=torch.int64))
    metrics.update(list(found), boxes, labels)
    return {"count_error": error, **metrics.compute()}


def _training(folder: OwnFolder) -> list[FolderImage]:
    return [image for image in folder.images if image.split == "train" and image.counts is not None]


def _count(image: FolderImage, index: int) -> int:
    assert image.counts is not None
    return image.counts[index]


def main() -> None:
    options = ledger_options(__doc__, find_preset("my-folder").experiment.train.steps)
    options.add_argument("--data-root", required=True, metavar="DIR", help="the folder of the BCCD data set")
    options.add_argument("--runs", type=Path, help="folder of the run folders; default: runs/tables")
    given = options.parse()
    steps = None if given.steps == find_preset("my-folder").experiment.train.steps else given.steps
    with tempfile.TemporaryDirectory() as aside:
        runs = given.runs or Path(aside if given.smoke else "runs/tables")
        try:
            report(given, studies(given.data_root, runs, given.seeds, steps))
        except MistError as error:
            options.error(str(error))


if __name__ == "__main__":
    main()
