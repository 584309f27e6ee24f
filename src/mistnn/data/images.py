"""Finding image files and converting them to tensors.

Convention: an image is upright, as viewers show it (its EXIF orientation is applied), and detections are in pixels of
that upright image. Only the first frame or page of a file is read.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile as OpenedFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from mistnn.data import tiff
from mistnn.data.text_files import one_line
from mistnn.errors import MistError

SUFFIXES = (
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".j2c", ".j2k", ".jfif", ".jif", ".jp2", ".jpe", ".jpeg", ".jpg", ".jpx",
    ".mpo", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
)  # fmt: skip
"""Suffixes of the images in a folder, in either case. A file that the user names is read whatever its suffix, unless it
is one of ``FOREIGN``."""

_HEIF = (".heic", ".heif", ".hif")

FOREIGN = {
    **dict.fromkeys(_HEIF, "HEIC needs the package pillow-heif: install it, or convert it to JPEG"),
    **dict.fromkeys(
        (
            ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".jxl", ".kdc", ".mrw", ".nef",
            ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
        ),
        "raw photographs and JPEG XL aren't read: convert it to JPEG or PNG",
    ),
    **dict.fromkeys(
        (
            ".bif", ".btf", ".czi", ".dcm", ".dm3", ".dm4", ".fits", ".flex", ".ims", ".lif", ".lsm", ".mrc", ".mrxs",
            ".nd2", ".ndpi", ".oib", ".oif", ".oir", ".qptiff", ".scn", ".stk", ".svs", ".tf8", ".vsi", ".zvi",
        ),
        "files of microscopes and scanners aren't read: export it as PNG or TIFF",
    ),
    **dict.fromkeys(
        (".exr", ".jxr", ".psb", ".psd", ".xcf"),
        "images of this kind aren't read: save it as PNG or TIFF",
    ),
    **dict.fromkeys(
        (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".webm", ".wmv"),
        "videos aren't read: save the frames that you mean as PNG",
    ),
}  # fmt: skip
"""Suffixes of images that can't be read, and the fix. They are named, unless the same image is beside them."""

PICTURE_FOLDERS = ("overlays", "reconstructions", "residuals")
"""Folders of pictures that a prediction writes into its results; in a folder of images they are skipped."""

SYSTEM_FOLDERS = (
    "__MACOSX",
    "__pycache__",
    "@eaDir",
    "#recycle",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
)
"""Folders that systems and storage devices leave behind; like hidden ones, they are never searched."""

DETECTIONS_FILE = "detections.csv"
DETECTION_COLUMNS = ("file", "x", "y", "w", "h", "label", "score")
"""The table of a prediction; it identifies a folder of results."""
COUNT_COLUMNS = ("file", "class", "count", "at_limit", "low", "high", "unlike")
"""The table of counts beside it."""

MAX_PIXELS = 150_000_000
"""Pixels of the largest image that is read: above 10,000 x 10,000, below the 179 million that Pillow rejects."""

PAGES = "pages"
"""Key in the ``info`` of a decoded image: the pages or frames of its file; only the first is read."""

LEAST_TOP = 16
"""Largest of the 8-bit values of a 16-bit colour image below which it is refused: 4 bits remain of 12 (our choice)."""

ANIMATED = ("AVIF", "GIF", "PNG", "WEBP")
"""Formats of animations."""

_SIXTEEN_BIT, _SIXTEEN_BIT_MODES = 65535, ("I;16", "I;16B", "I;16L", "I;16N", "I")
_ALWAYS_READ = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
# Pillow's decoders raise these on damaged files; OSError includes "unidentified" and "truncated".
_DECODING_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, NotImplementedError,
    MemoryError, struct.error, zlib.error,
)  # fmt: skip


class UnreadableImage(Exception):
    """An image can't be used; the message gives the cause without the file's name. The caller skips the image."""


class ImageFile(NamedTuple):
    """An image file and its name in the results."""

    path: Path
    #: Path relative to the folder that the user named, with "/"; just the file name if the user named the file.
    name: str


