"""The images that a prediction writes: overlays and reconstructions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from mistnn.records import Detections
from mistnn.viz.overlay import class_colour, draw_detections

WRITTEN = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
"""Suffixes of the formats in which overlays are written; others become PNG."""

LONGEST_NAME = 255
"""Bytes of a part of a path, on most file systems."""

STRETCH_TAIL, STRETCH_PIXELS = 0.001, 1_000_000
"""For 16-bit images: share of pixels that is clipped at either end, and pixels that are measured (our choice)."""

_JPEG: dict[str, Any] = {"quality": 95}
_OPTIONS = {
    ".png": {"compress_level": 3},
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": {"quality": 90},
}  # of Pillow's writers


def overlay_names(names: Sequence[str], suffixes: Sequence[str] = WRITTEN) -> dict[str, str]:
    """A unique path for each image's overlay, relative to the folder of overlays.

    Convention: the image's own name, with ".png" appended if its suffix is not in ``suffixes``. If that is the name of
    another image, or of a folder of images, "-2.png" is appended instead, or "-3.png" and so on. Names that differ only
    in case are the same, since they are one file on many disks. A name longer than ``LONGEST_NAME`` is cut.
    """
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    taken = {folder.casefold() for folder in folders}
    overlays: dict[str, str] = {}
    for name in names:
        if PurePosixPath(name).suffix.lower() in suffixes and name.casefold() not in taken:
            overlays[name] = name
            taken.add(name.casefold())
    for name in names:
        if name not in overlays:
            endings = itertools.chain((".png",), (f"-{number}.png" for number in itertools.count(2)))
            candidates = (_with_ending(name, ending) for ending in endings)
            overlays[name] = next(candidate for candidate in candidates if candidate.casefold() not in taken)
            taken.add(overlays[name].casefold())
    return overlays


def _with_ending(name: str, ending: str) -> str:
    """A path with something appended to its last part, which is cut before that if it would be too long."""
    folder, slash, last = name.rpartition("/")
    room = LONGEST_NAME - len(ending)
    data = last.encode("utf-8", "surrogateescape")
    if len(data) > room:  # not within a letter
        last = next(
            last[:end] for end in range(room, 0, -1) if len(last[:end].encode("utf-8", "surrogateescape")) <= room
        )
    return f"{folder}{slash}{last}{ending}"


def write_overlay(path: Path, picture: Image.Image, found: Detections, names: Sequence[str]) -> None:
    """Writes an image with its boxes, in the format of the path's suffix."""
    colours = None if found.labels is None else [class_colour(index) for index in found.labels.tolist()]
    if colours is None:  # without classes, a box is labelled with its score
        names = [f"{score:.2f}" for score in found.scores.tolist()]
    drawn = draw_detections(displayed(picture), found.boxes.tolist(), names, colours)
    # How the original was stored doesn't fit the drawing: a compression of 1 bit, a transparent value, a CMYK profile.
    profile = drawn.info.get("icc_profile") or b""
    drawn.info = {"icc_profile": profile} if profile[16:20] == b"RGB " else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.save(path, **_OPTIONS.get(path.suffix.lower(), {}))


def as_pixels(
    rebuilt: Float[Tensor, "batch channels height width"], images: Float[Tensor, "batch channels height width"]
) -> tuple[UInt8[np.ndarray, "batch height width channels"], UInt8[np.ndarray, "batch height width channels"]]:
    """Reconstructions and their residuals, 0.5 + (image - reconstruction) / 2, clipped to [0, 1], as pixels."""
    pair = []
    for values in (rebuilt, 0.5 + (images - rebuilt) / 2):
        pair.append((values.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return pair[0], pair[1]


def write_pixels(path: Path, pixels: UInt8[np.ndarray, "height width channels"]) -> None:
    """Writes pixels as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    Image.fromarray(shown).save(path, format="PNG", compress_level=3)


def displayed(picture: Image.Image) -> Image.Image:
    """The image with 8 bits; 16-bit images are stretched, since cameras use few of their values.

    All but the darkest and the lightest 0.1 % of the pixels lie between black and white.
    """
    if picture.mode not in ("I", "F"):
        return picture
    values = np.asarray(picture, dtype=np.float32)
    low, high = 0.0, 1.0
    if picture.mode == "I":
        some = values.ravel()[:: math.ceil(values.size / STRETCH_PIXELS)]
        low, high = np.percentile(some, (100 * STRETCH_TAIL, 100 - 100 * STRETCH_TAIL))
        if low == high:  # objects smaller than that
            low, high = values.min(), values.max()
        if low == high:
            low, high = 0.0, max(high, 1.0)
    return Image.fromarray(((values - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8))
