"""MIST: its tables and figures, the demo, house numbers, photographs and image folders."""

from mistnn.presets.mist import digits, discover, house_numbers, my_folder, photographs

PRESETS = (*digits.PRESETS, *discover.PRESETS, *house_numbers.PRESETS, *photographs.PRESETS, *my_folder.PRESETS)
