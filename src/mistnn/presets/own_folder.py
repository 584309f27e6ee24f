"""A folder of your own: settings that suit it, and how well a model counts and finds there."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mistnn.data import SizeSuggestion, Split
from mistnn.data.folder.content import FolderImage, OwnFolder, in_order_of, read_folder
from mistnn.data.folder.images import (
    FolderConfig,
    FolderImages,
    content_of,
    ground_of,
    measured_images,
    object_size_of,
)
from mistnn.errors import MistError
from mistnn.inference.counting import above, choose_threshold
from mistnn.models.mist import LiftedStepConfig, Mist, MistConfig
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.nn.preparation import Ground, PreparationConfig
from mistnn.records import Detections, Sample

GROUNDS: Mapping[Ground, str] = MappingProxyType(
    {
        "light": "what is darker than its lightest colours stays",
        "dark": "what is lighter than its darkest colours stays",
        "median": "what differs from its median colour stays",
    }
)
"""What each way to take the ground away leaves, for the user."""
BOX = 20.0
"""Side in pixels that objects are brought to: the size at which the networks' windows were chosen."""
CONTEXT = 1.2
"""Side of a patch in boxes: a little of what is around helps the small networks (our choice)."""
DETECTED_AT_ONCE = 8


class FolderPlan(NamedTuple):
    """Settings for a folder.

    Attributes:
        model: network.
        data: the folder and its preparation.
        step: training step.
        reasons: one line for each choice, for the user.
    """

    model: MistConfig
    data: FolderConfig
    step: LiftedStepConfig
    reasons: tuple[str, ...]


def plan_folder(
    root: str, steps: int, k: int | None = None, *, folder: OwnFolder | None = None, size: SizeSuggestion | None = None
) -> FolderPlan:
    """Chooses object size, K, classes and objective from what a folder holds.

    Args:
        root: the folder.
        steps: of the training, over which the learning rates fall.
        k: the most objects in an image; needed where counts are not known, else the largest count.
        folder: its content, where it has been read before.
        size: of its objects, where it has been measured before.

    Raises:
        MistError: if the folder can't be used, or says nothing of how many objects its images hold.
    """
    folder = read_folder(root) if folder is None else folder
    if folder.counts_from == "nothing":
        return _plan_unlabelled(root, steps, k, folder, size)
    totals = _totals(folder, root, k)
    if not totals or not max(totals):
        raise MistError(
            f"{root}: no training image has an object by its counts, so there is nothing to learn from: give "
            f"counts.csv with the columns file,class,count; `mist inspect {root}` shows what was read"
        )
    measured = measured_images(folder)
    size = object_size_of(measured) if size is None else size
    told = k is not None
    k = max(totals) if k is None else k
    varies = min(totals) < k
    preparation = PreparationConfig(zoom=round(BOX / size.size, 4), ground=ground_of(measured))
    model = MistConfig(
        class_names=folder.class_names,
        background=varies,
        k=k,
        channels=3,
        box_size=BOX,
        patch_extent=BOX * CONTEXT,
        patch_size=24,
        heatmap=HeatmapConfig(network="paper", channels=16, blocks=4),
        encoder=EncoderConfig(network="small", width=32, code=128),
        decoder=16,
        preparation=preparation,
    )
    step = LiftedStepConfig(
        reconstruction=0.5,
        objects_only=varies,
        heatmap_rate=3e-4,
        decay=0.05,
        decay_steps=steps,
        heatmap_warmup=50,
        precision="auto",
    )
    sized, grounded = _prepared_because(size, preparation)
    reasons = (
        sized,
        f"K = {k}, " + ("as you said (--k)" if told else "the most objects in a training image (--k)"),
        f"classes: {', '.join(folder.class_names)}"
        + (", and a background for the boxes that an image has no object for" if varies else ""),
        grounded,
    )
    return FolderPlan(model, FolderConfig(root=root, preparation=preparation), step, reasons)


def _plan_unlabelled(
    root: str, steps: int, k: int | None, folder: OwnFolder, size: SizeSuggestion | None
) -> FolderPlan:
    """The plan where nothing but K is known: images are explained as the sum of K patches (MIST, section 5.1)."""
    if k is None:
        raise MistError(
            f"{root}: nothing is known but the images: give counts.csv with the columns file,class,count, or say how "
            f"many objects an image holds with `mist train my-folder --k N`, and they are found without being told "
            f"apart; `mist inspect {root}` shows what was read"
        )
    measured = measured_images(folder)
    size = object_size_of(measured, k) if size is None else size
    preparation = PreparationConfig(zoom=round(BOX / size.size, 4), ground=ground_of(measured))
    model = MistConfig(
        class_names=(),
        k=k,
        channels=3,
        box_size=BOX,
        patch_extent=BOX * CONTEXT,
        patch_size=24,
        heatmap=HeatmapConfig(network="paper", channels=16, blocks=4),
        encoder=EncoderConfig(network="small", width=32, code=32),
        decoder=32,
        preparation=preparation,
    )
    step = LiftedStepConfig(
        reconstruction=1.0,
        task_rate=2e-3,
        keypoint_step=62.5,
        decay=0.05,
        decay_steps=steps,
        heatmap_warmup=50,
        precision="auto",
    )
    sized, grounded = _prepared_because(size, preparation)
    reasons = (
        "nothing is known but the images and K, so it learns by redrawing them from K patches: objects are found, "
        "neither told apart nor counted",
        sized,
        f"K = {k}, as you said (--k): as many are sought in every image, whatever it holds",
        grounded,
    )
    return FolderPlan(model, FolderConfig(root=root, preparation=preparation), step, reasons)


