"""House numbers read whole, from SVHN's own files to a measured network: the commands, on miniatures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from mistnn.cli.main import main
from mistnn.data import DistortedConfig, NumberCropsConfig, ScenesConfig
from mistnn.errors import MistError
from mistnn.experiments import Experiment, check, evaluate, evaluate_stored, restore, train
from mistnn.models.stn import NumberReader, NumberReaderConfig, StnStepConfig
from mistnn.presets import PRESETS, find_preset
from mistnn.training import TrainConfig
from mistnn.training.loop import EVALUATION
from mistnn.weights import load_model
from tests.cli.runs import logged, only_line
from tests.data.house_numbers import list_part, make_part, write_digit_struct

NAMES = [name for name, one in PRESETS.items() if isinstance(one.experiment.data, NumberCropsConfig)]
SMALL = (
    "--train.steps 2 --train.batch-size 2 --train.log-every 1 --train.threads 1 --evaluation-images 3 "
    "--step.rate 1e-4 --data.validation 3 --model.units 8 --model.side 32 --data.side 32"
).split()
TRANSFORMERS = {"cnn": 0, "single": 1, "multi": 4}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SVHN's own files where h5py can write them, else the list that is made of them."""
    folder = tmp_path_factory.mktemp("svhn")
    for seed, (part, count) in enumerate({"train": 12, "test": 7, "extra": 4}.items()):
        try:
            import h5py
        except ImportError:
            list_part(folder, part, count, seed)
        else:
            write_digit_struct(h5py, folder / part / "digitStruct.mat", make_part(folder, part, count, seed))
    return folder


def test_the_paper_is_there() -> None:
    assert NAMES == [f"stn-svhn-{kind}{size}" for size in ("", "-128") for kind in TRANSFORMERS]
    for name in NAMES:
        whole = find_preset(name).experiment
        step, model, data = whole.step, whole.model, whole.data
        assert isinstance(step, StnStepConfig) and isinstance(model, NumberReaderConfig)
        assert isinstance(data, NumberCropsConfig)
        assert (whole.train.steps, whole.train.batch_size, data.validation) == (400_000, 128, 5000)
        assert (step.rate, step.decay, step.drops, step.weight_decay) == (0.01, 1e-4, 4, 5e-4)
        assert (step.localisation_share, model.dropout, model.layers, model.units) == (0.1, 0.5, "eleven", 3072)
        assert model.side == data.side == (128 if name.endswith("128") else 64)


@pytest.mark.parametrize("name", NAMES)
def test_from_files_to_a_number(name: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", name, "--data-root", str(root), "--out", str(run), *SMALL]) == 0
    lines = logged(run)
    assert max(line["step"] for line in lines) == 2
    assert any(EVALUATION + "error" in line for line in lines)
    kind = name.removesuffix("-128").rpartition("-")[2]
    outside = {f"outside_{place}" for place in range(1, TRANSFORMERS[kind] + 1)}
    metrics = evaluate_stored(run, 1000, root=str(root))
    assert metrics.keys() == {"error", "images"} | outside and metrics["images"] == 7
    model = load_model(run)
    assert isinstance(model, NumberReader) and restore(run).data.root is None
    capsys.readouterr()
    assert main(["evaluate", str(run), "--images", "5", "--data-root", str(root)]) == 0
    assert "error" in capsys.readouterr().out


def test_what_is_measured(root: Path) -> None:
    """A network that always says one number: wrong on every image that shows another."""
    torch.manual_seed(0)
    model = NumberReader(NumberReaderConfig(units=4, side=32)).train()
    data = NumberCropsConfig(str(root), side=32, validation=3)
    from mistnn.data import NumberCrops

    images = NumberCrops(data, "test", 7)
    said = list(images.numbers[2].labels)
    with torch.no_grad():
        model.last.weight.zero_()
        for place in range(5):
            model.last.bias[place * 11 + (said[place] if place < len(said) else 10)] = 5
    expected = sum(list(number.labels) != said for number in images.numbers) / 7
    done: list[tuple[int, int]] = []
    metrics = evaluate(model, data, "test", 7, lambda some, whole: done.append((some, whole)))
    assert metrics == {"error": expected, "images": 7} and 0 < expected < 1 and done == [(7, 7)] and model.training


def test_a_stopped_run_goes_on_as_if_it_had_not_been(root: Path, tmp_path: Path) -> None:
    whole = Experiment(
        NumberReaderConfig("single", units=4, side=32),
        NumberCropsConfig(str(root), side=32, validation=3, extra=False),
        StnStepConfig(rate=0.01, decay_steps=4, drops=4, decay=1e-4, localisation_share=0.1),
        TrainConfig(steps=4, batch_size=2, threads=1),
        evaluation_images=0,
    )
    train(whole, tmp_path / "whole")
    train(dataclasses.replace(whole, train=dataclasses.replace(whole.train, steps=2)), tmp_path / "part")
    train(whole, tmp_path / "part", resume=True)
    first, second = (load_model(tmp_path / name).state_dict() for name in ("whole", "part"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"data": ScenesConfig()}, "not for data of kind"),
        ({"data": DistortedConfig()}, "not for data of kind"),
        ({"model": find_preset("stn-cnn-tc").experiment.model}, "not for data of kind"),
        ({"model": NumberReaderConfig(side=32)}, "model.side=32, but data.side=64"),
    ],
)
def test_parts_that_do_not_fit(changed: dict[str, object], said: str) -> None:
    whole = find_preset("stn-svhn-cnn").experiment
    with pytest.raises(MistError, match=said):
        check(dataclasses.replace(whole, **changed))  # pyright: ignore[reportArgumentType]


def test_mistakes_are_one_line(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "run")]
    for words, said in (
        ([], "give the folder of its files with --data-root"),
        (["--data-root", str(tmp_path)], "holds neither train/ nor train.tar.gz"),
        (["--data-root", str(root)], "data.validation=5000 leaves none of the 12 images"),
        (["--data-root", str(root), "--model.side", "1", "--data.side", "1"], "model.side=1"),
    ):
        assert main(["train", "stn-svhn-single", *out, *words]) == 2
        only_line(capsys.readouterr().err, said)
    assert not (tmp_path / "run").exists()
