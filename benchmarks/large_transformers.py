"""What the networks for whole house numbers and for birds cost: parameters, multiplications, processor time of a step.

    python -m benchmarks.large_transformers [--json FILE] [--presets NAME ...] [--repeats N]

Contract:
    * The networks, steps and precisions of the presets; noise as images, random weights: neither changes the cost.
    * Multiplications with addition (MACs) of one image, forwards, as torch's counter counts them: convolutions and
      dense layers, not the sampling.
    * A step of ``--images`` images with one thread, in seconds of processor time of this process, so that others on the
      machine disturb it less; the best of ``--repeats`` after one warm-up. The preset's batch is that many times as
      long, but for the update of the weights, which is then counted too often: an upper bound.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import write
from mistnn.models.stn import BirdClassifier, NumberReader, count_parameters
from mistnn.presets import PRESETS, find_preset
from mistnn.presets.systems import build_model, build_step
from mistnn.records import Batch

NAMES = [name for name in PRESETS if name.startswith(("stn-svhn-", "stn-birds-"))]


def measure(name: str, images: int, repeats: int) -> dict[str, Any]:
    """One preset."""
    experiment = find_preset(name).experiment
    torch.manual_seed(0)
    model = build_model(experiment.model)
    assert isinstance(model, NumberReader | BirdClassifier)
    side = model.config.side
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.rand(1, 3, side, side))
    step = build_step(model.train(), experiment.step)
    random = torch.Generator().manual_seed(0)
    classes = model.config.classes if isinstance(model, BirdClassifier) else 10
    labels = [torch.randint(0, classes, (1,), generator=random) for _ in range(images)]
    counts = torch.nn.functional.one_hot(torch.cat(labels), classes)
    batch = Batch(torch.rand(images, 3, side, side, generator=random), counts, labels=labels)
    seconds = []
    for turn in range(repeats + 1):
        start = time.process_time()
        step(batch, turn)
        seconds.append(time.process_time() - start)
    best, loop = min(seconds[1:]), experiment.train
    return {
        "preset": name,
        "parameters": count_parameters(model),
        "macs_per_image": counter.get_total_flops() // 2,
        "images": images,
        "step_seconds": best,
        "preset_step_seconds": best * loop.batch_size / images,
        "preset_days": best * loop.batch_size / images * loop.steps / 86_400,
    }


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--presets", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--images", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in given.presets:
        row = measure(name, given.images, given.repeats)
        print(
            f"{name:22} {row['parameters'] / 1e6:6.1f} M parameters {row['macs_per_image'] / 1e9:6.2f} GMAC an image "
            f"{row['preset_step_seconds']:7.1f} s a step of the preset, {row['preset_days']:7.0f} days in all",
            flush=True,
        )
        rows.append(row)
    write({"rows": rows}, given.json)


if __name__ == "__main__":
    main()
