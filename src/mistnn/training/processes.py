"""Training one model with several processes.

The model is not wrapped in ``DistributedDataParallel``, which expects one forward and one backward pass per iteration:
the steps here make several. Instead, the gradients are averaged just before each optimizer uses them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch.optim import Optimizer

from mistnn.processes import Processes


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
