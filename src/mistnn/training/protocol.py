"""What the training loop knows of a paper's algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from torch.optim import Optimizer

from mistnn.records import Batch


@runtime_checkable
class Step(Protocol):
    """One iteration of an algorithm: every forward, backward and optimizer step that one batch gives.

    The loop never looks inside. For several processes it averages the gradients just before each step of each of
    ``optimizers``, so a step needs no code for them, on three conditions: a loss is a mean over the images of the
    batch; every process makes the same optimizer steps in the same order; and what the step optimises on its own
    (keypoints, for instance) belongs to single images.
    """

    @property
    def model(self) -> nn.Module:
        """Holds every parameter that is trained and every buffer that changes: this is what a checkpoint keeps."""
        ...

    @property
    def optimizers(self) -> Mapping[str, Optimizer]:
        """The optimizers by name. Each of their parameters belongs to ``model``."""
        ...

    def __call__(self, batch: Batch, iteration: int) -> Mapping[str, float | Tensor]:
        """Does one iteration.

        Args:
            batch: this process's share, already on the model's device.
            iteration: counted from 0; the value that schedules depend on.

        Returns:
            Scalars to log by name: numbers or tensors of no dimension, the same names in each iteration. A tensor is
            only read (which waits for an accelerator) when the loop logs or saves.
        """
        ...
