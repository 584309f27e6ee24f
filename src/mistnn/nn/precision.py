"""In what precision a training step computes: half where the hardware has instructions for it."""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch

from mistnn.errors import MistError

Precision = Literal["auto", "float32", "bfloat16"]
"""Of a training step: "bfloat16" in half precision wherever it runs, "auto" only where that is the faster one."""


def half_precision(precision: Precision, device: torch.device) -> torch.autocast:
    """The context in which networks are computed.

    Without instructions for bfloat16 a processor imitates them, and takes three times as long as with float32.

    Args:
        precision: see ``Precision``.
        device: where the networks are.
    """
    half = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device.type))
    return torch.autocast(device.type, torch.bfloat16, enabled=half)


@cache
def has_bfloat16(kind: str) -> bool:
    """Whether devices of a kind, such as "cpu" or "cuda", have instructions for bfloat16.

    Of processors those of AVX-512 BF16 or AMX, as PyTorch detects them: it uses no others.
    """
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Public in torch.cpu.get_capabilities, which torch 2.6 lacks.
    return kind == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def check_precision(precision: str) -> None:
    """Refuses what is no precision.

    Raises:
        MistError: naming the value and the mend.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise MistError(f"step.precision={precision!r} is unknown: use auto, float32 or bfloat16")
