"""Training one model with several processes.

Accelerate finds devices and starts the process group. It is imported only in a run that was launched with it (or with
torchrun): the import takes about two seconds.

The model is not wrapped in ``DistributedDataParallel``, which expects one forward and one backward pass per iteration:
the steps here make several. Instead, the gradients are averaged just before each optimizer uses them.
"""

from __future__ import annotations

import atexit
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mistnn.devices import find_device
from mistnn.errors import MistError

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: its number; only number 0, the main process, writes files and evaluates.
        accelerator: ``None`` for a single process.
    """

    rank: int
    count: int
    device: torch.device
    accelerator: Accelerator | None = None

    @property
    def main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes of a tensor with the same shape in all of them."""
        if self.accelerator is None or self.count == 1:
            return values
        reduced = self.accelerator.reduce(values.to(self.device), reduction="mean")
        assert isinstance(reduced, Tensor)
        return reduced

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; used to stop all of them at the same iteration."""
        return flag if self.count == 1 else bool(self.mean(torch.tensor(float(flag))) > 0)

    def same_model(self, model: nn.Module) -> None:
        """Copies the main process's parameters and buffers to all processes."""
        if self.count > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                data = tensor.detach().contiguous()
                torch.distributed.broadcast(data, src=0)
                tensor.detach().copy_(data)

    def wait(self) -> None:
        """Returns when all processes have called it."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()


def join_processes(device: str) -> Processes:
    """Joins the processes that a launcher started; without a launcher there is a single process.

    Raises:
        MistError: if the requested device is missing, or if the launcher requests mixed precision.
    """
    found = find_device(device, "train.device")
    if "WORLD_SIZE" not in os.environ:
        if "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ:
            warnings.warn(
                "accelerate launch started only one process; for several on CPU, call it with --multi_gpu "
                "--num_processes N (its name for several processes on one machine) and without --cpu",
                stacklevel=2,
            )
        return Processes(0, 1, found)
    if (precision := os.environ.get("ACCELERATE_MIXED_PRECISION", "no")) != "no":
        raise MistError(
            f"accelerate launch --mixed_precision {precision}: a step chooses its own precision; launch with "
            "--mixed_precision no and set the step's precision field"
        )
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=found.type == "cpu")
    atexit.register(accelerator.end_training)  # a process that exits within its group may abort
    return Processes(accelerator.process_index, accelerator.num_processes, accelerator.device, accelerator)


@contextmanager
def shared_gradients(optimizers: Mapping[str, Optimizer], processes: Processes) -> Iterator[None]:
    """Inside the context, each step of these optimizers uses the mean of the gradients over the processes."""

    def average(optimizer: Optimizer, args: object, kwargs: object) -> None:
        average_gradients(optimizer, processes)

    shared = optimizers.values() if processes.count > 1 else ()
    hooks = [optimizer.register_step_pre_hook(average) for optimizer in shared]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def average_gradients(optimizer: Optimizer, processes: Processes) -> None:
    """Replaces the gradients of an optimizer's parameters by their means over the processes.

    One message carries all gradients. Its length is constant: a parameter without a gradient contributes zeros, and
    each parameter a flag. So processes with different graphs can't deadlock, and a parameter that has no gradient in
    any process keeps none.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    present = torch.tensor([float(p.grad is not None) for p in parameters], device=processes.device)
    message = processes.mean(torch.cat([*(gradient.reshape(-1) for gradient in gradients), present]))
    *means, shares = message.split([*(p.numel() for p in parameters), len(parameters)])
    for parameter, gradient, mean, share in zip(parameters, gradients, means, shares.tolist(), strict=True):
        if share > 0:
            parameter.grad = gradient.copy_(mean.view(gradient.shape))
