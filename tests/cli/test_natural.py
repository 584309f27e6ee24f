"""From copies of VOC 2007 and COCO to a trained, measured model: the commands, on miniatures in the real formats."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torchvision.models import resnet34

from mistnn.cli.main import main
from mistnn.models.mist import NaturalStep
from mistnn.weights import tensor_digest
from tests.cli.runs import logged, only_line, read_config
from tests.data.published import CLASSES, make_coco, make_voc

SMALL = [
    *("--model.class-names", *CLASSES),
    *"--model.shorter-edge 64 --model.reader.width 8 --model.reader.patch-size 4 --train.threads 1".split(),
    *"--train.steps 2 --train.batch-size 2 --train.log-every 1 --evaluation-images 2 --train.evaluate-every 2".split(),
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published")
    make_voc(root / "VOC2007")
    make_coco(root / "coco")
    return root


@pytest.fixture(scope="module")
def built(sources: Path) -> Path:
    out = sources / "pascal-coco"
    words = ["build", "pascal-coco", "--voc", str(sources / "VOC2007"), "--coco", str(sources / "coco")]
    assert main([*words, "--out", str(out), "--classes", *CLASSES]) == 0
    return out


@pytest.fixture(scope="module")
def backbone(sources: Path) -> Path:
    torch.manual_seed(0)
    torch.save(resnet34().state_dict(), sources / "resnet34.pth")
    return sources / "resnet34.pth"


@pytest.fixture(scope="module")
def trained(sources: Path, built: Path, backbone: Path) -> Path:
    out = sources / "runs" / "mist-pascal-coco-seed0"
    words = ["--out", str(out), "--data.root", str(built), "--model.backbone.weights", str(backbone)]
    assert main(["train", "mist-pascal-coco", *words, *SMALL]) == 0
    return out


def test_build_says_what_it_did(sources, tmp_path, capsys):
    words = ["build", "pascal-coco", "--voc", str(sources / "VOC2007"), "--out", str(tmp_path / "out")]
    assert main([*words, "--classes", *CLASSES]) == 0
    said = capsys.readouterr().out
    described = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert described["split_sha256"] in said and "train" in said
    assert sum(described["images"].values()) + sum(described["dropped"].values()) == 18


def test_train_keeps_the_backbone_and_no_path(trained, backbone):
    assert [line["step"] for line in logged(trained) if "task" in line] == [1, 2]
    config = read_config(trained)
    assert config["model"]["kind"] == "natural-mist"
    assert config["model"]["backbone"]["weights"] == "resnet34.pth"
    assert config["experiment"]["data"]["root"] is None
    kept = load_file(trained / "model.safetensors")["backbone.body.layer3.5.conv2.weight"]
    assert torch.equal(kept, torch.load(backbone, weights_only=True)["layer3.5.conv2.weight"])


def test_resume_needs_no_weights(trained, built, sources, tmp_path, backbone):
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    assert main(["train", "--resume", str(copy), "--data.root", str(built), "--train.steps", "3"]) == 0
    assert logged(copy)[-1]["step"] == 3


def stop_at_once(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Begins a run that Ctrl-C ends in its first step."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(NaturalStep, "__call__", interrupted)
        assert main(words) == 130


def test_a_run_that_is_stopped_at_once_has_its_weights(trained, built, backbone, tmp_path, monkeypatch, capsys):
    """The file may be gone when it goes on; another one of its name, where the command is run, is not taken."""
    monkeypatch.chdir(tmp_path)
    own = Path(shutil.copy(backbone, tmp_path / "own.pth"))
    words = ["--data.root", str(built), *SMALL, "--model.backbone.weights", str(own)]
    stop_at_once(["train", "mist-pascal-coco", "--out", "run", *words], monkeypatch)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    capsys.readouterr()
    torch.manual_seed(1)
    torch.save(resnet34().state_dict(), own)
    shutil.copytree("run", "unsaved")
    assert main(["train", "--resume", "run", "--data.root", str(built)]) == 0
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "run", trained))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)

    shutil.rmtree("unsaved/checkpoint")  # killed while it was written
    capsys.readouterr()
    again = ["train", "--resume", "unsaved", "--data.root", str(built)]
    assert main(again) == 2
    only_line(capsys.readouterr().err, "own.pth holds other weights", "--model.backbone.weights FILE")
    own.unlink()
    assert main(again) == 2
    only_line(capsys.readouterr().err, "own.pth: no such file")
    assert main([*again, "--model.backbone.weights", str(backbone)]) == 0
    kept = load_file("unsaved/model.safetensors")
    assert all(torch.equal(kept[name], theirs[name]) for name in kept)


def test_the_ledger_names_weights_and_split(trained, built, backbone, tmp_path):
    from mistnn.nn.backbones import Backbone, BackboneConfig

    body = Backbone(BackboneConfig(weights=str(backbone)))
    body.load_pretrained()
    digest = tensor_digest(body.body.state_dict())
    record = tmp_path / "mist.json"
    assert main(["evaluate", str(trained), "--data-root", str(built), "--record", str(record)]) == 0
    entry = json.loads(record.read_text())
    assert entry["backbone"] == f"resnet34, resnet34.pth, SHA-256 {digest}"
    assert entry["split"] == json.loads((built / "dataset.json").read_text())["split_sha256"]
    assert main(["results", "--ledger", str(tmp_path), "--out", str(tmp_path / "page.md")]) == 0
    page = (tmp_path / "page.md").read_text()
    assert digest in page and entry["split"] in page


def test_evaluate(trained, built, tmp_path, capsys):
    assert main(["evaluate", str(trained), "--data-root", str(built), "--json", str(tmp_path / "a.json")]) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    test_images = json.loads((built / "dataset.json").read_text())["images"]["test"]
    assert found["images"] == test_images and found["objects"] >= test_images
    assert 0 <= found["recall"] <= 1 and 0 <= found["f1_iou50"] <= 1
    assert "centre lies in an object of their class" in capsys.readouterr().out


def test_predict(trained, sources, tmp_path):
    """On photographs as they are, of another size than the networks see; boxes in their own pixels."""
    out = tmp_path / "found"
    assert main(["predict", str(trained), str(sources / "VOC2007" / "JPEGImages"), "--out", str(out)]) == 0
    assert len(list((out / "overlays").iterdir())) == 18
    with (out / "detections.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} <= set(CLASSES), "the background is no class"
    for row in rows:
        assert 0 <= float(row["x"]) <= 160 + 30 and float(row["w"]) > 112


def test_figure(trained, built, tmp_path):
    words = ["figure", "fig6", "--out", str(tmp_path), "--data-root", str(built), "--model"]
    for model in (trained, trained.parent):
        assert main([*words, str(model)]) == 0
        assert (tmp_path / "fig6.png").stat().st_size > 1000 and (tmp_path / "fig6.pdf").exists()


@pytest.mark.parametrize("name", ["mist-pascal-coco-32", "xie20-pascal-coco", "mist-voc07", "xie20-voc07"])
def test_the_other_presets(name, sources, built, tmp_path):
    root = built
    if "voc07" in name:
        root = tmp_path / "voc07"
        words = ["build", "voc07", "--voc", str(sources / "VOC2007"), "--out", str(root)]
        assert main([*words, "--classes", *CLASSES]) == 0
        described = json.loads((root / "dataset.json").read_text())
        assert described["images"] == {"train": 12, "validation": 3, "test": 3} and not described["dropped"]
    out = tmp_path / "run"
    # Voc07 images come at their own size of 224 px; only the head is small.
    assert main(["train", name, "--out", str(out), "--data.root", str(root), *SMALL]) == 0
    assert [line["step"] for line in logged(out) if "task" in line] == [1, 2]
    assert main(["evaluate", str(out), "--data-root", str(root)]) == 0


def test_random_weights_are_told(built, tmp_path, capsys):
    assert main(["train", "mist-pascal-coco", "--out", str(tmp_path / "a"), "--data.root", str(built), *SMALL]) == 0
    assert "the backbone has random weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["build", "pascal-coco", "--out", "o"], ["no source was given", "--voc DIR"]),
        (["build", "voc07", "--voc", "v", "--coco", "c", "--out", "o"], ["--coco c", "voc07 is VOC 2007 alone"]),
        (["build", "pascal-coco", "--voc", "nowhere", "--out", "o"], ["nowhere is not a PASCAL VOC folder"]),
        (["build", "pascal-coco", "--coco", "nowhere", "--out", "o"], ["nowhere is not a COCO folder"]),
        (["build", "pascal-coco", "--voc", "v", "--out", "o", "--classes", "zebra"], ["--classes=('zebra',) must be"]),
        (["train", "mist-pascal-coco"], ["no folder of photographs is given", "mist build"]),
        (["train", "mist-pascal-coco", "--data.root", "nowhere"], ["holds no dataset.json", "mist build"]),
        (["figure", "fig6"], ["runs/tables holds no run of mist-pascal-coco"]),
        (["reproduce", "table4", "--budget", "quick"], ["--data-root DIR", "--backbone FILE"]),
        (["reproduce", "voc07", "--data-root", "x"], ["--backbone FILE"]),
    ],
    ids=lambda words: " ".join(words[:4]),
)
def test_mistakes_are_one_line(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    only_line(capsys.readouterr().err, *said)
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_other_mistakes(built, trained, tmp_path, capsys):
    out = ["--out", str(tmp_path / "run"), "--data.root", str(built)]
    for words, said in (
        (["train", "mist-pascal-coco", *out], "class-names those of the folder"),
        (["train", "demo", *out[:2], "--start-from", str(trained)], "different network"),
        (["train", "mist-pascal-coco", *out, *SMALL, "--model.backbone.weights", "none.pth"], "no such file"),
        (["train", "mist-pascal-coco", *out, *SMALL, "--model.backbone.network", "vgg"], "network='vgg' must be"),
        (["evaluate", str(trained)], "no folder of photographs is given"),
        (["figure", "fig6", "--model", str(trained), "--out", str(tmp_path)], "--data-root DIR"),
        (["figure", "fig6", "--model", "mist-mnist-3", "--out", str(tmp_path)], "holds no run"),
    ):
        assert main(words) == 2, words
        assert said in only_line(capsys.readouterr().err)
