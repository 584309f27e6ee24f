"""AIR: attend, infer, repeat (Eslami et al., NeurIPS 2016), with a relaxed z_pres, and DAIR."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.models.air.config import AirConfig
from mistnn.nn.dense import dense_network
from mistnn.ops.priors import sample_concrete
from mistnn.ops.sampling import extract_patches, place_patches
from mistnn.records import Detections, Explanation

LARGEST_LOGIT = 10.0
"""z_where and z_pres stay within it on both sides before they are squashed. Not stated; value of SPAIR's code."""


class Normal(NamedTuple):
    """Independent normal variables and one sample of each: (batch, steps, d)."""

    mean: Tensor
    deviation: Tensor
    sample: Tensor


class AirOutput(NamedTuple):
    """Images as AIR explains them, an object a step.

    Attributes:
        where: z_where before it is squashed: the shares of the image's sides (one or two), then x and y.
        what: z_what.
        logits: log odds of z_pres, (batch, steps).
        y: z_pres before its sigmoid, as sampled; in eval mode the logits.
        looked: whether the step was still made, (batch, steps): no object was missing before.
        alive: whether its object counts.
        presence: z_pres of the objects that count, 0 of the others.
        boxes: (batch, steps, 4), in pixels.
        objects: (batch, steps, channels, window, window), as decoded.
        rebuilt: (batch, channels, height, width), in [0, 1].
    """

    where: Normal
    what: Normal
    logits: Tensor
    y: Tensor
    looked: Tensor
    alive: Tensor
    presence: Tensor
    boxes: Tensor
    objects: Tensor
    rebuilt: Tensor


class Lstm(nn.Module):
    """An LSTM that sees the same image at every step, so that the image's part of its gates is computed once.

    Convention: gates in the order input, forget, cell, output; the forget gate's bias starts at 1.
    """

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.image = nn.Linear(inputs, 4 * units)
        self.state = nn.Linear(units, 4 * units, bias=False)
        nn.init.xavier_uniform_(self.image.weight)
        nn.init.xavier_uniform_(self.state.weight)
        nn.init.zeros_(self.image.bias)
        with torch.no_grad():
            self.image.bias[units : 2 * units] = 1.0

    def forward(self, pixels: Tensor, steps: int) -> Tensor:
        """(batch, inputs) to the outputs of all steps, (batch, steps, units)."""
        seen = self.image(pixels).float()
        output = seen.new_zeros(len(seen), self.state.in_features)
        cell, outputs = output, []
        for _ in range(steps):
            write, forget, new, read = (seen + self.state(output).float()).chunk(4, dim=1)
            cell = forget.sigmoid() * cell + write.sigmoid() * new.tanh()
            output = read.sigmoid() * cell.tanh()
            outputs.append(output)
        return torch.stack(outputs, dim=1)


