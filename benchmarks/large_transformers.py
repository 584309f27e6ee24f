"""What the networks for whole house numbers and for birds cost: parameters, multiplications, processor time of a step.

    python -m benchmarks.large_transformers [--json FILE] [--presets NAME ...] [--repeats N]

Contract:
    * Network, step and precision are those of the presets; images are noise, weights random: neither changes the cost.
    * Multiply-accumulate operations (MACs) of one image in the forward pass, as torch's counter counts them:
      convolutions and dense layers, not the sampling.
    * A step of ``--images`` images, in seconds of processor time: the best of ``--repeats`` after one warm-up. It is
      scaled up to the preset's batch, which counts the update of the weights too often: an upper bound.
"""

import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import Options, alternate, write
from mistnn.experiments import build
from mistnn.models.stn import count_parameters
from mistnn.presets import PRESETS, find_preset
from mistnn.records import Batch

BIRDS = "stn-birds-"
NAMES = [name for name in PRESETS if name.startswith(("stn-svhn-", BIRDS))]


def measure(name: str, images: int, repeats: int) -> dict[str, Any]:
    experiment = find_preset(name).experiment
    step: Any = build(experiment, resuming=True)  # a run that resumes loads no pretrained weights
    model, loop, side = step.model, experiment.train, step.model.config.side
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.rand(1, 3, side, side))
    model.train()
    random = torch.Generator().manual_seed(0)
    classes = model.config.classes if name.startswith(BIRDS) else 10
    labels = [torch.randint(0, classes, (1,), generator=random) for _ in range(images)]
    counts = torch.nn.functional.one_hot(torch.cat(labels), classes)
    batch = Batch(torch.rand(images, 3, side, side, generator=random), counts, labels=labels)
    best = min(alternate({name: lambda _: step(batch, 0)}, repeats, clock=time.process_time)[name])
    whole = best * loop.batch_size / images
    return {
        "preset": name,
        "parameters": count_parameters(model),
        "macs_per_image": counter.get_total_flops() // 2,
        "images": images,
        "step_seconds": best,
        "preset_step_seconds": whole,
        "preset_days": whole * loop.steps / 86_400,
    }


def main() -> None:
    options = Options(__doc__)
    options.size("presets", NAMES, NAMES[:1], "presets to measure")
    options.size("repeats", 2, 1, "measured steps")
    options.size("images", 4, 1, "images per measured step")
    given = options.parse()
    rows = []
    for name in given.presets:
        rows.append(row := measure(name, given.images, given.repeats))
        print(
            f"{name:22} {row['parameters'] / 1e6:6.1f} M parameters {row['macs_per_image'] / 1e9:6.2f} GMAC per image "
            f"{row['preset_step_seconds']:7.1f} s per step of the preset, {row['preset_days']:7.0f} days in total",
            flush=True,
        )
    write({"rows": rows}, given.json)


if __name__ == "__main__":
    main()
