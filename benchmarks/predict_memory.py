"""How much memory `mist predict` takes, against the number of images in the folder.

    python -m benchmarks.predict_memory [--json FILE] [--images 1000 10000] [--side 32] [--tolerance 0.05]

Contract:
    * Folders of small PNG images of random noise, in a temporary folder. A tiny network with random weights: measured
      is what the command keeps in memory, not what a network takes.
    * Predicted with drawings and the COCO file. The peak before the first image (Python, libraries, model) is reported.
    * The exit code is 1 if the peak with most images is more than ``--tolerance`` above the peak with fewest.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.measuring import Options, in_own_process, peak_bytes, write
from mistnn.inference import Predictor, predict_folder
from mistnn.models.mist import MistConfig
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.heatmap import HeatmapConfig

MIB = 2**20


HEATMAP, ENCODER = HeatmapConfig(network="paper", channels=4, blocks=1), EncoderConfig("small", width=4, code=8)


def run_point(images: str, out: str) -> dict[str, Any]:
    torch.manual_seed(0)
    predictor = Predictor(MistConfig(k=3, heatmap=HEATMAP, encoder=ENCODER).build())
    predictor.predict(torch.rand(1, 32, 32))
    before, start = peak_bytes(), time.perf_counter()
    summary = predict_folder(predictor, [Path(images)], Path(out), coco=True)
    peaks = {"peak_bytes": peak_bytes(), "peak_bytes_before": before}
    return {"images": summary.images, **peaks, "seconds": round(time.perf_counter() - start, 1)}


def measure(images: int, side: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name, "images"), Path(name, "out")
        folder.mkdir()
        random = np.random.default_rng(0)
        for index in range(images):
            values = random.integers(0, 256, (side, side), dtype=np.uint8)
            Image.fromarray(values).save(folder / f"{index:07}.png", compress_level=1)
        return in_own_process(run_point, folder, out)


def main() -> int:
    options = Options(__doc__)
    options.size("images", (1000, 10_000), (2, 5), "numbers of images, rising")
    options.size("side", 32, 32, "side of an image in pixels", least=8)
    options.add_argument("--tolerance", type=float, default=0.05, help="accepted growth of the peak")
    given = options.parse()
    if sorted(given.images) != list(given.images):
        options.error("--images must rise")
    points = []
    for images in given.images:
        points.append(one := measure(images, given.side))
        peak, before = one["peak_bytes"] / MIB, one["peak_bytes_before"] / MIB
        print(f"{images:>7,} images: peak {peak:.1f} MiB ({before:.1f} before the first), {one['seconds']:.1f} s")
    growth = points[-1]["peak_bytes"] / points[0]["peak_bytes"] - 1
    flat = growth <= given.tolerance
    print(f"{growth:+.1%} from the fewest to the most: {'flat' if flat else 'NOT flat'} within {given.tolerance:.0%}")
    settings = {"tolerance": given.tolerance, "side": given.side}
    write({"points": points, "growth": round(growth, 4), **settings}, given.json)
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
