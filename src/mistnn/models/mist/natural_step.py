"""The lifted training step on photographs: Algorithm 1 of MIST (CVPR 2021) on the features of a backbone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mistnn.errors import MistError
from mistnn.models.mist.natural import NaturalMaps, NaturalMist
from mistnn.nn.backbones import STRIDE
from mistnn.nn.schedule import check_rates, cosine_share
from mistnn.ops.coordinates import inside_of
from mistnn.ops.keypoint_maps import ideal_response, offset_loss
from mistnn.ops.losses import class_proportion_loss, heatmap_loss, lifting_penalty, with_background
from mistnn.records import Batch


@dataclass(frozen=True)
class NaturalStepConfig:
    """Every choice of Algorithm 1 on photographs. What the paper leaves open is said at the field.

    Attributes:
        order: the paper writes "task-first" (lines 3, 4, 5); the released code moves the keypoints first, which is the
            default here.
        inner_steps: gradient steps on the keypoints in a batch (not stated; 2 in the released code).
        cell_step: step size of the keypoints in cells^2 on each image's own loss (not stated; the released code's 1e3
            on half the mean over 16 images is 31.25 here).
        cell_reach: longest move of a keypoint in one inner step, in cells; 0 for no limit (paper).
        penalty: lambda of equation 6 (not stated; the released code has no such term: 0).
        confidence: c of the weight exp(-c x task loss) that an image has in the heat-map loss (not in the paper; the
            released code's 5 on half the squared distance is 2.5 here). 0 switches it off.
        gaussian: an eighth of the patch's size is the variance of G's Gaussian ("covariance", the paper) or its
            standard deviation ("deviation", the released code).
        offset_weight: of the Huber loss of the offsets beside the response's (not stated; value of the released code).
        task_rate: learning rate of Adam for tau (not stated; value of the released code).
        heatmap_rate: learning rate of Adam for eta (not stated; value of the released code).
        backbone_rate: learning rate of Adam for a backbone that is tuned (the released code's is frozen; ours).
        decay: the learning rates fall to this share along half a cosine over ``decay_steps``; 1 for constant rates.
        decay_steps: length of that fall, in iterations.
    """

    order: Literal["keypoints-first", "task-first"] = "keypoints-first"
    inner_steps: int = 2
    cell_step: float = 31.25
    cell_reach: float = 1.0
    penalty: float = 0.0
    confidence: float = 2.5
    gaussian: Literal["covariance", "deviation"] = "covariance"
    offset_weight: float = 0.1
    task_rate: float = 1e-4
    heatmap_rate: float = 1e-4
    backbone_rate: float = 1e-5
    decay: float = 1.0
    decay_steps: int = 0

    def __post_init__(self) -> None:
        """Refuses values that no step can have.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        for name in ("inner_steps", "cell_step", "cell_reach", "penalty", "confidence", "offset_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise MistError(f"step.{name}={getattr(self, name)} must be a finite number of 0 or more")
        for name, known in (("order", ("keypoints-first", "task-first")), ("gaussian", ("covariance", "deviation"))):
            if getattr(self, name) not in known:
                raise MistError(f"step.{name}={getattr(self, name)!r} is unknown: use {' or '.join(known)}")
        check_rates(
            self.decay,
            self.decay_steps,
            task_rate=self.task_rate,
            heatmap_rate=self.heatmap_rate,
            backbone_rate=self.backbone_rate,
        )
        if self.penalty * self.cell_step > 1:
            raise MistError(
                f"step.penalty={self.penalty} diverges at step.cell_step={self.cell_step}: give at most "
                f"{1 / self.cell_step:.3g}"
            )


class NaturalStep:
    """One batch of Algorithm 1: top-K, lift, task, heat map; the backbone's features are computed once."""

    def __init__(self, model: NaturalMist, config: NaturalStepConfig) -> None:
        self.model = model.to(memory_format=torch.channels_last)
        self.config = config
        side = model.config.reader.patch_cells / 8
        self.variance = side if config.gaussian == "covariance" else side**2
        self.rates = {"task": config.task_rate, "heatmap": config.heatmap_rate}
        parts = {"task": model.task_network, "heatmap": model.head}
        if model.config.backbone.tuned:
            self.rates["backbone"], parts["backbone"] = config.backbone_rate, model.backbone
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(part.parameters(), lr=self.rates[name], foreach=True) for name, part in parts.items()
        }

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Algorithm 1, lines 3 to 5, for one batch; returns the scalars to log."""
        share = cosine_share(iteration, self.config.decay, self.config.decay_steps)
        for name, optimizer in self.optimizers.items():
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = self.rates[name] * share
        images = batch.images.contiguous(memory_format=torch.channels_last)
        features = self.model.backbone(images)
        maps = self.model.maps(features)  # h = H_eta(I)
        anchors = self.anchors(batch, maps)  # E_K(h)
        if self.config.order == "keypoints-first":
            keypoints = self.lift(batch, features, anchors)  # line 4
            losses = self.train_task(batch, features, keypoints)  # line 3
        else:
            losses = self.train_task(batch, features, anchors)  # line 3
            keypoints = self.lift(batch, features, anchors)  # line 4
        response, offset = self.train_heatmap(maps, keypoints, losses)  # line 5
        if "backbone" in self.optimizers:  # one step on the gradients of both
            self.optimizers["backbone"].step()
        moved = (keypoints - anchors).norm(dim=-1).mean() * STRIDE
        return {"task": losses.mean(), "heatmap": response.mean(), "offset": offset.mean(), "moved": moved}

    def anchors(self, batch: Batch, maps: NaturalMaps) -> Tensor:
        """E_K(h), never in what an image is padded with; in cells."""
        rows, columns = maps.response.shape[-2:]
        inside = None if batch.sizes is None else inside_of(self.model.backbone.cells_of(batch.sizes), rows, columns)
        return torch.minimum(self.model.keypoints(maps, inside=inside).points, self.ends(batch, maps.response))

    def ends(self, batch: Batch, maps: Tensor) -> Tensor:
        """The right and lower ends of the images within maps of cells: (1 or batch, 1, 2), x and y in cells."""
        ends = maps.new_tensor([[maps.shape[-1], maps.shape[-2]]])
        if batch.sizes is not None:
            ends = torch.minimum(self.model.backbone.to_cells(batch.sizes.flip(1).to(ends)), ends)
        return ends.unsqueeze(1)

    def lift(self, batch: Batch, features: Tensor, anchors: Tensor) -> Tensor:
        """Line 4: gradient steps on the keypoints, each image on its own loss (equation 6); in cells."""
        features = features.detach()
        high = self.ends(batch, features)
        points = anchors
        for _ in range(self.config.inner_steps):
            points = points.detach().requires_grad_()
            loss = self.objective(batch, features, points)
            if self.config.penalty:
                loss = loss + self.config.penalty * lifting_penalty(points, anchors)
            (gradient,) = torch.autograd.grad(loss.sum(), points)  # of the keypoints alone, not of the weights
            move = self.config.cell_step * gradient
            if self.config.cell_reach:
                length = move.norm(dim=-1, keepdim=True).clamp(min=1e-12)
                move = move * (self.config.cell_reach / length).clamp(max=1)
            points = torch.minimum((points.detach() - move).clamp(min=0), high)
        return points.detach()

    def train_task(self, batch: Batch, features: Tensor, keypoints: Tensor) -> Tensor:
        """Line 3: one step on tau. Returns the loss of each image."""
        losses = self.objective(batch, features, keypoints.detach())
        losses.mean().backward(retain_graph=features.requires_grad)  # the heat map goes back through the same features
        self.optimizers["task"].step()
        return losses.detach()

    def train_heatmap(self, maps: NaturalMaps, keypoints: Tensor, task_loss: Tensor) -> tuple[Tensor, Tensor]:
        """Line 5: one step on eta, l2 towards G of the optimised keypoints and Huber towards their offsets."""
        rows, columns = maps.response.shape[-2:]
        response = heatmap_loss(maps.response, ideal_response(keypoints, rows, columns, self.variance))
        offset = offset_loss(maps.offsets, keypoints)
        weight = (-self.config.confidence * task_loss).exp()
        (weight * (response + self.config.offset_weight * offset)).mean().backward()
        self.optimizers["heatmap"].step()
        return response.detach(), offset.detach()

    def objective(self, batch: Batch, features: Tensor, keypoints: Tensor) -> Tensor:
        """Equation 9 of each image, with a background for the patches that it has no object for."""
        if batch.counts is None:
            raise MistError("this model has classes: its training images need class counts, and these have none")
        probabilities = self.model.task_network(features, keypoints).probabilities
        return class_proportion_loss(probabilities, with_background(batch.counts, keypoints.shape[1]))
