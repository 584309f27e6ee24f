"""Command-line arguments as frozen dataclasses, parsed by tyro; every mistake is reported in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import itertools
import re
import shutil
import textwrap
import types
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from mistnn.config import Config, Rule, at_least
from mistnn.devices import DeviceName
from mistnn.errors import MistError

Arguments = TypeVar("Arguments")

# The name of a value on the help page, and nothing where tyro would print "(default: None)".
Model = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
Folder = Annotated[Path, tyro.conf.arg(metavar="DIR")]
Number = Annotated[int, tyro.conf.arg(metavar="N")]
OptionalNumber = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]
OptionalModel = Annotated[str | None, tyro.conf.arg(metavar="MODEL", help_behavior_hint="")]
OptionalFolder = Annotated[str | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]
OptionalFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]

Device = Annotated[DeviceName, tyro.conf.arg(metavar="NAME")]
Images = Annotated[Number, at_least(1)]
OptionalSteps = Annotated[OptionalNumber, at_least(1)]
Seed = Annotated[Number, at_least(0)]
OptionalSeed = Annotated[OptionalNumber, at_least(0)]


def _has_folder(path: Path) -> bool:
    return not path.is_dir() and path.absolute().parent.is_dir()


WRITABLE = Rule(_has_folder, "a file in a folder that exists")
PAGE = Rule(
    lambda path: path.suffix.lower() in (".html", ".htm") and _has_folder(path),
    "a file that ends in .html, in a folder that exists",
)
NewFile = Annotated[OptionalFile, WRITABLE]

INLINE = tyro.conf.arg(name="")
"""Marks a field whose own fields are the options, without a prefix."""

MAX_WIDTH = 100
"""Columns of a description; longer lines are hard to read."""

_MARK = "[description]"
_NUMBERS = {int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Options(Config):
    """Base of the arguments of a subcommand. Rules are declared on the fields; errors name the options."""

    def name_of(self, field: str) -> str:
        """The option of a field."""
        return f"--{field.replace('_', '-')}"


def parse(
    kind: type[Arguments], arguments: Sequence[str], prog: str, description: str, default: Arguments | None = None
) -> Arguments:
    """Parses the arguments of a subcommand.

    Args:
        kind: a frozen dataclass; the ``Attributes`` of its docstring are the help texts of its options.
        arguments: what follows the subcommand's name.
        prog: the command up to there, for help and errors.
        description: the first lines of the help page, one paragraph per line; indented lines stay unchanged.
        default: values of options that are not given.

    Raises:
        MistError: for an unknown option, or a missing or invalid value.
        SystemExit: after ``--help``.
    """
    page, complaint = io.StringIO(), io.StringIO()
    registry = ConstructorRegistry()
    registry.primitive_rule(_number_or_none)
    try:
        with contextlib.redirect_stdout(page), contextlib.redirect_stderr(complaint):
            value, unknown = tyro.cli(
                kind,
                prog=prog,
                description=_MARK,
                args=arguments,
                default=tyro.MISSING_NONPROP if default is None else default,
                return_unknown_args=True,
                registry=registry,
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            print(_tidy(page.getvalue(), description), end="")
            raise
        missing = _missing(kind, arguments) if default is None else []
        reason = f"{' and '.join(missing)} must be given" if missing else _without_frame(complaint.getvalue())
        raise MistError(f"{reason.rstrip('.')}; see `{prog} --help`") from None
    if unknown:
        raise MistError(_unknown(unknown[0], options_of(kind, default), prog))
    return value


def takes(arguments: Sequence[str], *options: str) -> bool:
    """Whether one of some options is among the arguments, written with hyphens or underscores."""
    return any(argument.partition("=")[0].replace("_", "-") in options for argument in arguments)


def renamed(arguments: Sequence[str], alias: str, option: str) -> list[str]:
    """The arguments with another name of an option replaced by its own."""
    result = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        result.append(f"{option}{equals}{value}" if name.replace("_", "-") == alias else argument)
    return result


def options_of(kind: type, default: Any = None, prefix: str = "") -> dict[str, bool]:
    """The options of a dataclass, those of nested dataclasses included: name -> whether it is a flag without a value.

    Args:
        kind: the dataclass.
        default: its values; the defaults of its fields if not given.
        prefix: of the names, such as "train.".
    """
    found: dict[str, bool] = {}
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        extras = getattr(hints[field.name], "__metadata__", ())
        value = field.default if default is None else getattr(default, field.name)
        name = field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            found |= options_of(type(value), value, prefix if INLINE in extras else f"{prefix}{name}.")
        elif isinstance(value, bool):
            found |= {f"--{prefix}{name}": True, f"--{prefix}no-{name}": True}
        elif tyro.conf.Positional not in extras:
            found[f"--{prefix}{name}"] = False
    return found


def places_of_words(arguments: Sequence[str], options: dict[str, bool]) -> list[int]:
    """The places of arguments that are neither options nor the value after one."""
    return [
        place
        for place, (before, argument) in enumerate(itertools.pairwise(("", *arguments)))
        if not argument.startswith("-")
        and ("=" in before or not before.startswith("--") or options.get(before.replace("_", "-"), False))
    ]


def _number_or_none(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """How numbers and optional numbers are read, with our messages; ``None`` for other types."""
    parts = set(get_args(info.type) or (info.type,))
    kind = next(iter(parts & _NUMBERS.keys()), None)
    if kind is None or parts - {kind, types.NoneType} or get_origin(info.type) is tuple:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=kind.__name__.upper(),
        instance_from_str=lambda texts: _number(kind, texts[0], types.NoneType in parts),
        is_instance=lambda value: value is None or isinstance(value, int | float),
        str_from_instance=lambda value: [str(value)],
    )


def _number(kind: type[int | float], text: str, optional: bool) -> int | float | None:
    if optional and text == "None":
        return None
    try:
        return kind(text)
    except ValueError:
        fix = f": write {text.replace(',', '.')}, with a point" if re.fullmatch(r"[+-]?\d*,\d+", text) else ""
        raise ValueError(f"{text!r} is not {_NUMBERS[kind]}{fix if kind is float else ''}") from None


TWO_NUMBERS: PrimitiveConstructorSpec[Any] = PrimitiveConstructorSpec(
    nargs=2,
    metavar="FLOAT FLOAT",
    instance_from_str=lambda texts: tuple(_number(float, text, False) for text in texts),
    is_instance=lambda value: value is None or isinstance(value, tuple),
    str_from_instance=lambda value: ["None"] if value is None else [str(one) for one in value],
)
"""Marks an optional pair of numbers; tyro's own message about a bad one doesn't say which."""


def _missing(kind: type, arguments: Sequence[str]) -> list[str]:
    """The required arguments that are not given."""
    missing = []
    words = len(places_of_words(arguments, options_of(kind)))
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            continue
        option = f"--{field.name.replace('_', '-')}"
        if tyro.conf.Positional in hints[field.name].__metadata__:
            words -= 1
            if words < 0:
                missing.append(field.name.upper())
        elif not takes(arguments, option):
            missing.append(option)
    return missing


def _tidy(page: str, description: str) -> str:
    """The help page with the description, wrapped between words, and without the markup of docstrings."""
    width = min(shutil.get_terminal_size().columns, MAX_WIDTH)
    wrapper = textwrap.TextWrapper(width, break_on_hyphens=False)
    wrapped = [line if line.startswith(" ") else wrapper.fill(line) for line in description.splitlines()]
    text = page.replace(_MARK, "\n".join(wrapped)).replace("``", "")
    # An option without a default is optional in any case.
    text = text.replace(" (default: None)", "").replace("(default: None)", "").replace("{None}|", "")
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _without_frame(text: str) -> str:
    """What tyro complains about, in one line: the paragraph below the title of its page."""
    lines = [line.strip() for line in text.splitlines()]
    groups = itertools.groupby(lines, key=lambda line: bool(line.strip("-")))
    paragraphs = [" ".join(group) for is_text, group in groups if is_text]
    said = paragraphs[min(1, len(paragraphs) - 1)]
    return said[:1].lower() + said[1:]


def _unknown(argument: str, options: Collection[str], prog: str) -> str:
    """The error about an unexpected argument, with the nearest option."""
    if not argument.startswith("-"):
        return f"unexpected argument {argument!r}: `{prog} --help` lists what the command takes"
    name = argument.partition("=")[0].replace("_", "-")
    # --steps for --train.steps: users remember the last part of a name.
    near = [option for option in options if option.endswith(f".{name.lstrip('-')}")]
    near = near or difflib.get_close_matches(name, options, n=1)
    hint = f"did you mean {near[0]}?" if near else f"`{prog} --help` lists the options"
    return f"unknown option {argument!r}: {hint}"
