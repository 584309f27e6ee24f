"""Connected components of a binary image, and the boxes around them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def component_boxes(mask: Bool[Tensor, "batch height width"]) -> list[Float[Tensor, "_ 4"]]:
    """The box around each connected component of each image, in the order of their first pixels, row by row.

    Convention: pixels are neighbours where they share an edge, four in all. A component of one pixel has a box of one
    by one. Runs on the CPU.

    Args:
        mask: which pixels are foreground.

    Returns:
        One (found, 4) an image, on the device of the mask.
    """
    from scipy import ndimage  # slow to import

    every = []
    for image in mask.cpu().numpy():
        labelled, _ = ndimage.label(image)  # pyright: ignore[reportGeneralTypeIssues]
        boxes = [
            (
                (across.start + across.stop) / 2,
                (down.start + down.stop) / 2,
                across.stop - across.start,
                down.stop - down.start,
            )
            for down, across in ndimage.find_objects(labelled)
        ]
        every.append(torch.tensor(boxes, dtype=torch.float32, device=mask.device).reshape(-1, 4))
    return every
