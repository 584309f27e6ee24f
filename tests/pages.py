"""The commands and code that the pages show, and how a page's source marks what is not run.

A block of commands is run by the tests unless an HTML comment on the line before it says otherwise:

    <!-- not run: REASON -->       only its options are checked
    <!-- slow -->                  run with the slow tests
    <!-- slow: --train.steps 20 -->    the same, with these options added to each ``mist train``
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SHELL = ("console", "bash", "sh", "shell")
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<kind>\w+)[^\n]*\n(?P<body>.*?)^```", re.MULTILINE | re.DOTALL
)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
OF_THE_SYSTEM = ("curl", "docker", "jupyter", "make", "pip", "python3")
"""Programs that install, or that need what a test can't have; their lines are left out of a block that is run."""
HISTORY = ("logbook.md",)
"""Pages that tell of commands as they once were."""
IN_README = {
    "pip install .": "not run: it trains for minutes",
    "mist inspect my-folder": "slow: --train.steps 20",
    "mist presets": "not run: it needs MNIST",
}
"""Marks of the README, by a line of the block: there is no room for comments."""


class Block(NamedTuple):
    """A block of a page: its language, its mark (empty if none) and its lines of commands or code."""

    page: str
    kind: str
    mark: str
    lines: tuple[str, ...]

    @property
    def reason(self) -> str:
        """Why it is not run; empty if it is."""
        return self.mark.partition("not run:")[2].strip()

    @property
    def slow(self) -> bool:
        return self.mark.startswith("slow")

    @property
    def added(self) -> list[str]:
        """Options for ``mist train``."""
        return shlex.split(self.mark.partition("slow:")[2])

    def __str__(self) -> str:
        return f"{self.page}: {self.lines[0] if self.lines else ''}"


def pages() -> list[Path]:
    """Every page of the project for users and contributors."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]


def blocks(page: Path, *kinds: str) -> list[Block]:
    """The blocks of a page in some languages. Of commands, prompts, comments and output are cut off."""
    found = []
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if match["kind"] not in kinds:
            continue
        lines = match["body"].rstrip("\n").splitlines()
        if match["kind"] in SHELL:
            joined = match["body"].replace("\\\n", " ").splitlines()
            prompted = [line.removeprefix("$ ") for line in joined if line.startswith("$ ")]
            lines = [line.strip() for line in prompted or joined if line.strip() and not line.startswith("#")]
        mark = match["mark"] or next((mark for line, mark in IN_README.items() if line in lines), "")
        found.append(Block(page.name, match["kind"], mark, tuple(lines)))
    return found


def shown_commands(page: Path, program: str) -> dict[str, bool]:
    """The commands of a page that begin with a program, and whether they are in a block: else within the text."""
    text = page.read_text(encoding="utf-8")
    found = {" ".join(one.split()): False for one in INLINE.findall(BLOCK.sub("", text))}
    found |= {line: True for block in blocks(page, *SHELL) for line in block.lines}
    return {line: whole for line, whole in found.items() if line.startswith(f"{program} ")}
