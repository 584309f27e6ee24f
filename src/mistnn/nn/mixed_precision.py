"""In what precision a training step computes: half where the hardware has instructions for it."""

from __future__ import annotations

from functools import cache
from typing import Literal, get_args

import torch

from mistnn.errors import MistError

Precision = Literal["auto", "float32", "bfloat16"]
"""Of a training step: "bfloat16" in half precision wherever it runs, "auto" only where that is the faster one."""


def half_precision(precision: Precision, device: torch.device) -> torch.autocast:
    """The context in which networks are computed.

    Without instructions for bfloat16 a processor imitates them, and takes two to three times as long as with float32.

    Args:
        precision: see ``Precision``.
        device: where the networks are.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=computed_in(precision, device.type) == "bfloat16")


def computed_in(precision: Precision, kind: str) -> Literal["float32", "bfloat16"]:
    """What a precision comes to on devices of a kind, such as "cpu" or "cuda"."""
    if precision == "auto":
        return "bfloat16" if has_bfloat16(kind) else "float32"
    return precision


@cache
def has_bfloat16(kind: str) -> bool:
    """Whether devices of a kind are known to be faster in bfloat16.

    Of processors those with AVX-512 BF16, which all with AMX have too, and a PyTorch that uses it. Those of ARM may
    have such instructions, but nobody has measured this package on them: they are taken to have none.
    """
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        # Public in torch.cpu.get_capabilities, which torch 2.6 lacks.
        return torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported()
    return False


def check_precision(precision: str) -> None:
    """Refuses what is no precision.

    Raises:
        MistError: naming the value and the mend.
    """
    if precision not in get_args(Precision):
        raise MistError(f"step.precision={precision!r} is unknown: use {' or '.join(get_args(Precision))}")
