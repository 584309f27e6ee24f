"""Data sets. Each is a map-style torch data set that yields a ``mistnn.records.Sample``."""

from mistnn.data.digits.common_object import CommonObjectConfig, CommonObjects
from mistnn.data.digits.distorted import DistortedConfig, DistortedDigits
from mistnn.data.digits.scatter import Scatter, ScatterConfig
from mistnn.data.digits.scenes import Layout, Recipe, Scenes, ScenesConfig
from mistnn.data.digits.source import DigitSource, Split, download_mnist, load_embedded, load_mnist, load_source
from mistnn.data.folder.content import FolderImage, OwnFolder, read_folder
from mistnn.data.folder.images import FolderConfig, FolderImages
from mistnn.data.folder.object_size import SizeSuggestion, suggest_object_size
from mistnn.data.gabor import GaborConfig, GaborNoise, Impulses, analytic_power_spectrum, gabor_kernel, gabor_noise
from mistnn.data.house_numbers.number_crops import NumberCrops, NumberCropsConfig
from mistnn.data.house_numbers.placed_numbers import NumbersConfig, PlacedNumbers
from mistnn.data.house_numbers.svhn import SvhnConfig, SvhnImages
from mistnn.data.photographs.built import NaturalConfig, NaturalImages, read_built
from mistnn.data.photographs.cub import CubConfig, CubImages

__all__ = [
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
