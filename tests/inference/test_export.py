"""Exported detectors give what the model gives, for any size and K."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mistnn.data.digits.scenes import ScenesConfig
from mistnn.errors import MistError
from mistnn.experiments import restore
from mistnn.inference import Predictor, export
from mistnn.inference.export import compare_speed, export_model, open_session
from mistnn.models.conncomp import MODELS
from mistnn.models.mist.config import MistConfig
from mistnn.models.photos import PhotoConfig, PhotoMist, PhotoStep, PhotoStepConfig
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.nn.preparation import PreparationConfig
from mistnn.nn.pyramid import PyramidConfig
from mistnn.records import Batch
from mistnn.weights import shipped_names

pytestmark = pytest.mark.plain  # a compiler can't see through the shape checks
TOLERANCE = 1e-4
DOCS = Path(__file__).parents[2] / "docs"


def run_onnx(path: Path, image: Tensor, k: int) -> list[Tensor]:
    found = open_session(path).run(None, {"image": image.numpy(), "k": np.array(k)})
    return [torch.from_numpy(one) for one in found]


def run_pt2(path: Path, image: Tensor, k: int) -> list[Tensor]:
    return list(torch.export.load(path).module()(image, torch.tensor(k)))


def largest_difference(predictor: Predictor, found: list[Tensor], image: Tensor, k: int) -> float:
    """Of boxes and scores; numbers and labels must be equal. Of a flat background, any pixels are as good as others."""
    own = predictor.predict_batch(image, k or None)[0]
    assert len(found[0]) == len(own.boxes)
    labels = torch.zeros(len(own.boxes), dtype=torch.int64) if own.labels is None else own.labels
    window = getattr(predictor.model.config, "softmax_window", 0)
    flat = 1.01 / window**2 if window else 0.0  # what the local softmax makes of equal scores
    one, other = (in_order(*parts) for parts in (found, (own.boxes, own.scores, labels)))
    one, other = (rows[rows[:, 4] > flat] for rows in (one, other))
    assert one.shape == other.shape and bool((one[:, 5] == other[:, 5]).all())
    return float((one - other).abs().max()) if len(one) else 0.0


def in_order(boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """(found, 6): boxes, scores and labels by place: objects with equal scores have no order."""
    rows = torch.cat((boxes, scores[:, None], labels[:, None]), 1)
    places = [tuple(round(value) for value in row[:2]) for row in rows.tolist()]
    return rows[sorted(range(len(rows)), key=places.__getitem__)]


@pytest.fixture(scope="module")
def photo() -> Predictor:
    """A model of photographs after two steps on generated images."""
    torch.manual_seed(0)
    config = PhotoConfig(
        class_names=("red", "green"),
        k=12,
        box_size=32,
        width=16,
        preparation=PreparationConfig(zoom=0.8),
        pyramid=PyramidConfig(),
    )
    model = PhotoMist(config)
    model.pyramid.load_pretrained()
    batch = Batch(torch.stack([blobs(96, 128, seed)[0] for seed in range(4)]), torch.tensor([[3, 2]] * 4))
    step = PhotoStep(model, PhotoStepConfig(decay_steps=2, start="density", dense_share=0.0))
    for iteration in range(2):
        step(batch, iteration)
    torch.nn.init.normal_(model.template, std=0.01)
    torch.nn.init.normal_(model.heatmap_head[-1].weight, std=0.5)  # two steps leave it nearly flat
    return Predictor(model)


def blobs(height: int, width: int, seed: int) -> Tensor:
    """A grey image with squares of two colours and noise, (1, 3, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    image = 0.4 + 0.2 * torch.rand(1, 3, height, width, generator=generator)
    for index in range(5):
        y, x = (int(torch.randint(0, side - 24, (1,), generator=generator)) for side in (height, width))
        image[0, index % 2, y : y + 24, x : x + 24] = 0.95
    return image


def scenes(name: str, number: int) -> list[Tensor]:
    """Images like those that a shipped model was trained on, from digits that need no files."""
    data: Any = restore(name).data
    if isinstance(data, ScenesConfig):
        data = dataclasses.replace(data, source="embedded")
    dataset = data.open("test", number)
    return [dataset[index].image[None] for index in range(number)]


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_names())
def test_shipped_models(name: str, tmp_path: Path) -> None:
    predictor, path = Predictor.from_pretrained(name), tmp_path / "model.onnx"
    export_model(predictor, path)
    session = open_session(path)
    for image in scenes(name, 50):
        found = [torch.from_numpy(one) for one in session.run(None, {"image": image.numpy(), "k": np.array(0)})]
        assert len(found[0]) > 0
        assert largest_difference(predictor, found, image, 0) <= TOLERANCE


