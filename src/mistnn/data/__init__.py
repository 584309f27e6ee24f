"""Data sets. A configuration opens the splits; each split is a map-style torch data set of ``mistnn.records.Sample``.

``KINDS`` holds the configurations of all data sets. Folders: ``digits`` (images composed of digits), ``house_numbers``
(SVHN), ``photographs`` (PASCAL VOC, COCO, CUB-200-2011) and ``folder`` (image folders of users).
"""

from mistnn.data.base import ImagesConfig
from mistnn.data.digits import (
    CommonObjectConfig,
    CommonObjects,
    DigitSource,
    DistortedConfig,
    DistortedDigits,
    Scatter,
    ScatterConfig,
    Scenes,
    ScenesConfig,
    load_embedded,
)
from mistnn.data.folder import (
    FolderConfig,
    FolderImage,
    FolderImages,
    OwnFolder,
    SizeSuggestion,
    read_folder,
    suggest_object_size,
)
from mistnn.data.gabor import GaborConfig, GaborNoise
from mistnn.data.house_numbers import (
    NumberCrops,
    NumberCropsConfig,
    NumbersConfig,
    PlacedNumbers,
    SvhnConfig,
    SvhnImages,
)
from mistnn.data.photographs import CubConfig, CubImages, NaturalConfig, NaturalImages, read_built
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