def find_images(paths: Sequence[Path | str | ImageFile], exclude: Path | None = None) -> list[ImageFile]:
    """All images in files and folders, including subfolders.

    Convention: sorted by name within an argument, arguments in their order. In folders, these are skipped: hidden files
    and folders, see ``is_hidden``, other suffixes, and ``PICTURE_FOLDERS`` beside a prediction's table of detections.
    A ``FOREIGN`` file is found too, so that opening it says what to do, but not beside an image of the same name.
    Linked folders are entered, each real folder once. A file counts once, also if a folder and one in it are given.

    Args:
        paths: files, folders, or files with the names that they shall have in the results.
        exclude: the folder of the results of the current run, whose pictures are skipped if they lie among the images.

    Raises:
        MistError: if there is no argument, a path does not exist, a folder holds no images or can't be listed, or two
            different files have the same name in the results.
    """
    if not paths:
        raise MistError("no image was given: name at least one file or folder")
    found: dict[str, ImageFile] = {}
    earlier: set[str] = set()  # the files of the arguments before
    for given in paths:
        argument = given.path if isinstance(given, ImageFile) else Path(given)
        if argument.is_dir():
            files = sorted(_images_below(argument, exclude), key=lambda file: file.name)
            if not files:
                raise MistError(f"no image in folder {argument}: it needs files that end in {', '.join(SUFFIXES)}")
        elif argument.exists():
            files = [given if isinstance(given, ImageFile) else ImageFile(argument, argument.name)]
        else:
            raise MistError(f"no such file or folder: {argument}; check the path")
        if len(paths) > 1:
            own = [os.path.realpath(file.path) for file in files]
            files = [file for file, real in zip(files, own, strict=True) if real not in earlier]
            earlier.update(own)
        for file in files:
            first = found.setdefault(file.name, file)
            if first is not file and os.path.realpath(first.path) != os.path.realpath(file.path):
                twice = f"{first.path} and {file.path} would both be called {file.name!r} in the results"
                raise MistError(f"{twice}: give a folder that holds both, or run one command for each")
    return list(found.values())


def _images_below(root: Path, exclude: Path | None) -> Iterator[ImageFile]:
    # The results may lie in the folder of the images: only the pictures in them are then skipped.
    left_out = set() if exclude is None else {os.path.realpath(exclude / name) for name in PICTURE_FOLDERS}
    entered = {os.path.realpath(root)}

    def refuse(error: OSError) -> None:
        raise MistError(f"can't list folder {error.filename} ({error.strerror}): change its permissions") from error

    for folder, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        drawn = PICTURE_FOLDERS if holds_results(Path(folder)) else ()
        shown = sorted(name for name in folders if not is_hidden(name) and name not in drawn)
        folders.clear()
        for name in shown:
            real = os.path.realpath(os.path.join(folder, name))
            if real not in left_out and real not in entered:
                entered.add(real)
                folders.append(name)
        own = [name for name in files if not is_hidden(name)]
        parts = {name: os.path.splitext(name.lower()) for name in own}
        read = {stem for stem, suffix in parts.values() if suffix in SUFFIXES}
        for name, (stem, suffix) in parts.items():
            if suffix in SUFFIXES or (suffix in FOREIGN and stem not in read):
                path = Path(folder, name)
                yield ImageFile(path, path.relative_to(root).as_posix())


