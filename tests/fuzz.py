"""Broken inputs for every reader of a folder and for the options: each must be read, or refused in one line.

``python -m tests.fuzz 2000`` tries so many, from a random seed; ``python -m tests.fuzz 1 SEED`` repeats one. The seed
of a failure goes to ``FAILED`` in ``tests/test_fuzz.py``.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from mistnn.cli.main import main
from mistnn.data import read_folder
from mistnn.data.images import UnreadableImage, open_image
from mistnn.errors import MistError
from mistnn.training.checkpoint import read_checkpoint
from mistnn.weights import load_model
from tests.data.layouts import voc

CELLS = (
    "a.png", "b.png", "../a.png", "/etc/passwd", "A.PNG", "a", "", " ", "0", "1", "-1", "2.5", "1,5", "1e9", "nan",
    "inf", "9" * 30, "=cmd()", "@x", "red", "white", "train", "\x07", "\ufeff", "\U0001f9eb", "<b>", "'", '"', "\t",
    "x" * 140_000,
)  # fmt: skip
HEADERS = ("file", "class", "count", "split", "red", "white", "x", "plate", "", "image", "file")
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, 10**400, "a.png", "../b.png", "\ud800", [], {}, [1, 2], [0, 0, 4, 4], [0, 0, 4, 4, 4],
    "x", [[0, 0, 4, 4]], [["a"]], float("nan"), float("inf"),
)  # fmt: skip
KEYS = (
    "images", "annotations", "categories", "id", "image_id", "category_id", "bbox", "file_name", "width", "height",
    "name", "file", "boxes", "labels", "split", "segmentation", "iscrowd",
)  # fmt: skip
OPTIONS = (
    "--out", "--k", "--images", "--seed", "--device", "--steps", "--train.steps", "--data-root", "--model.k", "--force",
    "--resume", "--report", "--no-overlays", "--split", "--json", "--strengths", "--help=1", "--", "-x",
)  # fmt: skip
WORDS = (
    "",
    "0",
    "-1",
    "1e3",
    "nan",
    "cpu",
    "tpu",
    "None",
    "~nobody/x",
    "\udc80",
    "a" * 300,
    "no such",
    "\n",
    "=",
    "mist-mnist-3",
)


def mutated(data: bytes, dice: random.Random) -> bytes:
    """Bytes with a few of them changed, removed, repeated or cut off."""
    changed = bytearray(data)
    for _ in range(dice.randint(0, 4)):
        place = dice.randrange(len(changed) + 1)
        match dice.randrange(4):
            case 0:
                changed[place : place + 1] = bytes([dice.randrange(256)])
            case 1:
                del changed[place : place + dice.randint(1, 20)]
            case 2:
                changed[place:place] = changed[place : place + dice.randint(1, 40)]
            case _:
                del changed[place + dice.randint(0, len(changed)) :]
    return bytes(changed)


def some_json(dice: random.Random, depth: int = 0) -> Any:
    """A value of JSON with the keys of annotation files."""
    if depth > 3 or dice.random() < 0.3:
        return dice.choice(VALUES)
    if dice.random() < 0.5:
        return [some_json(dice, depth + 1) for _ in range(dice.randint(0, 3))]
    return {dice.choice(KEYS): some_json(dice, depth + 1) for _ in range(dice.randint(0, 5))}


def table(dice: random.Random) -> bytes:
    """A table of counts with some odd cells."""
    separator, columns = dice.choice(",;\t|"), dice.randint(1, 5)
    rows = [[dice.choice(HEADERS) for _ in range(columns)]] if dice.random() < 0.5 else [["file", "class", "count"]]
    for _ in range(dice.randint(0, 6)):
        usual = [dice.choice(("a.png", "b.png")), dice.choice(("red", "white")), str(dice.randint(0, 5))]
        rows.append(usual if dice.random() < 0.7 else [dice.choice(CELLS) for _ in range(columns)])
    text = "\n".join(separator.join(row) for row in rows)
    return mutated(text.encode(dice.choice(("utf-8", "utf-16", "latin-1")), "replace"), dice)


def document(dice: random.Random) -> bytes:
    """A PASCAL VOC file, or XML that should do harm."""
    bomb = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><annotation>&y;</annotation>'
    outside = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><filename>&x;</filename></annotation>'
    deep = "<annotation>" + "<object>" * 5_000
    text = dice.choice((voc(("red", (1, 1, 3, 3))), voc(), bomb, outside, deep))
    return mutated(text.encode(), dice)


def try_folder(root: Path, dice: random.Random) -> None:
    """Reads a folder with broken tables and annotations."""
    for name in ("a.png", "b.png"):
        Image.new("L", (8, 6)).save(root / name)
    writers: dict[str, Callable[[random.Random], bytes]] = {
        "counts.csv": table,
        "labels.csv": table,
        "train.txt": lambda dice: mutated("\n".join(dice.choices(CELLS, k=3)).encode(), dice),
        "annotations.json": lambda dice: mutated(json.dumps(some_json(dice)).encode(), dice),
        "boxes.json": lambda dice: b"[" * 100_000 if dice.random() < 0.05 else json.dumps(some_json(dice)).encode(),
        "a.xml": document,
    }
    for name in dice.sample(sorted(writers), dice.randint(1, 2)):
        (root / name).write_bytes(writers[name](dice))
    found = read_folder(root)
    for image in found.images:
        assert image.path.parent == root, f"{image.path} lies outside {root}"
        assert image.counts is None or all(0 <= count < 10**9 for count in image.counts)
    for note in found.notes:
        assert "\n" not in note


def try_image(root: Path, dice: random.Random) -> None:
    """Opens a broken image."""
    suffix = dice.choice(("png", "jpg", "gif", "bmp", "tif", "webp"))
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((9, 7)).convert(dice.choice(("L", "RGB"))).save(
        buffer, "TIFF" if suffix == "tif" else "JPEG" if suffix == "jpg" else suffix.upper()
    )
    (root / f"a.{suffix}").write_bytes(mutated(buffer.getvalue(), dice))
    with contextlib.suppress(UnreadableImage):
        open_image(root / f"a.{suffix}")


def try_model(root: Path, dice: random.Random) -> None:
    """Reads a broken model folder or checkpoint."""
    config = {"format": 2, "mistnn": "0.2.0", "model": some_json(dice), "experiment": {}, "digest": dice.choice(VALUES)}
    text = json.dumps(config) if dice.random() < 0.9 else "[" * 100_000
    (root / "config.json").write_bytes(mutated(text.encode(), dice))
    (root / "model.safetensors").write_bytes(dice.randbytes(dice.randint(0, 40)))
    if dice.random() < 0.5:
        load_model(root)
    else:
        read_checkpoint(root / "model.safetensors")


def try_options(root: Path, dice: random.Random) -> None:
    """Runs a command with broken options, on a folder without images."""
    (root / "empty").mkdir()
    command = dice.choice(
        ("predict", "evaluate", "train", "inspect", "report", "tune", "results", "presets", "nothing")
    )
    given = [dice.choice(OPTIONS if dice.random() < 0.6 else WORDS) for _ in range(dice.randint(0, 3))]
    said = io.StringIO()
    with contextlib.chdir(root), contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main([command, str(root / "empty"), *given])
    assert code in (0, 2) and (code == 0 or said.getvalue().count("\n") == 1), f"{command} {given}: {said.getvalue()}"


KINDS = (try_folder,) * 6 + (try_image, try_image, try_model, try_options)


def attempt(seed: int) -> None:
    """Tries the input of a seed; raises whatever is neither success nor an error of one line."""
    dice = random.Random(seed)
    root = Path(tempfile.mkdtemp())
    try:
        dice.choice(KINDS)(root, dice)
    except MistError as error:
        assert "\n" not in str(error), f"several lines: {error}"
        str(error).encode("utf-8", "strict")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    many, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(10**9)
    bad = 0
    for seed in range(first, first + many):
        try:
            attempt(seed)
        except Exception as error:
            bad += 1
            print(f"seed {seed}: {type(error).__name__}: {str(error)[:300]}")
    print(f"{many} inputs from seed {first}: {bad} failures")
    sys.exit(bad > 0)
