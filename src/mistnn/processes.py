"""The processes that a launcher started, which train one model together or share a prediction.

Accelerate finds devices and starts the process group. It is imported only in a run that was launched with it (or with
torchrun): the import takes about two seconds.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import warnings
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mistnn.devices import find_device
from mistnn.errors import MistError

if TYPE_CHECKING:
    from accelerate import Accelerator

PATIENCE = timedelta(days=30)
"""How long a process that shares a prediction waits for the others, whose parts may take longer."""


@dataclass(frozen=True)
class Processes:
    """This process among those that work together.

    Attributes:
        rank: its number, from 0, the main process.
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
        try:
            reduced = self.accelerator.reduce(values.to(self.device), reduction="mean")
        except RuntimeError as error:
            raise _ended(error) from error
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

    def agree(self, content: str) -> bool:
        """Whether the text is the same in all processes."""
        if self.count == 1:
            return True
        own = torch.tensor(list(hashlib.sha256(content.encode("utf-8", "surrogateescape")).digest()))
        numbers = own.to(self.device, torch.float32)
        return not self.any(not torch.equal(self.mean(numbers.clone()), numbers))

    def wait(self) -> None:
        """Returns when all processes have called it; raises ``MistError`` if one of them has ended."""
        if self.accelerator is not None:
            try:
                self.accelerator.wait_for_everyone()
            except RuntimeError as error:
                raise _ended(error) from error


def _ended(error: RuntimeError) -> MistError:
    why = " ".join(str(error).split())[:100]
    return MistError(f"another process stopped, see its message; this one noticed: {why}")


def alone(device: torch.device) -> Processes:
    """A single process, whatever started it."""
    return Processes(0, 1, device)


def join_processes(device: str, option: str = "train.device", patience: timedelta | None = None) -> Processes:
    """Joins the processes that a launcher started; without a launcher there is a single process.

    Args:
        device: the name of a device; with a launcher on GPUs, each process has its own.
        option: where the user gave it, for the message.
        patience: how long to wait for other processes; by default accelerate's 10 to 30 minutes.

    Raises:
        MistError: if the requested device is missing, or if the launcher requests mixed precision.
    """
    found = find_device(device, option)
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
            f"accelerate launch --mixed_precision {precision}: mistnn chooses the precision itself; launch with "
            "--mixed_precision no, and set the precision field of the step, or --precision of mist predict"
        )
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    handlers: list[Any] = [] if patience is None else [InitProcessGroupKwargs(timeout=patience)]
    accelerator = Accelerator(cpu=found.type == "cpu", kwargs_handlers=handlers)
    atexit.register(accelerator.end_training)  # a process that exits within its group may abort
    return Processes(accelerator.process_index, accelerator.num_processes, accelerator.device, accelerator)
