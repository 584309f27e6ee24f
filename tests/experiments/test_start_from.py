"""A training that starts from another model: its classes are recognised by their names."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from mistnn.errors import MistError
from mistnn.experiments.experiment import Experiment
from mistnn.experiments.system import System, in_class_order
from mistnn.models.mist import MistConfig
from mistnn.models.photos import PhotoConfig
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.nn.pyramid import PyramidConfig

THREE, OTHER = ("red", "blue", "green"), ("blue", "green", "red")
MIST = MistConfig(
    class_names=THREE,
    background=True,
    k=4,
    heatmap=HeatmapConfig(network="small", channels=4, blocks=1),
    encoder=EncoderConfig(network="small", code=8),
)
PHOTOS = PhotoConfig(class_names=THREE, k=9, stride=8, box_size=32, width=16, pyramid=PyramidConfig(weights=None))


def built(config: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    model = config.build().eval()
    weights = dict(model.named_parameters())
    for name, tensor in model.state_dict().items():  # what starts at 0 would be the same in any order
        if tensor.is_floating_point():
            _ = tensor.normal_(0, 0.1) if name in weights else tensor.uniform_(0.5, 1.5)
    return model


def test_classes_of_digits_in_another_order() -> None:
    one, other = built(MIST, 0), built(dataclasses.replace(MIST, class_names=OTHER), 1)
    other.load_state_dict(in_class_order(one, other.config))
    patches = torch.rand(2, 3, MIST.channels, MIST.patch_size, MIST.patch_size)
    logits, moved = (model.task_network(patches).logits for model in (one, other))
    torch.testing.assert_close(moved[..., [2, 0, 1, 3]], logits)
    assert not torch.allclose(moved, logits)


def test_classes_of_photographs_in_another_order() -> None:
    one, other = built(PHOTOS, 0), built(dataclasses.replace(PHOTOS, class_names=OTHER), 1)
    other.load_state_dict(in_class_order(one, other.config))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        found, moved = (model.explain(images, 3).detections[0] for model in (one, other))
    assert found.labels is not None and moved.labels is not None
    torch.testing.assert_close(moved.scores, found.scores)
    assert [OTHER[label] for label in moved.labels] == [THREE[label] for label in found.labels]


@pytest.mark.parametrize("names", [("red", "blue"), ("red", "blue", "black"), ()])
def test_other_classes_are_refused(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    start = built(MIST, 0)
    monkeypatch.setattr("mistnn.experiments.system.load_model", lambda name: start)
    wanted: Any = dataclasses.replace(MIST, class_names=names, background=bool(names))
    experiment = _experiment(wanted)
    with pytest.raises(MistError, match="runs/a was trained on the classes red, blue, green, and these images have"):
        System.initialise(object.__new__(System), built(MIST, 1), experiment, False)


def _experiment(model: Any) -> Experiment:
    from mistnn.presets import find_preset

    return dataclasses.replace(find_preset("demo").experiment, model=model, start_from="runs/a")
