"""From a folder with counts to a model that counts: plan, training, threshold, evaluation, prediction."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shlex
import shutil
import signal
from pathlib import Path
from typing import get_args

import pytest
import torch
from PIL import Image

import mistnn
from mistnn.api import with_settings
from mistnn.cli.main import main
from mistnn.data import FolderConfig, FolderImages
from mistnn.data.folder.content import in_order_of, read_folder
from mistnn.errors import MistError
from mistnn.experiments import check, evaluate_stored, lifted_parts, restore, train
from mistnn.experiments.folder_plan import plan_folder
from mistnn.inference import Predictor
from mistnn.interfaces import Split
from mistnn.models.mist import Mist
from mistnn.presets import find_preset
from mistnn.presets.mist.my_folder import MY_FOLDER
from mistnn.training.runfolder import files_of_training
from mistnn.weights import load_model, read_config
from tests.cli.runs import only_line
from tests.data.folders import make_folder

Captured = pytest.CaptureFixture[str]
SMALL = (
    "--train.steps", "3", "--train.batch-size", "2", "--train.evaluate-every", "2", "--model.heatmap.channels", "4",
    "--model.heatmap.blocks", "1", "--model.encoder.width", "4", "--model.encoder.code", "8", "--model.decoder", "4",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "my-folder", "--data-root", str(folder), "--out", str(out), *SMALL]) == 0
    return out


def test_the_plan_follows_the_folder(folder: Path) -> None:
    planned, reasons = plan_folder(MY_FOLDER.experiment.at(str(folder)).with_steps(100))
    model, step = lifted_parts(planned.resolved())
    assert set(model.class_names) == {"zero", "one", "two"}
    assert model.k == 3 and model.background and step.objects_only
    assert 0.4 < model.preparation.zoom < 1.0, "digits 40 px wide, their ink 28 to 36, become 20"
    assert isinstance(planned.data, FolderConfig) and model.preparation == planned.data.preparation
    assert any("K = 3" in reason for reason in reasons) and step.decay_steps == 100


def ground_for(root: Path) -> str:
    planned, _ = plan_folder(MY_FOLDER.experiment.at(str(root)))
    return lifted_parts(planned)[0].preparation.ground


def test_the_ground_is_the_one_that_objects_stand_out_from(tmp_path: Path) -> None:
    for name, inverted, ground in (("on_dark", False, "dark"), ("on_light", True, "light")):
        root = make_folder(tmp_path / name, images=12, inverted=inverted)
        assert ground_for(root) == ground
    for image in list((tmp_path / "on_light" / "images").iterdir())[::2]:
        image.write_bytes((tmp_path / "on_dark" / "images" / image.name).read_bytes())
    assert ground_for(tmp_path / "on_light") == "median"


def test_training_images_are_endless_rounds_and_flipped(folder: Path) -> None:
    config = plan_folder(MY_FOLDER.experiment.at(str(folder))).experiment.data
    assert isinstance(config, FolderConfig)
    images, again = FolderImages(config, "train", None), FolderImages(config, "train", None)
    count = len(images.images)
    for index in (0, 1, count, 5 * count + 2):
        assert torch.equal(images[index].image, again[index].image)
    first = {images[index].image.sum().item() for index in range(count)}
    second = {images[index].image.sum().item() for index in range(count, 2 * count)}
    assert len(first) > 0.8 * count
    assert max(min(abs(a - b) for b in second) for a in first) < 0.1, "the same images, in another order"
    order = [[images[turn * count + index].counts.tolist() for index in range(count)] for turn in range(2)]
    assert order[0] != order[1] and sorted(order[0]) == sorted(order[1])
    unflipped = FolderImages(dataclasses.replace(config, flips="none"), "train", None)
    assert any(not torch.equal(unflipped[index].image, images[index].image) for index in range(count))


def test_images_of_several_sizes_are_padded_in_training_alone(tmp_path: Path) -> None:
    """Whichever way an image is flipped, it begins at the first pixel, and its boxes go with it."""
    (tmp_path / "images").mkdir()
    entries = []
    for index, (width, height) in enumerate(((40, 20), (24, 36), (40, 20))):
        picture = Image.new("L", (width, height), 60)
        picture.paste(255, (2, 3, 6, 9))  # a bright box near a corner
        picture.save(tmp_path / "images" / f"{index}.png")
        box = {"boxes": [[2, 3, 6, 9]], "split": ("train", "train", "test")[index]}
        entries.append({"file": f"{index}.png", "width": width, "height": height, **box})
    (tmp_path / "boxes.json").write_text(json.dumps(entries))
    config = FolderConfig(root=str(tmp_path), channels=1)
    images = FolderImages(config, "train", None)
    seen = set()
    for index in range(32):
        sample = images[index]
        assert sample.image.shape == (1, 36, 40) and sample.size is not None and sample.boxes is not None
        height, width = sample.size.tolist()
        assert (sample.image[0, :height, :width] > 0).all()
        assert not sample.image[0, height:].any() and not sample.image[0, :, width:].any()
        x, y, w, h = sample.boxes[0].tolist()
        bright = (sample.image[0] == 1).nonzero().double() + 0.5
        assert bright.mean(0).tolist() == [y, x] and (w, h) == (4, 6)
        seen.add((height, width, x, y))
    assert len(seen) == 8, "both images, all four ways"
    alone = FolderImages(config, "test", None)[0]
    assert alone.image.shape == (1, 20, 40) and alone.size is None


def test_images_that_are_not_trained_on_cost_nothing(tmp_path: Path) -> None:
    """Neither those without counts nor those for validation and testing, however large they are."""
    (tmp_path / "images").mkdir()
    sizes = {"a": (40, 20), "b": (24, 36), "validation": (60, 50), "test": (90, 10), "uncounted": (200, 300)}
    for name, size in sizes.items():
        Image.new("L", size, 60).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "counts.csv").write_text("file,count,split\na,1,train\nb,2,train\nvalidation,1,val\ntest,1,test\n")
    images = FolderImages(FolderConfig(root=str(tmp_path)), "train", None)
    assert images[0].image.shape == (3, 36, 40)
    assert images.room == 3 * 4 * (40 * 20 + 24 * 36), "as they are kept, without padding"


def test_a_run_tells_why_and_ends_with_a_threshold(run: Path, capsys: Captured) -> None:
    model = load_model(run)
    assert isinstance(model, Mist) and model.config.threshold > 0
    assert restore(run).data == dataclasses.replace(restore(run).data, root=None), "no path of this machine is kept"


def test_evaluation_counts_without_k(run: Path, folder: Path, capsys: Captured) -> None:
    metrics = evaluate_stored(run, 1000, root=str(folder))
    images = FolderImages(dataclasses.replace(restore(run).data, root=str(folder)), "test", None)
    assert metrics["images"] == len(images.images)
    assert {"count_error", "count_error_mean", "count_error:zero", "count_error_mean:two"} <= metrics.keys()
    assert "f1" not in metrics, "no boxes are known"
    assert main(["evaluate", str(run), "--data-root", str(folder)]) == 0
    assert "count_error" in capsys.readouterr().out


def test_an_evaluation_says_what_it_rests_on(run: Path, folder: Path, tmp_path: Path, capsys: Captured) -> None:
    entry = tmp_path / "my entry.json"
    command = ["evaluate", str(run), "--data-root", str(folder), "--record", str(entry)]
    assert main([*command, "--split", "validation", "--seed", "3"]) == 0
    said = capsys.readouterr().err
    assert "--seed changes nothing" in said and "the threshold was chosen on these images" in said
    assert f"--split validation --data-root {shlex.quote(str(folder))}" in json.loads(entry.read_text())["command"]
    entry.unlink()
    assert main(command) == 0
    assert capsys.readouterr().err == ""


def test_images_of_the_training_are_named_in_a_test(run: Path, folder: Path, tmp_path: Path, capsys: Captured) -> None:
    """Under other names, they may be in the test split; and a folder may hold test images alone."""
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data-root", str(folder)]) == 0
    assert "used in the training" not in capsys.readouterr().err
    kept = json.loads((run / "images.json").read_text())
    split = {line.split(" ")[0]: name for name, line in kept.items()}
    moved = tmp_path / "moved"
    (moved / "images").mkdir(parents=True)
    rows = ["file,zero,one,two,split"]
    for number, name in enumerate([split["train"], split["validation"]]):
        shutil.copy(folder / "images" / name, moved / "images" / f"new{number}.png")
        rows.append(f"new{number}.png,1,0,0,test")
    (moved / "counts.csv").write_text("\n".join(rows))
    assert main(["evaluate", str(run), "--data-root", str(moved)]) == 0
    printed = capsys.readouterr()
    assert "2 of 2 test images were used in the training (new0.png, new1.png)" in printed.err
    assert "count_error_mean" in printed.out and "(or of these images, where" in " ".join(printed.out.split())
    assert "no training images with counts, so count_error_mean is that of the measured images' own mean" in printed.err
    page = tmp_path / "page.html"
    assert main(["report", str(run), "--data-root", str(moved), "--out", str(page)]) == 0
    text = " ".join(page.read_text("utf-8").split())
    assert "2 of 2 test images were used in the training" in text
    assert "has no training images with counts, so the mean is that of the images shown here" in text
    assert "Always predicting the mean of these images would give" in text


def test_all_images_of_another_folder_are_measured(
    run: Path, folder: Path, tmp_path: Path, capsys: Captured, caplog: pytest.LogCaptureFixture
) -> None:
    """Unless it has splits of its own: a hash would leave most of them out. Its images didn't choose the threshold."""
    other = tmp_path / "other"
    (other / "images").mkdir(parents=True)
    rows = ["file,zero,one,two"]
    for number in range(8):
        Image.effect_noise((32, 32), 10 * number + 1).convert("RGB").save(other / "images" / f"{number}.png")
        rows.append(f"{number}.png,{number % 3},1,0")
    (other / "counts.csv").write_text("\n".join(rows))
    assert sum(image.split == "test" for image in read_folder(other).images) < 4
    capsys.readouterr()
    command = ["evaluate", str(run), "--data-root", str(other), "--json", str(tmp_path / "numbers.json")]
    assert main(command) == 0
    assert "none of these 8 images was used in the training: all are measured" in capsys.readouterr().err
    assert json.loads((tmp_path / "numbers.json").read_text())["images"] == 8
    for measure in (
        lambda: mistnn.evaluate(run, data_root=other),
        lambda: mistnn.from_pretrained(run).measure(data_root=other),
    ):
        caplog.clear()
        assert measure()["images"] == 8 and "all are measured" in caplog.text
    page = tmp_path / "page.html"
    assert main(["report", str(run), "--data-root", str(other), "--out", str(page)]) == 0
    text = " ".join(page.read_text("utf-8").split())
    assert "None of these 8 images was used in the training: all are measured." in text
    capsys.readouterr()
    assert main([*command[:4], "--split", "validation"]) == 0
    assert "threshold was chosen" not in capsys.readouterr().err
    (run_without := Path(shutil.copytree(run, tmp_path / "old"))).joinpath("images.json").unlink()
    assert main(["evaluate", str(run_without), "--data-root", str(other)]) == 0
    said = capsys.readouterr().err
    assert "of 8 images are measured, by a hash of their names" in said and "isn't known" in said
    seen = next(name for name, line in json.loads((run / "images.json").read_text()).items() if line[:5] == "train")
    shutil.copy(folder / "images" / seen, other / "images" / "7.png")
    assert main(command) == 0
    assert json.loads((tmp_path / "numbers.json").read_text())["images"] < 4, "some are known: the hash splits them"


