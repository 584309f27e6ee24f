"""Small models and batches for the tests of MIST."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from mistnn.models.mist import LiftedStep, LiftedStepConfig, Mist, MistConfig
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.records import Batch

TOY = MistConfig(
    class_names=("cross", "square", "bar"),
    k=2,
    box_size=7.0,
    patch_extent=7.0,
    patch_size=8,
    heatmap=HeatmapConfig(network="paper", channels=4, blocks=1),
    encoder=EncoderConfig(network="small", width=4, code=8),
    softmax_window=7,
)
JOINT = dataclasses.replace(TOY, decoder=4)
NETWORKS = [
    (heatmap, encoder) for heatmap in ("paper", "released", "small") for encoder in ("paper", "released", "small")
]


def toy(config=TOY, seed=0, **changes) -> Mist:
    torch.manual_seed(seed)
    return Mist(dataclasses.replace(config, **changes))


def variant(heatmap, encoder, **changes) -> Mist:
    """The smallest model with these networks."""
    return toy(
        heatmap=HeatmapConfig(network=heatmap, channels=4, blocks=1),
        encoder=EncoderConfig(network=encoder, width=2),
        patch_size=8 if encoder == "small" else 32,
        **changes,
    )


def lifted(model, **choices) -> LiftedStep:
    """A step that learns from the first iteration, and moves keypoints without a limit."""
    return LiftedStep(model, LiftedStepConfig(**{"heatmap_warmup": 0, "keypoint_reach": 0.0, **choices}))


def noise(batch=3, side=20, classes=3, seed=1, dtype=torch.float32) -> Batch:
    random = torch.Generator().manual_seed(seed)
    images = torch.rand(batch, 1, side, side, generator=random, dtype=torch.float64).to(dtype)
    return Batch(images, counts=torch.randint(0, 3, (batch, classes), generator=random))


def at_scale(points: Tensor, scale: float = 1.0) -> Tensor:
    """(..., k, 2) points as (..., k, 3) keypoints."""
    return torch.cat((points, torch.full_like(points[..., :1], scale)), dim=-1)


def shape_image(kind: str) -> Tensor:
    image = torch.zeros(7, 7)
    if kind == "cross":
        image[3, 1:6] = image[1:6, 3] = 1.0
    elif kind == "square":
        image[1:6, 1:6] = 1.0
    else:
        image[1:6, 2:4] = 1.0
    return image


def shapes(batch=4, side=28, k=2, seed=0) -> Batch:
    """Scenes of shapes that don't touch: a problem that can be learned."""
    random = torch.Generator().manual_seed(seed)
    images, counts, boxes, labels = torch.zeros(batch, 1, side, side), torch.zeros(batch, 3, dtype=torch.int64), [], []
    for index in range(batch):
        placed: list[tuple[int, int]] = []
        while len(placed) < k:
            x, y = torch.randint(0, side - 6, (2,), generator=random).tolist()
            if all(max(abs(x - a), abs(y - b)) > 8 for a, b in placed):
                placed.append((x, y))
        kinds = torch.randint(0, 3, (k,), generator=random)
        for (x, y), kind in zip(placed, kinds.tolist(), strict=True):
            images[index, 0, y : y + 7, x : x + 7] = shape_image(TOY.class_names[kind])
            counts[index, kind] += 1
        boxes.append(torch.tensor([[x + 3.5, y + 3.5, 7.0, 7.0] for x, y in placed]))
        labels.append(kinds)
    return Batch(images, counts, boxes, labels)


def weights_of(module) -> Tensor:
    return torch.cat([part.detach().flatten() for part in module.parameters()])


def double_problem(**changes):
    model = toy(JOINT, **changes)
    model.task_network.double()
    batch = noise(dtype=torch.float64)
    keypoints = at_scale(torch.rand(3, 2, 2, dtype=torch.float64) * 12 + 4)
    return model, batch, keypoints


def finite_differences(step, batch, keypoints):
    """Of the task loss, summed over images, by each coordinate of each keypoint."""
    differences = torch.empty_like(keypoints)
    with torch.no_grad():
        for index in range(keypoints.numel()):
            shift = torch.zeros(keypoints.numel(), dtype=torch.float64)
            shift[index] = 1e-5
            ahead, behind = (
                step.objective(batch, batch.images, keypoints + sign * shift.view(keypoints.shape))["task"].sum()
                for sign in (1, -1)
            )
            differences.view(-1)[index] = (ahead - behind) / 2e-5
    return differences
