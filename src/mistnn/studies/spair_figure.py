"""The figure of SPAIR's objects."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mistnn.data import Scatter, ScatterConfig
from mistnn.errors import MistError
from mistnn.models.spair import Spair
from mistnn.ops.matching import UNMATCHED, box_iou, greedy_match
from mistnn.presets import open_data, restore
from mistnn.records import Sample
from mistnn.studies.discovery import OVERLAP
from mistnn.viz import DrawnObjects, draw_objects
from mistnn.weights import load_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES = 4
"""Images in the figure (our choice)."""


def figure_objects(model: str | Path | None = None, seed: int | None = None, root: str | None = None) -> Figure:
    """Test images of a run of SPAIR: input, boxes numbered by depth, what it drew, and each object by itself.

    A box is right at an IoU above one half with the box around the ink of a digit of its own, best pairs first.

    Raises:
        MistError: if no run of SPAIR is given: no such weights ship with the package.
    """
    if model is None:
        raise MistError("spair-objects needs a run of SPAIR: train spair-5, and give --model RUN")
    data, network = restore(model).data, load_model(model)
    if not isinstance(network, Spair) or not isinstance(data, ScatterConfig):
        raise MistError(f"spair-objects shows what SPAIR drew, and {model} is another system: give a run of spair-5")
    data = dataclasses.replace(data, root=data.root if root is None else root, seed=data.seed if seed is None else seed)
    images = open_data(data, "test", EXAMPLES)
    assert isinstance(images, Scatter)
    samples = [images[index]._replace(boxes=images.inked(index)) for index in range(EXAMPLES)]
    return draw_objects([drawn_objects(network, sample) for sample in samples])


@torch.no_grad()
def drawn_objects(network: Spair, sample: Sample) -> DrawnObjects:
    """The objects that are present in one image, the nearest first.

    Args:
        network: in eval mode.
        sample: with its true boxes.
    """
    assert sample.boxes is not None
    drawn = network(sample.image[None])
    z = drawn.latents
    there = (z.presence_logits[0] > 0).nonzero().squeeze(1)
    order = there[z.depth.sample[0, there, 0].argsort(stable=True)]
    boxes, truth = z.boxes[0, order], sample.boxes
    match = greedy_match(box_iou(boxes, truth), OVERLAP)
    missed = torch.ones(len(truth), dtype=torch.bool)
    missed[match[match != UNMATCHED]] = False
    objects = drawn.appearance[0, order] * drawn.alpha[0, order]
    return DrawnObjects(sample.image, drawn.rebuilt[0], boxes, match != UNMATCHED, truth[missed], objects)
