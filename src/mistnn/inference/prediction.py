"""What ``Predictor.predict`` returns: the detections of one image, with their class names and ways to use them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mistnn.inference.coco import coco_annotations, coco_categories
from mistnn.inference.counting import interval
from mistnn.records import Detections

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True)
class Prediction:
    """The objects found in one image, best first.

    Attributes:
        boxes: (found, 4), centre x, centre y, width and height in pixels of the image.
        scores: (found,), in [0, 1].
        labels: (found,), indices into ``class_names``, or ``None`` for a model without classes.
        class_names: one name for each class of the model.
        image: (channels, height, width), the image as the model received it, values in [0, 1].
        at_limit: whether as many objects were found as the model reports in an image: there may be more. Always False
            where K was given, or the model can't count.
        intervals: for each class the half width of its interval, see ``count_intervals``; empty if unknown.
        unlike: see ``Detections``: above 1, the image differs from those of the training, and its count may be wrong.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor | None
    class_names: tuple[str, ...]
    image: Tensor
    at_limit: bool = False
    intervals: tuple[float, ...] = ()
    unlike: float | None = None

    def __len__(self) -> int:
        """The number of objects found."""
        return len(self.boxes)

    @property
    def detections(self) -> Detections:
        """Boxes, scores and labels as the record that metrics and figures take."""
        return Detections(self.boxes, self.scores, self.labels)

    @property
    def names(self) -> list[str]:
        """The class name of each object; empty strings for a model without classes."""
        if self.labels is None:
            return [""] * len(self.boxes)
        return [self.class_names[index] for index in self.labels.tolist()]

    @property
    def counts(self) -> dict[str, int]:
        """The number of objects of each class, zeros included; for a model without classes, of ``"object"``."""
        if self.labels is None:
            return {"object": len(self.boxes)}
        found = Counter(self.names)
        return {name: found[name] for name in self.class_names}

    @property
    def count_intervals(self) -> dict[str, tuple[int, int]]:
        """For each class, the interval that holds the true number in 80 % of images like those of the training.

        Empty where K was given, the model has no intervals, or it found as many objects as it reports: there may be any
        number more. See ``interval_factor``.
        """
        numbers = self.counts
        pairs = zip(self.class_names, self.intervals, strict=True) if self.intervals and not self.at_limit else ()
        return {name: interval(numbers[name], factor) for name, factor in pairs}

    def to_dataframe(self) -> DataFrame:
        """A pandas table, one row per object, with the columns x, y, w, h, label and score of ``detections.csv``.

        Raises:
            ImportError: if pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise ImportError("to_dataframe needs pandas: pip install pandas") from error

        table = DataFrame(self.boxes.numpy(), columns=["x", "y", "w", "h"])
        return table.assign(label=self.names, score=self.scores.numpy())

    def to_coco(self, file_name: str = "image") -> dict[str, Any]:
        """The objects as a COCO dictionary of one image, which ``json.dump`` takes; see ``coco_annotations``."""
        height, width = self.image.shape[-2:]
        return {
            "images": [{"id": 1, "file_name": file_name, "width": width, "height": height}],
            "categories": coco_categories(self.class_names),
            "annotations": coco_annotations(self.detections),
        }

    def plot(self) -> Figure:
        """The image with its boxes and class names, as a matplotlib figure."""
        from mistnn.viz import draw_scenes

        return draw_scenes(self.image[None], [self.detections], class_names=self.class_names)
