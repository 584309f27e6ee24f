"""The image files of a folder: their sizes from the headers, and the names by which people refer to them."""

from __future__ import annotations

import contextlib
import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image

from mistnn.data import tiff
from mistnn.data.images import (
    FOREIGN,
    MAX_PIXELS,
    SUFFIXES,
    ImageFile,
    UnreadableImage,
    find_images,
    has_late_metadata,
    open_header,
    pages_of,
)
from mistnn.errors import MistError

IMAGE_FOLDERS = ("images", "JPEGImages")  #: Folders that are searched for images before the folder itself.
MAX_SIDE = 20_000  #: Longest side of an image that is used, in pixels.

TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height.


DEEP = "16-bit or float"
"""The kind of images of more than 8 bits per value."""


class ImageHeader(NamedTuple):
    """What the header of an image file says."""

    name: str  #: Path relative to the folder of the images, with "/".
    path: Path
    width: int  #: In pixels, upright (its EXIF orientation is applied).
    height: int
    kind: str  #: "grey", "16-bit or float" or "colour".
    pages: int  #: Of a TIFF file, or frames of an animation; only the first is read.
    orientation: int = 1  #: Of EXIF: how the stored pixels are turned or mirrored to be upright; 1 if they are.


class ImageFiles(NamedTuple):
    """The images of a folder."""

    folder: Path  #: The folder that names are relative to.
    headers: tuple[ImageHeader, ...]  #: Of the usable images, sorted by name.
    left_out: dict[str, str]  #: Name -> why it can't be used.


def read_image_files(root: Path) -> ImageFiles:
    """Finds the images in ``images/``, else ``JPEGImages/``, else the folder itself, and reads their headers.

    Convention: see ``find_images``. No pixel is decoded: a file that is truncated after its header is detected only
    when it is used. Raises ``MistError`` if the folder does not exist, can't be listed, or holds no usable image.
    """
    if not root.is_dir():
        raise MistError(f"no such folder: {root}; check the path")
    folder = next((root / name for name in IMAGE_FOLDERS if (root / name).is_dir()), root)
    found = find_images([folder])
    headers: list[ImageHeader] = []
    left_out: dict[str, str] = {}
    for file in found:
        try:
            headers.append(read_header(file))
        except UnreadableImage as error:
            left_out[file.name] = str(error)
    if not headers:
        name, why = next(iter(left_out.items()))
        raise MistError(f"none of the {len(found)} images in {folder} can be used ({name}: {why}): give others")
    return ImageFiles(folder, tuple(headers), left_out)


def read_header(file: ImageFile) -> ImageHeader:
    """Size and kind of an image, without decoding its pixels.

    Raises:
        UnreadableImage: if it is no image, or too large.
    """
    with open_header(file.path) as image:
        width, height, mode = image.width, image.height, image.mode
        # Not always image.getexif(): that of a PNG file decodes all pixels.
        exif = image.getexif() if has_late_metadata(image) else Image.Image.getexif(image)
        stated = 1 if tiff.is_upright(image) else exif.get(ExifTags.Base.Orientation)
        orientation = next((one for one in range(2, 9) if one == stated), 1)
        why, pages = tiff.refusal(image), pages_of(image)
    if why is not None:
        raise UnreadableImage(why)
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        limit = f"{MAX_SIDE:,} a side or {MAX_PIXELS:,} in all"
        raise UnreadableImage(f"{width} x {height} pixels, more than {limit}: cut it into parts")
    if orientation in TURNED:
        width, height = height, width
    kind = DEEP if mode.startswith(("I", "F")) else "grey" if mode in ("1", "L", "LA", "La") else "colour"
    return ImageHeader(file.name, file.path, width, height, kind, pages, orientation)


