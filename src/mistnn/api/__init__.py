"""The Python interface: train on images in memory, train a preset, evaluate, load.

Everything here raises ``MistError`` or ``ValueError`` with one line that names the value and the fix. It prints nothing
but a progress bar, on standard error; notes go to the logger "mistnn".
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import math
import operator
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cattrs
import torch

from mistnn.api.given import CheckedSamples, given_folder
from mistnn.api.model import Model, TrainedNetwork, load_run
from mistnn.data.folder.content import OwnFolder
from mistnn.data.folder.images import GivenConfig, digest_of
from mistnn.devices import DeviceName
from mistnn.errors import MistError
from mistnn.experiments import Experiment, evaluate_stored, restore
from mistnn.experiments import train as train_experiment
from mistnn.experiments.folder import seen_in_training
from mistnn.interfaces import SampleDataset, Split
from mistnn.presets import find_preset
from mistnn.training.runfolder import files_of_training, write_atomically
from mistnn.weights import explain, strict_converter, structure_whole

__all__ = ["Model", "TrainedNetwork", "evaluate", "fit", "from_pretrained", "load", "train"]

Device = DeviceName

LEAST_IMAGES = 3
"""Images that ``fit`` needs: two to train on, one to choose the threshold."""
VALIDATION_SHARE = 0.15
"""Share of the images that choose the threshold (our choice)."""
WORK, PATCH = 8.8e6, 600
"""The default number of steps keeps steps x (pixels + 600 K) of an image at this value: about four minutes on two CPU
cores. A patch is taken to cost as much as 600 pixels of the heat map (a rough estimate)."""
DIGEST = "images.sha256"
"""File in a run folder of ``fit``: the digest of its images and counts."""
FEWEST_STEPS, MOST_STEPS = 300, 1500
"""Limits of the default number of steps (our choice)."""

_log = logging.getLogger("mistnn")


def fit(
    images: Any,
    counts: Any = None,
    *,
    class_names: Sequence[str] | None = None,
    k: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    device: Device = "auto",
    threads: int | None = None,
    progress: bool = True,
) -> Model:
    """Trains a detector on images and their counts.

    This is ``mist train my-folder`` for data in memory. Object size, background and K are chosen from the data; the
    choices are in ``Model.notes`` and in the log. 15 % of the images, evenly spaced, are not trained on: they choose
    the score from which detections are counted. If ``images`` is a folder, its own splits are used.

    Args:
        images: the path of a folder; a sequence of paths, Pillow images, arrays (height, width) or (height, width,
            channels), or tensors (channels, height, width); an array (images, height, width, channels) or a tensor
            (images, channels, height, width); or a map-style ``torch.utils.data.Dataset`` of ``mistnn.Sample``.
            Integers of 8 or 16 bits are scaled to [0, 1]; floats must lie there. At least three images.
        counts: the number of objects in each image, in the order of the images: a list of numbers; a list of
            {class: number}; {class: [number, ...]}; an array (images, classes), with ``class_names``; or a pandas
            ``DataFrame`` with one column per class. For images that are files also {file: {class: number}}, a
            ``DataFrame`` with a column ``file``, or the path of a ``counts.csv``. ``None``: the counts of the folder or
            of the samples; if there are none, K must be given, and the model learns by reconstructing the images.
        class_names: the order of the classes, and the names of the columns of an array.
        k: K, the largest number of objects in an image; by default the largest count.
        steps: of training; by default as many as take about four minutes on two CPU cores, from 300 to 1500.
        seed: of the initial weights and the order of the images.
        out: the run folder to write; by default nothing is kept on disk.
        resume: continue the run in ``out``, which was started with the same arguments.
        force: remove an earlier run from ``out`` first.
        device: "auto" uses a GPU if there is one.
        threads: CPU threads.
        progress: show a progress bar, in a terminal or a notebook.

    Raises:
        ValueError: if images, counts or another argument can't be used; the message names the value and the fix.
        MistError: the same for files and folders.
        KeyboardInterrupt: on Ctrl-C; ``out``, if given, then holds a checkpoint.

    Example:
        >>> model = mistnn.fit(images, [3, 5, 4, ...])  # doctest: +SKIP
        >>> model.predict(image).counts  # doctest: +SKIP
        {'object': 4}
    """
    k, steps, given_seed = _whole("k", k, 1), _whole("steps", steps, 1), _whole("seed", seed, 0)
    seed = 0 if given_seed is None else given_seed
    folder = given_folder(images, counts, class_names)
    if len(folder.images) < LEAST_IMAGES:
        raise ValueError(f"{len(folder.images)} images are too few: give at least {LEAST_IMAGES}")
    _check_supervision(folder, k)
    preset = find_preset("my-folder")
    assert preset.plan is not None
    data = GivenConfig(given=_with_splits(folder))
    planned = preset.plan(dataclasses.replace(preset.experiment, data=data), k)
    digest = "" if out is None else digest_of(data.content())
    if out is not None and resume and (path := Path(out) / DIGEST).is_file() and path.read_text() != digest:
        raise MistError(f"{out} was started with other images or counts: give the same ones, or another out=")
    own = planned.experiment.train.steps != preset.experiment.train.steps  # the plan has a length of its own
    usual = planned.experiment.train.steps if own else _default_steps(planned.experiment, folder)
    chosen = usual if steps is None else steps
    reason = f"steps = {chosen}, " + ("as given" if steps is not None else "chosen by the size of the images and K")
    notes = list(dict.fromkeys([*folder.notes, *planned.reasons, reason]))  # the first notes are reasons, too
    for note in notes:
        _log.info(note)
    experiment = planned.experiment.with_seed_and_steps(seed, chosen)
    found = _run(experiment, None, out, resume, force, device, threads, progress, notes, digest)
    assert isinstance(found, Model)
    return found


def train(
    experiment: str | Experiment,
    *,
    steps: int | None = None,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    samples: SampleDataset | None = None,
    data_root: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    device: Device = "auto",
    threads: int | None = None,
    progress: bool = True,
) -> TrainedNetwork:
    """Trains a preset, or an experiment of your own.

    Args:
        experiment: the name of a preset, as ``mist presets`` lists them; or an ``Experiment``.
        steps: of training; schedules keep their proportion.
        seed: of the initial weights and of training. ``settings={"data.seed": ...}`` selects other images.
        settings: other settings by their dotted names, such as ``{"model.k": 5, "train.batch_size": 8}``.
        samples: images to train on in place of those of the experiment: any map-style data set of ``Sample``. Each is
            checked when it is read. A run that is resumed can't tell whether they are the same as before.
        data_root: the folder of the images, for data sets that need files.
        out: the run folder to write; by default nothing is kept on disk.
        resume: continue the run in ``out``, which was started with the same arguments.
        force: remove an earlier run from ``out`` first.
        device: "auto" uses a GPU if there is one.
        threads: CPU threads.
        progress: show a progress bar, in a terminal or a notebook.

    Returns:
        A ``Model`` if the network finds objects; a ``TrainedNetwork`` if it classifies images.

    Raises:
        MistError: if there is no such preset or setting, or the settings or the data can't be used.
        KeyboardInterrupt: on Ctrl-C; ``out``, if given, then holds a checkpoint.
    """
    steps = _whole("steps", steps, 1)
    seed = _whole("seed", seed, 0)
    changes, notes = dict(settings or {}), []
    for name, value in (("steps", steps), ("seed", seed)):
        if value is not None and f"train.{name}" in changes:
            raise ValueError(f"{name}={value} and settings['train.{name}'] say the same thing: give one of them")
    if isinstance(experiment, str):
        preset = find_preset(experiment)
        experiment = preset.experiment
        if preset.plan is not None:
            root = changes.get("data.root", data_root)
            planned = preset.plan(experiment.at(None if root is None else str(root)), changes.get("model.k"))
            experiment, notes = planned.experiment, list(planned.reasons)
    if data_root is not None:
        experiment = experiment.at(str(data_root))
    experiment = experiment if steps is None else experiment.with_steps(steps)
    if seed is not None:
        changes["train.seed"] = seed
    experiment = with_settings(experiment, changes) if changes else experiment
    for note in notes:
        _log.info(note)
    samples = None if samples is None else CheckedSamples(samples, experiment.model)
    found = _run(experiment, samples, out, resume, force, device, threads, progress, notes)
    # Stored settings don't say where files are.
    found.experiment = dataclasses.replace(found.experiment, data=experiment.data)
    return found


def evaluate(
    model: str | Path,
    images: int = 1000,
    *,
    split: Split = "test",
    seed: int | None = None,
    data_root: str | Path | None = None,
    unknown_k: bool = False,
) -> dict[str, float]:
    """Measures a stored model on images of the data set that it was trained on, as ``mist evaluate`` does.

    ``Model.evaluate`` measures a model on your own images. A warning in the log says how many test images are files
    that the training used.

    Args:
        model: a run folder, or the name of a shipped model.
        images: how many, at most as many as there are.
        split: of the data set.
        seed: of another set of images than that of the training.
        data_root: the folder of the files, for data sets that need files.
        unknown_k: also measure without a given K.

    Raises:
        MistError: if the model or the files are missing.
    """
    data = restore(model).data
    data = data if data_root is None else data.at(str(data_root))
    data, note = data.for_measuring(files_of_training(Path(model)), split)
    measured = evaluate_stored(model, images, seed, None, split, unknown_k=unknown_k, data=data)
    for line in filter(None, (note, seen_in_training(model, data, split))):
        _log.warning(line)
    return measured


def load(name_or_folder: str | Path, device: str | torch.device = "cpu") -> TrainedNetwork:
    """Loads a saved or shipped network.

    Args:
        name_or_folder: a folder that ``Model.save``, ``mistnn.train`` or ``mist train`` wrote, or the name of a shipped
            model.
        device: for the network.

    Returns:
        A ``Model`` if the network finds objects; a ``TrainedNetwork`` if it classifies images.

    Raises:
        MistError: if there is no such model, or its files are damaged or of a format that this version doesn't know.
    """
    return load_run(name_or_folder, device)


def from_pretrained(name_or_folder: str | Path, device: str | torch.device = "cpu") -> Model:
    """As ``load``, for networks that find objects.

    Raises:
        MistError: also if the network finds no objects.
    """
    return Model.from_pretrained(name_or_folder, device)


def with_settings(experiment: Experiment, settings: Mapping[str, Any]) -> Experiment:
    """An experiment with some settings changed.

    Args:
        experiment: stays unchanged.
        settings: by dotted names.

    Raises:
        MistError: if there is no such setting, or a value can't be used.
    """
    converter = strict_converter()
    content = converter.unstructure(experiment)
    for name, value in settings.items():
        *path, last = name.split(".")
        part: Any = content
        for step in path:
            part = part.get(step) if isinstance(part, dict) else None
        if not isinstance(part, dict) or last not in part or last == "kind":
            near = difflib.get_close_matches(name, _names(content), n=1)
            hint = f"did you mean {near[0]!r}?" if near else "give a dotted name such as 'train.steps'"
            raise MistError(f"no setting is called {name!r}: {hint}")
        part[last] = converter.unstructure(value)
    try:
        return structure_whole(content, Experiment)
    except (cattrs.BaseValidationError, ValueError) as error:
        raise MistError(f"settings {', '.join(settings)}: {explain(error)}") from error


def _names(content: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in ((name, value) for name, value in content.items() if name != "kind"):
        yield prefix + name
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{name}.")


def _run(
    experiment: Experiment,
    samples: SampleDataset | None,
    out: str | Path | None,
    resume: bool,
    force: bool,
    device: Device,
    threads: int | None,
    progress: bool,
    notes: list[str],
    digest: str = "",
) -> TrainedNetwork:
    """Trains into a run folder, which is temporary if none is given, and loads the result."""
    if not out and (resume or force or out is not None):
        raise ValueError(f"out={out!r} is no run folder: give out=, which resume and force need")
    threads = _whole("threads", threads, 1)
    loop = dataclasses.replace(experiment.train, device=device)
    loop = loop if threads is None else dataclasses.replace(loop, threads=threads)
    # Without a folder that stays, checkpoints are of no use.
    loop = dataclasses.replace(loop, save_every=0) if out is None else loop
    experiment = dataclasses.replace(experiment, train=loop)
    notes = list(notes)

    def say(note: str) -> None:
        notes.append(note)
        _log.warning(note)

    with _folder(out) as folder:

        def note_digest(iteration: int, model: object) -> None:
            if digest and iteration == 0:
                write_atomically(folder / DIGEST, digest.encode())

        done = train_experiment(
            experiment,
            folder,
            samples=samples,
            resume=resume,
            force=force,
            observe=note_digest,
            on_note=say,
            progress=progress,
        )
        if done.interrupted:
            kept = "" if out is None else f"; resume=True continues from the checkpoint in {out}"
            raise KeyboardInterrupt(f"training was stopped after {done.steps} of {loop.steps} steps{kept}")
        return load_run(folder, device, notes)


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    if out is not None:
        yield Path(out)
        return
    with tempfile.TemporaryDirectory(prefix="mistnn-") as folder:
        yield Path(folder)


def _whole(name: str, value: Any, least: int) -> int | None:
    """A whole number of any type, those of NumPy included, as an ``int``."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        raise ValueError(f"{name}={value!r} must be a whole number of {least} or more")
    return number


