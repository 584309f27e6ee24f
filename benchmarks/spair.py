"""A training step of SPAIR in waves, against the plain way: cell by cell, each object on its own canvas.

    python -m benchmarks.spair [--json FILE] [--threads N] [--repeats N] [--batch 32] [--width 128] [--canvas 48 84]
                               [--clock wall|cpu]
                               [--boxes start digits]

Contract:
    * Forward and backward of the objective and one step of Adam, in float32, after the training wheels, at the paper's
      size unless ``--width`` differs, on the same random images: 4 x 4 cells at 48 x 48, 7 x 7 at 84 x 84.
    * The plain way visits the cells in reading order, decodes and draws their objects one by one on the whole image,
      and visits them again for equations B1 and B2. Its backbone and cells are the code of version 0.1, in float32; the
      optimiser is the same.
    * "waves": the package's step in float32. "waves, auto": with backbone, object encoder and object decoder in
      bfloat16 where the hardware has it, as the presets train. ``ratio`` and ``ratio_auto`` are the medians over the
      rounds of plain by each of them.
    * "waves, preset": the package's step with the ``PRESET``'s narrower backbone, in float32. ``ratio_preset`` is the
      median of plain at the paper's size by it; ``benchmarks.spair_width`` compares what the two widths find.
    * As in training, the process keeps freed memory (``keep_freed_memory``).
    * Where nothing is sampled (eval mode) both ways give the same terms of the loss: checked before the timing.
    * Boxes: "start", as of an untrained network, half the base box on average; "digits", 14 pixels. The cost of the
      plain renderer does not depend on them, that of the windows does. "backbone" is the time of both there.
"""

import math
import statistics
import time

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measuring import CLOCKS, Clock, Options, alternate, milliseconds, print_and_write
from benchmarks.render import draw_on_canvases
from mistnn.models.spair import Spair, SpairConfig, SpairStep, SpairStepConfig
from mistnn.models.spair.cells import LARGEST_LOGIT, WHERE, Cells, Latents, last_bias
from mistnn.models.spair.step import cross_entropy
from mistnn.nn.latents import joined
from mistnn.nn.mixed_precision import Precision
from mistnn.ops.priors import count_log_prior, sample_concrete
from mistnn.ops.sampling import extract_patches
from mistnn.presets import find_preset
from mistnn.records import Batch
from mistnn.training.memory import keep_freed_memory

DIGIT = 14.0
"""Side of a digit in the paper's scenes, in pixels."""
PRESET = "spair-5"
S = 0.9
"""Parameter of the prior; it does not change the time."""


