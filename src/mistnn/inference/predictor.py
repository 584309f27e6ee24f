"""The three-line way to use a trained model."""

from __future__ import annotations

import contextlib
import io
import operator
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from mistnn.data.images import PAGES, UnreadableImage, decode, open_image, to_tensor
from mistnn.devices import find_device
from mistnn.errors import MistError, MistWarning
from mistnn.inference.counting import above, missing_threshold
from mistnn.inference.prediction import Prediction
from mistnn.nn.finder import Finder
from mistnn.nn.mixed_precision import Precision, half_precision
from mistnn.nn.tiles import MAX_PIXELS
from mistnn.records import Detections
from mistnn.weights import load_model


class Predictor:
    """Finds objects in single images.

    Convention: an image is processed at its own size; objects should be about as large in pixels as those that the
    model was trained on. Boxes are in pixels of the image given.

    Example:
        >>> predictor = Predictor.from_pretrained("mist-mnist-hard")  # doctest: +SKIP
        >>> found = predictor.predict("scene.png", k=9)  # doctest: +SKIP
        >>> print(found.boxes, found.names)  # doctest: +SKIP

    Attributes:
        uncounted: why the model can't count yet, with the fix; ``None`` if it can, or never will.
        precision: of the networks. "bfloat16" is faster on hardware with instructions for it, and changes scores
            slightly; "auto" takes it only there.
    """

    uncounted: str | None = None
    precision: Precision = "float32"

    def __init__(self, model: Finder, max_pixels: int = MAX_PIXELS) -> None:
        """Puts the model into eval mode. It processes images above ``max_pixels`` in tiles, or refuses them."""
        self.model = model.eval()
        self.max_pixels = max_pixels
        self.device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path, device: str | torch.device = "cpu") -> Predictor:
        """A predictor with the weights of a run folder or of a shipped model; for ``Raises`` see ``load_model``."""
        model = as_finder(load_model(name_or_folder), name_or_folder)
        predictor = cls(model.to(find_device(device, "device") if isinstance(device, str) else device))
        predictor.uncounted = missing_threshold(name_or_folder, model)
        return predictor

    def predict(
        self, image: Tensor | NDArray[np.generic] | Image.Image | str | os.PathLike[str], k: int | None = None
    ) -> Prediction:
        """Finds the K best objects of one image, best first.

        Args:
            image: a file; a Pillow image; an array (height, width) or (height, width, channels), RGB; or a tensor
                (channels, height, width). Integers of 8 or 16 bits are scaled to [0, 1]; floats must lie there. A
                fourth channel, or a second one beside grey, must be opaque alpha.
            k: how many. If not given: as many as the model counts, at most the K of its training; or that K if the
                model can't count (``Finder.threshold``).

        Raises:
            MistError: if the file can't be read, the image has no room for k objects, it is too large for a model
                that can't process images in tiles, or no k is given and the run was stopped before it could count.
            ValueError: if an array or tensor has another shape, type or range, or k is no whole number.
        """
        k = None if k is None else _whole(k)
        if isinstance(image, str | os.PathLike):
            try:
                picture = open_image(Path(image))
            except UnreadableImage as error:
                raise MistError(f"can't read {image}: {error}") from error
            if (pages := picture.info.get(PAGES, 1)) > 1:
                warnings.warn(f"{image} holds {pages} pages: only the first is used", MistWarning, stacklevel=3)
            tensor = to_tensor(picture, self.model.config.channels)
        else:
            tensor = as_image_tensor(image, self.model.config.channels)
        if (refusal := self.refusal(tensor.shape[-2], tensor.shape[-1], self.sought(k))) is not None:
            raise MistError(f"this image {refusal}")
        return self.predictions(tensor.unsqueeze(0), k)[0]

    def predictions(
        self, images: Float[Tensor, "batch channels height width"], k: int | None = None
    ) -> list[Prediction]:
        """``predict`` for images as ``predict_batch`` takes them."""
        height, width = images.shape[-2:]
        names, intervals = self.model.class_names, () if k else self.model.intervals
        results = []
        for image, found in zip(images, self.predict_batch(images, k), strict=True):
            at_limit = bool(self.at_limit(len(found.boxes), height, width, k))
            boxes, scores, labels, unlike = found
            results.append(Prediction(boxes, scores, labels, names, image, at_limit, intervals, unlike))
        return results

    @torch.inference_mode()
    def predict_batch(
        self, images: Float[Tensor, "batch channels height width"], k: int | None = None
    ) -> list[Detections]:
        """``predict`` for images in [0, 1] of one size, with the model's channels; the results are on the CPU."""
        self.check_counting(k)
        model = self.model
        wanted = None if k is None and model.counts_itself else self.sought(k)
        with torch.autocast(self.device.type, enabled=False):  # the caller's would change the results
            prepared = model.prepare(images.to(self.device))
            with half_precision(self.precision, self.device):
                found = model.detect(prepared, wanted, self.max_pixels)
        found = [one._replace(boxes=one.boxes.float(), scores=one.scores.float()) for one in found]
        if model.zoom != 1:
            found = [one._replace(boxes=one.boxes / model.zoom) for one in found]
        if k is None and model.threshold:
            found = [above(one, model.threshold) for one in found]
        return [one.cpu() for one in found]

    def check_counting(self, k: int | None) -> None:
        """Raises ``MistError`` if no K is given to a model that can't count yet."""
        if k is None and self.uncounted is not None:
            raise MistError(self.uncounted)

    def at_limit(self, found: int, height: int, width: int, k: int | None) -> bool | None:
        """Whether as many objects were found in an image of this size as the model reports: there may be more.

        ``None`` if their number says nothing: the user gave K, or the model can't count.
        """
        return found >= self.model.limit(height, width) if self.says_limits(k) else None

    def says_limits(self, k: int | None) -> bool:
        """Whether the number of objects says anything: the user gave no K, and the model can count."""
        return k is None and (self.model.counts_itself or self.model.threshold > 0)

    def sought(self, k: int | None) -> int:
        """The number of objects that an image must have room for: K, else the model's own, or 1 if it counts itself."""
        if k is not None:
            return k
        return 1 if self.model.counts_itself else self.model.config.k

    def refusal(self, height: int, width: int, k: int) -> str | None:
        """Why K objects can't be found in an image of this size, as the end of a sentence about the image; or ``None``.

        Images above ``max_pixels`` are refused if the model can't process them in tiles.
        """
        if (reason := self.model.refusal(height, width)) is not None:
            return reason
        pixels, most = height * width, self.model.most(height, width)
        if not self.model.in_tiles and pixels > self.max_pixels:
            return f"has {pixels:,} pixels, and this model takes at most {self.max_pixels:,}: crop or shrink it"
        if 1 <= k <= most:
            return None
        if most == 0:
            return f"has {width} x {height} pixels, which is smaller than one position of this model"
        if k < 1:
            return f"can't be searched for {k} objects: give k = 1 or more"
        return f"has room for {most:,} objects in this model, fewer than the {k:,} to find: give k = {most} or less"

    def is_approximate(self, height: int, width: int) -> bool:
        """Whether an image of this size is processed in tiles that the network normalises separately."""
        model = self.model
        return model.in_tiles and not model.tiles_are_exact and model.most(height, width) > self.max_pixels

    @property
    def finds_k(self) -> bool:
        """Whether the model can't tell how many objects an image holds, and so finds K in every image."""
        return not (self.model.counts_itself or self.model.class_names or self.model.threshold)

    @property
    def reconstructs(self) -> bool:
        """Whether ``reconstruct`` works: not where images are prepared, since that removes their background."""
        return self.model.reconstructs and not self.model.prepares

    @torch.inference_mode()
    def reconstruct(
        self, images: Float[Tensor, "batch channels height width"], found: Sequence[Detections | Prediction]
    ) -> Float[Tensor, "batch channels height width"]:
        """The images as the model explains them: the sum of its reconstructions of all parts, on black.

        A generative model returns the image that it drew. Overlapping parts may add up to more than 1. The result is on
        the CPU.

        Args:
            images: as given to ``predict_batch``.
            found: what was found in them, the same number of parts in each image.

        Raises:
            ValueError: if the model can't reconstruct.
        """
        if not self.reconstructs:
            raise ValueError("this model can't reconstruct: it has no decoder, or it prepares its images")
        records = [Detections(one.boxes, one.scores, one.labels) for one in found]
        return self.model.reconstruct_from(images.to(self.device), records).cpu()

    def names(self, found: Detections | Prediction) -> list[str]:
        """The class name of each detection; empty strings if the model has no classes."""
        if found.labels is None:
            return [""] * len(found.boxes)
        return [self.model.class_names[index] for index in found.labels.tolist()]


