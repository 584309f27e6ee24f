"""AIR: attend, infer, repeat (Eslami et al., NeurIPS 2016), with a relaxed z_pres, and DAIR."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.models.air.config import AirConfig
from mistnn.nn.dense import dense_network
from mistnn.nn.finder import Finder
from mistnn.nn.latents import Normal, joined, normal
from mistnn.ops.priors import sample_concrete
from mistnn.ops.sampling import extract_patches, place_patches
from mistnn.records import Detections, Explanation

LARGEST_LOGIT = 10.0
"""z_where and z_pres are clamped to plus and minus this before squashing. Not stated; value of SPAIR's code."""


class AirOutput(NamedTuple):
    """The objects of each image, one per step, and the reconstruction.

    Attributes:
        where: z_where before squashing: shares of the image's sides (one or two), then x and y.
        what: z_what.
        logits: log odds of z_pres, (batch, steps).
        y: the sample of z_pres before its sigmoid; in eval mode the logits.
        looked: whether the step was made, (batch, steps): inference had not stopped before it.
        alive: whether its object counts, (batch, steps).
        presence: z_pres of the objects that count, 0 for the others, (batch, steps).
        boxes: (batch, steps, 4), in pixels.
        objects: the decoded objects, (batch, steps, channels, window, window).
        rebuilt: the reconstruction, (batch, channels, height, width), in [0, 1].
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
    """An LSTM with the same image as input at every step: the image's contribution to the gates is computed once.

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


class Air(Finder):
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
    def reconstructs(self) -> bool:
        """Always."""
        return True

    @property
    def counts_itself(self) -> bool:
        """Whether the number of objects is inferred."""
        return not self.config.given

    @property
    def needs_counts(self) -> bool:
        """Whether the number of objects is an input."""
        return self.config.given

    def most(self, height: int, width: int) -> int:
        """The number of steps."""
        return self.config.k

    def refusal(self, height: int, width: int) -> str | None:
        """See ``Finder.refusal``: the network takes images of one size."""
        canvas = self.config.canvas
        if height == width == canvas:
            return None
        return f"has {width} x {height} pixels, and this model only takes {canvas} x {canvas}: crop or resize it"

    def forward(self, images: Tensor, counts: Tensor | None = None) -> AirOutput:
        """Infers the objects of each image.

        Args:
            images: (batch, channels, canvas, canvas), in [0, 1].
            counts: (batch,), the number of objects of each image, if it is given.

        Raises:
            MistError: if the images have another size, or the counts are missing or exceed the number of steps.
        """
        self._check(images, counts)
        batch, steps = len(images), self.config.k
        stopped = images.new_zeros(batch, 1)
        if self.lstm is not None:
            # No step depends on the objects of another, so everything after the LSTM is computed for all steps at once.
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
        # The reconstruction is not joined: that of the last step is the whole.
        return joined([part._replace(rebuilt=part.logits) for part in parts])._replace(rebuilt=drawn)

    @torch.no_grad()
    def explain(self, images: Tensor, k: int | Tensor | None = None) -> Explanation:
        """See ``Finder.explain``: the objects in the order of the steps. An inferred number is cut to ``k``."""
        given = self.config.given
        counts = self.counts_for(images, k)
        output = self(images, torch.tensor(counts, dtype=torch.long, device=images.device) if given else None)
        scores = torch.ones_like(output.logits) if given else output.logits.sigmoid()
        found = []
        for index, count in enumerate(counts):
            there = (output.presence[index] > 0).nonzero()[:count, 0]
            found.append(Detections(output.boxes[index, there], scores[index, there]))
        return Explanation(found, output.rebuilt)

    def _look(
        self, images: Tensor, seen: Tensor, drawn: Tensor, stopped: Tensor, counts: Tensor | None, first: int
    ) -> AirOutput:
        """Some steps of the head's output, (batch, some, ...), continued from what was drawn and stopped before."""
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
        # The sum of overlapping objects can exceed 1, so it is clamped.
        rebuilt = drawn + place_patches(layers, boxes, config.canvas, config.canvas)
        return AirOutput(where, what, logits, y, looked, alive, presence, boxes, objects, rebuilt.clamp(0, 1))

    def _boxes(self, where: Tensor) -> Tensor:
        """z_where to boxes in pixels: a sigmoid gives the sides as shares of the image's, tanh the centre."""
        sides, centre = where.clamp(-LARGEST_LOGIT, LARGEST_LOGIT).split((self.config.sides, 2), dim=-1)
        shares = sides.sigmoid().expand(*sides.shape[:-1], 2)
        return self.config.canvas * torch.cat(((centre.tanh() + 1) / 2, shares), dim=-1)

    def _normal(self, parameters: Tensor) -> Normal:
        """Mean and log variance to normal variables; in eval mode the sample is the mean."""
        mean, log_variance = parameters.chunk(2, dim=-1)
        return normal(mean, (log_variance / 2).exp(), self.training)

    def _check(self, images: Tensor, counts: Tensor | None) -> None:
        config = self.config
        shape = (config.channels, config.canvas, config.canvas)
        if tuple(images.shape[1:]) != shape:
            raise MistError(
                f"this model takes images of {config.canvas} x {config.canvas} pixels and {config.channels} channels, "
                f"got {tuple(images.shape[1:])}: crop or resize them, or train with --model.canvas"
            )
        if config.given and counts is None:
            raise MistError("this model needs the number of objects of each image: give K, or images with counts")
        if counts is None or not len(images):
            return
        fits = counts.shape == (len(images),) and not counts.is_floating_point()
        least, most = torch.stack(counts.aminmax()).tolist() if fits else (-1, -1)
        if least < 0:
            wanted = f"one whole number of 0 or more for each of the {len(images)} images"
            raise MistError(f"counts must be {wanted}, got {counts.tolist()}")
        if most > config.k:
            limit = f"this model finds at most model.k={config.k}"
            raise MistError(f"an image holds {most} objects, and {limit}: use a model with more steps")
