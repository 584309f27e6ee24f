"""ConnComp: components by flood fill, the grid search by brute force, what can't be searched."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mistnn.errors import MistError
from mistnn.metrics import average_precision
from mistnn.models.conncomp import ConnComp, ConnCompConfig, ConnCompStep, ConnCompStepConfig
from mistnn.ops.components import component_boxes
from mistnn.records import Batch, Detections


def flood(mask: Tensor) -> list[list[float]]:
    """One component after the other: from a pixel to all that touch by an edge."""
    left = {(int(row), int(column)) for row, column in mask.nonzero()}
    boxes = []
    for row in range(mask.shape[0]):
        for column in range(mask.shape[1]):
            if (row, column) not in left:
                continue
            border, own = [(row, column)], []
            left.remove((row, column))
            while border:
                y, x = border.pop()
                own.append((y, x))
                for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                    if near in left:
                        left.remove(near)
                        border.append(near)
            rows, columns = [y for y, _ in own], [x for _, x in own]
            top, bottom, start, end = min(rows), max(rows) + 1, min(columns), max(columns) + 1
            boxes.append([(start + end) / 2, (top + bottom) / 2, end - start, bottom - top])
    return boxes


def test_components_reference() -> None:
    torch.manual_seed(0)
    masks = torch.rand(12, 9, 13) < torch.linspace(0, 1, 12)[:, None, None]  # from empty to full
    for mask, boxes in zip(masks, component_boxes(masks), strict=True):
        assert boxes.tolist() == flood(mask)
    assert component_boxes(torch.ones(1, 1, 1, dtype=torch.bool))[0].tolist() == [[0.5, 0.5, 1, 1]]


def dim_and_bright() -> Batch:
    """Two squares an image, joined by a dim bridge, and dim specks: only the middle thresholds tell them apart."""
    images = torch.zeros(4, 1, 20, 20)
    boxes = torch.tensor([[5.0, 6, 6, 6], [14.0, 6, 6, 6]])
    for index, image in enumerate(images):
        image[0, 3:9, 2:8] = image[0, 3:9, 11:17] = 0.8
        image[0, 5, 8:11] = 0.3
        image[0, 15, 3 + index] = image[0, 12, 10] = 0.2
    return Batch(images, None, [boxes.clone() for _ in range(4)], None)


def test_grid_search_reference() -> None:
    """Every tau is evaluated with the metric itself; the smallest of the best values is chosen."""
    torch.manual_seed(0)
    batch = dim_and_bright()
    batch = batch._replace(images=(batch.images + 0.1 * torch.rand(4, 1, 20, 20)).clamp(max=1))
    model = ConnComp(ConnCompConfig())
    step = ConnCompStep(model, ConnCompStepConfig(0.05, 1.0, 20))
    values = step(batch, 0)
    assert batch.boxes is not None
    scores = []
    for tau in torch.linspace(0.05, 1.0, 20):
        boxes = [torch.tensor(flood(image[0] >= tau)).reshape(-1, 4) for image in batch.images]
        found = [Detections(one, torch.ones(len(one))) for one in boxes]
        each = average_precision(
            found, batch.boxes, thresholds=[t / 10 for t in range(1, 10)], class_aware=False, points=11, strict=True
        )
        scores.append(sum(each) / 9)
    torch.testing.assert_close(step.average_precision(), torch.tensor(scores, dtype=torch.float64))
    assert model.tau.item() == pytest.approx(float(torch.linspace(0.05, 1.0, 20)[int(torch.tensor(scores).argmax())]))
    assert float(values["ap"]) == pytest.approx(max(scores)) == 1.0
    found = model.detect(batch.images)
    assert [one.boxes.tolist() for one in found] == [boxes.tolist() for boxes in batch.boxes]


def test_batches_add_up() -> None:
    batch = dim_and_bright()
    assert batch.boxes is not None
    whole = ConnCompStep(ConnComp(ConnCompConfig()), ConnCompStepConfig())
    whole(batch, 0)
    parts = ConnCompStep(ConnComp(ConnCompConfig()), ConnCompStepConfig())
    for index in range(4):
        parts(Batch(batch.images[index : index + 1], None, batch.boxes[index : index + 1], None), index)
    torch.testing.assert_close(parts.average_precision(), whole.average_precision())
    assert parts.model.tau == whole.model.tau


def test_resumes_from_its_buffers() -> None:
    """What a checkpoint keeps is all that the search needs; the stored weights are tau alone."""
    batch = dim_and_bright()
    step = ConnCompStep(ConnComp(ConnCompConfig()), ConnCompStepConfig())
    step(batch, 0)
    assert list(step.model.state_dict()) == ["tau"]
    again = ConnCompStep(ConnComp(ConnCompConfig()), ConnCompStepConfig())
    for name, buffer in again.model.named_buffers():
        buffer.copy_(step.model.get_buffer(name))
    torch.testing.assert_close(again.average_precision(), step.average_precision())


def test_a_model_that_is_moved_still_tallies() -> None:
    """As the training loop moves it to a device: its buffers are others then."""
    batch = dim_and_bright()
    assert batch.boxes is not None
    step = ConnCompStep(ConnComp(ConnCompConfig()), ConnCompStepConfig())
    step.model.double()
    step(batch, 0)
    assert float(step.model.get_buffer("tally_objects")) == sum(map(len, batch.boxes))
    assert float(step.model.get_buffer("tally_hits").sum()) > 0


def test_background() -> None:
    batch = dim_and_bright()
    bright = 0.15 + 0.85 * batch.images
    plain, median = ConnComp(ConnCompConfig()), ConnComp(ConnCompConfig(background="median"))
    for model in (plain, median):
        model.tau.fill_(0.14)
    assert len(plain.detect(bright)[0].boxes) == 1, "the whole image"
    assert len(median.detect(bright)[0].boxes) == 3  # both squares joined, two specks
    colours = torch.zeros(1, 3, 4, 4)
    colours[0, :, 1, 1] = 0.1
    assert ConnComp(ConnCompConfig(channels=3)).difference(colours)[0, 1, 1].item() == pytest.approx(0.3)


def test_explain_gives_the_largest() -> None:
    model = ConnComp(ConnCompConfig())
    model.tau.fill_(0.15)
    images = dim_and_bright().images
    largest = model.explain(images, 1)
    assert [one.boxes.tolist() for one in largest.detections] == [[[9.5, 6, 15, 6]]] * 4
    assert largest.reconstruction is None and not model.reconstructs
    assert len(model.detect(torch.zeros(1, 1, 5, 5))[0].boxes) == 0


def test_refusals() -> None:
    batch = dim_and_bright()
    step = ConnCompStep(ConnComp(ConnCompConfig()), ConnCompStepConfig())
    with pytest.raises(MistError, match="these have none"):
        step(batch._replace(boxes=None), 0)
    with pytest.raises(MistError, match="holds an object"):
        step(Batch(torch.zeros(1, 1, 5, 5), None, [torch.zeros(0, 4)], None), 0)
    with pytest.raises(MistError, match="model.channels"):
        ConnCompConfig(channels=2)
    with pytest.raises(MistError, match="step.low"):
        ConnCompStepConfig(low=2.0, high=1.0)
    with pytest.raises(MistError, match="step.values"):
        ConnCompStepConfig(values=1)
