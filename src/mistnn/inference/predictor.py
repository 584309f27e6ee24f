"""The three-line way to use a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn

from mistnn.data.images import UnreadableImage, normalise_mode, open_image, to_tensor
from mistnn.errors import MistError
from mistnn.inference.counting import above
from mistnn.inference.tiles import (
    MAX_PIXELS,
    Detector,
    DrawingModel,
    PreparingModel,
    Reconstructor,
    RefusingModel,
    WholeImageModel,
    detect,
)
from mistnn.records import Detections
from mistnn.weights import load_model


class Predictor:
    """Finds objects in single images.

    Convention: an image is seen at its own size, never resized: the objects should be as large in pixels as those the
    model was trained on. Boxes are in pixels of the image given.

    Example:
        >>> predictor = Predictor.from_pretrained("mist-mnist-hard")  # doctest: +SKIP
        >>> found = predictor.predict("scene.png", k=9)  # doctest: +SKIP
        >>> print(found.boxes, predictor.names(found))  # doctest: +SKIP
    """

    def __init__(self, model: Detector | WholeImageModel, max_pixels: int = MAX_PIXELS) -> None:
        """Wraps a model, which is put in eval mode and stays on its device.

        Args:
            model: finds objects in images of any size.
            max_pixels: larger images go through the network in tiles; a model that can't be tiled takes none.
        """
        self.model = model
        self.max_pixels = max_pixels
        self.device = torch.device("cpu")
        if isinstance(model, nn.Module):
            model.eval()
            parameter = next(model.parameters(), None)
            self.device = self.device if parameter is None else parameter.device

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path, device: str | torch.device = "cpu") -> Predictor:
        """A predictor with the weights of a run folder or of a shipped model.

        Raises:
            MistError: no such folder or name, or a folder that can't be trusted.
        """
        model = load_model(name_or_folder).to(device)
        if not isinstance(model, Detector | WholeImageModel):
            raise MistError(
                f"{name_or_folder} holds a {type(model).__name__}, which finds no objects: give a model that does "
                "(`mist evaluate` measures this one)"
            )
        return cls(model)

    def predict(
        self, image: Tensor | NDArray[np.generic] | Image.Image | str | Path, k: int | None = None
    ) -> Detections:
        """The K best objects of one image, the best first.

        Args:
            image: a file; a Pillow image; an array (height, width) or (height, width, channels), red first; or a
                tensor (channels, height, width). Whole numbers of 8 or 16 bits are scaled to 0-1, floats have to
                lie there.
            k: how many; if not given as many as the model counts, up to the K of its training, or that K if it can't
                count (``MistConfig.threshold``).

        Raises:
            MistError: the file can't be read; the model can't find k objects in it; it is too large for a model that
                takes images in one piece only.
            ValueError: an array or tensor of another shape, type or range.
        """
        if isinstance(image, str | Path):
            try:
                picture = open_image(Path(image))
            except UnreadableImage as error:
                raise MistError(f"can't read {image}: {error}") from error
            tensor = to_tensor(picture, self.model.config.channels)
        else:
            tensor = as_image_tensor(image, self.model.config.channels)
        refusal = self.refusal(tensor.shape[-2], tensor.shape[-1], self.sought(k))
        if refusal is not None:
            raise MistError(f"this image {refusal}")
        return self.predict_batch(tensor.unsqueeze(0), k)[0]

    @torch.inference_mode()
    def predict_batch(
        self, images: Float[Tensor, "batch channels height width"], k: int | None = None
    ) -> list[Detections]:
        """The K best objects of each of several images of one size, on the CPU.

        Args:
            images: values in [0, 1], as many channels as the model has.
            k: how many, as in ``predict``.
        """
        most = self.sought(k)
        zoom = 1.0
        images = images.to(self.device)
        if isinstance(self.model, PreparingModel):
            images, zoom = self.model.prepare(images), self.model.zoom
        if isinstance(self.model, Detector):
            found = detect(self.model, images, most, self.max_pixels)
        elif k is None and self.counts_itself:
            found = self.model.explain(images).detections
        else:
            found = self.model.explain(images, most).detections
        if zoom != 1:
            found = [one._replace(boxes=one.boxes / zoom) for one in found]
        if k is None and isinstance(self.model, PreparingModel) and self.model.threshold:
            found = [above(one, self.model.threshold) for one in found]
        return [
            Detections(one.boxes.cpu(), one.scores.cpu(), None if one.labels is None else one.labels.cpu())
            for one in found
        ]

    def sought(self, k: int | None) -> int:
        """How many objects an image must have room for: K as told, else the model's own, or 1 if it counts itself."""
        if k is not None:
            return k
        return 1 if self.counts_itself else self.model.config.k

    def most(self, height: int, width: int) -> int:
        """How many objects can be found in an image of this size."""
        if not isinstance(self.model, Detector):
            return self.model.most(height, width)
        zoom = self.model.zoom if isinstance(self.model, PreparingModel) else 1.0
        return max(1, round(height * zoom)) * max(1, round(width * zoom))

    def refusal(self, height: int, width: int, k: int) -> str | None:
        """Why K objects can't be sought in an image of this size, with the image as the subject; ``None`` if they can.

        Images beyond ``max_pixels`` are refused where the model can't be tiled.
        """
        if isinstance(self.model, RefusingModel):
            reason = self.model.refusal(height, width)
            if reason is not None:
                return reason
        pixels, most = height * width, self.most(height, width)
        if not isinstance(self.model, Detector) and pixels > self.max_pixels:
            return f"has {pixels:,} pixels, and this model takes at most {self.max_pixels:,}: crop or shrink it"
        if 1 <= k <= most:
            return None
        if most == 0:
            return f"is smaller, at {width} x {height} pixels, than a single place that this model looks at"
        if k >= 1 and not isinstance(self.model, Detector):
            return f"has room for {most} objects in this model, fewer than K = {k}: give a K of {most} or less"
        return f"has {pixels} pixels, K must be from 1 to that, and is {k}"

    def is_approximate(self, height: int, width: int) -> bool:
        """Whether an image of this size is seen in tiles that a network normalises on their own."""
        model = self.model
        return isinstance(model, Detector) and not model.tileable and self.most(height, width) > self.max_pixels

    @property
    def counts_itself(self) -> bool:
        """Whether it finds objects by drawing the image, and says itself how many there are."""
        return isinstance(self.model, DrawingModel) and self.model.counts_itself

    @property
    def finds_k(self) -> bool:
        """Whether it can't tell how many objects an image holds, and so finds K in every one."""
        if self.counts_itself or self.model.class_names:
            return False
        return not (isinstance(self.model, PreparingModel) and self.model.threshold)

    @property
    def is_told(self) -> bool:
        """Whether it was told in training how many objects each image holds, and must be told again."""
        return isinstance(self.model, DrawingModel) and self.model.needs_counts

    @property
    def reconstructs(self) -> bool:
        """Whether ``reconstruct`` works with this model: not where images are prepared, whose ground is gone then."""
        if isinstance(self.model, PreparingModel) and self.model.prepares:
            return False
        return isinstance(self.model, Reconstructor | WholeImageModel) and self.model.reconstructs

    @torch.inference_mode()
    def reconstruct(
        self, images: Float[Tensor, "batch channels height width"], found: Sequence[Detections]
    ) -> Float[Tensor, "batch channels height width"]:
        """The images as the model explains them: the sum of what it makes of each part found, on black.

        A model that finds objects by drawing the image gives the picture that it drew.

        Args:
            images: as given to ``predict_batch``.
            found: its result: as many parts in each image.

        Returns:
            On the CPU; overlapping parts may add up to more than 1.

        Raises:
            ValueError: the model has no decoder.
        """
        if not self.reconstructs:
            raise ValueError("this model can't reconstruct: it has no decoder, or prepares its images")
        if isinstance(self.model, DrawingModel) and self.model.counts_itself:
            rebuilt = self.model.explain(images.to(self.device)).reconstruction
            assert rebuilt is not None
            return rebuilt.cpu()
        if isinstance(self.model, WholeImageModel):
            rebuilt = self.model.explain(images.to(self.device), len(found[0].boxes)).reconstruction
            assert rebuilt is not None
            return rebuilt.cpu()
        assert isinstance(self.model, Reconstructor)
        keypoints = self.model.keypoints_of(torch.stack([one.boxes for one in found]).to(self.device))
        return self.model.reconstruct(images.to(self.device), keypoints).cpu()

    def names(self, found: Detections) -> list[str]:
        """The class name of each detection; empty texts if the model has no classes."""
        if found.labels is None:
            return [""] * len(found.boxes)
        return [self.model.class_names[index] for index in found.labels.tolist()]


