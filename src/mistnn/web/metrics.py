"""What a server counts, as text for Prometheus."""

from __future__ import annotations

import mmap
from collections import Counter
from pathlib import Path

BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper ends of the groups of durations, in seconds (our choice)."""
KIND = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of Prometheus's text format."""
_STATM = Path("/proc/self/statm")


class Metrics:
    """Requests by path and code, their durations, images and objects since the start."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.durations = [0] * (len(BOUNDS) + 1)
        self.seconds, self.images, self.objects = 0.0, 0, 0

    def add(self, path: str, code: int, seconds: float) -> None:
        """Counts a request."""
        self.requests[path, code] += 1
        self.durations[sum(seconds > bound for bound in BOUNDS)] += 1
        self.seconds += seconds

    def text(self, waiting: int, batches: int) -> str:
        """The text: counters, the histogram of durations, and what is so at the moment."""
        lines = ["# TYPE mist_requests_total counter"]
        for (path, code), number in sorted(self.requests.items()):
            lines.append(f'mist_requests_total{{path="{path}",code="{code}"}} {number}')
        lines.append("# TYPE mist_request_seconds histogram")
        total = 0
        for bound, number in zip((*map(str, BOUNDS), "+Inf"), self.durations, strict=True):
            total += number
            lines.append(f'mist_request_seconds_bucket{{le="{bound}"}} {total}')
        lines += [f"mist_request_seconds_sum {self.seconds:.6f}", f"mist_request_seconds_count {total}"]
        counters = {"images_total": self.images, "objects_total": self.objects, "batches_total": batches}
        for kind, values in (("counter", counters), ("gauge", {"waiting": waiting, **_memory()})):
            for name, value in values.items():
                lines += [f"# TYPE mist_{name} {kind}", f"mist_{name} {value}"]
        return "\n".join(lines) + "\n"


def _memory() -> dict[str, int]:
    """The resident memory in bytes; empty where the system doesn't say."""
    try:
        return {"resident_memory_bytes": int(_STATM.read_text("ascii").split()[1]) * mmap.PAGESIZE}
    except OSError:
        return {}
