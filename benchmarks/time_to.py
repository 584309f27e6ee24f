"""The training time until a preset reads a share of the validation objects, beside another preset.

    python -m benchmarks.time_to [--json FILE] [--preset NAME ...] [--target 0.93] [--every 50] [--most N] [--seeds N]
                                 [--threads 2] [--data-root DIR] [--clock wall|cpu]

Contract:
    * The presets train in one process, in turns of ``--every`` steps, so that a machine that slows down slows both.
      After each turn ``both`` (detected and classified) is measured on ``--images`` validation images, read as in
      training. A preset stops as soon as it reaches the target, or after its own number of steps.
    * The time is that of the steps and their batches: no evaluation, no start.
    * ``ratio``: the time of the first preset by that of each other one. A first preset that did not reach the target,
      because ``--most`` ended it, gives a lower bound.
    * As in training, the process keeps freed memory (``keep_freed_memory``).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from benchmarks.measuring import CLOCKS, Clock, Options, print_and_write
from mistnn.experiments import build, evaluate
from mistnn.presets import find_preset
from mistnn.training.batches import batches
from mistnn.training.memory import keep_freed_memory

PRESETS = ("mist-mnist-hard", "mist-mnist-hard-fast")
MEASURE = "both"


class Learner:
    """A preset in training.

    Attributes:
        seconds: of its steps so far.
        curve: (steps, seconds, share) after each turn.
    """

    def __init__(self, name: str, seed: int, root: str | None, source: str | None, clock: Clock) -> None:
        preset = find_preset(name).experiment
        experiment: Any = preset.with_seed_and_steps(seed, preset.train.steps)
        data = experiment.data.at(root) if source is None else dataclasses.replace(experiment.data, source=source)
        self.name, self.clock, self.seconds = name, clock, 0.0
        self.experiment = dataclasses.replace(experiment, data=data)
        self.step: Any = build(self.experiment)
        self.curve: list[tuple[int, float, float]] = []
        loop = self.experiment.train
        self.drawn = batches(data.open("train"), start=0, stop=loop.steps, batch_size=loop.batch_size, seed=seed)

    @property
    def steps(self) -> int:
        """The steps so far."""
        return self.curve[-1][0] if self.curve else 0

    def turn(self, steps: int, images: int) -> float:
        """Trains for so many steps and measures; returns the share."""
        begun, done = self.clock(), self.steps
        for _, (iteration, batch) in zip(range(steps), self.drawn, strict=False):
            self.step(batch, iteration)
            done = iteration + 1
        self.seconds += self.clock() - begun
        model = self.step.model
        training = model.training
        share = evaluate(model.eval(), self.experiment.data, "validation", images)[MEASURE]
        model.train(training)
        self.curve.append((done, round(self.seconds, 2), round(share, 4)))
        return share

    def ended(self, target: float, most: int) -> bool:
        """Whether it reached the target or its last step."""
        limit = min(most or self.experiment.train.steps, self.experiment.train.steps)
        return bool(self.curve) and (self.curve[-1][2] >= target or self.steps >= limit)


def compare(learners: Sequence[Learner], target: float, every: int, most: int, images: int) -> dict[str, Any]:
    """Trains all in turns; the result of one seed."""
    while not all(one.ended(target, most) for one in learners):
        for one in learners:
            if not one.ended(target, most):
                share = one.turn(every, images)
                print(f"  {one.name}: {MEASURE} {share:.3f} after {one.steps} steps, {one.seconds:.0f} s", flush=True)
    first = learners[0]
    return {
        "ratio": {one.name: first.seconds / one.seconds for one in learners[1:]},
        "reached": {one.name: one.curve[-1][2] >= target for one in learners},
        "seconds": {one.name: one.seconds for one in learners},
        "curves": {one.name: one.curve for one in learners},
    }


def main() -> None:
    options = Options(__doc__, threads=2)
    options.size("preset", PRESETS, ("demo-paper", "demo"), "presets; the first is compared with the others")
    options.size("every", 50, 1, "steps between two measurements")
    options.size("images", 100, 2, "validation images")
    options.size("seeds", 1, 1, "runs, with seeds from 0")
    options.size("most", 0, 1, "most steps of a preset; 0 for its own", least=0)
    options.add_argument("--target", type=float, default=0.93, help="the share to reach; default: 0.93")
    options.add_argument("--data-root", help="the folder of MNIST; default: that of MIST_DATA")
    options.clock()
    given = options.parse()
    keep_freed_memory()
    source, clock = "embedded" if given.smoke else None, CLOCKS[given.clock]
    runs = []
    for seed in range(given.seeds):
        learners = [Learner(name, seed, given.data_root, source, clock) for name in given.preset]
        runs.append(compare(learners, given.target, given.every, given.most, given.images))
        for name, ratio in runs[-1]["ratio"].items():
            print(f"seed {seed}: {name} {ratio:.2f} times as fast as {given.preset[0]}")
    print_and_write({"target": given.target, "runs": runs}, given, "every", "images", "most", "threads", "clock")


if __name__ == "__main__":
    main()
