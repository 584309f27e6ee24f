from __future__ import annotations

import contextlib
import os
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, features

from mistnn.data import images as module
from mistnn.data.folder.files import read_header
from mistnn.errors import MistError
from mistnn.inference import UnreadableImage, find_images, open_image, to_tensor

RGB = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [51, 102, 204]]], dtype=np.uint8)
LUMA = np.array([[76, 150], [29, 98]]) / 255  # 0.299 R + 0.587 G + 0.114 B, in whole numbers as Pillow gives it


def _image(path: Path, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, 9).save(path)
    return path


def _read(path: Path, channels: int) -> torch.Tensor:
    return to_tensor(open_image(path), channels)


def _names(*paths: Path | str, exclude: Path | None = None) -> list[str]:
    return [file.name for file in find_images(paths, exclude)]


def test_folders_are_searched_to_the_bottom_and_sorted(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.JPG", "a/b/c.tif", "a.png", "deep/er/x.bmp"):
        _image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "a" / "counts.csv").write_text("")
    assert _names(tmp_path) == ["a.png", "a/b/c.tif", "a/z.JPG", "b.png", "deep/er/x.bmp"]
    assert [file.path for file in find_images([tmp_path])][1] == tmp_path / "a" / "b" / "c.tif"


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_a_reduced_image_is_read_to_its_end(tmp_path: Path, suffix: str) -> None:
    """JPEG becomes smaller, the others don't; a cut in the last quarter is found in each."""
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    size = (12, 8) if suffix == "jpg" else (96, 64)
    assert open_image(path, reduced=True).size == size and open_image(path).size == (96, 64)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    for reduced in (False, True):
        with pytest.raises(UnreadableImage):
            open_image(path, reduced)


def test_hidden_and_excluded_are_passed_over(tmp_path: Path) -> None:
    for name in ("a.png", ".hidden.png", ".git/b.png", "out/overlays/a.png"):
        _image(tmp_path / name)
    assert _names(tmp_path) == ["a.png", "out/overlays/a.png"]
    assert _names(tmp_path, exclude=tmp_path / "out") == ["a.png"]
    _image(tmp_path / "out" / "b.png")
    assert _names(tmp_path, exclude=tmp_path / "out") == ["a.png", "out/b.png"], "an image, not a picture of results"


def test_a_folder_and_a_folder_in_it_give_each_file_once(tmp_path: Path) -> None:
    _image(tmp_path / "a.png")
    _image(tmp_path / "x" / "b.png")
    assert _names(tmp_path, tmp_path / "x") == ["a.png", "x/b.png"]
    assert _names(tmp_path / "x", tmp_path) == ["b.png", "a.png"]


def test_files_keep_their_name_whatever_their_suffix(tmp_path: Path) -> None:
    image = _image(tmp_path / "sub" / "a.png").rename(tmp_path / "sub" / "scan.dat")
    other = _image(tmp_path / ".b.png")
    assert _names(image, str(other)) == ["scan.dat", ".b.png"]


@pytest.mark.parametrize(
    "suffix", ["jfif", "jpe", "jif", "mpo", "avif", "jp2", "J2K", "j2c", "WEBP", "tga", "pcx", "dib", "apng"]
)
def test_photos_of_other_kinds(tmp_path: Path, suffix: str) -> None:
    codec = {"avif": "avif", "jp2": "jpg_2000", "j2k": "jpg_2000", "j2c": "jpg_2000", "webp": "webp"}.get(
        suffix.lower()
    )
    if codec is not None and not features.check(codec):
        pytest.skip(f"Pillow was built without {codec}")
    options = {"format": "JPEG"} if suffix in ("jfif", "jpe", "jif") else {}
    Image.new("RGB", (16, 8), (200, 30, 90)).save(tmp_path / f"a.{suffix}", **options)
    assert _names(tmp_path) == [f"a.{suffix}"]
    expected = torch.tensor((200, 30, 90)) / 255
    torch.testing.assert_close(_read(tmp_path / f"a.{suffix}", 3)[:, 4, 8], expected, rtol=0, atol=0.03)