def is_hidden(name: str) -> bool:
    """Whether a file or folder belongs to the system: a leading dot (``._a.png`` of macOS too), or a known name."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def holds_results(folder: Path) -> bool:
    """Whether a folder holds the results of a prediction: a table of detections, by its name and first line."""
    path = folder / DETECTIONS_FILE
    with contextlib.suppress(OSError):  # an unreadable file is not assumed to be a table of detections
        if path.is_file():  # reading a pipe would wait forever
            with path.open("rb") as file:
                return file.readline(100).strip() == ",".join(DETECTION_COLUMNS).encode()
    return False


def open_image(path: Path, reduced: bool = False, admit: Callable[[int], None] | None = None) -> Image.Image:
    """Decodes an image file completely and converts it to one of few modes.

    Convention: the result is upright, of mode "L" (grey), "RGB", "I" (16-bit values) or "F" (values in [0, 1]).
    Transparency is put on black, the padding value. Palette, 1-bit and CMYK images become grey or RGB.

    Args:
        path: of the file.
        reduced: make a JPEG image eight times smaller. The whole file is still read, in half of the time or less.
        admit: called with the number of pixels before they are decoded; may wait.

    Raises:
        UnreadableImage: if it is not an image, truncated, too large, or has values of an unknown range: beyond 16 bits,
            or floats outside [0, 1]; also if Pillow would read it wrong, see ``mistnn.data.tiff``, 16-bit colours are
            so dark that hardly any of the 8 bits that remain are used, or the first of several pages is empty.
    """
    with open_header(path) as image:
        if image.width * image.height > MAX_PIXELS:
            size = f"{image.width} x {image.height} pixels"
            raise UnreadableImage(f"it has {size}, more than the {MAX_PIXELS:,} that are read: cut it into parts")
        # Pillow keeps the upper 8 bits of 16-bit colours.
        deep = image.mode not in _SIXTEEN_BIT_MODES and any(";16" in str(tile[3]) for tile in image.tile)
        pages = pages_of(image)
        if reduced:
            image.draft(None, (1, 1))
        if admit is not None:
            admit(image.width * image.height)
        decoded = decode(image)
    ranges = _ranges(decoded) if deep or pages > 1 else []
    if pages > 1 and all(low == high for low, high in ranges):
        if isinstance(image, TiffImageFile):
            fix = "pages is empty: mist convert joins the pages, or makes an image of each"
        else:
            fix = "frames is empty: save the frame that you mean as PNG"
        raise UnreadableImage(f"the first of its {pages} {fix}")
    if deep and (top := max(high for _, high in ranges)) < LEAST_TOP:
        used = f"only values up to about {256 * (int(top) + 1) - 1} are used"
        raise UnreadableImage(
            f"its colours have 16 bits, but {used}: scale them to the full range, or convert it to grey"
        )
    decoded.info[PAGES] = pages
    return decoded


def decode(image: Image.Image) -> Image.Image:
    """Decodes an opened image and converts it as ``open_image`` does; of several pages or frames, the current one.

    Raises:
        UnreadableImage: if it is damaged, or if Pillow would read it wrong.
    """
    if (why := tiff.refusal(image)) is not None:
        raise UnreadableImage(why)
    white_is_zero = tiff.is_white_zero(image)
    tiff.read_not_mapped(image)
    try:
        has_end = not isinstance(image, JpegImageFile) or _has_end(image)
        image.load()
    except _DECODING_ERRORS as error:
        raise UnreadableImage(one_line(error)) from error
    if not has_end:
        raise UnreadableImage("its data end before the image does, and the rest is filled up: copy the file again")
    return normalise_mode(tiff.upright_values(ImageOps.exif_transpose(image), white_is_zero))


def _has_end(image: JpegImageFile) -> bool:
    """Whether a JPEG file that is not decoded yet has an end marker; without it, Pillow fills up what is missing."""
    if not image.tile or image.fp is None:
        return True
    place = image.fp.tell()
    image.fp.seek(0)
    data = image.fp.read()
    image.fp.seek(place)
    return b"\xff\xd9" in data[_first_scan(data) :]


def _first_scan(data: bytes) -> int:
    """Where the compressed data of a JPEG file begin: behind its metadata, whose preview has an end of its own."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        filling = data[place + 1] == 0xFF
        place += 1 if filling else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return place


def has_late_metadata(image: Image.Image) -> bool:
    """Whether an opened PNG file has metadata behind its pixels, which are known only after decoding."""
    if image.format != "PNG" or not isinstance(image, OpenedFile) or image.fp is None:
        return False
    file, place, pixels = image.fp, image.fp.tell(), False
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if pixels and kind in (b"eXIf", b"iTXt"):
            break
        pixels = pixels or kind == b"IDAT"
        file.seek(length + 4, os.SEEK_CUR)
    file.seek(place)
    return len(head) == 8


def pages_of(image: Image.Image) -> int:
    """The pages of an opened TIFF file, see ``tiff.pages_of``, or the frames of an animation; 1 for other images.

    The frames of other formats, such as the preview in a JPEG file of a telephone, are no pages.
    """
    if image.format not in ANIMATED:
        return tiff.pages_of(image)
    frames = 1
    with contextlib.suppress(*_DECODING_ERRORS):  # an error in a later frame
        frames = int(getattr(image, "n_frames", 1))
    image.seek(0)
    return frames


def _ranges(image: Image.Image) -> list[tuple[float, float]]:
    """The smallest and the largest value of each channel."""
    return [band.getextrema() for band in image.split()]  # pyright: ignore[reportReturnType]


@contextlib.contextmanager
def open_header(path: Path) -> Iterator[OpenedFile]:
    """Opens an image file without decoding its pixels; Pillow's errors become ``UnreadableImage``, its warnings go."""
    if not path.is_file():  # reading a pipe would wait forever
        raise UnreadableImage("not a regular file")
    suffix = path.suffix.lower()
    if suffix in FOREIGN and not (suffix in _HEIF and _reads_heif()):
        raise UnreadableImage(FOREIGN[suffix])  # some of them would open as their thumbnail
    try:
        with quiet_pillow(), Image.open(path) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise UnreadableImage(
            f"more than the {MAX_PIXELS:,} pixels that are read, perhaps a decompression bomb: cut it into parts"
        ) from error
    except Image.UnidentifiedImageError as error:
        fix = ""
        if suffix in (".tif", ".tiff"):
            fix = ", or a TIFF of channels or numbers that aren't read: mist convert makes an image of it"
        elif suffix in SUFFIXES and suffix not in _ALWAYS_READ:
            fix = f", or the installed Pillow doesn't read {suffix}: convert it to JPEG or PNG"
        raise UnreadableImage(f"not an image in a known format{fix}") from error
    except _DECODING_ERRORS as error:
        raise UnreadableImage(one_line(error)) from error


