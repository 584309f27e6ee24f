"""Data sets. A configuration opens the splits; each split is a map-style torch data set of ``mistnn.records.Sample``.

``KINDS`` holds the configurations of all data sets. Folders: ``digits`` (images composed of digits), ``house_numbers``
(SVHN), ``photographs`` (PASCAL VOC, COCO, CUB-200-2011) and ``folder`` (image folders of users).
"""

from mistnn.data.base import GeneratedImages, ImagesConfig, SplitImages, StoredImages
from mistnn.data.digits import (
    CommonObjectConfig,
    CommonObjects,
    DigitSource,
    DistortedConfig,
    DistortedDigits,
    Layout,
    Recipe,
    Scatter,
    ScatterConfig,
    Scenes,
    ScenesConfig,
    download_mnist,
    load_embedded,
    load_mnist,
    load_source,
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
from mistnn.data.gabor import GaborConfig, GaborNoise, Impulses, analytic_power_spectrum, gabor_kernel, gabor_noise
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
    ScenesConfig,
    ScatterConfig,
    GaborConfig,
    FolderConfig,
    SvhnConfig,
    NumbersConfig,
    NaturalConfig,
    DistortedConfig,
    NumberCropsConfig,
    CubConfig,
    CommonObjectConfig,
)
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
    "GeneratedImages",
    "ImagesConfig",
    "Impulses",
    "Layout",
    "NaturalConfig",
    "NaturalImages",
    "NumberCrops",
    "NumberCropsConfig",
    "NumbersConfig",
    "OwnFolder",
    "PlacedNumbers",
    "Recipe",
    "Scatter",
    "ScatterConfig",
    "Scenes",
    "ScenesConfig",
    "SizeSuggestion",
    "Split",
    "SplitImages",
    "StoredImages",
    "SvhnConfig",
    "SvhnImages",
    "analytic_power_spectrum",
    "download_mnist",
    "gabor_kernel",
    "gabor_noise",
    "load_embedded",
    "load_mnist",
    "load_source",
    "read_built",
    "read_folder",
    "suggest_object_size",
]
