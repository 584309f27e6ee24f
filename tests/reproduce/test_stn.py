"""Tables and figures of the spatial transformer paper, at a size that takes seconds."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from mistnn.data import CommonObjectConfig, CommonObjects, DistortedConfig
from mistnn.errors import MistError
from mistnn.experiments import Experiment, build, train
from mistnn.experiments.stn import ENCODER
from mistnn.models.stn import Colocaliser, ColocaliserConfig, ColocaliseStepConfig, StnConfig, StnStepConfig
from mistnn.models.stn.colocalise import UnboundedWindow
from mistnn.nn.spatial_transformer import TransformConfig
from mistnn.ops.transforms import translation_grid
from mistnn.presets import PRESETS, Preset
from mistnn.reproduce import fill, results_page
from mistnn.reproduce.figures import Request, draw_figure
from mistnn.reproduce.figures import stn as stn_figures
from mistnn.reproduce.fill import fill_table
from mistnn.reproduce.ledger import read_ledger
from mistnn.reproduce.results_page import table_lines
from mistnn.reproduce.table import Row, Size, Table
from mistnn.reproduce.tables import stn as stn_tables
from mistnn.training import TrainConfig
from mistnn.weights import load_model

ENCODER_MODEL = StnConfig("cnn", 4, side=24)
LOOP = TrainConfig(steps=4, batch_size=4, threads=1)
TINY = {
    "tiny-addition": Experiment(
        StnConfig("fcn", 6, 2, TransformConfig("tps"), halve=True, channels=2, side=14, classes=19),
        DistortedConfig("rts", 14, 2, "embedded"),
        StnStepConfig(decay_steps=4),
        LOOP,
        0,
    ),
    ENCODER: Experiment(ENCODER_MODEL, DistortedConfig("t", 24, source="embedded"), StnStepConfig(decay=1.0), LOOP, 0),
    "tiny-coloc": Experiment(
        ColocaliserConfig(side=30, encoder=ENCODER_MODEL),
        CommonObjectConfig(3, 2, 12, 30, "embedded"),
        ColocaliseStepConfig(decay_steps=4),
        dataclasses.replace(LOOP, log_every=1),
        0,
    ),
}
SIZE = Size(images=10, loop=(3, 4))


@pytest.fixture(autouse=True)
def _tiny_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {name: Preset(name, "", experiment) for name, experiment in TINY.items()}
    for module in (fill, results_page, stn_figures):
        monkeypatch.setattr(module, "find_preset", lambda name: {**PRESETS, **tiny}[name])


def test_addition_is_trained_at_its_own_size_and_measured(tmp_path: Path) -> None:
    row = Row("2xST-FCN", "two digits", "tiny-addition", (0.058,))
    table = Table("stn-tiny", "Tiny", ("error",), (row,), size=SIZE, decimals=4)
    assert fill_table(table, "full", 2, tmp_path / "results", tmp_path / "runs", say=lambda text: None) == 2
    entries = read_ledger(tmp_path / "results")
    assert [(entry.steps, entry.batch_size, entry.images, entry.train_seed) for entry in entries] == [
        (3, 4, 10, 0),
        (3, 4, 10, 1),
    ]
    assert all(set(entry.metrics) == {"error", "images", "outside_1", "outside_2"} for entry in entries)
    shown = table_lines(table, entries)[2]
    mean = sum(entry.metrics["error"] for entry in entries) / 2
    assert f"| 0.0580 | {mean:.4f} (" in shown


def test_co_localisation_trains_its_encoder_once(tmp_path: Path) -> None:
    row, said = Row("digit 3", "TC", "tiny-coloc", (None,)), list[str]()
    size = Size(images=12)
    table = Table(
        "stn-tiny", "Tiny", ("iou50",), (row,), size=size, start_preset=ENCODER, tested_on_training_images=True
    )
    for _ in range(2):
        fill_table(table, "full", 2, tmp_path / "results", tmp_path / "runs", say=said.append)
    assert sum("trained first" in line for line in said) == 1
    shutil.rmtree(tmp_path / "runs" / ENCODER)
    assert fill_table(table, "full", 2, tmp_path / "results", tmp_path / "runs", say=said.append) == 0
    assert not (tmp_path / "runs" / ENCODER).exists(), "nothing is missing that it would teach"
    entries = read_ledger(tmp_path / "results")
    # Each is measured on what it was trained on: the images of its own seed.
    assert [(entry.train_seed, entry.seed) for entry in entries] == [(0, 0), (1, 1)]
    assert [entry.images for entry in entries] == [12, 12] and all("iou50" in entry.metrics for entry in entries)
    # The record of what came before is of the encoder.
    assert "Trained from the weights of" in entries[0].note and entries[0].steps == 4 + 4


def test_tables_name_presets_that_are_there() -> None:
    for table in stn_tables.STN_TABLES:
        assert all(row.name in PRESETS for row in table.rows)
        assert len({row.name for row in table.rows}) == len(table.rows)
    distorted = {row.name: row.paper[0] for row in stn_tables.STN_DISTORTED.rows}
    assert distorted["stn-cnn-affine-rts"] == 0.005 and distorted["stn-fcn-tc"] == 0.132 and len(distorted) == 40


def test_the_table_says_where_the_scale_of_a_window_is_nearly_given() -> None:
    """The last window's bounds in pixels are those of the presets of the table, and so is what they close in to."""
    rows = stn_tables.STN_COLOCALISATION.rows
    for row in rows:
        window = PRESETS[row.name].experiment.model.build().window
        if "bounded window" in row.system:
            low, high = 84 * window.least, 84 * window.last
            assert f"{low:.1f} to {high:.1f} px" in stn_tables.STN_COLOCALISATION.note
        else:
            assert isinstance(window, UnboundedWindow)
            assert f"closed in to {84 * window.most:.0f} px" in stn_tables.STN_COLOCALISATION.note
    assert len({row.name for row in rows}) == len(rows) == 40
    assert PRESETS["stn-coloc-tc-8-free"].experiment.model.window == "free"


