"""The settings of the training loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mistnn.errors import MistError


@dataclass(frozen=True)
class TrainConfig:
    """How long, how often and where to train. What is trained is not said here.

    Attributes:
        steps: iterations in all, those before a resume included.
        batch_size: images an iteration, over all processes together.
        seed: of dropout and other noise in training, and of the order of a finite data set.
        log_every: iterations between two lines of ``metrics.jsonl``; a line holds means over the iterations since the
            last one.
        save_every: iterations between two checkpoints; 0 for one at the end only.
        evaluate_every: iterations between two evaluations; 0 for one at the end only.
        workers: extra processes that prepare batches; 0 prepares them in the training process.
        threads: CPU threads of torch; ``None`` leaves torch's choice. A resumed run repeats the uninterrupted one bit
            for bit only with the same number, since sums are split among threads.
        tensorboard: also write event files for TensorBoard, in ``tensorboard/`` of the run folder.
        device: "auto" takes a GPU where there is one.
    """

    steps: int = 1000
    batch_size: int = 32
    seed: int = 0
    log_every: int = 20
    save_every: int = 200
    evaluate_every: int = 0
    workers: int = 0
    threads: int | None = None
    tensorboard: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        """Refuses values that no run can have.

        Raises:
            MistError: naming the field, its value and the least legal one.
        """
        least = {"steps": 1, "batch_size": 1, "seed": 0, "log_every": 1, "save_every": 0, "evaluate_every": 0}
        for name, minimum in (*least.items(), ("workers", 0), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise MistError(f"train.{name}={value} is too small: give {minimum} or more")
            if value is not None and value >= 2**63:
                raise MistError(f"train.{name}={value} is too large: give less than 2^63")


MUST_NOT_CHANGE_ON_RESUME = ("batch_size", "seed")
"""Fields that decide what the next batch and its noise are; all others may differ when a run goes on."""
