"""House numbers from miniatures: two steps of every preset, Table 4 (S001), the guess, the table's rows, the figure."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mistnn.cli.main import main
from mistnn.data import NumbersConfig, PlacedNumbers, SvhnConfig
from mistnn.data.house_numbers.svhn import Truth
from mistnn.errors import MistError
from mistnn.experiments import build, check, evaluate, evaluate_stored, evaluate_unknown_k, restore
from mistnn.experiments.fixed_box import THRESHOLDS, fixed_box_metrics, fixed_boxes, precision_metrics
from mistnn.metrics import AveragePrecision, iou50
from mistnn.models.mist import DenseMistConfig, DenseStepConfig, Mist, SupervisedStep, SupervisedStepConfig
from mistnn.presets import find_preset
from mistnn.records import Detections, collate
from mistnn.reproduce.fill import rows_with_data
from mistnn.reproduce.tables import HOUSE_NUMBERS, find_table, rows_of
from mistnn.training.loop import EVALUATION
from tests.cli.runs import only_line
from tests.data.house_numbers import list_part, make_numbers

NAMES = ("mist-svhn", "supervised-svhn", "mist-numbers", "mist-dense-numbers", "supervised-numbers")
TINY = "--train.steps 2 --train.batch-size 2 --train.log-every 1 --evaluation-images 2 --train.threads 1".split()
NARROW = "--model.heatmap.channels 4 --model.heatmap.blocks 1 --model.encoder.width 4".split()
NARROW_DENSE = "--model.width 4 --step.search-steps 1".split()
KEYS = {"ap00", "ap50", "ap60", "ap70", "ap80", "ap90"}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where each kind of house numbers lies."""
    folder = tmp_path_factory.mktemp("houses")
    list_part(folder / "svhn", "train", 40)
    list_part(folder / "svhn", "test", 20, seed=1)
    return {"svhn": folder / "svhn", "numbers": make_numbers(folder / "numbers")}


