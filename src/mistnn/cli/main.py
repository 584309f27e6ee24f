"""The command ``mist``: picks the subcommand, and says every mistake in one line.

Exit codes: 0 done; 1 done in part (some images were skipped); 2 a mistake in what was given, or output that can't be
written; 130 interrupted.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TextIO

from mistnn import __version__
from mistnn.errors import MistError, MistWarning

MISTAKE, INTERRUPTED = 2, 130

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of a write for which there is no room, or no longer a device."""


class Command(NamedTuple):
    """A subcommand.

    Attributes:
        module: where its function ``run(arguments) -> exit code`` is; loaded when the command is used.
        usage: its arguments, in short.
        summary: one line for the overview.
    """

    module: str
    usage: str
    summary: str


COMMANDS = {
    "demo": Command("mistnn.cli.demo", "[--out DIR]", "learn to find and read digits from nothing, and write a report"),
    "presets": Command("mistnn.cli.presets", "", "list the experiments that can be trained"),
    "inspect": Command("mistnn.cli.inspect", "DIR [--out FILE.png]", "see what a folder of your own images holds"),
    "build": Command("mistnn.cli.build", "NAME --out DIR", "make the photographs of PASCAL+COCO or VOC07 from copies"),
    "train": Command("mistnn.cli.train", "PRESET [--out DIR]", "train a preset; --resume DIR goes on with a run"),
    "evaluate": Command("mistnn.cli.evaluate", "MODEL", "measure a trained model on test scenes"),
    "report": Command("mistnn.cli.report", "MODEL --data-root DIR", "show on a page how well a model counts a folder"),
    "tune": Command("mistnn.cli.tune", "MODEL --out DIR", "choose how a heat map is read, on validation scenes"),
    "predict": Command("mistnn.cli.predict", "MODEL PATH... --out DIR", "find objects in your images"),
    "figure": Command("mistnn.cli.figure", "NAME", "draw a figure of the papers with a trained model"),
    "reproduce": Command("mistnn.cli.reproduce", "NAME", "fill a table of a paper, or run a study"),
    "results": Command("mistnn.cli.results", "", "make the page of all measured results"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: without the program's name; those of the process if not given.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _plain_warnings():
            code = _run(given)
    except MistError as error:
        code = _refuse(str(error))
    except KeyboardInterrupt:
        print("mist: interrupted", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        code = 0
    except OSError as error:
        code = _refuse(_mend(error))
    return _flushed(code)


def _flushed(code: int) -> int:
    """Writes out what was printed, which may fail only now; returns the exit code."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python flushes again at exit, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # A reader that has gone, as in `mist presets | head -1`, is no mistake.
        if not isinstance(error, BrokenPipeError) and code != MISTAKE:
            return _refuse(_mend(error))
    return code


def _refuse(message: str) -> int:
    print(f"mist: {_one_line(message)}", file=sys.stderr)
    return MISTAKE


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Prints our own warnings as one line; Python would add a place in the sources and what stands there."""
    usual = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, MistWarning):
            print(f"mist: {_one_line(str(message))}", file=sys.stderr)
        else:
            usual(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = usual


def _mend(error: OSError) -> str:
    """What to say of the system's errors that no command foresees: a path too long anywhere, output that is full.

    Raises:
        OSError: the error itself, if it is another: a defect of ours is shown in full.
    """
    if error.errno == errno.ENAMETOOLONG:
        return f"{error.filename}: {error.strerror}; give a path with shorter names"
    if error.errno in FULL:
        return f"what there is to say or keep can't be written ({error.strerror}); make room, or write it elsewhere"
    raise error


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(overview())
        return 0
    if arguments[0] in ("--version", "-V"):
        print(f"mist {__version__}")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(COMMANDS)}"
        raise MistError(f"no command is called {name!r}: {hint}")
    logging.basicConfig(format="mist: %(message)s")
    logging.getLogger("mistnn").setLevel(logging.INFO)
    try:
        return importlib.import_module(COMMANDS[name].module).run(arguments[1:])
    except SystemExit as stop:  # the command-line library leaves this way once it has printed a help page
        return stop.code if isinstance(stop.code, int) else 0


def overview() -> str:
    """The page of ``mist --help``."""
    usages = {f"mist {name} {command.usage}".rstrip(): command.summary for name, command in COMMANDS.items()}
    width = max(map(len, usages))
    lines = [
        "Find, count and read the objects in an image without boxes.",
        "",
        "usage: mist COMMAND [ARGUMENTS]",
        "",
        *(f"  {usage:<{width}}  {summary}" for usage, summary in usages.items()),
        "",
        "  mist COMMAND --help" + " " * (width - len("mist COMMAND --help")) + "  say what a command takes",
        "  mist --version" + " " * (width - len("mist --version")) + "  say which version this is",
        "",
        "New here? `mist demo` takes minutes, needs no data, and shows in demo/report.html what it learnt.",
        "MODEL is the folder of a run, as `mist train` writes it, or the name of a model that ships with the package.",
    ]
    return "\n".join(lines)


def _one_line(message: str) -> str:
    """The message without line breaks; library messages name fields, the command line also offers a short option."""
    return " ".join(message.split()).replace("--data.root", "--data-root")


if __name__ == "__main__":
    sys.exit(main())
