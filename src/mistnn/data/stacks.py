"""Stacks of microscopes: multi-page TIFF, OME-TIFF, ImageJ's hyperstacks and LSM, made into plain images.

A stack has times, channels and planes (depths). Each time becomes an image of its own. Planes are joined, and one to
three channels are chosen. All images of a folder are scaled by the same range of values, so that they stay comparable.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from mistnn.data.images import MAX_PIXELS
from mistnn.data.text_files import parse_xml
from mistnn.errors import MistError

STACK_SUFFIXES = (".tif", ".tiff", ".lsm")
Planes = Literal["max", "mean", "each"]
TAIL = 0.1
"""Percent of the values of an image at either end that don't stretch the range (our choice)."""
SAMPLED = 1_000_000
"""Values of an image from which its range is estimated (our choice)."""
MOST_CHANNELS = 3
_COLOURS, _CHANNEL, _TIME, _DEPTH = "S", "C", "T", "Z"
_ORIENTATION, _WHITE_IS_ZERO, _PALETTE = 274, 0, 3  # of TIFF


class UnusableStack(Exception):
    """A file can't be used; the message gives the cause without the file's name."""


class Stack(NamedTuple):
    """A file that is open.

    Attributes:
        values: (times, channels, planes, height, width), in an array that may stay on disk.
        colours: whether the channels are red, green and blue.
        channel_names: those of OME-XML; else numbers from 1.
        further: the number of series after the first, which are not read.
        unknown: the axes besides depth that were taken for it, with their lengths, such as "12 of axis Q".
    """

    values: Any
    colours: bool
    channel_names: tuple[str, ...]
    further: int = 0
    unknown: str = ""


def needs_tifffile() -> Any:
    """The package tifffile. Raises ``MistError`` if it is missing."""
    try:
        return importlib.import_module("tifffile")
    except ImportError as error:
        raise MistError("reading stacks needs the package tifffile: pip install 'mistnn[files]'") from error


@contextlib.contextmanager
def _quiet() -> Iterator[list[str]]:
    """What tifffile logs about damaged files, which is not printed: an error says it in one line."""
    logger, said = logging.getLogger("tifffile"), list[str]()

    def keep(record: logging.LogRecord) -> bool:
        said.append(record.getMessage())
        return False

    logger.addFilter(keep)
    try:
        yield said
    finally:
        logger.removeFilter(keep)


def read_stack(path: Path) -> Stack:
    """Reads a stack; of a pyramid its finest level, of several series the first.

    Raises:
        UnusableStack: if the file is damaged, its compression needs another package, or it is too large.
        MistError: if tifffile is missing.
    """
    tifffile = needs_tifffile()
    try:
        with _quiet() as said, tifffile.TiffFile(path) as file:
            len(file.pages)  # follows the list of pages to its end
            if any("circular" in line for line in said):
                raise UnusableStack("its list of pages leads back to an earlier one: it is damaged")
            series = file.series[0]
            axes, shape, names = series.axes, series.shape, _names(file)
            if _COLOURS in axes and _CHANNEL in axes and shape[axes.index(_CHANNEL)] > 1:
                raise UnusableStack("it has several channels of three colours each: save one channel as a file")
            if math.prod(shape[axes.index(axis)] for axis in "YX") > MAX_PIXELS:
                raise UnusableStack(f"its planes have more than the {MAX_PIXELS:,} pixels that are read: cut it")
            values, further = series.asarray(), len(file.series) - 1
            page, imagej = series.keyframe, bool(file.is_imagej)
            turned = page.tags.get(_ORIENTATION)
            view = _View(
                int(page.photometric) == _WHITE_IS_ZERO,
                # The colours of other kinds, and those of ImageJ, are only those of the display.
                page.colormap if int(page.photometric) == _PALETTE and not imagej else None,
                1 if turned is None else int(turned.value),
            )
    except UnusableStack:
        raise
    except Exception as error:  # tifffile and its decoders raise errors of many kinds on damaged files
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        fix = ": pip install imagecodecs" if "imagecodecs" in text else ""
        raise UnusableStack(f"tifffile can't read it ({text}){fix}") from error
    if values.dtype.kind not in "uif" or (values.dtype.kind == "f" and not np.isfinite(values).all()):
        raise UnusableStack(f"its values ({values.dtype}) are no finite real numbers")
    if values.shape != shape or values.size == 0:
        raise UnusableStack(f"it holds {values.shape} values and its header says {shape}: it is damaged")
    return _ordered(*_as_viewed(values, axes, view), names)._replace(further=further)


class _View(NamedTuple):
    """How the values of a file are meant."""

    white_is_zero: bool
    palette: np.ndarray | None  # (3, values)
    orientation: int  # of EXIF