@pytest.fixture(scope="module")
def runs(roots: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each preset, trained for two steps through the command line."""
    folder = tmp_path_factory.mktemp("runs")
    for name in NAMES:
        root, narrow = str(roots[name.rpartition("-")[2]]), NARROW_DENSE if "dense" in name else NARROW
        assert main(["train", name, "--data-root", root, "--out", str(folder / name), *TINY, *narrow]) == 0
    return {name: folder / name for name in NAMES}


def numbers_of(roots: dict[str, Path]) -> NumbersConfig:
    return NumbersConfig(root=str(roots["numbers"]))


@pytest.mark.parametrize("name", NAMES)
def test_two_steps(name: str, runs: dict[str, Path], roots: dict[str, Path]) -> None:
    lines = [json.loads(line) for line in (runs[name] / "metrics.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in lines) == 2
    wanted = {EVALUATION + key for key in KEYS}
    assert any(wanted <= line.keys() for line in lines), "Table 4's numbers on validation images"
    root = str(roots[name.rpartition("-")[2]])
    metrics = evaluate_stored(runs[name], 7, root=root)
    assert KEYS | {f"fixed_{key}" for key in KEYS} | {"fixed_iou50", "iou50", "both"} <= metrics.keys()
    assert metrics["images"] == 7 and metrics["objects"] == 14
    assert metrics == evaluate_stored(runs[name], 7, root=root)
    assert restore(runs[name]).data.root is None, "no path of this machine is kept"


def test_twins_differ_in_their_teaching_alone() -> None:
    for data in ("svhn", "numbers"):
        lifted, told = (find_preset(f"{system}-{data}").experiment for system in ("mist", "supervised"))
        assert lifted.model == told.model and lifted.data == told.data and lifted.train == told.train
        assert isinstance(told.step, SupervisedStepConfig) and not isinstance(lifted.step, SupervisedStepConfig)
    assert find_preset("mist-svhn").experiment.model == find_preset("mist-numbers").experiment.model
    model = find_preset("mist-svhn").experiment.model
    assert model.k == 2 and model.channels == 3 and len(model.class_names) == 10 and len(model.scales) == 1
    data = find_preset("mist-svhn").experiment.data
    assert isinstance(data, SvhnConfig) and (data.height, data.width, data.digits, data.least_height) == (
        60,
        240,
        2,
        30,
    )


def test_the_dense_variant_sees_the_same_images() -> None:
    dense, lifted = (find_preset(name).experiment for name in ("mist-dense-numbers", "mist-numbers"))
    assert dense.data == lifted.data and dense.model.k == lifted.model.k
    assert isinstance(dense.model, DenseMistConfig) and isinstance(dense.step, DenseStepConfig)
    assert dense.model.box_size == lifted.model.box_size * lifted.model.scales[0]
    check(dense)
    with pytest.raises(MistError, match="not for data of kind 'scenes'"):
        check(dataclasses.replace(dense, data=find_preset("mist-mnist-3").experiment.data))


def test_more_images_than_there_are(runs: dict[str, Path], roots: dict[str, Path]) -> None:
    metrics = evaluate_stored(runs["mist-svhn"], 1000, root=str(roots["svhn"]))
    assert 0 < metrics["images"] < 20
    assert evaluate_stored(runs["mist-numbers"], 30, root=str(roots["numbers"]))["images"] == 30


def test_the_twin_is_taught_on_patches_of_the_size_it_finds(roots: dict[str, Path]) -> None:
    """The true centre, and the only scale there is, whatever the size of the true box."""
    experiment = dataclasses.replace(find_preset("supervised-numbers").experiment, data=numbers_of(roots))
    step = build(experiment)
    assert isinstance(step, SupervisedStep)
    images = PlacedNumbers(numbers_of(roots), "train", 4)
    batch = collate([images[index] for index in range(4)])
    assert batch.boxes is not None
    keypoints = step.true_keypoints(batch)
    scale = step.model.config.scales[0]
    for found, boxes in zip(keypoints.tolist(), batch.boxes, strict=True):
        for (x, y, size), box in zip(found, boxes.tolist(), strict=True):
            assert (x, y) == pytest.approx(box[:2]) and size == scale


def test_precision_is_the_metrics_own() -> None:
    random = torch.Generator().manual_seed(0)
    found, boxes, labels = [], [], []
    for _ in range(20):
        true = torch.rand(2, 4, generator=random) * 20 + 10
        boxes.append(true)
        labels.append(torch.randint(0, 3, (2,), generator=random))
        guess = true + torch.randn(2, 4, generator=random)
        found.append(Detections(guess, torch.rand(2, generator=random), torch.randint(0, 3, (2,), generator=random)))
    metric = AveragePrecision(THRESHOLDS)
    metric.update(found, boxes, labels)
    expected = metric.compute()
    measured = precision_metrics(found, boxes, labels)
    assert measured.keys() == KEYS
    for name, value in measured.items():
        assert value == pytest.approx(expected.get(name, expected.get("ap0" if name == "ap00" else name)))
    right = [Detections(true, torch.ones(2), own) for true, own in zip(boxes, labels, strict=True)]
    assert set(precision_metrics(right, boxes, labels).values()) == {1.0}


def test_the_guess_is_the_mean_of_the_training_boxes() -> None:
    known = [
        Truth(np.array([[0.0, 0, 10, 20], [20, 0, 30, 20]]), (7, 1)),
        Truth(np.array([[60.0, 10, 80, 40], [4, 2, 10, 22]]), (1, 3)),  # the right one is listed first
    ]
    guess = fixed_boxes(known)
    assert guess.boxes.tolist() == [[6.0, 11.0, 8.0, 20.0], [47.5, 17.5, 15.0, 25.0]]
    assert guess.labels is not None and guess.labels.tolist() == [1, 1] and guess.scores.tolist() == [1.0, 1.0]


def test_the_guess_is_measured_like_a_system(roots: dict[str, Path]) -> None:
    data = dataclasses.replace(numbers_of(roots), zoom=(0.8, 0.8))
    tested = PlacedNumbers(data, "test", 12)
    samples = [tested[index] for index in range(12)]
    boxes = [sample.boxes for sample in samples if sample.boxes is not None]
    labels = [sample.labels for sample in samples if sample.labels is not None]
    training = PlacedNumbers(data, "train", 1000)
    guess = fixed_boxes([training.truth(index) for index in range(1000)])
    measured = fixed_box_metrics(data, boxes, labels)
    assert measured["fixed_iou50"] == iou50([guess] * 12, boxes)
    assert guess.labels is not None
    wanted = int(guess.labels[0])
    frequent = sum((own == wanted).sum().item() for own in labels)
    present = len(set(torch.cat(labels).tolist()))
    images = sum((own == wanted).any().item() for own in labels)
    # All scores are equal: one point, precision = objects found / 24 at full recall of its class; others have nothing.
    assert images <= frequent and measured["fixed_ap00"] == pytest.approx(frequent / 24 / present)


def test_a_model_without_classes_has_no_precision(roots: dict[str, Path]) -> None:
    preset = find_preset("mist-numbers").experiment
    nameless = dataclasses.replace(preset, model=dataclasses.replace(preset.model, class_names=(), decoder=4))
    nameless = dataclasses.replace(nameless, step=dataclasses.replace(nameless.step, reconstruction=1.0))
    measured = evaluate(build(nameless).model, numbers_of(roots), "test", 2)
    assert "ap00" not in measured and "iou50" in measured and "rmse" in measured


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["not part of the package", "--data-root"]),
        (("--data-root", "nowhere"), ["nowhere has no boxes.json"]),
        (("--model.channels", "1"), ["model.channels=1", "give 3"]),
        (("--model.class-names", "a", "b"), ["2 classes", "these images have 10"]),
        (("--model.preparation.zoom", "0.5"), ["model.preparation"]),
        (("--model.k", "14401"), ["model.k=14401", "14400 pixels"]),
        (("--evaluation-images", "-1"), ["evaluation_images=-1"]),
    ],
)
def test_mistakes(
    arguments: tuple[str, ...], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "mist-numbers", "--out", str(tmp_path / "run"), *arguments]) == 2
    only_line(capsys.readouterr().err, *words)
    assert not (tmp_path / "run").exists()


def test_a_rival_is_refused() -> None:
    grid = find_preset("grid-mnist-easy").experiment
    with pytest.raises(MistError, match="not for data of kind 'numbers'"):
        check(dataclasses.replace(grid, data=NumbersConfig()))


def test_k_is_known(runs: dict[str, Path], roots: dict[str, Path]) -> None:
    model = build(restore(runs["mist-numbers"])).model
    assert isinstance(model, Mist)
    with pytest.raises(MistError, match="the same number of digits"):
        evaluate_unknown_k(model, numbers_of(roots), "test", 2)


def test_papers_numbers_and_no_others() -> None:
    """S001, Table 4; what is measured on other images has no number of the paper beside it."""
    table = find_table("svhn")
    assert table is HOUSE_NUMBERS and table.columns[:6] == ("ap00", "ap50", "ap60", "ap70", "ap80", "ap90")
    papers = {row.name: row.paper[:6] for row in table.rows}
    assert papers["mist-svhn"] == (0.826, 0.765, 0.637, 0.427, 0.199, 0.042)
    assert papers["supervised-svhn"] == (0.656, 0.628, 0.598, 0.519, 0.346, 0.110)
    assert papers["mist-numbers"] == papers["supervised-numbers"] == (None,) * 6
    for row in table.rows:
        assert (row.data == "SVHN") is row.name.endswith("-svhn")
        assert (row.data == "SVHN (re-assembled test crops)") is row.name.endswith("-numbers")


def test_rows_follow_the_folder(roots: dict[str, Path], tmp_path: Path) -> None:
    rows = rows_of(HOUSE_NUMBERS, None)
    for kind, root in roots.items():
        said: list[str] = []
        own = [name for name in NAMES if name.endswith(f"-{kind}")]
        assert [row.name for row in rows_with_data(rows, str(root), said.append)] == own
        assert len(said) == len(NAMES) - len(own) and all("left out" in line for line in said)
    assert [row.name for row in rows_of(HOUSE_NUMBERS, "mist-numbers")] == ["mist-numbers"]
    for root in (None, str(tmp_path)):
        with pytest.raises(MistError, match="need house numbers.*--data-root"):
            rows_with_data(rows, root, print)
    others = rows_of(find_table("table3"), None)
    assert rows_with_data(others, None, print) == others


def test_the_figure_judges_every_digit(
    runs: dict[str, Path], roots: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "drawn"
    given = ["--data-root", str(roots["numbers"]), "--out", str(out)]
    assert main(["figure", "svhn-fig6", "--model", str(runs["mist-numbers"]), *given]) == 0
    assert (out / "svhn-fig6.png").stat().st_size > 5000 and (out / "svhn-fig6.pdf").exists()
    capsys.readouterr()
    assert main(["figure", "svhn-fig6", *given]) == 2
    only_line(capsys.readouterr().err, "--model RUN")
    assert main(["figure", "svhn-fig6", "--model", "mist-mnist-3", *given]) == 2
    only_line(capsys.readouterr().err, "mist-mnist-3 was trained on other images")
    assert main(["figure", "fig5", "--model", str(runs["mist-numbers"]), *given]) == 2
    only_line(capsys.readouterr().err, "one on house numbers by svhn-fig6")
