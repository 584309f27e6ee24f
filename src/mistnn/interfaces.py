"""What a paper's parts owe the rest of the package: the bases of configurations, and the training step.

A leaf of the package. Each configuration class names its ``kind``, which is stored in ``config.json`` and from which
the class is found again, and builds what it configures:

- a model's configuration builds the network;
- a step's configuration builds the training step for a network;
- a data configuration opens the splits of its data set.
"""

from __future__ import annotations

import abc
import dataclasses
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.optim import Optimizer

from mistnn.config import Config, at_least
from mistnn.errors import MistError
from mistnn.records import Batch, Sample

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class ModelConfig(Config, abc.ABC):
    """Everything that shapes a network.

    Attributes:
        kind: the name under which the network is stored; unique among all papers.
        reading_strengths: the strengths of a heat map's softmax that ``mist tune`` tries; empty for a network without
            one.
        reading_windows: the suppression windows that it tries, in pixels; empty for a network without suppression.
    """

    kind: ClassVar[str]
    section: ClassVar[str] = "model"
    reading_strengths: ClassVar[tuple[float, ...]] = ()
    reading_windows: ClassVar[tuple[int, ...]] = ()

    @abc.abstractmethod
    def build(self) -> nn.Module:
        """The network, with fresh weights from torch's global generator."""

    def portable(self) -> ModelConfig:
        """The configuration as it is stored: without paths that only mean something on this machine."""
        return self

    def with_reading(self, strength: float, window: int | None) -> ModelConfig:
        """The same network with its heat map read at another strength and, if given, with another window.

        Raises:
            MistError: if the network has no such strength.
        """
        raise MistError(f"a model of kind {self.kind!r} has no heat map whose strength could be chosen")


@runtime_checkable
class Step(Protocol):
    """One iteration of an algorithm: every forward, backward and optimizer step for one batch.

    The training loop never looks inside. With several processes it averages the gradients just before each step of
    each of ``optimizers``, so a step needs no code for that, on three conditions: a loss is a mean over the images of
    the batch; every process makes the same optimizer steps in the same order; and what the step optimises on its own
    (keypoints, for instance) belongs to single images.
    """

    @property
    def model(self) -> nn.Module:
        """Holds every parameter that is trained and every buffer that changes: this is what a checkpoint keeps."""
        ...

    @property
    def optimizers(self) -> Mapping[str, Optimizer]:
        """The optimizers by name. All of their parameters belong to ``model``."""
        ...

    def __call__(self, batch: Batch, iteration: int) -> Mapping[str, float | Tensor]:
        """Runs one iteration.

        Args:
            batch: this process's share, already on the model's device.
            iteration: counted from 0; the value that schedules depend on.

        Returns:
            Scalars to log by name, the same names in each iteration: numbers, or tensors without dimensions. A tensor
            is read (which waits for an accelerator) only when the loop logs or saves.
        """
        ...


@dataclass(frozen=True)
class TrainingStepConfig(Config, abc.ABC):
    """How a network is trained.

    A field ``decay_steps`` of ``None`` stands for the whole run, see ``for_run``.

    Attributes:
        kind: the name under which it is stored; unique among all papers.
        trains: the kinds of models that can be trained this way.
    """

    kind: ClassVar[str]
    trains: ClassVar[tuple[str, ...]]
    section: ClassVar[str] = "step"

    @abc.abstractmethod
    def build(self, model: Any) -> Step:
        """The training step of a network of a kind in ``trains``."""

    def check_model(self, model: ModelConfig) -> None:
        """Refuses a network that can't be trained this way.

        Raises:
            MistError: naming both kinds.
        """
        if model.kind not in self.trains:
            raise MistError(
                f"a model of kind {model.kind!r} can't be trained by a step of kind {self.kind!r} (it trains "
                f"{', '.join(self.trains)}): use the step of one of the model's presets"
            )

    def for_run(self, steps: int) -> TrainingStepConfig:
        """The configuration for a run of so many steps: a ``decay_steps`` of ``None`` becomes that number.

        Constant rates (a ``decay`` of 1) need no length, and stay as they are.
        """
        open_ended = getattr(self, "decay_steps", steps) is None and getattr(self, "decay", 0.0) != 1
        return self._with_decay(steps) if open_ended else self

    def rescale_schedule(self, before: int, steps: int) -> TrainingStepConfig:
        """The configuration for a run of another length: schedules of fixed length keep their proportion to it.

        Args:
            before: the number of training steps until now.
            steps: the new number.
        """
        decay_steps = getattr(self, "decay_steps", None)
        return self if not decay_steps else self._with_decay(max(1, round(decay_steps * steps / before)))

    @property
    def rates_end(self) -> int | None:
        """The iteration from which the learning rates keep their last value; ``None`` if they never stop changing.

        Constant rates give ``None``, too.
        """
        return getattr(self, "decay_steps", None) if getattr(self, "decay", 1.0) < 1 else None

    def _with_decay(self, steps: int) -> TrainingStepConfig:
        return dataclasses.replace(self, decay_steps=steps)


