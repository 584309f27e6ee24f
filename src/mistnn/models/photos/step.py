"""The training step on photographs: the density learns counts, the heat map learns the keypoints that they select."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mistnn.errors import MistError
from mistnn.models.photos.config import PhotoStepConfig
from mistnn.models.photos.lifting import anchors_of, lift_keypoints, mark_keypoints, task_loss
from mistnn.models.photos.network import PhotoMaps, PhotoMist
from mistnn.nn.schedule import cosine_share, known_steps, set_rates
from mistnn.ops.losses import peak_loss
from mistnn.ops.peaks import gaussian_blur, gaussian_peaks, select_peaks
from mistnn.records import Batch

WARMUP = 20
"""Iterations over which the learning rate rises from 0 (our choice)."""
LONGEST_GRADIENT = 5.0
"""The largest norm of the gradient (our choice)."""
TEMPLATES = ("template", "template_bias")
TEMPLATE_RATE = 0.1
"""The learning rate of the templates, whose weights are small, as a share of that of the heads (our choice)."""
TINY = 1e-6
"""A share of a class is taken to be at least this."""
DROPPED = (0.5, 0.8)
"""The shares of the run between which dropout falls to 0 (our choice)."""
LEAST_SPREAD = 0.6
"""The smallest standard deviation of the Gaussian at a keypoint, in cells (our choice)."""


class PhotoStep:
    """One iteration: the density learns the counts; the heat map learns G of the keypoints, line 5 of Algorithm 1.

    The density also learns to hold one object at each keypoint.

    K is the true number of objects of each class in each image, so that E_K selects no background. With a task network,
    lines 3 and 4 are done as well: K is larger, keypoints beyond the number of objects are background, and those of
    objects are lifted.

    Raises:
        MistError: if the rates fall over an unknown number of iterations.
    """

    def __init__(self, model: PhotoMist, config: PhotoStepConfig) -> None:
        config.check_model(model.config)
        self.run = known_steps(config.decay, config.decay_steps)
        self.model, self.config = model.to(memory_format=torch.channels_last), config
        self.trained = [value for value in model.parameters() if value.requires_grad]
        templates = [getattr(model, name) for name in TEMPLATES]
        heads = [value for name, value in model.named_parameters() if value.requires_grad and name not in TEMPLATES]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "heads": torch.optim.AdamW(heads, lr=config.rate, weight_decay=config.weight_decay, foreach=True),
            "templates": torch.optim.AdamW(templates, lr=config.rate, weight_decay=0),
        }

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """One iteration for images or packed features with counts; returns the scalars to log."""
        if batch.counts is None:
            raise MistError("photographs are learned from the number of objects of each class: give counts.csv")
        config = self.config
        share = cosine_share(iteration, config.decay, config.decay_steps) * min(1.0, (iteration + 1) / WARMUP)
        rate = config.rate * share
        set_rates(self.optimizers, {"heads": rate, "templates": TEMPLATE_RATE * rate})
        self.model.dropout.p = self.dropped(iteration)
        maps = self.model(batch.images, batch.sizes)
        count = self.count_loss(maps, batch.counts)
        heatmap = local = count.new_zeros(len(count))
        task = count.new_zeros(len(count))
        passed = self.passed(iteration)
        if passed is not None:
            response = self.target_response(maps, passed)
            keypoints = self.keypoints(response, maps.inside, batch.counts)
            if maps.classes is None:
                points = self.marked(keypoints, response)
            else:
                points, task = self.lift(maps, maps.classes, keypoints, response, batch.counts)
            targets = gaussian_peaks(points, self.spread)
            heatmap = peak_loss(maps.heatmap, targets, maps.inside)
            local = self.local_loss(maps, points)
        loss = config.count_weight * count + config.heatmap_weight * heatmap + config.local_weight * local
        loss = (loss + config.task_weight * task).mean()
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, LONGEST_GRADIENT)
        for optimizer in self.optimizers.values():
            optimizer.step()
        error = (maps.density.detach().sum((1, 2, 3)) - batch.counts.sum(1)).abs().mean()
        losses = {"count": count, "heatmap": heatmap, "local": local}
        losses |= {} if maps.classes is None else {"task": task}
        return {name: one.detach().mean() for name, one in losses.items()} | {"count_error": error}

    @property
    def spread(self) -> float:
        """The standard deviation in cells of the Gaussian at a keypoint."""
        return max(LEAST_SPREAD, self.config.spread * self.model.config.cells)

    def dropped(self, iteration: int) -> float:
        """The share of channels that is dropped: falls from all to none of it between two points of the run."""
        first, last = (share * self.run for share in DROPPED)
        return self.config.dropout * min(1.0, max(0.0, (last - iteration) / (last - first)))

    def passed(self, iteration: int) -> float | None:
        """How far keypoints have passed from the start to the heat map, 0 to 1; ``None`` if there are none yet."""
        config = self.config
        first = config.dense_share * self.run if config.start == "density" else 0.0
        if config.keypoints == "none" or iteration < first:
            return None
        return (1 - config.kept) * min(1.0, (iteration - first) / (config.handover * self.run))

    def count_loss(self, maps: PhotoMaps, counts: Tensor) -> Tensor:
        """How far the sums of the density are from the counts, for each image.

        The first part is the smooth L1 distance. Its unit is the deviation of the training counts, or sqrt(n + 1) if
        that is smaller: counts that differ widely would otherwise be learned from the images with most objects. The
        second part is the cross-entropy of the shares of the classes, which says more about the classes of an image
        with many objects of one and few of another.
        """
        sums = maps.density.sum((2, 3))
        total = counts.sum(1, keepdim=True)
        shares = (sums / sums.sum(1, keepdim=True).clamp(min=TINY)).clamp(min=TINY)
        classes = -(counts * shares.log()).sum(1) / total[:, 0].clamp(min=1)
        found, true = (torch.cat((one, one.sum(1, keepdim=True)), 1) for one in (sums, counts.to(sums.dtype)))
        unit = torch.minimum(self.model.deviations, (true + 1).sqrt())
        distance = F.smooth_l1_loss(found / unit, true / unit, reduction="none")
        of_classes, of_total = distance[:, :-1].mean(1), distance[:, -1]
        return of_classes + self.config.total_weight * of_total + self.config.class_weight * classes

    def local_loss(self, maps: PhotoMaps, points: Tensor) -> Tensor:
        """The absolute difference of the density and one object at each keypoint, both blurred, for each image.

        It follows the median: keypoints that other images don't confirm have little influence.
        """
        difference = gaussian_blur(maps.density - points.to(maps.density.dtype), self.spread)
        return (difference.abs().sum((2, 3)) / self.model.deviations[:-1]).mean(1)

    @torch.no_grad()
    def target_response(self, maps: PhotoMaps, passed: float) -> Tensor:
        """(1 - passed) x start + passed x heat map, whose maxima are the keypoints: (batch, classes, rows, columns).

        The start is the linear map, or the density scaled to 1.
        """
        response = maps.heatmap.sigmoid()
        if passed == 1:
            return response
        start = maps.linear.sigmoid()
        if self.config.start == "density":
            start = self.model.evidence(maps)
            start = start / start.amax((2, 3), keepdim=True).clamp(min=1e-12)
        return passed * response + (1 - passed) * start

    def keypoints(self, response: Tensor, inside: Tensor, counts: Tensor) -> list[Tensor]:
        """As many maxima of each class as each image has objects: (found, 3), class, row and column."""
        config = self.model.config
        return [
            select_peaks(response[index], numbers, config.window, config.apart * config.cells, inside[index])[0]
            for index, numbers in enumerate(counts.tolist())
        ]

    @staticmethod
    def marked(keypoints: list[Tensor], response: Tensor) -> Tensor:
        """Marks the keypoints in maps like ``response``, boolean."""
        points = torch.zeros_like(response, dtype=torch.bool)
        for index, places in enumerate(keypoints):
            points[index, places[:, 0], places[:, 1], places[:, 2]] = True
        return points

    def lift(
        self, maps: PhotoMaps, classes: Tensor, keypoints: list[Tensor], response: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Lines 3 and 4 of Algorithm 1: marks the lifted keypoints, and gives the task loss at their anchors, (batch,).

        The task network learns in the same step as the other heads.
        """
        model = self.model.config
        most = math.ceil(self.config.spare * max(1, int(counts.sum(1).max())))
        anchors = anchors_of(keypoints, response, maps.inside, most, model.window, model.apart * model.cells)
        sizes = torch.stack((maps.inside.any(2).sum(1), maps.inside.any(1).sum(1)), 1)
        points = lift_keypoints(self.config, classes, anchors, counts, sizes)
        loss = task_loss(classes, anchors.points, anchors.real, counts)
        return mark_keypoints(points, anchors.labels, response), loss
