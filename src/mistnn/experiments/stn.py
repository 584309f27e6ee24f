"""Spatial Transformer Networks: how classifiers and localisers are checked, initialised and measured."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from mistnn.data import CommonObjectConfig, CubConfig, DistortedConfig, NumberCropsConfig
from mistnn.data.digits.distorted import CLASSES
from mistnn.data.photographs.cub import read_cub
from mistnn.errors import MistError
from mistnn.experiments.checks import check_equal, check_one_process
from mistnn.experiments.experiment import Experiment
from mistnn.experiments.measuring import CommonObjectMeasurement, Measurement
from mistnn.experiments.photographs import RANDOM_BACKBONE
from mistnn.experiments.system import System
from mistnn.interfaces import DataConfig, SampleDataset, Split
from mistnn.models.stn import BirdsConfig, ColocaliserConfig, NumberReaderConfig, StnConfig, count_parameters
from mistnn.records import collate
from mistnn.training.batches import BatchDataset, batches, to_device
from mistnn.weights import load_model

ENCODER = "stn-coloc-encoder"
"""The preset whose weights teach co-localisation."""


class ClassifierMeasurement(Measurement):
    """How often an image is misclassified.

    Metrics: ``error``, 0 to 1 (for a house number, any wrong digit counts); ``images``; and ``outside_1`` ..., the
    share of what each spatial transformer samples outside its input.
    """

    at_once = 250
    fixed_k = "these images are classified, and hold no objects to count"

    def __init__(self, model: Any, data: DataConfig, split: Split, samples: Any) -> None:
        super().__init__(model, data, split, samples)
        self.images = self.mistakes = 0
        self.outside = torch.zeros(0)

    def add(self, indices: range) -> None:
        """Classifies some images."""
        samples = self.samples
        batch = samples.batch(indices) if isinstance(samples, BatchDataset) else collate(self.read(indices))
        self.note(*self.model.measure(to_device(batch, self.device)))

    def note(self, wrong: Tensor, outside: Tensor) -> None:
        """Adds the mistakes, (batch,), and the shares sampled outside, (batch, transformers)."""
        self.images, self.mistakes = self.images + len(wrong), self.mistakes + int(wrong.sum())
        total = outside.sum(0).cpu()
        self.outside = self.outside + total if len(self.outside) else total

    def result(self) -> dict[str, float]:
        """The metrics."""
        shares = {f"outside_{number}": float(total) / self.images for number, total in enumerate(self.outside, 1)}
        return {"error": self.mistakes / self.images, "images": self.images, **shares}


class BirdMeasurement(ClassifierMeasurement):
    """As ``ClassifierMeasurement``; each bird is classified by the mean posterior of ten views.

    The views are four corners and the centre, and their mirror images (S003, section 1.5).
    """

    at_once = 1

    def add(self, indices: range) -> None:
        """Classifies one bird."""
        batch = to_device(collate(self.read(indices)), self.device)
        self.note(*self.model.measure(batch, self.samples.views(indices.start)[None].to(self.device)))


class ClassifierSystem(System):
    """A classifier of distorted digits."""

    measured_on: ClassVar = {DistortedConfig: ClassifierMeasurement}
    images = "distorted digits"
    is_classifier = True

    def check_parts(self, model: Any, data: Any, experiment: Experiment) -> None:
        """Compares sides, channels and classes."""
        check_equal("model.side", model.side, "data.canvas", data.canvas)
        if model.channels != data.digits:
            raise MistError(f"model.channels={model.channels}, but data.digits={data.digits}: one channel per digit")
        sums = data.digits * (CLASSES - 1) + 1
        if model.classes != sums:
            raise MistError(f"model.classes={model.classes}, but there are {sums} classes: give {sums}")

    def notes(self, experiment: Experiment, model: Any) -> list[str]:
        """The number of learnable parameters."""
        return [f"the network has {count_parameters(model):,} learnable parameters"]


class NumberSystem(ClassifierSystem):
    """A classifier of whole house numbers."""

    measured_on: ClassVar = {NumberCropsConfig: ClassifierMeasurement}
    images = "crops of house numbers"

    def check_parts(self, model: Any, data: Any, experiment: Experiment) -> None:
        """Compares sides."""
        check_equal("model.side", model.side, "data.side", data.side)


class BirdSystem(ClassifierSystem):
    """A classifier of birds, on pretrained networks."""

    measured_on: ClassVar = {CubConfig: BirdMeasurement}
    images = "the birds of CUB-200-2011"

    def check_parts(self, model: Any, data: Any, experiment: Experiment) -> None:
        """Compares sides and classes."""
        check_equal("model.side", model.side, "data.side", data.side)
        if data.root is not None and (known := len(read_cub(data.root).class_names)) != model.classes:
            raise MistError(f"model.classes={model.classes}, but {data.root} has {known} classes: make them equal")

    def initialise(self, model: Any, experiment: Experiment, resuming: bool) -> None:
        """Loads pretrained weights, unless all weights come from elsewhere."""
        super().initialise(model, experiment, resuming)
        if experiment.start_from is None and not resuming:
            model.load_pretrained()

    def notes(self, experiment: Experiment, model: Any) -> list[str]:
        """Also warns of random weights."""
        random = model.config.backbone.weights is None and experiment.start_from is None
        return super().notes(experiment, model) + ([RANDOM_BACKBONE] if random else [])


class ColocaliserSystem(System):
    """Co-localisation of the object that all images have in common."""

    measured_on: ClassVar = {CommonObjectConfig: CommonObjectMeasurement}
    images = "images with a common object"

    def check_parts(self, model: Any, data: Any, experiment: Experiment) -> None:
        """Compares sides, and refuses batches and processes that can't compare images."""
        check_equal("model.side", model.side, "data.canvas", data.canvas)
        check_one_process("Localisers of a common object", "each keep running means of their own")
        if experiment.train.batch_size < 2:
            raise MistError("train.batch_size=1: a batch must hold 2 or more images to find what they have in common")

    def initialise(self, model: Any, experiment: Experiment, resuming: bool) -> None:
        """Loads the encoder that teaches the localiser, a classifier's weights.

        Raises:
            MistError: if ``start_from`` names none, or a network other than the localiser's encoder.
        """
        if resuming:
            return
        if experiment.start_from is None:
            raise MistError(
                f"co-localisation needs an encoder that classifies digits: `mist train {ENCODER}`, then give "
                f"--start-from runs/{ENCODER}"
            )
        model.load_encoder(load_model(experiment.start_from), experiment.start_from)

    def begin(self, model: Any, experiment: Experiment, samples: SampleDataset) -> None:
        """Scales the units of the localiser over the first batch."""
        loop = experiment.train
        first = next(batches(samples, start=0, stop=1, batch_size=loop.batch_size, seed=loop.seed))[1]
        model.window.wake(first.images.contiguous(memory_format=torch.channels_last))


SYSTEMS = {
    StnConfig: ClassifierSystem(),
    NumberReaderConfig: NumberSystem(),
    BirdsConfig: BirdSystem(),
    ColocaliserConfig: ColocaliserSystem(),
}
