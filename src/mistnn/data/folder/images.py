"""The images of a folder as a data set: prepared, and in training randomly flipped and padded to one size."""

from __future__ import annotations

import hashlib
import math
import warnings
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mistnn.config import one_of
from mistnn.data.base import ImagesConfig, StoredImages
from mistnn.data.folder.content import FolderImage, OwnFolder, read_folder
from mistnn.data.folder.files import DEEP, read_header
from mistnn.data.folder.object_size import SizeSuggestion, suggest_object_size
from mistnn.data.images import ImageFile, UnreadableImage, open_image, read_image, to_tensor
from mistnn.errors import MistError
from mistnn.interfaces import Known, Split
from mistnn.nn.preparation import Ground, PreparationConfig, prepare
from mistnn.records import Sample

MEASURED_IMAGES = 24  #: Number of images on which the size of objects is estimated, evenly spaced.
TAIL, AGREEMENT = 0.005, 0.8
"""For the type of background: the share of pixels at either end of the brightness, and of images that must agree."""
CLIPPED = 0.001  #: The share of pixels at either end of the values that may be clipped (our choice).
FAINT = 0.25
"""Images that use less of the range of their values are stretched: 14 of 16 bits, or fewer (our choice)."""
LOOKED_AT = 5
"""Images by which most folders are known not to be faint (our choice)."""
SAMPLED_VALUES = 300_000  #: Values of an image by which its range is measured (our choice).
DECODED_AT_ONCE = 4  #: Threads that try whether images can be decoded: each may hold a large image.
SHOWN_BROKEN = 3  #: Broken images that a message names.
KEPT_BYTES = 1 << 30  #: Prepared images are cached in memory if all of them take at most this much.

Flips = Literal["all", "mirror", "none"]


@dataclass(frozen=True)
class FolderConfig(ImagesConfig):
    """An image folder; see ``mistnn.data.folder.content`` for its layout.

    Attributes:
        root: the image folder.
        channels: 1 (grey) or 3 (colour); images are converted.
        preparation: applied to images first; must equal the model's.
        flips: how training images are randomly flipped. "all": left-right and up-down; photographs are turned by
            quarters instead. "mirror": left-right only, for images with an upper side. "none": not at all.
    """

    kind: ClassVar[str] = "folder"
    root: str | None = None
    channels: Annotated[int, one_of(1, 3)] = 3
    preparation: PreparationConfig = field(default_factory=PreparationConfig)
    flips: Flips = "all"

    @property
    def known(self) -> Known:
        """What is known without reading any file."""
        return Known(channels=self.channels)

    def open(self, split: Split, length: int | None = None) -> FolderImages:
        """One split, see ``FolderImages``."""
        return FolderImages(self, split, length)

    def content(self) -> OwnFolder:
        """The content of the folder.

        Raises:
            MistError: if no folder is given, or it can't be used.
        """
        if self.root is None:
            raise MistError("no image folder is given: name it with --data.root DIR, or data_root= in Python")
        return read_folder(self.root)

    def check_images(self, progress: Callable[[int, int], None] | None = None) -> None:
        """See ``DataConfig.check_images``: decodes all images of training and validation once."""
        folder = self.content()
        images = [*known_images(folder, "train"), *known_images(folder, "validation")]
        if broken := undecodable(images, progress):
            shown = "; ".join(f"{name}: {why}" for name, why in list(broken.items())[:SHOWN_BROKEN])
            more = f"; {len(broken) - SHOWN_BROKEN} more" if len(broken) > SHOWN_BROKEN else ""
            raise MistError(
                f"{self.root}: {len(broken)} of {len(images)} images for training and validation can't be read ({shown}"
                f"{more}): fix these files, or remove them and their rows in the table"
            )

    def inventory(self) -> dict[str, str]:
        """See ``DataConfig.inventory``: split, counts or classes, and CRC-32 of each image's file."""
        checksums = self.checksums("train") | self.checksums("validation")
        known = (image for image in self.content().images if image.name in checksums)
        return {one.name: f"{one.split} {one.counts or one.present} {checksums[one.name]}" for one in known}

    def measuring_notes(self, metrics: Mapping[str, float], seeded: bool) -> list[str]:
        """See ``DataConfig.measuring_notes``."""
        notes = []
        baseline = next((name for name in ("count_error_mean", "presence_guess") if name in metrics), None)
        if baseline and not known_images(self.content(), "train"):
            own = f"{baseline} is that of the measured images' own mean"
            notes.append(f"there are no training images with counts, so {own}")
        if seeded:
            notes.append("--seed changes nothing: the split of a folder follows the names of its files")
        return notes

    def for_measuring(self, seen: Collection[str], split: Split) -> tuple[FolderConfig, str]:
        """See ``DataConfig.for_measuring``.

        Where only a hash of the names splits the folder, and the training used none of its images, all are test images.
        """
        if self.root is None or split != "test":
            return self, ""
        folder = self.content()
        images = [image for one in get_args(Split) for image in known_images(folder, one)]
        of_test = len(known_images(folder, "test"))
        if not folder.hashed or of_test == len(images):
            return self, ""
        if not seen:
            known = "which images the model was trained on isn't known"
            return self, f"{of_test} of {len(images)} images are measured, by a hash of their names: {known}"
        if any(checksum in seen for image in images for checksum in checksums_of([image]).values()):
            return self, ""
        whole = folder._replace(images=tuple(image._replace(split="test") for image in folder.images))
        data = GivenConfig(self.root, self.channels, self.preparation, self.flips, seed=self.seed, given=whole)
        return data, f"none of these {len(images)} images was used in the training: all are measured"

    def checksums(self, split: Split) -> dict[str, str]:
        """See ``DataConfig.checksums``; images that were given as arrays have no file."""
        images = () if self.root is None else known_images(self.content(), split)
        return checksums_of(images)

    def read_class_names(self) -> tuple[str, ...]:
        """The classes that the folder names; empty if no folder is given."""
        return () if self.root is None else self.content().class_names

    def smallest_image(self) -> tuple[int, str] | None:
        """Pixels and name of the smallest image after preparation; ``None`` if no folder is given."""
        if self.root is None:
            return None
        images = self.content().images
        return min((math.prod(self.preparation.size(one.height, one.width)), one.name) for one in images)


