"""Figures of SPAIR: its objects, and its errors by the number of digits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch

from mistnn.data import Scatter
from mistnn.devices import device_of
from mistnn.errors import MistError
from mistnn.experiments import restore
from mistnn.inference.judged import OVERLAP
from mistnn.models.spair import Spair
from mistnn.ops.matching import UNMATCHED, box_iou, greedy_match
from mistnn.records import Sample
from mistnn.reproduce.figures.source import Request, images_of
from mistnn.reproduce.spair_transfer import MEASURED, transfer_curve
from mistnn.viz import Curve, DrawnObjects, draw_curves, draw_objects
from mistnn.weights import read_config

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES = 4  #: Images in the figure of objects (our choice).


def figure_objects(request: Request) -> Figure:
    """Test images of a run of SPAIR: input, boxes numbered by depth, reconstruction, and each object by itself.

    A box is right if its IoU with the box around a digit's ink is above one half, one to one, best pairs first.
    """
    model = request.needed("spair-objects needs a run of SPAIR: train spair-5, and give --model RUN")
    problem = f"spair-objects shows what SPAIR drew, and {model} is another system: give a run of spair-5"
    if read_config(model).kind != "spair":
        raise MistError(problem)
    images = Scatter(images_of(model, ("scatter",), problem, request), "test", EXAMPLES)
    network = cast(Spair, request.load(model))
    samples = [images[index]._replace(boxes=images.inked(index)) for index in range(EXAMPLES)]
    return draw_objects([drawn_objects(network, sample) for sample in samples])


@torch.no_grad()
def drawn_objects(network: Spair, sample: Sample) -> DrawnObjects:
    """The objects that are present in one image with known boxes, the nearest first. The network is in eval mode."""
    assert sample.boxes is not None
    drawn = network(sample.image[None].to(device_of(network)))
    z = drawn.latents
    present = (z.presence_logits[0] > 0).nonzero().squeeze(1)
    order = present[z.depth.sample[0, present, 0].argsort(stable=True)]
    boxes, truth = z.boxes[0, order].cpu(), sample.boxes
    match = greedy_match(box_iou(boxes, truth), OVERLAP)
    missed = torch.ones(len(truth), dtype=torch.bool)
    missed[match[match != UNMATCHED]] = False
    objects = drawn.appearance[0, order] * drawn.alpha[0, order]
    return DrawnObjects(sample.image, drawn.rebuilt[0].cpu(), boxes, match != UNMATCHED, truth[missed], objects.cpu())


def figure_transfer(request: Request) -> Figure:
    """Count error and AP of a run on images of 1 to 20 digits.

    Reference: SPAIR (AAAI 2019), section 5.2.
    """
    model = request.needed("spair-transfer needs a run of SPAIR: train spair-transfer-15, and give --model RUN")
    curve = transfer_curve(model, request.root, seed=request.seed, device=request.device)
    data: Any = restore(model).data
    return draw_transfer(curve, (min(data.counts), max(data.counts)))


def draw_transfer(curve: Mapping[str, float], trained: tuple[int, int]) -> Figure:
    """Count error and AP at an IoU of .5 over the number of digits; the range of the training images is shaded.

    Args:
        curve: of ``transfer_curve``.
        trained: fewest and most digits of a training image before cropping.
    """
    numbers = [int(name.rpartition("_")[2]) for name in curve if name.startswith("count_error_")]
    shaded = (trained[0] - 0.5, trained[1] + 0.5)
    axis = "digits (shaded: in training images)"
    errors, precision = ([curve[f"{name}_{number}"] for number in numbers] for name in MEASURED)
    plots = {
        "Count error": Curve(numbers, errors, scale="amount", unit="objects", axis=axis, shaded=shaded),
        "AP at IoU .5": Curve(numbers, precision, scale="fraction", axis=axis, shaded=shaded),
    }
    return draw_curves(plots, columns=2)
