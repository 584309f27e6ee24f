"""Uncompressed TIFF files of every layout, written from the specification (TIFF 6.0)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_LETTERS = {2: "B", 3: "H", 4: "I"}  # of the types ASCII, SHORT and LONG


def write_tiff(
    path: Path,
    pages: Sequence[NDArray[np.generic]],
    planar: bool = False,
    tags: Mapping[int, Sequence[int] | str] | None = None,
) -> Path:
    """Writes pages (height, width) or (height, width, channels); ``tags`` replace those of the first page."""
    data, link = bytearray(b"II" + struct.pack("<HI", 42, 0)), 4
    for number, page in enumerate(pages):
        channels = page.shape[2] if page.ndim == 3 else 1
        planes = [page[..., index] for index in range(channels)] if planar and channels > 1 else [page]
        offsets, lengths = [], []
        for plane in planes:
            offsets.append(len(data))
            lengths.append(plane.nbytes)
            data += np.ascontiguousarray(plane).tobytes() + b"\0" * (plane.nbytes % 2)
        own: dict[int, Sequence[int] | str] = {
            256: [page.shape[1]], 257: [page.shape[0]], 258: [8 * page.dtype.itemsize] * channels, 259: [1],
            262: [2 if channels > 2 else 1], 273: offsets, 277: [channels], 278: [page.shape[0]], 279: lengths,
            284: [2 if planar else 1], 339: [3 if page.dtype.kind == "f" else 1] * channels,
        }  # fmt: skip
        own |= (tags or {}) if number == 0 else {}
        entries = b"".join(_entry(tag, own[tag], data) for tag in sorted(own))
        struct.pack_into("<I", data, link, len(data))
        data += struct.pack("<H", len(own)) + entries
        link = len(data)
        data += struct.pack("<I", 0)
    path.write_bytes(data)
    return path


def _entry(tag: int, values: Sequence[int] | str, data: bytearray) -> bytes:
    kind = 2 if isinstance(values, str) else 4 if tag in (273, 279) else 3
    numbers = list(values.encode() + b"\0") if isinstance(values, str) else values
    packed = struct.pack(f"<{len(numbers)}{_LETTERS[kind]}", *numbers)
    if len(packed) > 4:
        place = len(data)
        data += packed + b"\0" * (len(packed) % 2)
        packed = struct.pack("<I", place)
    return struct.pack("<HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