def as_image_tensor(
    image: Tensor | NDArray[np.generic] | Image.Image, channels: int
) -> Float[Tensor, "channels height width"]:
    """An image in memory as the tensor a model takes; see ``Predictor.predict`` for what is accepted.

    Raises:
        ValueError: another shape, type or range.
    """
    if isinstance(image, Image.Image):
        try:
            return to_tensor(normalise_mode(ImageOps.exif_transpose(image)), channels)
        except UnreadableImage as error:
            raise ValueError(f"can't use this image: {error}") from error
    if isinstance(image, Tensor):
        if image.ndim != 3:
            raise ValueError(f"an image tensor must be (channels, height, width), got shape {tuple(image.shape)}")
        values = _unit_range(image)
    else:
        array = np.ascontiguousarray(image)
        if array.ndim not in (2, 3):
            raise ValueError(f"an image array must be (height, width) or (height, width, channels), got {array.shape}")
        values = _unit_range(torch.from_numpy(array))
        values = values.unsqueeze(0) if values.ndim == 2 else values.permute(2, 0, 1)
    return _with_channels(values, channels)


def _unit_range(values: Tensor) -> Tensor:
    if values.numel() == 0:
        raise ValueError(f"an image needs at least one pixel, got shape {tuple(values.shape)}")
    if values.dtype in (torch.uint8, torch.uint16):
        return values.float() / torch.iinfo(values.dtype).max
    if values.dtype == torch.bool:
        return values.float()
    if not values.is_floating_point():
        raise ValueError(f"image values must be uint8, uint16, bool or floats in 0-1, got {values.dtype}")
    low, high = values.min().item(), values.max().item()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"float image values must lie in 0-1, got {low:g} to {high:g}: scale them")
    return values.float()


def _with_channels(values: Tensor, channels: int) -> Tensor:
    """Grey, grey with alpha, RGB or RGBA to the channels of a model, as files are converted: alpha on black."""
    found = values.shape[0]
    if found not in (1, 2, 3, 4):
        raise ValueError(f"an image has 1 to 4 channels, got {found} in shape {tuple(values.shape)}")
    if found in (2, 4):
        values = values[:-1] * values[-1:]
    if values.shape[0] == 3 and channels == 1:
        luma = values.new_tensor([0.299, 0.587, 0.114])
        values = torch.einsum("chw,c->hw", values, luma).unsqueeze(0)
    return values.expand(channels, -1, -1).contiguous()
