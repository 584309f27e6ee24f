"""``mist doctor``: what this installation can do, for yourself and for reports of errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mistnn.cli.parsing import parse

DESCRIPTION = (
    "Reports the versions, the processor and its precision, accelerators, memory and disk space, the weights that are "
    "found, and which extras are missing with the command that installs them. It contacts no other computer."
)


@dataclass(frozen=True)
class Doctor:
    """The arguments.

    Attributes:
        json: print JSON.
    """

    json: bool = False


def run(arguments: Sequence[str]) -> int:
    """Prints the report."""
    request = parse(Doctor, arguments, "mist doctor", DESCRIPTION)
    from mistnn.reports.doctor import describe, examine

    found = examine(Path.cwd())
    print(json.dumps(found, indent=1) if request.json else "\n".join(describe(found)))
    return 0
