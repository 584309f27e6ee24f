"""The experiments on distorted digits: sizes, fit of their parts, a run from end to end."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from mistnn.cli.main import main
from mistnn.data import DistortedConfig, ScenesConfig
from mistnn.errors import MistError
from mistnn.experiments import Experiment, check, evaluate_stored, restore, train
from mistnn.inference import Predictor
from mistnn.models.stn import StnClassifier, StnConfig, StnStepConfig, count_parameters
from mistnn.nn.spatial_transformer import TransformConfig
from mistnn.presets import PRESETS, find_preset
from mistnn.presets.stn.digits import CANVAS
from mistnn.training import TrainConfig
from mistnn.weights import load_model

CLASSIFIERS = [
    name
    for name, preset in PRESETS.items()
    if isinstance(preset.experiment.data, DistortedConfig) and name != "stn-coloc-encoder"  # co-localisation's own
]
TINY = Experiment(
    StnConfig("fcn", 8, 1, TransformConfig("affine"), halve=True, side=14),
    DistortedConfig("rts", 14, source="embedded"),
    StnStepConfig(rate=0.05, decay_steps=40),
    TrainConfig(steps=40, batch_size=32, log_every=10, threads=1),
    evaluation_images=50,
)


def test_all_that_the_paper_has_is_there() -> None:
    assert len(CLASSIFIERS) == 2 * 4 * len(CANVAS) + 8
    for name in ("stn-cnn-affine-rts", "stn-fcn-tps-e", "stn-cnn-tc", "stn-fcn-tps-addition", "stn-2xfcn-tps-addition"):
        assert name in CLASSIFIERS
    paper = find_preset("stn-cnn-affine-rts").experiment
    assert isinstance(paper.step, StnStepConfig)
    assert (paper.train.steps, paper.train.batch_size, paper.step.rate, paper.step.decay) == (150_000, 256, 0.01, 0.01)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_all_networks_have_400k_parameters(name: str) -> None:
    config = find_preset(name).experiment.model
    assert isinstance(config, StnConfig)
    assert abs(count_parameters(StnClassifier(config)) - 400_000) <= 0.02 * 400_000


def test_rts_and_tc_are_halved_after_the_transformer_where_that_can_be() -> None:
    halved = {name for name in CLASSIFIERS if find_preset(name).experiment.model.halve}
    expected = {f"stn-{family}-{kind}-tc" for family in ("fcn", "cnn") for kind in ("affine", "projective", "tps")}
    expected |= {f"stn-fcn-{kind}-rts" for kind in ("affine", "projective", "tps")}
    expected |= {f"stn-{n}fcn-{kind}-addition" for n in ("", "2x") for kind in ("affine", "projective", "tps")}
    assert halved == expected


def test_a_run_learns_and_is_measured_again(tmp_path: Path) -> None:
    long = dataclasses.replace(
        TINY,
        model=StnConfig("fcn", 32, 1, TransformConfig("affine"), side=12),
        data=DistortedConfig("e", 12, source="embedded"),
        step=StnStepConfig(rate=0.02, decay=1.0),
        train=dataclasses.replace(TINY.train, steps=200),
    )
    lines: list[dict[str, float]] = []
    result = train(long, tmp_path / "run", on_log=lambda _, values: lines.append(values))
    errors = [line["error"] for line in lines if "error" in line]
    assert errors[-1] < 0.75 * errors[0], "it learns"
    assert set(result.metrics) == {"error", "images", "outside_1"} and result.metrics["images"] == 50
    assert restore(tmp_path / "run") == long
    first, again = (evaluate_stored(tmp_path / "run", 300) for _ in range(2))
    assert first == again and first["error"] < 0.85, "chance is 0.9; processors round differently"
    model = load_model(tmp_path / "run")
    assert isinstance(model, StnClassifier)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = train(TINY, tmp_path / "whole")
    train(dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, steps=15)), tmp_path / "part")
    train(TINY, tmp_path / "part", resume=True)
    assert whole.steps == 40
    first, second = (load_model(tmp_path / name).state_dict() for name in ("whole", "part"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"data": ScenesConfig()}, "not for data of kind"),
        ({"model": find_preset("mist-mnist-3").experiment.model}, "not for data of kind"),
        ({"data": DistortedConfig("rts", 15, source="embedded")}, "model.side=14, but data.canvas=15"),
        ({"data": DistortedConfig("rts", 14, 2, "embedded")}, "model.channels=1, but data.digits=2"),
        ({"model": dataclasses.replace(TINY.model, classes=19)}, "model.classes=19, but there are 10"),  # pyright: ignore
    ],
)
def test_parts_that_do_not_fit(changed: dict[str, object], said: str) -> None:
    with pytest.raises(MistError, match=said):
        check(dataclasses.replace(TINY, **changed))  # pyright: ignore[reportArgumentType]


def test_another_step_is_refused(tmp_path: Path) -> None:
    other = dataclasses.replace(TINY, step=find_preset("mist-mnist-3").experiment.step)
    with pytest.raises(MistError, match="'stn' can't be trained by a step of kind 'lifted'"):
        train(other, tmp_path / "run")


def test_it_finds_no_objects(tmp_path: Path) -> None:
    train(dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, steps=1)), tmp_path / "run")
    with pytest.raises(MistError, match="holds a StnClassifier, which finds no objects"):
        Predictor.from_pretrained(tmp_path / "run")


def test_the_documented_widths_and_counts_are_those_of_the_networks() -> None:
    page = (Path(__file__).parents[2] / "docs" / "spatial-transformers.md").read_text()
    named = set()
    row = re.compile(r"^\| `(stn-\w+(?:-\w+)?)-\.\.\.` \| (.+) \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
    for network, *cells in row.findall(page):
        for columns, said in zip((("r", "p", "e"), ("rts",), ("tc",), ("addition",)), cells, strict=True):
            for column in columns if said != "-" else ():
                model = find_preset(f"{network}-{column}").experiment.model
                assert isinstance(model, StnConfig)
                assert said == f"{model.width}: {count_parameters(StnClassifier(model)):,}"
                named.add(f"{network}-{column}")
    assert named == set(CLASSIFIERS)


def test_the_count_of_parameters_is_told(tmp_path: Path) -> None:
    notes, short = list[str](), dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, steps=1))
    train(short, tmp_path / "run", on_note=notes.append)
    localisation = (14 * 14 + 1) * 32 + 2 * 33 * 32 + 33 * 6
    classifier = (7 * 7 + 1) * 8 + 9 * 8 + 9 * 10
    assert notes == [f"the network has {localisation + classifier:,} learnable parameters"]


@pytest.mark.filterwarnings("default")
def test_a_transformer_that_leaves_the_image_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mistnn.nn.spatial_transformer.WATCH", 2)
    words = "--data.source embedded --data.canvas 14 --model.side 14 --model.width 8 --evaluation-images 0".split()
    words += "--train.steps 30 --train.batch-size 8 --train.threads 1 --step.rate 5".split()
    assert main(["train", "stn-fcn-affine-rts", "--out", str(tmp_path / "run"), *words]) == 0
    parameters, left = capsys.readouterr().err.splitlines()
    assert "learnable parameters" in parameters
    assert re.match(r"mist: a spatial transformer samples \d of 8 images entirely outside .*localisation-share", left)
