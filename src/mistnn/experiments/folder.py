"""How well a model counts and finds the objects of an image folder."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from mistnn.data import FolderConfig, FolderImage, FolderImages
from mistnn.data.folder.content import in_order_of
from mistnn.data.folder.images import known_images
from mistnn.data.text_files import listed
from mistnn.experiments.experiment import Experiment
from mistnn.experiments.measuring import Measurement
from mistnn.inference.counting import above, choose_threshold, interval, interval_factor
from mistnn.interfaces import DataConfig, Split
from mistnn.nn.finder import Finder
from mistnn.records import Detections, Sample
from mistnn.training.runfolder import files_of_training

DETECTED_AT_ONCE = 8
"""Images in a batch."""
LEAST_THRESHOLD = 1e-9
"""The smallest threshold that is stored, since 0 says that none was chosen."""


class FolderView(NamedTuple):
    """What a model finds in a split of a folder, and what is known about it.

    Attributes:
        images: of the split, those about which anything is known.
        samples: the same, prepared, without their pixels: boxes are in pixels of the prepared image.
        found: for each image the detections above the threshold, in pixels of the prepared image.
        threshold: the model's own, or one chosen here if it has none.
        trained: the images of the training split, for comparison; those of this split if the folder has no others.
    """

    images: tuple[FolderImage, ...]
    samples: list[Sample]
    found: list[Detections]
    threshold: float
    trained: tuple[FolderImage, ...]

    def counted(self) -> Int[Tensor, "images classes"]:
        """The number of objects of each class found in each image."""
        classes = len(self.trained[0].present or ())
        return torch.stack([torch.bincount(_labels(one), minlength=classes) for one in self.found])

    def true(self) -> Int[Tensor, "images classes"] | None:
        """The true numbers; ``None`` where they are unknown."""
        counts = [sample.counts for sample in self.samples if sample.counts is not None]
        return torch.stack(counts) if len(counts) == len(self.samples) else None

    def mean(self) -> Float[Tensor, " classes"]:
        """For each class, its mean count in a training image, or the share of training images that hold it."""
        known = [image.present if image.counts is None else image.counts for image in self.trained]
        return torch.tensor([one for one in known if one is not None]).double().mean(0)


class FolderMeasurement(Measurement):
    """Counting and detection without a given K: detections that reach the model's threshold are counted.

    A model without a threshold gets one here, chosen by what is known about the validation images. All detections of a
    model that counts itself are counted.

    Metrics: see ``folder_metrics`` and ``interval_metrics``.
    """

    fixed_k = "images of a folder are always measured without K, and `mist evaluate` does so"
    model: Finder
    samples: FolderImages

    def __init__(self, model: Finder, data: FolderConfig, split: Split, samples: FolderImages) -> None:
        super().__init__(model, data, split, samples)
        self.known: list[Sample] = []
        self.found: list[Detections] = []

    @classmethod
    def open(cls, model: Finder, data: FolderConfig, split: Split, images: int | None) -> FolderImages:
        """The split, with the folder's classes in the model's order.

        Raises:
            MistError: if the folder has other classes than the model.
        """
        folder = in_order_of(data.content(), model.class_names)
        return FolderImages(data, split, images or sys.maxsize, folder)

    def batches(self, total: int) -> Iterator[range]:
        """Neighbours of the same size together, a few at a time."""
        return neighbours(self.data, self.samples.images[:total])

    def add(self, indices: range) -> None:
        """Finds all K objects of some images, and keeps what is known about these without their pixels."""
        samples = self.read(indices)
        self.known += [sample._replace(image=sample.image.new_empty(0)) for sample in samples]
        images = torch.stack([sample.image for sample in samples])
        self.found += [one.cpu() for one in self.model.detect(images.to(self.device))]

    def result(self) -> dict[str, float]:
        """The metrics."""
        view = self.view()
        return folder_metrics(view, self.model.class_names) | interval_metrics(view, self.model)

    def view(self) -> FolderView:
        """What was found, and what is known about the images."""
        if self.model.counts_itself:
            return self.view_above(0.0)
        own = self.model.threshold
        if not own and self.split == "validation":
            own = _threshold(self.known, self.found)
        return self.view_above(own or threshold_by_counts(self.model, self.data))

    def view_above(self, threshold: float) -> FolderView:
        """``view`` with a given threshold."""
        folder = in_order_of(self.data.content(), self.model.class_names)
        images = self.samples.images[: len(self.known)]
        found = [above(one, threshold) for one in self.found]
        return FolderView(images, self.known, found, threshold, known_images(folder, "train") or images)


def threshold_seen(seen: Collection[str], data: DataConfig) -> bool:
    """Whether a training that used these files may have chosen its threshold by the validation images of some data."""
    return not seen or not set(seen).isdisjoint(data.checksums("validation").values())


def seen_in_training(run: str | Path, data: DataConfig, split: Split) -> str:
    """A note on test images that the training of a run used; empty if there are none.

    Splits follow the names of the files. After these were renamed, or in another folder, a test image may be one of
    those that the run was trained on, or chose its threshold by. Files are compared by their CRC-32.

    Args:
        run: a run folder; a shipped model has no such files.
        data: of the measurement.
        split: of the data that is measured; nothing is said about others than "test".
    """
    known = files_of_training(Path(run)) if split == "test" else frozenset()
    return too_good(data.checksums(split) if known else {}, known, "test images", "give new images, or a column split")


def too_good(checksums: Mapping[str, str], known: Collection[str], what: str, fix: str) -> str:
    """A note on measured images that the training used; empty if there are none.

    Args:
        checksums: of the files that are measured, by name.
        known: those of the files that the training used.
        what: the files are.
        fix: what to do instead.
    """
    seen = [name for name, checksum in checksums.items() if checksum in known]
    if not seen:
        return ""
    return (
        f"{len(seen)} of {len(checksums)} {what} were used in the training ({listed(seen)}), so the numbers are too "
        f"good: {fix}"
    )


def view_folder(model: Finder, data: FolderConfig, split: Split, images: int | None = None) -> FolderView:
    """Finds the objects of a split, see ``FolderMeasurement``.

    Args:
        model: left in its mode.
        data: the folder.
        split: which images.
        images: at most so many; all if not given.

    Raises:
        MistError: if the folder has other classes than the model.
    """
    return _collected(model, data, split, images).view()


def folder_metrics(view: FolderView, class_names: Sequence[str]) -> dict[str, float]:
    """The metrics of what was found in a folder.

    Args:
        view: what was found and what is known.
        class_names: of the model.

    Returns:
        ``count_error``: the mean absolute error of an image's number of objects; ``count_error_mean``: that of always
        guessing the mean of the training images (or of these images, if the folder has no others). Both also for each
        class, with its name after a colon.
        ``count_mrmse`` and ``count_mrelrmse``: the root mean square error of the counts of a class, and the same with
        each squared error divided by the true count plus 1, averaged over the classes (Chattopadhyay et al. 2017;
        CountSeg, CVPR 2019).

        Where only the classes present are known, ``presence`` instead: the share of (image, class) pairs for which the
        presence of the class is predicted correctly; ``presence_guess``: that of always predicting what is true of most
        training images.

        Where boxes are known, ``precision``, ``recall`` and ``f1`` by the centre of a box, and ``f1_iou50`` by an
        overlap of more than half, for each class and overall. ``threshold``, ``images``, and ``objects`` where counts
        are known.
    """
    counted, true, mean = view.counted(), view.true(), view.mean()
    result = {"threshold": view.threshold, "images": float(len(view.images))}
    groups = [("", list(range(len(class_names)))), *((f":{name}", [index]) for index, name in enumerate(class_names))]
    for name, chosen in groups:
        if true is None:
            present = torch.stack([_presence(sample) for sample in view.samples])[:, chosen]
            result[f"presence{name}"] = float(((counted[:, chosen] > 0) == present).double().mean())
            result[f"presence_guess{name}"] = float(((mean[chosen] > 0.5) == present).double().mean())
        else:
            of_image = true[:, chosen].sum(1)
            result[f"count_error{name}"] = _error(counted[:, chosen].sum(1), of_image)
            result[f"count_error_mean{name}"] = _error(mean[chosen].sum().expand(len(true)), of_image)
    if true is not None:
        result["objects"] = float(true.sum())
        squares = (counted - true).double().square()
        result["count_mrmse"] = float(squares.mean(0).sqrt().mean())
        result["count_mrelrmse"] = float((squares / (true + 1)).mean(0).sqrt().mean())
    return result | _centre_metrics(view, class_names)


def _centre_metrics(view: FolderView, class_names: Sequence[str]) -> dict[str, float]:
    """Precision, recall and F1 by centres, and F1 by overlap, on the images with known boxes."""
    from mistnn.metrics import CentreMetrics, both

    result: dict[str, float] = {}
    boxed = [place for place, sample in enumerate(view.samples) if sample.boxes is not None]
    for name, index in (("", None), *((f":{name}", index) for index, name in enumerate(class_names))):
        if not boxed:
            continue
        metric = CentreMetrics()
        chosen = [_of_class(view.found[place], view.samples[place], index) for place in boxed]
        metric.update([one for one, _, _ in chosen], [boxes for _, boxes, _ in chosen], [own for _, _, own in chosen])
        result |= {f"{key}{name}": value for key, value in metric.compute().items()}
        if objects := sum(len(boxes) for _, boxes, _ in chosen):
            overlapping = both(*(list(part) for part in zip(*chosen, strict=True))) * objects
            result[f"f1_iou50{name}"] = 2 * overlapping / (objects + sum(len(one.boxes) for one, _, _ in chosen))
    return result


def threshold_by_counts(model: Finder, data: FolderConfig) -> float:
    """The score that counts the objects of the validation images best, or of the training images if there are none.

    Where only the classes present are known, it is the score that predicts best which are.

    Args:
        model: left in its mode.
        data: the folder.
    """
    known = {image.split for image in data.content().images if image.present is not None}
    measurement = _collected(model, data, "validation" if "validation" in known else "train", None)
    return _threshold(measurement.known, measurement.found)


def store_threshold(out: Path, experiment: Experiment) -> None:
    """Writes the model of a run again, with the threshold that counts the validation images best."""
    from mistnn.experiments.run import save_again
    from mistnn.weights import load_model

    model: Any = load_model(out)
    data: Any = experiment.data
    threshold = max(round(threshold_by_counts(model, data), 6), LEAST_THRESHOLD)
    chosen = dataclasses.replace(model.config, threshold=threshold)
    save_again(out, out, model, dataclasses.replace(experiment, model=chosen))


def store_intervals(out: Path, experiment: Experiment) -> None:
    """Writes the model of a run again, with what its validation images tell.

    These are the intervals of its counts, if the images suffice, and the largest distance from the training images.
    """
    from mistnn.experiments.run import save_again
    from mistnn.weights import load_model

    model: Any = load_model(out)
    data: Any = experiment.data
    model.config = dataclasses.replace(model.config, usual=1.0)  # distances are then found in their own unit
    view = view_folder(model, data, "validation")
    usual = max((one.unlike for one in view.found if one.unlike is not None), default=0.0)
    counted, true = view.counted(), view.true()
    assert true is not None
    factors = [interval_factor(*pair) for pair in zip(counted.T.tolist(), true.T.tolist(), strict=True)]
    known = tuple(round(one, 6) for one in factors if one is not None)
    known = known if len(known) == len(factors) else ()
    chosen = dataclasses.replace(model.config, intervals=known, usual=round(usual, 6))
    save_again(out, out, model, dataclasses.replace(experiment, model=chosen))


def interval_metrics(view: FolderView, model: Finder) -> dict[str, float]:
    """``interval_coverage``: the share of (image, class) pairs whose true count lies in its interval; and their widths.

    Empty for a model without intervals, or if counts are unknown. ``interval_width`` is the mean of largest - smallest.
    """
    true = view.true()
    if not model.intervals or true is None:
        return {}
    within, widths = [], []
    for counted, counts in zip(view.counted().tolist(), true.tolist(), strict=True):
        for one, count, factor in zip(counted, counts, model.intervals, strict=True):
            low, high = interval(one, factor)
            within.append(low <= count <= high)
            widths.append(high - low)
    return {"interval_coverage": sum(within) / len(within), "interval_width": sum(widths) / len(widths)}


class DiscoveryMeasurement(Measurement):
    """Reconstruction by a model without classes; the K of the model is used in every image.

    Metrics: ``rmse``, ``rmse_black``, ``rmse_mean`` and ``r2`` of the prepared images, padded to one size, see
    ``mistnn.metrics.ReconstructionMetrics``; ``images``. For images with known boxes ``precision``, ``recall`` and
    ``f1``, where a detection is right if its centre lies in the box of an object of any class; ``objects``.
    """

    fixed_k = FolderMeasurement.fixed_k
    model: Finder
    samples: FolderImages

    def __init__(self, model: Finder, data: FolderConfig, split: Split, samples: FolderImages) -> None:
        from mistnn.metrics import CentreMetrics, ReconstructionMetrics

        super().__init__(model, data, split, samples)
        self.errors, self.centres = (
            ReconstructionMetrics((data.channels, samples.height, samples.width)),
            CentreMetrics(),
        )
        self.images = self.objects = self.boxed = 0

    @classmethod
    def open(cls, model: Finder, data: FolderConfig, split: Split, images: int | None) -> FolderImages:
        """The split; classes, if the folder has any, don't matter."""
        return FolderImages(data, split, images or sys.maxsize)

    def batches(self, total: int) -> Iterator[range]:
        """Neighbours of the same size together, a few at a time."""
        return neighbours(self.data, self.samples.images[:total])

    def add(self, indices: range) -> None:
        """Runs the model on some images."""
        samples = self.read(indices)
        batch = torch.stack([sample.image for sample in samples])
        explained = self.model.explain(batch.to(self.device), self.model.config.k)
        if explained.reconstruction is not None:
            down, right = self.samples.height - batch.shape[-2], self.samples.width - batch.shape[-1]
            padded = (F.pad(some, (0, right, 0, down)) for some in (explained.reconstruction.cpu(), batch))
            self.errors.update(*padded)
        self.images += len(samples)
        for sample, found in zip(samples, explained.detections, strict=True):
            if sample.boxes is not None:
                self.centres.update(
                    [Detections(found.boxes.cpu(), found.scores.cpu(), _one_class(found.boxes))],
                    [sample.boxes],
                    [_one_class(sample.boxes)],
                )
                self.objects, self.boxed = self.objects + len(sample.boxes), self.boxed + 1

    def result(self) -> dict[str, float]:
        """The metrics."""
        result = {"images": float(self.images), **(self.errors.compute() if self.model.reconstructs else {})}
        return result | ({**self.centres.compute(), "objects": float(self.objects)} if self.boxed else {})


