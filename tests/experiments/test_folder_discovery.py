"""A folder of images and K, and nothing else: it is planned, trained, measured and used."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import pytest
import torch

from mistnn.cli.main import main
from mistnn.data import FolderConfig, FolderImages
from mistnn.errors import MistError
from mistnn.experiments import evaluate, evaluate_stored, lifted_parts, restore
from mistnn.experiments.folder import neighbours
from mistnn.experiments.folder_plan import plan_folder
from mistnn.models.mist import Mist
from mistnn.presets.mist.my_folder import MY_FOLDER
from mistnn.records import Detections, collate
from mistnn.weights import load_model
from tests.cli.runs import only_line
from tests.data.folders import make_folder
from tests.data.shapes import make_unlabelled

Captured = pytest.CaptureFixture[str]
K = 3
SMALL = (
    "--train.batch-size", "8", "--train.evaluate-every", "2", "--train.threads", "1", "--model.heatmap.channels", "8",
    "--model.heatmap.blocks", "2", "--model.encoder.width", "8", "--model.encoder.code", "16", "--model.decoder", "8",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("unlabelled") / "shapes"
    make_unlabelled(root, 30, K)
    return root


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["train", "my-folder", "--data.root", str(folder), "--k", str(K), "--out", str(out), *SMALL]
    assert main([*arguments, "--train.steps", "3"]) == 0
    return out


def test_the_plan_is_to_redraw(folder: Path) -> None:
    planned, reasons = plan_folder(MY_FOLDER.experiment.at(str(folder)).with_steps(100), K)
    (model, step), data = lifted_parts(planned.resolved()), planned.data
    assert model.class_names == () and model.k == K and model.decoder and not model.background
    assert step.reconstruction == 1 and step.decay_steps == 100
    assert 1.0 < model.preparation.zoom < 1.8, "shapes of 14 px become 20"
    assert isinstance(data, FolderConfig)
    assert model.preparation.ground == "light" and model.preparation == data.preparation
    assert any(f"K = {K}, as given" in reason for reason in reasons)
    assert "learns by reconstructing" in reasons[0]


def test_without_k_there_is_nothing_to_go_by(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    arguments = ["train", "my-folder", "--data.root", str(folder), "--out", str(tmp_path / "run")]
    assert main(arguments) == 2
    only_line(capsys.readouterr().err, "only the images are known", "--k N", "counts.csv")
    assert main([*arguments, "--k", "0"]) == 2
    only_line(capsys.readouterr().err, "k=0", "1 or more")
    for k, words in (("99999", "take about"), ("999999", "pixels of the smallest image")):
        assert main([*arguments, "--k", k]) == 2
        only_line(capsys.readouterr().err, f"K = {k}", words)
    assert not (tmp_path / "run").exists()
    with pytest.raises(MistError, match="--k N"):
        plan_folder(MY_FOLDER.experiment.at(str(folder)))


def test_samples_are_images_alone(folder: Path) -> None:
    images = plan_folder(MY_FOLDER.experiment.at(str(folder)), K).experiment.data.open("train")
    batch = collate([images[index] for index in range(4)])
    assert batch.counts is None and batch.presence is None and batch.boxes is None
    splits = [len(FolderImages(images.config, split, None).images) for split in ("train", "validation", "test")]
    assert sum(splits) == 30 and min(splits) > 0


def test_inspect(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    arguments = ["inspect", str(folder), "--out", str(tmp_path / "x.png")]
    assert main(arguments) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("training   "))
    assert "can't be planned yet" in line and "--k N" in line
    assert main([*arguments, "--k", str(K)]) == 0
    out = capsys.readouterr().out
    assert "3, as given" in out and "per object fits the foreground" in out and "training     about" in out
    assert main([*arguments, "--k", "0"]) == 2
    only_line(capsys.readouterr().err, "--k=0", "1 or more")
    assert main([*arguments, "--k", "50000"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("training   "))
    assert "can't be planned yet" in line and "K = 50000" in line


def test_what_is_measured_is_what_a_loop_counts(run: Path, folder: Path) -> None:
    """Centre in box by a plain loop; the error of the images redrawn pixel by pixel."""
    data = dataclasses.replace(restore(run).data, root=f"{folder}-known")
    model = load_model(run)
    assert isinstance(model, Mist)
    metrics = evaluate(model, data, "train", 1000)
    images = FolderImages(data, "train", 1000)
    samples = [images[index] for index in range(len(images))]
    detections: list[Detections] = []
    reconstructions: list[torch.Tensor] = []
    # In the same batches as measured: others round otherwise, and scores of an untrained heat map are almost equal.
    for indices in neighbours(data, images.images):
        explained = model.explain(torch.stack([samples[index].image for index in indices]), K)
        assert explained.reconstruction is not None
        detections += explained.detections
        reconstructions += explained.reconstruction
    hits = objects = 0
    squares: list[torch.Tensor] = []
    for sample, found, rebuilt in zip(samples, detections, reconstructions, strict=True):
        assert sample.boxes is not None
        squares.append((rebuilt - sample.image).square())
        left = list(range(len(sample.boxes)))
        objects += len(left)
        # Shapes don't touch, so a centre lies in at most one box, and which comes first doesn't matter.
        for x, y in found.boxes[:, :2].tolist():
            for place in left:
                cx, cy, w, h = sample.boxes[place].tolist()
                if abs(x - cx) <= w / 2 and abs(y - cy) <= h / 2:
                    hits += 1
                    left.remove(place)
                    break
    assert metrics["objects"] == objects == K * len(images) and metrics["images"] == len(images)
    assert metrics["recall"] == metrics["precision"] == pytest.approx(hits / objects) == metrics["f1"]
    assert metrics["rmse"] == pytest.approx(float(torch.stack(squares).mean().sqrt()), rel=1e-4)


def test_evaluate_and_predict(run: Path, folder: Path, tmp_path: Path, capsys: Captured) -> None:
    assert main(["evaluate", str(run), "--data-root", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "rmse_black" in said and "count_error" not in said and "f1" not in said
    assert load_model(run).config.threshold == 0, "there are no counts to choose it by"
    out = tmp_path / "out"
    assert main(["predict", str(run), str(folder / "images"), "--out", str(out), "--report"]) == 0
    only_line(capsys.readouterr().err, "trained without counts", f"K = {K} objects in every image", "--k")
    rows = list(csv.DictReader((out / "counts.csv").read_text().splitlines()))
    assert [(row["class"], row["count"]) for row in rows] == [("", str(K))] * 30
    found = list(csv.DictReader((out / "detections.csv").read_text().splitlines()))
    assert len(found) == 30 * K and all(0 <= float(row["x"]) <= 64 and row["label"] == "" for row in found)
    assert main(["predict", str(run), str(folder / "images"), "--out", str(out), "--force", "--k", "2"]) == 0
    assert capsys.readouterr().err == ""


def test_no_report_on_counts(run: Path, folder: Path, tmp_path: Path, capsys: Captured) -> None:
    counted = make_folder(tmp_path / "counted", 6)
    page = tmp_path / "page.html"
    assert main(["report", str(run), "--data-root", str(counted), "--out", str(page)]) == 2
    only_line(capsys.readouterr().err, "not trained on a folder of images with counts", "mist predict")
    assert not page.exists()


@pytest.mark.slow
def test_it_finds_the_objects(tmp_path: Path) -> None:
    """On images it never saw, after a minute or two on one core.

    The first heat map finds them too: they still are found when the images are redrawn, as they aren't to begin with.
    """
    known = make_unlabelled(tmp_path / "shapes", 80, K)
    run = tmp_path / "run"
    arguments = ["train", "my-folder", "--data.root", str(tmp_path / "shapes"), "--k", str(K), "--out", str(run)]
    assert main([*arguments, "--train.steps", "150", "--train.batch-size", "8", "--train.evaluate-every", "0"]) == 0
    metrics = evaluate_stored(run, 1000, root=str(known))
    assert metrics["f1"] > 0.9 and metrics["r2"] > 0.5
