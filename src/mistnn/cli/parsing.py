"""Arguments into frozen dataclasses, by tyro; what it has to complain about is said again in one line."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from mistnn.errors import MistError

Arguments = TypeVar("Arguments")

# What a help page shows for a value, and nothing where "(default: None)" would stand.
Model = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
Folder = Annotated[Path, tyro.conf.arg(metavar="DIR")]
Number = Annotated[int, tyro.conf.arg(metavar="N")]
OptionalNumber = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]
OptionalModel = Annotated[str | None, tyro.conf.arg(metavar="MODEL", help_behavior_hint="")]
OptionalFolder = Annotated[str | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]
OptionalFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]

MAX_WIDTH = 100
"""Columns of a description; longer lines are hard to read."""

_MARK = "[what the command does]"
_OPTION = re.compile(r"--[a-z][\w.-]*")
# tyro's words (1.0) and ours; what matches none is passed on as it is.
_IN_OUR_WORDS = (
    (r"^Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)$", r"\1: \2 is no whole number"),
    (r"^Error parsing (\S+): no type matching \{None\}\|INT .* from \[(.*)\]$", r"\1: \2 is no whole number"),
    (r"^Error parsing (\S+): could not convert string to float: (.*)$", r"\1: \2 is no number"),
    (r"^Error parsing (\S+): Could not find valid parse for arguments: \[(.*)\]$", r"\1 can't be read from \2"),
    (r"^invalid choice (.*) for argument '(\S+)'\. Expected one of \((.*)\)$", r"\2: \1 is not one of \3"),
    (r"^Missing value for argument '(\S+)'.*$", r"\1 needs a value"),
)


def parse(
    kind: type[Arguments], arguments: Sequence[str], prog: str, description: str, default: Arguments | None = None
) -> Arguments:
    """Reads a subcommand's arguments.

    Args:
        kind: a frozen dataclass; its docstring's ``Attributes`` are the help of its options.
        arguments: what was given after the subcommand's name.
        prog: the command up to there, for the help and the errors.
        description: the first lines of the help, a paragraph a line; indented lines stay as they are.
        default: values of what isn't given.

    Raises:
        MistError: an unknown option, a missing or impossible value.
        SystemExit: after ``--help``.
    """
    page, complaint = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(page), contextlib.redirect_stderr(complaint):
            value, unknown = _cli(kind, arguments, prog, default)
    except SystemExit as stop:
        if stop.code in (0, None):
            print(_tidied(page.getvalue(), description), end="")
            raise
        raise MistError(f"{_said_again(complaint.getvalue())}; see `{prog} --help`") from None
    if unknown:
        raise MistError(_unknown(unknown[0], _options(kind, prog, default), prog))
    return value


def takes(arguments: Sequence[str], option: str) -> bool:
    """Whether an option is among the arguments, with hyphens or underscores."""
    return any(argument.partition("=")[0].replace("_", "-") == option for argument in arguments)


def renamed(arguments: Sequence[str], alias: str, option: str) -> list[str]:
    """The arguments with one option's other name replaced by its own."""
    result = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        result.append(f"{option}{equals}{value}" if name.replace("_", "-") == alias else argument)
    return result


def _cli(
    kind: type[Arguments], arguments: Sequence[str], prog: str, default: Arguments | None
) -> tuple[Arguments, list[str]]:
    if default is None:
        return tyro.cli(kind, prog=prog, description=_MARK, args=arguments, return_unknown_args=True)
    return tyro.cli(kind, prog=prog, description=_MARK, args=arguments, default=default, return_unknown_args=True)


def _tidied(page: str, description: str) -> str:
    """The help page with the description, wrapped between words, and without the markup of docstrings."""
    width = min(shutil.get_terminal_size().columns, MAX_WIDTH)
    wrapped = [line if line.startswith(" ") else textwrap.fill(line, width) for line in description.splitlines()]
    text = page.replace(_MARK, "\n".join(wrapped)).replace("``", "")
    # "Not given" is what an option is anyway.
    text = text.replace(" (default: None)", "").replace("(default: None)", "").replace("{None}|", "")
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _options(kind: type[Arguments], prog: str, default: Arguments | None) -> list[str]:
    """Every option there is, read off the help page."""
    page = io.StringIO()
    with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        _cli(kind, ["--help"], prog, default)
    return sorted(set(_OPTION.findall(page.getvalue())))


def _unknown(argument: str, options: Sequence[str], prog: str) -> str:
    """What to say of an argument nobody asked for, with the nearest option."""
    if not argument.startswith("-"):
        return f"unexpected argument {argument!r}: `{prog} --help` says what the command takes"
    name = argument.partition("=")[0].replace("_", "-")
    # --steps for --train.steps: the last part of a name is what people remember.
    near = [option for option in options if option.endswith(f".{name.lstrip('-')}")]
    near = near or difflib.get_close_matches(name, options, n=1)
    hint = f"did you mean {near[0]}?" if near else f"`{prog} --help` lists the options"
    return f"unknown option {argument!r}: {hint}"


def _said_again(text: str) -> str:
    """What tyro complains about, in our words and one line: the paragraph below the title of its page."""
    sections: list[list[str]] = [[]]
    for line in text.splitlines():
        row = line.strip("│").rstrip()
        if row.startswith("╭"):
            sections[-1].append(row.strip("╭─╮ "))
        if not row.strip("╭╰╮╯─- ") or row.startswith("╭"):
            sections.append([])
        else:
            sections[-1].append(row)
    paragraphs = [section for section in sections if section]
    body = paragraphs[1] if len(paragraphs) > 1 else paragraphs[0]
    if body[0].lstrip().startswith("Missing from"):
        indents = [len(row) - len(row.lstrip()) for row in body[1:]]
        needed = [row.strip() for row, indent in zip(body[1:], indents, strict=True) if indent == min(indents)]
        return f"{' and '.join(needed)} must be given"
    said = " ".join(" ".join(body).split()).rstrip(".")
    for pattern, ours in _IN_OUR_WORDS:
        said = re.sub(pattern, ours, said)
    return said
