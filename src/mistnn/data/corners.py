"""Conversion of boxes from the corners that files hold to the centre and size that the package uses."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def centred(corners: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    """Corners x1, y1, x2, y2 to centre x, centre y, width, height."""
    low, high = corners[:, :2], corners[:, 2:]
    return np.concatenate(((low + high) / 2, high - low), axis=1)
