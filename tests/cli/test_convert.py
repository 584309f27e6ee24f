"""``mist convert``: stacks become plain images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from mistnn.cli.main import main
from mistnn.data.images import open_image, to_tensor
from mistnn.data.stacks import UnusableStack, images_of, read_stack


def values(*shape: int, kind: type = np.uint16, top: int = 4000) -> np.ndarray:
    return np.random.default_rng(0).integers(0, top, shape).astype(kind)


def convert(*arguments: object) -> int:
    return main(["convert", *map(str, arguments)])


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(float)


def scaled(image: np.ndarray, low: float, high: float, top: int = 65535) -> np.ndarray:
    return ((image - low) / (high - low)).clip(0, 1) * top


def test_planes_are_joined_and_values_scaled(tmp_path: Path) -> None:
    stack = values(5, 30, 40)
    tifffile.imwrite(tmp_path / "a.tif", stack, metadata={"axes": "ZYX"})
    assert convert(tmp_path / "a.tif", "--out", tmp_path / "out", "--range", 0, 4000) == 0
    found = read(tmp_path / "out" / "a.png")
    np.testing.assert_allclose(found, scaled(stack.max(0), 0, 4000), atol=0.51)
    assert open_image(tmp_path / "out" / "a.png").mode == "I"
    assert convert(tmp_path / "a.tif", "--out", tmp_path / "mean", "--range", 0, 4000, "--planes", "mean") == 0
    np.testing.assert_allclose(read(tmp_path / "mean" / "a.png"), scaled(stack.mean(0), 0, 4000), atol=0.51)
    assert convert(tmp_path / "a.tif", "--out", tmp_path / "each", "--range", 0, 4000, "--planes", "each") == 0
    assert sorted(one.name for one in (tmp_path / "each").iterdir()) == [f"a_z{index}.png" for index in range(1, 6)]
    np.testing.assert_allclose(read(tmp_path / "each" / "a_z3.png"), scaled(stack[2], 0, 4000), atol=0.51)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "palette", "rgb"])
def test_the_same_as_without_conversion(tmp_path: Path, orientation: int, photometric: str) -> None:
    """Orientation, white as 0 and palettes are what they are where an image is read directly."""
    image = values(6, 8, kind=np.uint8, top=256)
    options: dict[str, Any] = {"colormap": values(3, 256, top=256) * 257} if photometric == "palette" else {}
    image = np.dstack([image, image // 2, 255 - image]) if photometric == "rgb" else image
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, photometric=photometric, extratags=[(274, 3, 1, orientation, True)], **options)
    top = 65535 if photometric == "palette" else 255
    assert convert(path, "--out", tmp_path / "out", "--range", 0, top) == 0
    found, expected = open_image(tmp_path / "out" / "a.png"), open_image(path)
    assert found.size == expected.size == ((8, 6) if orientation < 5 else (6, 8))
    torch.testing.assert_close(to_tensor(found, 3), to_tensor(expected, 3), rtol=0, atol=1.01 / 255)


def test_colours_of_the_display_are_not_those_of_the_image(tmp_path: Path) -> None:
    """A grey image may bring a colour map, by which a microscope shows it."""
    image, colours = values(6, 8, kind=np.uint8, top=256), values(3, 256, top=256).astype(np.uint16) * 257
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, photometric="minisblack", extratags=[(320, "H", 768, colours.ravel().tolist(), True)])
    assert convert(path, "--out", tmp_path / "out", "--range", 0, 255) == 0
    assert open_image(tmp_path / "out" / "a.png").mode in ("L", "I;16", "I")


def test_ome_channels_and_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stack = values(2, 3, 4, 20, 24)
    path = tmp_path / "stacks" / "b.ome.tif"
    path.parent.mkdir()
    names = {"Channel": {"Name": ["DAPI", "GFP", "RFP"]}}
    tifffile.imwrite(path, stack, ome=True, metadata={"axes": "TCZYX", **names})
    assert convert(path.parent, "--out", tmp_path / "out") == 2
    assert "b: it has 3 channels, 1 (DAPI), 2 (GFP), 3 (RFP): choose" in capsys.readouterr().err
    assert convert(path.parent, "--out", tmp_path / "out", "--channels", 3, 1, "--range", 0, 4000) == 0
    for time in range(2):
        found = read(tmp_path / "out" / f"b_t{time + 1}.png")
        np.testing.assert_allclose(found[..., 0], scaled(stack[time, 2].max(0), 0, 4000, 255), atol=0.51)
        np.testing.assert_allclose(found[..., 1], scaled(stack[time, 0].max(0), 0, 4000, 255), atol=0.51)
        assert not found[..., 2].any()
    assert convert(path.parent, "--out", tmp_path / "out", "--channels", 4) == 2
    assert "it has no channel 4" in capsys.readouterr().err
    assert convert(path.parent, "--out", tmp_path / "out", "--channels", 1, "--range", 0, 4000) == 2
    assert "exists already" in capsys.readouterr().err


def test_one_range_for_all_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dark, bright = values(50, 50, top=100), values(50, 50, top=3000)
    for name, image in (("dark", dark), ("bright", bright)):
        tifffile.imwrite(tmp_path / f"{name}.tif", image)
    assert convert(tmp_path, "--out", tmp_path / "out") == 0
    low, high = (float(one) for one in capsys.readouterr().out.split("--range")[1].split())
    assert low < 5 and 2900 < high < 3000
    assert read(tmp_path / "out" / "dark.png").max() < 65535 / 25
    np.testing.assert_allclose(read(tmp_path / "out" / "bright.png"), scaled(bright, low, high), atol=40)


@pytest.mark.parametrize(
    ("array", "options", "channels"),
    [
        (values(20, 24, 3, kind=np.uint8, top=255), {"photometric": "rgb"}, 3),
        (values(3, 20, 24), {"photometric": "rgb", "planarconfig": "separate"}, 3),
        (values(20, 24, 4, kind=np.uint8, top=255), {"photometric": "rgb", "extrasamples": ["unassalpha"]}, 3),
        (values(20, 24, kind=np.float32), {}, 1),
        (values(20, 24, kind=np.int32, top=10**6), {}, 1),
    ],
)
def test_colours_and_numbers(tmp_path: Path, array: np.ndarray, options: dict[str, Any], channels: int) -> None:
    tifffile.imwrite(tmp_path / "c.tif", array, **options)
    ((ending, image),) = images_of(read_stack(tmp_path / "c.tif"))
    assert ending == "" and image.shape == (20, 24, channels)
    whole = array if array.ndim == 2 else array[..., :3] if array.shape[0] == 20 else np.moveaxis(array, 0, -1)
    np.testing.assert_array_equal(image.squeeze(), whole)
    assert convert(tmp_path / "c.tif", "--out", tmp_path / "out") == 0
    assert open_image(tmp_path / "out" / "c.png").size == (24, 20)


def test_imagej_stack(tmp_path: Path) -> None:
    stack = values(2, 3, 20, 24)
    tifffile.imwrite(tmp_path / "d.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    ((_, image),) = images_of(read_stack(tmp_path / "d.tif"), (2,))
    np.testing.assert_array_equal(image[..., 0], stack[:, 1].max(0))


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, broken = tmp_path / "in" / "good.tif", tmp_path / "in" / "broken.tif"
    good.parent.mkdir()
    tifffile.imwrite(good, values(20, 24))
    broken.write_bytes(good.read_bytes()[:300])
    assert convert(good.parent, "--out", tmp_path / "out") == 1
    assert "skipped broken: tifffile can't read it" in capsys.readouterr().err
    assert (tmp_path / "out" / "good.png").exists()
    with pytest.raises(UnusableStack, match="no finite"):
        tifffile.imwrite(broken, np.full((20, 24), np.nan, dtype=np.float32))
        read_stack(broken)
    (tmp_path / "in" / "good.tiff").write_bytes(good.read_bytes())
    wrong = (
        ([tmp_path / "none"], "no such file"),
        ([good.parent], "would both become"),
        ([tmp_path / "out"], "no file in it"),
        ([good, "--channels", 1, 2, 3, 4], "at most 3"),
        ([good, "--range", 5, 5], "lower value"),
    )
    for arguments, said in wrong:
        assert convert(*arguments, "--out", tmp_path / "other") == 2
        assert said in capsys.readouterr().err
    image = tmp_path / "image.png"
    Image.new("L", (4, 4)).save(image)
    assert convert(image, "--out", tmp_path / "other") == 2
    assert "need no conversion" in capsys.readouterr().err


def test_pages_that_lead_back_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file whose list of pages is a circle is neither followed for ever nor read in part."""
    path, stack = tmp_path / "a.tif", values(3, 6, 8)
    with tifffile.TiffWriter(path) as writer:
        for plane in stack:
            writer.write(plane, contiguous=False, metadata=None)
    with tifffile.TiffFile(path) as file:
        first, last = file.pages[0].offset, file.pages[-1].offset
        entries = len(file.pages[-1].tags)
    data = bytearray(path.read_bytes())
    after = last + 2 + 12 * entries  # where the offset of the next page stands; 0 for none
    assert data[after : after + 4] == bytes(4)
    data[after : after + 4] = first.to_bytes(4, "little")
    np.testing.assert_array_equal(read_stack(path).values[0, 0], stack)
    path.write_bytes(data)
    with pytest.raises(UnusableStack, match="leads back to an earlier one"):
        read_stack(path)
    assert not caplog.records


