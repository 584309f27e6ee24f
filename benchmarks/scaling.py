"""How time and memory grow with the size of a problem: one curve a quantity, each with its exponent.

    python -m benchmarks.scaling [--json FILE] [--curves side k ...] [--threads 1] [--repeats 7] [--max-seconds 120]
                                 [--clock wall|cpu]
    python -m benchmarks.scaling --show FILE

Contract:
    * Curves: "side", an image's side in prediction (tiles above one million pixels); "k", objects sought in an image of
      256 x 256; "batch", images in a training step of three digits; "scales" in prediction at 128 x 128; "classes" in a
      training step and "class-tables" in the tables of a prediction; "images" in a folder, with a tiny network: search,
      hash, reading, network and tables; "listing", the same without reading and network. The networks are the paper's,
      with random weights, except where stated.
    * Each point runs in its own process, from the smallest to the largest: one warm-up, then ``--repeats`` rounds, or
      as many as fit into ``--max-seconds``, at least one. Reported are the median and the quartiles.
    * Memory is the peak of the process minus that before the first round.
    * The exponent is the slope of a straight line through the upper half of the points, both axes logarithmic: 1 is
      linear. The size of "side" is the number of pixels. A fixed cost lowers the exponent, so the smaller half is left
      out; of less than ``LEAST_BYTES``, memory has none. "linear" says whether time and memory grow at most with the
      exponent 1 + ``TOLERANCE``.
"""

import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.measuring import CLOCKS, Options, in_own_process, peak_bytes, spread, write
from benchmarks.predict_memory import ENCODER, HEATMAP
from mistnn.data import ScenesConfig
from mistnn.data.images import find_images
from mistnn.inference import Predictor, predict_folder
from mistnn.inference.stage import settings_of
from mistnn.models.mist import LiftedStep, LiftedStepConfig, Mist, MistConfig
from mistnn.records import Batch, collate

TOLERANCE = 0.1
"""Of an exponent: what caches and noise may add."""
MIB = 2**20
LEAST_BYTES = 4 * MIB
"""Less memory than this, at the largest size, is noise."""
CURVES: dict[str, tuple[list[int], list[int]]] = {
    "side": ([64, 128, 256, 512, 1024, 2048, 4096, 8192], [32, 64]),
    "k": ([1, 2, 4, 8, 16, 32, 64, 128, 256, 512], [1, 2]),
    "batch": ([1, 2, 4, 8, 16, 32, 64], [1, 2]),
    "scales": ([1, 2, 4, 8, 16], [1, 2]),
    "images": ([10, 100, 1000, 10_000, 100_000], [2, 4]),
    "listing": ([10, 100, 1000, 10_000, 100_000], [2, 4]),
    "classes": ([1, 2, 5, 10, 20, 50, 100, 200, 500], [1, 2]),
    "class-tables": ([1, 2, 5, 10, 20, 50, 100, 200, 500], [1, 2]),
}
"""The sizes of each curve, and those with ``--smoke``."""

Work = Callable[[], object]


def predicting(config: MistConfig, side: int, k: int) -> Work:
    predictor, images = Predictor(Mist(config)), torch.rand(1, 1, side, side)
    return lambda: predictor.predict_batch(images, k)


def training(batch: int, classes: int) -> Work:
    names = tuple(f"class {index}" for index in range(classes))
    step = LiftedStep(Mist(MistConfig(class_names=names, k=3)), LiftedStepConfig())
    data = ScenesConfig(source="embedded", canvas=48, counts=(3,), classes=min(classes, 10)).open("train", batch)
    samples = collate([data[index] for index in range(batch)])
    assert samples.counts is not None
    counts = torch.nn.functional.pad(samples.counts, (0, classes - samples.counts.shape[1]))
    given = Batch(samples.images, counts)
    return lambda: step(given, 0)


def tiny(classes: int = 0) -> Predictor:
    names = tuple(f"class {index}" for index in range(classes))
    return Predictor(Mist(MistConfig(k=3, class_names=names, heatmap=HEATMAP, encoder=ENCODER)))


def in_folder(base: Path, images: int, classes: int = 0, listing: bool = False) -> Work:
    """Predicts a folder of ``images`` files of 32 x 32 pixels; or only finds and hashes them."""
    folder = base / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(images):
        Image.fromarray(random.integers(0, 256, (32, 32), dtype=np.uint8)).save(folder / f"{index:07}.png")
    predictor = tiny(classes)
    predictor.predict(torch.rand(1, 32, 32))
    if listing:
        return lambda: settings_of(predictor, find_images([folder]), {})
    return lambda: predict_folder(predictor, [folder], base / "out", overlays=False, force=True)


