"""TIFF files as microscopes write them: read right, or refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from mistnn.data import read_folder
from mistnn.data.folder.files import read_header
from mistnn.data.images import PAGES, ImageFile, UnreadableImage, open_image, to_tensor
from mistnn.errors import MistWarning
from mistnn.inference import Predictor, predict_folder
from mistnn.inference.predictor import as_image_tensor
from tests.data.layouts import make, noted
from tests.data.tiffs import write_tiff
from tests.inference.fakes import FakeDetector

RAMP = np.linspace(0, 1, 48).reshape(6, 8)
COLOURS = np.dstack([RAMP, RAMP[::-1], RAMP[:, ::-1]])


def _scaled(values: NDArray[np.float64], kind: str) -> NDArray[np.generic]:
    return (values * {"uint8": 255, "uint16": 65535, "float32": 1}[kind]).astype(kind)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_planes(tmp_path: Path, planar: bool, kind: str) -> None:
    path = write_tiff(tmp_path / "a.tif", [_scaled(COLOURS, kind)], planar)
    if planar and kind == "uint16":
        with pytest.raises(UnreadableImage, match="3 channels of 16 bits are stored apart .planar.: mist convert"):
            open_image(path)
        make(tmp_path, "b.png", folder=".")
        noted(read_folder(tmp_path), "a.tif is left out", "planar")
        return
    expected = torch.from_numpy(COLOURS).float().permute(2, 0, 1)
    torch.testing.assert_close(to_tensor(open_image(path), 3), expected, rtol=0, atol=1.01 / 255)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_white_as_zero(tmp_path: Path, kind: str) -> None:
    path = write_tiff(tmp_path / "a.tif", [_scaled(RAMP, kind)], tags={262: [0]})
    expected = torch.from_numpy(1 - RAMP).float()[None]
    torch.testing.assert_close(to_tensor(open_image(path), 1), expected, rtol=0, atol=1.01 / 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "rgb"])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_orientation(tmp_path: Path, orientation: int, kind: str, white_is_zero: bool) -> None:
    """Pillow maps some kinds with a wrong length of lines. An image given in Python is read as a file is."""
    upright = np.rint(RAMP * 255) / 255
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T,
        6: np.rot90(upright, 1), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    values = 1 - stored if white_is_zero else stored
    page = np.dstack([_scaled(stored, "uint8")] * 3) if kind == "rgb" else _scaled(values, kind)
    tags = {274: [orientation]} | ({} if kind == "rgb" else {262: [0 if white_is_zero else 1]})
    path = write_tiff(tmp_path / "a.tif", [page], tags=tags)
    header = read_header(ImageFile(path, "a.tif"))
    assert (header.width, header.height) == (8, 6)
    expected = torch.from_numpy(upright).float()[None]
    torch.testing.assert_close(to_tensor(open_image(path), 1), expected, rtol=0, atol=1.01 / 255)
    with Image.open(path) as image:
        torch.testing.assert_close(as_image_tensor(image, 1), expected, rtol=0, atol=1.01 / 255)


def test_values_with_a_sign_are_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", [_scaled(RAMP, "uint8")], tags={339: [2]})
    with pytest.raises(UnreadableImage, match="8-bit values have a sign: mist convert"):
        open_image(path)


@pytest.mark.parametrize("channels", [2, 5])
@pytest.mark.parametrize("photometric", [1, 2])
def test_more_channels_are_refused(tmp_path: Path, channels: int, photometric: int) -> None:
    extra = channels - (3 if photometric == 2 else 1)
    tags = {262: [photometric], 338: [0] * max(extra, 1)}
    path = write_tiff(tmp_path / "a.tif", [np.dstack([_scaled(RAMP, "uint8")] * channels)], tags=tags)
    with pytest.raises(UnreadableImage, match="channels.*: mist convert"):
        open_image(path)


def test_dark_16_bit_colours_are_refused(tmp_path: Path) -> None:
    """Pillow keeps their upper eight bits: of 12-bit values at most 16 levels."""
    write_tiff(tmp_path / "a.tif", [(COLOURS * 340).astype(np.uint16)])
    with pytest.raises(UnreadableImage, match="only values up to about 511 are used: scale them"):
        open_image(tmp_path / "a.tif")
    grey = write_tiff(tmp_path / "b.tif", [(RAMP * 340).astype(np.uint16)])
    assert to_tensor(open_image(grey), 1).unique().numel() == 48, "grey keeps all 16 bits"


def test_pages(tmp_path: Path) -> None:
    page, empty = _scaled(RAMP, "uint8"), np.zeros((6, 8), np.uint8)
    (tmp_path / "in").mkdir()
    write_tiff(tmp_path / "in" / "a.tif", [page, empty, empty])
    write_tiff(tmp_path / "in" / "b.tif", [page])
    write_tiff(tmp_path / "in" / "c.tif", [page, page[::2, ::2], page[::4, ::4]])  # a pyramid
    write_tiff(tmp_path / "in" / "d.tif", [page], tags={270: "ImageJ=1.54\nimages=40\nslices=40\n"})
    write_tiff(tmp_path / "in" / "e.tif", [empty, page])
    pages = [open_image(tmp_path / "in" / f"{name}.tif").info[PAGES] for name in "abcd"]
    assert pages == [3, 1, 1, 40]
    torch.testing.assert_close(to_tensor(open_image(tmp_path / "in" / "a.tif"), 1)[0], torch.from_numpy(page) / 255)
    with pytest.raises(UnreadableImage, match="first of its 2 pages is empty"):
        open_image(tmp_path / "in" / "e.tif")
    noted(read_folder(tmp_path / "in"), "3 files hold several pages (a.tif: 3, d.tif: 40, e.tif: 2)", "only the first")
    with pytest.warns(MistWarning, match=r"2 files hold several pages \(a.tif: 3, d.tif: 40\): only the first"):
        summary = predict_folder(Predictor(FakeDetector()), [tmp_path / "in"], tmp_path / "out", k=1)
    assert [name for name, _ in summary.skipped] == ["e.tif"]
    with pytest.warns(MistWarning, match="a.tif holds 3 pages"):
        Predictor(FakeDetector()).predict(tmp_path / "in" / "a.tif", k=1)


def test_a_broken_second_page_does_not_matter(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", [_scaled(RAMP, "uint8")] * 2)
    with Image.open(path) as image:
        assert image.n_frames == 2  # type: ignore[attr-defined]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 60])
    torch.testing.assert_close(
        to_tensor(open_image(path), 1)[0], torch.from_numpy(RAMP).float(), rtol=0, atol=1.01 / 255
    )
