"""The command ``mist``: runs a subcommand, and reports every mistake in one line.

Exit codes: 0 success; 1 partial success (some images were skipped); 2 invalid input, or output that can't be written;
130 interrupted.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import io
import itertools
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mistnn import __version__
from mistnn.cli.busy import advise
from mistnn.devices import is_out_of_memory
from mistnn.errors import MistError, MistWarning

MISTAKE, INTERRUPTED = 2, 130

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of a write to a full or missing device."""

REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
"""Errors of files and folders that belong to others or can only be read."""

LOST = tuple(
    getattr(errno, name)
    for name in ("ESTALE", "ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH", "ETIMEDOUT", "ENODEV", "ENXIO", "EREMOTEIO")
    if hasattr(errno, name)
)
"""Errors of a network folder or a drive that is gone."""

NO_MEMORY = (
    "there is not enough memory: close other programs, shrink large images, or process fewer at once "
    "(mist train: a smaller --train.batch-size); a run or a prediction that has saved its progress continues with "
    "--resume"
)

COMMANDS = {
    "demo": ("[--out DIR]", "learn to find digits without boxes, and write a report"),
    "presets": ("", "list the experiments that can be trained"),
    "app": ("[DIR]", "do everything with photographs and counts on a page in the browser"),
    "inspect": ("DIR [--out FILE.png]", "see what an image folder holds"),
    "build": ("NAME --out DIR", "make the photographs of PASCAL+COCO or VOC07"),
    "convert": ("PATH... --out DIR", "make plain images of multi-page and multi-channel TIFF files"),
    "label": ("DIR", "count objects in a browser, one image at a time"),
    "train": ("PRESET [--out DIR]", "train a preset; --resume DIR continues a run"),
    "evaluate": ("MODEL", "measure a trained model on test images"),
    "report": ("MODEL --data-root DIR", "write a page about a model's counts in a folder"),
    "tune": ("MODEL --out DIR", "choose how a heat map is read, on validation images"),
    "predict": ("MODEL PATH... --out DIR", "find objects in your images"),
    "export": ("MODEL --out FILE", "write a model as ONNX or PT2, to run without this package"),
    "serve": ("MODEL", "answer images with boxes and counts, as a small server"),
    "figure": ("NAME", "draw a figure of the papers with a trained model"),
    "reproduce": ("NAME", "fill a table of a paper"),
    "doctor": ("", "show versions, hardware, weights and missing extras"),
    "completion": ("SHELL", "print a script that completes commands in bash, zsh or fish"),
    "results": ("", "make the page of all measured results"),
}
"""Subcommands with their main arguments and a summary. ``mistnn.cli.<name>.run(arguments)`` returns the exit code."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: without the program's name; the process's own if not given.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    _open_closed()
    _replace_unwritable()
    try:
        with _plain_warnings(), _stop_signals():
            code = _run(given)
    except MistError as error:
        code = _refuse(str(error))
    except KeyboardInterrupt:
        print("mist: interrupted", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        code = 0
    except OSError as error:
        code = _refuse(_fix(error))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        code = _refuse(NO_MEMORY)
    return _flushed(code)


def _open_closed() -> None:
    """Opens the streams that the caller closed, as `mist ... >&-` does: what is printed goes nowhere."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))


def _replace_unwritable() -> None:
    """Lets the streams write "?" for letters that their encoding lacks, such as a Greek class name in Windows-1252."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _flushed(code: int) -> int:
    """Flushes stdout, which may fail only now; returns the exit code."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python flushes again at exit, and would print a second error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # A reader that closes the pipe, as in `mist presets | head -1`, is not an error.
        if not isinstance(error, BrokenPipeError) and code != MISTAKE:
            return _refuse(_fix(error))
    return code


def _refuse(message: str) -> int:
    print(f"mist: {_one_line(message)}", file=sys.stderr)
    return MISTAKE


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Prints our own warnings in one line, without the place in the sources that Python adds."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if issubclass(category, MistWarning):
            print(f"mist: {_one_line(str(message))}", file=sys.stderr)
        else:
            usual(message, category, *place)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = usual


@contextmanager
def _stop_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP interrupt like Ctrl-C, so that finished work is kept; one that is ignored stays ignored."""
    numbers = [one for one in signal.Signals if one.name in ("SIGTERM", "SIGHUP")]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # Python allows no signal handlers here

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    changed = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


def _fix(error: OSError) -> str:
    """The message for system errors that can occur in any command: a path that is too long, a full or lost device.

    Raises:
        OSError: any other error unchanged, since it is a defect of ours and needs its traceback.
    """
    if error.errno == errno.ENAMETOOLONG:
        return f"{error.filename}: {error.strerror}; give a path with shorter names"
    if error.errno in FULL:
        return f"output can't be written ({error.strerror}); make room, or write it elsewhere"
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in REFUSED:
        return f"{where}{error.strerror}; change the permissions, or give another place"
    if error.errno in LOST:
        return f"{where}the folder is gone ({error.strerror}); connect it again, and repeat the command (with --resume)"
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
    if not {"--help", "-h"} & set(arguments):
        advise(name)
    try:
        return importlib.import_module(f"mistnn.cli.{name}").run(_usable(arguments[1:]))
    except SystemExit as stop:  # after a help page
        return stop.code if isinstance(stop.code, int) else 0


def _usable(arguments: list[str]) -> list[str]:
    """The arguments with ``~`` in place of the user's folder, which no shell expands in ``--out=~/x``.

    Raises:
        MistError: if a value is empty, as that of a shell variable that is not set: it would mean the current folder.
    """
    result = []
    for before, argument in itertools.pairwise(("", *arguments)):
        option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        if not value and (equals or not option):
            name = option or (before if before.startswith("--") else "an argument")
            raise MistError(f"{name} is empty: give a value, or leave it out")
        if value == "~" or value.startswith(("~/", "~\\")):
            value = os.path.expanduser(value)
        result.append(f"{option}{equals}{value}")
    return result


def overview() -> str:
    """The text of ``mist --help``."""
    rows = {f"mist {name} {usage}".rstrip(): summary for name, (usage, summary) in COMMANDS.items()}
    rows[""] = ""
    rows |= {"mist COMMAND --help": "show the arguments of a command", "mist --version": "show the version"}
    width = max(map(len, rows))
    lines = [
        "Find, count and classify the objects in images, trained without boxes.",
        "",
        "usage: mist COMMAND [ARGUMENTS]",
        "",
        *(f"  {usage:<{width}}  {summary}".rstrip() for usage, summary in rows.items()),
        "",
        "New here? `mist demo` takes minutes, needs no data, and writes demo/report.html about what it learned.",
        "MODEL is the folder of a run, as `mist train` writes it, or the name of a model that ships with the package.",
    ]
    return "\n".join(lines)


def _one_line(message: str) -> str:
    """The message without line breaks, with the short option in place of the field."""
    return " ".join(message.split()).replace("--data.root", "--data-root")
