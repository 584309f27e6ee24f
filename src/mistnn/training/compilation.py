"""Networks compiled for training, on a GPU as CUDA graphs."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from mistnn.errors import MistWarning
from mistnn.interfaces import Step
from mistnn.records import Batch
from mistnn.training.checkpoint import model_tensors


@contextmanager
def compiled_networks(
    step: Step, wanted: bool, steps: int, device: torch.device
) -> Iterator[Callable[[Batch, int], Any]]:
    """Yields the step, whose networks are compiled within the block if that is wanted.

    The parts of the model are compiled one by one by ``torch.compile``; on a GPU each becomes a CUDA graph, which
    launches all of its operations at once. They are compiled in training mode only: evaluation runs as ever. Results
    are the same apart from rounding.

    Before the first step, the last one of the run is tried on the same batch, when all parts are trained, and undone.
    If it fails, a warning says why, and training goes on without compilation.

    Args:
        step: the step of an algorithm.
        wanted: whether to compile.
        steps: the number of steps of the run.
        device: where the model will be; it may be moved there later.
    """
    if not wanted:
        yield step
        return
    networks = [part for part in step.model.children() if any(True for _ in part.parameters())]
    for network in networks:
        _compile(network, device)
    tried = False

    def compiled_step(batch: Batch, iteration: int) -> Any:
        nonlocal tried
        if not tried:
            tried = True
            if (why := _trial(step, batch, steps - 1)) is not None:
                _undo(networks)
                warnings.warn(
                    f"the networks can't be compiled, so they are trained as they are ({why}); "
                    "--train.compile false hides this message",
                    MistWarning,
                    stacklevel=2,
                )
        torch.compiler.cudagraph_mark_step_begin()
        return step(batch, iteration)

    try:
        yield compiled_step
    finally:
        _undo(networks)


def _compile(network: nn.Module, device: torch.device) -> None:
    plain = network.forward
    compiled = torch.compile(plain, mode="reduce-overhead" if device.type == "cuda" else None)

    def forward(*given: Any, **named: Any) -> Any:
        return (compiled if network.training else plain)(*given, **named)

    network.forward = forward  # hides the method of the class, until it is deleted


def _undo(networks: list[nn.Module]) -> None:
    for network in networks:
        network.__dict__.pop("forward", None)


def _trial(step: Step, batch: Batch, iteration: int) -> str | None:
    """Makes one step and undoes it; returns why it failed, or ``None``."""
    tensors = {name: tensor.detach().clone() for name, tensor in model_tensors(step.model).items()}
    states = {name: copy.deepcopy(optimizer.state_dict()) for name, optimizer in step.optimizers.items()}
    devices = {tensor.device for tensor in tensors.values() if tensor.device.type == "cuda"}
    why = None
    with torch.random.fork_rng(list(devices)):
        try:
            torch.compiler.cudagraph_mark_step_begin()
            step(batch, iteration)
        except Exception as error:  # whatever compilers raise; an error of the step itself comes again without one
            why = " ".join((str(error).strip() or type(error).__name__).splitlines()[:2])  # which compiler, what
    with torch.no_grad():
        for name, tensor in model_tensors(step.model).items():
            tensor.copy_(tensors[name])
    for name, optimizer in step.optimizers.items():
        optimizer.zero_grad(set_to_none=True)
        optimizer.load_state_dict(states[name])
    return why
