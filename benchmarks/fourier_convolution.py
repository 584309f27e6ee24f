"""A training step of the spatial transformer paper's CNNs, with and without Fourier transforms.

    python -m benchmarks.fourier_convolution [--json FILE] [--threads N] [--repeats N] [--clock wall|cpu]
                                             [--preset NAME ...]

Contract:
    * Forward, backward and descent of a preset's step in float32 on its own batch of 256 random images; both ways start
      from the same weights and give the same loss, which is checked before anything is timed.
    * "plain" is the same network with ``nn.Conv2d`` for its second convolution.
    * Rounds alternate; the first is dropped. What is reported is the median of a round and its interquartile range.
      ``--clock cpu`` counts processor time instead, for one thread on a machine that is busy.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.measuring import CLOCKS, alternate, milliseconds, write
from mistnn.models.stn import StnClassifier, StnConfig, StnStep, StnStepConfig
from mistnn.models.stn.fourier_convolution import FourierConvolution
from mistnn.presets import find_preset
from mistnn.records import Batch

PRESETS = ("stn-cnn-rts", "stn-cnn-affine-rts", "stn-cnn-tc", "stn-cnn-affine-tc", "stn-cnn-addition")


class Plain(FourierConvolution):
    """The plain convolution, whatever the input."""

    def pays(self, input: torch.Tensor) -> bool:
        """Never."""
        return False


def make_step(model: StnConfig, config: StnStepConfig, plain: bool) -> StnStep:
    """A preset's step in float32, on the same weights both ways."""
    torch.manual_seed(0)
    network = StnClassifier(model)
    for part in network.modules():
        if plain and isinstance(part, FourierConvolution):
            part.__class__ = Plain
    return StnStep(network, dataclasses.replace(config, precision="float32", rate=1e-6))


def measure(preset: str, repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Both ways on one preset."""
    experiment = find_preset(preset).experiment
    assert isinstance(experiment.model, StnConfig) and isinstance(experiment.step, StnStepConfig)
    model, size = experiment.model, experiment.train.batch_size
    random = torch.Generator().manual_seed(1)
    counts = torch.nn.functional.one_hot(torch.randint(model.classes, (size,), generator=random), model.classes)
    batch = Batch(torch.rand(size, model.channels, model.side, model.side, generator=random), counts)
    steps = {name: make_step(model, experiment.step, name == "plain") for name in ("plain", "fourier")}
    losses = [step(batch, 0)["loss"] for step in steps.values()]
    torch.testing.assert_close(*losses, atol=1e-4, rtol=1e-4)
    found = milliseconds(
        alternate({name: partial(step, batch, 0) for name, step in steps.items()}, repeats, clock=clock)
    )
    return {"ratio": found["plain_ms"] / found["fourier_ms"]} | found


def main() -> None:
    """Measures every preset and prints how many times faster Fourier transforms are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--preset", nargs="+", default=PRESETS)
    for name, value in (("repeats", 5), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    result = {preset: measure(preset, given.repeats, CLOCKS[given.clock]) for preset in given.preset} | {
        "settings": {name: getattr(given, name) for name in ("repeats", "threads", "clock")},
    }
    print(json.dumps(result, indent=2))
    write(result, given.json)


if __name__ == "__main__":
    main()