def _prepared_because(size: SizeSuggestion, preparation: PreparationConfig) -> tuple[str, str]:
    """Why images are resized, and what becomes of their ground, for the user."""
    return (
        f"objects about {size.size:.0f} px wide ({size.why}): images are resized by {preparation.zoom:g}, so that they "
        f"are {BOX:g} px (--model.preparation.zoom and --data.preparation.zoom)",
        f"the ground of each image is taken away: {GROUNDS[preparation.ground]} (--model.preparation.ground and "
        "--data.preparation.ground)",
    )


def _totals(folder: OwnFolder, root: str, k: int | None) -> list[int]:
    """How many objects training images hold; of one whose labels alone are known, at least as many as classes."""
    training = [image for image in folder.images if image.split == "train"]
    if folder.counts_from != "labels.csv":
        return [sum(image.counts) for image in training if image.counts is not None]
    present = [sum(image.present) for image in training if image.present is not None]
    most = max(present, default=0)
    if k is None or k < most:
        found = "is not given" if k is None else f"is {k}, and a training image holds {most} classes"
        raise MistError(
            f"{root}: labels.csv says which classes an image holds, not how many of each: say the most objects that an "
            f"image may hold with `mist train my-folder --k N`, which {found}; or give counts.csv with the columns "
            "file,class,count"
        )
    return present


class FolderView(NamedTuple):
    """What a model finds in a split of a folder, and what is known of it.

    Attributes:
        images: of the split, those of which anything is known.
        samples: the same, prepared, without their pixels: boxes are in pixels of the prepared image.
        found: in each, the boxes that reach the threshold, in pixels of the prepared image.
        threshold: the model's own or, where it has none, one chosen here.
        trained: images of the training split, for comparison.
    """

    images: tuple[FolderImage, ...]
    samples: list[Sample]
    found: list[Detections]
    threshold: float
    trained: tuple[FolderImage, ...]

    def counted(self) -> Int[Tensor, "images classes"]:
        """How many of each class were found in each image."""
        classes = len(self.trained[0].present or ())
        return torch.stack([torch.bincount(_labels(one), minlength=classes) for one in self.found])

    def true(self) -> Int[Tensor, "images classes"] | None:
        """How many of each class there are; ``None`` where that is not known."""
        counts = [sample.counts for sample in self.samples if sample.counts is not None]
        return torch.stack(counts) if len(counts) == len(self.samples) else None

    def mean(self) -> Float[Tensor, " classes"]:
        """Of each class, the mean count of a training image, or the share of training images that hold it."""
        known = [image.present if image.counts is None else image.counts for image in self.trained]
        return torch.tensor([one for one in known if one is not None]).double().mean(0)


def view_folder(model: Mist, data: FolderConfig, split: Split, images: int | None = None) -> FolderView:
    """Finds the objects of a split; see ``FolderView``.

    K is not told: boxes that reach the model's threshold are counted. A model without one gets one here, chosen by what
    is known of the validation images.

    Args:
        model: left in the mode it is in.
        data: the folder.
        split: which images.
        images: at most so many; all if not given.

    Raises:
        MistError: if the folder has other classes than the model.
    """
    folder = in_order_of(content_of(data), model.class_names)
    seen = FolderImages(data, split, images or sys.maxsize, folder)
    samples, found = _detected(model, seen)
    threshold = model.config.threshold or (
        _threshold(samples, found) if split == "validation" else threshold_by_counts(model, data, folder)
    )
    trained = FolderImages(data, "train", None, folder).images
    return FolderView(seen.images[: len(seen)], samples, [above(one, threshold) for one in found], threshold, trained)


def evaluate_folder(model: Mist, data: FolderConfig, split: Split, images: int | None = None) -> dict[str, float]:
    """How well a model counts the objects of a folder, and finds those whose boxes are known; see ``view_folder``.

    Returns:
        Of ``folder_metrics``.
    """
    return folder_metrics(view_folder(model, data, split, images), model.class_names)


