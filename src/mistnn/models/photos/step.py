"""The training step on photographs: the density learns counts, the heat map learns the keypoints that they select."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mistnn.errors import MistError
from mistnn.models.photos.config import PhotoStepConfig
from mistnn.models.photos.network import PhotoMaps, PhotoMist
from mistnn.nn.schedule import cosine_share, known_steps, set_rates
from mistnn.ops.losses import peak_loss
from mistnn.ops.peaks import gaussian_peaks, select_peaks
from mistnn.records import Batch

WARMUP = 20
"""Iterations over which the learning rate rises from 0 (our choice)."""
LONGEST_GRADIENT = 5.0
"""The largest norm of the gradient (our choice)."""


class PhotoStep:
    """One iteration: the density learns the counts; the heat map learns G of the keypoints, line 5 of Algorithm 1.

    K is the true number of objects of each class in each image, so that E_K selects no background.

    Raises:
        MistError: if the rates fall over an unknown number of iterations.
    """

    def __init__(self, model: PhotoMist, config: PhotoStepConfig) -> None:
        config.check_model(model.config)
        self.run = known_steps(config.decay, config.decay_steps)
        self.model, self.config = model.to(memory_format=torch.channels_last), config
        trained = [value for value in model.parameters() if value.requires_grad]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "heads": torch.optim.AdamW(trained, lr=config.rate, weight_decay=config.weight_decay, foreach=True)
        }
        self.trained = trained

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """One iteration for images or packed features with counts; returns the scalars to log."""
        if batch.counts is None:
            raise MistError("photographs are learned from the number of objects of each class: give counts.csv")
        config = self.config
        share = cosine_share(iteration, config.decay, config.decay_steps) * min(1.0, (iteration + 1) / WARMUP)
        set_rates(self.optimizers, {"heads": config.rate * share})
        maps = self.model(batch.images, batch.sizes)
        count = self.count_loss(maps, batch.counts)
        start = config.dense_share * self.run
        heatmap = count.new_zeros(len(count))
        if config.keypoints == "counts" and iteration >= start:
            passed = min(1.0, (iteration - start) / max(1.0, config.handover * (self.run - start)))
            heatmap = peak_loss(maps.heatmap, self.targets(maps, batch.counts, passed), maps.inside)
        loss = (count + config.heatmap_weight * heatmap).mean()
        self.optimizers["heads"].zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, LONGEST_GRADIENT)
        self.optimizers["heads"].step()
        error = (maps.density.detach().sum((1, 2, 3)) - batch.counts.sum(1)).abs().mean()
        return {"count": count.detach().mean(), "heatmap": heatmap.detach().mean(), "count_error": error}

    def count_loss(self, maps: PhotoMaps, counts: Tensor) -> Tensor:
        """The smooth L1 distance of sums and counts in deviations of the training counts, for each image."""
        sums = maps.density.sum((2, 3))
        both = [torch.cat((one, self.config.total_weight * one.sum(1, keepdim=True)), 1) for one in (sums, counts)]
        found, true = (one / self.model.deviations for one in both)
        distance = F.smooth_l1_loss(found, true, reduction="none")
        return distance[:, :-1].mean(1) + distance[:, -1]

    @torch.no_grad()
    def targets(self, maps: PhotoMaps, counts: Tensor, passed: float) -> Tensor:
        """G of the keypoints of each class, as many as the image has objects: (batch, classes, rows, columns).

        Args:
            passed: keypoints are the maxima of (1 - passed) x density + passed x heat map, the density scaled to 1.
        """
        config, dense = self.model.config, self.model.evidence(maps)
        dense = dense / dense.amax((2, 3), keepdim=True).clamp(min=1e-12)
        response = (1 - passed) * dense + passed * maps.heatmap.sigmoid()
        points = torch.zeros_like(response, dtype=torch.bool)
        for index, numbers in enumerate(counts.tolist()):
            places, _ = select_peaks(
                response[index], numbers, config.window, config.apart * config.cells, maps.inside[index]
            )
            points[index, places[:, 0], places[:, 1], places[:, 2]] = True
        return gaussian_peaks(points, max(0.6, self.config.spread * config.cells))
