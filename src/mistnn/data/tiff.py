"""What Pillow reads wrong or leaves out in TIFF files: planes, inverted values and further pages."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

REDUCED_PAGES = 10
"""Pages that are compared with the first: a reduced copy or a preview has another size (our choice)."""

_SUBFILE, _REDUCED, _DNG_VERSION = 254, 1, 50706
_WIDTH, _LENGTH, _BITS, _PHOTOMETRIC, _DESCRIPTION = 256, 257, 258, 262, 270  # tags
_SAMPLES, _PLANAR, _FORMAT = 277, 284, 339
_WHITE_IS_ZERO, _SEPARATE, _SIGNED = 0, 2, 2
_IMAGEJ = re.compile(r"ImageJ=.*?^images=([0-9]+)", re.DOTALL | re.MULTILINE)


def foreign(image: Image.Image) -> str | None:
    """Why the first page of an opened file is not the image that is meant; ``None`` if it is.

    Raw photographs and scans of microscopes are TIFF files too, whatever their names say. Their first page may be a
    small copy, which Pillow would read.
    """
    if _tag(image, _DNG_VERSION, None) is not None:
        return "it is a raw photograph (DNG): convert it to JPEG or PNG"
    if int(_tag(image, _SUBFILE, 0) or 0) & _REDUCED:
        return "its first page is a small copy of the image: export the image itself as PNG or TIFF"
    return None


def refusal(image: Image.Image) -> str | None:
    """Why Pillow would decode an opened file wrong, or another image; ``None`` if it would not. See ``foreign``."""
    if (why := foreign(image)) is not None:
        return why
    samples, bits = _tag(image, _SAMPLES, 1), _tag(image, _BITS, 1)
    if samples > 1 and bits > 8 and _tag(image, _PLANAR, 1) == _SEPARATE:
        return f"its {samples} channels of {bits} bits are stored apart (planar): mist convert makes an image of it"
    if samples > 4 and image.mode != "CMYK":
        return f"it has {samples} channels: mist convert makes an image of some of them"
    if bits == 8 and _tag(image, _FORMAT, 1) == _SIGNED:
        return "its 8-bit values have a sign: mist convert makes an image of it"
    return None


def is_upright(image: Image.Image) -> bool:
    """Whether the size of an opened file is that after its orientation is applied; Pillow 12 gives it for TIFF."""
    return isinstance(image, TiffImageFile) and image.size != (_tag(image, _WIDTH, 0), _tag(image, _LENGTH, 0))


def read_not_mapped(image: Image.Image) -> None:
    """Makes Pillow read an opened TIFF file that it would map into memory.

    It maps with the size after the orientation is applied: lines of an image that is turned by a quarter would be cut
    at a wrong length.
    """
    if isinstance(image, TiffImageFile) and is_upright(image):
        image.filename = ""


def upright_values(image: Image.Image, white_is_zero: bool) -> Image.Image:
    """The decoded image with 0 as black; Pillow does this for 8 bits only."""
    if not white_is_zero or image.mode not in ("I;16", "I;16B", "F"):
        return image
    values = np.asarray(image)
    return Image.fromarray(1 - values if image.mode == "F" else 65535 - values.astype(np.uint16))


def is_white_zero(image: Image.Image) -> bool:
    """Whether an opened TIFF file stores white as 0."""
    return _tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO


def pages_of(image: Image.Image) -> int:
    """The number of pages of an opened TIFF file that are as large as the first; 1 for other formats.

    An error in a later page ends the count.
    """
    if not isinstance(image, TiffImageFile):
        return 1
    described = _IMAGEJ.match(str(_tag(image, _DESCRIPTION, "")))
    pages = int(described.group(1)) if described else 1  # ImageJ stores large stacks as one page
    with contextlib.suppress(EOFError, OSError, SyntaxError, ValueError, KeyError, TypeError):
        size, frames = image.size, image.n_frames
        others = 0
        for page in range(1, min(frames, REDUCED_PAGES)):
            image.seek(page)
            others += image.size != size
        pages = max(pages, frames - others)
    image.seek(0)
    return pages


def _tag(image: Image.Image, tag: int, missing: Any) -> Any:
    value = image.tag_v2.get(tag, missing) if isinstance(image, TiffImageFile) else missing
    return value[0] if isinstance(value, tuple) else value
