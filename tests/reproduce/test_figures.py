from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from mistnn.cli.main import main
from mistnn.errors import MistError
from mistnn.inference.judged import right_by_overlap
from mistnn.presets import find_preset
from mistnn.records import Detections
from mistnn.reproduce.figures import Request, draw_figure, source
from mistnn.reproduce.figures.scenes import SCENES, figure_5
from tests.cli.runs import only_line, train_tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("figures") / "run"
    assert train_tiny(out) == 0
    return out


def test_a_network_that_finds_nothing_has_no_figure_5(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = find_preset("stn-cnn-rts").experiment
    monkeypatch.setattr(source, "restore", lambda model: classifier)
    with pytest.raises(MistError, match="runs/reader was trained on other images"):
        figure_5(Request("runs/reader"))


def test_writes_png_and_pdf(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "drawn"
    assert main(["figure", "fig5", "--model", str(run), "--out", str(out)]) == 0
    assert capsys.readouterr().out.split() == [str(out / "fig5.png"), str(out / "fig5.pdf")]
    assert sorted(path.name for path in out.iterdir()) == ["fig5.pdf", "fig5.png"]
    with Image.open(out / "fig5.png") as image:
        assert image.width > 400
    assert (out / "fig5.pdf").read_bytes().startswith(b"%PDF")


def test_same_seed_same_picture(run: Path, tmp_path: Path) -> None:
    first, second, other = (
        draw_figure("fig5", Request(run, seed), tmp_path / name)[0].read_bytes()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == second != other


def test_every_box_is_judged(run: Path) -> None:
    figure = figure_5(Request(run))
    assert len(figure.axes) == SCENES
    kinds = [artist.get_gid() for axes in figure.axes for artist in axes.patches if artist.get_gid()]
    drawn = [kind for kind in kinds if kind in ("right", "wrong")]
    assert len(drawn) == 2 * SCENES, "K is the number of digits in the scene"
    assert kinds.count("right") + kinds.count("missed") == 2 * SCENES


def test_right_needs_overlap_and_class() -> None:
    boxes = torch.tensor([[10.0, 10, 8, 8], [30, 10, 8, 8], [50, 10, 8, 8]])
    labels = torch.tensor([1, 2, 3])
    found = torch.tensor([[10.5, 10, 8, 8], [11, 10, 8, 8], [30, 10, 8, 8], [55, 10, 8, 8]])
    scores = torch.ones(4)
    labelled = Detections(found, scores, torch.tensor([1, 1, 3, 3]))
    assert right_by_overlap(labelled, boxes, labels).tolist() == [True, False, False, False]
    assert right_by_overlap(Detections(found, scores), boxes, None).tolist() == [True, False, True, False]


def test_mistakes(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MistError, match="fig9.*choose one of fig2, fig3"):
        draw_figure("fig9", Request(run), tmp_path / "out")
    (tmp_path / "file").write_text("mine")
    assert main(["figure", "fig5", "--model", str(run), "--out", str(tmp_path / "file")]) == 2
    only_line(capsys.readouterr().err, f"--out {tmp_path / 'file'}")
    assert not (tmp_path / "out").exists()


def test_a_rival_that_reads_is_drawn_and_one_that_does_not_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = ["--data.source", "embedded", "--train.steps", "1", "--train.batch-size", "1", "--evaluation-images", "0"]
    small = ["--model.heatmap.channels", "4", "--model.heatmap.blocks", "1", "--model.encoder.width", "4"]
    assert main(["train", "xie20-mnist-3", "--out", str(tmp_path / "xie20"), *tiny, *small]) == 0
    assert main(["figure", "fig5", "--model", str(tmp_path / "xie20"), "--out", str(tmp_path / "drawn")]) == 0
    assert (tmp_path / "drawn" / "fig5.png").exists()
    capsys.readouterr()
    assert main(["figure", "fig3", "--model", str(tmp_path / "xie20"), "--out", str(tmp_path / "new")]) == 2
    only_line(capsys.readouterr().err, "kind xie20", "draw fig2")
    assert not (tmp_path / "new").exists()
    assert main(["tune", str(tmp_path / "xie20"), "--out", str(tmp_path / "tuned")]) == 2
    only_line(capsys.readouterr().err, "kind 'xie20'", "preset mist-...")
    assert (
        main(
            [
                "train",
                "xie20-mnist-3",
                "--out",
                str(tmp_path / "b"),
                *tiny,
                "--model.head",
                "pooled",
                "--model.stride",
                "30",
            ]
        )
        == 2
    )
    only_line(capsys.readouterr().err, "model.k=3", "smaller stride or K")