def _whole(k: Any) -> int:
    """K as an int: a whole number of Python, NumPy or torch; otherwise raises ``ValueError``."""
    if not isinstance(k, bool | np.bool_):
        with contextlib.suppress(TypeError):
            return operator.index(k)
    raise ValueError(f"k={k!r} must be a whole number of 1 or more")


def as_finder(model: nn.Module, name: str | Path) -> Finder:
    """The model, if it finds objects; otherwise raises ``MistError``."""
    if not isinstance(model, Finder):
        raise MistError(
            f"{name} holds a {type(model).__name__}, which finds no objects: give a model that does "
            "(`mist evaluate` measures this one)"
        )
    return model


def as_image_tensor(
    image: Tensor | NDArray[np.generic] | Image.Image, channels: int
) -> Float[Tensor, "channels height width"]:
    """Converts an image in memory to the tensor that a model takes; accepts and raises as ``Predictor.predict``."""
    if isinstance(image, Image.Image):
        try:
            return to_tensor(decode(image), channels)
        except UnreadableImage as error:
            raise ValueError(f"can't use this image: {error}") from error
    if isinstance(image, Tensor):
        if image.ndim != 3:
            raise ValueError(f"an image tensor must be (channels, height, width), got shape {tuple(image.shape)}")
        values = _unit_range((image if image.layout == torch.strided else image.to_dense()).detach().cpu())
    else:
        if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
            raise ValueError(_no_image(image))
        if image.dtype.kind not in "buif":
            raise ValueError(f"image values must be uint8, uint16, bool or floats in 0-1, got {image.dtype}")
        if np.ma.is_masked(image):
            raise ValueError("an image array has masked values: give them a value, with image.filled(0)")
        # A copy, because torch takes only writable memory in the byte order of this machine.
        wide = image.dtype.kind == "f" and image.dtype.itemsize > 8
        values = _unit_range(torch.from_numpy(np.array(image, np.float64 if wide else image.dtype.newbyteorder("="))))
        values = values.unsqueeze(0) if values.ndim == 2 else values.permute(2, 0, 1)
    return _with_channels(values, channels)


