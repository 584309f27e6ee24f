"""``mist export``: a detector as one file that runs without this package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mistnn.cli.parsing import WRITABLE, Model, Options, parse
from mistnn.errors import MistError

DESCRIPTION = """\
Writes a trained detector as one file: preparation, heat map, non-maximum suppression, top-K, classes and the count.

  onnx  for ONNX Runtime and other programs
  pt2   for torch.export.load

Height, width and K stay variable. The inputs are image, (1, channels, height, width) float32 in [0, 1], and k, int64: \
how many objects, 0 for as many as the model counts. The outputs are boxes (centre x, centre y, width, height in \
pixels), scores and labels. The file also holds the names of the classes, the threshold and the version. The guide \
docs/export.md has an example that needs only onnxruntime and numpy."""


@dataclass(frozen=True)
class Export(Options):
    """The arguments.

    Attributes:
        model: a run folder, or the name of a shipped model.
        out: the file to write; its name ends in the format.
        format: onnx or pt2.
    """

    model: Model
    out: Annotated[Path, tyro.conf.arg(metavar="FILE"), WRITABLE]
    format: Literal["onnx", "pt2"] = "onnx"


def run(arguments: Sequence[str]) -> int:
    """Writes the file, and compares its speed with PyTorch's where ONNX Runtime is installed."""
    request = parse(Export, arguments, "mist export", DESCRIPTION)
    if request.out.suffix.lower() != f".{request.format}":
        raise MistError(
            f"--out {request.out} must end in .{request.format}, the --format: rename it, or give the other"
        )
    import torch

    from mistnn.inference import Predictor
    from mistnn.inference.export import compare_speed, export_model, has_runtime, whole_detector

    predictor = Predictor.from_pretrained(request.model)
    export_model(predictor, request.out, request.format)
    print(f"{request.out} ({request.out.stat().st_size / 1e6:.1f} MB)")
    if request.format == "onnx" and has_runtime():
        side = max(256, whole_detector(predictor).least)
        image = torch.rand(1, predictor.model.config.channels, side, side)
        speed = compare_speed(predictor, request.out, image)
        ratio, word = speed.onnx / speed.torch, "slower" if speed.onnx > speed.torch else "faster"
        print(
            f"An image of {side} x {side} pixels takes {1000 * speed.onnx:.0f} ms by ONNX Runtime and "
            f"{1000 * speed.torch:.0f} ms by PyTorch, with {torch.get_num_threads()} threads: ONNX Runtime is {word} "
            f"by {max(ratio, 1 / ratio):.1f}."
        )
    return 0
