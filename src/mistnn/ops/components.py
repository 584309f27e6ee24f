"""Connected components of a binary image, and the boxes around them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def component_boxes(mask: Bool[Tensor, "batch height width"]) -> list[Float[Tensor, "_ 4"]]:
    """The bounding box of each connected component, ordered by their first pixels in reading order.

    Convention: pixels are connected where they share an edge. A component of one pixel has a box of 1 x 1. Runs on the
    CPU.

    Args:
        mask: the foreground pixels.

    Returns:
        For each image (found, 4), on the device of the mask.
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
