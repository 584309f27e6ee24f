"""Data sets. Each is a map-style torch data set that yields a ``mistnn.records.Sample``."""

from mistnn.data.digits import DigitSource, Split, download_mnist, load_embedded, load_mnist, load_source
from mistnn.data.distorted import DistortedConfig, DistortedDigits
from mistnn.data.folder_images import FolderConfig, FolderImages
from mistnn.data.gabor import GaborConfig, GaborNoise, Impulses, analytic_power_spectrum, gabor_kernel, gabor_noise
from mistnn.data.natural import NaturalConfig, NaturalImages, read_built
from mistnn.data.object_size import SizeSuggestion, suggest_object_size
from mistnn.data.own_folder import FolderImage, OwnFolder, read_folder
from mistnn.data.placed_numbers import NumbersConfig, PlacedNumbers
from mistnn.data.scatter import Scatter, ScatterConfig
from mistnn.data.scenes import Layout, Recipe, Scenes, ScenesConfig
from mistnn.data.svhn import SvhnConfig, SvhnImages

__all__ = [
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
