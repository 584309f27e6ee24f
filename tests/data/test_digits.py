"""Digit sources: the real loader on small generated IDX files, the embedded digits, the real MNIST where present."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mistnn.data.digits import source as digits_module
from mistnn.data.digits.source import download_mnist, load_embedded, load_mnist, load_source, parse_idx
from mistnn.errors import MistError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {
        NAMES[0]: random.integers(0, 256, (12, 6, 6)),
        NAMES[1]: random.integers(0, 10, 12),
        NAMES[2]: random.integers(0, 256, (5, 6, 6)),
        NAMES[3]: random.integers(0, 10, 5),
    }


@pytest.fixture
def digests(arrays: dict[str, np.ndarray]) -> dict[str, str]:
    return {name: hashlib.sha256(idx_bytes(array)).hexdigest() for name, array in arrays.items()}


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIST_DATA", raising=False)


def write(folder: Path, arrays: dict[str, np.ndarray], compress: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        data = idx_bytes(array)
        path = folder / (f"{name}.gz" if compress else name)
        path.write_bytes(gzip.compress(data, 1) if compress else data)
    return folder


def one_line(error: pytest.ExceptionInfo[MistError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("folder", ["", "mnist", "MNIST/raw"])
def test_found(
    tmp_path: Path, arrays: dict[str, np.ndarray], digests: dict[str, str], folder: str, compress: bool
) -> None:
    write(tmp_path / folder, arrays, compress)
    train = load_mnist("train", tmp_path, digests=digests, validation=4)
    validation = load_mnist("validation", str(tmp_path), digests=digests, validation=4)
    test = load_mnist("test", tmp_path, digests=digests, validation=4)
    np.testing.assert_array_equal(train.images, arrays[NAMES[0]][:8])
    np.testing.assert_array_equal(train.labels, arrays[NAMES[1]][:8])
    np.testing.assert_array_equal(validation.images, arrays[NAMES[0]][8:])
    np.testing.assert_array_equal(validation.labels, arrays[NAMES[1]][8:])
    np.testing.assert_array_equal(test.images, arrays[NAMES[2]])
    np.testing.assert_array_equal(test.labels, arrays[NAMES[3]])
    ids = np.concatenate([train.ids, validation.ids, test.ids])
    assert len(np.unique(ids)) == 12 + 5


def test_found_through_the_variable(
    tmp_path: Path, arrays: dict[str, np.ndarray], digests: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "mnist", arrays)
    monkeypatch.setenv("MIST_DATA", str(tmp_path))
    assert len(load_mnist("test", digests=digests).images) == 5
    with pytest.raises(MistError, match="does not exist"):
        load_mnist("test", tmp_path / "elsewhere", digests=digests)  # An explicit root wins over the variable.


def test_missing(tmp_path: Path, arrays: dict[str, np.ndarray], digests: dict[str, str]) -> None:
    write(tmp_path, {name: arrays[name] for name in NAMES[:1]})
    with pytest.raises(MistError) as error:
        load_mnist("train", tmp_path, digests=digests)
    message = one_line(error)
    for part in (NAMES[1], digests[NAMES[1]], str(tmp_path), "--data.root", "MIST_DATA"):
        assert part in message


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(MistError) as error:
        load_mnist("train", tmp_path / "nowhere")
    message = one_line(error)
    assert "nowhere" in message and "--data.root" in message


def flipped(data: bytes) -> bytes:
    return gzip.compress(gzip.decompress(data)[:-1] + b"\x07" + b"\x01")


@pytest.mark.parametrize(
    "damage",
    [flipped, lambda data: data[:-20], lambda data: b"not gzip at all", lambda data: b""],
    ids=["other bytes", "cut", "not gzip", "empty"],
)
def test_corrupt(
    tmp_path: Path, arrays: dict[str, np.ndarray], digests: dict[str, str], damage: Callable[[bytes], bytes]
) -> None:
    path = write(tmp_path, arrays) / f"{NAMES[2]}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(MistError) as error:
        load_mnist("test", tmp_path, digests=digests)
    message = one_line(error)
    for part in (str(path), digests[NAMES[2]], "--data.root"):
        assert part in message


def test_real_digests_refuse_other_files(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    write(tmp_path, arrays)
    with pytest.raises(MistError, match="corrupt"):
        load_mnist("test", tmp_path)


def test_unequal_lengths(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    arrays[NAMES[3]] = arrays[NAMES[3]][:-1]
    write(tmp_path, arrays)
    digests = {name: hashlib.sha256(idx_bytes(array)).hexdigest() for name, array in arrays.items()}
    with pytest.raises(MistError, match=r"shape \(5, 6, 6\) and labels of shape \(4,\)"):
        load_mnist("test", tmp_path, digests=digests)


@pytest.mark.plain
@pytest.mark.parametrize("split", ["val", "", "Train"])
def test_bad_split(tmp_path: Path, split: str) -> None:
    for load in (load_embedded, lambda name: load_mnist(name, tmp_path)):
        with pytest.raises(MistError, match="train, validation or test"):
            load(split)  # pyright: ignore[reportArgumentType]


@pytest.mark.plain
def test_bad_source() -> None:
    with pytest.raises(MistError, match="'svhn': use mnist or embedded"):
        load_source("svhn", "train")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("validation", [0, 12, 13])
def test_bad_validation(
    tmp_path: Path, arrays: dict[str, np.ndarray], digests: dict[str, str], validation: int
) -> None:
    write(tmp_path, arrays)
    with pytest.raises(MistError, match=f"validation={validation}"):
        load_mnist("train", tmp_path, digests=digests, validation=validation)


def test_idx_round_trip() -> None:
    for shape in ((3,), (2, 5), (2, 3, 4), (0, 4)):
        array = np.arange(np.prod(shape)).reshape(shape)
        np.testing.assert_array_equal(parse_idx(idx_bytes(array), "file"), array)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\x08",
        b"\1\0\x08\1\0\0\0\1a",  # not two zero bytes
        b"\0\0\x0d\1\0\0\0\1a",  # floats
        b"\0\0\x08\0",  # no axis
        b"\0\0\x08\1\0\0",  # cut in the header
        b"\0\0\x08\1\0\0\0\2a",  # a value too few
        b"\0\0\x08\1\0\0\0\1ab",  # a value too many
    ],
)
def test_idx_bad_header(data: bytes) -> None:
    with pytest.raises(MistError) as error:
        parse_idx(data, "some-file")
    assert "some-file" in one_line(error)


def test_download(
    tmp_path: Path, arrays: dict[str, np.ndarray], digests: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    server = write(tmp_path / "server", arrays)
    broken = write(tmp_path / "broken", {name: array[:1] for name, array in arrays.items()})
    mirrors = [f"{(tmp_path / 'none').as_uri()}/", f"{broken.as_uri()}/", f"{server.as_uri()}/"]
    caplog.set_level(logging.INFO, "mistnn")
    target = download_mnist(tmp_path / "deep" / "mnist", mirrors=mirrors, digests=digests)
    assert sorted(path.name for path in target.iterdir()) == sorted(f"{name}.gz" for name in NAMES)
    assert [record.getMessage() for record in caplog.records] == [
        f"downloaded {mirrors[2]}{name}.gz" for name in digests
    ]
    assert len(load_mnist("test", tmp_path / "deep", digests=digests).images) == 5
    # What is there is not fetched again.
    download_mnist(target, mirrors=[], digests=digests)


def test_download_fails(tmp_path: Path, digests: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    mirror = f"{(tmp_path / 'none').as_uri()}/"
    caplog.set_level(logging.INFO, "mistnn")
    with pytest.raises(MistError) as error:
        download_mnist(tmp_path / "cache", mirrors=[mirror], digests=digests)
    message = one_line(error)
    for part in (mirror, str(tmp_path / "cache"), NAMES[0], "--data.root", "MIST_DATA"):
        assert part in message
    assert not (tmp_path / "cache").exists()
    assert not caplog.records, "the error is all there is to say"


def test_download_unwritable(tmp_path: Path, arrays: dict[str, np.ndarray], digests: dict[str, str]) -> None:
    server = write(tmp_path / "server", arrays)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MistError, match="cannot write MNIST"):
        download_mnist(tmp_path / "file" / "mnist", mirrors=[f"{server.as_uri()}/"], digests=digests)


def test_several_at_once_download_to_one_folder(
    tmp_path: Path, arrays: dict[str, np.ndarray], digests: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them come to the same files, also if all have fetched a file before one of them has written it."""
    server = write(tmp_path / "server", arrays)
    together, real = threading.Barrier(3), digits_module.replace_file

    def all_at_once(path: Path, data: bytes, aside: str) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(timeout=2)
        real(path, data, aside)

    monkeypatch.setattr(digits_module, "replace_file", all_at_once)
    target = tmp_path / "mnist"
    with ThreadPoolExecutor(3) as pool:
        futures = [
            pool.submit(download_mnist, target, mirrors=[f"{server.as_uri()}/"], digests=digests) for _ in range(3)
        ]
    assert [one.result() for one in futures] == 3 * [target]
    assert sorted(path.name for path in target.iterdir()) == sorted(f"{name}.gz" for name in digests)