def test_a_saved_model_knows_the_images_of_its_training(
    run: Path, folder: Path, tmp_path: Path, capsys: Captured, caplog: pytest.LogCaptureFixture
) -> None:
    """Also by other names, and in Python, where all images of a folder are measured."""
    model = mistnn.from_pretrained(run)
    model.save(tmp_path / "saved")
    kept = json.loads((run / "images.json").read_text())
    seen = next(name for name, line in kept.items() if line.startswith("train"))
    (tmp_path / "moved" / "images").mkdir(parents=True)
    shutil.copy(folder / "images" / seen, tmp_path / "moved" / "images" / "new.png")
    (tmp_path / "moved" / "counts.csv").write_text("file,zero,one,two,split\nnew.png,1,0,0,test\n")
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "saved"), "--data-root", str(tmp_path / "moved")]) == 0
    assert "1 of 1 test images were used in the training (new.png)" in capsys.readouterr().err
    for measure in (
        lambda: mistnn.evaluate(tmp_path / "saved", data_root=tmp_path / "moved"),
        lambda: model.measure(data_root=tmp_path / "moved"),
    ):
        caplog.clear()
        measure()
        assert "1 of 1 test images were used in the training (new.png)" in caplog.text
    caplog.clear()
    model.measure(data_root=folder)
    assert caplog.text == ""
    model.evaluate(folder)
    assert f"{len(kept)} of 20 images were used in the training" in caplog.text
    assert "measure(data_root=...) takes its test images alone" in caplog.text


