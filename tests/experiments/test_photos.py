"""Photographs of a folder: planned, trained on cached features, resumed, measured and predicted."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mistnn
from mistnn.cli.main import main
from mistnn.data import FolderConfig, SizeSuggestion
from mistnn.data.folder.content import FolderImage, read_folder
from mistnn.data.folder.images import FolderImages, range_of
from mistnn.errors import MistError
from mistnn.experiments import folder_plan, restore, train
from mistnn.experiments.folder import FolderView, folder_metrics, view_folder
from mistnn.experiments.folder_plan import plan_folder
from mistnn.experiments.photo_plan import plan_photos, range_reasons
from mistnn.experiments.photos import CachedFeatures, recoloured
from mistnn.inference import Predictor, predict_folder
from mistnn.models.photos import PhotoConfig
from mistnn.nn.preparation import PreparationConfig
from mistnn.presets import find_preset
from mistnn.records import Detections, Sample


def draw(folder: Path, number: int = 14) -> Path:
    """Pictures of red discs and blue squares, 30 px wide, of two sizes."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = []
    for index in range(number):
        height, width = (128, 192) if index % 3 else (160, 160)
        image = random.normal(150, 12, (height, width, 3)).clip(0, 255)
        y, x = np.mgrid[:height, :width]
        cells = [(20 + 48 * row, 20 + 48 * column) for row in range(height // 56) for column in range(width // 56)]
        places = random.permutation(len(cells))[: 1 + index % 4]
        counts = {"disc": 0, "square": 0}
        for place in places:
            top, left = cells[place]
            disc = bool(random.integers(2))
            counts["disc" if disc else "square"] += 1
            near = (y - top) ** 2 + (x - left) ** 2 < 225 if disc else np.maximum(abs(y - top), abs(x - left)) < 14
            image[near] = (200, 30, 30) if disc else (30, 40, 200)
        name = f"{index}.png"
        Image.fromarray(image.astype(np.uint8)).save(folder / "images" / name)
        split = "test" if index >= number - 3 else "validation" if index >= number - 6 else "train"
        rows.append([name, counts["disc"], counts["square"], split])
    with (folder / "counts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "disc", "square", "split"], *rows])
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("photos"))


def test_the_plan(folder: Path) -> None:
    planned = plan_photos(find_preset("my-photos").experiment.at(str(folder)))
    model = planned.experiment.model
    assert isinstance(model, PhotoConfig)
    assert model.class_names == ("disc", "square") and model.k == 6  # 1.5 times the most in a training image
    assert model.preparation.zoom == 1.5 and model.preparation == planned.experiment.data.preparation  # type: ignore[attr-defined]
    assert 1.5 * 20 < model.box_size < 1.5 * 45 and model.stride == (8 if model.box_size >= 40 else 4)
    assert any("expect an error of about" in reason for reason in planned.reasons)
    assert (model.preparation.lowest, model.preparation.highest) == (0, 1)
    assert planned.experiment.train.batch_size == 8  # as many as there are training images
    assert any("at most 6 objects" in reason for reason in planned.reasons)
    assert plan_photos(find_preset("my-photos").experiment.at(str(folder)), 4).experiment.model.k == 4  # type: ignore[attr-defined]


def test_images_of_a_camera_with_12_bits_are_stretched(folder: Path, tmp_path: Path) -> None:
    """The same pictures in grey, as 12 of 16 bits: the network sees what it sees of 8 bits, up to the ends."""
    dark = tmp_path / "dark"
    (dark / "images").mkdir(parents=True)
    for path in sorted((folder / "images").iterdir()):
        grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16)
        Image.fromarray(grey * 16).save(dark / "images" / path.name)
    (dark / "counts.csv").write_bytes((folder / "counts.csv").read_bytes())
    planned = plan_photos(find_preset("my-photos").experiment.at(str(dark)))
    preparation: PreparationConfig = planned.experiment.model.preparation  # type: ignore[attr-defined]
    assert planned.experiment.data.preparation == preparation  # type: ignore[attr-defined]
    assert 0 < preparation.lowest < 60 * 16 / 65535 and 150 * 16 / 65535 < preparation.highest < 255 * 16 / 65535
    assert "the images are faint" in planned.reasons[0]
    images = planned.experiment.data.open("train", None)  # type: ignore[attr-defined]
    assert images[0].image.min() == 0 and images[0].image.max() > 0.8
    first = np.asarray(Image.open(dark / "images" / "0.png")).copy()
    first[:20, :20] = 65535  # a scale bar
    Image.fromarray(first).save(dark / "images" / "0.png")
    training = read_folder(dark).images[:8]
    assert range_of(training) == (0, 1, tuple(one.name for one in training[1:]), ("0.png",))
    assert "7 of 8 images use at most a quarter" in range_reasons(range_of(training))[0]
    for one in training[:6]:  # now the first ones have 8 bits and are bright
        shutil.copy(folder / "images" / one.name, dark / "images" / one.name)
    assert range_of(read_folder(dark).images[:8]).faint == tuple(one.name for one in training[6:])


def test_dark_images_of_8_bits_are_not_called_faint(folder: Path, tmp_path: Path) -> None:
    dark = Path(shutil.copytree(folder, tmp_path / "dark"))
    Image.new("RGB", (80, 60), (9, 9, 9)).save(dark / "images" / "1.png")
    assert range_of(read_folder(dark).images[:8]) == (0, 1, (), ())


def test_the_plan_tells_what_the_folder_tells(folder: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(folder, tmp_path / "copied"))
    rows = (copied / "counts.csv").read_text().splitlines()
    (copied / "counts.csv").write_text("\n".join(rows[:-2]) + "\n")
    planned = plan_photos(find_preset("my-photos").experiment.at(str(copied)))
    noted = read_folder(copied).notes
    assert noted and set(noted[:3]) <= set(planned.reasons)


def test_a_folder_without_counts_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "a")
    (tmp_path / "a" / "counts.csv").unlink()
    with pytest.raises(MistError, match=r"give counts\.csv"):
        plan_photos(find_preset("my-photos").experiment.at(str(tmp_path / "a")))
    with pytest.raises(MistError, match="needs your image folder"):
        plan_photos(find_preset("my-photos").experiment)


