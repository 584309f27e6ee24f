"""K as an upper bound: patches without an object belong to the background class."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mistnn.errors import MistError
from mistnn.inference import Predictor
from mistnn.models.mist import LiftedStep, Mist, MistConfig
from mistnn.models.mist import step as mist_step
from mistnn.nn.preparation import PreparationConfig
from mistnn.nn.task import counted_loss
from mistnn.ops.losses import with_background
from mistnn.records import Batch
from tests.experiments.tiny import TINY

CONFIG = dataclasses.replace(TINY.model, class_names=("a", "b"), background=True, k=4, decoder=0)


def test_the_target_by_hand() -> None:
    counts = torch.tensor([[1, 2], [0, 0], [4, 1]])
    assert with_background(counts, 4).tolist() == [[1, 2, 1], [0, 0, 4], [4, 1, 0]]


def test_equation_9_with_a_background() -> None:
    """(counts, max(0, K - L)) / max(K, L): the loss of a perfect prediction is 0, also without objects."""
    sure = torch.eye(3) * 50
    logits = torch.stack((sure[[0, 1, 1, 2]], sure[[2, 2, 2, 2]]))
    torch.testing.assert_close(counted_loss(logits, torch.tensor([[1, 2], [0, 0]]), True), torch.zeros(2))
    more = counted_loss(sure[[0, 0, 0, 1]][None], torch.tensor([[4, 1]]), True)
    torch.testing.assert_close(more, torch.tensor([(4 / 5 - 3 / 4) ** 2 + (1 / 5 - 1 / 4) ** 2]))


def test_no_detection_is_background() -> None:
    torch.manual_seed(0)
    model = Mist(CONFIG).eval()
    assert model.task_network.head is not None and model.task_network.head.out_features == 3
    with torch.no_grad():
        model.task_network.head.bias.copy_(torch.tensor([0.0, 1.0, 3.0]))
    (found,) = model.detect(torch.rand(1, 1, 32, 32))
    assert found.labels is not None and len(found.boxes) == 4 and (found.labels <= 1).all()
    assert found.scores.max() < 0.3, "likely background has low scores"


def test_trains_on_images_with_different_numbers() -> None:
    torch.manual_seed(0)
    step = LiftedStep(Mist(CONFIG), dataclasses.replace(TINY.step, reconstruction=0.0))
    images = torch.rand(3, 1, 32, 32)
    batch = Batch(images, torch.tensor([[1, 0], [0, 0], [2, 2]]))
    first = step(batch, 0)["classification"]
    for iteration in range(1, 40):
        last = step(batch, iteration)["classification"]
    assert last < first


def test_the_heat_map_learns_objects_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """G has 1 - p(background) at each optimised keypoint; nothing else in the step changes."""
    seen: list[torch.Tensor | None] = []
    real = mist_step.ideal_heatmaps

    def spy(*arguments: object, presence: torch.Tensor | None = None, spread: float) -> torch.Tensor:
        seen.append(presence)
        return real(*arguments, presence=presence, spread=spread)

    monkeypatch.setattr(mist_step, "ideal_heatmaps", spy)
    batch = Batch(torch.rand(2, 1, 32, 32), torch.tensor([[1, 0], [0, 2]]))
    for objects_only in (False, True):
        torch.manual_seed(0)
        model = Mist(CONFIG)
        with torch.no_grad():
            model.task_network.head.bias.copy_(torch.tensor([0.0, 0.0, 3.0]))
        step = LiftedStep(model, dataclasses.replace(TINY.step, reconstruction=0.0, objects_only=objects_only))
        step(batch, 0)
    assert seen[0] is None and seen[1] is not None and seen[1].shape == (2, 4)
    assert 0 < seen[1].max() < 0.3, "nearly all of these keypoints are background"


def test_presence_is_what_is_not_background() -> None:
    torch.manual_seed(0)
    model = Mist(CONFIG)
    images, keypoints = torch.rand(2, 1, 32, 32), torch.rand(2, 4, 3) * 30 + 1
    task = model.task_network.classify(model.cut(images, keypoints)).softmax(-1)
    torch.testing.assert_close(model.presence(images, keypoints), task[..., :2].sum(-1))
    with pytest.raises(ValueError, match="no background class"):
        Mist(dataclasses.replace(CONFIG, background=False)).presence(images, keypoints)


def test_objects_only_needs_a_background() -> None:
    with pytest.raises(MistError, match="step.objects_only needs a background class"):
        LiftedStep(Mist(TINY.model), dataclasses.replace(TINY.step, objects_only=True))


def test_without_classes_there_is_no_background() -> None:
    with pytest.raises(MistError, match="model.background needs classes"):
        MistConfig(class_names=(), background=True)
    with pytest.raises(MistError, match="model.threshold=-1"):
        MistConfig(threshold=-1.0)


def test_prediction_counts_unless_k_is_given() -> None:
    torch.manual_seed(0)
    image, model = torch.rand(1, 32, 32), Mist(CONFIG)
    every = Predictor(model).predict(image)
    assert len(every.boxes) == 4
    model.config = dataclasses.replace(CONFIG, threshold=float(every.scores[1:3].mean()))
    assert torch.equal(Predictor(model).predict(image).boxes, every.boxes[:2])
    assert len(Predictor(model).predict(image, k=4).boxes) == 4, "a given K is kept"


def test_boxes_are_in_pixels_of_the_image_given() -> None:
    """Images are processed at half size; boxes are twice as large in the result."""
    torch.manual_seed(0)
    model = Mist(dataclasses.replace(CONFIG, preparation=PreparationConfig(zoom=0.5, ground="median")))
    image = torch.zeros(1, 80, 80)
    image[:, 40:60, 20:40] = 1
    found = Predictor(model).predict(image, k=1)
    assert found.boxes[0, 2:].tolist() == [24.0, 24.0]
    assert (found.boxes[0, :2] - torch.tensor([30.0, 50.0])).abs().max() < 12
    assert not Predictor(model).reconstructs
