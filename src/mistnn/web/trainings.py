"""The trainings of ``mist app``: each is the command ``mist train`` in a process of its own, with a run folder.

A training can be stopped and continued from a terminal too.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from mistnn.devices import DeviceName
from mistnn.errors import MistError
from mistnn.experiments import restore
from mistnn.training.runfolder import CHECKPOINT, CONFIG, METRICS, MODEL
from mistnn.web.watching import Watched, watched_images

MODEL_PREFIX = "model-"
LOSSES = {"count_error": "error of a count, training images", "classification": "loss of classes, training images"}
"""What is drawn of a training: the first of these that it logs. Models of photographs log the error of their counts."""
CHECKED, GUESS = "evaluate/count_error", "evaluate/count_error_mean"
MOMENT = 10.0
"""Seconds."""
GRACE = 30.0
"""Seconds that a training process has to save its checkpoint, before it is killed at the end of the app."""


class Progress(NamedTuple):
    """How far the training of the last model is.

    Attributes:
        state: "none": there is no model; "running"; "stopped": it can go on; "failed"; "trained".
        model: the name of its run folder; empty if there is none.
        step: done, of ``steps``; 0 while the folder is read.
        loss: what ``losses`` hold: the error of a count, or for models that learn by another loss, that.
        losses: (step, mean over training batches).
        checked: (step, error of the counts of the validation images).
        guess: the error of always guessing the mean count of the training images; ``None`` if it is not known.
        message: the last line of a run that failed, or what a run is doing.
    """

    state: str
    model: str
    step: int
    steps: int
    loss: str
    losses: Sequence[tuple[int, float]]
    checked: Sequence[tuple[int, float]]
    guess: float | None
    message: str


class Trainings:
    """The models that learn from one image folder, one after the other.

    Attributes:
        root: the image folder.
        out: model-1, model-2, ...
        device: of the trainings.
    """

    def __init__(self, root: Path, out: Path, device: DeviceName) -> None:
        self.root, self.out, self.device = root, out, device
        self._process: subprocess.Popen[bytes] | None = None
        self._ran = -MOMENT
        self._said_before = 0  # bytes in the log of the last training when it was started or continued
        self._lock, self._watched = threading.RLock(), Watched()

    def models(self) -> list[Path]:
        """The run folders, the last one first."""
        found = [one for one in self.out.glob(f"{MODEL_PREFIX}*") if one.name[len(MODEL_PREFIX) :].isdigit()]
        return sorted((one for one in found if one.is_dir()), key=lambda one: -int(one.name[len(MODEL_PREFIX) :]))

    def usable(self) -> Path | None:
        """The last model that can count; ``None`` if there is none."""
        return next(iter(self.all_usable()), None)

    def all_usable(self) -> list[Path]:
        """The models that can count, the last one first."""
        return [one for one in self.models() if (one / MODEL).exists()]

    def describe(self, model: Path) -> str:
        """The name of a model, and how far it was trained if that is not all."""
        steps, step = 0, 0
        with contextlib.suppress(MistError):
            steps = restore(model).train.steps
        step = max((int(line["step"]) for line in _json_lines(model / METRICS) if "step" in line), default=0)
        return model.name if step >= steps else f"{model.name}, which was trained for {step} of {steps} steps"

    def start(self, steps: int | None = None, from_last: bool = False) -> None:
        """Starts the training of a new model.

        Args:
            steps: of training; by default as many as the plan says.
            from_last: start from the weights of the last model.

        Raises:
            MistError: if a training is running, or there is no model to start from.
        """
        with self._lock:
            self._check_idle()
            models = self.models()
            number = int(models[0].name[len(MODEL_PREFIX) :]) + 1 if models else 1
            out = self.out / f"{MODEL_PREFIX}{number}"
            command = ["train", "my-folder", "--data-root", str(self.root), "--out", str(out)]
            command += ["--train.device", self.device]
            if steps is not None:
                command += ["--train.steps", str(steps)]
            if from_last:
                if not models or not (models[0] / MODEL).exists():
                    raise MistError("there is no trained model to go on from: train one first")
                command += ["--start-from", str(models[0])]
            self._start(command, out)

    def go_on(self) -> None:
        """Continues the last training. Raises ``MistError`` if there is none that was stopped."""
        with self._lock:
            self._check_idle()
            if self.progress().state not in ("stopped", "failed"):
                raise MistError("no training was stopped: start a new one")
            last = self.models()[0]
            if not (last / CONFIG).exists():
                raise MistError(f"{last.name} ended before it had saved anything: train again")
            self._start(
                ["train", "--resume", str(last), "--data-root", str(self.root), "--train.device", self.device], last
            )

    def stop(self) -> None:
        """Asks the training to save its state and stop. Raises ``MistError`` if none is running."""
        with self._lock:
            if not self.running:
                raise MistError("no training is running")
            assert self._process is not None
            self._process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """Stops the training, and waits until it has saved its state."""
        if self.running:
            assert self._process is not None
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(GRACE)
            except subprocess.TimeoutExpired:
                self._process.kill()

    @property
    def running(self) -> bool:
        """Whether a training is running."""
        return self._process is not None and self._process.poll() is None

    def news(self) -> bool:
        """Whether there may be something new about the training: it runs, or has ended a moment ago."""
        if self.running:
            self._ran = time.monotonic()
        return time.monotonic() - self._ran < MOMENT

    def _check_idle(self) -> None:
        if self.running:
            raise MistError("a training is running: stop it first")

    def _start(self, arguments: Sequence[str], out: Path) -> None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            file = self._log(out).open("ab")
            self._said_before = file.tell()
        except OSError as error:
            raise MistError(
                f"can't write to {self.out} ({error.strerror or error}): make room, or change its permissions"
            ) from error
        with file as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mistnn", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            )

    @staticmethod
    def _log(out: Path) -> Path:
        return out.with_suffix(".log")

    def progress(self) -> Progress:
        """How far the last training is."""
        models = self.models()
        if not models:
            return Progress(
                "none", "", 0, 0, "", (), (), None, "give the number of objects in some images, then press Train."
            )
        out = models[0]
        lines = [line for line in _json_lines(out / METRICS) if "step" in line]
        step = max((int(line["step"]) for line in lines), default=0)
        said = self._log(out).read_bytes() if self._log(out).exists() else b""
        told = said[self._said_before if self.running else 0 :].decode("utf-8", "replace").splitlines()
        last = next((line for line in reversed(told) if line.strip()), "")
        steps, trouble = 0, ""
        try:
            steps = restore(out).train.steps if (out / CONFIG).exists() else 0
        except MistError as error:
            trouble = str(error)
        state = "running" if self.running else self._ended(out, step, steps)
        if state == "running":
            last = f"step {step} of {steps}{time_left(lines, steps)}" if step else last or "reading the images"
        elif state == "trained":
            last = f"{steps} steps are done"
        elif state == "stopped" and (step or "--resume" in last):
            last = f"step {step} of {steps}; Go on continues" if step else "Go on continues"
        key = next((one for one in LOSSES if any(one in line for line in lines)), "")
        return Progress(
            state,
            out.name,
            step,
            steps,
            LOSSES.get(key, ""),
            [(int(line["step"]), float(line[key])) for line in lines if key in line],
            [(int(line["step"]), float(line[CHECKED])) for line in lines if CHECKED in line],
            next((float(line[GUESS]) for line in reversed(lines) if GUESS in line), None),
            trouble or last,
        )

    def _ended(self, out: Path, step: int, steps: int) -> str:
        if self._process is not None and self._process.returncode not in (0, 130, -signal.SIGINT):
            return "failed"
        if steps and step >= steps and (out / MODEL).exists():
            return "trained"
        return "stopped" if (out / CHECKPOINT).exists() or (out / CONFIG).exists() else "failed"

    def watch(self) -> list[tuple[Image.Image, str]]:
        """Validation images with boxes and heat maps of the last model, as far as it has learned.

        Empty while there is no model, or it can't be used: ``trouble`` then says why.
        """
        model = self.usable()
        return [] if model is None else watched_images(self._watched, model, self.root)

    @property
    def trouble(self) -> str:
        """Why ``watch`` has no pictures of the last model, in one line; else empty."""
        return self._watched.trouble


def time_left(lines: Sequence[Mapping[str, Any]], steps: int) -> str:
    """How long a training takes from now on, as a part of a sentence; empty before the second entry of its log."""
    timed = [(int(line["step"]), float(line["seconds"])) for line in lines if "seconds" in line]
    last = timed[-1] if timed else (0, 0.0)
    before = next((one for one in reversed(timed) if one[0] < last[0] and one[1] < last[1]), None)
    if before is None:
        return ""
    minutes = (steps - last[0]) * (last[1] - before[1]) / (last[0] - before[0]) / 60
    return f", about {minutes:.0f} min left" if minutes >= 1.5 else ", about a minute left or less"


def _json_lines(path: Path) -> list[Mapping[str, Any]]:
    """The whole lines of a log that is being written."""
    lines = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:  # the last one is not complete yet
            break
    return lines
