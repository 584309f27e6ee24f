"""Table 4 filled on a miniature, and the boxes that figure 6 calls right."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from mistnn.data import NaturalConfig
from mistnn.data.photographs.build import PASCAL_COCO, build_photographs
from mistnn.data.photographs.built import read_built
from mistnn.errors import MistError
from mistnn.experiments import Experiment, evaluate
from mistnn.inference.judged import right_by_centre
from mistnn.metrics import centre_scores
from mistnn.models.mist import NaturalStepConfig
from mistnn.presets import PRESETS, Preset
from mistnn.records import Detections, Sample
from mistnn.reproduce import fill, results_page
from mistnn.reproduce.fill import experiment_of, fill_table, rows_of_size
from mistnn.reproduce.ledger import read_ledger
from mistnn.reproduce.results_page import table_lines
from mistnn.reproduce.table import Size
from mistnn.reproduce.tables import find_table
from mistnn.training import TrainConfig
from tests.data.published import CLASSES, make_voc
from tests.models.natural import MIST, READER, build

NAME = "mist-pascal-coco"
TINY = Experiment(
    dataclasses.replace(MIST, class_names=CLASSES, shorter_edge=64, reader=READER),
    NaturalConfig(),
    NaturalStepConfig(),
    TrainConfig(steps=2, batch_size=2, log_every=1, save_every=2, threads=1, device="cpu"),
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("photographs")
    config = dataclasses.replace(PASCAL_COCO, classes=CLASSES, shares=(60, 20, 20))
    build_photographs("pascal-coco", config, root / "built", make_voc(root / "voc"), None)
    return str(root / "built")


def test_table_4_is_filled(built: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {**PRESETS, NAME: Preset(NAME, "", TINY)}
    for module in (fill, results_page):
        monkeypatch.setattr(module, "find_preset", tiny.__getitem__)
    paper = find_table("table4")
    table = paper._replace(size=Size(loop=(2, 2)), rows=tuple(row._replace(photographs=None) for row in paper.rows))
    results, runs = tmp_path / "results", tmp_path / "runs"
    with pytest.raises(MistError, match="--backbone FILE"):
        fill_table(table, "full", 1, results, runs, NAME, built)
    said: list[str] = []
    words = (table, "full", 1, results, runs, NAME, built, said.append)
    assert fill_table(*words, backbone="random") == 1
    entries = {entry.name: entry for entry in read_ledger(results)}
    assert set(entries) == {NAME}
    entry = entries[NAME]
    assert entry.images == entry.metrics["images"] < 300, "as many as the folder has"
    assert {"recall", "f1", "f1_iou50"} <= set(entry.metrics) and entry.steps == 2
    assert entry.backbone == "resnet34 with random weights"
    assert entry.split == json.loads(Path(built, "dataset.json").read_text())["split_sha256"]
    assert sum("--backbone random" in line for line in said) == 1
    assert any(NAME in line and "already" not in line for line in said)
    (row,) = (line for line in table_lines(table, [entry]) if "| MIST |" in line)
    assert "| 0.679 | " in row and "| 1 |" in row
    assert fill_table(*words, backbone="random") == 0


def test_rows_need_as_many_photographs_as_their_data_have(built: str) -> None:
    number = sum(map(len, read_built(built).images.values()))
    rows, said = find_table("table4").rows, list[str]()
    with pytest.raises(MistError, match=f"{number:,} photographs, which fits no row"):
        rows_of_size(rows, built, said.append)
    assert [line.partition(":")[0] for line in said] == [row.name for row in rows]
    near = rows[0]._replace(photographs=number + 1)
    assert rows_of_size([near, rows[1]], built, said.append) == [near]
    assert rows_of_size([rows[0]._replace(photographs=None)], built, said.append)


def test_weights_go_where_the_backbone_is() -> None:
    table = find_table("table4")
    row = table.rows[0]
    assert experiment_of(table, row, "full", 0, None, backbone="a.pth").model.backbone.weights == "a.pth"
    assert experiment_of(table, row, "full", 0, None, backbone="random").model.backbone.weights is None


def test_what_figure_6_calls_right_is_what_table_4_counts() -> None:
    random = torch.Generator().manual_seed(0)
    for _ in range(30):
        found = Detections(
            torch.rand(4, 4, generator=random) * 20, torch.rand(4), torch.randint(2, (4,), generator=random)
        )
        boxes = torch.rand(3, 4, generator=random) * 20
        sample = Sample(torch.zeros(3, 20, 20), None, boxes, torch.randint(2, (3,), generator=random))
        right = right_by_centre(found, sample.boxes, sample.labels)
        assert right.sum().item() == pytest.approx(4 * centre_scores([found], [boxes], [sample.labels]).precision)
        for place in right.nonzero().flatten().tolist():
            x, y = found.boxes[place, :2].tolist()
            inside = [
                abs(x - cx) <= w / 2 and abs(y - cy) <= h / 2 and label == found.labels[place]
                for (cx, cy, w, h), label in zip(boxes.tolist(), sample.labels.tolist(), strict=True)
            ]
            assert any(inside)
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert right_by_centre(nothing, sample.boxes, sample.labels).shape == (0,)


def test_evaluation_by_hand(built: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that finds the first object of every image, and something of another class far away."""
    model = build(TINY.model)
    from mistnn.data import NaturalImages

    samples = NaturalImages(NaturalConfig(built), "test", 99)
    turn = iter(range(len(samples)))

    def explain(images: torch.Tensor, k: int):
        sample = samples[next(turn)]
        assert k == 2 and torch.equal(images[0], sample.image)
        boxes = torch.stack((sample.boxes[0], torch.tensor([-90.0, -90.0, 5.0, 5.0])))
        labels = torch.stack((sample.labels[0], (sample.labels[0] + 1) % 3))
        return type("Found", (), {"detections": [Detections(boxes, torch.tensor([0.9, 0.8]), labels)]})

    monkeypatch.setattr(model, "explain", explain)
    found = evaluate(model.train(), NaturalConfig(built), "test", 99)
    assert model.training
    images, objects = len(samples), sum(len(samples[index].labels) for index in range(len(samples)))
    assert (found["images"], found["objects"], found["found"]) == (images, objects, 2 * images)
    for ending in ("", "_iou50"):
        assert found[f"precision{ending}"] == pytest.approx(0.5)
        assert found[f"recall{ending}"] == pytest.approx(images / objects)
        assert found[f"f1{ending}"] == pytest.approx(2 * images / (objects + 2 * images))