def neighbours(data: FolderConfig, images: Sequence[FolderImage]) -> Iterator[range]:
    """The indices of all images in their order, neighbours of the same prepared size together, a few at a time."""
    start = 0
    sizes = [data.preparation.size(image.height, image.width) for image in images]
    for index in range(1, len(sizes) + 1):
        if index == len(sizes) or index - start == DETECTED_AT_ONCE or sizes[index] != sizes[start]:
            yield range(start, index)
            start = index


def _collected(model: Finder, data: FolderConfig, split: Split, images: int | None) -> FolderMeasurement:
    """A measurement that has seen its images."""
    measurement = FolderMeasurement(model, data, split, FolderMeasurement.open(model, data, split, images))
    measurement.collect()
    return measurement


def _threshold(samples: Sequence[Sample], found: Sequence[Detections]) -> float:
    """The score that counts the objects of some images best, or predicts best which classes are present."""
    scores = [one.scores for one in found]
    counts = [int(sample.counts.sum()) for sample in samples if sample.counts is not None]
    if len(counts) == len(samples):
        return choose_threshold(scores, counts)
    # Each class of each image is a bag of detections: at least one of them should count, or none.
    present = [_presence(sample).tolist() for sample in samples]
    pairs = zip(found, present, strict=True)
    best = [one.scores[_labels(one) == index][:1] for one, classes in pairs for index in range(len(classes))]
    return choose_threshold(best, [int(there) for classes in present for there in classes])


def _of_class(found: Detections, sample: Sample, index: int | None) -> tuple[Detections, Tensor, Tensor]:
    """Detections, true boxes and true labels of one class, or of all."""
    assert sample.boxes is not None and sample.labels is not None
    labels = _labels(found)
    if index is None:
        return found, sample.boxes, sample.labels
    kept, true = labels == index, sample.labels == index
    return found.where(kept), sample.boxes[true], sample.labels[true]


def _labels(found: Detections) -> Tensor:
    assert found.labels is not None
    return found.labels


def _presence(sample: Sample) -> Tensor:
    assert sample.presence is not None
    return sample.presence


def _error(predicted: Tensor, true: Tensor) -> float:
    return float((predicted.double() - true.double()).abs().mean())


def _one_class(boxes: Tensor) -> Tensor:
    return torch.zeros(len(boxes), dtype=torch.int64)