class Air(nn.Module):
    """Recurrent network, head, object encoder and decoder."""

    def __init__(self, config: AirConfig) -> None:
        super().__init__()
        self.config = config
        pixels, window = config.channels * config.canvas**2, config.channels * config.window**2
        self.lstm = Lstm(pixels, config.units) if config.recurrence == "lstm" else None
        self.looker = None if self.lstm is not None else dense_network(pixels, config.hidden, config.units)
        self.head = dense_network(config.units, config.head, 2 * (config.sides + 2) + 1)
        self.object_encoder = dense_network(window, config.encoder, 2 * config.attributes, nn.Softplus)
        self.object_decoder = dense_network(config.attributes, config.decoder, window, nn.Softplus)

    @property
    def class_names(self) -> tuple[str, ...]:
        """None: nothing is named."""
        return self.config.class_names

    @property
    def reconstructs(self) -> bool:
        """Always."""
        return True

    @property
    def counts_itself(self) -> bool:
        """Whether the number of objects is inferred."""
        return not self.config.given

    def most(self, height: int, width: int) -> int:
        """As many objects as steps."""
        return self.config.k

    def refusal(self, height: int, width: int) -> str | None:
        """Why an image of this size can't be seen: the network has one size."""
        canvas = self.config.canvas
        if height == width == canvas:
            return None
        return f"has {width} x {height} pixels, and this model sees {canvas} x {canvas} only: crop or resize it"

    def forward(self, images: Tensor, counts: Tensor | None = None) -> AirOutput:
        """(batch, channels, canvas, canvas) to objects and the images redrawn.

        Args:
            images: of the size of the configuration.
            counts: (batch,), the number of objects of each image, where it is to be given.

        Raises:
            MistError: if the images have another size, or the counts are missing or more than there are steps.
        """
        self._check(images, counts)
        batch, steps = len(images), self.config.k
        stopped = images.new_zeros(batch, 1)
        if self.lstm is not None:
            # No step sees what another one found, so all that follows the LSTM is done for all steps at once.
            seen = self.head(self.lstm(images.flatten(1), steps))
            return self._look(images, seen, torch.zeros_like(images), stopped, counts, 0)
        assert self.looker is not None
        drawn = torch.zeros_like(images)
        parts: list[AirOutput] = []
        for step in range(steps):
            seen = self.head(self.looker((images - drawn).flatten(1))).unsqueeze(1)
            part = self._look(images, seen, drawn, stopped, counts, step)
            drawn, stopped = part.rebuilt, stopped + (1 - part.presence)
            parts.append(part)
        return _joined(parts)

    @torch.no_grad()
    def detect(self, images: Tensor, counts: Tensor | None = None) -> Explanation:
        """The objects of each image, in the order in which they were found; as many as are given, or inferred."""
        output = self(images, counts if self.config.given else None)
        found = []
        for index in range(len(images)):
            there = output.presence[index] > 0
            scores = torch.ones_like(output.logits) if self.config.given else output.logits.sigmoid()
            found.append(Detections(output.boxes[index, there], scores[index, there]))
        return Explanation(found, output.rebuilt)

    def explain(self, images: Tensor, k: int) -> Explanation:
        """K objects of each image where their number is to be given; else those inferred, the K first at most."""
        if self.config.given:
            return self.detect(images, torch.full((len(images),), k, device=images.device))
        found = self.detect(images)
        first = [Detections(one.boxes[:k], one.scores[:k]) for one in found.detections]
        return Explanation(first, found.reconstruction)

    def _look(
        self, images: Tensor, seen: Tensor, drawn: Tensor, stopped: Tensor, counts: Tensor | None, first: int
    ) -> AirOutput:
        """Some steps of the head's output, (batch, some, ...), on top of what is drawn and stopped before them."""
        config, noisy = self.config, self.training
        places, seen_logits = seen.float().split((2 * (config.sides + 2), 1), dim=-1)
        where = self._normal(places)
        boxes = self._boxes(where.sample)
        glimpses = extract_patches(images, boxes, config.window).flatten(2)
        what = self._normal(self.object_encoder(glimpses).float())
        decoded = self.object_decoder(what.sample).float()
        if noisy and config.noise:
            decoded = decoded + config.noise * torch.randn_like(decoded)
        objects = decoded.sigmoid().unflatten(2, (config.channels, config.window, config.window))
        logits = seen_logits.squeeze(-1).clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
        y = sample_concrete(logits, config.temperature) if noisy else logits
        presence = y.sigmoid() if noisy else (logits > 0).to(y.dtype)
        if counts is not None:
            steps = torch.arange(first, first + seen.shape[1], device=counts.device)
            presence = (steps < counts[:, None]).to(y.dtype)
        ended = stopped + (1 - presence).cumsum(1)
        looked, alive = ended - (1 - presence) < config.threshold, ended < config.threshold
        presence = presence * alive
        layers = objects * presence[..., None, None, None]
        # Summed, then cut to [0, 1]: where objects overlap, more than 1 is drawn.
        rebuilt = drawn + place_patches(layers, boxes, config.canvas, config.canvas)
        return AirOutput(where, what, logits, y, looked, alive, presence, boxes, objects, rebuilt.clamp(0, 1))

    def _boxes(self, where: Tensor) -> Tensor:
        """z_where to boxes in pixels: sides as a share of the image's by a sigmoid, the centre by tanh."""
        sides, centre = where.clamp(-LARGEST_LOGIT, LARGEST_LOGIT).split((self.config.sides, 2), dim=-1)
        shares = sides.sigmoid().expand(*sides.shape[:-1], 2)
        return self.config.canvas * torch.cat(((centre.tanh() + 1) / 2, shares), dim=-1)

    def _normal(self, parameters: Tensor) -> Normal:
        """Mean and log variance to variables and a sample; in eval mode the mean is the sample."""
        mean, log_variance = parameters.chunk(2, dim=-1)
        deviation = (log_variance / 2).exp()
        return Normal(mean, deviation, mean + deviation * torch.randn_like(mean) if self.training else mean)

    def _check(self, images: Tensor, counts: Tensor | None) -> None:
        config = self.config
        shape = (config.channels, config.canvas, config.canvas)
        if tuple(images.shape[1:]) != shape:
            raise MistError(
                f"this model was made for images of {config.canvas} x {config.canvas} pixels and {config.channels} "
                f"channels, and got {tuple(images.shape[1:])}: crop or resize them, or train with --model.canvas"
            )
        if config.given and counts is None:
            raise MistError("this model must be told how many objects an image holds: give K, or images with counts")
        if counts is None or not len(images):
            return
        fits = counts.shape == (len(images),) and not counts.is_floating_point()
        least, most = torch.stack(counts.aminmax()).tolist() if fits else (-1, -1)
        if least < 0:
            raise MistError(
                f"counts must be one whole number of 0 or more for each of the {len(images)} images, got "
                f"{counts.tolist()}"
            )
        if most > config.k:
            raise MistError(
                f"an image holds {most} objects, and this model makes model.k={config.k} steps, "
                "one an object: give a model of more steps"
            )


def _joined(parts: list[AirOutput]) -> AirOutput:
    """Single steps, one after the other; the picture is that of the last."""

    def join(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts], dim=1)

    def joined(normals: list[Normal]) -> Normal:
        return Normal(*(torch.cat(list(group), dim=1) for group in zip(*normals, strict=True)))

    names = ("logits", "y", "looked", "alive", "presence", "boxes", "objects")
    where, what = joined([part.where for part in parts]), joined([part.what for part in parts])
    return AirOutput(where, what, *(join(name) for name in names), rebuilt=parts[-1].rebuilt)
