"""Trained networks, as Python users get them."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from mistnn.api.given import check_stack, given_folder
from mistnn.data.folder.content import OwnFolder
from mistnn.data.folder.images import GivenConfig, checksums_of, load_image
from mistnn.data.folder.tables import ONLY_CLASS
from mistnn.devices import find_device
from mistnn.errors import MistError
from mistnn.experiments import Experiment, describe, evaluate, read_log, restore
from mistnn.experiments.folder import FolderView, folder_metrics, interval_metrics, too_good
from mistnn.inference import Prediction, Predictor
from mistnn.inference.counting import missing_threshold
from mistnn.inference.export import Format, export_model
from mistnn.inference.predictor import as_finder
from mistnn.interfaces import ModelConfig, Split
from mistnn.nn.finder import Finder
from mistnn.nn.tiles import MAX_PIXELS
from mistnn.records import Detections, Sample
from mistnn.training.runfolder import (
    CHECKPOINT,
    METRICS,
    files_of_training,
    replace_files_of_training,
    write_atomically,
)
from mistnn.weights import TrainingRecord, holds_model, load_model, read_config, save_model

_log = logging.getLogger("mistnn")


class TrainedNetwork:
    """A trained network with its settings and the log of its training.

    Attributes:
        model: the network, in eval mode.
        experiment: the settings of its training.
        history: the lines of the log, oldest first: ``step``, the training losses, and in other lines the values of
            an evaluation, with the prefix ``evaluate/``.
        notes: the settings that ``fit`` chose and its warnings, one line each.
        training: what the training took; ``None`` if that is unknown.
        seen: the CRC-32 of each file that the training used, in hexadecimal digits; empty if they are unknown.
    """

    model: nn.Module
    seen: frozenset[str] = frozenset()

    def __init__(
        self,
        model: nn.Module,
        experiment: Experiment,
        history: Sequence[dict[str, Any]] = (),
        notes: Sequence[str] = (),
        training: TrainingRecord | None = None,
    ) -> None:
        self.model = model.eval()
        self.experiment = experiment
        self.history, self.notes, self.training = list(history), tuple(notes), training

    @property
    def config(self) -> ModelConfig:
        """The configuration of the network."""
        return self.experiment.model

    def measure(
        self, images: int = 1000, *, split: Split = "test", seed: int | None = None, data_root: str | Path | None = None
    ) -> dict[str, float]:
        """Measures the network on images of the data set that it was trained on.

        Args:
            images: how many, at most as many as there are.
            split: of the data set.
            seed: of another set of images than that of the training.
            data_root: the folder of the files, for data sets that need files.

        Raises:
            MistError: if the files are missing.
        """
        data = self.experiment.data if data_root is None else self.experiment.data.at(str(data_root))
        data = data if seed is None else dataclasses.replace(data, seed=seed)
        if data_root is not None:
            data, note = data.for_measuring(self.seen, split)
            if note:
                _log.warning(note)
        measured = evaluate(self.model, data, split, images)
        if self.seen and split == "test":
            self._note_seen(data.checksums(split), "test images", "give new images, or a column split")
        return measured

    def _note_seen(self, checksums: Mapping[str, str], what: str, fix: str) -> None:
        """Logs how many of the measured files the training used, if it used any."""
        if note := too_good(checksums, self.seen, what, fix):
            _log.warning(note)

    def save(self, folder: str | Path) -> None:
        """Writes a model folder: ``config.json``, ``model.safetensors`` and, if there is a log, ``metrics.jsonl``.

        ``mistnn.load`` and every command that takes a run folder read it. The checksums of the training's files are
        kept too, if they are known. Other files in the folder stay.

        Raises:
            MistError: if the folder can't be written to, or holds the checkpoint of a run with other weights, which
                would be out of step with the model.
        """
        folder = Path(folder)
        there = holds_model(folder, self.model)
        if not there and (folder / CHECKPOINT).exists():
            raise MistError(
                f"{folder} holds a run with other weights, and 'mist train --resume' would continue these: give a new "
                "folder"
            )
        described = describe(self.experiment)
        save_model(folder, self.model, described["model"], described["experiment"], training=self.training)
        lines = "".join(json.dumps(line) + "\n" for line in self.history)
        if lines:
            write_atomically(folder / METRICS, lines.encode())
        else:  # that of another model
            (folder / METRICS).unlink(missing_ok=True)
        if not there:
            replace_files_of_training(folder, self.seen)


class Model(TrainedNetwork, Predictor):
    """A trained network that finds objects: predicts, is evaluated, and is saved.

    ``mistnn.fit``, ``mistnn.train`` and ``mistnn.load`` return it.
    """

    model: Finder  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(
        self,
        model: Finder,
        experiment: Experiment,
        history: Sequence[dict[str, Any]] = (),
        notes: Sequence[str] = (),
        training: TrainingRecord | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        TrainedNetwork.__init__(self, model, experiment, history, notes, training)
        Predictor.__init__(self, model, max_pixels)

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path, device: str | torch.device = "cpu") -> Model:
        """A model with the weights of a run folder or of a shipped model.

        Args:
            name_or_folder: a run folder, or the name of a shipped model.
            device: for the network.

        Raises:
            MistError: if there is no such folder or name, the folder can't be trusted, or its network finds no objects.
        """
        loaded: Any = load_run(name_or_folder, device)
        as_finder(loaded.model, name_or_folder)
        return loaded

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes; empty for a model without classes."""
        return self.model.class_names

    def predict_many(
        self, images: Iterable[Tensor | NDArray[Any] | Image.Image | str | Path], k: int | None = None
    ) -> list[Prediction]:
        """Finds the objects of several images, which may differ in size.

        Args:
            images: each as ``predict`` takes it.
            k: as in ``predict``.

        Raises:
            MistError: as ``predict``.
            ValueError: as ``predict``; also if ``images`` is a path, a dictionary or one image.
        """
        if isinstance(images, np.ndarray | Tensor):
            check_stack(images)
        elif isinstance(images, str | Path | Mapping | Image.Image) or not isinstance(images, Iterable):
            fix = "give a list of images, or use mistnn.inference.predict_folder for a folder"
            raise ValueError(f"predict_many takes several images, got a {type(images).__name__}: {fix}")
        return [self.predict(image, k) for image in images]

    def evaluate(self, images: Any, counts: Any = None) -> dict[str, float]:
        """Compares the objects that the model finds with the true counts.

        All images are measured, those of a folder's training split too. A warning in the log says how many of their
        files the training used, where these are known. ``measure`` takes the test images of a folder.

        Args:
            images: as in ``mistnn.fit``; at least one.
            counts: as in ``mistnn.fit``, with the classes of the model. ``None`` if the images are a folder or samples
                that have counts. A model without classes is measured without counts, too.

        Returns:
            ``count_error``: the mean absolute error of the number of objects in an image. ``count_error_mean``: that
            of always guessing the mean count of these very images. Both also for each class, with its name after a
            colon. ``images``, ``objects`` and the model's ``threshold``. Where boxes are known, ``precision``,
            ``recall`` and ``f1`` by the centre of a box. Where samples say only which classes are present,
            ``presence`` and ``presence_guess`` instead of the count errors. Without counts, for a model that
            reconstructs: ``rmse`` and ``r2`` of the reconstruction.

        Raises:
            ValueError: if images or counts can't be used, or counts are missing.
            MistError: the same for files.
        """
        names = self.class_names or (ONLY_CLASS,)
        folder = given_folder(images, counts, names)
        if folder.counts_from == "nothing":
            return self._reconstruction(folder)
        known = tuple(image for image in folder.images if image.present is not None)
        if self.seen:
            fix = "give new images; for a folder, measure(data_root=...) takes its test images alone"
            self._note_seen(checksums_of(known), "images", fix)
        found, samples = [], []
        for image in known:
            one = self.predict(load_image(image, self.model.config.channels)).detections
            labels = torch.zeros(len(one.boxes), dtype=torch.int64) if one.labels is None else one.labels
            found.append(Detections(one.boxes, one.scores, labels))
            samples.append(
                Sample(
                    torch.empty(0, 0, 0),
                    None if image.counts is None else torch.tensor(image.counts),
                    None if image.boxes is None else torch.from_numpy(image.boxes).float(),
                    None if image.labels is None else torch.from_numpy(image.labels).long(),
                    torch.tensor(image.present),
                )
            )
        view = FolderView(known, samples, found, self.model.threshold, known)
        return folder_metrics(view, names) | interval_metrics(view, self.model)

    def export(self, path: str | Path, format: Format = "onnx") -> None:
        """Writes the whole detector as an ONNX or PT2 file, as ``mist export`` does.

        Raises:
            MistError: if networks of this kind can't be exported, or a package is missing.
        """
        export_model(self, Path(path), format)

    def _reconstruction(self, folder: OwnFolder) -> dict[str, float]:
        """The error of the reconstruction, of images without counts."""
        if self.class_names or not self.model.reconstructs:
            raise ValueError("these images have no counts: give counts, one row for each image")
        config: Any = self.config
        folder = folder._replace(images=tuple(image._replace(split="test") for image in folder.images))
        data = GivenConfig(channels=config.channels, preparation=config.preparation, given=folder)
        return evaluate(self.model, data, "test", len(folder.images))

    def __repr__(self) -> str:
        """The kind of network and what it finds."""
        classes = ", ".join(self.class_names) or "no classes"
        return f"<mistnn.Model: {self.config.kind}, K = {getattr(self.config, 'k', 'by the model')}, {classes}>"


def load_run(
    name_or_folder: str | Path, device: str | torch.device = "cpu", notes: Sequence[str] = ()
) -> TrainedNetwork:
    """The network of a run folder or a shipped model; a ``Model`` if it finds objects.

    Raises:
        MistError: if there is no such folder or name, or the folder can't be trusted.
    """
    if not isinstance(name_or_folder, str | Path) or not str(name_or_folder):
        raise ValueError(f"{name_or_folder!r} is no model: give a run folder or the name of a shipped model")
    place = find_device(device, "device") if isinstance(device, str) else device
    network, experiment = load_model(name_or_folder).to(place), restore(name_or_folder)
    history: list[dict[str, Any]] = []
    with suppress(MistError):  # a shipped model has no log
        history = list(read_log(Path(name_or_folder)))
    record = read_config(name_or_folder).training
    if not isinstance(network, Finder):
        found = TrainedNetwork(network, experiment, history, notes, record)
    else:
        found = Model(network, experiment, history, notes, record)
        found.uncounted = missing_threshold(name_or_folder, network)
    found.seen = files_of_training(Path(name_or_folder))
    return found