def checksums_of(images: Iterable[FolderImage]) -> dict[str, str]:
    """The CRC-32 of the file of each image, by name; images that were given as arrays have no file."""
    return {one.name: f"{zlib.crc32(one.path.read_bytes()):08x}" for one in images if one.load is None}


@dataclass(frozen=True)
class GivenConfig(FolderConfig):
    """Images and counts that were given in Python. It is stored as a ``FolderConfig`` without a folder.

    Attributes:
        root: names the images in messages.
        given: the images with what is known about them.
    """

    root: str | None = "the given images"
    given: OwnFolder | None = field(default=None, repr=False, compare=False)

    def content(self) -> OwnFolder:
        """The given images."""
        return super().content() if self.given is None else self.given

    def at(self, root: str | None) -> FolderConfig:
        """The same settings for the images in a folder."""
        return FolderConfig(root, self.channels, self.preparation, self.flips, seed=self.seed)


class FolderImages(StoredImages[FolderConfig]):
    """One split of an image folder.

    Samples of an endless training set have one size, that of its largest prepared image: smaller ones are padded with
    black at the right and at the bottom, and have their true ``size``. Other samples keep their own size. Boxes, if
    known, are in pixels of the prepared image.

    The images are those with counts or, from ``labels.csv``, with known classes, which become ``presence``. If nothing
    is known of any image, all images are used.

    Args:
        folder: its content, if it was read before.

    Attributes:
        height, width: of the largest prepared image.
        room: bytes that all prepared images take.
        keeps: whether prepared images are cached in memory.
        distinct: the number of different samples before any random change.
    """

    def __init__(self, config: FolderConfig, split: Split, length: int | None, folder: OwnFolder | None = None) -> None:
        super().__init__(config, split, length)
        folder = config.content() if folder is None else folder
        self.class_names = folder.class_names
        self.images = known_images(folder, split)
        if not self.images:
            raise MistError(
                f"{config.root}: no {split} image has counts or labels; `mist inspect {config.root}` explains why"
            )
        self._set_number(len(self.images))
        sizes = [config.preparation.size(image.height, image.width) for image in self.images]
        self.height, self.width = max(height for height, _ in sizes), max(width for _, width in sizes)
        self._kept: dict[int, Tensor] = {}
        self.room = config.channels * 4 * sum(height * width for height, width in sizes)
        self.keeps, self.distinct = self.room <= KEPT_BYTES, len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """One image with its counts."""
        image, coins = self._draw(index)
        across = coins[0] and self.config.flips != "none"
        down = coins[1] and self.config.flips == "all"
        sample = self._sample(image, across, down)
        if self.length is not None:
            return sample
        height, width = sample.image.shape[-2:]
        padded = F.pad(sample.image, (0, self.width - width, 0, self.height - height))
        return sample._replace(image=padded, size=torch.tensor((height, width)))

    def _sample(self, index: int, across: bool, down: bool) -> Sample:
        known = self.images[index]
        image = self.prepared(index)
        height, width = image.shape[-2:]
        zoom = self.config.preparation.zoom
        boxes = None if known.boxes is None else torch.from_numpy(known.boxes).float() * zoom
        if across:
            image = image.flip(-1)
            boxes = None if boxes is None else _mirrored(boxes, 0, width)
        if down:
            image = image.flip(-2)
            boxes = None if boxes is None else _mirrored(boxes, 1, height)
        return Sample(
            image,
            None if known.counts is None else torch.tensor(known.counts),
            boxes,
            None if known.labels is None else torch.from_numpy(known.labels).long(),
            torch.tensor(known.present) if known.counts is None and known.present is not None else None,
        )

    def prepared(self, index: int) -> Float[Tensor, "channels height width"]:
        """The image with this number in ``images``, prepared."""
        if index in self._kept:
            return self._kept[index]
        image = prepare(load_image(self.images[index], self.config.channels)[None], self.config.preparation)[0]
        if self.keeps:
            self._kept[index] = image
        return image


