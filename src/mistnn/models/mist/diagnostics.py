"""Scalars that show how the lifted step moves keypoints, and a warning derived from them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from mistnn.models.mist.network import Mist
from mistnn.ops.losses import mass_offset


@torch.no_grad()
def keypoint_diagnostics(model: Mist, images: Tensor, anchors: Tensor, keypoints: Tensor) -> dict[str, Tensor]:
    """Scalars to log about one lifted batch.

    Args:
        model: cuts the patches.
        images: (batch, channels, height, width).
        anchors: (batch, k, 3), E_K of the heat map.
        keypoints: (batch, k, 3), after lifting.

    Returns:
        "moved": mean distance from the anchors in pixels. "offset_x", "offset_y": mean position in pixels of the mass
        of a patch relative to its centre; "offset_spread": its standard deviation. With several scales also "scale"
        and "scale_spread": mean and standard deviation of the scale.
    """
    extents = model.config.patch_extent * keypoints[..., 2:]
    offsets = (mass_offset(model.cut(images, keypoints)) * extents).flatten(0, 1)
    offset, scales = offsets.mean(0), keypoints[..., 2]
    values = {
        "moved": (keypoints - anchors)[..., :2].norm(dim=-1).mean(),
        "offset_x": offset[0],
        "offset_y": offset[1],
        "offset_spread": offsets.std(0, correction=0).norm(),
    }
    if model.finds_sizes:
        values |= {"scale": scales.mean(), "scale_spread": scales.std(correction=0)}
    return values


def off_centre_note(values: Mapping[str, float], box_size: float) -> str | None:
    """A warning if the keypoints have settled beside the objects, from the scalars of ``keypoint_diagnostics``.

    Classification has a second optimum: all keypoints at one constant offset from which the objects can still be
    classified. It is reported if the offset exceeds both a tenth of the box and its own spread.
    """
    offset = math.hypot(values["offset_x"], values["offset_y"])
    if offset <= 0.1 * box_size or offset <= values["offset_spread"]:
        return None
    return (
        f"the keypoints lie {offset:.1f} px beside the objects, all on the same side (x {-values['offset_x']:+.1f}, "
        f"y {-values['offset_y']:+.1f}), so boxes will be off: try another seed, a window (--model.patch-window 0.3) "
        "or the joint objective (--model.decoder 16 --step.reconstruction 0.5)"
    )