_quiet = threading.Lock()
_quiet_users: list[warnings.catch_warnings[None]] = []


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Inside the context, Pillow doesn't warn: of more pixels than 89 million, below our limit, or damaged metadata.

    Python's warning filters belong to the whole process. Several threads may be inside: the first one in sets the
    filters, the last one out restores those before. A function that starts such threads must itself be inside.
    """
    with _quiet:
        _quiet_users.append(warnings.catch_warnings())
        if len(_quiet_users) == 1:
            _quiet_users[0].__enter__()
            warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module=r"(PIL|pillow_heif)\.")
    try:
        yield
    finally:
        with _quiet:
            if len(_quiet_users) == 1:
                _quiet_users[0].__exit__(None, None, None)
                _quiet_users.clear()
            else:
                _quiet_users.pop()


def _reads_heif() -> bool:
    """Whether Pillow reads HEIC, with the help of pillow-heif."""
    try:
        heif = importlib.import_module("pillow_heif")
    except ImportError:
        return False
    heif.register_heif_opener()
    return True


def normalise_mode(image: Image.Image) -> Image.Image:
    """Converts a decoded Pillow image of any mode to "L", "RGB", "I" (16-bit values) or "F"; see ``open_image``."""
    if image.mode in _SIXTEEN_BIT_MODES:
        wide = image.convert("I")
        values = np.asarray(wide)
        low, high = int(values.min()), int(values.max())
        if not 0 <= low <= high <= _SIXTEEN_BIT:
            raise UnreadableImage(f"its values run from {low} to {high}, beyond 16 bits: convert it to 8 or 16 bits")
        clear = image.info.get("transparency")  # one value, of grey PNG
        return Image.fromarray(np.where(values == clear, 0, values)) if isinstance(clear, int) else wide
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


def rgb_tensor(pixels: np.ndarray) -> Float[Tensor, "3 height width"]:
    """Pixels (height, width, 3) from 0 to 255 as a tensor in [0, 1]."""
    return torch.from_numpy(np.array(pixels, dtype=np.float32)).permute(2, 0, 1).contiguous() / 255


def to_tensor(image: Image.Image, channels: int) -> Float[Tensor, "channels height width"]:
    """An image from ``open_image`` as a tensor in [0, 1].

    Convention: 8-bit values are divided by 255 and 16-bit values by 65535, never stretched, so that values are
    comparable between images. RGB becomes grey by the luma of ITU-R BT.601; grey becomes RGB by repetition.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    if image.mode == "RGB" and channels == 1:
        image = image.convert("L")
    scale = {"I": 1 / _SIXTEEN_BIT, "F": 1.0}.get(image.mode, 1 / 255)
    # NumPy, not torch, whose own threads would multiply where images are read in threads.
    values = np.asarray(image)
    values = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    scaled = np.array(values, dtype=np.float32, order="C")  # a copy: the array of a Pillow image is read-only
    scaled *= np.float32(scale)
    return torch.from_numpy(scaled if len(scaled) == channels else np.repeat(scaled, channels, axis=0))


def read_image(path: Path, fix: str) -> Image.Image:
    """An image of a data set, as ``open_image`` returns it; raises ``MistError`` with the ``fix``."""
    try:
        return open_image(path)
    except UnreadableImage as error:
        raise MistError(f"can't read {path} ({error}): {fix}") from error


def read_window(
    image: UInt8[np.ndarray, "height width 3"], window: Float[np.ndarray, " 4"], side: int
) -> UInt8[np.ndarray, "side side 3"]:
    """Resizes a part of an image, antialiased, to a square; beyond the image its border pixels are repeated.

    The ``window`` is x1, y1, x2, y2 in pixels, the first pixel from 0 to 1; it may exceed the image.
    """
    height, width = image.shape[:2]
    left, top = max(0, math.ceil(-window[0])), max(0, math.ceil(-window[1]))
    right, bottom = max(0, math.ceil(window[2] - width)), max(0, math.ceil(window[3] - height))
    wide = np.pad(image, ((top, bottom), (left, right), (0, 0)), mode="edge")
    x1, y1, x2, y2 = (window + np.array((left, top, left, top))).tolist()
    return np.asarray(Image.fromarray(wide).resize((side, side), Image.Resampling.BILINEAR, box=(x1, y1, x2, y2)))
