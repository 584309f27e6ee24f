"""Memory that training frees is kept by the process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PAGES_OF_TENSOR = (64 << 20) // (os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096)
SCRIPT = """
import resource, sys, torch
from mistnn.training.memory import keep_freed_memory

kept = keep_freed_memory() if sys.argv[1] == "keep" else False
cleared = []
for _ in range(7):  # the later allocations reuse the earlier ones
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(16 << 20) + 1
    cleared.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(int(kept), min(cleared[-3:]))  # the heap may grow once more
"""


def run(mode: str, **variables: str) -> tuple[bool, int]:
    """Whether memory was kept, and the least number of pages that the system cleared for two tensors of 64 MiB."""
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name} | variables
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, mode], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    kept, pages = done.stdout.split()
    return bool(int(kept)), int(pages)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to keep freed memory")
def test_freed_memory_is_not_asked_for_again() -> None:
    kept, pages = run("keep")
    assert kept and pages < PAGES_OF_TENSOR // 10
    kept, pages = run("leave")
    assert not kept and pages > PAGES_OF_TENSOR


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to keep freed memory")
def test_a_choice_of_the_user_stands() -> None:
    assert run("keep", MALLOC_TRIM_THRESHOLD_="131072")[0] is False


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    from mistnn.training import memory

    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert memory.keep_freed_memory() is False
