"""The training step of the dense variant: first a search over all cells, then keypoints that the counts select. Ours.

Algorithm 1 of MIST starts from the keypoints of an untrained heat map. Where most of them miss the objects, as in
photographs, the task network learns little, and its gradient moves few keypoints back. Here training has two parts:

1. Search. No keypoint is selected. The classes of all cells are averaged, weighted by the energy of the image, and the
   average learns the shares of the classes. Energy is high on objects, so that the classes of cells become useful.
2. Selection. E_K takes as many maxima of each class as the image has objects (the product of heat map, energy and class
   probability). The heat map learns a Gaussian at each of them (line 5 of Algorithm 1), and the cells around it learn
   its class (line 3, with the class that the counts left to this keypoint in place of equation 9).

There is no lifting (line 4): a maximum of the class probability is where its gradient would lead. Only counts are used.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mistnn.models.mist.dense import SMOOTH, DenseMaps, DenseMist, levelled, window_mean
from mistnn.models.mist.dense_config import CELL, DenseStepConfig
from mistnn.nn.mixed_precision import half_precision
from mistnn.nn.schedule import cosine_share, known_steps, set_rates
from mistnn.nn.task import required
from mistnn.ops.losses import peak_loss
from mistnn.ops.peaks import gaussian_blur, gaussian_peaks, select_peaks
from mistnn.records import Batch

WARMUP = 50
"""Iterations over which the learning rate rises from 0 (our choice)."""
LONGEST_GRADIENT = 5.0
"""The largest norm of the gradient (our choice)."""
TINY = 1e-6
"""A share of a class is taken to be at least this."""


class DenseStep:
    """One iteration: the search, or selection of keypoints and learning of heat map and classes at them.

    Raises:
        MistError: if the rates fall over an unknown number of iterations.
    """

    def __init__(self, model: DenseMist, config: DenseStepConfig) -> None:
        config.check_model(model.config)
        known_steps(config.decay, config.decay_steps)
        self.model, self.config = model.to(memory_format=torch.channels_last), config
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "all": torch.optim.AdamW(model.parameters(), lr=config.rate, weight_decay=config.weight_decay, foreach=True)
        }

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Trains on one batch of images with counts; returns the scalars to log."""
        config, counts = self.config, required(batch.counts)
        share = cosine_share(iteration, config.decay, config.decay_steps) * min(1.0, (iteration + 1) / WARMUP)
        set_rates(self.optimizers, {"all": config.rate * share})
        seen = self.varied(levelled(batch.images, self.model.config.level_window))
        with half_precision(config.precision, batch.images.device):
            maps = self.model.maps(seen.contiguous(memory_format=torch.channels_last))
        energy = energy_map(batch.images, config.energy_window)
        searching = iteration < config.search_steps
        shares = self.search(maps, energy, counts, trusted=not searching)
        if searching:
            heatmap, classes = self.imitated(maps, energy), torch.zeros_like(shares)
            loss = shares + config.imitation * heatmap
        else:
            passed = min(1.0, (iteration - config.search_steps) / config.handover)
            points = self.keypoints(self.selected_by(maps, energy, passed), counts)
            heatmap, classes = self.at_keypoints(maps, points)
            loss = heatmap + classes + config.shares * shares
        self._descend(loss.mean())
        losses = {"shares": shares, "heatmap": heatmap, "classification": classes}
        return {name: value.detach().mean() for name, value in losses.items()}

    def varied(self, images: Tensor) -> Tensor:
        """Levelled images with other contrasts, half of them as negatives."""
        shape = (len(images), 1, 1, 1)
        factor = 1 + self.config.contrast * (2 * torch.rand(shape) - 1)
        if self.config.inverted:
            factor = factor * torch.where(torch.rand(shape) < 0.5, -1.0, 1.0)
        return images * factor.to(images)

    def search(self, maps: DenseMaps, energy: Tensor, counts: Tensor, trusted: bool) -> Tensor:
        """The cross-entropy of an image's class shares and the weighted mean of the classes of its cells: (batch,).

        Args:
            maps: of the network.
            energy: see ``energy_map``.
            counts: (batch, classes).
            trusted: whether the heat map is a factor of the weights; else they are the sharpened energy alone.
        """
        weight = energy**self.config.sharpness
        if trusted:
            weight = maps.heatmap.detach().sigmoid() * energy**self.config.kept
        weight = weight / weight.sum((1, 2), keepdim=True).clamp(min=TINY)
        found = (weight[:, None] * maps.classes.softmax(1)).sum((2, 3))
        return -(counts * found.clamp(min=TINY).log()).sum(1) / counts.sum(1).clamp(min=1)

    def imitated(self, maps: DenseMaps, energy: Tensor) -> Tensor:
        """The cross-entropy of the softmax of the heat map over the image and the sharpened energy: (batch,)."""
        target = energy.flatten(1) ** self.config.sharpness
        target = target / target.sum(1, keepdim=True).clamp(min=TINY)
        return -(target * maps.heatmap.flatten(1).log_softmax(1)).sum(1)

    @torch.no_grad()
    def selected_by(self, maps: DenseMaps, energy: Tensor, passed: float) -> Tensor:
        """The response whose maxima are the keypoints, (batch, classes, rows, columns).

        Args:
            maps: of the network.
            energy: see ``energy_map``.
            passed: how far the choice has passed from the energy, 0, to the heat map, 1.
        """
        config = self.config
        place = (1 - passed) * energy**config.sharpness + passed * maps.heatmap.sigmoid() * energy**config.kept
        return gaussian_blur(place[:, None] * maps.classes.softmax(1), SMOOTH)

    def keypoints(self, response: Tensor, counts: Tensor) -> Tensor:
        """As many maxima of each class as each image has objects, marked in a boolean map like ``response``."""
        points = torch.zeros_like(response, dtype=torch.bool)
        for index, numbers in enumerate(counts.tolist()):
            places, _ = select_peaks(response[index], numbers, self.model.config.window, self.config.apart)
            points[index, places[:, 0], places[:, 1], places[:, 2]] = True
        return points

    def at_keypoints(self, maps: DenseMaps, points: Tensor) -> tuple[Tensor, Tensor]:
        """The losses of the heat map and of the classes at keypoints, (batch,) each."""
        places = gaussian_peaks(points.any(1, keepdim=True), self.config.spread)
        heatmap = peak_loss(maps.heatmap[:, None], places, torch.ones_like(points[:, 0]))
        near = gaussian_peaks(points, self.config.read)
        classes = -(near * maps.classes.log_softmax(1)).sum((1, 2, 3)) / near.sum((1, 2, 3)).clamp(min=1)
        return heatmap, classes

    def _descend(self, loss: Tensor) -> None:
        optimizer = self.optimizers["all"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), LONGEST_GRADIENT)
        optimizer.step()


def energy_map(images: Tensor, window: int) -> Tensor:
    """The mean absolute difference of neighbouring pixels around each cell, (batch, rows, columns); its maximum is 1.

    Convention: a pixel is compared with its right and its lower neighbour; the differences are averaged over channels,
    over a square window of ``window`` pixels, odd, and over the 4 x 4 px of each cell; the last cells may be cut off.
    """
    right = F.pad((images[..., 1:] - images[..., :-1]).abs(), (0, 1))
    below = F.pad((images[..., 1:, :] - images[..., :-1, :]).abs(), (0, 0, 0, 1))
    changes = window_mean((right + below).mean(1, keepdim=True), window)
    energy = F.avg_pool2d(changes, CELL, ceil_mode=True)[:, 0]
    return energy / energy.amax((1, 2), keepdim=True).clamp(min=TINY)