def infer_before(
    cells: Cells, images: Tensor, features: Tensor, context: Tensor, index: Tensor, columns: int
) -> tuple[Latents, Tensor]:
    """The latents of some cells as version 0.1 computed them: the plain way stays as it was."""
    config, extra = cells.config, cells.config.features
    seen = torch.cat((features, context), dim=-1)
    box, passed = cells.box_network(seen).split((2 * WHERE, extra), dim=-1)
    where = cells.normal(box)
    squashed = where.sample.sigmoid()
    low, high = config.bounds
    places, sides = low + (high - low) * squashed[..., :2], squashed[..., 2:]
    corner = torch.stack((index % columns, index // columns), dim=-1).to(places.dtype)
    boxes = torch.cat(((places + corner) * config.cell, sides * config.base_box), dim=-1)
    shown_box = torch.cat((places, sides), dim=-1)
    what = cells.normal(cells.object_encoder(extract_patches(images, boxes, config.object_size).flatten(2)))
    seen = torch.cat((seen, shown_box, what.sample), dim=-1)
    depth, passed = cells.depth_network(torch.cat((seen, passed), dim=-1)).split((2, extra), dim=-1)
    depth = cells.normal(depth)
    logits = cells.presence_network(torch.cat((seen, passed, depth.sample), dim=-1)).squeeze(-1)
    logits = logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
    presence = (logits > 0).to(logits.dtype)
    if cells.training:
        presence = sample_concrete(logits, config.temperature).sigmoid()
    element = torch.cat((shown_box, what.sample, depth.sample, presence.unsqueeze(-1)), dim=-1)
    return Latents(where, what, depth, presence, logits, boxes), element


def backbone_before(model: Spair, images: Tensor) -> Tensor:
    """The features of the cells as version 0.1 computed them, in float32."""
    layers = model.backbone.layers
    first = layers[:2](images).contiguous(memory_format=torch.channels_last)
    return layers[2:](first).flatten(2).transpose(1, 2)


def cell_by_cell(model: Spair, images: Tensor) -> Latents:
    """The latents, one cell after the other in reading order."""
    cells, reach = model.cells, model.config.look_back
    rows, columns = model.config.grid(images.shape[-2], images.shape[-1])
    features = backbone_before(model, images)
    raw = cells.edge
    edge = torch.cat((raw[:WHERE].sigmoid(), raw[WHERE:-1], raw[-1:].sigmoid())).expand(len(images), 1, -1)
    elements: dict[tuple[int, int], Tensor] = {}
    parts = []
    for row in range(rows):
        for column in range(columns):
            near = [
                elements.get((row + down, column + across), edge)
                for down in range(-reach, 1)
                for across in range(-reach, reach + 1)
                if (down, across) < (0, 0)
            ]
            context = torch.cat(near, dim=2) if near else edge[..., :0]
            index = torch.tensor([row * columns + column])
            latents, elements[row, column] = infer_before(cells, images, features[:, index], context, index, columns)
            parts.append(latents)

    return joined(parts)


def draw_each(model: Spair, z: Latents, background: Tensor) -> Tensor:
    """Algorithm 1 with fading borders; each object is decoded by itself and drawn on its own canvas."""
    objects = range(z.boxes.shape[1])
    decoded = [model.decode(z.what.sample[:, k : k + 1]) for k in objects]
    maps = []
    for k, (colour, alpha) in zip(objects, decoded, strict=True):
        alpha = alpha[:, 0] * z.presence[:, k, None, None, None]
        importance = alpha * torch.sigmoid(-z.depth.sample[:, k, :, None, None])
        maps.append(torch.cat((colour[:, 0], alpha, importance), dim=1))
    return draw_on_canvases(maps, z.boxes, background, fade=True)


def walked_kl(logits: Tensor, present: Tensor, s: float) -> Tensor:
    """Equations B1 and B2 cell by cell, with p(C = c | previous cells) of each image."""
    cells = logits.shape[1]
    numbers = torch.arange(cells + 1.0)
    prior = count_log_prior(cells, s).exp().float().expand(len(logits), -1)
    ones, total = torch.zeros(len(logits), 1), 0.0
    for k in range(cells):
        on = ((numbers - ones) / (cells - k)).clamp(0, 1)
        p = (on * prior).sum(1).clamp(1e-6, 1 - 1e-6)
        beta = logits[:, k].sigmoid()
        total = total + beta * (F.logsigmoid(logits[:, k]) - p.log())
        total = total + (1 - beta) * (F.logsigmoid(-logits[:, k]) - (1 - p).log())
        there = (present[:, k, None] > 0.5).float()
        prior = prior * torch.where(there > 0, on, 1 - on)
        prior = prior / prior.sum(1, keepdim=True).clamp(min=1e-6)
        ones = ones + there
    assert isinstance(total, Tensor)
    return total


def plain_terms(step: SpairStep, images: Tensor) -> dict[str, Tensor]:
    """The terms of the loss, computed the plain way."""
    model = step.model
    z = cell_by_cell(model, images)
    rebuilt = draw_each(model, z, model.background_of(images))
    terms = step.divergences(z, S) | {"kl_presence": walked_kl(z.presence_logits, z.presence, S)}
    return {"reconstruction": cross_entropy(rebuilt, images, step.config.floor), **terms}


def make_step(width: int, digits: bool, precision: Precision = "float32") -> SpairStep:
    torch.manual_seed(0)
    model = Spair(SpairConfig(width=width))
    if digits:
        share = DIGIT / model.config.base_box
        with torch.no_grad():
            last = model.cells.box_network[-1]
            last.weight[2 : 2 * WHERE].zero_()
            last_bias(model.cells.box_network)[2:WHERE] = math.log(share / (1 - share))
            last_bias(model.cells.box_network)[WHERE + 2 : 2 * WHERE] = -10.0
    return SpairStep(model, SpairStepConfig(rate=1e-6, wheels=0, gradient_noise=0.0, s=S, precision=precision))


def preset_width() -> int:
    """Channels of the backbone of the preset."""
    model = find_preset(PRESET).experiment.model
    assert isinstance(model, SpairConfig)
    return model.width


def measure(
    canvas: int, digits: bool, width: int, batch: int, repeats: int, clock: Clock = time.perf_counter
) -> dict[str, float]:
    """Both ways at one size of canvas and one kind of boxes."""
    images = torch.rand(batch, 1, canvas, canvas, generator=torch.Generator().manual_seed(1))
    step = make_step(width, digits)
    check(step, images[:4])

    fast = make_step(width, digits, "auto")
    narrow = make_step(preset_width(), digits)
    ways = {
        "plain": lambda _: step.descend(torch.stack(list(plain_terms(step, images).values())).sum(0).mean(), 0),
        "waves": lambda _: step(Batch(images), 0),
        "waves_auto": lambda _: fast(Batch(images), 0),
        "waves_preset": lambda _: narrow(Batch(images), 0),
        "backbone": lambda _: step.model.backbone(images).sum().backward(),
    }
    seconds = alternate(ways, repeats, clock=clock)
    ratios = {
        name: statistics.median(before / own for before, own in zip(seconds["plain"], seconds[way], strict=True))
        for name, way in (("ratio", "waves"), ("ratio_auto", "waves_auto"), ("ratio_preset", "waves_preset"))
    }
    return ratios | milliseconds(seconds)


def check(step: SpairStep, images: Tensor) -> None:
    """Checks that both ways give the same terms where nothing is sampled."""
    step.model.eval()
    with torch.no_grad():
        # Some objects on, some off, and none so near to 0 that rounding decides.
        logits = step.model.infer(images).presence_logits.flatten().sort().values
        widest = 1 + int(logits.diff()[len(logits) // 4 : -len(logits) // 4].argmax()) + len(logits) // 4
        last_bias(step.model.cells.presence_network).sub_(logits[widest - 1 : widest + 1].mean())
        plain, drawn = plain_terms(step, images), step.model(images)
        reconstruction = cross_entropy(drawn.rebuilt, images, step.config.floor)
        waves = {"reconstruction": reconstruction, **step.divergences(drawn.latents, S)}
    for name, value in waves.items():
        torch.testing.assert_close(plain[name], value, atol=1e-2, rtol=1e-3, msg=f"{name} differs between the two ways")
    step.model.train()


def main() -> None:
    options = Options(__doc__)
    options.size("canvas", (48, 84), (24,), "sides of the images in pixels")
    options.size("batch", 32, 2, "images per step")
    options.size("repeats", 7, 1, "measured rounds")
    options.size("width", SpairConfig().width, 4, "channels of the backbone")
    options.clock()
    options.add_argument("--boxes", nargs="+", choices=("start", "digits"), default=("start", "digits"))
    given = options.parse()
    keep_freed_memory()
    result = {
        str(canvas): {
            name: measure(canvas, name == "digits", given.width, given.batch, given.repeats, CLOCKS[given.clock])
            for name in given.boxes
        }
        for canvas in given.canvas
    }
    print_and_write(result, given, "batch", "repeats", "threads", "width", "clock")


if __name__ == "__main__":
    main()
