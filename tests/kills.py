"""Runs a command again and again, and ends it at the n-th operation on a file; a script, run in a process of its own.

The operations are: opening a file for writing, ``fsync``, renaming, removing, making a folder, truncating.

- "kill": the process ends there without a single line of clean-up, and the file that ``fsync`` would flush is cut to
  its half, as if it had died while writing.
- "full": that operation and all later ones that need room fail with ``ENOSPC``.
- "read-only": that operation and all later ones fail with ``EROFS``, as after an error of a disk.
- "lost": that operation and all later ones fail with ``ESTALE``, those that read too, as in a network folder that is
  gone.
- "interrupt": the operation raises ``KeyboardInterrupt``.
- "signals": at the operation the process receives SIGTERM, SIGHUP and, twice, SIGINT.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

KILLED = 137
ROOM = ("open", "os.fsync", "os.mkdir")
"""Operations that need room on the disk."""
WATCHED = (*ROOM, "os.rename", "os.remove", "os.rmdir", "os.truncate")


def watch(below: Path, act: Callable[[int, str, Any], None]) -> None:
    """From now on calls ``act`` before each operation below a folder: its number, its name, and what it acts on.

    Files that are opened for reading have no number of their own, and the name "read".
    """
    done = 0
    real_fsync = os.fsync

    def count(event: str, target: Any) -> None:
        nonlocal done
        done += 1
        act(done, event, target)

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in WATCHED or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            if Path(os.fsdecode(arguments[0])).is_relative_to(below):
                act(done, "read", arguments[0])
            return
        paths = arguments[:2] if event == "os.rename" else arguments[:1]
        # What is removed through a descriptor of its folder has a relative name.
        relative = event in ("os.remove", "os.rmdir") and not os.path.isabs(os.fsdecode(paths[0]))
        if relative or any(Path(os.fsdecode(path)).is_relative_to(below) for path in paths):
            count(event, arguments[0])

    def fsync(descriptor: int) -> None:
        count("os.fsync", descriptor)
        real_fsync(descriptor)

    os.fsync = fsync
    sys.addaudithook(hear)


def ending_at(last: int, mode: str) -> Callable[[int, str, Any], None]:
    """Ends at the operation number ``last``, see the module."""

    def act(number: int, event: str, target: Any) -> None:
        if not last:
            return
        if mode == "full" and number >= last and event in ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if mode == "lost" and number >= last:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        if event == "read":
            return
        if mode == "read-only" and number >= last:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if mode == "interrupt" and number == last:
            raise KeyboardInterrupt
        if mode == "signals" and number == last:
            for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGINT):
                signal.raise_signal(one)
        if mode == "kill" and number == last:
            with contextlib.suppress(OSError):  # a folder
                if event == "os.fsync":
                    os.ftruncate(target, os.fstat(target).st_size // 2)
            os._exit(KILLED)

    return act


def run(
    command: list[str], below: Path, log: Path, last: int = 0, mode: str = "kill", code: str = ""
) -> tuple[int, int, str]:
    """Runs a command in a child process; returns its exit code, its number of operations, and its standard error.

    The command "python" runs the text of its argument, and ends like ``mist``.
    """
    counter = log.with_suffix(".count")
    counter.write_text("0")
    child = os.fork()
    if child == 0:
        from mistnn.cli.main import main

        exec(code)
        act = ending_at(last, mode)
        text = io.StringIO()
        status = 99
        operations = 0

        def note(number: int, event: str, target: Any) -> None:
            nonlocal operations
            operations = number
            act(number, event, target)

        try:
            watch(below, note)
            with contextlib.redirect_stderr(text), contextlib.redirect_stdout(io.StringIO()):
                status = run_text(command[1], main) if command[0] == "python" else main(command)
        except BaseException as error:  # reported by the parent
            text.write(f"{type(error).__name__}: {error}\n")
        counter.write_text(str(operations))
        log.write_text(text.getvalue())
        os._exit(status)
    log.write_text("")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, int(counter.read_text()), log.read_text()


def run_text(text: str, main: Callable[[list[str]], int]) -> int:
    """Runs Python code as the command ``doctor``, so that its errors and signals are those of every command."""
    import mistnn.cli.doctor

    mistnn.cli.doctor.run = lambda arguments: exec(text, {}) or 0
    return main(["doctor"])


def sweep(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Ends a command at each of its operations in turn, and repairs what it leaves.

    Each outcome has the exit codes and messages, and in ``left`` the sha256 of each file before the repair.

    The entries of the plan: ``command`` and ``resume``, in which ``{out}`` stands for the output folder; ``base``,
    where the folders are made, called by the number of the operation; ``start``, a folder to copy first, or empty;
    ``mode``; ``code``, run before the command; ``every``, to end only at each so many.
    """
    outcomes = []
    number = 1
    while True:
        out = Path(plan["base"]) / f"{plan['mode']}-{number}"
        if plan["start"]:
            shutil.copytree(plan["start"], out)

        def do(name: str, last: int, out: Path = out) -> tuple[int, int, str]:
            command = [part.replace("{out}", str(out)) for part in plan[name]]
            return run(command, out, Path(plan["base"]) / "log", last, plan["mode"], plan["code"])

        status, _, ended = do("command", number)
        files = [path for path in sorted(out.rglob("*")) if path.is_file()]
        left = {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        outcome = {"number": number, "out": str(out), "status": status, "ended": ended, "left": left, "repairs": []}
        for name in ("resume", "command"):
            outcome["repairs"].append(do(name, 0)[::2])
            if outcome["repairs"][-1][0] == 0:
                break
        outcomes.append(outcome)
        if status == 0:
            return outcomes
        number += plan["every"]


def warm_up() -> None:
    """Imports what the commands import late, so that each child process has it already; runs no backward pass."""
    import torch

    import mistnn.cli.predict
    import mistnn.cli.train
    import mistnn.inference.folder  # noqa: F401
    from mistnn.experiments import evaluate
    from mistnn.presets import find_preset

    torch.set_num_threads(1)
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    torch.optim.Adam([weight]).step()  # torch imports its compiler here
    experiment = find_preset("mist-mnist-3").experiment
    with torch.no_grad():
        data = dataclasses.replace(experiment.data, source="embedded")
        evaluate(experiment.model.build(), data, "validation", 1)


if __name__ == "__main__":
    plans: list[dict[str, Any]] = json.loads(sys.argv[1])
    if any(plan["command"][0] != "python" for plan in plans):
        warm_up()
    else:
        import mistnn.cli.doctor
        import mistnn.inference.export
        import mistnn.web.workshop  # noqa: F401
    print(json.dumps([sweep(plan) for plan in plans]))
