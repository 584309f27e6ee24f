"""The settings of the training loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from mistnn.config import Config, at_least, below

_INT64 = below(2**63)  # torch's seeds and counters are 64 bits wide


@dataclass(frozen=True)
class TrainConfig(Config):
    """How long, how often and on which device to train, independent of what is trained.

    Attributes:
        steps: total number of iterations, including those before a resume.
        batch_size: images per iteration, over all processes together.
        seed: of dropout and other noise in training, and of the order of a finite data set.
        log_every: iterations between two lines of ``metrics.jsonl``; each line holds the means since the previous one.
        save_every: iterations between two checkpoints; 0 for a single one at the end.
        evaluate_every: iterations between two evaluations; 0 for a single one at the end.
        workers: extra processes that prepare batches; 0 prepares them in the training process.
        threads: CPU threads of torch; ``None`` for torch's default. A resumed run repeats the uninterrupted run bit for
            bit only with the same number, because sums are split among threads.
        tensorboard: also write event files for TensorBoard, in ``tensorboard/`` of the run folder.
        device: "auto" uses a GPU if there is one.
    """

    section: ClassVar[str] = "train"

    steps: Annotated[int, at_least(1), _INT64] = 1000
    batch_size: Annotated[int, at_least(1), _INT64] = 32
    seed: Annotated[int, at_least(0), _INT64] = 0
    log_every: Annotated[int, at_least(1), _INT64] = 20
    save_every: Annotated[int, at_least(0), _INT64] = 200
    evaluate_every: Annotated[int, at_least(0), _INT64] = 0
    workers: Annotated[int, at_least(0), _INT64] = 0
    threads: Annotated[int, at_least(1), _INT64] | None = None
    tensorboard: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"


MUST_NOT_CHANGE_ON_RESUME = ("batch_size", "seed")
"""Fields that determine the next batch and its noise; all others may change when a run resumes."""
