"""What the systems for photographs share: a pretrained backbone, and Table 4's measures (MIST, CVPR 2021)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from torch import Tensor

from mistnn.data import NaturalConfig, NaturalImages, read_built
from mistnn.errors import MistError
from mistnn.experiments.experiment import Experiment
from mistnn.experiments.measuring import Measurement
from mistnn.experiments.system import System
from mistnn.interfaces import Split
from mistnn.nn.finder import Finder
from mistnn.records import Detections
from mistnn.weights import tensor_digest

RANDOM_BACKBONE = (
    "the backbone has random weights, so little can be learnt: give pretrained ones with --model.backbone.weights "
    "FILE, or hub to download them"
)


class PhotographMeasurement(Measurement):
    """Detection in photographs: the model classifies K patches of each, some of them as background.

    Each image is processed separately at its own size, as in prediction.

    Metrics: ``precision``, ``recall`` and ``f1``, where a detection is right if its centre lies in the box of an object
    of its class (``mistnn.metrics.centre_scores``); ``precision_iou50``, ``recall_iou50`` and ``f1_iou50``, where it is
    right if it overlaps one by more than half; ``images``, ``objects``, ``found``. A metric whose denominator is 0 is
    missing.
    """

    at_once = 1
    fixed_k = "photographs are always measured without a given number of objects"
    model: Finder
    samples: NaturalImages

    def __init__(self, model: Finder, data: NaturalConfig, split: Split, samples: NaturalImages) -> None:
        super().__init__(model, data, split, samples)
        if samples.class_names != model.class_names:
            raise MistError(
                f"{data.root} has the classes {' '.join(samples.class_names)}, the model has "
                f"{' '.join(model.class_names)}: give the folder that it was trained on, or one built in the same way"
            )
        self.found: list[Detections] = []
        self.boxes: list[Tensor] = []
        self.labels: list[Tensor] = []

    def add(self, indices: range) -> None:
        """Runs the model on one image."""
        sample = self.samples[indices.start]
        assert sample.boxes is not None and sample.labels is not None
        explained = self.model.explain(sample.image[None].to(self.device), self.model.config.k)
        self.found.append(explained.detections[0].cpu())
        self.boxes.append(sample.boxes)
        self.labels.append(sample.labels)

    def result(self) -> dict[str, float]:
        """The metrics."""
        from mistnn.metrics import CentreMetrics, both

        metric = CentreMetrics()
        metric.update(self.found, self.boxes, self.labels)
        objects, detections = sum(map(len, self.labels)), sum(len(one.boxes) for one in self.found)
        hits = round(both(self.found, self.boxes, self.labels) * objects)
        result = metric.compute() | {"recall_iou50": hits / objects, "f1_iou50": 2 * hits / (objects + detections)}
        if detections:
            result["precision_iou50"] = hits / detections
        return result | {"images": float(len(self.found)), "objects": float(objects), "found": float(detections)}


class PhotographSystem(System):
    """A system on the features of a pretrained backbone."""

    measured_on: ClassVar = {NaturalConfig: PhotographMeasurement}
    images = "photographs that `mist build` prepared"
    saves_start = True  # the file with the backbone's weights may be gone when the run is resumed

    def check_parts(self, model: Any, data: Any, experiment: Experiment) -> None:
        """Compares the classes with those of the folder."""
        if data.root is not None and (known := read_built(data.root).class_names) != model.class_names:
            raise MistError(
                f"{data.root} has the classes {' '.join(known)}, model.class_names are {' '.join(model.class_names)}: "
                "give --model.class-names those of the folder"
            )

    def initialise(self, model: Any, experiment: Experiment, resuming: bool) -> None:
        """Loads the backbone's weights, unless all weights come from elsewhere.

        Raises:
            MistError: if they can't be read, or differ from those that the run was started with.
        """
        super().initialise(model, experiment, resuming)
        if experiment.start_from is not None or resuming:
            return
        model.backbone.load_pretrained()
        config = model.backbone.config
        if config.digest is None or config.weights is None:
            return
        found = tensor_digest(model.backbone.body.state_dict())
        if found != config.digest:
            raise MistError(
                f"model.backbone.weights={config.weights} holds other weights (SHA-256 {found[:12]}) than those the "
                f"run was started with ({config.digest[:12]}): give that file with --model.backbone.weights FILE"
            )

    def note_weights(self, experiment: Experiment, model: Any) -> Experiment:
        """Stores the hash of the backbone's weights."""
        backbone = experiment.model.backbone  # pyright: ignore[reportAttributeAccessIssue]
        if backbone.weights is None or backbone.digest:
            return experiment
        return _with_digest(experiment, tensor_digest(model.backbone.body.state_dict()))

    def resume(self, experiment: Experiment, stored: Experiment) -> Experiment:
        """Takes over the hash of the weights that the run was started with."""
        mine: Any = experiment.model
        theirs: Any = stored.model
        if mine.kind != theirs.kind or mine.backbone.weights is None or mine.backbone.digest is not None:
            return experiment
        return _with_digest(experiment, theirs.backbone.digest)

    def weights_used(self, model: Any) -> str:
        """The backbone and the hash of its weights."""
        backbone = model.backbone
        if backbone.weights is None:
            return f"{backbone.network} with random weights"
        return f"{backbone.network}, {backbone.weights}, SHA-256 {backbone.digest or 'unknown'}"

    def notes(self, experiment: Experiment, model: Any) -> list[str]:
        """Warns of a backbone with random weights."""
        random = model.backbone.config.weights is None and experiment.start_from is None
        return [RANDOM_BACKBONE] if random else []


def _with_digest(experiment: Experiment, digest: str | None) -> Experiment:
    model: Any = experiment.model
    backbone = dataclasses.replace(model.backbone, digest=digest)
    return dataclasses.replace(experiment, model=dataclasses.replace(model, backbone=backbone))