def _no_image(given: object) -> str:
    """What an object is that is no image, and the fix."""
    if isinstance(given, np.ndarray):
        return f"an image array must be (height, width) or (height, width, channels), got {given.shape}"
    if isinstance(given, list | tuple):
        return f"predict takes one image, got a {type(given).__name__}: call it for each, or Model.predict_many for all"
    if isinstance(given, io.IOBase | bytes):
        return f"an image can't be a {type(given).__name__}: give PIL.Image.open(...) of it"
    return f"an image must be a path, a Pillow image, an array or a tensor, got a {type(given).__name__}"


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
    """Converts grey or RGB, either with opaque alpha, to the channels of a model.

    Two or four channels may also be those of a microscope, or colours and infrared, so that a last channel which isn't
    opaque everywhere is not taken for alpha. Files and Pillow images say which it is.
    """
    found = values.shape[0]
    if found == channels:
        return values.contiguous()
    if found not in (1, 2, 3, 4):
        order = "arrays are (height, width, channels), tensors (channels, height, width)"
        raise ValueError(f"an image has 1 to 4 channels, got {found}: {order}")
    if found in (2, 4):
        if bool((values[-1] < 1).any()):
            kept = "one channel, such as image[..., 0]" if found == 2 else "three channels, such as image[..., :3]"
            raise ValueError(
                f"an image array of {found} channels is used only if the last is opaque alpha, and this one isn't: "
                f"give {kept} (in tensors channels come first); if it is transparency, PIL.Image.fromarray(image)"
            )
        values = values[:-1]
    if values.shape[0] == 3 and channels == 1:
        luma = values.new_tensor([0.299, 0.587, 0.114])
        values = torch.einsum("chw,c->hw", values, luma).unsqueeze(0)
    return values.expand(channels, -1, -1).contiguous()
