"""A training step of the spatial transformer paper's CNNs, with and without Fourier transforms.

    python -m benchmarks.fourier_convolution [--json FILE] [--threads N] [--repeats N] [--clock wall|cpu]
                                             [--preset NAME ...]

Contract:
    * Forward, backward and update of a preset's step in float32 on a batch of random images of the preset's size; both
      ways start from the same weights and give the same loss, which is checked before the timing.
    * "plain" is the same network with ``nn.Conv2d`` as its second convolution.
"""

import dataclasses
from functools import partial
from typing import cast

import torch

from benchmarks.measuring import CLOCKS, Clock, Options, alternate, milliseconds, print_and_write
from mistnn.models.stn import StnClassifier, StnConfig, StnStep, StnStepConfig
from mistnn.models.stn.fourier_convolution import FourierConvolution
from mistnn.presets import find_preset
from mistnn.records import Batch

PRESETS = ("stn-cnn-rts", "stn-cnn-affine-rts", "stn-cnn-tc", "stn-cnn-affine-tc", "stn-cnn-addition")


def make_step(model: StnConfig, config: StnStepConfig, plain: bool) -> StnStep:
    torch.manual_seed(0)
    network = StnClassifier(model)
    for part in network.modules():
        if plain and isinstance(part, FourierConvolution):
            part.pays = lambda input: False  # the plain convolution for every input
    return StnStep(network, dataclasses.replace(config, precision="float32", rate=1e-6))


def measure(preset: str, repeats: int, clock: Clock, batch: int | None = None) -> dict[str, float]:
    """Both ways on one preset; ``batch`` is the preset's if not given."""
    experiment = find_preset(preset).experiment.resolved()
    model, step_config = cast(StnConfig, experiment.model), cast(StnStepConfig, experiment.step)
    size = experiment.train.batch_size if batch is None else batch
    random = torch.Generator().manual_seed(1)
    counts = torch.nn.functional.one_hot(torch.randint(model.classes, (size,), generator=random), model.classes)
    images = Batch(torch.rand(size, model.channels, model.side, model.side, generator=random), counts)
    steps = {name: make_step(model, step_config, name == "plain") for name in ("plain", "fourier")}
    losses = [step(images, 0)["loss"] for step in steps.values()]
    torch.testing.assert_close(*losses, atol=1e-4, rtol=1e-4)

    def call(name: str, _: int) -> object:
        return steps[name](images, 0)

    found = milliseconds(alternate({name: partial(call, name) for name in steps}, repeats, clock=clock))
    return {"ratio": found["plain_ms"] / found["fourier_ms"]} | found


def main() -> None:
    options = Options(__doc__)
    options.size("preset", PRESETS, PRESETS[3:4], "presets to measure")
    options.size("repeats", 5, 1, "measured rounds")
    options.clock()
    given = options.parse()
    batch = 2 if given.smoke else None
    result = {preset: measure(preset, given.repeats, CLOCKS[given.clock], batch) for preset in given.preset}
    print_and_write(result, given, "repeats", "threads", "clock")


if __name__ == "__main__":
    main()
