"""A folder whose labels.csv says which classes are there and not how many: it can be learnt, and is measured so."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from mistnn.cli.main import main
from mistnn.errors import MistError
from mistnn.experiments import evaluate_stored, lifted_parts
from mistnn.experiments.folder_plan import plan_folder
from mistnn.models.mist import LiftedStep, Mist, MistConfig
from mistnn.nn.task import count_or_presence_loss
from mistnn.presets.mist.my_folder import MY_FOLDER
from mistnn.records import Batch, collate
from tests.cli.runs import only_line
from tests.data.shapes import SHAPES, make_labelled
from tests.experiments.tiny import TINY

SMALL = (
    "--train.batch-size", "8", "--train.evaluate-every", "0", "--train.threads", "1", "--model.heatmap.channels", "8",
    "--model.heatmap.blocks", "2", "--model.encoder.width", "8", "--model.encoder.code", "32", "--model.decoder", "0",
    "--step.reconstruction", "0", "--step.heatmap-rate", "1e-3",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_labelled(tmp_path_factory.mktemp("labelled") / "shapes", 40)


def test_the_plan_takes_k_from_the_user(folder: Path) -> None:
    mine = MY_FOLDER.experiment.at(str(folder))
    planned, reasons = plan_folder(mine, 4)
    model, _ = lifted_parts(planned)
    assert model.k == 4 and model.background and model.class_names == SHAPES
    assert any("K = 4, as given" in reason for reason in reasons)
    with pytest.raises(MistError, match="which is not given"):
        plan_folder(mine)
    with pytest.raises(MistError, match="which is 2, but a training image holds 3 classes"):
        plan_folder(mine, 2)


def test_samples_carry_presence_and_no_counts(folder: Path) -> None:
    images = plan_folder(MY_FOLDER.experiment.at(str(folder)), 4).experiment.data.open("train")
    batch = collate([images[index] for index in range(4)])
    assert batch.counts is None and batch.presence is not None and batch.presence.dtype == torch.bool
    assert batch.presence.shape == (4, 3)


def test_presence_is_used_only_where_there_are_no_counts() -> None:
    logits = torch.randn(2, 4, 3)
    counts, presence = torch.tensor([[2, 1], [0, 4]]), torch.tensor([[True, True], [False, True]])
    both = count_or_presence_loss(logits, counts, presence, True)
    assert torch.equal(both, count_or_presence_loss(logits, counts, None, True))
    assert not torch.allclose(both, count_or_presence_loss(logits, None, presence, True))
    with pytest.raises(MistError, match="these have none"):
        count_or_presence_loss(logits, None, None, True)


def test_a_step_learns_from_presence() -> None:
    torch.manual_seed(0)
    config: MistConfig = dataclasses.replace(TINY.model, class_names=("a", "b"), background=True, k=4, decoder=0)
    step = LiftedStep(Mist(config), dataclasses.replace(TINY.step, reconstruction=0.0))
    batch = Batch(torch.rand(3, 1, 32, 32), presence=torch.tensor([[True, False], [False, False], [True, True]]))
    first = step(batch, 0)["classification"]
    for iteration in range(1, 40):
        last = step(batch, iteration)["classification"]
    assert last < 0.85 * first


def test_train_evaluate_predict(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    arguments = ["train", "my-folder", "--data-root", str(folder), "--out", str(run), *SMALL, "--train.steps", "2"]
    assert main([*arguments, "--k", "many"]) == 2
    only_line(capsys.readouterr().err, "'many'", "not a whole number")
    assert main([*arguments, "--k", "4"]) == 0
    assert main(["evaluate", str(run), "--data-root", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "presence" in said and "presence_guess" in said and "count_error" not in said
    metrics = evaluate_stored(run, 1000, root=str(folder))
    assert {f"presence:{name}" for name in SHAPES} <= metrics.keys() and metrics["images"] == 10
    assert 0 <= metrics["presence"] <= 1 and "objects" not in metrics
    mean = sum(metrics[f"presence_guess:{name}"] for name in SHAPES) / 3
    assert metrics["presence_guess"] == pytest.approx(mean)
    assert main(["predict", str(run), str(folder / "images"), "--out", str(out)]) == 0


@pytest.mark.slow
def test_it_learns_which_classes_are_there(tmp_path: Path) -> None:
    """On images it never saw, after less than a minute on one core."""
    folder = make_labelled(tmp_path / "shapes", 160)
    run = tmp_path / "run"
    arguments = ["train", "my-folder", "--data-root", str(folder), "--k", "4", "--out", str(run), *SMALL]
    assert main([*arguments, "--train.steps", "250"]) == 0
    metrics = evaluate_stored(run, 1000, root=str(folder))
    assert metrics["images"] == 40
    assert metrics["presence"] > metrics["presence_guess"] + 0.1
