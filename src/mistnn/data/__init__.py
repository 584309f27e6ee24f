"""Data sets. Each is a map-style torch data set that yields a ``mistnn.records.Sample``."""

from mistnn.data.digits import DigitSource, Split, download_mnist, load_embedded, load_mnist, load_source
from mistnn.data.scenes import Layout, Recipe, Scenes, ScenesConfig

__all__ = [
    "DigitSource",
    "Layout",
    "Recipe",
    "Scenes",
    "ScenesConfig",
    "Split",
    "download_mnist",
    "load_embedded",
    "load_mnist",
    "load_source",
]
