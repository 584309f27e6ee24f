"""How the systems of a paper are checked, initialised, watched and measured: a base class with the defaults.

``mistnn.experiments.<paper>`` holds a dictionary ``SYSTEMS`` from the configuration classes of its models to their
``System``. Training and evaluation ask the system, and know no paper.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from mistnn.errors import MistError
from mistnn.experiments.experiment import Experiment
from mistnn.experiments.measuring import Measurement
from mistnn.experiments.watch import Watch
from mistnn.interfaces import DataConfig, ModelConfig, Split
from mistnn.papers import modules
from mistnn.weights import load_model

Say = Callable[[str], None]
"""Prints one line for the user."""


class System:
    """Defaults for a system; a paper overrides what differs.

    Attributes:
        measured_on: the data that the system can be trained and measured on, and how it is measured there.
        images: those data in words, for messages.
        shown: metrics that are printed at the end of a training, in this order.
        is_classifier: the system classifies whole images instead of finding objects.
        saves_start: whether a checkpoint is written before the first step, because the initial weights can't be
            computed again from the seed.
        chosen_last: the fields of a model's configuration that ``finish`` chooses after the last step.
        takes_samples: whether any data set can take the place of the experiment's own training images.
    """

    measured_on: ClassVar[Mapping[type[DataConfig], type[Measurement]]] = {}
    images: ClassVar[str] = "images of its presets"
    shown: ClassVar[tuple[str, ...]] = ("iou50", "classified", "both", "f1", "count_accuracy", "error")
    is_classifier: ClassVar[bool] = False
    saves_start: ClassVar[bool] = False
    chosen_last: ClassVar[tuple[str, ...]] = ()
    takes_samples: ClassVar[bool] = True

    # Before training.

    def check(self, experiment: Experiment) -> None:
        """Checks that the parts of an experiment fit together.

        Raises:
            MistError: naming the fields, their values and the fix.
        """
        self.measurement_class(experiment.model, experiment.data)
        experiment.step.check_model(experiment.model)
        self.check_parts(experiment.model, experiment.data, experiment)

    def check_parts(self, model: Any, data: Any, experiment: Experiment) -> None:
        """What ``check`` compares beyond kinds: sizes, classes, numbers of objects. Raises ``MistError``."""

    def initialise(self, model: Any, experiment: Experiment, resuming: bool) -> None:
        """Gives a network its initial weights: those of ``start_from``, where one is named.

        If ``resuming``, the weights will be read from a checkpoint, and there is nothing to do.

        Raises:
            MistError: if the model to start from is missing, or is a different network.
        """
        if experiment.start_from is None or resuming:
            return
        start, name = load_model(experiment.start_from), f"--start-from {experiment.start_from}"
        wanted, found = model.state_dict(), start.state_dict()
        classes, known = (tuple(getattr(one, "class_names", ())) for one in (experiment.model, start.config))
        same_kind = type(start.config) is type(experiment.model)
        if same_kind and (set(classes) != set(known) or len(classes) != len(known)):
            raise MistError(
                f"{name} was trained on the classes {', '.join(known) or 'nothing'}, and these images have "
                f"{', '.join(classes) or 'none'}: give images with the same classes, or train without --start-from"
            )
        if not same_kind or _shapes(wanted) != _shapes(found):
            raise MistError(
                f"{name} holds a different network: choose the preset that it was trained with, or the same model.* "
                "settings"
            )
        if classes != known:
            found = in_class_order(start, experiment.model)
        model.load_state_dict(found)

    def begin(self, model: Any, experiment: Experiment, samples: Any) -> None:
        """Computes what a network takes from ``training_samples`` before the first step; not called on a resume."""

    def training_samples(self, model: Any, experiment: Experiment, samples: Any) -> Any:
        """What the step is trained on, given the training images."""
        return samples

    def note_weights(self, experiment: Experiment, model: Any) -> Experiment:
        """The experiment with what it must remember about the weights just loaded."""
        return experiment

    def resume(self, experiment: Experiment, stored: Experiment) -> Experiment:
        """The experiment with what a run that goes on takes over from its stored configuration."""
        return experiment

    def notes(self, experiment: Experiment, model: Any) -> list[str]:
        """Lines to print before the first step."""
        return []

    def can_validate(self, experiment: Experiment) -> bool:
        """Whether there are validation images to evaluate on during training."""
        return True

    # During and after training.

    def weights_used(self, model: Any) -> str:
        """The pretrained weights that a configuration names, with their hash; empty where there are none."""
        return ""

    def watch(self, experiment: Experiment, say: Say) -> Watch | None:
        """What warns the user during training, if anything."""
        return None

    def keep(self, model: Any, folder: Path, experiment: Experiment, steps: int) -> None:
        """Writes what ``finish`` needs from the model after so many steps; called before each save of the model."""

    def finish(self, out: Path, experiment: Experiment, say: Say) -> None:
        """Completes the model of a run after its last step."""

    def before_the_end(self, experiment: Experiment) -> Experiment:
        """The experiment without what ``finish`` has chosen: a run that goes on chooses it again at its end."""
        fields = {one.name: one.default for one in dataclasses.fields(experiment.model) if one.name in self.chosen_last}
        return dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, **fields))

    # Measuring.

    def measurement_class(self, model: ModelConfig, data: DataConfig) -> type[Measurement]:
        """How a model is measured on a kind of images.

        Raises:
            MistError: if the model is not for such images.
        """
        found = next((self.measured_on[kind] for kind in type(data).__mro__ if kind in self.measured_on), None)
        if found is None:
            raise MistError(
                f"a model of kind {model.kind!r} is for {self.images}, not for data of kind {data.kind!r}: use one of "
                "the model's presets"
            )
        return found

    def measurement(self, model: Any, data: DataConfig, split: Split, images: int | None) -> Measurement:
        """Opens a split and prepares to measure a model on it.

        Raises:
            MistError: if the model is not for such images, or they can't be opened.
        """
        kind = self.measurement_class(model.config, data)
        return kind(model, data, split, kind.open(model, data, split, images))


@functools.cache
def _systems() -> Mapping[type[ModelConfig], System]:
    return {config: system for module in modules("mistnn.experiments") for config, system in module.SYSTEMS.items()}


def system_of(model: ModelConfig) -> System:
    """The system that a model belongs to.

    Raises:
        MistError: if no paper in ``mistnn.papers.PAPERS`` has one for it.
    """
    system = _systems().get(type(model))
    if system is None:
        raise MistError(
            f"no file mistnn.experiments.<paper> has a system for {type(model).__name__}: add it to its SYSTEMS, and "
            "the paper to mistnn.papers.PAPERS"
        )
    return system


def in_class_order(model: Any, config: Any) -> dict[str, Tensor]:
    """The weights of a network for its classes in another order.

    The dimensions that hold one entry per class are those that grow by one with one more class. ``first_class`` of the
    network says at which entry the classes begin, where it is not the first one.

    Args:
        model: the network.
        config: of the network, with the classes in the order that is wanted.

    Raises:
        MistError: if the network says nothing about the order of its classes.
    """
    known = list(model.config.class_names)
    if not hasattr(model, "first_class"):
        raise MistError(f"--start-from: this network needs its classes in the order {', '.join(known)}")
    with torch.random.fork_rng([]):
        larger = dataclasses.replace(config, class_names=(*config.class_names, "one more")).build().state_dict()
    moved = {}
    for name, value in model.state_dict().items():
        start = model.first_class.get(name, 0)
        places = [start + known.index(one) for one in config.class_names]
        for axis, (size, more) in enumerate(zip(value.shape, larger[name].shape, strict=True)):
            if more > size:
                rest = range(start + len(places), size)
                value = value.index_select(axis, torch.tensor([*range(start), *places, *rest]))
        moved[name] = value
    return moved


def _shapes(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.shape for name, value in state.items()}