@runtime_checkable
class SampleDataset(Protocol):
    """Samples by index: any map-style ``torch.utils.data.Dataset`` of ``Sample``."""

    def __getitem__(self, index: int, /) -> Sample:
        """The sample of an index, the same each time."""
        ...

    def __len__(self) -> int:
        """How many samples there are; ``sys.maxsize`` for a data set without end."""
        return sys.maxsize


class Known(NamedTuple):
    """What is known about the images of a data set before any file is read.

    Attributes:
        size: height and width; ``None`` where they differ.
        channels: 1 for grey, 3 for colour.
        counts: possible numbers of objects in an image; empty where unknown.
        class_names: empty where there are no classes, or where only the files name them.
        has_objects: whether images hold objects to find; ``False`` for the images of a classifier.
        training_size: height and width of training images if these are crops.
        background: value of a pixel that no object covers; ``None`` where it varies.
    """

    size: tuple[int, int] | None = None
    channels: int = 1
    counts: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ()
    has_objects: bool = True
    training_size: tuple[int, int] | None = None
    background: float | None = None


@dataclass(frozen=True)
class DataConfig(Config, abc.ABC):
    """Where images come from, or how they are made.

    Attributes:
        kind: the name under which it is stored; unique among all data sets.
        seed: selects the random images, or the random order and augmentation of real ones.
    """

    kind: ClassVar[str]
    section: ClassVar[str] = "data"
    seed: Annotated[int, at_least(0)] = field(default=0, kw_only=True)

    @abc.abstractmethod
    def open(self, split: Split, length: int | None = None) -> SampleDataset:
        """One split.

        Args:
            split: which images.
            length: at most so many; ``None`` for all, which has no end where images are made on the fly, and for the
                training split of real images.

        Raises:
            MistError: if the files are missing or broken.
        """

    def check_images(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Finds images that training and validation can't read, before the first step; by default there are none.

        Args:
            progress: called with (images tried, of how many).

        Raises:
            MistError: naming the files.
        """

    def for_measuring(self, seen: Collection[str], split: Split) -> tuple[DataConfig, str]:
        """What is measured when a split is asked for, and a note on it; by default these very images, and no note.

        Args:
            seen: the CRC-32 of the files that the training used; empty if they aren't known.
            split: that is asked for.
        """
        return self, ""

    def measuring_notes(self, metrics: Mapping[str, float], seeded: bool) -> list[str]:
        """What to know about a measurement of these images, one line each; nothing by default.

        Args:
            metrics: the results.
            seeded: whether another seed was asked for.
        """
        return []

    def inventory(self) -> dict[str, str]:
        """What training and validation use, name by name, to notice changes; empty where images are made on the fly."""
        return {}

    def checksums(self, split: Split) -> dict[str, str]:
        """The CRC-32 of each file of a split, by name; empty where images are made on the fly."""
        return {}

    def at(self, root: str | None) -> DataConfig:
        """The same images from files in another folder; unchanged where images need no files."""
        return dataclasses.replace(self, root=root)

    @property
    def known(self) -> Known:
        """What is known about the images without reading any file."""
        return Known()

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the images; ``None`` where they differ."""
        return self.known.size

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes; empty where there are none, or where only the files name them."""
        return self.known.class_names

    def digest(self) -> str:
        """The SHA-256 of the list of files and their splits; empty where images are made on the fly.

        Raises:
            MistError: if the files can't be read.
        """
        return ""
