"""Mixed precision of training steps: bfloat16 where the hardware has instructions for it."""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]
"""Precision of a training step: "bfloat16" on any device, or "auto" for bfloat16 only where it is faster."""


def half_precision(precision: Precision, device: torch.device) -> torch.autocast:
    """The autocast context for the networks of a training step.

    A processor without bfloat16 instructions emulates them, which takes two to three times as long as float32.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=computed_in(precision, device.type) == "bfloat16")


def computed_in(precision: Precision, kind: str) -> Literal["float32", "bfloat16"]:
    """The precision that is used on a type of device, such as "cpu" or "cuda"."""
    return precision if precision != "auto" else "bfloat16" if has_bfloat16(kind) else "float32"


def computed_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of ``computed_in``."""
    return torch.bfloat16 if computed_in(precision, device.type) == "bfloat16" else torch.float32


@cache
def has_bfloat16(kind: str) -> bool:
    """Whether a type of device is known to be faster in bfloat16.

    Among processors, these are the ones with AVX-512 BF16 (which includes all with AMX), if PyTorch uses it. With
    ``ATEN_CPU_CAPABILITY=avx2`` it doesn't: so runs a processor as an older one. ARM processors are not included, since
    this package has not been measured on them.
    """
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        # torch.cpu.get_capabilities is the public way; torch 2.6 lacks it.
        used = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()
        return used and torch.cpu._is_avx512_bf16_supported()
    return False
