"""Photographs learned from counts alone, by pretrained features, beside predicting the mean.

Folders of one class are also measured by classical blobs, tuned on the counts of the training images.

    python -m benchmarks.photos --data-root DIR --name NAME [--seeds 3] [--test WORD] [--known N]
                                [--leave-out WORD] [--ledger results] [--runs DIR] [--draw FILE.jpg]

DIR is an image folder, see `mist inspect`; boxes of its test images are for measuring. With --test WORD, the test
images are those whose file names hold the word; of the rest, those with the lowest hashes of their names are for
validation. With --known N, only so many images for training and validation together are used, those with the lowest
hashes, as if nobody had counted the others. With --leave-out WORD, images whose file names hold the word are not used
at all, such as photographs into which another program has drawn boxes. With --draw FILE, the model of seed 0 is drawn
on some test images.
"""

import dataclasses
import hashlib
import io
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.ablation import ledger_options, report
from benchmarks.blood_cells import tuned_blobs
from benchmarks.tiny_data import make_data
from mistnn.data.folder.content import FolderImage, OwnFolder, read_folder
from mistnn.data.folder.images import GivenConfig, evenly
from mistnn.errors import MistError
from mistnn.experiments import evaluate, train
from mistnn.experiments.photo_plan import plan_photos
from mistnn.inference import Predictor
from mistnn.inference.judged import right_by_centre
from mistnn.interfaces import Split
from mistnn.presets import find_preset
from mistnn.reproduce.ledger import Entry, make_entry, study_entry
from mistnn.training.runfolder import CONFIG
from mistnn.viz import draw_scenes
from mistnn.viz.saving import figure_to_png
from mistnn.weights import load_model

BLOB_IMAGES = 120
"""Training images on whose counts the blobs are tuned, at most."""
VALIDATION = 0.18
"""The share of the images without the word that is for validation."""


def with_test_images(folder: OwnFolder, word: str) -> OwnFolder:
    """The folder with splits by the names of its files."""

    def split(image: FolderImage) -> Split:
        share = int.from_bytes(hashlib.sha256(image.name.encode()).digest()[:8], "big") / 2**64
        return "test" if word in image.name else "validation" if share < VALIDATION else "train"

    return folder._replace(images=tuple(image._replace(split=split(image)) for image in folder.images))


def with_known(folder: OwnFolder, number: int) -> OwnFolder:
    """The folder with only so many images for training and validation, and all for testing."""

    def place(image: FolderImage) -> bytes:
        return hashlib.sha256(f"known {image.name}".encode()).digest()

    known = [image for image in folder.images if image.split != "test" and image.counts is not None]
    kept = {image.name for image in sorted(known, key=place)[:number]}
    images = [image for image in folder.images if image.split == "test" or image.name in kept]
    return folder._replace(images=tuple(images))


def without(folder: OwnFolder, word: str) -> OwnFolder:
    """The folder without the images whose names hold a word. Raises ``MistError`` if there is none."""
    kept = tuple(image for image in folder.images if word not in image.name)
    if len(kept) == len(folder.images):
        raise MistError(f"--leave-out {word}: no file name holds it")
    return folder._replace(images=kept)


def chosen_images(root: str, word: str | None, number: int | None, left_out: str | None) -> OwnFolder:
    """The images of a folder that are used, and for what.

    Args:
        root: the folder.
        word: in the names of the test images; ``None`` keeps the folder's splits.
        number: of the images for training and validation; ``None`` for all.
        left_out: in the names of images that are not used; ``None`` for none.

    Raises:
        MistError: if the folder can't be used.
    """
    folder = read_folder(root)
    folder = folder if left_out is None else without(folder, left_out)
    folder = folder if word is None else with_test_images(folder, word)
    return folder if number is None else with_known(folder, number)


def entry_name(name: str, known: int | None) -> str:
    """The name of a folder in the ledger, with the number of its known images, if only some are used."""
    return name if known is None else f"{name}-known{known}"