def test_series_that_are_not_converted_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for _ in range(3):  # positions of the stage
            writer.write(values(20, 24), metadata={"axes": "YX"})
    assert convert(tmp_path / "a.ome.tif", "--out", tmp_path / "out") == 1
    assert "mist: a: series 1 of 3 is converted" in capsys.readouterr().err
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["a.png"]


@pytest.mark.parametrize("options", [(), ("--force",)])
def test_two_stacks_never_become_one_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values(2, 20, 24), imagej=True, metadata={"axes": "TYX"})
    tifffile.imwrite(tmp_path / "a_t1.tif", values(20, 24))
    assert convert(tmp_path, "--out", tmp_path / "out", *options) == 2
    assert "a_t1.tif and" in (said := capsys.readouterr().err) and "would both become a_t1.png" in said


def test_the_range_that_is_printed_is_the_range_that_was_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Values with a large offset: six digits would not tell their range."""
    tifffile.imwrite(tmp_path / "a.tif", 1_000_000 + (values(20, 24) % 7).astype(np.float32))
    assert convert(tmp_path, "--out", tmp_path / "one") == 0
    low, high = capsys.readouterr().out.split("--range")[1].split()
    assert convert(tmp_path, "--out", tmp_path / "two", "--range", low, high) == 0
    np.testing.assert_array_equal(read(tmp_path / "one" / "a.png"), read(tmp_path / "two" / "a.png"))


def test_a_range_that_fits_no_value_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", 100 + values(20, 24))
    assert convert(tmp_path, "--out", tmp_path / "white", "--range", "0", "1") == 0
    assert read(tmp_path / "white" / "a.png").min() == 65535
    assert "all values of 1 images lie outside --range 0 1 (a.png: 1" in capsys.readouterr().err
    assert convert(tmp_path, "--out", tmp_path / "out", "--range", "0", "4000") == 0
    assert "outside" not in capsys.readouterr().err


def test_what_is_not_converted_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values(20, 24))
    for name in ("b.czi", "c.png", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"x")
    assert convert(tmp_path, "--out", tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert "not converted, since they are no stacks: b.czi, c.png; export those of microscopes as OME-TIFF" in said


def test_types_of_values_that_differ_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values(20, 24, kind=np.uint8, top=255))
    tifffile.imwrite(tmp_path / "b.tif", values(20, 24, top=40_000))
    assert convert(tmp_path, "--out", tmp_path / "out") == 0
    assert "values of several types, uint8 (a), uint16 (b)" in capsys.readouterr().err
    assert convert(tmp_path, "--out", tmp_path / "again", "--range", 0, 40_000) == 0
    assert "values of several types, uint8 (a), uint16 (b)" in capsys.readouterr().err


def test_pages_that_may_be_something_else_than_depths_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Times or wells that a program wrote as plain pages became one image, and nothing was said."""
    (tmp_path / "in").mkdir()
    pages = [Image.fromarray(one) for one in values(5, 20, 24, kind=np.uint8, top=255)]
    pages[0].save(tmp_path / "in" / "pages.tif", save_all=True, append_images=pages[1:])
    tifffile.imwrite(tmp_path / "in" / "depths.tif", values(5, 20, 24, kind=np.uint8), metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "in" / "other.tif", values(4, 20, 24, kind=np.uint8), photometric="minisblack")
    assert convert(tmp_path / "in", "--out", tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert (
        "mist: it is not known what the pages of other, pages are (other: 4 of axis Q), so they were taken for" in said
    )
    assert "joined by their largest value; --planes each makes an image of each page" in said
    assert convert(tmp_path / "in", "--out", tmp_path / "each", "--planes", "each") == 0
    assert capsys.readouterr().err == "" and len(list((tmp_path / "each").glob("pages_z*.png"))) == 5


@pytest.mark.parametrize(("low", "high"), [("0,5", "10"), ("0", "10,5")])
def test_decimals_need_a_point(tmp_path: Path, capsys: pytest.CaptureFixture[str], low: str, high: str) -> None:
    assert convert(tmp_path, "--out", tmp_path / "out", "--range", low, high) == 2
    bad = low if "," in low else high
    said = capsys.readouterr().err
    assert f"error parsing --range: {bad!r} is not a number: write {bad.replace(',', '.')}, with a point" in said


def test_channels_of_three_colours_each_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", values(2, 20, 24, 3, kind=np.uint8, top=255), metadata={"axes": "CYXS"})
    with pytest.raises(UnusableStack, match="several channels of three colours"):
        read_stack(tmp_path / "a.ome.tif")