def load_image(known: FolderImage, channels: int) -> Float[Tensor, "channels height width"]:
    """An image of a folder, values in [0, 1]; raises ``MistError`` if it can't be read."""
    if known.load is not None:
        return known.load(channels)
    return to_tensor(read_image(known.path, "fix it, or remove it from the folder"), channels)


def undecodable(images: Sequence[FolderImage], progress: Callable[[int, int], None] | None = None) -> dict[str, str]:
    """The images that can't be decoded: name -> why. Each file is decoded once, and quickly, see ``open_image``."""
    files = [image for image in images if image.load is None]
    broken: dict[str, str] = {}
    pool = ThreadPoolExecutor(DECODED_AT_ONCE)
    with warnings.catch_warnings():  # each thread changes the filters, which are global, and one may restore another's
        try:
            for done, (image, why) in enumerate(zip(files, pool.map(_why_undecodable, files), strict=True), start=1):
                if why is not None:
                    broken[image.name] = why
                if progress is not None:
                    progress(done, len(files))
        finally:
            pool.shutdown(cancel_futures=True)
    return broken


def _why_undecodable(image: FolderImage) -> str | None:
    try:
        open_image(image.path, reduced=True)
    except UnreadableImage as error:
        return str(error)
    return None


def measured_images(folder: OwnFolder) -> Sequence[FolderImage]:
    """Images for estimating the size of objects: training images with counts; test images only as a last resort."""
    training = [image for image in folder.images if image.split == "train" and image.counts is not None]
    others = [image for image in folder.images if image.split != "test"]
    return evenly(training or others or folder.images, MEASURED_IMAGES)


def evenly(images: Sequence[FolderImage], most: int) -> Sequence[FolderImage]:
    """At most ``most`` of the images, evenly spaced."""
    return images[:: math.ceil(len(images) / most)]


