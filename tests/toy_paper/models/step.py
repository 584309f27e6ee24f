"""The step of the toy paper."""

from __future__ import annotations

import torch
from mistnn.models.toy.config import BrightestStepConfig
from mistnn.models.toy.network import Brightest
from torch import Tensor

from mistnn.records import Batch


class BrightestStep:
    """Makes the brightest pixel of each image 1."""

    def __init__(self, model: Brightest, config: BrightestStepConfig) -> None:
        self.model, self.config = model, config
        self.optimizers = {"gain": torch.optim.SGD(model.parameters(), lr=config.rate)}

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """One step of gradient descent."""
        loss = (1 - self.model(batch.images).flatten(1).amax(1)).square().mean()
        self.optimizers["gain"].zero_grad()
        loss.backward()
        self.optimizers["gain"].step()
        return {"loss": loss.detach()}
