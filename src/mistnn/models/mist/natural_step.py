"""The lifted training step on photographs: Algorithm 1 of MIST (CVPR 2021) on the features of a backbone."""

from __future__ import annotations

import torch
from torch import Tensor

from mistnn.errors import MistError
from mistnn.models.mist.config import NaturalStepConfig
from mistnn.models.mist.natural import NaturalMaps, NaturalMist
from mistnn.nn.backbones import STRIDE
from mistnn.nn.lift import lift
from mistnn.nn.schedule import cosine_share, known_steps, set_rates
from mistnn.ops.coordinates import inside_of
from mistnn.ops.keypoint_maps import ideal_response, offset_loss
from mistnn.ops.losses import class_proportion_loss, heatmap_loss, with_background
from mistnn.records import Batch


class NaturalStep:
    """One iteration of Algorithm 1; the features of the backbone are computed once."""

    def __init__(self, model: NaturalMist, config: NaturalStepConfig) -> None:
        config.check_model(model.config)
        known_steps(config.decay, config.decay_steps)
        self.model, self.config = model.to(memory_format=torch.channels_last), config
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
        """Algorithm 1, lines 3 to 5, for one batch with counts; returns the scalars to log."""
        share = cosine_share(iteration, self.config.decay, self.config.decay_steps)
        set_rates(self.optimizers, {name: rate * share for name, rate in self.rates.items()})
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        features = self.model.backbone(batch.images.contiguous(memory_format=torch.channels_last))
        maps = self.model.maps(features)  # h = H_eta(I)
        anchors = self.anchors(batch, maps)  # E_K(h)
        if self.config.order == "keypoints-first":  # released code
            keypoints = self.lift(batch, features, anchors)  # line 4
            losses = self.train_task(batch, features, keypoints)  # line 3
        else:  # paper
            losses = self.train_task(batch, features, anchors)  # line 3
            keypoints = self.lift(batch, features, anchors)  # line 4
        response, offset = self.train_heatmap(maps, keypoints, losses)  # line 5
        if "backbone" in self.optimizers:  # one step on the gradients of both lines
            self.optimizers["backbone"].step()
        moved = (keypoints - anchors).norm(dim=-1).mean() * STRIDE
        return {"task": losses.mean(), "heatmap": response.mean(), "offset": offset.mean(), "moved": moved}

    def anchors(self, batch: Batch, maps: NaturalMaps) -> Tensor:
        """E_K(h) in cells, never in padding."""
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
        """Line 4: gradient steps on the keypoints, in cells (equation 6)."""
        config, features = self.config, features.detach()
        high = self.ends(batch, features)
        return lift(
            anchors,
            lambda keypoints: self.objective(batch, features, keypoints),
            steps=config.inner_steps,
            rate=config.cell_step,
            reach=config.cell_reach,
            penalty=config.penalty,
            low=torch.zeros_like(high),
            high=high,
        )

    def train_task(self, batch: Batch, features: Tensor, keypoints: Tensor) -> Tensor:
        """Line 3: one step on tau. Returns the loss of each image."""
        losses = self.objective(batch, features, keypoints.detach())
        losses.mean().backward(retain_graph=features.requires_grad)  # line 5 differentiates the same features
        self.optimizers["task"].step()
        return losses.detach()

    def train_heatmap(self, maps: NaturalMaps, keypoints: Tensor, task_loss: Tensor) -> tuple[Tensor, Tensor]:
        """Line 5: one step on eta; l2 towards G of the lifted keypoints, Huber towards their offsets."""
        rows, columns = maps.response.shape[-2:]
        response = heatmap_loss(maps.response, ideal_response(keypoints, rows, columns, self.variance))
        offset = offset_loss(maps.offsets, keypoints)
        weight = (-self.config.confidence * task_loss).exp()
        offset_share = weight if self.config.weighted_offsets else torch.ones_like(weight)
        (weight * response + self.config.offset_weight * offset_share * offset).mean().backward()
        self.optimizers["heatmap"].step()
        return response.detach(), offset.detach()

    def objective(self, batch: Batch, features: Tensor, keypoints: Tensor) -> Tensor:
        """Equation 9 of each image; patches beyond its number of objects belong to the background class."""
        if batch.counts is None:
            raise MistError("this model has classes: its training images need class counts, and these have none")
        probabilities = self.model.task_network(features, keypoints).probabilities
        return class_proportion_loss(probabilities, with_background(batch.counts, keypoints.shape[1]))
