"""The share of a training step that goes to drawing its batch, and what it would save to draw it beside the step.

    python -m benchmarks.generation [--json FILE] [--preset NAME ...] [--rounds N] [--clock wall|cpu] [--threads N]

Contract:
    * Each round draws a new batch of scenes of embedded digits, as ``mist train`` does without ``--train.workers``, and
      makes a preset's step on it. ``share`` is the median over the rounds of drawing by both together.
    * On one core, drawing in another process saves nothing of its time: ``share`` is the most that a second core saves.
"""

import dataclasses
import statistics
import time

from benchmarks.measuring import CLOCKS, Clock, Options, print_and_write, spread
from mistnn.experiments import build
from mistnn.presets import find_preset
from mistnn.training.batches import batches
from mistnn.training.memory import keep_freed_memory

PRESETS = ("demo", "mist-mnist-hard-fast", "mist-mnist-hard", "spair-5", "air-original")


def measure(name: str, rounds: int, clock: Clock = time.perf_counter) -> dict[str, float]:
    """Milliseconds of a batch and of a step, after one round that is dropped."""
    experiment = find_preset(name).experiment
    scenes = dataclasses.replace(experiment.data, source="embedded").open("train", None)
    step = build(experiment)
    drawn = batches(scenes, start=0, stop=rounds + 1, batch_size=experiment.train.batch_size, seed=0)
    draw, learn = [], []
    for _ in range(rounds + 1):
        begun = clock()
        iteration, batch = next(drawn)
        between = clock()
        step(batch, iteration)
        draw.append(between - begun)
        learn.append(clock() - between)
    draw, learn = draw[1:], learn[1:]
    share = statistics.median(one / (one + other) for one, other in zip(draw, learn, strict=True))
    parts = {"draw": spread(draw), "step": spread(learn)}
    return {"share": share} | {f"{part}_ms": 1e3 * times["median"] for part, times in parts.items()}


def main() -> None:
    options = Options(__doc__)
    options.size("preset", PRESETS, ("demo",), "presets to measure")
    options.size("rounds", 9, 1, "measured steps")
    options.clock()
    given = options.parse()
    keep_freed_memory()
    result = {name: measure(name, given.rounds, CLOCKS[given.clock]) for name in given.preset}
    print_and_write(result, given, "rounds", "threads", "clock")


if __name__ == "__main__":
    main()