def test_addition_figure(tmp_path: Path) -> None:
    train(TINY["tiny-addition"], tmp_path / "run")
    png, pdf = draw_figure("stn-addition", Request(tmp_path / "run"), tmp_path / "out")
    with Image.open(png) as picture:
        assert picture.width > 500
    assert pdf.read_bytes().startswith(b"%PDF")


def test_an_outline_is_the_border_of_what_is_read() -> None:
    """Of a window of 3 x 3 px on an image of 12: the middles of its border pixels, clockwise from the upper left."""
    grid = translation_grid(torch.tensor([[0.5, -0.5]]), 3, 3, 0.25)[0]
    expected = [[8, 2], [9, 2], [10, 2], [10, 3], [10, 4], [9, 4], [8, 4], [8, 3]]
    torch.testing.assert_close(stn_figures.outline_of(grid, 12), torch.tensor(expected).float())


def test_colocalisation_moves(tmp_path: Path) -> None:
    train(TINY[ENCODER], tmp_path / "encoder")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stn_figures, "COLOCALISATION", "tiny-coloc")
        patched.setattr(stn_figures, "FRAMES", 3)
        request = Request(tmp_path / "encoder", steps=5)
        files = draw_figure("stn-colocalisation", request, tmp_path / "out")
        again = draw_figure("stn-colocalisation", request, tmp_path / "out")
    assert [file.name for file in files] == [
        "stn-colocalisation.png",
        "stn-colocalisation.pdf",
        "stn-colocalisation.gif",
        "stn-colocalisation-frames",
    ]
    assert sorted(file.name for file in files[3].iterdir()) == ["0000.png", "0001.png", "0002.png", "0003.png"]
    with Image.open(files[2]) as moving:
        assert moving.n_frames >= 2
    assert files == again


def test_a_localiser_is_woken_before_it_learns_and_looked_at_in_peace(tmp_path: Path) -> None:
    train(TINY[ENCODER], tmp_path / "encoder")
    coloc = dataclasses.replace(TINY["tiny-coloc"], start_from=str(tmp_path / "encoder"))
    spreads, means = list[float](), list[torch.Tensor]()

    def look(step: int, network: nn.Module) -> None:
        assert isinstance(network, Colocaliser)
        images = CommonObjects(coloc.data, "train", None).batch(range(12)).images
        spreads.append(float(network.window.layers[0](images).detach().std((0, 2, 3)).mean()))
        network.eval()
        network.explain(images, 1)
        means.append(network.window.mean.clone())

    train(coloc, tmp_path / "run", observe=look)
    assert spreads[0] == pytest.approx(1, abs=0.3), "of other images than those it was woken with"
    born = float(build(coloc).model.window.layers[0](torch.rand(4, 1, 30, 30)).detach().std((0, 2, 3)).mean())
    assert born < 0.5
    moved = [float((after - before).abs().max()) for before, after in itertools.pairwise(means)]
    assert len(moved) == 4 and all(0 < way for way in moved), "by the batches alone"
    train(coloc, tmp_path / "again")
    last = load_model(tmp_path / "again")
    assert isinstance(last, Colocaliser) and torch.equal(last.window.mean, means[-1]), "whoever looks changes nothing"


def test_mistakes(tmp_path: Path) -> None:
    for name, said in (("stn-addition", "give --model RUN"), ("stn-colocalisation", "mist train stn-coloc-encoder")):
        with pytest.raises(MistError, match=said):
            draw_figure(name, Request(), tmp_path / "out")
    with pytest.raises(MistError, match="mist-mnist-3 has none: give a run of a preset such as"):
        draw_figure("stn-addition", Request("mist-mnist-3"), tmp_path / "out")
    with pytest.raises(MistError, match="--steps 3 is for the figures that train, fig7, svhn-fig7, stn-colocalisation"):
        draw_figure("stn-addition", Request(steps=3), tmp_path / "out")
    coloc = TINY["tiny-coloc"]
    with pytest.raises(MistError, match="needs an encoder that classifies digits"):
        train(coloc, tmp_path / "run")
    with pytest.raises(MistError, match="train.batch_size=1: a batch must hold 2 or more images"):
        train(dataclasses.replace(coloc, train=dataclasses.replace(LOOP, batch_size=1)), tmp_path / "run")
    train(dataclasses.replace(TINY[ENCODER], model=StnConfig("cnn", 5, side=24)), tmp_path / "other")
    with pytest.raises(MistError, match="is not the encoder of model.encoder"):
        train(dataclasses.replace(coloc, start_from=str(tmp_path / "other")), tmp_path / "run")
    with pytest.raises(MistError, match="model.side=30, but data.canvas=31"):
        data = dataclasses.replace(coloc.data, canvas=31)
        train(dataclasses.replace(coloc, data=data, start_from="somewhere"), tmp_path / "run")
