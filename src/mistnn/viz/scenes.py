"""Whole images: detections, training samples, and the outputs of several systems side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mistnn.ops.matching import UNMATCHED, box_iou, greedy_match
from mistnn.records import Detections, Sample
from mistnn.viz.style import (
    TRUTH,
    Pictures,
    Tiles,
    add_box,
    add_judged_boxes,
    check_lengths,
    fit_size,
    require,
    show_picture,
    title_tile,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def class_label(label: int, class_names: Sequence[str]) -> str:
    """The name of a class, or its number if it has no name."""
    return class_names[label] if 0 <= label < len(class_names) else str(label)


def missed_truth(
    detections: Detections,
    correct: Bool[Tensor, " found"],
    boxes: Float[Tensor, "objects 4"],
    labels: Int[Tensor, " objects"] | None,
) -> Bool[Tensor, " objects"]:
    """Whether each true object lacks a correct detection, in one image.

    Each correct detection accounts for one object: among the free objects of its class, the one it overlaps most. This
    recovers the matching behind ``correct``, to know which boxes to draw; it is not a metric.
    """
    if len(boxes) == 0 or len(detections.boxes) == 0:
        return torch.ones(len(boxes), dtype=torch.bool)
    found, truth = detections.boxes.detach().cpu().float(), boxes.detach().cpu().float()
    eligible = correct.cpu()[:, None].expand(-1, len(truth))
    if labels is not None and detections.labels is not None:
        eligible = eligible & (detections.labels.cpu()[:, None] == labels.cpu()[None])
    # Any overlap is enough: the caller has already applied its own threshold.
    partner = greedy_match(box_iou(found, truth), 0.0, eligible)
    missed = torch.ones(len(boxes), dtype=torch.bool)
    missed[partner[partner != UNMATCHED]] = False
    return missed


def draw_scenes(
    images: Pictures,
    detections: Sequence[Detections],
    boxes: Sequence[Tensor] | None = None,
    labels: Sequence[Tensor] | None = None,
    class_names: Sequence[str] = (),
    columns: int = 4,
    *,
    correct: Sequence[Tensor] | None = None,
    titles: Sequence[str] | None = None,
    inches: float = 1.9,
) -> Figure:
    """Images with their detections: right ones green and solid, wrong ones red and dashed, missed objects grey.

    Args:
        images: in [0, 1].
        detections: one record per image.
        boxes: the true boxes of each image, dotted and grey. With ``correct``, only those without a correct detection
            are drawn.
        labels: the classes of ``boxes``.
        class_names: names of the labels; a number is written for a label without name.
        columns: pictures per row.
        correct: (found,) booleans for each image, from the caller's matching; without it all detections are blue.
        titles: one above each picture.
        inches: the longer side of a picture.

    Returns:
        The figure; a single image without title fills it. Each box has its kind (right, wrong, missed, found) as
        ``gid``.

    Raises:
        ValueError: if there is no image, or a list does not have one entry per image.

    Reference: S002, Figure 5 (boxes on MNIST-hard) and Figure 6 (right green, wrong red).
    """
    pictures = list(images)
    check_lengths(pictures, "images", detections=detections, boxes=boxes, labels=labels, correct=correct, titles=titles)
    require(pictures, "picture")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    tiles = Tiles(rows, columns, *fit_size(pictures[0], inches), header=0.24 if titles else 0.0)
    figure = tiles.figure()
    for index, (picture, found) in enumerate(zip(pictures, detections, strict=True)):
        axes = tiles.axes(figure, *divmod(index, columns))
        show_picture(axes, picture)
        right = None if correct is None else correct[index]
        check_lengths(found.boxes, "detections", correct=right)
        missed = None if boxes is None else boxes[index]
        if missed is not None and right is not None:
            true_labels = None if labels is None else labels[index]
            missed = missed[missed_truth(found, right, missed, true_labels).to(missed.device)]
        names = () if found.labels is None else [class_label(label, class_names) for label in found.labels.tolist()]
        add_judged_boxes(axes, found.boxes, right, missed, names, inches)
        if titles is not None:
            title_tile(axes, titles[index])
    return figure


def draw_samples(
    layouts: Mapping[str, Sequence[Sample]], class_names: Sequence[str] = (), *, boxes: bool = True
) -> Figure:
    """A sheet of samples: one row per layout of the data, with the true boxes that training never sees.

    Args:
        layouts: name of the layout -> its samples; sizes may differ between layouts.
        class_names: written on the boxes of labelled samples.
        boxes: False draws the bare images.

    Raises:
        ValueError: if there is no layout or a layout has no sample.
    """
    if not layouts or not all(layouts.values()):
        empty = [name for name, samples in layouts.items() if not samples]
        raise ValueError(f"every layout needs at least one sample, got none for {empty or 'any'}")
    columns = max(len(samples) for samples in layouts.values())
    tiles = Tiles(rows=len(layouts), columns=columns, width=1.5, height=1.5, header=0.26)
    figure = tiles.figure()
    for row, (name, samples) in enumerate(layouts.items()):
        for column, sample in enumerate(samples):
            axes = tiles.axes(figure, row, column)
            show_picture(axes, sample.image)
            for index, box in enumerate(sample.boxes if boxes and sample.boxes is not None else ()):
                label = "" if sample.labels is None else class_label(int(sample.labels[index]), class_names)
                add_box(axes, box, TRUTH, label, 0.7 * tiles.width)
            if column == 0:
                height, width = sample.image.shape[-2:]
                title_tile(axes, f"{name} ({width} x {height} px)", bold=True)
                # Row titles start at the sheet's left edge and may extend over the next tile.
                axes.title.set(ha="left", position=(0.0, 1.0))
    return figure


def draw_comparison(rows: Sequence[Mapping[str, Float[Tensor, "channels _ _"]]]) -> Figure:
    """A sheet with one row per image and one column per system.

    Args:
        rows: title of the tile -> picture, clipped to [0, 1]; equally many in each row.

    Raises:
        ValueError: if there is no row, or the rows differ in length.
    """
    if not rows or len({len(row) for row in rows}) > 1 or not rows[0]:
        raise ValueError(f"give rows of as many pictures each, got {[len(row) for row in rows]}")
    tiles = Tiles(rows=len(rows), columns=len(rows[0]), width=1.35, height=1.35, header=0.24)
    figure = tiles.figure()
    for number, row in enumerate(rows):
        for column, (title, picture) in enumerate(row.items()):
            axes = tiles.axes(figure, number, column)
            show_picture(axes, picture.clamp(0, 1))
            title_tile(axes, title, bold=number == 0)
    return figure


def residual(image: Tensor, reconstruction: Tensor) -> Tensor:
    """The absolute error of a reconstruction, averaged over the channels: (height, width)."""
    return (image - reconstruction).abs().mean(dim=0)
