"""Finding image files and turning any of them into a tensor.

Convention: an image is upright, as viewers show it (its EXIF orientation is applied), and detections are in pixels of
that upright image. Of a file with several frames the first counts.
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from mistnn.errors import MistError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
"""What counts as an image inside a folder, in either case. A file named by the user is read whatever its suffix."""

PICTURE_FOLDERS = ("overlays", "reconstructions", "residuals")
"""Folders of pictures that a prediction writes into its results; in a folder of images they are no input."""

DETECTIONS_FILE = "detections.csv"
DETECTION_COLUMNS = ("file", "x", "y", "w", "h", "label", "score")
"""The table of a prediction, by which its results are known."""

MAX_PIXELS = 150_000_000
"""Largest image that is read: above 10,000 x 10,000, below the 179 million where Pillow suspects an attack."""

_EIGHT_BIT, _SIXTEEN_BIT = 255, 65535
_SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")
# What Pillow's decoders raise on damaged files; OSError includes "unidentified" and "truncated".
_DECODING_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, NotImplementedError,
    MemoryError, struct.error, zlib.error,
)  # fmt: skip


class UnreadableImage(Exception):
    """One image among others can't be used; the message says why, without the file's name. The caller skips it."""


class ImageFile(NamedTuple):
    """An image file and what it is called in the results.

    Attributes:
        path: where it is.
        name: path relative to the argument it was found under, with "/"; of an argument that is a file, its name.
    """

    path: Path
    name: str


def find_images(paths: Sequence[Path | str], exclude: Path | None = None) -> list[ImageFile]:
    """All images in files and folders, folders searched to the bottom.

    Convention: sorted by name within an argument, arguments in their order. Hidden files and folders (a leading dot)
    and other suffixes are passed over in folders, as are the drawings of an earlier prediction: ``PICTURE_FOLDERS``
    beside its table of detections. Linked folders are entered, each real folder once. A file reached twice under one
    name counts once.

    Args:
        paths: files or folders.
        exclude: a folder that isn't entered: the results of the very run, if they lie among the images.

    Raises:
        MistError: no argument; no such path; a folder without images or that can't be listed; two different
            files with one name, which the results could not tell apart.
    """
    if not paths:
        raise MistError("no image was given: name at least one file or folder")
    found: dict[str, ImageFile] = {}
    for argument in map(Path, paths):
        if argument.is_dir():
            files = sorted(_images_below(argument, exclude), key=lambda file: file.name)
            if not files:
                raise MistError(f"no image in folder {argument}: it needs files that end in {', '.join(SUFFIXES)}")
        elif argument.exists():
            files = [ImageFile(argument, argument.name)]
        else:
            raise MistError(f"no such file or folder: {argument}; check the path")
        for file in files:
            first = found.setdefault(file.name, file)
            if first is not file and os.path.realpath(first.path) != os.path.realpath(file.path):
                raise MistError(
                    f"{first.path} and {file.path} would both be called {file.name!r} in the results: "
                    "give a folder that holds both, or run one command for each"
                )
    return list(found.values())


def _images_below(root: Path, exclude: Path | None) -> Iterator[ImageFile]:
    # The results may lie in the very folder of the images: then its own drawings are no input.
    left_out: set[str] = set()
    if exclude is not None:
        left_out = {os.path.realpath(folder) for folder in (exclude, *(exclude / name for name in PICTURE_FOLDERS))}
    entered = {os.path.realpath(root)}

    def refuse(error: OSError) -> None:
        raise MistError(f"can't list folder {error.filename} ({error.strerror}): change its permissions") from error

    for folder, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        kept = []
        drawn = PICTURE_FOLDERS if holds_results(Path(folder)) else ()
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(folder, name))
            if not name.startswith(".") and name not in drawn and real not in left_out and real not in entered:
                entered.add(real)
                kept.append(name)
        folders[:] = kept
        for name in files:
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                path = Path(folder, name)
                yield ImageFile(path, path.relative_to(root).as_posix())


def holds_results(folder: Path) -> bool:
    """Whether a folder holds the results of a prediction: its table of detections, by the name and the first line."""
    path = folder / DETECTIONS_FILE
    try:
        if not path.is_file():  # reading a pipe would wait for ever
            return False
        with path.open("rb") as file:
            return file.readline(100).strip() == ",".join(DETECTION_COLUMNS).encode()
    except OSError:  # what can't be read is not known to be ours
        return False


def open_image(path: Path) -> Image.Image:
    """Decodes an image file completely and brings it to one of few forms.

    Returns:
        An upright Pillow image of mode "L" (grey), "RGB", "I" (16-bit values) or "F" (values in [0, 1]).

    Convention: transparency is put on black, the value that lies outside every image. Palette, 1-bit and CMYK images
    become grey or RGB.

    Raises:
        UnreadableImage: not an image, truncated, too large, or values whose range nobody stated.
    """
    if not path.is_file():  # reading a pipe would wait for ever
        raise UnreadableImage("not a regular file")
    try:
        image = _decode(path)
    except Image.DecompressionBombError as error:
        raise UnreadableImage(
            f"it has more than the {MAX_PIXELS:,} pixels that are read, perhaps a bomb: cut it into parts"
        ) from error
    except _DECODING_ERRORS as error:
        # Pillow puts the path into its message; the caller names the file already.
        text = "not an image in a known format" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise UnreadableImage(" ".join(text.split()) or type(error).__name__) from error
    return normalise_mode(image)


def _decode(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        # Pillow warns from 89 million pixels on; our own limit is checked before anything is decoded.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        # Damaged metadata is no reason to refuse an image that decodes, nor to talk about it.
        warnings.simplefilter("ignore", UserWarning)
        with Image.open(path) as image:
            _check_size(image.width, image.height)
            image.load()
            return ImageOps.exif_transpose(image)


def normalise_mode(image: Image.Image) -> Image.Image:
    """A decoded Pillow image of any mode as "L", "RGB", "I" (16-bit values) or "F"; see ``open_image``.

    Raises:
        UnreadableImage: values whose range nobody stated: beyond 16 bits, or floats outside [0, 1].
    """
    if image.mode in _SIXTEEN_BIT_MODES:
        wide = image.convert("I")
        low, high = wide.getextrema()
        if not 0 <= _number(low) <= _number(high) <= _SIXTEEN_BIT:
            raise UnreadableImage(f"its values run from {low} to {high}, beyond 16 bits: convert it to 8 or 16 bits")
        return wide
    if image.mode == "F":
        values = np.asarray(image)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise UnreadableImage("it holds floats outside 0-1: scale them, or convert it to 8 or 16 bits")
        return image
    try:
        if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            straight = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
            solid = Image.new("RGB", image.size)
            solid.paste(straight, mask=straight.getchannel("A"))
            return solid.convert("L") if image.mode in ("LA", "La", "L", "1") else solid
        return image.convert("L" if image.mode in ("1", "L") else "RGB")
    except ValueError as error:
        raise UnreadableImage(f"its colours can't be read ({error}): convert it to RGB") from error


def to_tensor(image: Image.Image, channels: int) -> Float[Tensor, "channels height width"]:
    """An image from ``open_image`` as a tensor in [0, 1].

    Convention: 8-bit values over 255; 16-bit values over 65535, never stretched, so that equal values stay equal from
    image to image. Grey is the luma of ITU-R BT.601; grey becomes RGB by repetition.

    Args:
        image: of mode "L", "RGB", "I" or "F".
        channels: 1 or 3.

    Raises:
        ValueError: if channels is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    if image.mode == "RGB" and channels == 1:
        image = image.convert("L")
    scale = {"I": 1 / _SIXTEEN_BIT, "F": 1.0}.get(image.mode, 1 / _EIGHT_BIT)
    # A copy as float32: the array of a Pillow image is read-only.
    values = torch.from_numpy(np.array(image, dtype=np.float32)).mul_(scale)
    if values.ndim == 2:
        return values.expand(channels, -1, -1).contiguous()
    return values.permute(2, 0, 1).contiguous()


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadableImage(
            f"it has {width} x {height} pixels, more than the {MAX_PIXELS:,} that are read: cut it into parts"
        )


def _number(value: object) -> int | float:
    """A bound that Pillow reports, which its types leave open to be one for each band."""
    assert isinstance(value, int | float)
    return value