class NameMatcher:
    r"""Finds the image that a name refers to.

    Convention: a name that is exactly an image's means it. Else a name matches an image if one of the two paths ends
    with the other, in whole parts, with or without the image's suffix; "\" is "/". So "a.png", "a", "images/a.png" and
    "C:\x\images\a.png" all match images/a.png.
    Of several matches, the image with the longest path inside the name is meant.

    A name without any match matches loosely: the case, the suffix of an image file and zeros before a number (which
    spreadsheets delete) may differ. So "A.TIF" matches a.png, and "7" matches 007.png. Accents may be stored as letters
    of their own, and names that are not UTF-8, as from old Windows archives, are taken for Windows-1252.
    """

    def __init__(self, names: Iterable[str]) -> None:
        # The names of all images, including unusable ones.
        self.names = tuple(names)
        self._names = frozenset(self.names)
        self._exact: dict[str, list[str]] = {}
        self._by_last: _Index = {}
        self._loose: _Index = {}
        for name in self.names:
            self._exact.setdefault("/".join(_parts(name)), []).append(name)
            *folders, last = _parts(name)
            for key in {last, last.rpartition(".")[0]}:
                self._by_last.setdefault(key, []).append(((*folders, key), name))
            loose = _loose_parts(name)
            self._loose.setdefault(loose[-1], []).append((loose, name))

    def match(self, written: str) -> list[str]:
        """The images that a name may refer to: none, one, or several if it is ambiguous."""
        if written in self._names:
            return [written]
        parts = _parts(written)
        if "/".join(parts) in self._exact:
            return self._exact["/".join(parts)]
        return _fitting(parts, self._by_last)

    def match_loosely(self, written: str) -> list[str]:
        """The images that a name may refer to, as ``match``, or else loosely."""
        return self.match(written) or _fitting(_loose_parts(written), self._loose)

    def find(self, written: str, place: str, others: int = 0) -> str:
        """The one image that a name refers to.

        Raises:
            MistError: unless there is exactly one; it names the ``place`` and the number of ``others`` without a match.
        """
        found = self.match_loosely(written)
        if len(found) == 1:
            return found[0]
        if found:
            raise MistError(
                f"{place}: {written!r} may be {found[0]!r} or {found[1]!r}: write the name with its folder and suffix"
            )
        near = difflib.get_close_matches(written, self.names, n=1)
        hint = f"did you mean {near[0]!r}? Correct the name" if near else "correct the name"
        more = f", and {others} more name{'s' * (others > 1)} fit{'s' * (others == 1)} none" if others else ""
        raise MistError(f"{place}: no image is called {written!r}{more}: {hint} or delete the row")

    def check_apart(self, source: str, meant: Mapping[str, str]) -> None:
        """Checks that names with different folders don't mean one image, given the image that each name means.

        Raises:
            MistError: if two of them do.
        """
        first: dict[str, tuple[tuple[str, ...], str]] = {}
        for one, image in meant.items():
            folders = tuple(folder.casefold() for folder in _parts(one)[:-1])
            if not folders:
                continue
            other, name = first.setdefault(image, (folders, one))
            short, long = sorted((folders, other), key=len)
            if long[-len(short) :] != short:
                raise MistError(
                    f"{source}: {name!r} and {one!r} are two files, and only {image!r} is there for both: add the "
                    "missing image with its folder, or delete its rows"
                )

    def loosely_matched(self, source: str, written: Iterable[str]) -> tuple[str, ...]:
        """Notes about the names in a file that match only loosely, or have different folders that are not there."""
        loose: list[tuple[str, str]] = []
        elsewhere: dict[tuple[str, ...], list[tuple[str, str]]] = {}
        for name in dict.fromkeys(written):
            exact = self.match(name)
            for image in (exact or self.match_loosely(name))[:1]:
                loose += [] if exact else [(name, image)]
                folders = _parts(name)[:-1]
                elsewhere.setdefault(folders[: max(0, len(folders) - len(_parts(image)) + 1)], []).append((name, image))
        notes = []
        if loose:
            example = "{!r} is taken for {!r}".format(*loose[0])
            notes.append(f"{len(loose)} names differ from those of the images in ending, case or zeros: {example}")
        if len(elsewhere) > 1:
            rare, image = min((some for folders, some in elsewhere.items() if folders), key=len)[0]
            notes.append(f"names have different folders that the images don't have: {rare!r} is taken for {image!r}")
        return tuple(f"{source}: {note}" for note in notes)


_Index = dict[str, list[tuple[tuple[str, ...], str]]]  # last part -> (parts, name of an image)


def _fitting(parts: tuple[str, ...], index: _Index) -> list[str]:
    if not parts:
        return []
    fitting = [
        (len(path), name) for path, name in index.get(parts[-1], ()) if path[-len(parts) :] == parts[-len(path) :]
    ]
    exact = [name for length, name in fitting if length == len(parts)]
    inside = [length for length, _ in fitting if length < len(parts)]
    if exact or not inside:
        return exact or [name for _, name in fitting]
    return [name for length, name in fitting if length == max(inside)]


def _readable(name: str) -> str:
    """A name with the letters that its bytes mean in Windows-1252, if they are not UTF-8."""
    with contextlib.suppress(UnicodeEncodeError):  # half of a letter of UTF-16, which no file has
        data = name.encode("utf-8", "surrogateescape")
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode("utf-8")
        return data.decode("cp1252", "replace")
    return name


def _parts(name: str) -> tuple[str, ...]:
    name = _readable(name)
    # macOS stores accents as separate characters, other systems don't.
    parts = unicodedata.normalize("NFC", name).replace("\\", "/").split("/")
    return tuple(part.strip() for part in parts if part.strip() not in ("", "."))


def _loose_parts(name: str) -> tuple[str, ...]:
    """The parts in lower case, the last one without the suffix of an image and without zeros before a number."""
    *folders, last = [part.casefold() for part in _parts(name)] or [""]
    stem, dot, suffix = last.rpartition(".")
    last = stem if dot and f".{suffix}" in (*SUFFIXES, *FOREIGN) else last
    number = re.fullmatch(r"([0-9]+)(?:\.0*)?", last)  # 7.0 is how tables of numbers write 7
    return (*folders, str(int(number.group(1))) if number else last)