@pytest.mark.parametrize(
    ("suffix", "words"),
    [
        ("HEIC", "HEIC needs .*pillow-heif.*JPEG"),
        ("czi", "microscopes .*PNG or TIFF"),
        ("NEF", "raw photographs .*JPEG or PNG"),
        ("pef", "raw photographs .*JPEG or PNG"),
        ("psd", "images of this kind .*PNG or TIFF"),
        ("MP4", "videos .*frames .*PNG"),
        ("avif", "Pillow doesn't read .avif: convert it"),
    ],
)
def test_photos_that_cannot_be_read_are_named(
    tmp_path: Path, suffix: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = _image(tmp_path / "x.tif").rename(tmp_path / f"a.{suffix}")  # raw files open as TIFF: their thumbnail
    if suffix == "avif":
        path.write_bytes(b"not this")
    assert _names(tmp_path) == [path.name]
    with pytest.raises(UnreadableImage, match=words):
        open_image(path)
    _image(tmp_path / "A.jpg")
    assert _names(tmp_path) == (["A.jpg", "a.avif"] if suffix == "avif" else ["A.jpg"]), "the same image, as JPEG"


def test_heic_is_read_where_its_package_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    package = ModuleType("pillow_heif")
    package.register_heif_opener = lambda: asked.append(True)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pillow_heif", package)
    _image(tmp_path / "a.png").rename(tmp_path / "a.heic")
    assert open_image(tmp_path / "a.heic").size == (6, 4) and asked


def test_links(tmp_path: Path) -> None:
    _image(tmp_path / "real" / "a.png")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "real", target_is_directory=True)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    assert _names(folder) == ["linked/a.png"]


def test_one_name_twice(tmp_path: Path) -> None:
    one, two = _image(tmp_path / "one" / "a.png"), _image(tmp_path / "two" / "a.png")
    assert _names(one, one.parent, one) == ["a.png"]
    with pytest.raises(MistError, match="would both be called 'a.png'"):
        find_images([one, two])
    assert _names(tmp_path) == ["one/a.png", "two/a.png"]


def test_nothing_to_find(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.txt").write_text("")
    with pytest.raises(MistError, match="no image in folder .*empty.*\\.png"):
        find_images([_image(tmp_path / "a.png"), tmp_path / "empty"])
    with pytest.raises(MistError, match="no such file or folder: .*gone"):
        find_images([tmp_path / "gone"])
    with pytest.raises(MistError, match="at least one"):
        find_images([])


def _modes() -> dict[str, tuple[Image.Image, np.ndarray]]:
    """Images by what is special about them, each with the grey values in [0, 1] it must give."""
    rgb = Image.fromarray(RGB)
    grey = np.array([[0, 64], [128, 255]], dtype=np.uint8)
    wide = np.array([[0, 256], [4095, 65535]], dtype=np.uint16)
    alpha = np.array([[255, 0], [51, 255]], dtype=np.uint8)
    half = LUMA * (alpha / 255)
    palette = Image.new("P", (2, 2))
    palette.putpalette([10, 10, 10, 200, 200, 200])
    palette.putdata([0, 1, 1, 0])
    see_through = palette.copy()
    see_through.info["transparency"] = 1
    return {
        "grey": (Image.fromarray(grey), grey / 255),
        "1-bit": (Image.fromarray(grey > 100), (grey > 100) * 1.0),
        "rgb": (rgb, LUMA),
        "rgba": (Image.fromarray(np.dstack([RGB, alpha])), half),
        "la": (Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]), grey / 255 * (alpha / 255)),
        "palette": (palette, np.array([[10, 200], [200, 10]]) / 255),
        "palette with transparency": (see_through, np.array([[10, 0], [0, 10]]) / 255),
        "cmyk": (rgb.convert("CMYK"), LUMA),
        "16-bit": (Image.fromarray(wide), wide / 65535),
        "float": (Image.fromarray((grey / 255).astype(np.float32)), grey / 255),
    }