def test_fetched_only_without_a_folder(
    tmp_path: Path, arrays: dict[str, np.ndarray], digests: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[Path] = []

    def fetch(folder: Path, *, digests: dict[str, str]) -> Path:
        fetched.append(folder)
        return write(folder, arrays)

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(digits_module, "download_mnist", fetch)
    for _ in range(2):
        assert len(load_mnist("test", digests=digests).images) == 5
    assert fetched == [tmp_path / ".cache" / "mistnn" / "mnist"]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(MistError, match="not found"):
        load_mnist("test", empty, digests=digests)
    assert len(fetched) == 1


def test_embedded() -> None:
    splits = {name: load_source("embedded", name) for name in ("train", "validation", "test")}
    assert [len(source.images) for source in splits.values()] == [1200, 297, 300]
    ids = np.concatenate([source.ids for source in splits.values()])
    np.testing.assert_array_equal(ids, np.arange(1797))
    for source in splits.values():
        assert source.images.dtype == np.uint8 and source.images.shape[1:] == (10, 10)
        assert source.images.max() == 255
        assert set(source.labels.tolist()) == set(range(10))
        border = source.images.copy()
        border[:, 1:-1, 1:-1] = 0
        assert not border.any()


def test_embedded_levels() -> None:
    from sklearn.datasets import load_digits

    raw = np.asarray(load_digits().images)  # pyright: ignore[reportAttributeAccessIssue]
    source = load_embedded("validation")
    for row in (0, 296):
        for y in range(8):
            for x in range(8):
                assert abs(source.images[row, y + 1, x + 1] - raw[1200 + row, y, x] * 255 / 16) <= 0.5


def test_real_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # The variable is wanted here.
    root = Path(os.environ.get("MIST_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if digits_module.find_file(NAMES[0], root) is None:
        pytest.skip("no MNIST: set MIST_DATA to the folder that holds it")
    splits = {name: load_source("mnist", name, root) for name in ("train", "validation", "test")}
    assert [len(source.images) for source in splits.values()] == [55_000, 5_000, 10_000]
    ids = np.concatenate([source.ids for source in splits.values()])
    np.testing.assert_array_equal(ids, np.arange(70_000))
    assert splits["train"].labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert splits["test"].labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert splits["test"].images.shape == (10_000, 28, 28)
