"""Images of white squares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def draw(path: Path, objects: int, seed: int = 0) -> Path:
    """White squares on black."""
    pixels = np.zeros((64, 64), dtype=np.uint8)
    for index in np.random.default_rng(seed).permutation(9)[:objects]:
        y, x = 4 + 20 * (index // 3), 4 + 20 * (index % 3)
        pixels[y : y + 12, x : x + 12] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path
