"""The lifted training step: Algorithm 1 of MIST (CVPR 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mistnn.errors import MistError
from mistnn.models.mist.network import Mist
from mistnn.nn.mixed_precision import Precision, check_precision, half_precision
from mistnn.nn.schedule import check_rates, cosine_share
from mistnn.nn.task import count_or_presence_loss, relative_reconstruction_loss
from mistnn.ops.coordinates import inside_of
from mistnn.ops.heatmap import ideal_heatmaps
from mistnn.ops.losses import heatmap_loss, lifting_penalty, mass_offset
from mistnn.records import Batch


@dataclass(frozen=True)
class StepConfig:
    """Every choice of Algorithm 1. What the paper leaves open is said at the field.

    Attributes:
        order: the paper writes "task-first" (lines 3, 4, 5); the released code moves the keypoints first, which is the
            default here.
        inner_steps: gradient steps on the keypoints in a batch (not stated; 2 in the released code).
        keypoint_step: step size of the keypoints in pixels^2 on each image's own loss, so that it does not change with
            the batch (not stated; the released code's 1e4 on half the mean over 32 images is 156 here;
            100 scattered the keypoints in our runs, see docs/logbook.md).
        keypoint_reach: longest move of a keypoint in one inner step, in pixels; 0 for no limit (paper;
            a limit keeps a patch from losing its object).
        scale_step: the step of the scale beside that of the position (not stated). A keypoint moves in (x, y, half its
            box's side), all in pixels, with one step size; this factor slows, quickens or, at 0, stops the third.
        penalty: lambda of equation 6 (not stated; the released code has no such term: 0). Each inner step takes 2 x
            keypoint_step x lambda of a keypoint's way from its anchor back, so at most 1 / keypoint_step, and
            1 / (keypoint_step x scale_step).
        confidence: c of the weight exp(-c x task loss) that an image has in the heat-map loss (not in the paper; the
            released code's 5 on half the squared distance is 2.5 here; 0.5 is 5 on its mean over 10 classes). 0
            switches it off.
        reconstruction: beta, the share of equation 8 in the objective: equation 9 + beta x equation 8 per unit of the
            image's own energy. 0 as in the paper; needs a decoder.
        objects_only: with a background class the heat map is taught a keypoint as far as the task network takes it for
            an object: 1 - p(background) stands at its pixel in G (not in the paper, whose G has a 1 at all K, those
            that an image has no object for too).
        spread: standard deviation in pixels of the Gaussian that stands in G in place of each 1 (0, the paper's single
            pixel for its standard architecture; its backbone network has Gaussians). Where an object's exact centre
            can't be told to a pixel, as in photographs, an empty map is the best answer to single pixels.
        task_rate: learning rate of Adam for tau (not stated; 1e-4 in the released code).
        heatmap_rate: learning rate of Adam for eta (not stated; 1e-4 in the released code).
        heatmap_warmup: iterations over which the heat map's rate rises from 0 (not in the paper). As long as the task
            network knows nothing the keypoints don't move, and a heat map taught by its own keypoints can settle on
            empty ground.
        decay: the learning rates fall to this share along half a cosine over ``decay_steps``; 1 for constant rates.
        decay_steps: length of that fall, in iterations.
        precision: of the heat-map network's convolutions; "auto" computes in bfloat16 where that is faster.
    """

    order: Literal["keypoints-first", "task-first"] = "keypoints-first"
    inner_steps: int = 2
    keypoint_step: float = 31.25
    keypoint_reach: float = 3.0
    scale_step: float = 1.0
    penalty: float = 0.0
    confidence: float = 0.5
    reconstruction: float = 0.0
    objects_only: bool = False
    spread: float = 0.0
    task_rate: float = 1e-3
    heatmap_rate: float = 2e-4
    heatmap_warmup: int = 100
    decay: float = 1.0
    decay_steps: int = 0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        """Refuses values that no step can have.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        for name in (
            "inner_steps", "keypoint_step", "keypoint_reach", "scale_step", "penalty", "confidence", "reconstruction",
            "spread", "decay_steps", "heatmap_warmup",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) < math.inf:
                raise MistError(f"step.{name}={getattr(self, name)} must be a finite number of 0 or more")
        check_precision(self.precision)
        check_rates(self.decay, self.decay_steps, task_rate=self.task_rate, heatmap_rate=self.heatmap_rate)
        fastest = self.keypoint_step * max(1.0, self.scale_step)
        if self.penalty * fastest > 1:
            raise MistError(
                f"step.penalty={self.penalty} diverges at step.keypoint_step={self.keypoint_step} and "
                f"step.scale_step={self.scale_step}: give at most {1 / fastest:.3g}"
            )


def off_centre_note(values: Mapping[str, float], box_size: float) -> str | None:
    """A warning if the keypoints have settled beside the objects, from the scalars that a step logs.

    Classification has a second optimum: every keypoint at one constant offset where the object can still be read.

    Args:
        values: logged scalars; the offset is (offset_x, offset_y) in pixels, its spread over patches offset_spread.
        box_size: in pixels.

    Returns:
        One line, if the offset is above a tenth of the box and larger than its spread; otherwise nothing.
    """
    offset = math.hypot(values["offset_x"], values["offset_y"])
    if offset <= 0.1 * box_size or offset <= values["offset_spread"]:
        return None
    return (
        f"the keypoints stand {offset:.1f} px beside the objects, all on one side (x {-values['offset_x']:+.1f}, "
        f"y {-values['offset_y']:+.1f}): the boxes will be off. Try another seed, a window "
        f"(--model.patch-window 0.3) or the joint objective (--model.decoder 16 --step.reconstruction 0.5)"
    )


class LiftedStep:
    """One batch of Algorithm 1: top-K, lift, task, heat map."""

    def __init__(self, model: Mist, config: StepConfig) -> None:
        if config.reconstruction and model.task_network.decoder is None:
            raise MistError(
                f"step.reconstruction={config.reconstruction} needs a decoder: set model.decoder to its width, e.g. 32"
            )
        if not config.reconstruction and not model.class_names:
            raise MistError(
                "model.class_names is empty and step.reconstruction=0: there is nothing to learn; name the classes, or "
                "set step.reconstruction=1 and model.decoder=16"
            )
        if config.objects_only and not model.config.background:
            raise MistError("step.objects_only needs a background class: give --model.background, or leave it off")
        self.model = model.to(memory_format=torch.channels_last)
        self.config = config
        self.scales = len(model.config.scales) > 1  # a single scale stays what it is
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "task": torch.optim.Adam(model.task_network.parameters(), lr=config.task_rate, foreach=True),
            "heatmap": torch.optim.Adam(model.heatmap_network.parameters(), lr=config.heatmap_rate, foreach=True),
        }

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Algorithm 1, lines 3 to 5, for one batch; returns the scalars to log."""
        self._schedule(iteration)
        images = batch.images.contiguous(memory_format=torch.channels_last)
        with half_precision(self.config.precision, images.device):
            heatmaps = self.model.heatmaps(images)  # h = H_eta(I)
        inside = None if batch.sizes is None else inside_of(batch.sizes, *images.shape[-2:])
        anchors = self.model.keypoints(heatmaps, inside=inside).keypoints  # E_K(h), never in padding

        if self.config.order == "keypoints-first":
            keypoints = self.lift(batch, images, anchors)  # line 4
            losses = self.train_task(batch, images, keypoints)  # line 3
        else:
            losses = self.train_task(batch, images, anchors)  # line 3
            keypoints = self.lift(batch, images, anchors)  # line 4
        presence = self.model.presence(images, keypoints) if self.config.objects_only else None
        heat = self.train_heatmap(heatmaps, keypoints, losses["task"], presence)  # line 5

        with torch.no_grad():
            moved = (keypoints - anchors)[..., :2].norm(dim=-1).mean()
            extents = self.model.config.patch_extent * keypoints[..., 2:]
            offsets = (mass_offset(self.model.cut(images, keypoints)) * extents).flatten(0, 1)
            offset, spread = offsets.mean(0), offsets.std(0, correction=0).norm()
        logged = {name: value.detach().mean() for name, value in losses.items()}
        return {
            **logged,
            "heatmap": heat,
            "moved": moved,
            "offset_x": offset[0],
            "offset_y": offset[1],
            "offset_spread": spread,
            **(
                {"scale": keypoints[..., 2].mean(), "scale_spread": keypoints[..., 2].std(correction=0)}
                if self.scales
                else {}
            ),
        }

    def lift(self, batch: Batch, images: Tensor, anchors: Tensor) -> Tensor:
        """Line 4: gradient steps on the keypoints, each image on its own loss (equation 6).

        The steps are taken in (x, y, half the box's side), all three in pixels.
        """
        pixels = anchors.new_tensor((1.0, 1.0, self.model.config.box_size / 2))
        rate = self.config.keypoint_step * anchors.new_tensor((1.0, 1.0, self.config.scale_step if self.scales else 0))
        anchors = anchors * pixels
        place = anchors
        for _ in range(self.config.inner_steps):
            place = place.detach().requires_grad_()
            loss = self.objective(batch, images, place / pixels)["task"]
            if self.config.penalty:
                loss = loss + self.config.penalty * lifting_penalty(place, anchors)
            # Only the keypoints' gradient: the task network's weights are not differentiated here.
            (gradient,) = torch.autograd.grad(loss.sum(), place)
            move = rate * gradient
            if self.config.keypoint_reach:
                length = move.norm(dim=-1, keepdim=True).clamp(min=1e-12)
                move = move * (self.config.keypoint_reach / length).clamp(max=1)
            place = self.inside(place.detach() - move, batch, pixels)
        return place / pixels

    def inside(self, place: Tensor, batch: Batch, pixels: Tensor) -> Tensor:
        """Keypoints in pixels, kept inside the image and between the smallest and the largest scale."""
        height, width = batch.images.shape[-2:]
        scales = self.model.config.scales
        low = place.new_tensor((0.0, 0.0, scales[0])) * pixels
        high = place.new_tensor((width, height, scales[-1])) * pixels
        if batch.sizes is not None:
            ends = batch.sizes.flip(1).to(place)
            high = torch.cat((ends, high[2].expand(len(ends), 1)), dim=1).unsqueeze(1)
        return place.clamp(low, high)

    def train_task(self, batch: Batch, images: Tensor, keypoints: Tensor) -> dict[str, Tensor]:
        """Line 3: one step on tau; the penalty does not depend on tau. Returns the losses of each image."""
        losses = self.objective(batch, images, keypoints.detach())
        self._descend("task", losses["task"].mean())
        return losses

    def train_heatmap(
        self, heatmaps: Tensor, keypoints: Tensor, task_loss: Tensor, presence: Tensor | None = None
    ) -> Tensor:
        """Line 5: one step on eta towards G of the optimised keypoints (equation 7)."""
        scales, size, spread = self.model.config.scales, heatmaps.shape[-2:], self.config.spread
        ideal = ideal_heatmaps(keypoints, scales, *size, presence=presence, spread=spread)
        weight = (-self.config.confidence * task_loss.detach()).exp()
        loss = heatmap_loss(heatmaps, ideal)
        self._descend("heatmap", (weight * loss).mean())
        return loss.detach().mean()

    def objective(self, batch: Batch, images: Tensor, keypoints: Tensor) -> dict[str, Tensor]:
        """L_task of each image and its terms: equation 9, and beta times equation 8 where it is switched on.

        Where only the classes present are known, ``presence_loss`` takes the place of equation 9.
        """
        task = self.model.task_network(self.model.cut(images, keypoints), decode=self.config.reconstruction > 0)
        terms: dict[str, Tensor] = {}
        total = images.new_zeros(len(images))
        if task.logits is not None:
            terms["classification"] = count_or_presence_loss(
                task.logits, batch.counts, batch.presence, self.model.config.background
            )
            total = total + terms["classification"]
        if task.decoded is not None:
            rebuilt = self.model.rebuild(task.decoded, keypoints, images)
            terms["reconstruction"] = relative_reconstruction_loss(images, rebuilt)
            total = total + self.config.reconstruction * terms["reconstruction"]
        return {"task": total, **terms}

    def _descend(self, name: str, loss: Tensor) -> None:
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def _schedule(self, iteration: int) -> None:
        config = self.config
        share = cosine_share(iteration, config.decay, config.decay_steps)
        warmth = min(1.0, (iteration + 1) / max(1, config.heatmap_warmup))
        rates = {"task": config.task_rate * share, "heatmap": config.heatmap_rate * share * warmth}
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rates[name]