def object_size_of(images: Sequence[FolderImage], k: int | None = None) -> SizeSuggestion:
    """Estimates the size of the objects in at least one image, from their counts if all have counts.

    If these are unknown, ``k`` is the number of objects per image.
    """
    counts = [sum(image.counts) for image in images if image.counts is not None]
    if len(counts) < len(images):
        counts = None if k is None else [k] * len(images)
    return suggest_object_size(_Decoded(images), counts)


def known_images(folder: OwnFolder, split: Split) -> tuple[FolderImage, ...]:
    """The images of a split with counts or labels; all of them if no image of the folder has any."""
    own = (image for image in folder.images if image.split == split)
    return tuple(image for image in own if image.present is not None or folder.counts_from == "nothing")


def digest_of(folder: OwnFolder) -> str:
    """The sha256 of what is known about all images of a folder, and of the pixels of ``measured_images``."""
    known = [(image.name, image.width, image.height, image.counts, image.present) for image in folder.images]
    digest = hashlib.sha256(repr((folder.class_names, known)).encode())
    for image in measured_images(folder):
        digest.update(load_image(image, 3).numpy().tobytes())
    return digest.hexdigest()


def ground_of(images: Sequence[FolderImage]) -> Ground:
    """The type of background to subtract, from the distribution of brightness.

    The brightness of an image extends from its median to its darkest and to its lightest 0.5 %. "light" if nearly all
    images extend further towards dark, "dark" if nearly all extend further towards light, else "median".
    """
    darker = []
    for image in images:
        grey = load_image(image, 3).mean(0).flatten().sort().values
        low, middle, high = (float(grey[round(share * (len(grey) - 1))]) for share in (TAIL, 0.5, 1 - TAIL))
        darker.append(middle - low > high - middle)
    share = sum(darker) / len(darker)
    return "light" if share >= AGREEMENT else "dark" if share <= 1 - AGREEMENT else "median"


class Range(NamedTuple):
    """The values to stretch to 0 and 1, one pair for all images.

    Attributes:
        lowest, highest: 0 and 1 if an image uses more than ``FAINT`` of its range.
        faint: the names of the images of more than 8 bits that use less, where others use more.
        others: the names of these others, if there are faint ones.
    """

    lowest: float
    highest: float
    faint: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def range_of(images: Sequence[FolderImage]) -> Range:
    """The range of all images; each extends from its darkest to its lightest 0.1 % of pixels.

    If all files have 8 bits, and none of the first ``LOOKED_AT`` images is faint, the others are not decoded. Beside
    others, images of 8 bits are never called faint: they are as dark as their cameras saw them.
    """
    ends: dict[str, tuple[float, float]] = {}
    deep = {image.name for image in images if image.load is not None or _is_deep(image)}
    for image in images:
        if len(ends) == LOOKED_AT and not deep and all(high >= FAINT for _, high in ends.values()):
            return Range(0.0, 1.0)
        values = load_image(image, 3).flatten()
        ranked = values[:: max(1, len(values) // SAMPLED_VALUES)].sort().values
        beyond = round(CLIPPED * (len(ranked) - 1))
        ends[image.name] = float(ranked[beyond]), float(ranked[-1 - beyond])
    others = tuple(name for name, (_, high) in ends.items() if high >= FAINT)
    if others or not ends:
        faint = tuple(name for name in ends if name in deep and name not in others)
        return Range(0.0, 1.0, faint, others if faint else ())
    lowest, highest = (round(value, 6) for value in (min(ends.values())[0], max(high for _, high in ends.values())))
    return Range(lowest, highest) if highest > lowest else Range(0.0, 1.0)


def _is_deep(image: FolderImage) -> bool:
    """Whether a file has more than 8 bits per value."""
    return read_header(ImageFile(image.path, image.name)).kind == DEEP


class _Decoded(Collection[Tensor]):
    """Images that are decoded one at a time, to save memory."""

    def __init__(self, images: Sequence[FolderImage]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Tensor]:
        return (load_image(image, 3) for image in self.images)

    def __contains__(self, image: object) -> bool:
        return any(image is one for one in self)


def _mirrored(boxes: Tensor, axis: int, side: int) -> Tensor:
    mirrored = boxes.clone()
    mirrored[:, axis] = side - boxes[:, axis]
    return mirrored
