"""The losses of the papers: one value per image, (batch,), which training steps reduce.

``counts`` holds the objects of each class, ``probabilities`` a softmax for each patch. All functions raise
``ValueError`` if shapes don't fit.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor, nn

from mistnn.records import Images, Patches, Points


def reconstruction_loss(images: Images, reconstructions: Images) -> Float[Tensor, " batch"]:
    """Equation 8: the squared distance between an image and the sum of its placed patches (from ``place_patches``).

    Reference: MIST (CVPR 2021), equation 8, summed over channels and pixels.
    """
    if images.shape != reconstructions.shape:
        raise ValueError(f"images {tuple(images.shape)} and reconstructions {tuple(reconstructions.shape)} differ")
    return (images - reconstructions).square().flatten(1).sum(1)


def class_proportion_loss(
    probabilities: Float[Tensor, "batch k classes"], counts: Num[Tensor, "batch classes"]
) -> Float[Tensor, " batch"]:
    """Equation 9: the squared distance between the true and the predicted class proportions of an image.

    Summed over classes, from 0 to 2; the true proportions of an image without objects are 0.

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
    """The counterpart of equation 9 for images with known classes but unknown counts (ours).

    For each class that is present, at least one patch must have probability 1; for each absent class, all patches must
    have probability 0:

        sum over present c of (1 - max_k p_kc)^2  +  sum over absent c of mean_k p_kc^2

    This has the mean of squares, not the square of the mean as in equation 9, in which a single wrong patch among many
    would hardly count.

    Args:
        presence: whether each of the first classes is present; further ones (background) are free.

    Reference: not in the papers; the maximum over a bag is standard in multiple-instance learning.
    """
    if probabilities.dim() != 3 or presence.dim() != 2 or len(presence) != len(probabilities):
        raise ValueError(
            f"probabilities must be (batch, k, classes) and presence (batch, known classes), "
            f"got {tuple(probabilities.shape)} and {tuple(presence.shape)}"
        )
    if presence.shape[1] > probabilities.shape[2]:
        raise ValueError(f"presence has {presence.shape[1]} classes, and probabilities only {probabilities.shape[2]}")
    known = probabilities[..., : presence.shape[1]]
    missing = (1 - known.amax(1)).square()
    wrong = known.square().mean(1)
    return torch.where(presence, missing, wrong).sum(1)


def with_background(counts: Num[Tensor, "batch classes"], k: int) -> Num[Tensor, "batch classes_and_background"]:
    """Counts with a background class: the max(0, K - L) patches without an object in an image with L objects.

    With these counts, the target of equation 9 is (counts, max(0, K - L)) / max(K, L).

    Reference: MIST (CVPR 2021), section 5.2, "background" on PASCAL+COCO; the target is ours.
    """
    unused = (k - counts.sum(1, keepdim=True)).clamp(min=0)
    return torch.cat((counts, unused), dim=1)


def heatmap_loss(
    heatmap: Float[Tensor, "batch *scales height width"], ideal: Float[Tensor, "batch *scales height width"]
) -> Float[Tensor, " batch"]:
    """Equation 7: the mean over pixels of the squared distance between heat maps and ideal heat maps G.

    The paper does not state mean or sum; the released code, with one scale, takes the mean over pixels. The distances
    of several scales are summed, so that a keypoint has the same weight for any number of scales.
    """
    if heatmap.shape != ideal.shape:
        raise ValueError(f"heat map {tuple(heatmap.shape)} and ideal heat map {tuple(ideal.shape)} differ")
    return (heatmap - ideal).square().mean(dim=(-2, -1)).reshape(len(heatmap), -1).sum(1)


def lifting_penalty(
    keypoints: Float[Tensor, "batch k coordinates"], anchors: Float[Tensor, "batch k coordinates"]
) -> Float[Tensor, " batch"]:
    """The penalty of equation 6: the squared distance of keypoints from the anchors E_K(h), summed over keypoints.

    Keypoint k is compared with anchor k, from which it was lifted; all coordinates are in one unit of length.
    """
    if keypoints.shape != anchors.shape:
        raise ValueError(f"keypoints {tuple(keypoints.shape)} and anchors {tuple(anchors.shape)} differ")
    return (keypoints - anchors).square().flatten(1).sum(1)


def mass_offset(patches: Patches) -> Points:
    """The offset of each patch's centre of mass from its centre, x and y as fractions of its side, in [-0.5, 0.5].

    Mass is the squared deviation from the patch's mean, for dark and bright backgrounds; a constant patch has offset 0.
    A large, constant offset of many patches indicates that the keypoints have settled beside the objects.
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
    """Equation 1 of co-localisation: the windows of two images must be closer than window and random crop of one image.

    For image n, the mean over all others m of ``max(0, |e_n - e_m|^2 - |e_n - e_n^random|^2 + margin)``.

    Args:
        found: descriptors e of the window in each image.
        random: descriptors of a random crop of each image.
        margin: alpha.

    Raises:
        ValueError: also if there is only one image.

    Reference: S003 (supplement of Jaderberg et al., 2015), equation 1, with means in place of sums.
    """
    if found.dim() != 2 or found.shape != random.shape or len(found) < 2:
        raise ValueError(
            f"both descriptors must be (batch, numbers) of two images or more, got {tuple(found.shape)} and "
            f"{tuple(random.shape)}"
        )
    squares = found.square().sum(1)
    near = (squares[:, None] + squares - 2 * found @ found.T).clamp(min=0)
    far = (found - random).square().sum(1, keepdim=True)
    hinges = (near - far + margin).clamp(min=0)
    others = 1 - torch.eye(len(found), dtype=found.dtype, device=found.device)
    return (hinges * others).sum(1) / (len(found) - 1)


def peak_loss(
    logits: Float[Tensor, "batch classes rows columns"],
    targets: Float[Tensor, "batch classes rows columns"],
    inside: Bool[Tensor, "batch rows columns"],
) -> Float[Tensor, " batch"]:
    """The focal loss of heat maps with peaks, for each image: summed over classes and cells, per object.

    Convention: ``targets`` are 1 at keypoints and fall off around them; cells outside ``inside`` don't count.

    Reference: Law and Deng, CornerNet, 2018, equation 1, with alpha = 2 and beta = 4.
    """
    if logits.shape != targets.shape or inside.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(
            f"logits {tuple(logits.shape)}, targets {tuple(targets.shape)} and inside {tuple(inside.shape)} don't fit"
        )
    at_peak = (targets == 1).to(logits.dtype)
    probability = logits.sigmoid()
    positive = at_peak * (1 - probability).square() * nn.functional.logsigmoid(logits)
    negative = (1 - at_peak) * (1 - targets).pow(4) * probability.square() * nn.functional.logsigmoid(-logits)
    total = -((positive + negative) * inside[:, None]).flatten(1).sum(1)
    return total / at_peak.flatten(1).sum(1).clamp(min=1)
