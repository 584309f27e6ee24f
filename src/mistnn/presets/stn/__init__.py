"""Spatial Transformer Networks: distorted digits, addition and co-localisation; house numbers; birds."""

from mistnn.presets.stn import birds, digits, numbers

PRESETS = (*digits.PRESETS, *numbers.PRESETS, *birds.PRESETS)