def test_a_model_is_not_saved_beside_the_checkpoint_of_other_weights(run: Path, tmp_path: Path) -> None:
    """A resumed run would continue the weights of the checkpoint and lose those that were saved."""
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    model = mistnn.from_pretrained(run)
    model.save(copy)  # the same weights: nothing is lost
    assert files_of_training(copy) == files_of_training(run) and (copy / "images.json").is_file()
    with torch.no_grad():
        next(iter(model.model.parameters())).add_(1)
    with pytest.raises(MistError, match="holds a run with other weights.*give a new folder"):
        model.save(copy)
    shutil.rmtree(copy / "checkpoint")
    model.seen = frozenset()
    model.save(copy)
    assert files_of_training(copy) == frozenset()


def test_a_run_knows_the_images_of_the_run_that_it_started_from(run: Path, folder: Path, tmp_path: Path) -> None:
    """And those that were added when it was resumed: none of them is a fair test image."""
    root, out = Path(shutil.copytree(folder, tmp_path / "own")), tmp_path / "later"
    start = ["--start-from", str(run)]
    assert main(["train", "my-folder", "--data-root", str(root), "--out", str(out), *SMALL, *start]) == 0
    (out / "images.json").unlink()
    assert files_of_training(out) == files_of_training(run) != frozenset()
    name = next(path.name for path in sorted((root / "images").iterdir()))
    with Image.open(root / "images" / name) as image:
        image.transpose(Image.Transpose.ROTATE_180).save(root / "images" / name)
    steps = str(restore(out).train.steps + 1)
    assert main(["train", "--resume", str(out), "--data-root", str(root), "--train.steps", steps]) == 0
    assert len(files_of_training(out) - files_of_training(run)) == 1


