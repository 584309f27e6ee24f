"""Images that are in a folder twice: files with the same bytes, and names with several endings."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from mistnn.data.folder.content import FolderImage
from mistnn.data.text_files import listed, printable

PIECE = 4096
"""Bytes from the middle of a file, compared before the whole file is read."""


def copied_images(images: Sequence[FolderImage]) -> list[list[FolderImage]]:
    """The groups of two or more images whose files have the same bytes, in the order of the images.

    Most files differ in size, and nothing of them is read. Others differ in ``PIECE`` bytes from their middle. Only
    what is equal in both is read in full. A file that can't be read, and an image that is no file, is no copy.
    """
    groups = [[image for image in images if image.load is None]]
    for key in (_size, _middle, _digest):
        groups = [part for group in groups for part in _parted(group, key)]
    return groups


def in_several_formats(images: Sequence[FolderImage]) -> list[list[FolderImage]]:
    """The groups of images that have one size and one name but for its ending: perhaps one image, saved again."""
    groups: dict[tuple[str, int, int], list[FolderImage]] = {}
    for image in images:
        stem = image.name[: len(image.name) - len(image.path.suffix)]
        groups.setdefault((stem, image.width, image.height), []).append(image)
    return [group for group in groups.values() if len(group) > 1]


def copy_notes(images: Sequence[FolderImage]) -> list[str]:
    """Notes on copies of training images among those that measure the model, and on copies with different counts.

    Also on images that are there in several formats.
    """
    groups = copied_images(images)
    notes = []
    if formats := in_several_formats(images):
        pairs = [" and ".join(image.name for image in group) for group in formats]
        many = f"{len(pairs):,} names are there" if len(pairs) > 1 else "1 name is there"
        notes.append(
            f"{many} in several formats ({listed(pairs)}), and each file is an image of its own: "
            "keep one of each if they show the same"
        )
    harm = {
        "validation": "the threshold is chosen on images that the model has seen",
        "test": "the test makes the model look better than it is",
    }
    for split, why in harm.items():
        pairs = []
        for group in groups:
            trained = next((image.name for image in group if image.split == "train"), None)
            if trained is not None:
                pairs += [f"{image.name} of {trained}" for image in group if image.split == split]
        if pairs:
            many = f"{len(pairs):,} {split} images are copies" if len(pairs) > 1 else f"1 {split} image is a copy"
            source = "training images" if len(pairs) > 1 else "a training image"
            notes.append(f"{many} of {source} ({listed(pairs)}): {why}; remove the copies, or move them to training")
    differ = [
        " and ".join(image.name for image in group[:2])
        for group in groups
        if len({(image.counts, image.present) for image in group if image.present is not None}) > 1
    ]
    if differ:
        notes.append(
            f"copies of one image have different labels ({listed(differ)}): correct them, or remove the copies"
        )
    return [printable(note) for note in notes]


def _parted(images: Sequence[FolderImage], key: Callable[[Path], int | bytes]) -> list[list[FolderImage]]:
    """The groups of two or more images with the same key."""
    groups: dict[int | bytes, list[FolderImage]] = {}
    for image in images:
        try:
            groups.setdefault(key(image.path), []).append(image)
        except OSError:  # the note on what can't be read is not ours
            continue
    return [group for group in groups.values() if len(group) > 1]


def _size(path: Path) -> int:
    return path.stat().st_size


def _middle(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size // 2 - PIECE // 2))
        return file.read(PIECE)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
