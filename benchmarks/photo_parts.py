"""What the parts of MIST on photographs add: dense reading, the search of the first keypoints, lifting.

    python -m benchmarks.photo_parts --data-root DIR --name NAME [--test WORD] [--seeds 3] [--steps N] [--ledger DIR]
                                     [--only PART ...]

The folder, NAME and WORD are those of ``benchmarks.photos``. All variants and seeds share the features of the training
images, which are computed once; seeds differ in the initial weights, the order of the images and the search. Each entry
has means over the seeds on the test images: ``f1``, ``count_error``, and ``f1_given``, with the true number of objects
of each class. A variant without a dense part can't count, and has ``f1_given`` alone. The variant ``supervised`` is the
bound: its keypoints are the centres of the true boxes of the training images.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.ablation import ledger_options, report
from benchmarks.photos import with_test_images
from benchmarks.tiny_data import make_data
from mistnn.data.folder.content import FolderImage, OwnFolder, read_folder
from mistnn.data.folder.images import GivenConfig, known_images, load_image
from mistnn.errors import MistError
from mistnn.experiments.experiment import Experiment
from mistnn.experiments.photo_plan import plan_photos
from mistnn.experiments.photo_states import Judge, best_state, heads_of, judges_of
from mistnn.experiments.photos import CachedFeatures, PhotoSystem
from mistnn.inference.judged import right_by_centre
from mistnn.models.photos import PhotoMist, PhotoStep
from mistnn.presets import find_preset
from mistnn.records import Batch, Detections
from mistnn.reproduce.ledger import Entry, study_entry

LIFTED = {"lift_steps": 2}
DENSE_ONLY = {"keypoints": "none"}
NO_DENSITY = {"count_weight": 0.0, "local_weight": 0.0}


class Part(NamedTuple):
    """A variant: settings of the step, whether there is a task network, what it is, and whether it sees true boxes."""

    step: dict[str, Any]
    task: bool
    note: str
    boxes: bool = False

    @property
    def counts(self) -> bool:
        """Whether it learns to count."""
        return self.step.get("count_weight", 1.0) > 0


PARTS = {
    "dense": Part(DENSE_ONLY, False, "the density alone; objects are its maxima"),
    "dense-keypoints": Part({"start": "density"}, False, "a heat map learns the maxima of the density, then its own"),
    "dense-lifted": Part({"start": "density"} | LIFTED, True, "the same, with lifted keypoints"),
    "search": Part({}, False, "as mist train: keypoints start from templates that a search finds"),
    "search-lifted": Part(LIFTED, True, "the same, with lifted keypoints"),
    "search-only": Part(NO_DENSITY, False, "no density: the heat map learns the keypoints of the search, then its own"),
    "search-only-lifted": Part(NO_DENSITY | LIFTED, True, "the same, with lifted keypoints"),
    "supervised": Part({}, False, "the bound: the same network, taught the centres of the true boxes", boxes=True),
}


class CentredFeatures:
    """Cached features whose samples have the centres of the true boxes of their version, for ``SupervisedStep``."""

    def __init__(self, samples: CachedFeatures) -> None:
        self.samples = samples

    def batch(self, indices: range) -> Batch:
        """Like that of ``CachedFeatures``; ``boxes`` are (objects, 2), centre x and y in pixels of the version."""
        length = -(-self.samples.number // self.samples.batch_size) * self.samples.batch_size
        chosen = [self.samples.order(index // length)[index % length] for index in indices]
        known = [self.samples.images.images[int(image)] for image, _ in chosen]
        centres = [self.centres(int(image), int(view)) for image, view in chosen]
        labels = [torch.from_numpy(one.labels).long() for one in known if one.labels is not None]
        return self.samples.batch(indices)._replace(boxes=centres, labels=labels)

    def centres(self, image: int, view: int) -> Tensor:
        """The centres of the objects in a version of an image, (objects, 2), x and y in its pixels."""
        samples, known = self.samples, self.samples.images.images[image]
        assert known.boxes is not None
        height, width = samples.images.config.preparation.size(known.height, known.width)
        x, y = torch.from_numpy(known.boxes[:, :2]).T * (torch.tensor([[width], [height]]) / _size_of(known))
        turn = samples.turned(image, view)
        if samples.flips == "mirror" and turn % 2:
            x = width - x
        for _ in range(turn if samples.flips == "all" else 0):  # a quarter, anticlockwise, like torch.rot90
            x, y, width, height = y, width - x, height, width
        size = samples.features(image, view)[1].flip(0)
        return torch.stack((x, y), 1) * (size / torch.tensor([width, height]))


def _size_of(image: FolderImage) -> Tensor:
    return torch.tensor([[image.width], [image.height]])


class SupervisedStep(PhotoStep):
    """The step with the true centres as keypoints, on batches of ``CentredFeatures``."""

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """See ``PhotoStep``."""
        self.batch = batch
        return super().__call__(batch, iteration)

    def keypoints(self, response: Tensor, inside: Tensor, counts: Tensor) -> list[Tensor]:
        """The cells of the true centres: (objects, 3), class, row and column, of each image."""
        assert self.batch.boxes is not None and self.batch.labels is not None
        last = torch.tensor([response.shape[2] - 1, response.shape[3] - 1])
        cells = [(one.flip(1) / self.model.config.stride).long() for one in self.batch.boxes]
        pairs = zip(self.batch.labels, cells, strict=True)
        return [
            torch.cat((label[:, None], cell.clamp(min=torch.zeros(2).long(), max=last)), 1) for label, cell in pairs
        ]


class Prepared(NamedTuple):
    """A folder with its features.

    Attributes:
        experiment: as planned.
        samples: the training images.
        judges: validation images, which choose the weights, as in ``mist train``.
        test: packed features, height and width in pixels, and what is known, of each test image.
    """

    experiment: Experiment
    samples: CachedFeatures
    judges: list[Judge]
    test: list[tuple[Tensor, Tensor, FolderImage]]


def prepared(folder: OwnFolder) -> Prepared:
    """Plans a folder and computes the features of its test images.

    Raises:
        MistError: if no test image has boxes.
    """
    preset = find_preset("my-photos").experiment
    planned = plan_photos(dataclasses.replace(preset, data=GivenConfig(given=folder))).experiment
    config: Any = planned.model
    model = config.build().eval()
    model.pyramid.load_pretrained()
    data: Any = planned.data
    samples = CachedFeatures(model, data.open("train"), planned.train.batch_size, data.flips)
    test = []
    for image in folder.images:
        if image.split == "test" and image.counts is not None and image.boxes is not None:
            pixels = model.prepare(load_image(image, 3)[None])
            test.append((model.pyramid(pixels)[0].half(), torch.tensor(pixels.shape[-2:]), image))
    if not test:
        raise MistError(f"{folder.root}: no test image has boxes: give another --test, or boxes")
    known = bool(known_images(folder, "validation"))
    return Prepared(planned, samples, judges_of(model, data.open("validation")) if known else [], test)


def trained(ready: Prepared, part: Part, seed: int, steps: int) -> PhotoMist:
    """A model of one variant and seed."""
    experiment = ready.experiment.with_seed_and_steps(seed, steps)
    experiment = dataclasses.replace(
        experiment,
        model=dataclasses.replace(experiment.model, task=part.task),
        step=dataclasses.replace(experiment.step, **part.step).for_run(steps),
    )
    torch.manual_seed(seed)
    model: Any = experiment.model.build()
    model.pyramid, samples, size = ready.samples.model.pyramid, ready.samples, experiment.train.batch_size
    samples.seed = seed
    PhotoSystem().begin(model, experiment, samples)
    config: Any = experiment.step
    step = (SupervisedStep if part.boxes else PhotoStep)(model.train(), config)
    source = CentredFeatures(samples) if part.boxes else samples
    states, every = {}, experiment.train.save_every
    for iteration in range(steps):
        step(source.batch(range(iteration * size, (iteration + 1) * size)), iteration)
        if iteration + 1 == steps or (part.counts and (iteration + 1) % every == 0):
            states[iteration + 1] = heads_of(model)
    best_state(model, states, ready.judges)
    return model


@torch.inference_mode()
def scores(model: PhotoMist, test: list[tuple[Tensor, Tensor, FolderImage]], counts: bool) -> dict[str, float]:
    """``f1_given`` on test images, and, if the model counts, ``f1`` and ``count_error``."""
    right, found, given, chosen, true, error = 0, 0, 0, 0, 0, 0.0
    for packed, size, image in test:
        assert image.boxes is not None and image.counts is not None
        maps = model(packed[None].float(), size[None])
        response, inside, numbers = maps.heatmap.sigmoid()[0], maps.inside[0], maps.density.sum((2, 3))[0]
        response = model.response(maps)[0] if counts else response
        known = model.detections(response, list(image.counts), inside)
        given, chosen = given + correct(known, image, model.zoom), chosen + len(known.boxes)
        own = model.detections(response, round(float(numbers.sum())), inside, numbers)
        right, found = right + correct(own, image, model.zoom), found + len(own.boxes)
        true, error = true + sum(image.counts), error + abs(len(own.boxes) - sum(image.counts)) / len(test)
    result = {"f1_given": 2 * given / max(1, chosen + true)}
    return result | ({"f1": 2 * right / max(1, found + true), "count_error": error} if counts else {})


def correct(detections: Detections, image: FolderImage, zoom: float) -> int:
    """How many detections have their centre in an object of their class; detections are in prepared pixels."""
    assert image.boxes is not None
    own = detections._replace(boxes=detections.boxes / zoom)
    return int(right_by_centre(own, torch.from_numpy(image.boxes), torch.from_numpy(image.labels).long()).sum())


def studies(folder: OwnFolder, name: str, seeds: int, steps: int, command: str) -> dict[str, Callable[[], Entry]]:
    """What measures each variant, by the name of its entry; the folder is planned when the first one is measured."""
    ready: list[Prepared] = []

    def measured(key: str) -> Entry:
        if not ready:
            ready.append(prepared(folder))
        length = steps or ready[0].experiment.train.steps
        part, begun = PARTS[key], time.monotonic()
        results = [scores(trained(ready[0], part, seed, length), ready[0].test, part.counts) for seed in range(seeds)]
        metrics = {one: round(sum(result[one] for result in results) / seeds, 4) for one in results[0]}
        metrics |= {f"{one}_seed{seed}": round(result[one], 4) for seed, result in enumerate(results) for one in result}
        note = f"{name}: {part.note}; means of seeds 0 to {seeds - 1}. Features of the images are not in the seconds."
        seconds = round(time.monotonic() - begun, 1)
        size = ready[0].experiment.train.batch_size
        return study_entry(entry_name(name, key), metrics, len(ready[0].test), command, note, length, size, seconds)

    return {entry_name(name, key): partial(measured, key) for key in PARTS}


def entry_name(name: str, key: str) -> str:
    """The name of an entry in the ledger."""
    return f"photo-parts-{name}-{key}"


def main() -> None:
    options = ledger_options(__doc__, 0)
    options.add_argument("--data-root", metavar="DIR", help="the image folder")
    options.add_argument("--name", default="folder", help="of the entries")
    options.add_argument("--test", metavar="WORD", help="what the names of the test images hold")
    options.add_argument("--only", nargs="+", choices=tuple(PARTS), metavar="PART", help="these variants")
    given = options.parse()
    if given.data_root is None and not given.smoke:
        options.error("give the image folder with --data-root DIR")
    with tempfile.TemporaryDirectory() as aside:
        if given.data_root is None:
            make_data(Path(aside) / "data")
        word = "" if given.test is None else f" --test {given.test}"
        command = f"python -m benchmarks.photo_parts --data-root {given.name.upper()} --name {given.name}{word}"
        command += f" --seeds {given.seeds}" + (f" --steps {given.steps}" if given.steps else "")
        try:
            folder = read_folder(given.data_root or str(Path(aside) / "data" / "folder"))
            folder = folder if given.test is None else with_test_images(folder, given.test)
            chosen = studies(folder, given.name, given.seeds, given.steps, command)
            wanted = {entry_name(given.name, part) for part in given.only or PARTS}
            report(given, {name: study for name, study in chosen.items() if name in wanted})
        except MistError as error:
            options.error(str(error))


if __name__ == "__main__":
    main()