def _check_supervision(folder: OwnFolder, k: int | None) -> None:
    """Checks that there is something to learn from."""
    if folder.counts_from == "nothing":
        if k is None:
            raise ValueError(
                "there are no counts: give counts, one row for each image; or k, the number of objects in an image, to "
                "learn from the images alone"
            )
        return
    known = [image for image in folder.images if image.present is not None]
    if len(known) < LEAST_IMAGES:
        raise ValueError(f"{len(known)} images with counts are too few: give at least {LEAST_IMAGES}")
    least = [sum(image.present or ()) if image.counts is None else sum(image.counts) for image in known]
    if not any(least):
        raise ValueError("all counts are 0, so there is nothing to learn: give images that hold objects")
    if folder.counts_from == "labels.csv" and k is None:
        raise ValueError("these samples say only which classes are present: give k, the most objects in an image")
    if k is not None and k < max(least):
        raise ValueError(f"k={k} is less than the {max(least)} objects of an image: give {max(least)} or more")


def _with_splits(folder: OwnFolder) -> OwnFolder:
    """The folder with a split for each image: by a fixed rule where the images have none."""
    if any(image.split is not None for image in folder.images):
        return folder
    usable = [
        index
        for index, image in enumerate(folder.images)
        if image.present is not None or folder.counts_from == "nothing"
    ]
    number = max(1, round(VALIDATION_SHARE * len(usable)))
    held = {usable[(2 * place + 1) * len(usable) // (2 * number)] for place in range(number)}
    images = [
        image._replace(split="validation" if index in held else "train") for index, image in enumerate(folder.images)
    ]
    if not any(sum(image.counts or image.present or (1,)) for image in images if image.split == "train"):
        # All objects are in the images held out: these are the only ones that teach anything.
        images = [image._replace(split="train") for image in images]
    return folder._replace(images=tuple(images))


def _default_steps(experiment: Experiment, folder: OwnFolder) -> int:
    """A number of steps that takes about four minutes on two CPU cores, in steps of 50."""
    model: Any = experiment.model
    sizes = [model.preparation.size(image.height, image.width) for image in folder.images]
    pixels = max(height for height, _ in sizes) * max(width for _, width in sizes)
    fitting = WORK / (pixels + PATCH * model.k)
    return min(MOST_STEPS, max(FEWEST_STEPS, 50 * math.floor(fitting / 50)))
