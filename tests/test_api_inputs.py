"""The Python interface: every form of images and counts, and errors in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

import mistnn
from mistnn.api.counts import checked_names, given_counts
from mistnn.api.given import given_folder
from mistnn.data import OwnFolder, ScenesConfig
from mistnn.data.folder.images import load_image
from mistnn.errors import MistError
from mistnn.inference.predictor import as_image_tensor
from mistnn.records import Sample

NAMES = ("a.png", "b.png", "c.png")
COUNTS = [{"cell": 2, "dot": 0}, {"cell": 1, "dot": 3}, {"dot": 1}]
ROWS = [(2, 0), (1, 3), (0, 1)]


class Listed(Dataset[Sample]):
    """A user's own data set."""

    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def picture(seed: int = 0, height: int = 20, width: int = 24) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for index, name in enumerate(NAMES):
        Image.fromarray(picture(index)).save(tmp_path / name)
    return [tmp_path / name for name in NAMES]


def rows(folder: OwnFolder) -> list[Any]:
    return [image.counts for image in folder.images]


# Images.


@pytest.mark.parametrize(
    "convert",
    [
        lambda image: image,
        lambda image: image.astype(np.uint16) * 257,
        lambda image: image.astype(">u2") * 257,
        lambda image: image / 255,
        lambda image: (image / 255).astype("<f4"),
        lambda image: (image / 255).astype(">f8"),
        lambda image: (image / 255).astype(np.longdouble),
        lambda image: np.asfortranarray(image),
        lambda image: image[::-1].copy()[::-1],
        lambda image: torch.from_numpy(image.copy()).permute(2, 0, 1),
        lambda image: (torch.from_numpy(image.copy()).permute(2, 0, 1) / 255).requires_grad_(),
        lambda image: Image.fromarray(image),
    ],
)
def test_images_of_every_type_have_the_same_values(convert: Callable[[Any], Any]) -> None:
    image = picture()
    image.flags.writeable = False
    given = convert(image)
    folder = given_folder([given] * 3, [1, 2, 3])
    assert [(one.height, one.width) for one in folder.images] == [(20, 24)] * 3
    assert torch.allclose(
        load_image(folder.images[0], 3), torch.from_numpy(image.copy()).permute(2, 0, 1) / 255, atol=1e-6
    )


def test_grey_and_masks() -> None:
    grey = picture()[..., 0]
    for image in (grey, grey > 128, Image.fromarray(grey)):
        assert load_image(given_folder([image] * 3, [1, 1, 1]).images[0], 3).shape == (3, 20, 24)


def test_a_damaged_pillow_image_and_a_sparse_tensor(files: list[Path]) -> None:
    files[0].write_bytes(files[0].read_bytes()[:400])
    with Image.open(files[0]) as image, pytest.raises(ValueError, match="can't use this image: .*truncated"):
        as_image_tensor(image, 3)
    dense = torch.rand(1, 4, 5)
    torch.testing.assert_close(as_image_tensor(dense.to_sparse(), 1), dense)


def test_counts_as_arrays_of_no_dimension() -> None:
    assert rows(given_folder([picture()] * 2, [np.array(3), np.array(1)])) == [(3,), (1,)]


def test_a_series_is_matched_by_its_files(files: list[Path]) -> None:
    """As ``table.groupby("file").size()`` gives it: sorted by file, not in the order of the images."""
    pandas = pytest.importorskip("pandas")
    series = pandas.Series([5, 6, 7], index=list(NAMES))
    folder = given_folder(files[::-1], series)
    assert folder.class_names == ("object",) and rows(folder) == [(7,), (6,), (5,)]
    assert given_folder(files, series, ["cell"]).class_names == ("cell",)
    assert given_folder(files, series, ["plate"]).class_names == ("plate",)
    with pytest.raises(ValueError, match="the index of counts names files"):
        given_folder([picture()] * 3, series)
    with pytest.raises(ValueError, match="names a file twice"):
        given_folder(files, pandas.concat([series, series[:1]]))