def work_of(curve: str, size: int, base: Path) -> Work:
    """What one round of a point does."""
    paper = MistConfig(k=9)
    if curve == "side":
        return predicting(paper, size, 9)
    if curve == "k":
        return predicting(paper, 256, size)
    if curve == "scales":
        return predicting(MistConfig(k=9, scales=tuple(1 + 0.01 * index for index in range(size))), 128, 9)
    if curve == "batch":
        return training(size, 10)
    if curve == "classes":
        return training(8, size)
    return in_folder(base, 64 if curve == "class-tables" else size, size if curve == "class-tables" else 0,
                     curve == "listing")  # fmt: skip


def run_point(curve: str, size: int, repeats: int, most: float, clock: str = "wall") -> dict[str, Any]:
    now = CLOCKS[clock]
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        work = work_of(curve, size, Path(name))
        before, taken, begun = peak_bytes(), [], time.perf_counter()
        for turn in range(repeats + 1):
            start = now()
            work()
            taken.append(now() - start)
            if turn and time.perf_counter() - begun > most:
                break
        peak = peak_bytes()
    return {"size": size, "rounds": len(taken) - 1, "seconds": spread(taken[1:]), "bytes": max(0, peak - before)}


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """The slope of a straight line through the upper half of the points, both axes logarithmic."""
    points = [(math.log(size), math.log(value)) for size, value in zip(sizes, values, strict=True) if value > 0]
    upper = points[len(points) // 2 if len(points) > 3 else 0 :]
    if len(upper) < 2:
        return None
    return statistics.linear_regression(*zip(*upper, strict=True)).slope


def measure(curve: str, sizes: Sequence[int], repeats: int, most: float, clock: str) -> dict[str, Any]:
    points = []
    for size in sizes:
        points.append(one := in_own_process(run_point, curve, size, repeats, most, clock))
        print(f"{curve:>12} {size:>7,}: {one['seconds']['median']:9.4f} s, {one['bytes'] / MIB:8.1f} MiB", flush=True)
    grown = [float(size) ** (2 if curve == "side" else 1) for size in sizes]
    held = [float(point["bytes"]) for point in points]
    slopes = {
        "seconds": exponent(grown, [point["seconds"]["median"] for point in points]),
        "bytes": exponent(grown, held) if held[-1] >= LEAST_BYTES else None,
    }
    linear = all(slope is None or slope <= 1 + TOLERANCE for slope in slopes.values())
    shown = ", ".join(f"{name} {slope:.2f}" for name, slope in slopes.items() if slope is not None)
    print(f"{curve:>12} exponents: {shown}; {'at most linear' if linear else 'WORSE than linear'}", flush=True)
    return {"points": points, "exponents": slopes, "linear": linear}


def table(result: Mapping[str, Any]) -> str:
    """The curves as a table in Markdown: the smallest and the largest size, and the exponents."""
    lines = ["| curve | sizes | seconds | MiB | exponent of time | of memory |", "|---|---|---|---|---|---|"]
    for curve, found in result["curves"].items():
        first, last = found["points"][0], found["points"][-1]
        seconds = " to ".join(f"{one['seconds']['median']:.3g}" for one in (first, last))
        held = " to ".join(f"{one['bytes'] / MIB:,.0f}" for one in (first, last))
        slopes = ["-" if slope is None else f"{slope:.2f}" for slope in found["exponents"].values()]
        sizes = f"{first['size']:,} to {last['size']:,}"
        lines.append(f"| {curve} | {sizes} | {seconds} | {held} | {' | '.join(slopes)} |")
    return "\n".join(lines)


def main() -> None:
    options = Options(__doc__)
    options.add_argument("--show", type=Path, help="only print a result as a table in Markdown")
    options.add_argument("--curves", nargs="+", choices=CURVES, default=list(CURVES))
    options.size("repeats", 7, 1, "rounds of a point")
    options.size("most", 0, 0, "leave out sizes above this; 0 for none", least=0)
    options.add_argument("--max-seconds", type=float, default=120.0, help="of the rounds of a point; one always runs")
    options.clock()
    given = options.parse()
    if given.show is not None:
        print(table(json.loads(given.show.read_text(encoding="utf-8"))))
        return
    curves = {}
    for curve in given.curves:
        sizes = [size for size in CURVES[curve][given.smoke] if not given.most or size <= given.most]
        curves[curve] = measure(curve, sizes, given.repeats, given.max_seconds, given.clock)
    settings = {**options.settings(given), "clock": given.clock, "max_seconds": given.max_seconds}
    write({"curves": curves, "settings": settings}, given.json)


if __name__ == "__main__":
    main()
