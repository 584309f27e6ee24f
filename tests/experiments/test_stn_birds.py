"""Birds from the files of CUB-200-2011 to a measured network: the commands, on miniatures in the real layout."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torchvision.models import mobilenet_v3_small

from mistnn.cli.main import main
from mistnn.data import CubConfig, CubImages, ScenesConfig
from mistnn.errors import MistError
from mistnn.experiments import Experiment, check, evaluate, evaluate_stored, restore, train
from mistnn.models.stn import BirdClassifier, BirdsConfig, Classified, StnStepConfig
from mistnn.models.stn.describers import DescriberConfig
from mistnn.presets import PRESETS, find_preset
from mistnn.training import TrainConfig
from mistnn.weights import load_model
from tests.cli.runs import logged, only_line
from tests.data.birds import make_cub

NAMES = [name for name, one in PRESETS.items() if isinstance(one.experiment.data, CubConfig)]
SMALL = (
    "--train.steps 2 --train.batch-size 2 --train.log-every 1 --train.threads 1 --evaluation-images 2 "
    "--step.rate 1e-4 --data.validation .3 --model.classes 3 --model.crop 32 "
    "--model.backbone.network mobilenet_v3_small"
).split()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("birds")
    make_cub(folder)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as torchvision publishes them."""
    path = tmp_path_factory.mktemp("weights") / "mobilenet.pth"
    torch.manual_seed(5)
    torch.save(mobilenet_v3_small().state_dict(), path)
    return path


def test_the_paper_is_there() -> None:
    assert NAMES == ["stn-birds-2x224", "stn-birds-2x448", "stn-birds-4x448"]
    for name in NAMES:
        whole = find_preset(name).experiment
        model, data = whole.model, whole.data
        assert isinstance(model, BirdsConfig) and isinstance(data, CubConfig) and isinstance(whole.step, StnStepConfig)
        assert name == f"stn-birds-{model.number}x{model.side}" and data.side == model.side
        assert (model.crop, model.classes, model.backbone.network) == (224, 200, "googlenet")
        assert (model.transform.kind, model.transform.scale) == ("translation", 0.5)


@pytest.mark.parametrize("name", NAMES)
def test_from_files_to_a_number(name: str, root: Path, weights: Path, tmp_path: Path) -> None:
    run, side = tmp_path / "run", str(32 * int(name[-3:]) // 224)
    words = [*SMALL, "--model.side", side, "--data.side", side, "--model.backbone.weights", str(weights)]
    assert main(["train", name, "--data-root", str(root), "--out", str(run), *words]) == 0
    lines = logged(run)
    assert max(line["step"] for line in lines) == 2 and any("loss" in line for line in lines)
    number = int(name.partition("x")[0][-1])
    outside = {f"outside_{place}" for place in range(1, number + 1)}
    metrics = evaluate_stored(run, 1000, root=str(root))
    assert metrics.keys() == {"error", "images"} | outside and metrics["images"] == 6
    known = restore(run)
    assert known.data.root is None and isinstance(known.model, BirdsConfig)
    assert known.model.backbone.weights == "mobilenet.pth", "its name, not its place on this machine"
    assert isinstance(load_model(run), BirdClassifier)
    assert main(["evaluate", str(run), "--images", "2", "--data-root", str(root)]) == 0


def whole(root: Path, weights: Path | None) -> Experiment:
    return Experiment(
        BirdsConfig(
            2, backbone=DescriberConfig("mobilenet_v3_small", weights and str(weights)), side=32, crop=32, classes=3
        ),
        CubConfig(str(root), side=32),
        StnStepConfig(rate=0.01, decay=1.0, localisation_share=1e-4),
        TrainConfig(steps=2, batch_size=2, threads=1),
        evaluation_images=0,
    )


def test_pretrained_weights_start_every_stream(root: Path, weights: Path, tmp_path: Path) -> None:
    said: list[str] = []
    still = dataclasses.replace(whole(root, weights), train=TrainConfig(steps=1, batch_size=2, threads=1))
    still = dataclasses.replace(still, step=StnStepConfig(rate=1e-12, decay=1.0))
    train(still, tmp_path / "run", on_note=said.append)
    model = load_model(tmp_path / "run")
    assert isinstance(model, BirdClassifier)
    assert len(said) == 1 and "learnable parameters" in said[0]
    wanted = torch.load(weights, weights_only=True)["features.0.0.weight"]
    found = [part for name, part in model.state_dict().items() if name.endswith("body.features.0.0.weight")]
    assert len(found) == 3
    for part in found:
        torch.testing.assert_close(part, wanted)
    train(dataclasses.replace(whole(root, None)), tmp_path / "random", on_note=said.append)
    assert "random weights" in said[2] and len(said) == 3


def test_ten_views_are_averaged(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of the ten posteriors names the class; the mean of their logits and the middle view name others."""
    config = whole(root, None).model
    assert isinstance(config, BirdsConfig)
    model = BirdClassifier(config).train()
    data = CubConfig(str(root), side=32)
    labels = [bird.label for bird in CubImages(data, "test", 6).birds]
    assert len(set(labels)) > 1
    views = torch.tensor([[3.0, 0, 0]] * 4 + [[0, 0, 2]] + [[3, 0, 0]] * 2 + [[0, 40, 0]] * 3)
    assert [int(views.softmax(1).mean(0).argmax()), int(views.mean(0).argmax()), int(views[4].argmax())] == [0, 1, 2]
    true, left = model.forward, iter(labels)

    def told(images: torch.Tensor) -> Classified:
        return true(images)._replace(logits=views.roll(next(left), dims=1))

    monkeypatch.setattr(model, "forward", told)
    assert evaluate(model, data, "test", 6)["error"] == 0 and model.training


def test_parts_that_do_not_fit(root: Path) -> None:
    good = whole(root, None)
    for changed, said in (
        ({"data": ScenesConfig()}, "not for data of kind"),
        ({"model": find_preset("stn-cnn-tc").experiment.model}, "not for data of kind"),
        ({"data": CubConfig(side=64)}, "model.side=32, but data.side=64"),
    ):
        with pytest.raises(MistError, match=said):
            check(dataclasses.replace(good, **changed))  # pyright: ignore[reportArgumentType]


def test_mistakes_are_one_line(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, side = ["--out", str(tmp_path / "run")], ["--model.side", "32", "--data.side", "32", "--data-root", str(root)]
    for words, said in (
        ([], "download it from https://data.caltech.edu"),
        (["--data-root", str(tmp_path)], "holds neither CUB_200_2011/"),
        ([*side, *SMALL, "--model.backbone.weights", "none.pth"], "no such file"),
        ([*side, *SMALL[:-1], "nothing"], "is unknown: give a classifier of torchvision"),
        ([*side, *SMALL, "--model.classes", "7"], "model.classes=7"),
    ):
        assert main(["train", "stn-birds-2x224", *out, *words]) == 2
        only_line(capsys.readouterr().err, said)
    assert not (tmp_path / "run").exists()
