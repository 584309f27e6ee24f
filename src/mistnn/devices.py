"""Devices by the names that users give them, the cores of the CPU, and errors of too little memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from mistnn.errors import MistError

if TYPE_CHECKING:
    import torch
    from torch import nn

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
"""``auto`` is a CUDA device if there is one, else the CPU. MPS is the graphics processor of a Mac."""

_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, or that of the graphics processor, is too small."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY)
    )


def device_of(model: nn.Module) -> torch.device:
    """The device of a network's parameters; the CPU if it has none."""
    import torch

    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def find_device(name: str, option: str = "--device") -> torch.device:
    """The device of a name.

    Args:
        name: a ``DeviceName``, or one of torch's, such as "cuda:1".
        option: where the user gave it, for the message.

    Raises:
        MistError: if torch finds no such device here.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    refused = f"{option} {name} is no device of mistnn: give auto, cpu, cuda or mps"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise MistError(refused) from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise MistError(refused)
    known = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if device.type in known and not known[device.type]():
        what = "GPU" if device.type == "cuda" else "MPS device"
        raise MistError(f"{option} {name}: torch finds no {what} here; give --device cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise MistError(f"{option} {name}: there are {count} GPUs here, numbered from 0: give one of them")
    return device