def folder_metrics(view: FolderView, class_names: Sequence[str]) -> dict[str, float]:
    """The measures of what was found.

    Args:
        view: what was found and what is known.
        class_names: of the model.

    Returns:
        ``count_error``: mean absolute error of the number of objects an image; ``count_error_mean``: of guessing the
        mean of the training images, for comparison; both also for each class, with its name behind a colon. Where
        only the classes present are known, instead ``presence``: the share of images and classes of which it is said
        rightly whether the class is there; ``presence_guess``: the same of always saying what is true of most training
        images. Where boxes are known ``precision``, ``recall`` and ``f1`` by the centre of a box, for each class and
        for all. ``threshold``, ``images``, and ``objects`` where counts are known.
    """
    counted, true, mean = view.counted(), view.true(), view.mean()
    result = {"threshold": view.threshold, "images": float(len(view.images))}
    groups = [("", list(range(len(class_names)))), *((f":{name}", [at]) for at, name in enumerate(class_names))]
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
    return result | _centre_metrics(view, class_names)


def _centre_metrics(view: FolderView, class_names: Sequence[str]) -> dict[str, float]:
    """Precision, recall and F1 on the images whose boxes are known."""
    from mistnn.metrics import CentreMetrics

    result: dict[str, float] = {}
    boxed = [place for place, sample in enumerate(view.samples) if sample.boxes is not None]
    for name, index in (("", None), *((f":{name}", index) for index, name in enumerate(class_names))):
        if not boxed:
            continue
        metric = CentreMetrics()
        chosen = [_of_class(view.found[place], view.samples[place], index) for place in boxed]
        metric.update([one for one, _, _ in chosen], [boxes for _, boxes, _ in chosen], [own for _, _, own in chosen])
        result |= {f"{key}{name}": value for key, value in metric.compute().items()}
    return result


def threshold_by_counts(model: Mist, data: FolderConfig, folder: OwnFolder | None = None) -> float:
    """The score that counts the validation images' objects best; the training images' if there are none of those.

    Where only the classes present are known: the one that tells best which are.

    Args:
        model: left in the mode it is in.
        data: the folder.
        folder: its content, where it has been read before.
    """
    folder = content_of(data) if folder is None else folder
    known = {image.split for image in folder.images if image.present is not None}
    split: Split = "validation" if "validation" in known else "train"
    return _threshold(*_detected(model, FolderImages(data, split, sys.maxsize, folder)))


def _threshold(samples: Sequence[Sample], found: Sequence[Detections]) -> float:
    scores = [one.scores for one in found]
    if all(sample.counts is not None for sample in samples):
        return choose_threshold(scores, [int(_counts(sample).sum()) for sample in samples])
    # Each class of each image is a bag of boxes, of which at least one is to count, or none.
    present = [_presence(sample).tolist() for sample in samples]
    best = [_best(one, at) for one, classes in zip(found, present, strict=True) for at in range(len(classes))]
    return choose_threshold(best, [int(there) for classes in present for there in classes])


@torch.inference_mode()
def _detected(model: Mist, images: FolderImages) -> tuple[list[Sample], list[Detections]]:
    """What is known of each image, without its pixels, and all K boxes found in it, on the CPU."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    known: list[Sample] = []
    found: list[Detections] = []
    for some in of_one_size(images):
        known += [sample._replace(image=sample.image.new_empty(0)) for sample in some]
        for one in model.detect(torch.stack([sample.image for sample in some]).to(device)):
            found.append(Detections(one.boxes.cpu(), one.scores.cpu(), _labels(one).cpu()))
    model.train(was_training)
    return known, found


def of_one_size(images: FolderImages) -> Iterator[list[Sample]]:
    """All samples in their order, neighbours of one size together, a few at once."""
    some: list[Sample] = []
    for place in range(len(images)):
        sample = images[place]
        if some and (len(some) == DETECTED_AT_ONCE or sample.image.shape != some[0].image.shape):
            yield some
            some = []
        some.append(sample)
    if some:
        yield some


def _of_class(found: Detections, sample: Sample, index: int | None) -> tuple[Detections, Tensor, Tensor]:
    """Detections, boxes and labels of one class, or of all."""
    assert sample.boxes is not None and sample.labels is not None
    labels = _labels(found)
    if index is None:
        return found, sample.boxes, sample.labels
    kept, true = labels == index, sample.labels == index
    return Detections(found.boxes[kept], found.scores[kept], labels[kept]), sample.boxes[true], sample.labels[true]


def _labels(found: Detections) -> Tensor:
    assert found.labels is not None
    return found.labels


def _counts(sample: Sample) -> Tensor:
    assert sample.counts is not None
    return sample.counts


def _presence(sample: Sample) -> Tensor:
    assert sample.presence is not None
    return sample.presence


def _best(found: Detections, index: int) -> Tensor:
    """The best score of a class, none where it has no box."""
    return found.scores[_labels(found) == index][:1]


def _error(predicted: Tensor, true: Tensor) -> float:
    return float((predicted.double() - true.double()).abs().mean())
