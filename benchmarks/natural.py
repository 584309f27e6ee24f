"""What a training step on photographs costs: MIST with 8 x 8 or the released code's 32 x 32 samples a patch; Xie20.

    python -m benchmarks.natural [--json FILE] [--batch 2] [--repeats 3] [--threads N]

The presets' networks (ResNet34 to its fourth block, frozen; random weights, which cost the same) on photographs of
224 x 224 random pixels, K = 2, one patch of 112 px per keypoint. Memory is the peak minus what is held before the first
step. ``backbone`` is the features alone, which all systems share. Reading image files is not included.
"""

import dataclasses
from typing import Any

import torch

from benchmarks.measuring import GIB, Options, cost_of, in_own_process, write
from mistnn.models.mist import NaturalStepConfig
from mistnn.models.rivals import RivalStepConfig
from mistnn.presets.mist import photographs as natural
from mistnn.presets.rivals import NATURAL_XIE20
from mistnn.records import Batch

POINTS = (("backbone", 8), ("MIST", 8), ("MIST", 32), ("Xie20", 8))
"""System and samples along the side of a patch; Xie20 classifies all 196 patches of an image."""


def run_point(system: str, samples: int, batch: int, repeats: int, edge: int) -> dict[str, float]:
    torch.manual_seed(0)
    reader = dataclasses.replace(natural.MIST.reader, patch_size=samples)
    rival = system == "Xie20"
    config = dataclasses.replace(NATURAL_XIE20 if rival else natural.MIST, reader=reader, shorter_edge=edge)
    model: Any = config.build()
    step = RivalStepConfig() if rival else NaturalStepConfig()
    run = (lambda batch, _: model.backbone(batch.images)) if system == "backbone" else step.build(model)
    counts = torch.zeros(batch, len(natural.MIST.class_names), dtype=torch.int64)
    counts[:, :2] = 1
    return cost_of(run, [Batch(torch.rand(batch, 3, edge, edge), counts) for _ in range(repeats + 1)])


def main() -> None:
    options = Options(__doc__, torch.get_num_threads())
    options.size("batch", 2, 1, "images per step")
    options.size("repeats", 3, 1, "measured steps of a point")
    options.size("edge", 224, 48, "side of the images in pixels")
    given = options.parse()
    points = []
    for system, samples in POINTS:
        point = in_own_process(run_point, system, samples, given.batch, given.repeats, given.edge)
        print(f"{system}, {samples} x {samples}: {point['seconds']:.2f} s, {point['bytes'] / GIB:.2f} GiB", flush=True)
        points.append({"system": system, "samples": samples, **point})
    write({"points": points, "precision": "float32", **options.settings(given)}, given.json)


if __name__ == "__main__":
    main()
