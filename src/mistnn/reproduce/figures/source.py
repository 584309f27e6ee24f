"""The runs that figures show: where they are, and the images they were trained on."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from torch import nn

from mistnn.devices import find_device
from mistnn.errors import MistError
from mistnn.experiments import Experiment, read_log, restore, train
from mistnn.interfaces import DataConfig, Split
from mistnn.records import Sample
from mistnn.reproduce.fill import READ
from mistnn.weights import load_model, shipped_names

AnyData = TypeVar("AnyData", bound=DataConfig)
RUNS = Path("runs/tables")  #: Default folder of the runs of `mist reproduce`.


class Request(NamedTuple):
    """What a figure is asked to show.

    Attributes:
        model: a run folder, a shipped model or, for figures of several systems, the folder of their runs.
        seed: of the images; by default that of the experiment, 0 where there is none.
        root: the folder of the images, where the data set needs one.
        steps: of the training, for figures that train; by default those of the preset.
        device: for the networks, see ``devices.find_device``.
    """

    model: str | Path | None = None
    seed: int | None = None
    root: str | None = None
    steps: int | None = None
    device: str = "cpu"

    def needed(self, problem: str) -> str | Path:
        """The model; raises ``MistError`` with the problem if there is none."""
        if self.model is None:
            raise MistError(problem)
        return self.model

    def own(self, data: AnyData) -> AnyData:
        """The images of a figure that has no experiment, with the request's seed and folder."""
        return dataclasses.replace(data, seed=self.seed or 0, root=self.root)

    def load(self, model: str | Path) -> Any:
        """A stored network on the request's device. Raises ``MistError`` if there is no such model or device."""
        return load_model(model).to(find_device(self.device))

    def on_device(self, experiment: Experiment) -> Experiment:
        """An experiment that is trained on the request's device."""
        return dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, device=self.device))

    @property
    def runs(self) -> Path:
        """The folder of the runs of several systems."""
        return RUNS if self.model is None else Path(self.model)


def stored_run(runs: Path, name: str) -> Path | str:
    """The run of a preset with seed 0, with the table's reading if there is one, or the shipped model.

    A smoke test (``--budget quick``) is no run to show.
    """
    for ending in (f"-seed0{READ}", "-seed0"):
        if (runs / f"{name}{ending}" / "model.safetensors").is_file():
            return runs / f"{name}{ending}"
    if name in shipped_names():
        return name
    raise MistError(
        f"{runs} holds no run of {name}: train it with `mist reproduce table1 --budget full --seeds 1 --only {name}`, "
        "or give the folder of the table's runs with --model"
    )


def images_of(model: str | Path, kinds: tuple[str, ...], problem: str, request: Request) -> Any:
    """The configuration of the images that a model was trained on, with the request's seed and folder.

    Raises:
        MistError: if there is no such model; with the problem, if its images are of none of the kinds.
    """
    experiment = restore(model).at(request.root)
    if experiment.data.kind not in kinds:
        raise MistError(problem)
    seed = experiment.data.seed if request.seed is None else request.seed
    return dataclasses.replace(experiment.data, seed=seed)


def scenes_of(model: str | Path, request: Request, figure: str) -> Any:
    """The scenes of digits that a model was trained on, see ``images_of``; ``figure`` is named in the error."""
    problem = (
        f"{figure} shows scenes of digits and {model} was trained on other images: a run on Gabor noise is drawn by "
        "fig4, one on house numbers by svhn-fig6"
    )
    return images_of(model, ("scenes",), problem, request)


def first_samples(data: DataConfig, count: int, split: Split = "test") -> list[Sample]:
    """The first samples of a split: ``count`` of them, or all."""
    samples = data.open(split, count)
    return [samples[index] for index in range(len(samples))]


def train_aside(experiment: Experiment, observe: Callable[[int, nn.Module], None]) -> list[dict[str, float]]:
    """Trains in a temporary folder and returns the log."""
    with tempfile.TemporaryDirectory() as folder:
        if train(experiment, Path(folder) / "run", observe=observe).interrupted:
            raise KeyboardInterrupt
        return read_log(Path(folder) / "run")


def nearest_steps(history: Iterable[int], shares: Sequence[float], length: int) -> list[int]:
    """The steps that are nearest to some shares of a training, each once."""
    return sorted({min(history, key=lambda step: abs(step - share * length)) for share in shares})
