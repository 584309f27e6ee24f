"""How much memory `mist predict` takes, against the number of images in the folder.

    python -m benchmarks.predict_memory [--json FILE] [--images 1000 10000] [--side 32] [--tolerance 0.05]

Contract:
    * Folders of small PNG images of random noise, made in a temporary folder and removed. A tiny network with fresh
      weights: what is measured is what the command keeps, not what a network takes.
    * Each number of images is predicted in a fresh process of its own, with drawings and the COCO file, so that its
      peak of resident memory is its own. The peak before the first image is told beside it: Python, the libraries, the
      model.
    * It ends with exit code 1 if the peak with most images is more than ``--tolerance`` above the one with fewest.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.measuring import in_own_process, peak_bytes, write
from mistnn.inference import Predictor, predict_folder
from mistnn.models.mist import Mist, MistConfig
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.heatmap import HeatmapConfig

MIB = 2**20


def make_images(folder: Path, images: int, side: int) -> None:
    """Noise, a file each."""
    random = np.random.default_rng(0)
    for index in range(images):
        values = random.integers(0, 256, (side, side), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{index:07}.png", compress_level=1)


def tiny_model() -> Mist:
    """A network that takes next to nothing."""
    torch.manual_seed(0)
    heatmap = HeatmapConfig(network="paper", channels=4, blocks=1)
    return Mist(MistConfig(k=3, heatmap=heatmap, encoder=EncoderConfig(network="small", width=4, code=8)))


def run_point(images: Path, out: Path) -> dict[str, Any]:
    """Predicts a folder in this process."""
    torch.set_num_threads(1)
    predictor = Predictor(tiny_model())
    predictor.predict(torch.rand(1, 32, 32))
    before, start = peak_bytes(), time.perf_counter()
    summary = predict_folder(predictor, [images], out, coco=True)
    return {
        "images": summary.images,
        "peak_bytes": peak_bytes(),
        "peak_bytes_before": before,
        "seconds": round(time.perf_counter() - start, 1),
    }


def measure(images: int, side: int) -> dict[str, Any]:
    """One number of images, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name, "images"), Path(name, "out")
        folder.mkdir()
        make_images(folder, images, side)
        return in_own_process("benchmarks.predict_memory", "--point", folder, out)


def main() -> int:
    """Measures, prints, and says whether memory is flat."""
    parser = argparse.ArgumentParser(description="Measure the memory of a prediction against its number of images.")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000], help="how many, rising")
    parser.add_argument("--side", type=int, default=32, help="of an image, in pixels")
    parser.add_argument("--tolerance", type=float, default=0.05, help="how much more the last may take than the first")
    parser.add_argument("--point", type=Path, nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.point:
        print(json.dumps(run_point(*asked.point)))
        return 0
    if min(asked.images) < 1 or asked.side < 8 or sorted(asked.images) != asked.images:
        parser.error("--images must be 1 or more and rise, --side 8 or more")
    points = []
    for images in asked.images:
        points.append(measure(images, asked.side))
        one = points[-1]
        print(
            f"{one['images']:>7,} images: peak {one['peak_bytes'] / MIB:.1f} MiB "
            f"({one['peak_bytes_before'] / MIB:.1f} before the first), {one['seconds']:.1f} s"
        )
    growth = points[-1]["peak_bytes"] / points[0]["peak_bytes"] - 1
    flat = growth <= asked.tolerance
    print(f"{growth:+.1%} from the fewest to the most: {'flat' if flat else 'NOT flat'} within {asked.tolerance:.0%}")
    if asked.json:
        result = {
            "points": points,
            "growth": round(growth, 4),
            "tolerance": asked.tolerance,
            "side": asked.side,
        }
        write(result, asked.json)
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
