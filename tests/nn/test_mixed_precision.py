"""Half precision is used where the hardware supports it, or where bfloat16 is requested."""

from __future__ import annotations

import pytest
import torch

from mistnn.nn import mixed_precision as precision
from mistnn.nn.mixed_precision import Precision, half_precision


def computed_in(asked: Precision) -> torch.dtype:
    with half_precision(asked, torch.device("cpu")):
        return torch.nn.functional.linear(torch.ones(2, 3), torch.ones(4, 3)).dtype


@pytest.mark.parametrize("able", [True, False])
def test_auto_is_half_where_the_hardware_is_able(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda kind: able)
    assert computed_in("auto") == (torch.bfloat16 if able else torch.float32)
    assert computed_in("bfloat16") == torch.bfloat16, "as requested, even if slow"
    assert computed_in("float32") == torch.float32


@pytest.mark.parametrize(("instructions", "library"), [(True, True), (True, False), (False, True)])
def test_processors(monkeypatch: pytest.MonkeyPatch, instructions: bool, library: bool) -> None:
    asked = precision.has_bfloat16.__wrapped__  # without its cache
    assert asked("cpu") in (True, False), "the query works in this PyTorch"
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: library)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert asked("cpu") == (instructions and library)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not asked("cpu"), "ATEN_CPU_CAPABILITY=avx2 makes an old processor of a new one"


def test_other_devices() -> None:
    assert not precision.has_bfloat16("mps"), "not measured"
    assert torch.cuda.is_available() or not precision.has_bfloat16("cuda")