def studies(
    folder: OwnFolder, name: str, runs: Path, seeds: int, steps: int, command: str
) -> dict[str, Callable[[], Entry]]:
    """What measures each entry, by the name of its file in the ledger.

    Raises:
        MistError: if the folder has no counts.
    """
    test = [image for image in folder.images if image.split == "test" and image.counts is not None]
    if not test:
        raise MistError(f"{folder.root}: no test image has counts: give another --test, or a column split")

    def trained(seed: int) -> Entry:
        preset = find_preset("my-photos").experiment
        planned = plan_photos(dataclasses.replace(preset, data=GivenConfig(given=folder))).experiment
        out = runs / f"photos-{name}-seed{seed}"
        experiment = planned.with_seed_and_steps(seed, steps or planned.train.steps)
        if train(experiment, out, resume=(out / CONFIG).exists()).interrupted:
            raise KeyboardInterrupt
        model: Any = load_model(out)
        metrics = evaluate(model, planned.data, "test", len(test))
        metrics = {key: value for key, value in metrics.items() if key not in ("threshold", "images")}
        known = sum(image.split == "train" and image.counts is not None for image in folder.images)
        note = f"{name}; {known} training images with counts of {', '.join(folder.class_names)}; nothing set by hand."
        return make_entry(out, metrics, len(test), 0, f"{command} --seeds {seed + 1}", f"photos-{name}", note)

    def blobs() -> Entry:
        metrics, note = tuned_blobs(folder, test, 0, BLOB_IMAGES)
        metrics = {metric: round(value, 5) for metric, value in metrics.items()}
        return study_entry(f"photos-{name}-blobs", metrics, len(test), f"{command} --seeds 1", note)

    baselines = {f"photos-{name}-blobs": blobs} if len(folder.class_names) == 1 else {}
    return {f"photos-{name}-seed{seed}": partial(trained, seed) for seed in range(seeds)} | baselines


def drawing(run: Path, folder: OwnFolder, number: int = 4) -> Image.Image:
    """Test images, evenly spaced, with the boxes that a model found.

    Boxes whose centre lies in an object of their class are green.
    """
    predictor = Predictor.from_pretrained(run)
    known = [image for image in folder.images if image.split == "test" and image.boxes is not None]
    if not known:
        raise MistError(f"{folder.root}: no test image has boxes, so --draw can't tell right from wrong")
    shown = evenly(known, number)
    found = [predictor.predict(image.path) for image in shown]
    names = predictor.model.class_names
    boxes = [torch.from_numpy(image.boxes) for image in shown]
    labels = [torch.from_numpy(image.labels).long() for image in shown]
    correct = [right_by_centre(one.detections, *true) for one, *true in zip(found, boxes, labels, strict=True)]
    titles = [f"{len(one)} found, {len(true)} counted by hand" for one, true in zip(found, boxes, strict=True)]
    pictures = [one.image for one in found]
    detections = [one.detections for one in found]
    figure = draw_scenes(
        pictures,
        detections,
        boxes,
        labels,
        names if len(names) > 1 else [""],
        number,
        correct=correct,
        titles=titles,
        inches=3,
    )
    return Image.open(io.BytesIO(figure_to_png(figure))).convert("RGB")


def main() -> None:
    options = ledger_options(__doc__, 0)
    options.add_argument("--data-root", metavar="DIR", help="the image folder")
    options.add_argument("--name", default="folder", help="of the entries")
    options.add_argument("--test", metavar="WORD", help="what the names of the test images hold")
    options.add_argument("--known", type=int, metavar="N", help="images for training and validation")
    options.add_argument("--leave-out", metavar="WORD", help="what the names of images hold that are not used")
    options.add_argument("--draw", type=Path, metavar="FILE", help="picture of some test images with boxes")
    options.add_argument("--runs", type=Path, help="folder of the run folders; default: runs/tables")
    given = options.parse()
    if given.data_root is None and not given.smoke:
        options.error("give the image folder with --data-root DIR")
    with tempfile.TemporaryDirectory() as aside:
        if given.data_root is None:
            make_data(Path(aside) / "data")
        root = given.data_root or str(Path(aside) / "data" / "folder")
        word = "" if given.test is None else f" --test {given.test}"
        word += "" if given.known is None else f" --known {given.known}"
        word += "" if given.leave_out is None else f" --leave-out {given.leave_out}"
        length = f" --steps {given.steps}" if given.steps else ""
        command = f"python -m benchmarks.photos --data-root {given.name.upper()} --name {given.name}{word}{length}"
        runs = given.runs or (Path(aside) / "runs" if given.smoke else Path("runs/tables"))
        try:
            folder = chosen_images(root, given.test, given.known, given.leave_out)
            name = entry_name(given.name, given.known)
            report(given, studies(folder, name, runs, given.seeds, given.steps, command))
            if given.draw is not None:
                drawing(runs / f"photos-{name}-seed0", folder).save(given.draw, quality=85)
        except MistError as error:
            options.error(str(error))


if __name__ == "__main__":
    main()
