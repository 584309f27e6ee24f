"""The losses of the papers, one value per image: the training step reduces them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from mistnn.records import Images, Patches, Points


def reconstruction_loss(images: Images, reconstructions: Images) -> Float[Tensor, " batch"]:
    """Equation 8: the squared distance between an image and the sum of its placed patches.

    Args:
        images: (batch, channels, height, width).
        reconstructions: the same shape, ``place_patches`` of the decoded patches.

    Returns:
        (batch,), summed over channels and pixels.

    Raises:
        ValueError: if the shapes differ.

    Reference: MIST (CVPR 2021), equation 8.
    """
    if images.shape != reconstructions.shape:
        raise ValueError(f"images {tuple(images.shape)} and reconstructions {tuple(reconstructions.shape)} differ")
    return (images - reconstructions).square().flatten(1).sum(1)


def class_proportion_loss(
    probabilities: Float[Tensor, "batch k classes"], counts: Num[Tensor, "batch classes"]
) -> Float[Tensor, " batch"]:
    """Equation 9: the squared distance between the true and the predicted class proportions of an image.

    Args:
        probabilities: (batch, k, classes), a softmax for each patch.
        counts: (batch, classes), how many objects of each class the image holds; an image without any has the
            proportions 0.

    Returns:
        (batch,), summed over classes, from 0 to 2.

    Raises:
        ValueError: if the shapes don't fit.

    Reference: MIST (CVPR 2021), equation 9, with (1/L) sum_l y_l written as counts / L.
    """
    if probabilities.dim() != 3 or counts.shape != (probabilities.shape[0], probabilities.shape[2]):
        raise ValueError(
            f"probabilities must be (batch, k, classes) and counts (batch, classes), "
            f"got {tuple(probabilities.shape)} and {tuple(counts.shape)}"
        )
    counts = counts.to(probabilities.dtype)
    target = counts / counts.sum(1, keepdim=True).clamp(min=1)
    return (target - probabilities.mean(1)).square().sum(1)


def presence_loss(
    probabilities: Float[Tensor, "batch k classes"], presence: Bool[Tensor, "batch known"]
) -> Float[Tensor, " batch"]:
    """The twin of equation 9 for images of which only the classes present are known, not how many of each: ours.

    Of a class that is present, at least one patch must be sure; of a class that is absent, none may believe in it. How
    often a class is there stays open, so patches beyond the surest ones are held only by what is absent elsewhere:

        sum over present c of (1 - max_k p_kc)^2  +  sum over absent c of mean_k p_kc^2

    The mean of squares, not the square of the mean as in equation 9, since a single wrong patch among many would
    hardly count there. It is 0 where every class that is present has a sure patch and absent ones have none.

    Args:
        probabilities: (batch, k, classes), a softmax for each patch.
        presence: (batch, known), whether each of the first classes is there; those beyond, a background, are free.

    Returns:
        (batch,), summed over classes, from 0 to the number of known classes.

    Raises:
        ValueError: if the shapes don't fit.

    Reference: not in the papers. The largest instance of a bag stands for it, as in multiple-instance learning.
    """
    if probabilities.dim() != 3 or presence.dim() != 2 or len(presence) != len(probabilities):
        raise ValueError(
            f"probabilities must be (batch, k, classes) and presence (batch, known classes), "
            f"got {tuple(probabilities.shape)} and {tuple(presence.shape)}"
        )
    if presence.shape[1] > probabilities.shape[2]:
        raise ValueError(f"presence of {presence.shape[1]} classes, and probabilities of {probabilities.shape[2]} only")
    known = probabilities[..., : presence.shape[1]]
    missing = (1 - known.amax(1)).square()
    wrong = known.square().mean(1)
    return torch.where(presence, missing, wrong).sum(1)


def with_background(counts: Num[Tensor, "batch classes"], k: int) -> Num[Tensor, "batch classes_and_background"]:
    """Counts with one class more: the K - L patches that an image with L objects leaves over, if there are any.

    With them as counts, equation 9 compares with (counts, max(0, K - L)) / max(K, L).

    Args:
        counts: (batch, classes).
        k: patches an image, an upper bound on its objects.

    Reference: MIST (CVPR 2021), section 5.2, "background" on PASCAL+COCO; the target is ours.
    """
    unused = (k - counts.sum(1, keepdim=True)).clamp(min=0)
    return torch.cat((counts, unused), dim=1)


def heatmap_loss(
    heatmap: Float[Tensor, "batch *scales height width"], ideal: Float[Tensor, "batch *scales height width"]
) -> Float[Tensor, " batch"]:
    """Equation 7: the mean over pixels of the squared distance between heat maps and the ideal ones.

    The paper leaves mean or sum open; the released code, which has one scale, takes the mean over pixels. Over scales
    the distances are summed, so that a keypoint counts as much whatever their number.

    Args:
        heatmap: (batch, height, width) or (batch, scales, height, width), H_eta(I).
        ideal: the same shape, G of the optimised keypoints, no gradient wanted.

    Returns:
        (batch,).

    Raises:
        ValueError: if the shapes differ.
    """
    if heatmap.shape != ideal.shape:
        raise ValueError(f"heat map {tuple(heatmap.shape)} and ideal heat map {tuple(ideal.shape)} differ")
    return (heatmap - ideal).square().mean(dim=(-2, -1)).reshape(len(heatmap), -1).sum(1)


def lifting_penalty(
    keypoints: Float[Tensor, "batch k coordinates"], anchors: Float[Tensor, "batch k coordinates"]
) -> Float[Tensor, " batch"]:
    """The penalty of equation 6: sum over keypoints of the squared distance to where E_K found them, in pixels.

    Keypoint k is compared with anchor k: the lifted keypoints start there, so their order is kept.

    Args:
        keypoints: (batch, k, 2), or (batch, k, 3) with a scale, in the units in which it is to count.
        anchors: the same shape, E_K(H_eta(I)).

    Returns:
        (batch,).

    Raises:
        ValueError: if the shapes differ.
    """
    if keypoints.shape != anchors.shape:
        raise ValueError(f"keypoints {tuple(keypoints.shape)} and anchors {tuple(anchors.shape)} differ")
    return (keypoints - anchors).square().flatten(1).sum(1)


def mass_offset(patches: Patches) -> Points:
    """Signed offset of each patch's centre of mass from its centre, as a fraction of the patch side.

    Mass is the squared deviation from the patch's mean, so it works on dark and on bright grounds. A constant and large
    mean offset over many patches tells that the keypoints have settled beside the objects.

    Args:
        patches: (batch, k, channels, size, size).

    Returns:
        (batch, k, 2), x and y in [-0.5, 0.5]; 0 for a flat patch.

    Raises:
        ValueError: on a shape that is not as above.
    """
    if patches.dim() != 5 or patches.shape[-1] != patches.shape[-2]:
        raise ValueError(f"patches must be (batch, k, channels, size, size), got {tuple(patches.shape)}")
    size = patches.shape[-1]
    mass = (patches - patches.mean(dim=(-2, -1), keepdim=True)).square().sum(2)
    position = (torch.arange(size, device=patches.device, dtype=patches.dtype) + 0.5) / size - 0.5
    total = mass.sum(dim=(-2, -1)).clamp(min=1e-12)
    x = (mass.sum(-2) * position).sum(-1) / total
    y = (mass.sum(-1) * position).sum(-1) / total
    return torch.stack((x, y), dim=-1)


def common_object_loss(
    found: Float[Tensor, "batch numbers"], random: Float[Tensor, "batch numbers"], margin: float = 1.0
) -> Float[Tensor, " batch"]:
    """Equation 1 of co-localisation: what was found in two images is to be nearer than a random crop of the first.

    Args:
        found: descriptors e of what was found in each image.
        random: of a random crop of each image.
        margin: alpha.

    Returns:
        (batch,), of each image n the mean over all others m of max(0, |e_n - e_m|^2 - |e_n - e_n^random|^2 + margin).

    Raises:
        ValueError: if the shapes differ, or there is one image only.

    Reference: S003 (supplement of Jaderberg et al., 2015), equation 1, with means for sums.
    """
    if found.dim() != 2 or found.shape != random.shape or len(found) < 2:
        raise ValueError(
            f"descriptors must be twice (batch, numbers) of two images or more, got {tuple(found.shape)} and "
            f"{tuple(random.shape)}"
        )
    squares = found.square().sum(1)
    near = (squares[:, None] + squares - 2 * found @ found.T).clamp(min=0)
    far = (found - random).square().sum(1, keepdim=True)
    hinges = (near - far + margin).clamp(min=0)
    others = 1 - torch.eye(len(found), dtype=found.dtype, device=found.device)
    return (hinges * others).sum(1) / (len(found) - 1)