@pytest.mark.parametrize("name", list(_modes()))
def test_modes(tmp_path: Path, name: str) -> None:
    image, expected = _modes()[name]
    path = tmp_path / ("x.tif" if name in ("cmyk", "float") else "x.png")
    image.save(path)
    with Image.open(path) as stored:
        kept = stored.mode
    assert kept == image.mode, "the file does not hold the mode under test"
    grey = _read(path, 1)
    assert grey.shape == (1, 2, 2) and grey.dtype == torch.float32
    tolerance = 1e-6 if name == "16-bit" else 1.5 / 255  # luma and compositing are rounded to 8 bits
    torch.testing.assert_close(grey[0].double(), torch.from_numpy(expected), rtol=0, atol=tolerance)
    colour = _read(path, 3)
    assert colour.shape == (3, 2, 2)
    if name in ("rgb", "cmyk"):
        torch.testing.assert_close(colour, torch.from_numpy(RGB).permute(2, 0, 1) / 255, rtol=0, atol=1.5 / 255)
    elif "rgb" not in name:
        assert torch.equal(colour, grey.expand(3, -1, -1))


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_files(tmp_path: Path, suffix: str) -> None:
    wide = np.array([[0, 1, 4095], [256, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(wide).save(tmp_path / f"x.{suffix}")
    found = _read(tmp_path / f"x.{suffix}", 1)[0]
    torch.testing.assert_close(found.double(), torch.from_numpy(wide / 65535), rtol=0, atol=1e-7)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = np.zeros((16, 32), dtype=np.uint8)
    upright[:8, :8] = 255  # a bright corner, top left
    # What a camera stores so that the orientation brings it back.
    undo = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T,
        6: np.rot90(upright, 1), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(undo[orientation])).save(tmp_path / f"x.{suffix}", exif=exif)
    found = _read(tmp_path / f"x.{suffix}", 1)[0]
    assert found.shape == (16, 32)
    assert found[:8, :8].min() > 0.9 and found[8:].max() < 0.1 and found[:, 8:].max() < 0.1


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("kind", ["eXIf", "iTXt", "tEXt"])
def test_an_orientation_behind_the_pixels(tmp_path: Path, kind: str) -> None:
    """The sizes that the header and the decoded image have are the same."""
    content = _image(tmp_path / "a.png").read_bytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    packet = b'<r><Description xmlns:tiff="x" tiff:Orientation="6"/></r>'
    data = {"eXIf": exif.tobytes()[6:], "iTXt": b"XML:com.adobe.xmp\0\0\0\0\0" + packet, "tEXt": b"Title\0a"}[kind]
    (tmp_path / "a.png").write_bytes(content[:-12] + _chunk(kind.encode(), data) + content[-12:])
    size = (6, 4) if kind == "tEXt" else (4, 6)
    header = read_header(module.ImageFile(tmp_path / "a.png", "a.png"))
    assert open_image(tmp_path / "a.png").size == (header.width, header.height) == size


def test_a_transparent_value_of_16_bits(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + struct.pack(">2H", *row) for row in ((40000, 500), (500, 60000)))
    header = struct.pack(">IIBBBBB", 2, 2, 16, 0, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"tRNS", struct.pack(">H", 40000)) + _chunk(b"IDAT", zlib.compress(rows))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks + _chunk(b"IEND", b""))
    found = _read(tmp_path / "a.png", 1)[0] * 65535
    torch.testing.assert_close(found, torch.tensor([[0.0, 500], [500, 60000]]))


@pytest.mark.parametrize("preview", [b"", b"\xff\xfe\x00\x06\xff\xd9ab"])
def test_a_jpeg_file_whose_end_is_zeros(tmp_path: Path, preview: bytes) -> None:
    """As a copy leaves it that reserved the space and was interrupted. Pillow fills up the image in silence."""
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:2] + preview + content[2:])
    whole = _read(path, 3)
    assert whole.shape == (3, 64, 96)
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    torch.testing.assert_close(_read(path, 3), whole, msg="zeros behind the end do not matter")
    path.write_bytes(content[:2] + preview + content[2 : len(content) // 2] + b"\0" * (len(content) // 2))
    with pytest.raises(UnreadableImage, match="its data end before the image does"):
        open_image(path)


def test_a_photograph_of_two_frames_whose_end_is_zeros(tmp_path: Path) -> None:
    """A phone's MPO: a second image lies behind the first, and the preview in its metadata has an end of its own."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    first, second = (Image.fromarray(frame) for frame in frames)
    path = tmp_path / "a.jpg"
    first.save(
        path, format="MPO", save_all=True, append_images=[second], exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0\xff\xd9"
    )
    with Image.open(path) as image:
        assert image.format == "MPO"
    assert _read(path, 3).shape == (3, 64, 96)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 4] + b"\0" * (len(content) // 4))
    with pytest.raises(UnreadableImage):
        open_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tif", "webp", "ppm"])
def test_files_cut_anywhere_are_named_unreadable(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(noise).save(path)
    _read(path, 3)
    data = path.read_bytes()
    for part in range(40):
        path.write_bytes(data[: len(data) * part // 50])
        with pytest.raises(UnreadableImage) as caught:
            _read(path, 3)
        assert str(caught.value) and "\n" not in str(caught.value) and str(path) not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "webp", "bmp"])
def test_damaged_files_raise_nothing_else(tmp_path: Path, suffix: str) -> None:
    source = np.random.default_rng(0)
    path = tmp_path / f"x.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(source.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    if suffix in ("gif", "bmp"):
        image.save(path)
    else:
        image.save(path, exif=exif)
    data = path.read_bytes()
    for _ in range(100):
        damaged = bytearray(data)
        for place in source.integers(0, min(len(data), 200), 3):
            damaged[place] = source.integers(0, 256)
        path.write_bytes(damaged)
        try:
            _read(path, 1)
        except UnreadableImage:
            pass


def test_other_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image at all")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "gone")
    (tmp_path / "folder.png").mkdir()
    for name in ("text", "dangling", "folder"):
        with pytest.raises(UnreadableImage):
            open_image(tmp_path / f"{name}.png")
    for values, word in (
        (np.array([[0, 70000]], dtype=np.int32), "16 bits"),
        (np.array([[0, 2]], dtype=np.float32), "0-1"),
        (np.array([[0, np.nan]], dtype=np.float32), "0-1"),
    ):
        Image.fromarray(values).save(tmp_path / "x.tif")
        with pytest.raises(UnreadableImage, match=word):
            open_image(tmp_path / "x.tif")


def test_large_sides_are_read(tmp_path: Path) -> None:
    Image.new("1", (10_000, 10_000)).save(tmp_path / "large.png")
    assert open_image(tmp_path / "large.png").size == (10_000, 10_000)
    _image(tmp_path / "long.png", (10_000, 3))
    assert _read(tmp_path / "long.png", 1).shape == (1, 3, 10_000)


def test_too_large_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 23)
    with pytest.raises(UnreadableImage, match="6 x 4 pixels, more than the 23"):
        open_image(_image(tmp_path / "a.png"))
    monkeypatch.setattr(module, "MAX_PIXELS", 24)
    open_image(_image(tmp_path / "a.png"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow's own alarm, from twice this on
    with pytest.raises(UnreadableImage, match="more than the 24 pixels that are read, perhaps a decompression bomb"):
        open_image(_image(tmp_path / "a.png"))


def _png(width: int, height: int, rows: Iterable[bytes], *extra: tuple[bytes, bytes]) -> bytes:
    """A grey 1-bit PNG file from its rows, compressed one by one, with more chunks before them."""
    packer = zlib.compressobj()
    data = b"".join(packer.compress(b"\0" + row) for row in rows) + packer.flush()
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), *extra, (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def test_20_000_x_20_000_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole file of 400 million pixels, 50 kB on the disk: decoded it would take 400 MB, as a tensor 1.6 GB."""
    path = tmp_path / "huge.png"
    path.write_bytes(_png(20_000, 20_000, (bytes(2500) for _ in range(20_000))))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(UnreadableImage, match="more than the 150,000,000 pixels that are read.*cut it into parts"):
        open_image(path)


def test_bombs_in_metadata(tmp_path: Path) -> None:
    """Text and colour profiles of 80 MB beside eight pixels: refused, or read without them, but never unpacked."""
    packed = zlib.compress(bytes(80_000_000))
    for kind, head in ((b"zTXt", b"note\0\0"), (b"iCCP", b"icc\0\0"), (b"iTXt", b"note\0\1\0\0\0")):
        path = tmp_path / f"{kind.decode()}.png"
        path.write_bytes(_png(8, 1, [b"\xff"], (kind, head + packed)))
        tracemalloc.start()
        with contextlib.suppress(UnreadableImage):
            assert open_image(path).size == (8, 1)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20_000_000, kind


def test_channels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="channels must be 1 or 3, got 2"):
        _read(_image(tmp_path / "a.png"), 2)


def test_unlistable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def walk(root: Path, onerror: object, followlinks: bool) -> list[object]:
        onerror(PermissionError(13, "Permission denied", str(root)))  # pyright: ignore[reportCallIssue]
        return []

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(MistError, match="can't list folder .*Permission denied"):
        find_images([tmp_path])