@pytest.mark.parametrize("column", ["path", "img", "File Path"])
def test_a_column_that_names_the_images_is_no_reason_to_go_by_order(files: list[Path], column: str) -> None:
    pandas = pytest.importorskip("pandas")
    for values in (list(NAMES), files, [path.stem for path in files]):
        with pytest.raises(
            ValueError, match=f"the column {column!r} of counts seems to name the images: call it 'file'"
        ):
            given_folder(files, pandas.DataFrame({column: values[::-1], "cell": [1, 2, 3]}))


def test_a_total_is_no_class() -> None:
    columns = {"red": [1, 2, 3, 0, 1], "green": [0, 1, 1, 2, 2], "total": [1, 3, 4, 2, 3]}
    folder = given_folder([picture()] * 5, columns)
    assert folder.class_names == ("red", "green") and folder.notes == ("'total' is the sum of the others: no class",)
    assert given_folder([picture()] * 5, columns | {"total": [1, 3, 4, 2, 9]}).class_names == tuple(columns)


def test_an_index_of_paths_or_called_file_names_files(files: list[Path]) -> None:
    pandas = pytest.importorskip("pandas")
    for index in (files[::-1], pandas.Index([path.stem for path in files[::-1]], name="File name")):
        series = pandas.Series([7, 6, 5], index=index)
        for counts in (series, pandas.DataFrame({"cell": series}), {"cell": series}):
            assert rows(given_folder(files, counts)) == [(5,), (6,), (7,)], (index, counts)
    levels = pandas.MultiIndex.from_tuples([(name, "cell") for name in NAMES])
    with pytest.raises(ValueError, match=r"several levels: counts.reset_index\(\)"):
        given_folder(files, pandas.Series([5, 6, 7], index=levels))
    with pytest.raises(ValueError, match="names files in some rows only"):
        given_folder(files, pandas.Series([5, 6, 7], index=["a.png", 1, 2]))
    with pytest.raises(ValueError, match="mixes Series that name files with others"):
        given_folder(files, {"cell": pandas.Series([5, 6, 7], index=list(NAMES)), "dot": [1, 2, 3]})


def test_an_index_in_another_order_is_refused() -> None:
    """Shuffled rows, or columns that pandas would join by their index, were used by their position."""
    pandas = pytest.importorskip("pandas")
    images = [picture()] * 3
    shuffled = pandas.Series([5, 6, 7], index=[2, 0, 1])
    for counts in (shuffled, pandas.DataFrame({"cell": shuffled}), {"cell": shuffled, "dot": shuffled}):
        with pytest.raises(ValueError, match=r"in another order than theirs: take counts.sort_index\(\)"):
            given_folder(images, counts)
        assert rows(given_folder(images, pandas.DataFrame(counts).sort_index()))[0][0] == 6
    with pytest.raises(ValueError, match="Series with different indices: make a DataFrame"):
        given_folder(images, {"cell": shuffled.sort_index(), "dot": shuffled})
    for index in ([3, 8, 9], [9, 3, 8], [0, 1, 0]):  # rows that were chosen: their order is that of the images
        assert rows(given_folder(images, pandas.Series([5, 6, 7], index=index))) == [(5,), (6,), (7,)]


def test_stacks() -> None:
    array = np.stack([picture(seed) for seed in range(4)])
    for stack in (array, array[..., 0], torch.from_numpy(array).permute(0, 3, 1, 2)):
        assert [(one.height, one.width) for one in given_folder(stack, [1, 2, 3, 4]).images] == [(20, 24)] * 4


