"""SVHN, full numbers: whole street-view photographs, resized to 60 x 240; training uses the classes of the digits only.

The files are SVHN's own (format 1), which are for non-commercial use and not distributed here; see
``mistnn.data.house_numbers.svhn_convert`` for the folder. Boxes are for evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from mistnn.config import at_least
from mistnn.data.base import DIGIT_NAMES, StoredImages, Truth, data_folder
from mistnn.data.house_numbers.number_list import HouseNumbersConfig, NumberImage, number_sample, read_numbers, split_of
from mistnn.data.house_numbers.svhn_convert import NO_FOLDER, prepare_part
from mistnn.errors import MistError
from mistnn.interfaces import Known, Split
from mistnn.records import Sample


@dataclass(frozen=True)
class SvhnConfig(HouseNumbersConfig):
    """Images of SVHN.

    Attributes:
        root: the folder that holds ``train/`` and ``test/``, or their archives.
        height: rows that every image is resized to (S001 section 5.2).
        width: columns that every image is resized to, regardless of its shape (S001 section 5.2).
        digits: only images with exactly this number of digits are used (S001 section 5.2).
        least_height: test images with a lower box, in pixels, are left out (S001 section 5.2); 0 keeps all.
        least_height_of: whether that height is measured in the "resized" image (not stated; our choice) or in the
            "original".
        extra: whether the images of ``extra/`` are also used for training (not stated; no by default).
    """

    kind: ClassVar[str] = "svhn"
    root: str | None = None
    height: Annotated[int, at_least(1)] = 60
    width: Annotated[int, at_least(1)] = 240
    digits: Annotated[int, at_least(1)] = 2
    least_height: Annotated[float, at_least(0, "0 keeps all images")] = 30.0
    least_height_of: Literal["resized", "original"] = "resized"
    extra: bool = False

    @property
    def known(self) -> Known:
        """What is known without reading any file."""
        return Known((self.height, self.width), 3, (self.digits,), DIGIT_NAMES)

    def open(self, split: Split, length: int | None = None) -> SvhnImages:
        """One split, see ``SvhnImages``."""
        return SvhnImages(self, split, length)


class SvhnImages(StoredImages[SvhnConfig]):
    """One split of SVHN. A tenth of ``train/``, chosen by a hash of the file names, is for validation."""

    def __init__(self, config: SvhnConfig, split: Split, length: int | None) -> None:
        super().__init__(config, split, length)
        self.numbers = _numbers(config, split)
        self._set_number(len(self.numbers))

    def __getitem__(self, index: int) -> Sample:
        """One image with its counts, boxes and labels."""
        number = self.numbers[self._draw(index).image]
        return number_sample(number.resized(self.config.width, self.config.height), *self.truth(index))

    def truth(self, index: int) -> Truth:
        """Boxes and digits of a sample, without its pixels."""
        number, config = self.numbers[self._draw(index).image], self.config
        scale = [config.width / number.width, config.height / number.height] * 2
        return Truth(number.boxes * scale, number.labels)


def holds_svhn(root: Path) -> bool:
    """Whether a folder holds the training or test images of SVHN, or their archive."""
    return any((root / name).exists() for name in ("train", "train.tar.gz", "test", "test.tar.gz"))


def _numbers(config: SvhnConfig, split: Split) -> list[NumberImage]:
    root = data_folder(config.root, NO_FOLDER)
    folder = prepare_part(root, "test" if split == "test" else "train")
    numbers = read_numbers(folder, config.digits)
    if split == "test":
        kept = [number for number in numbers if _lowest(number, config) >= config.least_height]
    else:
        kept = [number for number in numbers if (split_of(number.path.name) == "validation") == (split == "validation")]
        if split == "train" and config.extra:
            kept += read_numbers(prepare_part(root, "extra"), config.digits)
    if not kept:
        least = f"data.least_height={config.least_height:g} in test"
        raise MistError(f"{folder}: no image of {config.digits} digits is left for {split} ({least}): give more images")
    return kept


def _lowest(number: NumberImage, config: SvhnConfig) -> float:
    scale = config.height / number.height if config.least_height_of == "resized" else 1.0
    return float((number.boxes[:, 3] - number.boxes[:, 1]).min()) * scale
