"""The lifted training step: Algorithm 1 of MIST (CVPR 2021)."""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor

from mistnn.models.mist.config import LiftedStepConfig
from mistnn.models.mist.diagnostics import keypoint_diagnostics
from mistnn.models.mist.network import Mist
from mistnn.nn.lift import lift, moved
from mistnn.nn.mixed_precision import half_precision
from mistnn.nn.schedule import cosine_share, known_steps, set_rates
from mistnn.nn.task import count_or_presence_loss, relative_reconstruction_loss
from mistnn.ops.coordinates import inside_of, mirror
from mistnn.ops.heatmap import ideal_heatmaps
from mistnn.ops.losses import heatmap_loss
from mistnn.records import Batch


class Movement(TypedDict):
    """The arguments of ``lift`` and ``moved`` that say how keypoints move."""

    rate: Tensor
    reach: float
    low: Tensor
    high: Tensor


class LiftedStep:
    """One iteration of Algorithm 1: top-K, then a step on the keypoints, on tau and on eta.

    Raises:
        MistError: if the model lacks what the objective needs, or the rates fall over an unknown number of iterations.
    """

    def __init__(self, model: Mist, config: LiftedStepConfig) -> None:
        config.check_model(model.config)
        known_steps(config.decay, config.decay_steps)
        self.model, self.config = model.to(memory_format=torch.channels_last), config
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "task": torch.optim.Adam(model.task_network.parameters(), lr=config.task_rate, foreach=True),
            "heatmap": torch.optim.Adam(model.heatmap_network.parameters(), lr=config.heatmap_rate, foreach=True),
        }

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Algorithm 1, lines 3 to 5, for one batch; returns the scalars to log."""
        config, model = self.config, self.model
        share = cosine_share(iteration, config.decay, config.decay_steps)
        trains_heatmap = iteration >= config.heatmap_start
        warmth = min(1.0, max(0, iteration + 1 - config.heatmap_start) / max(1, config.heatmap_warmup))
        set_rates(self.optimizers, {"task": config.task_rate * share, "heatmap": config.heatmap_rate * share * warmth})
        images = batch.images.contiguous(memory_format=torch.channels_last)
        turned = random_mirrors(images) if config.mirrored else None
        with half_precision(config.precision, images.device), torch.set_grad_enabled(trains_heatmap):
            heatmaps = model.heatmaps(images if turned is None else mirror(images, turned))  # h = H_eta(I)
        heatmaps = heatmaps if turned is None else mirror(heatmaps, turned)
        inside = None if batch.sizes is None else inside_of(batch.sizes, *images.shape[-2:])
        anchors = model.keypoints(heatmaps, inside=inside).keypoints  # E_K(h), never in padding
        if config.order == "single-pass":  # ours
            losses, keypoints = self.train_task_and_lift(batch, images, anchors)  # lines 3 and 4
        elif config.order == "keypoints-first":  # released code
            keypoints = self.lift(batch, images, anchors)  # line 4
            losses = self.train_task(batch, images, keypoints)  # line 3
        else:  # paper
            losses = self.train_task(batch, images, anchors)  # line 3
            keypoints = self.lift(batch, images, anchors)  # line 4
        presence = model.presence(images, keypoints) if config.objects_only else None
        heatmap_mean = self.train_heatmap(heatmaps, keypoints, losses["task"], presence)  # line 5
        logged = {name: value.detach().mean() for name, value in losses.items()} | {"heatmap": heatmap_mean}
        return logged | keypoint_diagnostics(model, images, anchors, keypoints)

    def lift(self, batch: Batch, images: Tensor, anchors: Tensor) -> Tensor:
        """Line 4: gradient steps on (x, y, half the side of the box), all in pixels (equation 6)."""
        config, unit = self.config, self._unit(anchors)
        keypoints = lift(
            anchors * unit,
            lambda moved: self.objective(batch, images, moved / unit)["task"],
            steps=config.inner_steps,
            penalty=config.penalty,
            **self._movement(batch, anchors),
        )
        return keypoints / unit

    def train_task(self, batch: Batch, images: Tensor, keypoints: Tensor) -> dict[str, Tensor]:
        """Line 3: one step on tau, of which the penalty is independent. Returns the losses of each image."""
        losses = self.objective(batch, images, keypoints.detach())
        self._descend("task", losses["task"].mean())
        return losses

    def train_task_and_lift(self, batch: Batch, images: Tensor, anchors: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Lines 3 and 4 at once: one gradient of the task loss at the anchors, for tau and for the keypoints.

        The step on the keypoints sees tau before its step. The penalty has no gradient at the anchors.
        """
        unit = self._unit(anchors)
        places = (anchors * unit).requires_grad_()
        losses = self.objective(batch, images, places / unit)
        self._descend("task", losses["task"].mean())
        assert places.grad is not None
        gradient = places.grad * len(images)  # of each image's loss, of which the mean was taken
        return losses, moved(places, gradient, **self._movement(batch, anchors)) / unit

    def _unit(self, keypoints: Tensor) -> Tensor:
        """The unit of each coordinate of a keypoint, in pixels."""
        return keypoints.new_tensor((1.0, 1.0, self.model.config.box_size / 2))

    def _movement(self, batch: Batch, anchors: Tensor) -> Movement:
        """How keypoints move, all in pixels."""
        config, unit, (low, high) = self.config, self._unit(anchors), self.model.limits(anchors, batch)
        scale_step = config.scale_step if self.model.finds_sizes else 0.0
        return Movement(
            rate=config.keypoint_step * anchors.new_tensor((1.0, 1.0, scale_step)),
            reach=config.keypoint_reach,
            low=low * unit,
            high=high * unit,
        )

    def train_heatmap(
        self, heatmaps: Tensor, keypoints: Tensor, task_loss: Tensor, presence: Tensor | None = None
    ) -> Tensor:
        """Line 5: one step on eta towards G of the lifted keypoints (equation 7). Returns the mean loss.

        Heat maps without a gradient are measured only: see ``heatmap_start``.
        """
        scales, size, spread = self.model.config.scales, heatmaps.shape[-2:], self.config.spread
        ideal = ideal_heatmaps(keypoints, scales, *size, presence=presence, spread=spread)  # G(x)
        loss = heatmap_loss(heatmaps, ideal)
        weight = (-self.config.confidence * task_loss.detach()).exp()
        if heatmaps.requires_grad:
            self._descend("heatmap", (weight * loss).mean())
        return loss.detach().mean()

    def objective(self, batch: Batch, images: Tensor, keypoints: Tensor) -> dict[str, Tensor]:
        """The task loss of each image and its terms: equation 9 (or its form for presence) + beta x equation 8."""
        model, beta = self.model, self.config.reconstruction
        task = model.task_network(model.cut(images, keypoints), decode=beta > 0)  # T_tau(S(I, x))
        terms: dict[str, Tensor] = {}
        total = images.new_zeros(len(images))
        if task.logits is not None:
            terms["classification"] = count_or_presence_loss(
                task.logits, batch.counts, batch.presence, model.config.background
            )
            total = total + terms["classification"]
        if task.decoded is not None:
            rebuilt = model.rebuild(task.decoded, keypoints, images)
            terms["reconstruction"] = relative_reconstruction_loss(images, rebuilt)
            total = total + beta * terms["reconstruction"]
        return {"task": total, **terms}

    def _descend(self, name: str, loss: Tensor) -> None:
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[name].step()


def random_mirrors(images: Tensor) -> Tensor:
    """Fair coins of torch's global generator, (batch, 2): whether an image is mirrored in x, and in y."""
    return (torch.rand(len(images), 2) < 0.5).to(images.device)
