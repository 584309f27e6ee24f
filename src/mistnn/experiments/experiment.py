"""An experiment: a model, its data, its training step and the training loop, in one value."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

from mistnn.config import Config, at_least
from mistnn.interfaces import DataConfig, ModelConfig, TrainingStepConfig
from mistnn.training import TrainConfig


@dataclass(frozen=True)
class Experiment(Config):
    """Everything that a run depends on.

    Attributes:
        model: the network.
        data: the images.
        step: how the network is trained.
        train: the loop. Its seed also determines the initial weights; ``data.seed`` selects the images, so that runs
            with different ``train.seed`` are tested on the same ones.
        evaluation_images: validation images of an evaluation during training; 0 for no evaluation.
        start_from: a run folder or a shipped model whose weights to start from; ``None`` for fresh weights.
    """

    model: ModelConfig
    data: DataConfig
    step: TrainingStepConfig
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation_images: Annotated[int, at_least(0)] = 200
    start_from: str | None = None

    def with_steps(self, steps: int) -> Experiment:
        """The same experiment with another length: schedules of fixed length keep their proportion to it."""
        step = self.step.rescale_schedule(self.train.steps, steps)
        return dataclasses.replace(self, step=step, train=dataclasses.replace(self.train, steps=steps))

    def with_seed_and_steps(self, seed: int, steps: int) -> Experiment:
        """As ``with_steps``, with another seed for data and training."""
        changed = self.with_steps(steps)
        data, train = dataclasses.replace(self.data, seed=seed), dataclasses.replace(changed.train, seed=seed)
        return dataclasses.replace(changed, data=data, train=train)

    def at(self, root: str | None) -> Experiment:
        """The same experiment with its images in another folder; unchanged if ``root`` is ``None``."""
        return self if root is None else dataclasses.replace(self, data=self.data.at(root))

    def resolved(self) -> Experiment:
        """The experiment as it is trained and stored: schedules over "the whole run" have their length."""
        return dataclasses.replace(self, step=self.step.for_run(self.train.steps))


class Planned(NamedTuple):
    """Settings chosen for an image folder, with one line of reason for each choice."""

    experiment: Experiment
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Preset:
    """A named experiment.

    Attributes:
        name: the argument of ``mist train``.
        summary: one line for ``mist presets``.
        experiment: its settings.
        plan: chooses settings from what a folder holds: called with the experiment, whose ``data.root`` is the
            folder, and K where the user gave it. ``None`` where all settings are fixed.
    """

    name: str
    summary: str
    experiment: Experiment
    plan: Callable[[Experiment, int | None], Planned] | None = field(default=None, compare=False)
