"""What a training step on photographs costs: MIST with 8 x 8 or the released code's 32 x 32 samples a patch; Xie20.

    python -m benchmarks.natural [--json FILE] [--batch 2] [--repeats 3] [--threads N]

The presets' networks (ResNet34 to its fourth block, frozen; random weights, which cost the same) on photographs of
224 x 224 random pixels, K = 2, one patch of 112 px per keypoint. Each point is the median of ``--repeats`` steps after
a first one, in its own process; memory is the peak of resident memory minus what is held before the first step.
``backbone`` is the features alone, which all systems share. Reading image files is not included.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch

if not __package__:  # run as a file: import from the repository's root, as `python -m` does
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.measuring import GIB, Options, in_own_process, peak_bytes, repeat, resident_bytes, write
from mistnn.models.mist import NaturalMist, NaturalStep, NaturalStepConfig
from mistnn.models.rivals import NaturalXie20, RivalStep, RivalStepConfig
from mistnn.presets.mist import photographs as natural
from mistnn.records import Batch

POINTS = (("backbone", 8), ("MIST", 8), ("MIST", 32), ("Xie20", 8))
"""System and samples along the side of a patch; Xie20 classifies all 196 patches of an image."""


def build(system: str, samples: int, edge: int) -> Callable[[Batch, int], object]:
    torch.manual_seed(0)
    reader = dataclasses.replace(natural.MIST.reader, patch_size=samples)
    if system == "Xie20":
        model = NaturalXie20(dataclasses.replace(natural.XIE20, reader=reader, shorter_edge=edge))
        return RivalStep(model, RivalStepConfig())
    mist = NaturalMist(dataclasses.replace(natural.MIST, reader=reader, shorter_edge=edge))
    if system == "MIST":
        return NaturalStep(mist, NaturalStepConfig())
    return lambda batch, turn: mist.backbone(batch.images)


def run_point(system: str, samples: int, batch: int, repeats: int, edge: int) -> dict[str, float]:
    step = build(system, samples, edge)
    counts = torch.zeros(batch, len(natural.MIST.class_names), dtype=torch.int64)
    counts[:, :2] = 1
    batches = [Batch(torch.rand(batch, 3, edge, edge), counts) for _ in range(repeats + 1)]
    before = resident_bytes()
    seconds = repeat(lambda turn: step(batches[turn], turn), repeats)
    return {"seconds": statistics.median(seconds), "bytes": max(0, peak_bytes() - before)}


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
