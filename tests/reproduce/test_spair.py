"""SPAIR's figure of objects and its transfer to fuller images, on a network without training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mistnn.data import ScatterConfig
from mistnn.errors import MistError
from mistnn.experiments import Experiment, evaluate, train
from mistnn.models.spair import Spair, SpairConfig, SpairStepConfig
from mistnn.presets import find_preset
from mistnn.records import Sample
from mistnn.reproduce.figures.source import Request
from mistnn.reproduce.figures.spair import draw_transfer, drawn_objects, figure_objects, figure_transfer
from mistnn.reproduce.spair_transfer import transfer_curve
from mistnn.reproduce.tables import find_table
from mistnn.training import TrainConfig
from mistnn.viz import DrawnObjects
from mistnn.weights import load_model

SMALL = SpairConfig(width=8, hidden=(16,), encoder=(16,), decoder=(16,), features=8, attributes=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("spair") / "run"
    loop = TrainConfig(steps=1, batch_size=2, save_every=0, threads=1, device="cpu")
    data = ScatterConfig(source="embedded", canvas=60, crop=48, counts=(2, 3))
    train(Experiment(SMALL, data, SpairStepConfig(), loop, evaluation_images=0), out)
    return out


def test_objects_are_those_present_the_nearest_first() -> None:
    torch.manual_seed(0)
    network = Spair(SMALL).eval()
    sample = Sample(torch.rand(1, 48, 48), boxes=torch.tensor([[10.0, 10.0, 14.0, 14.0], [500.0, 10.0, 14.0, 14.0]]))
    with torch.no_grad():
        z = network.infer(sample.image[None])
    drawn = drawn_objects(network, sample)
    on = z.presence_logits[0] > 0
    assert 0 < len(drawn.boxes) == int(on.sum()) < 16
    depth = {tuple(box.tolist()): float(d) for box, d in zip(z.boxes[0], z.depth.sample[0, :, 0], strict=True)}
    depths = [depth[tuple(box.tolist())] for box in drawn.boxes]
    assert depths == sorted(depths)
    assert len(drawn.missed) == 2 - int(drawn.right.sum())
    assert drawn.objects.shape == (len(drawn.boxes), 1, 14, 14)


def test_nothing_present_is_drawn_as_nothing() -> None:
    network = Spair(SMALL).eval()
    with torch.no_grad():
        list(network.cells.presence_network.parameters())[-1].fill_(-100.0)
    drawn = drawn_objects(network, Sample(torch.rand(1, 24, 24), boxes=torch.tensor([[10.0, 10.0, 14.0, 14.0]])))
    assert len(drawn.boxes) == len(drawn.objects) == 0 and len(drawn.missed) == 1
    assert not drawn.reconstruction.any()


def test_the_figure_judges_boxes_by_the_ink(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[Sample] = []

    def seen(network: Spair, sample: Sample) -> DrawnObjects:
        judged.append(sample)
        return drawn_objects(network, sample)

    monkeypatch.setattr("mistnn.reproduce.figures.spair.drawn_objects", seen)
    assert len(figure_objects(Request(run)).axes) >= 3 * len(judged) == 12
    for sample in judged:
        assert sample.boxes is not None and len(sample.boxes) in (2, 3)
        for x, y, width, height in sample.boxes.tolist():
            left, top = round(x - width / 2), round(y - height / 2)
            inside = sample.image[0, top : top + round(height), left : left + round(width)] > 0
            assert bool(inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any())


def test_a_curve_has_a_value_for_each_number(run: Path) -> None:
    curve = transfer_curve(run, images=3, most=4)
    assert set(curve) == {f"{name}_{number}" for name in ("count_error", "ap50") for number in range(1, 5)}
    network = load_model(run)
    assert isinstance(network, Spair)
    four = ScatterConfig(source="embedded", canvas=60, crop=48, counts=(4,))
    assert curve["count_error_4"] == evaluate(network, four, "test", 3)["count_error"]
    figure = draw_transfer(curve, (2, 3))
    for axes in figure.axes:
        assert axes.get_xlabel() == "digits (shaded: in training images)"
        ground = axes.patches[0].get_extents().transformed(axes.transData.inverted())
        assert ground.intervalx.tolist() == pytest.approx([1.5, 3.5])
    assert figure.axes[0].get_ylim()[0] == 0
    assert figure.axes[0].lines[0].get_xdata().tolist() == [1, 2, 3, 4]
    assert figure.axes[1].lines[0].get_ydata().tolist() == [curve[f"ap50_{number}"] for number in range(1, 5)]


def test_other_runs_have_no_curve(run: Path) -> None:
    with pytest.raises(MistError, match="no run of SPAIR"):
        transfer_curve("mist-mnist-3")
    with pytest.raises(MistError, match="at most 25 objects in images of 60 x 60 .* to 26 digits"):
        transfer_curve(run, images=3, most=26)
    with pytest.raises(MistError, match="train spair-transfer-15"):
        figure_transfer(Request())


def test_rows_of_larger_images_have_a_curve() -> None:
    for row in find_table("spair").rows:
        data = find_preset(row.name).experiment.data
        assert isinstance(data, ScatterConfig)
        assert row.curve is (data.crop is not None and data.crop < data.canvas)
