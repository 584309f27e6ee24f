"""The study of the blood cells, on a tiny folder in the same layout."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks import blood_cells
from benchmarks.blood_cells import main, studies
from mistnn.errors import MistError
from mistnn.presets import PRESETS, Preset
from mistnn.reproduce.ledger import read_ledger
from mistnn.reproduce.results_page import results_page
from tests.benchmarks.test_blobs import discs

SPLITS = {"train": range(0, 6), "val": range(6, 8), "test": range(8, 11)}
CENTRES = ((40.0, 50.0), (120.0, 60.0), (200.0, 50.0), (60.0, 150.0), (140.0, 150.0))


def number_of(index: int) -> int:
    return 1 + index % 5


@pytest.fixture(scope="module")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One to five discs an image, with VOC annotations and splits."""
    root = tmp_path_factory.mktemp("smears")
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for split, indices in SPLITS.items():
        (root / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{index:02}\n" for index in indices))
        for index in indices:
            centres = CENTRES[: number_of(index)]
            values = (discs(centres) * 255).to(torch.uint8).permute(1, 2, 0).numpy()
            Image.fromarray(values).save(root / "JPEGImages" / f"{index:02}.jpg")
            objects = "".join(
                f"<object><name>RBC</name><bndbox><xmin>{x - 20:.0f}</xmin><ymin>{y - 20:.0f}</ymin>"
                f"<xmax>{x + 20:.0f}</xmax><ymax>{y + 20:.0f}</ymax></bndbox></object>"
                for x, y in centres
            )
            (root / "Annotations" / f"{index:02}.xml").write_text(
                f"<annotation><filename>{index:02}.jpg</filename><size><width>260</width><height>200</height></size>"
                f"{objects}</annotation>"
            )
    return root


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    preset = PRESETS["my-folder"]
    loop = dataclasses.replace(preset.experiment.train, batch_size=2, evaluate_every=0)
    short = Preset("my-folder", "", dataclasses.replace(preset.experiment, train=loop))
    monkeypatch.setattr(blood_cells, "find_preset", lambda name: {"my-folder": short}[name])


@pytest.mark.slow
def test_the_study(
    smears: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger, runs = tmp_path / "results", tmp_path / "runs"
    given = ["x", "--data-root", str(smears), "--ledger", str(ledger), "--runs", str(runs)]
    monkeypatch.setattr(sys, "argv", [*given, "--seeds", "2", "--steps", "1", "--threads", "2"])
    main()
    assert "4 new entries" in capsys.readouterr().out
    entries = {f"{entry.name}-{entry.train_seed}": entry for entry in read_ledger(ledger)}
    assert set(entries) == {
        "blood-cells-mean-0",
        "blood-cells-blobs-0",
        "blood-cells-mist-1-steps-0",
        "blood-cells-mist-1-steps-1",
    }
    mean = sum(map(number_of, SPLITS["train"])) / 6
    expected = sum(abs(number_of(index) - mean) for index in SPLITS["test"]) / 3
    assert entries["blood-cells-mean-0"].metrics == {"count_error": pytest.approx(expected, abs=1e-4)}
    assert entries["blood-cells-blobs-0"].metrics == {"count_error": 0, "f1": 1, "precision": 1, "recall": 1}
    for seed in range(2):
        entry = entries[f"blood-cells-mist-1-steps-{seed}"]
        assert entry.steps == 1 and entry.images == 3 and "count_error" in entry.metrics
    page = results_page(list(entries.values()))
    assert "## Red cells of blood smears" in page and "| blood-cells-blobs |" in page
    main()
    assert "0 new entries" in capsys.readouterr().out


def test_bad_input(
    smears: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in (([], "--data-root"), (["--data-root", str(tmp_path / "gone")], "no such folder")):
        monkeypatch.setattr(sys, "argv", ["x", *arguments])
        with pytest.raises(SystemExit):
            main()
        assert words in capsys.readouterr().err
    with pytest.raises(MistError, match="no class is called 'WBC'; it has RBC"):
        studies(str(smears), tmp_path, 1, 1, cell="WBC")
