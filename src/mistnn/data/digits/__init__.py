"""Images composed of digits on the fly: scenes, scattered digits, distorted digits, and digits with a common class."""

from mistnn.data.digits.common_object import CommonObjectConfig, CommonObjects
from mistnn.data.digits.distorted import DistortedConfig, DistortedDigits
from mistnn.data.digits.scatter import Scatter, ScatterConfig
from mistnn.data.digits.scenes import Layout, Recipe, Scenes, ScenesConfig
from mistnn.data.digits.source import DigitSource, download_mnist, load_embedded, load_mnist, load_source

__all__ = [
    "CommonObjectConfig",
    "CommonObjects",
    "DigitSource",
    "DistortedConfig",
    "DistortedDigits",
    "Layout",
    "Recipe",
    "Scatter",
    "ScatterConfig",
    "Scenes",
    "ScenesConfig",
    "download_mnist",
    "load_embedded",
    "load_mnist",
    "load_source",
]