def test_files_and_folders_are_not_decoded(files: list[Path], tmp_path: Path) -> None:
    data = files[0].read_bytes()
    files[0].write_bytes(data[: len(data) // 2])  # only its header can be read
    for images in (files, [str(file) for file in files], tmp_path):
        folder = given_folder(images, [1, 2, 3])
        assert [one.name for one in folder.images] == list(NAMES)
        assert rows(folder) == [(1,), (2,), (3,)] and folder.class_names == ("object",)


def test_a_file_that_is_given_twice_is_refused(files: list[Path]) -> None:
    with pytest.raises(ValueError, match="a.png is given twice"):
        given_folder([*files, files[0].parent / ".." / files[0].parent.name / files[0].name], [1, 2, 3, 4])


def test_files_of_one_name_in_two_folders(tmp_path: Path) -> None:
    for place in ("x", "y"):
        (tmp_path / place).mkdir()
        Image.fromarray(picture()).save(tmp_path / place / "a.png")
    given = {"x/a.png": {"cell": 1}, "y/a.png": {"cell": 5}}
    folder = given_folder([tmp_path / "x" / "a.png", tmp_path / "y" / "a.png"], given)
    assert rows(folder) == [(1,), (5,)]


def test_data_set_of_samples() -> None:
    samples = [Sample(torch.rand(1, 9, 8), torch.tensor([index, 2])) for index in range(3)]
    for images in (Listed(samples), samples):
        folder = given_folder(images)
        assert folder.class_names == ("0", "1") and rows(folder) == [(0, 2), (1, 2), (2, 2)]
        assert torch.equal(load_image(folder.images[2], 1), samples[2].image)
    assert given_folder(Listed(samples), class_names=("a", "b")).class_names == ("a", "b")
    given = ScenesConfig(source="embedded", canvas=48, counts=(1, 2), classes=3).open("train", 4)
    folder = given_folder(given)
    assert folder.class_names == ("0", "1", "2") and folder.images[0].boxes is not None


# Counts.


@pytest.mark.parametrize(
    ("counts", "class_names"),
    [
        (COUNTS, None),
        ({"cell": [2, 1, 0], "dot": [0, 3, 1]}, None),
        ({"cell": np.array([2, 1, 0]), "dot": torch.tensor([0, 3, 1])}, None),
        ({"dot": [0, 3, 1], "cell": [2, 1, 0]}, ("cell", "dot")),
        (np.array(ROWS), ("cell", "dot")),
        (np.array(ROWS, dtype=float), ["cell", "dot"]),
        (torch.tensor(ROWS), ("cell", "dot")),
        (ROWS, ("cell", "dot")),
        ({name: row for name, row in zip(NAMES, COUNTS, strict=True)}, None),
        ({"c": COUNTS[2], "a": COUNTS[0], "b": COUNTS[1]}, None),
    ],
)
def test_forms_of_counts(counts: Any, class_names: Any, files: list[Path]) -> None:
    folder = given_folder(files, counts, class_names)
    assert folder.class_names == ("cell", "dot") and rows(folder) == ROWS
    assert [one.present for one in folder.images] == [tuple(n > 0 for n in row) for row in ROWS]


@pytest.mark.parametrize(
    "counts", [[4, 0, 1], np.array([4, 0, 1]), torch.tensor([4.0, 0.0, 1.0]), {"a": 4, "b": 0, "c": 1}]
)
def test_one_class(counts: Any, files: list[Path]) -> None:
    folder = given_folder(files, counts)
    assert folder.class_names == ("object",) and rows(folder) == [(4,), (0,), (1,)]
    assert given_folder(files, counts, "cell").class_names == ("cell",)


def test_counts_of_a_table(files: list[Path], tmp_path: Path) -> None:
    table = tmp_path / "other.csv"
    table.write_text("file,split,cell,dot\nc.png,train,0,1\na.png,test,2,0\n")
    folder = given_folder(files, table)
    assert folder.class_names == ("cell", "dot") and rows(folder) == [(2, 0), None, (0, 1)]
    assert [image.split for image in folder.images] == ["test", None, "train"]
    assert "1 of 3 images have no counts (b.png" in folder.notes[0]


class Frame:
    """As much of a pandas ``DataFrame`` as is used, where pandas isn't installed."""

    def __init__(self, columns: dict[str, list[Any]], index: Any = None) -> None:
        self.values, self.columns = columns, list(columns)
        self.index = list(range(len(next(iter(columns.values()))))) if index is None else list(index)

    def __getitem__(self, name: str) -> list[Any]:
        return self.values[name]

    def __len__(self) -> int:
        return len(self.index)

    def to_csv(self, index: bool = True, index_label: str = "") -> str:
        lines = [",".join([*([index_label] if index else []), *self.columns])]
        for place, label in enumerate(self.index):
            lines.append(
                ",".join(map(str, [*([label] if index else []), *(self.values[n][place] for n in self.columns)]))
            )
        return "\n".join(lines) + "\n"


@pytest.fixture
def frame(monkeypatch: pytest.MonkeyPatch) -> Any:
    try:
        import pandas
    except ImportError:
        module = ModuleType("pandas")
        module.DataFrame = Frame  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "pandas", module)
        return Frame
    return pandas.DataFrame


def test_data_frames(frame: Any, files: list[Path]) -> None:
    wide = {"cell": [2, 1, 0], "dot": [0, 3, 1]}
    assert rows(given_folder([picture()] * 3, frame(wide))) == ROWS
    assert rows(given_folder(files, frame(wide, index=list(NAMES)))) == ROWS
    assert rows(given_folder(files, frame({"image": ["b", "c", "a"], "cell": [1, 0, 2], "dot": [3, 1, 0]}))) == ROWS
    long = {"file": ["a", "b", "b", "c"], "class": ["cell", "cell", "dot", "dot"], "count": [2, 1, 3, 1]}
    assert rows(given_folder(files, frame(long))) == ROWS
    assert [one.split for one in given_folder(files, frame(wide)).images] == [None] * 3
    split = wide | {"Split": ["val", "train", "Test"]}  # in the order of the images
    for images in ([picture()] * 3, files):
        folder = given_folder(images, frame(split))
        assert rows(folder) == ROWS and folder.notes == () and folder.class_names == ("cell", "dot")
        assert [one.split for one in folder.images] == ["validation", "train", "test"]
    with pytest.raises(ValueError, match="counts of image 1: split 'rest' is unknown: use train, validation or test"):
        given_folder(files, frame(wide | {"split": ["train", "rest", "test"]}))
    more = wide | {"width": [24, 24, 24]}
    for images, table in (([picture()] * 3, frame(more)), (files, frame(more, index=list(NAMES)))):
        folder = given_folder(images, table)
        assert rows(folder) == ROWS and "'width' (by its name)" in folder.notes[0]
    with pytest.raises(ValueError, match="no column of counts holds counts: 'width'"):
        given_folder([picture()] * 3, frame({"width": [24, 24, 24]}))
    with pytest.raises(ValueError, match="the images are not files"):
        given_folder([picture()] * 3, frame(long))
    with pytest.raises(ValueError, match="'cell' of counts has 3 rows for 2 images"):
        given_folder([picture()] * 2, frame(wide))


# Errors.


@pytest.mark.plain
@pytest.mark.parametrize(
    ("images", "counts", "message"),
    [
        (None, [1], "images is a NoneType"),
        ({"a.png", "b.png"}, [1, 1], "images is a set"),
        ([], [], "no image was given"),
        ([picture()] * 2, [1, 1], "2 images are too few"),
        (picture(), [1], r"images has the shape \(20, 24, 3\)"),
        (torch.rand(3, 8, 8), [1], r"images has the shape \(3, 8, 8\)"),
        ([picture(), picture(), 3], [1, 1, 1], "image 2 is a int"),
        ([picture().astype(np.int64)] * 3, [1, 1, 1], "image 0: image values must be uint8.*int64"),
        ([picture().astype(object)] * 3, [1, 1, 1], "image 0: image values must be uint8.*object"),
        ([picture() / 2] * 3, [1, 1, 1], "image 0: float image values must lie in 0-1"),
        ([np.full((4, 4), np.nan)] * 3, [1, 1, 1], "image 0: float image values"),
        ([np.zeros((4, 4, 7))] * 3, [1, 1, 1], "image 0: an image has 1 to 4 channels, got 7"),
        ([np.zeros((4, 0))] * 3, [1, 1, 1], "image 0: an image needs at least one pixel"),
        ([np.zeros(4)] * 3, [1, 1, 1], "image 0: an image array must be"),
        ([picture()] * 3, None, "there are no counts"),
        ([picture()] * 3, [1, 2], "counts has 2 rows for 3 images"),
        ([picture()] * 3, 5, "counts=5 is a int"),
        ([picture()] * 3, [1, 2, -1], "image 2: -1 is not a whole number"),
        ([picture()] * 3, [1, 2.5, 1], "image 1: 2.5 is not a whole number"),
        ([picture()] * 3, [1, float("nan"), 1], "image 1: the value is NaN"),
        ([picture()] * 3, [1, float("inf"), 1], "image 1: inf is not a whole number"),
        ([picture()] * 3, [1, "2", 1], "image 1: '2' is not a number"),
        ([picture()] * 3, [1, True, 1], "image 1: True is not a number"),
        ([picture()] * 3, np.ma.masked_array([1, 2, 3], [0, 1, 0]), "image 1: the value is masked"),
        ([np.ma.masked_array(picture(), picture() > 9)] * 3, [1, 1, 1], "image 0: an image array has masked values"),
        ([picture()] * 3, {1: [1, 2, 3], "1": [1, 2, 3]}, "counts names '1' twice"),
        ([picture()] * 3, [{1: 2, "1": 3}, {"1": 1}, {}], "counts of image 0 names '1' twice"),
        ([picture()] * 3, [0, 0, 0], "all counts are 0"),
        ([picture()] * 3, [{"a": 1}, {}, 4], "counts of image 2: 4 is no dictionary"),
        ([picture()] * 3, [{}, {}, {}], "counts names no class"),
        ([picture()] * 3, {}, "counts is an empty dictionary"),
        ([picture()] * 3, {"a.png": {"cell": 1}}, "the images are not files"),
        ([picture()] * 3, "counts.csv", "the images are not files"),
        ([picture()] * 3, {"a": [1, 2, 3], "b": 1}, "mixes lists with other values"),
        ([picture()] * 3, {"a": [1, 2, 3], "b": [1]}, "column 'b' of counts has 1 rows for 3"),
        ([picture()] * 3, np.ones((3, 2)), r"counts has 2 columns: name them, class_names="),
        ([picture()] * 3, [[1, 2], [1], [1, 2]], r"rows of counts have \[1, 2\] values"),
        (Listed([(picture(), 1)] * 3), None, "sample 0 is a tuple"),
        (
            Listed([Sample(torch.rand(1, 4, 4), torch.tensor([1]))] * 2 + [Sample(torch.rand(1, 4, 4))]),
            None,
            "all samples",
        ),
        (ScenesConfig(source="embedded").open("train"), None, "has no end"),
    ],
)
def test_bad_input_is_one_line(images: Any, counts: Any, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((ValueError, MistError), match=message) as caught:
        mistnn.fit(images, counts)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


@pytest.mark.plain
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k=0 must be a whole number of 1 or more"),
        ({"k": 2}, "k=2 is less than the 3 objects"),
        ({"steps": 0}, "steps=0 must be"),
        ({"steps": 2.5}, "steps=2.5 must be"),
        ({"class_names": ["a", "a"]}, r"class_names=\('a', 'a'\) must be distinct"),
        ({"force": True}, "give out="),
        ({"device": "tpu"}, "train.device='tpu' must be"),
        ({"seed": -1}, "seed=-1 must be"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, MistError), match=message):
        mistnn.fit([picture()] * 3, [1, 2, 3], **arguments)


@pytest.mark.plain
def test_endless_streams_are_refused() -> None:
    class Stream(IterableDataset[Sample]):
        def __iter__(self) -> Any:
            return iter(())

    with pytest.raises(ValueError, match="Stream has no samples by index"):
        mistnn.fit(Stream())


def test_names_of_files_are_checked(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(MistError, match="no image is called 'd.png'"):
        given_folder(files, {"a.png": 1, "b.png": 1, "d.png": 1})
    with pytest.raises(ValueError, match="no entry for c.png"):
        given_folder(files, {"a.png": 1, "b.png": 1})
    with pytest.raises(ValueError, match="names a.png twice"):
        given_folder(files, {"a.png": 1, "a": 1, "b": 1, "c": 1})
    with pytest.raises(MistError, match=r"counts.csv"):
        given_folder(files, tmp_path / "counts.csv")
    with pytest.raises(MistError, match="can't be used"):
        given_folder([*files, tmp_path / "missing.png"], [1, 2, 3, 4])
    with pytest.raises(ValueError, match="is one file"):
        given_folder(files[0], [1])


def test_classes_of_a_model() -> None:
    images = [picture()] * 3
    assert rows(given_folder(images, [{"b": 1}, {}, {"b": 2}], ("a", "b"))) == [(0, 1), (0, 0), (0, 2)]
    with pytest.raises(ValueError, match="counts has the classes c, and those of the model are a, b"):
        given_folder(images, {"c": [1, 2, 3]}, ("a", "b"))


@pytest.mark.plain
@pytest.mark.parametrize("counts", [{3, 1, 0}, b"123", np.array(3)], ids=["set", "bytes", "zero dimensions"])
def test_counts_without_an_order_are_refused(counts: object) -> None:
    with pytest.raises(ValueError, match="give a list, one number for each image"):
        given_counts(counts, ["a", "b", "c"], False, None)


@pytest.mark.plain
def test_names_without_an_order_are_refused() -> None:
    with pytest.raises(ValueError, match="must be distinct names in a list"):
        checked_names({"x", "y"})  # type: ignore[arg-type]


@pytest.mark.plain
def test_arguments_of_other_types_are_refused_in_one_line() -> None:
    for bad in (None, 3, ""):
        with pytest.raises(ValueError, match="is no model"):
            mistnn.load(bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed=1.5 must be a whole number"):
        mistnn.train("demo", seed=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="out='' is no run folder"):
        mistnn.train("demo", steps=1, out="")
    for bad in (None, 3, [np.zeros((4, 4))]):
        with pytest.raises(ValueError, match="an image must be a path|takes one image"):
            as_image_tensor(bad, 1)  # type: ignore[arg-type]


def test_classes_with_almost_the_same_name_are_noted() -> None:
    images = [np.zeros((8, 8), dtype=np.float32)] * 2
    folder = given_folder(images, [{"red": 1, "Red ": 0}, {"red": 0, "Red ": 2}])
    assert any("classes with almost the same name ('Red ' and 'red'" in note for note in folder.notes)


def test_counts_without_names_need_a_folder_in_one_order(tmp_path: Path) -> None:
    """A file manager shows 2.png before 10.png, and the letters say otherwise."""
    pandas = pytest.importorskip("pandas")
    names = [f"im{number}.png" for number in range(1, 12)]
    for name in names:
        Image.fromarray(picture()).save(tmp_path / name)
    counts = list(range(1, 12))
    for plain in (
        counts,
        np.array(counts),
        {"cell": counts},
        pandas.Series(counts),
        pandas.DataFrame({"cell": counts}),
    ):
        with pytest.raises(ValueError, match=r"im10.png comes where im2.png would\): give a dict from file name"):
            given_folder(tmp_path, plain)
    named = (dict(zip(names, counts, strict=True)), pandas.DataFrame({"cell": counts}, index=names))
    for one in named:
        found = {image.name: image.counts for image in given_folder(tmp_path, one).images}
        assert found == {name: (count,) for name, count in zip(names, counts, strict=True)}
    assert rows(given_folder(tmp_path, [3] * 11)) == [(3,)] * 11, "the order doesn't matter"
    assert rows(given_folder([tmp_path / name for name in names], counts)) == [(count,) for count in counts]
