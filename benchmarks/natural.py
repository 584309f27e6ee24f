"""What a training step on photographs costs: 8 x 8 against the released code's 32 x 32 samples a patch, and Xie20.

    python -m benchmarks.natural [--json FILE] [--batch 2] [--repeats 3] [--threads N]

The presets' own networks (ResNet34 to its fourth block, frozen; random weights, which cost the same) on photographs of
224 x 224 random pixels, K = 2, one patch of 112 px a keypoint. Each point is the median of ``--repeats`` steps after a
first one, in a process of its own; memory is the peak of resident memory less what is held before the first step.
``backbone`` is the features alone, which all of them share. Reading image files is not in it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import in_own_process, peak_bytes, resident_bytes, write
from mistnn.models.mist import NaturalMist, NaturalStep, NaturalStepConfig
from mistnn.models.rivals import NaturalXie20, RivalStep, RivalStepConfig
from mistnn.presets import natural
from mistnn.records import Batch

POINTS = (("backbone", 8), ("MIST", 8), ("MIST", 32), ("Xie20", 8))
"""System and samples along the side of a patch; Xie20 reads all 196 patches of an image."""


def build(system: str, samples: int, edge: int) -> Callable[[Batch, int], object]:
    """A step of a system."""
    torch.manual_seed(0)
    reader = dataclasses.replace(natural.MIST.reader, patch_size=samples)
    if system == "Xie20":
        model = NaturalXie20(dataclasses.replace(natural.XIE20, reader=reader, shorter_edge=edge))
        return RivalStep(model, RivalStepConfig())
    mist = NaturalMist(dataclasses.replace(natural.MIST, reader=reader, shorter_edge=edge))
    if system == "MIST":
        return NaturalStep(mist, NaturalStepConfig())
    return lambda batch, turn: mist.backbone(batch.images)


def run_point(system: str, samples: int, batch: int, repeats: int, edge: int = 224) -> dict[str, float]:
    """Steps of one system, in this process."""
    step = build(system, samples, edge)
    counts = torch.zeros(batch, len(natural.MIST.class_names), dtype=torch.int64)
    counts[:, :2] = 1
    before, seconds = resident_bytes(), []
    for turn in range(repeats + 1):
        images = Batch(torch.rand(batch, 3, edge, edge), counts)
        start = time.perf_counter()
        step(images, turn)
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds[1:]), "bytes": max(0, peak_bytes() - before)}


def measure(system: str, samples: int, batch: int, repeats: int) -> dict[str, Any]:
    """One point in a process of its own."""
    settings = ("--batch", batch, "--repeats", repeats, "--threads", torch.get_num_threads())
    point = in_own_process("benchmarks.natural", "--point", system, samples, *settings)
    return {"system": system, "samples": samples, **point}


def main() -> None:
    """Measures every point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--batch", type=int, default=2, help="images a step")
    parser.add_argument("--repeats", type=int, default=3, help="steps of a point that count")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if min(asked.batch, asked.repeats, asked.threads) < 1:
        parser.error("--batch, --repeats and --threads must be 1 or more")
    torch.set_num_threads(asked.threads)
    if asked.point:
        print(json.dumps(run_point(asked.point[0], int(asked.point[1]), asked.batch, asked.repeats)))
        return
    points = []
    for system, samples in POINTS:
        point = measure(system, samples, asked.batch, asked.repeats)
        print(
            f"{system}, {samples} x {samples}: {point['seconds']:.2f} s, {point['bytes'] / 2**30:.2f} GiB", flush=True
        )
        points.append(point)
    facts = {"batch": asked.batch, "repeats": asked.repeats, "threads": asked.threads, "precision": "float32"}
    write({"points": points, **facts}, asked.json)


if __name__ == "__main__":
    main()
