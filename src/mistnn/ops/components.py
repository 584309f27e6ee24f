"""Connected components of a binary image, and the boxes around them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def component_boxes(mask: Bool[Tensor, "batch height width"]) -> list[Float[Tensor, "_ 4"]]:
    """The bounding boxes of each image's connected components, ordered by their first pixels in reading order.

    Convention: pixels are connected where they share an edge. A component of one pixel has a box of 1 x 1. Runs on the
    CPU; the boxes are on the device of the mask.
    """
    from scipy import ndimage  # slow to import

    every = []
    for image in mask.cpu().numpy():
        labelled, _ = ndimage.label(image)  # pyright: ignore[reportGeneralTypeIssues]
        corners = [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labelled)]
        first, last = torch.tensor(corners, dtype=torch.float32, device=mask.device).reshape(-1, 2, 2).unbind(1)
        every.append(torch.cat(((first + last) / 2, last - first), dim=1))
    return every