def test_prediction_counts_in_the_pixels_of_the_images(run: Path, folder: Path, tmp_path: Path) -> None:
    assert main(["predict", str(run), str(folder / "images"), "--out", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "counts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60 and {row["class"] for row in rows} == {"zero", "one", "two"}
    totals = [sum(int(row["count"]) for row in rows[at : at + 3]) for at in range(0, 60, 3)]
    assert min(totals) < 3, "as many as there are, not K everywhere"
    assert main(["predict", str(run), str(folder / "images"), "--k", "3", "--out", str(tmp_path / "three")]) == 0
    with (tmp_path / "three" / "detections.csv").open() as file:
        found = list(csv.DictReader(file))
    assert len(found) == 60 and max(float(row["x"]) for row in found) > 48


def test_a_run_that_was_stopped_does_not_count(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    """It has no threshold yet, and would find K objects in every image."""
    planned = plan_folder(MY_FOLDER.experiment.at(str(folder))).experiment
    small = {"model.heatmap.channels": 4, "model.encoder.width": 4, "model.encoder.code": 8, "model.decoder": 4}
    experiment = with_settings(planned, {**small, "train.batch_size": 2, "train.log_every": 1, "train.threads": 1})
    run, images, out = tmp_path / "a run", str(folder / "images"), tmp_path / "out"
    assert train(experiment, run, on_log=lambda *_: signal.raise_signal(signal.SIGINT)).interrupted
    assert main(["predict", str(run), images, "--out", str(out)]) == 2
    line = only_line(capsys.readouterr().err, "stopped before its threshold was chosen", "--k N")
    assert not out.exists()
    for model in (Predictor.from_pretrained(run), mistnn.load(run)):
        assert isinstance(model, Predictor) and len(model.predict(folder / "images" / "000.png", k=3).boxes) == 3
        with pytest.raises(MistError, match=re.escape(line.removeprefix("mist: "))):
            model.predict(folder / "images" / "000.png")
    assert main(["predict", str(run), images, "--out", str(out), "--k", "3"]) == 0
    page = tmp_path / "stopped.html"
    assert main(["report", str(run), "--data-root", str(folder), "--out", str(page)]) == 0
    assert "stopped before its threshold was chosen" in page.read_text("utf-8")
    capsys.readouterr()
    _, *command = shlex.split(line.split("`")[1].replace("DIR", str(folder)))
    steps = len((run / "metrics.jsonl").read_text().splitlines())
    assert command[-2:] == ["--train.steps", str(steps)] and main(command) == 0
    assert main(["predict", str(run), images, "--out", str(out), "--force"]) == 0
    model = load_model(run)
    assert isinstance(model, Mist) and model.config.threshold > 0


def test_broken_images_are_found_before_the_first_step(tmp_path: Path, capsys: Captured) -> None:
    """Those for training and validation alone: a test image is not needed."""
    root = make_folder(tmp_path / "own", 40)
    arguments = ["train", "my-folder", "--data-root", str(root), "--out", str(tmp_path / "run"), *SMALL]
    images = {split: [one for one in read_folder(root).images if one.split == split] for split in get_args(Split)}
    used = len(images["train"]) + len(images["validation"])

    def cut(split: Split, *places: int) -> None:
        for place in places:
            path = images[split][place].path
            path.write_bytes(path.read_bytes()[:-100])

    cut("test", 0)
    assert main([*arguments, "--force"]) == 0
    capsys.readouterr()
    cut("validation", -1)
    shutil.rmtree(tmp_path / "run")
    assert main(arguments) == 2
    name = images["validation"][-1].name
    only_line(capsys.readouterr().err, f"1 of {used} images", f"({name}: image file is truncated)", "their rows")
    assert not (tmp_path / "run").exists()
    unmeasured = [place for place in range(len(images["train"])) if place % 2]  # a plan measures every other one
    cut("train", *unmeasured)
    tried: list[tuple[int, int]] = []
    with pytest.raises(MistError, match=rf"{len(unmeasured) + 1} of {used} .*; {len(unmeasured) - 2} more\)"):
        FolderConfig(root=str(root)).check_images(lambda done, total: tried.append((done, total)))
    assert tried == [(done, used) for done in range(1, used + 1)]


def test_mistakes(folder: Path, run: Path, tmp_path: Path, capsys: Captured) -> None:
    assert main(["train", "my-folder", "--out", str(tmp_path / "a")]) == 2
    assert "needs your image folder" in capsys.readouterr().err
    zoom = ["--model.preparation.zoom", "0.3"]
    assert main(["train", "my-folder", "--data-root", str(folder), "--out", str(tmp_path / "b"), *zoom]) == 2
    assert "--data.preparation.zoom" in capsys.readouterr().err
    assert main(["evaluate", str(run)]) == 2
    assert "--data-root" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_labels_need_k(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "own" / "images").mkdir(parents=True)
    for image in sorted((folder / "images").iterdir())[:4]:
        (tmp_path / "own" / "images" / image.name).write_bytes(image.read_bytes())
    rows = "".join(f"{index:03}.png,zero\n" for index in range(4))
    (tmp_path / "own" / "labels.csv").write_text("file,class\n" + rows)
    assert main(["train", "my-folder", "--data-root", str(tmp_path / "own"), "--out", str(tmp_path / "run")]) == 2
    line = capsys.readouterr().err
    assert "labels.csv says which classes" in line and "--k N`, which is not given" in line
    (tmp_path / "own" / "labels.csv").unlink()
    assert main(["train", "my-folder", "--data-root", str(tmp_path / "own"), "--out", str(tmp_path / "run")]) == 2
    assert "give counts.csv" in capsys.readouterr().err


def test_a_folder_is_for_mist(folder: Path) -> None:
    grid = find_preset("grid-mnist-easy").experiment
    with pytest.raises(MistError, match="not for data of kind 'folder'"):
        check(dataclasses.replace(grid, data=FolderConfig(root=str(folder))))


def test_classes_are_matched_by_name(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Columns in another order give the same numbers; other classes are refused, not matched by place."""
    known = read_folder(folder)
    names = known.class_names[::-1]
    turned = in_order_of(known, names)
    assert turned.class_names == names
    assert [image.counts[::-1] for image in turned.images] == [image.counts for image in known.images]
    shutil.copytree(folder / "images", tmp_path / "images")
    rows = list(csv.reader((folder / "counts.csv").read_text().splitlines()))[1:]
    files = list(dict.fromkeys(file for file, _, _ in rows))
    counts = {(file, name): count for file, name, count in rows}
    for header in (("two", "zero", "one"), ("two", "zero", "other"), ("two", "zero")):
        lines = [("file", *header), *((file, *(counts.get((file, name), "0") for name in header)) for file in files)]
        (tmp_path / "counts.csv").write_text("".join(",".join(line) + "\n" for line in lines))
        code = main(["evaluate", str(run), "--data-root", str(tmp_path), "--json", str(tmp_path / "a.json")])
        assert code == (0 if "one" in header else 2)
    assert "the model was trained on" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--data-root", str(folder), "--json", str(tmp_path / "b.json")]) == 0
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()


def test_without_validation_images_the_training_images_choose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_folder(tmp_path / "own", images=4)
    rows = (root / "counts.csv").read_text().splitlines()
    (root / "counts.csv").write_text("\n".join([rows[0] + ",split", *(row + ",train" for row in rows[1:])]) + "\n")
    out = tmp_path / "run"
    given = ["--model.threshold", "2"]
    assert main(["train", "my-folder", "--data-root", str(root), "--out", str(out), *SMALL, *given]) == 0
    said = capsys.readouterr().err
    assert "the threshold will be chosen on training images" in said and "--model.threshold is not kept" in said
    assert load_model(out).config.threshold != 2


def test_training_says_what_looks_wrong_in_the_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(folder, tmp_path / "own"))
    (root / "images" / "zzz.png").write_text("no image")
    rows = (root / "counts.csv").read_text().splitlines()
    (root / "counts.csv").write_text("\n".join(rows[:-3]) + "\n")
    arguments = ["train", "my-folder", "--data-root", str(root), "--out", str(tmp_path / "run"), *SMALL, "--k", "99999"]
    assert main(arguments) == 2, "K is too large, so nothing is trained"
    captured = capsys.readouterr()
    assert "zzz.png is left out" in captured.out and "1 of 20 images have no row" in captured.out
    assert "pixels of the smallest image" in captured.err and "0.png)" in captured.err


def test_more_objects_than_pixels_are_refused_before_the_run(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "my-folder", "--data-root", str(folder), "--out", str(tmp_path / "run"), *SMALL]
    assert main([*arguments, "--k", "99999999999"]) == 2
    assert "pixels of the smallest image" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_finished_run_goes_on(run: Path, folder: Path, tmp_path: Path) -> None:
    """Its threshold was chosen after its last step, and is chosen again."""
    again = shutil.copytree(run, tmp_path / "again")
    assert read_config(again).model["threshold"] > 0
    for steps in ("3", "5"):
        assert main(["train", "--resume", str(again), "--data-root", str(folder), "--train.steps", steps]) == 0
        stored = read_config(again)
        assert stored.training is not None and stored.training.steps == int(steps)
        assert stored.model["threshold"] > 0


def test_a_resumed_run_names_what_changed_in_its_folder(
    run: Path, folder: Path, tmp_path: Path, capsys: Captured
) -> None:
    own, out = tmp_path / "folder", tmp_path / "run"
    shutil.copytree(folder, own)
    shutil.copytree(run, out)
    resume = ["train", "--resume", str(out), "--data-root", str(own), "--train.steps", "4"]
    assert main(resume) == 0
    assert "not those that this run was started with" not in "".join(capsys.readouterr())
    used = json.loads((out / "images.json").read_text())
    gone, other, counted = (own / "images" / name for name in sorted(used)[:3])
    gone.unlink()
    with Image.open(other) as image:
        turned = image.transpose(Image.Transpose.ROTATE_180)
    turned.save(other)
    table = own / "counts.csv"
    rows = [row for row in csv.reader(table.read_text(encoding="utf-8").splitlines()) if row[0] != gone.name]
    next(row for row in rows if row[0] == counted.name)[2] = "2"
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    assert main([*resume[:-1], "5"]) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert f"started with: {gone.name} is gone; {other.name}, {counted.name} are changed (count, split" in said