def _as_viewed(values: np.ndarray, axes: str, view: _View) -> tuple[np.ndarray, str]:
    """Values and axes of upright images with 0 as black and with the colours of their palette."""
    flipped = {2: "X", 3: "XY", 4: "Y", 6: "Y", 7: "XY", 8: "X"}.get(view.orientation, "")
    values = np.flip(values, tuple(axes.index(axis) for axis in flipped))
    if 5 <= view.orientation <= 8:
        axes = axes.translate(str.maketrans("XY", "YX"))
    if view.palette is not None and values.dtype.kind == "u" and _COLOURS not in axes:
        return np.moveaxis(view.palette[:, values], 0, -1), axes + _COLOURS
    if view.white_is_zero:
        values = 1 - values if values.dtype.kind == "f" else ~values
    return values, axes


def _ordered(values: np.ndarray, axes: str, names: tuple[str, ...]) -> Stack:
    colours = _COLOURS in axes and _CHANNEL not in axes
    channel = _COLOURS if colours else _CHANNEL
    last = [axis for axis in (_TIME, channel, "Y", "X") if axis in axes]
    others = [axis for axis in axes if axis not in last]  # depths, and whatever else there is (a note says so)
    places = [axes.index(axis) for axis in ([_TIME] if _TIME in axes else [])]
    places += [axes.index(channel)] if channel in axes else []
    moved = values.transpose(*places, *(axes.index(axis) for axis in others), axes.index("Y"), axes.index("X"))
    times = values.shape[axes.index(_TIME)] if _TIME in axes else 1
    channels = values.shape[axes.index(channel)] if channel in axes else 1
    shaped = moved.reshape(times, channels, -1, *moved.shape[-2:])
    if colours and channels == 4:  # the last one is transparency
        shaped, channels = shaped[:, :3], 3
    given = names if len(names) == channels else tuple(str(index + 1) for index in range(channels))
    sizes = {axis: values.shape[axes.index(axis)] for axis in others if axis != _DEPTH}
    unknown = ", ".join(f"{size} of axis {axis}" for axis, size in sizes.items() if size > 1)
    return Stack(shaped, colours and channels == 3, given, unknown=unknown)


def _names(file: Any) -> tuple[str, ...]:
    """The names of the channels in OME-XML."""
    if not file.is_ome:
        return ()
    try:
        root = parse_xml(file.ome_metadata.encode(), "OME-XML")
    except MistError:
        return ()  # the names are not needed
    found = [one.get("Name") for one in root.iter() if one.tag.endswith("}Channel")]
    return tuple(name for name in found if name)


def images_of(stack: Stack, channels: Sequence[int] = (), planes: Planes = "max") -> Iterator[tuple[str, np.ndarray]]:
    """The images that a stack becomes: the end of the name of each, and (height, width, channels).

    Args:
        stack: the file.
        channels: one to three of them, from 1; by default the only one, or the three colours.
        planes: the largest value or the mean of all depths; or each depth as an image of its own.

    Raises:
        UnusableStack: if the stack has several channels and none was chosen, or not so many.
    """
    number = stack.values.shape[1]
    named = ", ".join(f"{index + 1} ({name})" for index, name in enumerate(stack.channel_names))
    if not channels and number > 1 and not stack.colours:
        raise UnusableStack(f"it has {number} channels, {named}: choose up to three with --channels")
    if beyond := [one for one in channels if not 1 <= one <= number]:
        raise UnusableStack(f"it has no channel {beyond[0]}, only {named}")
    chosen = [one - 1 for one in channels] or list(range(number))
    times, depths = stack.values.shape[0], stack.values.shape[2]
    for time in range(times):
        values = stack.values[time][chosen]
        ending = f"_t{time + 1:0{len(str(times))}d}" if times > 1 else ""
        if planes == "each" and depths > 1:
            for depth in range(depths):
                yield f"{ending}_z{depth + 1:0{len(str(depths))}d}", np.moveaxis(values[:, depth], 0, -1)
        else:
            joined = values.max(1) if planes != "mean" else values.mean(1)
            yield ending, np.moveaxis(joined, 0, -1)


def range_of(image: np.ndarray) -> tuple[float, float]:
    """The range of the values of an image without their tails."""
    flat = image.ravel()
    some = flat[:: max(1, math.ceil(flat.size / SAMPLED))].astype(np.float64)
    low, high = np.percentile(some, (TAIL, 100 - TAIL))
    return float(low), float(high)


def as_png(image: np.ndarray, low: float, high: float) -> bytes:
    """An image as PNG, scaled from the range: 16-bit grey for one channel, 8-bit colours for two or three."""
    unit = ((image.astype(np.float64) - low) / max(high - low, 1e-12)).clip(0, 1)
    if image.shape[2] == 1:
        picture = Image.fromarray((unit[..., 0] * 65535).round().astype(np.uint16))
    else:
        colours = np.zeros((*image.shape[:2], 3), dtype=np.uint8)
        colours[..., : image.shape[2]] = (unit * 255).round()
        picture = Image.fromarray(colours)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
