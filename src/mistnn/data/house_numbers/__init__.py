"""House numbers: SVHN's photographs, crops around its numbers, and tight views of numbers on generated backgrounds."""

from mistnn.data.house_numbers.number_crops import NumberCrops, NumberCropsConfig
from mistnn.data.house_numbers.placed_numbers import NumbersConfig, PlacedNumbers, holds_numbers
from mistnn.data.house_numbers.svhn import SvhnConfig, SvhnImages, holds_svhn

__all__ = [
    "NumberCrops",
    "NumberCropsConfig",
    "NumbersConfig",
    "PlacedNumbers",
    "SvhnConfig",
    "SvhnImages",
    "holds_numbers",
    "holds_svhn",
]