@pytest.mark.slow
def test_size_and_k_vary(tmp_path: Path) -> None:
    predictor = Predictor.from_pretrained("mist-discover-mnist-hard")  # several scales: images are resized
    path, other = tmp_path / "model.onnx", tmp_path / "model.pt2"
    export_model(predictor, path)
    export_model(predictor, other, "pt2")
    for (height, width), k in (((80, 80), 0), ((61, 93), 4), ((120, 75), 20)):
        image = torch.nn.functional.interpolate(scenes("mist-discover-mnist-hard", 1)[0], (height, width))
        assert largest_difference(predictor, run_onnx(path, image, k), image, k) <= TOLERANCE
        assert largest_difference(predictor, run_pt2(other, image, k), image, k) <= TOLERANCE


@pytest.mark.parametrize("measured", [pytest.param(False, marks=pytest.mark.slow), True])
def test_photographs(photo: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: bool) -> None:
    """With boxes of one size and with measured ones, whose rims follow the last bits of the features."""
    tolerance = 50 * TOLERANCE if measured else TOLERANCE
    model: Any = photo.model
    model.config = dataclasses.replace(model.config, measured=measured)
    model.extent.normal_(std=0.01, generator=torch.Generator().manual_seed(1))
    model.extent_bias.fill_(0.5)
    path, other = tmp_path / "model.onnx", tmp_path / "model.pt2"
    program = export._traced(export.whole_detector(photo), 3)  # takes longest: once for both files
    monkeypatch.setattr(export, "_traced", lambda *given: program)
    export_model(photo, other, "pt2")
    export_model(photo, path)
    numbers, sides = set(), set()
    for seed in range(12 if measured else 50):
        image = blobs(96 + seed, 161 - seed, seed)
        k = 0 if seed % 2 else seed
        found = run_onnx(path, image, k)
        numbers.add(len(found[0]))
        sides |= {round(float(side), 3) for side in found[0][:, 2]}
        assert largest_difference(photo, found, image, k) <= tolerance
    assert len(numbers) > 3
    assert (len(sides) > 3) == measured
    assert largest_difference(photo, run_pt2(other, image, 7), image, 7) <= tolerance


@pytest.mark.slow
def test_a_photograph_without_objects(photo: Predictor, tmp_path: Path) -> None:
    """A count of 0, and a box where one is asked for."""
    model: Any = photo.model
    with torch.no_grad():
        model.density_head.bias -= 30
    path, image = tmp_path / "model.onnx", blobs(100, 120, 0)
    export_model(photo, path)
    for k in (0, 1):
        found = run_onnx(path, image, k)
        assert [len(one) for one in found] == [k] * 3
        assert largest_difference(photo, found, image, k) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("ground", "network"), [("median", "released"), ("light", "small"), ("dark", "small")])
def test_preparation_and_threshold(ground: Any, network: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = MistConfig(
        class_names=("a", "b"),
        k=9,
        channels=3,
        patch_size=32,
        threshold=0.01,
        heatmap=HeatmapConfig(network=network, channels=4, blocks=1),
        preparation=PreparationConfig(zoom=0.5, ground=ground),
    )
    predictor, path = Predictor(config.build()), tmp_path / "model.onnx"
    export_model(predictor, path)
    numbers = set()
    for seed, (height, width) in enumerate(((91, 75), (90, 120), (133, 87))):
        image = blobs(height, width, seed)
        found = run_onnx(path, image, 0)
        numbers.add(len(found[0]))
        assert largest_difference(predictor, found, image, 0) <= TOLERANCE
    assert min(numbers) < 9


def test_description_and_paths(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    predictor = Predictor.from_pretrained("mist-mnist-3")
    export_model(predictor, path)
    about = open_session(path).get_modelmeta().custom_metadata_map
    assert json.loads(about["class_names"]) == [str(digit) for digit in range(10)]
    assert about["kind"] == "mist" and about["k"] == "3" and about["threshold"] == "0.0"
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()
    other = tmp_path / "model.pt2"
    export_model(predictor, other, "pt2")
    extra = {"mistnn.json": ""}
    torch.export.load(other, extra_files=extra)
    assert json.loads(extra["mistnn.json"]) == about
    speed = compare_speed(predictor, path, torch.rand(1, 1, 64, 64), runs=1)
    assert speed.torch > 0 and speed.onnx > 0
    # The example of the guide, in a process of its own.
    page = (DOCS / "export.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    assert len(code.splitlines()) <= 20
    np.save(tmp_path / "image.npy", np.random.default_rng(0).random((64, 64), dtype=np.float32))
    loaded = "\nimport sys; assert not {'torch', 'mistnn'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code + loaded], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4  # a line for each of three digits, and the counts


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    predictor = Predictor(MODELS[0]().build())
    with pytest.raises(MistError, match="kind 'conncomp' can't be exported"):
        export_model(predictor, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
