"""A small step and data set for the tests of training; also a script, for runs that are killed or launched."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from mistnn.records import Batch, Sample
from mistnn.training import FitResult, TrainConfig, fit

DESCRIBE = {"format": 1, "mistnn": "0.0", "model": {"width": 3}, "experiment": {"train": {"steps": 40}}}


class ToyModel(nn.Module):
    """Two linear layers with dropout between them (random numbers) and a buffer that ``state_dict`` omits."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.first = nn.Linear(4, width)
        self.second = nn.Linear(width, 2)
        self.dropout = nn.Dropout(0.25)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64), persistent=False)
        self.seen: Tensor

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.dropout(torch.tanh(self.first(images.flatten(1)))))


class ToyStep:
    """Two backward passes and three optimizer steps per iteration, like the steps of the papers."""

    def __init__(self, width: int = 3, dropout: bool = True, wait: float = 0.0, nan_at: int = -1) -> None:
        torch.manual_seed(11)
        self.model = ToyModel(width)
        if not dropout:
            self.model.dropout.p = 0.0
        self.wait, self.nan_at = wait, nan_at
        self.seen_images: list[Tensor] = []
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "first": torch.optim.Adam(self.model.first.parameters(), lr=0.01),
            "second": torch.optim.SGD(
                [{"params": [self.model.second.weight]}, {"params": [self.model.second.bias], "lr": 0.05}],
                lr=0.02,
                momentum=0.9,
            ),
        }

    def __call__(self, batch: Batch, iteration: int) -> dict[str, float | Tensor]:
        assert batch.counts is not None
        self.seen_images.append(batch.images)
        targets = batch.counts.float()
        self.optimizers["second"].param_groups[0]["lr"] = 0.02 / (1 + iteration)
        for name in ("first", "second", "first"):
            optimizer = self.optimizers[name]
            optimizer.zero_grad()
            loss = ((self.model(batch.images) - targets) ** 2).sum(1).mean()
            loss.backward()
            optimizer.step()
        self.model.seen += 1
        time.sleep(self.wait)
        bad = loss * float("nan") if iteration == self.nan_at else loss
        return {"task": bad, "iteration": float(iteration)}


class Toys:
    """Unlimited samples made from their index."""

    def __getitem__(self, index: int) -> Sample:
        generator = torch.Generator().manual_seed(index)
        image = torch.rand(1, 2, 2, generator=generator)
        return Sample(image, torch.tensor([int(image.sum() > 2), int(image[0, 0, 0] > 0.5)]))


class FewToys(Toys):
    """A finite data set whose images hold their index."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        return Sample(torch.full((1, 2, 2), float(index)), torch.tensor([index % 2, 1]))


def train(
    out: Path,
    *,
    steps: int = 40,
    resume: bool = False,
    wait: float = 0.0,
    batch_size: int = 4,
    dropout: bool = True,
    save_every: int = 3,
    workers: int = 0,
) -> tuple[FitResult, ToyStep]:
    step = ToyStep(wait=wait, dropout=dropout)
    config = TrainConfig(
        steps=steps,
        batch_size=batch_size,
        seed=5,
        log_every=4,
        save_every=save_every,
        device="cpu",
        threads=1,
        workers=workers,
    )
    return fit(step, Toys(), config, out, describe=DESCRIBE, resume=resume), step


if __name__ == "__main__":
    options = json.loads(sys.argv[2])
    result, _ = train(Path(sys.argv[1]), **options)
    heavy = [name for name in ("accelerate", "tensorboard", "matplotlib") if name in sys.modules]
    print(json.dumps({"steps": result.steps, "interrupted": result.interrupted, "heavy": heavy}), flush=True)
