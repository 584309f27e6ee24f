"""MIST on photographs: how it is initialised, trained on cached features, and measured."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mistnn.data import FolderConfig
from mistnn.data.folder.images import Flips, FolderImages, known_images
from mistnn.errors import MistError
from mistnn.experiments.experiment import Experiment
from mistnn.experiments.folder import FolderMeasurement, store_intervals
from mistnn.experiments.photo_extents import store_extent
from mistnn.experiments.photo_states import choose_state, keep_state
from mistnn.experiments.system import Say, System
from mistnn.models.photos import PhotoConfig, PhotoMist, find_templates
from mistnn.nn.pyramid import COARSEST
from mistnn.records import Batch, Sample
from mistnn.weights import tensor_digest

MOST_VIEWS = 8
"""Versions of each training image: one unchanged, the others turned or flipped, resized and recoloured (ours)."""
CELLS_IN_ALL = 600_000
"""Squares of 32 px of all versions of all images, which bound the time of the first epochs (our choice)."""
CACHED_BYTES = 3 << 29
"""Features are cached in memory up to this size; those beyond are computed again each time (our choice)."""
SMALLEST, LARGEST = 0.8, 1.1
"""The range of sizes of the changed versions (our choice)."""
LIGHT, SATURATION, BALANCE = 0.25, 0.4, 0.05
"""Changes of brightness and contrast, of saturation, and of the colours beside each other (our choice)."""
SCALED_ON = 100
"""Images from which the mean and deviation of the features are computed."""


class CachedFeatures:
    """The training images as packed features of the frozen network, endless, with neighbours in size in one batch.

    Index i is element i of an endless sequence of rounds, each with every image at least once. The seed and the index
    alone determine a sample.

    Args:
        model: computes the features.
        images: the training split.
        batch_size: so many samples in a row have similar sizes.
        flips: "all": versions are turned by quarters; "mirror": some are flipped left-right; "none": neither.

    Attributes:
        seed: of the order; that of ``images`` at first. Another one can be set, for the same versions in another order.
        distinct: the number of versions of all images.
        room: bytes that the features of all of them take, about.
        keeps: whether all of them are cached.
    """

    def __init__(self, model: PhotoMist, images: FolderImages, batch_size: int, flips: Flips) -> None:
        self.model, self.images, self.flips, self.batch_size = model, images, flips, batch_size
        self.number, self.seed = len(images.images), images.config.seed
        cells = sum(math.prod(self.shape(index, 0)) for index in range(self.number))
        cell = 2 * sum(model.pyramid.packed)  # bytes in half precision
        self.views = max(1, min(MOST_VIEWS, min(CELLS_IN_ALL, CACHED_BYTES // cell) // cells))
        self._round: tuple[tuple[int, int], np.ndarray] = ((-1, -1), np.empty((0, 2), dtype=np.int64))
        self._cache: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self._cached = 0
        self.distinct = self.number * self.views
        self.room = cell * self.views * cells
        self.keeps = self.room <= CACHED_BYTES

    def shape(self, image: int, view: int) -> tuple[int, int]:
        """Rows and columns of the packed features of a version of an image."""
        known = self.images.images[image]
        height, width = self.images.config.preparation.size(known.height, known.width)
        if view:
            _, turn, factor = self._drawn((self.images.config.seed, image, view))
            if self.flips == "all" and turn % 2:
                height, width = width, height
            height, width = _resized(height, factor), _resized(width, factor)
        return -(-height // COARSEST), -(-width // COARSEST)

    @staticmethod
    def _drawn(key: tuple[int, ...]) -> tuple[np.random.Generator, int, float]:
        """The generator of a version after the first two numbers, and these: quarters of a turn, and a factor."""
        random = np.random.default_rng(key)
        return random, int(random.integers(4)), float(random.uniform(SMALLEST, LARGEST))

    def turned(self, image: int, view: int) -> int:
        """Quarters by which a version is turned anticlockwise; with "mirror" an odd number says that it is flipped."""
        return self._drawn((self.images.config.seed, image, view))[1] if view else 0

    def order(self, number: int) -> np.ndarray:
        """Round ``number``: (samples, 2), image and version of each."""
        if self._round[0] != (self.seed, number):
            random = np.random.default_rng((self.seed, number))
            length = -(-self.number // self.batch_size) * self.batch_size
            rounds = -(-length // self.number)
            images = np.concatenate([random.permutation(self.number) for _ in range(rounds)])[:length]
            chosen = np.stack((images, random.integers(0, self.views, length)), 1)
            shapes = [self.shape(*map(int, one)) for one in chosen]
            sizes = [(rows > columns, rows * columns) for rows, columns in shapes]
            chosen = chosen[sorted(range(length), key=sizes.__getitem__)]
            self._round = (self.seed, number), random.permutation(chosen.reshape(-1, self.batch_size, 2)).reshape(-1, 2)
        return self._round[1]

    def __getitem__(self, index: int) -> Sample:
        """The features of a sample, with the counts and the size in pixels of the version."""
        length = -(-self.number // self.batch_size) * self.batch_size
        number, place = divmod(index, length)
        image, view = map(int, self.order(number)[place])
        features, size = self.features(image, view)
        counts = self.images.images[image].counts
        return Sample(features, None if counts is None else torch.tensor(counts), size=size)

    def batch(self, indices: Sequence[int]) -> Batch:
        """Several samples, continued at their lower and right edges to the size of the largest.

        Features of 0 would be an edge that an image has only in some batches, and a class that every image has once
        would be found there.
        """
        samples = [self[index] for index in indices]
        rows, columns = (max(sample.image.shape[axis] for sample in samples) for axis in (1, 2))
        packed = torch.stack([_enlarged(sample.image, rows, columns) for sample in samples])
        counts = [sample.counts for sample in samples if sample.counts is not None]
        sizes = [sample.size for sample in samples if sample.size is not None]
        joined = torch.stack(counts) if len(counts) == len(samples) else None
        return Batch(packed, joined, sizes=torch.stack(sizes))

    def features(self, image: int, view: int) -> tuple[Tensor, Tensor]:
        """The packed features of a version of an image in half precision, and its height and width in pixels."""
        known = self._cache.get((image, view))
        if known is None:
            pixels = self.images.prepared(image)
            pixels = pixels if view == 0 else self.changed(pixels, (self.images.config.seed, image, view))
            device = next(self.model.parameters()).device
            packed = self.model.pyramid(pixels[None].to(device))[0].half().cpu()
            known = packed, torch.tensor(pixels.shape[-2:])
            if self._cached + packed.nbytes <= CACHED_BYTES:
                self._cache[image, view], self._cached = known, self._cached + packed.nbytes
        return known

    def changed(self, image: Tensor, key: tuple[int, ...]) -> Tensor:
        """A version of an image (3, height, width): turned by quarters or flipped, resized and recoloured.

        Every object stays in it, and nothing is added: a class that every image has once would else be counted by
        whatever is added to every image, such as the corners of a tilted frame.
        """
        random, turn, factor = self._drawn(key)
        if self.flips == "all":
            image = torch.rot90(image, turn, (-2, -1))
        elif self.flips == "mirror" and turn % 2:
            image = image.flip(-1)
        size = [_resized(side, factor) for side in image.shape[-2:]]
        resized = F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
        return recoloured(resized, random)


def _resized(side: int, factor: float) -> int:
    return max(1, round(side * factor))


def _enlarged(packed: Tensor, rows: int, columns: int) -> Tensor:
    """Features (channels, ...) in single precision, whose last row and column are repeated."""
    padding = (0, columns - packed.shape[2], 0, rows - packed.shape[1])
    return F.pad(packed[None].float(), padding, mode="replicate")[0]


def recoloured(image: Tensor, random: np.random.Generator) -> Tensor:
    """An image (3, height, width) with other brightness, contrast, saturation and colour balance."""
    gains = 1 + random.uniform(-BALANCE, BALANCE, 3) + random.uniform(-LIGHT, LIGHT)
    saturation, contrast = 1 + random.uniform(-SATURATION, SATURATION), 1 + random.uniform(-LIGHT, LIGHT)
    grey = np.tile([0.299, 0.587, 0.114], (3, 1))
    colours = contrast * gains[:, None] * (saturation * np.eye(3) + (1 - saturation) * grey)
    matrix = torch.from_numpy(colours).float()
    mean = (matrix @ image.mean((1, 2))) * (1 / contrast - 1)
    return (torch.einsum("ij,jhw->ihw", matrix, image) + mean[:, None, None]).clamp(0, 1)


class PhotoSystem(System):
    """Photographs of an image folder, with counts."""

    measured_on: ClassVar = {FolderConfig: FolderMeasurement}
    images = "an image folder"
    chosen_last = ("intervals", "usual", "chosen_at", "measured")
    shown = ("count_error", "count_error_mean", "f1")
    takes_samples = False

    def check_parts(self, model: Any, data: Any, experiment: Experiment) -> None:
        """Compares preparation and classes, and asks for counts."""
        if model.preparation != data.preparation or data.channels != model.channels:
            raise MistError(
                "data.preparation and data.channels must be those of the model: give --model.preparation.zoom and "
                "--data.preparation.zoom the same value"
            )
        if data.root is None:
            return
        folder = data.content()
        if folder.counts_from in ("labels.csv", "nothing"):
            raise MistError(
                f"{data.root}: photographs are learned from counts: give counts.csv with the columns file,class,count"
            )
        if folder.class_names != model.class_names:
            raise MistError(
                f"model.class_names={model.class_names}, but {data.root} has the classes {folder.class_names}"
            )
        sides = [max(model.preparation.size(image.height, image.width)) for image in folder.images]
        if model.box_size > max(sides):
            raise MistError(
                f"model.box_size={model.box_size:g} is larger than every image ({max(sides)} px after resizing): it is "
                "the side of an object in pixels after resizing"
            )

    def initialise(self, model: Any, experiment: Experiment, resuming: bool) -> None:
        """Reads the pretrained weights; with ``start_from``, those of that model."""
        super().initialise(model, experiment, resuming)
        if not resuming and experiment.start_from is None:
            model.pyramid.load_pretrained()

    def begin(self, model: Any, experiment: Experiment, samples: CachedFeatures) -> None:
        """Computes mean and deviation of features and counts, and the templates."""
        step: Any = experiment.step
        counts = torch.tensor([one.counts for one in samples.images.images])
        both = torch.cat((counts, counts.sum(1, keepdim=True)), 1).float()
        model.deviations.copy_(both.std(0, correction=0).clamp(min=0.5))
        if experiment.start_from is not None:
            return
        places = np.linspace(0, samples.number - 1, min(SCALED_ON, samples.number)).round().astype(int)
        means, squares = [], []
        for index in places:
            maps = model.pyramid.unpack(samples.features(int(index), 0)[0][None].float())
            means.append(model.means(maps)[0])
            squares.append(model.means([one.square() for one in maps])[0])
        mean = torch.stack(means).mean(0)
        model.center.copy_(mean)
        model.scale.copy_((torch.stack(squares).mean(0) - mean.square()).clamp(min=1e-6).sqrt())
        model.spread.copy_((torch.stack(means).std(0, correction=0) / model.scale).clamp(min=1e-3))
        if step.start == "templates" and step.keypoints == "counts":

            def gridded(index: int) -> Tensor:
                packed, size = samples.features(index, 0)
                return model.gridded(packed.float(), size)

            found = find_templates(gridded, counts, model.config.window, samples.seed)
            model.template.data.copy_(found.weight)
            model.template_bias.data.copy_(found.bias)

    def training_samples(self, model: Any, experiment: Experiment, samples: Any) -> Any:
        """Cached features in place of images."""
        return CachedFeatures(model, samples, experiment.train.batch_size, samples.config.flips)

    def note_weights(self, experiment: Experiment, model: Any) -> Experiment:
        """The experiment with the digest of the pretrained weights."""
        config: Any = experiment.model
        if config.pyramid.digest is not None:  # a resumed run, whose weights are in its checkpoint
            return experiment
        pyramid = dataclasses.replace(config.pyramid, digest=tensor_digest(model.pyramid.body.state_dict()))
        return dataclasses.replace(experiment, model=dataclasses.replace(config, pyramid=pyramid))

    def resume(self, experiment: Experiment, stored: Experiment) -> Experiment:
        """The experiment with the stored digest of the weights, which the checkpoint holds."""
        config: Any = experiment.model
        before: Any = stored.model
        if before.kind != config.kind:
            return experiment
        pyramid = dataclasses.replace(config.pyramid, digest=before.pyramid.digest)
        return dataclasses.replace(experiment, model=dataclasses.replace(config, pyramid=pyramid))

    def weights_used(self, model: Any) -> str:
        """The pretrained weights that a configuration names, with their hash."""
        pyramid = model.pyramid
        return "" if pyramid.weights is None else f"{pyramid.weights} (sha256 {(pyramid.digest or '')[:12]})"

    def can_validate(self, experiment: Experiment) -> bool:
        """A folder may have no validation images."""
        data: Any = experiment.data
        return bool(known_images(data.content(), "validation"))

    def keep(self, model: Any, folder: Path, experiment: Experiment, steps: int) -> None:
        """Keeps the weights of the heads at each regular save, from which ``finish`` chooses."""
        every, last = experiment.train.save_every, experiment.train.steps
        if self.can_validate(experiment) and (steps == last or (every and steps % every == 0)):
            keep_state(model, folder, steps)

    def finish(self, out: Path, experiment: Experiment, say: Say) -> None:
        """Chooses the weights that count the validation images best, and learns the sizes of objects.

        It also measures how far counts can be trusted, and which images are usual.
        """
        if self.can_validate(experiment):
            best, last = choose_state(out, experiment)
            if best < last:
                say(f"the weights after {best} of {last} steps count the validation images best, and are kept")
        if not store_extent(out, experiment):
            say("features do not show where objects end: all boxes are squares of one size (--model.box-size)")
        if self.can_validate(experiment):
            store_intervals(out, experiment)

    def notes(self, experiment: Experiment, model: Any) -> list[str]:
        """Says what random weights cost."""
        config: Any = experiment.model
        if config.pyramid.weights is not None or experiment.start_from is not None:
            return []
        return ["the network has random weights, and counts and finds far worse: pip install 'mistnn[photos]'"]


SYSTEMS = {PhotoConfig: PhotoSystem()}