def test_train_resume_evaluate_predict(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--data-root", str(folder), "--train.threads", "1", "--train.save-every", "3"]
    out, whole = str(tmp_path / "run"), str(tmp_path / "whole")
    assert main(["train", "my-photos", *given, "--out", out, "--train.steps", "6"]) == 0
    assert "the images are photographs" in capsys.readouterr().out
    assert main(["train", "--resume", out, "--data-root", str(folder), "--train.steps", "8"]) == 0
    experiment = restore(out)
    assert isinstance(experiment.model, PhotoConfig) and experiment.model.pyramid.digest
    assert main(["evaluate", out, "--data-root", str(folder), "--json", str(tmp_path / "metrics.json")]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["images"] == 3 and {"count_error", "count_error:disc", "count_error_mean"} <= metrics.keys()
    assert main(["predict", out, str(folder / "images"), "--out", str(tmp_path / "found")]) == 0
    with (tmp_path / "found" / "detections.csv").open() as file:
        rows = list(csv.DictReader(file))
    model = Predictor.from_pretrained(out)
    assert len(rows) == sum(len(model.predict(path)) for path in sorted((folder / "images").iterdir()))
    assert {row["label"] for row in rows} <= {"disc", "square"}
    assert main(["train", "my-photos", *given, "--out", whole, "--train.steps", "6"]) == 0


def test_a_stopped_run_goes_on_as_if_it_had_not_been(folder: Path, tmp_path: Path) -> None:

    planned = plan_photos(find_preset("my-photos").experiment.at(str(folder))).experiment
    loop = dataclasses.replace(planned.train, steps=6, save_every=3, evaluate_every=0, threads=1)
    experiment = dataclasses.replace(planned, train=loop, step=planned.step.for_run(6))

    train(experiment, tmp_path / "whole", progress=False)
    short = dataclasses.replace(experiment, train=dataclasses.replace(loop, steps=3))
    train(short, tmp_path / "parts", progress=False)
    train(experiment, tmp_path / "parts", resume=True, progress=False)
    one, two = (Predictor.from_pretrained(tmp_path / name).model.state_dict() for name in ("whole", "parts"))
    for name, value in one.items():
        assert torch.equal(value, two[name]), name


def cached(folder: Path) -> CachedFeatures:
    planned = plan_photos(find_preset("my-photos").experiment.at(str(folder))).experiment
    model = planned.model.build().eval()
    data = planned.data
    assert isinstance(data, FolderConfig)
    return CachedFeatures(model, FolderImages(data, "train", None), 4, flips="all")  # type: ignore[arg-type]


def test_rounds_hold_every_image_and_batches_neighbours_in_size(folder: Path) -> None:
    samples = cached(folder)
    order = samples.order(3)
    assert order.shape == (8, 2) and set(order[:, 0]) == set(range(8))
    sides = [[samples.shape(*one) for one in part] for part in order.reshape(-1, 4, 2).tolist()]
    assert len({rows > columns for rows, columns in sides[0]} & {rows > columns for rows, columns in sides[1]}) <= 1
    assert (samples.order(3) == order).all() and not (samples.order(4) == order).all()


def test_the_shape_of_a_version_is_known_before_its_features(folder: Path) -> None:
    samples = cached(folder)
    samples.views = 4
    for flips in ("all", "mirror"):
        samples.flips = flips  # type: ignore[assignment]
        for image in (0, 1, 4):
            for view in range(4):
                samples._cache.clear()
                assert samples.features(image, view)[0].shape[1:] == samples.shape(image, view)


def test_a_batch_is_its_samples_padded(folder: Path) -> None:
    samples = cached(folder)
    batch = samples.batch(range(8))
    assert batch.counts is not None and batch.sizes is not None
    for index in range(8):
        one = samples[index]
        rows, columns = one.image.shape[1:]
        torch.testing.assert_close(batch.images[index, :, :rows, :columns], one.image.float())
        last = batch.images[index, :, rows - 1 : rows, :columns]
        assert torch.equal(batch.images[index, :, rows:, :columns], last.expand(-1, batch.images.shape[2] - rows, -1))
        assert one.counts is not None and one.size is not None
        assert torch.equal(batch.counts[index], one.counts) and torch.equal(batch.sizes[index], one.size)


def test_versions_are_turned_and_resized(folder: Path) -> None:
    samples = cached(folder)
    image = torch.zeros(3, 60, 100)
    image[:, :10, :10] = 1  # a mark in one corner
    shapes, corners = set(), set()
    for view in range(1, 25):
        found = samples.changed(image, (0, view))
        height, width = found.shape[1:]
        shapes.add(height > width)
        assert 80 <= max(height, width) <= 110 and min(height, width) / max(height, width) == pytest.approx(
            0.6, abs=0.02
        )
        bright = (found[0] == found[0].max()).nonzero().double().mean(0)
        corners.add((bool(bright[0] > height / 2), bool(bright[1] > width / 2)))
    assert shapes == {False, True} and len(corners) == 4
    for flips, sides in (("mirror", {False, True}), ("none", {False})):
        samples.flips = flips  # type: ignore[assignment]
        versions = [samples.changed(image, (0, view)) for view in range(1, 16)]
        assert all(one.shape[2] > one.shape[1] for one in versions)
        bright = [(one[0] == one[0].max()).nonzero().double().mean(0) for one in versions]
        assert all(place[0] < one.shape[1] / 2 for place, one in zip(bright, versions, strict=True))
        assert {bool(place[1] > one.shape[2] / 2) for place, one in zip(bright, versions, strict=True)} == sides


def test_colours_change_and_stay_in_range() -> None:
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = recoloured(image, np.random.default_rng(0))
    assert found.shape == image.shape and float(found.min()) >= 0 and float(found.max()) <= 1
    assert not torch.equal(found, image)
    assert torch.equal(found, recoloured(image, np.random.default_rng(0)))


def test_my_folder_chooses_by_the_images(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = find_preset("my-folder").experiment.at(str(folder))
    assert plan_folder(own).experiment.model.kind == "photo-mist"
    assert main(["inspect", str(folder), "--out", str(tmp_path / "sheet.png")]) == 0
    said = capsys.readouterr().out
    assert "800 steps of 8 images" in said, said
    monkeypatch.setattr(folder_plan, "packaged_weights", lambda: None)
    planned = plan_folder(own)
    assert planned.experiment.model.kind == "mist" and "pip install 'mistnn[photos]'" in planned.reasons[-1]
    monkeypatch.setattr(folder_plan, "PHOTO_EDGE", 1000)
    assert "mistnn[photos]" not in " ".join(plan_folder(own).reasons)


def test_objects_larger_than_images_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--data-root", str(folder), "--train.steps", "1", "--model.box-size", "1e9"]
    assert main(["train", "my-photos", *given]) == 2
    assert "larger than every image (288 px after resizing)" in capsys.readouterr().err


def test_other_samples_are_refused(folder: Path, tmp_path: Path) -> None:
    samples = find_preset("my-photos").experiment.at(str(folder)).data.open("train")
    with pytest.raises(MistError, match="is trained on an image folder: leave out samples"):
        mistnn.train("my-photos", data_root=folder, samples=samples, steps=1, progress=False)


def test_fit_learns_photographs_and_reports_them(folder: Path, tmp_path: Path) -> None:
    model = mistnn.fit(folder, steps=3, threads=1, progress=False, out=tmp_path / "run")
    assert model.config.kind == "photo-mist" and model.class_names == ("disc", "square")
    assert len(mistnn.fit(folder, steps=5, threads=1, progress=False, out=tmp_path / "run", resume=True).history) >= 2
    assert {"count_error", "f1"} <= model.evaluate(folder).keys() | {"f1"}
    view = view_folder(model.model, FolderConfig(str(folder), preparation=model.config.preparation), "test")
    assert view.threshold == 0  # all boxes are counted, in the report as everywhere
    assert [len(one.boxes) for one in view.found] == [
        len(model.predict(folder / "images" / image.name)) for image in view.images
    ]
    report = tmp_path / "report.html"
    assert main(["report", str(tmp_path / "run"), "--data-root", str(folder), "--out", str(report)]) == 0
    assert "photographs" not in model.notes[-1] and report.stat().st_size > 10_000


def test_one_huge_or_tiny_thing_is_named(folder: Path, tmp_path: Path) -> None:
    """A much larger image that is trained on decides for all, and is named; a test image costs nothing."""
    shutil.copytree(folder, tmp_path / "a")
    huge = Image.new("RGB", (1200, 900), (150, 150, 150))
    huge.save(tmp_path / "a" / "images" / "huge.png")
    table = (folder / "counts.csv").read_text()
    preset = find_preset("my-photos").experiment
    for split, named in (("test", False), ("train", True)):
        (tmp_path / "a" / "counts.csv").write_text(table + f"huge.png,0,0,{split}\n")
        planned = plan_photos(preset.at(str(tmp_path / "a")))
        assert any("huge.png is 1200 px long" in reason for reason in planned.reasons) == named
        assert planned.experiment.model.preparation.zoom == (0.64 if named else 1.5)  # type: ignore[attr-defined]
    small = plan_photos(preset.at(str(folder)), size=SizeSuggestion(4.0, "it was said"))
    assert any("6 px wide, which is too small" in reason for reason in small.reasons)


def test_intervals_are_measured(folder: Path, tmp_path: Path) -> None:
    """Three validation images are too few for intervals; with more, a run stores and tells them."""
    rows = [line.split(",") for line in (folder / "counts.csv").read_text().splitlines()]
    shutil.copytree(folder, tmp_path / "a")
    split = [[*row[:3], "validation" if index % 2 else "train"] for index, row in enumerate(rows[1:])]
    (tmp_path / "a" / "counts.csv").write_text("\n".join(",".join(row) for row in [rows[0], *split]) + "\n")
    given = ["--train.threads", "1", "--train.steps", "2"]
    for name, root in (("few", folder), ("more", tmp_path / "a")):
        out = tmp_path / name
        assert main(["train", "my-photos", "--data-root", str(root), *given, "--out", str(out)]) == 0
        model = Predictor.from_pretrained(out)
        found = model.predict(folder / "images" / "0.png")
        assert (len(model.model.intervals), len(found.count_intervals)) == ((0, 0) if name == "few" else (2, 2))
    json_file = tmp_path / "metrics.json"
    command = ["evaluate", str(tmp_path / "more"), "--data-root", str(tmp_path / "a"), "--split", "validation"]
    assert main([*command, "--json", str(json_file)]) == 0
    assert json.loads(json_file.read_text())["interval_coverage"] >= 0.8


def test_unlike_images_are_flagged(folder: Path, tmp_path: Path) -> None:
    """Noise differs from the training images more than all validation images do, and an image of the folder doesn't."""
    out, noise = tmp_path / "run", tmp_path / "images" / "noise.png"
    given = ["--train.threads", "1", "--train.steps", "2"]
    assert main(["train", "my-photos", "--data-root", str(folder), *given, "--out", str(out)]) == 0
    noise.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (180, 240, 3), dtype=np.uint8)).save(noise)
    own = next(image for image in read_folder(folder).images if image.split == "validation")
    shutil.copy(folder / "images" / own.name, noise.parent / "own.png")
    predictor = Predictor.from_pretrained(out)
    far, near = (predictor.predict(noise.parent / name).unlike for name in ("noise.png", "own.png"))
    assert far is not None and near is not None and near <= 1.001 < 1.2 < far
    summary = predict_folder(predictor, [noise.parent], tmp_path / "found")
    assert summary.unlike == 1 and "1 of 2 images differ" in summary.notes[-1]
    with open(tmp_path / "found" / "counts.csv", newline="") as file:
        assert {(row["file"], row["unlike"]) for row in csv.DictReader(file)} == {("noise.png", "1"), ("own.png", "0")}


def test_overlap_is_measured_beside_centres() -> None:
    """Three detections with their centres in objects of their class: one box fits, one is too small, one is too far."""
    boxes = torch.tensor([[20.0, 20, 10, 10], [50, 20, 10, 10], [80, 20, 10, 10]])
    found = torch.tensor([[20.0, 21, 10, 10], [50, 20, 6, 6], [84, 24, 10, 10]])
    image = FolderImage("a.png", Path("a.png"), 100, 40, (2, 1), (True, True), None, None, "test")
    sample = Sample(torch.empty(0), torch.tensor([2, 1]), boxes, torch.tensor([0, 0, 1]))
    view = FolderView((image,), [sample], [Detections(found, torch.ones(3), torch.tensor([0, 0, 1]))], 0.0, (image,))
    metrics = folder_metrics(view, ("one", "two"))
    assert metrics["f1"] == 1 and metrics["f1_iou50"] == pytest.approx(1 / 3)
    assert (metrics["f1_iou50:one"], metrics["f1_iou50:two"]) == (0.5, 0.0)


def test_errors_of_counts_by_class() -> None:
    """By hand: class one is found 3 times for 1 and 0 times for 1; class two is right, and once too few for 2."""
    image = FolderImage("a.png", Path("a.png"), 100, 40, (1, 1), (True, True), None, None, "test")
    counts = [torch.tensor([1, 0]), torch.tensor([1, 2])]
    samples = [Sample(torch.empty(0), one, None, None) for one in counts]
    found = [torch.tensor([0, 0, 0]), torch.tensor([1])]
    detections = [Detections(torch.ones(len(one), 4), torch.ones(len(one)), one) for one in found]
    metrics = folder_metrics(FolderView((image, image), samples, detections, 0.0, (image,)), ("one", "two"))
    assert metrics["count_mrmse"] == pytest.approx((math.sqrt((4 + 1) / 2) + math.sqrt((0 + 1) / 2)) / 2)
    assert metrics["count_mrelrmse"] == pytest.approx((math.sqrt((4 + 1) / 2 / 2) + math.sqrt(1 / 3 / 2)) / 2)
