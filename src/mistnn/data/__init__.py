"""Data sets. A configuration opens the splits; each split is a map-style torch data set of ``mistnn.records.Sample``.

``KINDS`` holds the configurations of all data sets. Folders: ``digits`` (images composed of digits), ``house_numbers``
(SVHN), ``photographs`` (PASCAL VOC, COCO, CUB-200-2011) and ``folder`` (image folders of users).
"""

from mistnn.data.base import ImagesConfig
from mistnn.data.digits.common_object import CommonObjectConfig, CommonObjects
from mistnn.data.digits.distorted import DistortedConfig, DistortedDigits
from mistnn.data.digits.scatter import Scatter, ScatterConfig
from mistnn.data.digits.scenes import Scenes, ScenesConfig
from mistnn.data.digits.source import DigitSource, load_embedded
from mistnn.data.folder.content import FolderImage, OwnFolder, read_folder
from mistnn.data.folder.images import FolderConfig, FolderImages
from mistnn.data.folder.object_size import SizeSuggestion, suggest_object_size
from mistnn.data.gabor import GaborConfig, GaborNoise
from mistnn.data.house_numbers.number_crops import NumberCrops, NumberCropsConfig
from mistnn.data.house_numbers.placed_numbers import NumbersConfig, PlacedNumbers
from mistnn.data.house_numbers.svhn import SvhnConfig, SvhnImages
from mistnn.data.photographs.built import NaturalConfig, NaturalImages, read_built
from mistnn.data.photographs.cub import CubConfig, CubImages
from mistnn.interfaces import DataConfig, Split

KINDS: tuple[type[DataConfig], ...] = (
    ScenesConfig, ScatterConfig, GaborConfig, FolderConfig, SvhnConfig, NumbersConfig, NaturalConfig, DistortedConfig,
    NumberCropsConfig, CubConfig, CommonObjectConfig,
)  # fmt: skip
"""The configurations of all data sets."""

__all__ = [
    "KINDS",
    "CommonObjectConfig",
    "CommonObjects",
    "CubConfig",
    "CubImages",
    "DigitSource",
    "DistortedConfig",
    "DistortedDigits",
    "FolderConfig",
    "FolderImage",
    "FolderImages",
    "GaborConfig",
    "GaborNoise",
    "ImagesConfig",
    "NaturalConfig",
    "NaturalImages",
    "NumberCrops",
    "NumberCropsConfig",
    "NumbersConfig",
    "OwnFolder",
    "PlacedNumbers",
    "Scatter",
    "ScatterConfig",
    "Scenes",
    "ScenesConfig",
    "SizeSuggestion",
    "Split",
    "SvhnConfig",
    "SvhnImages",
    "load_embedded",
    "read_built",
    "read_folder",
    "suggest_object_size",
]
