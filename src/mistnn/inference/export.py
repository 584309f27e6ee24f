"""Whole detectors as ONNX or PT2 files, which run without this package: preparation, network, top-K and count.

Convention: input ``image`` is (1, channels, height, width), float32 in [0, 1]; input ``k`` is a whole number, int64,
without dimensions, 0 for as many as the model counts. Outputs are those of ``nn.finder.WholeDetector``. Height, width
and K are variable. The file also holds strings that describe the model, see ``description``.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import io
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mistnn.errors import MistError
from mistnn.files import replace_file
from mistnn.inference.predictor import Predictor
from mistnn.nn.finder import WholeDetector
from mistnn.weights import package_version

Format = Literal["onnx", "pt2"]

EXTRA = "mistnn[export]"
TESTED = "2.15"
"""The version of torch with which exports are tested."""
MOST_SIDE = 1 << 15
"""The largest side of an image, in pixels."""
INPUTS, OUTPUTS = ("image", "k"), ("boxes", "scores", "labels")
DESCRIPTION_FILE = "mistnn.json"
"""The entry of a PT2 file that describes the model."""


class Speed(NamedTuple):
    """Median seconds for one image, by PyTorch and by ONNX Runtime."""

    torch: float
    onnx: float


def export_model(predictor: Predictor, path: Path, format: Format = "onnx") -> None:
    """Writes a detector as one file.

    Args:
        predictor: the model; it is on the CPU.
        path: the file, in an existing folder; it is replaced.
        format: "onnx" for ONNX Runtime and others; "pt2" for ``torch.export.load``.

    Raises:
        MistError: if models of this kind can't be exported, this one can't count yet, a package is missing, or the file
            can't be written.
    """
    if predictor.uncounted is not None:
        raise MistError(predictor.uncounted)
    whole = whole_detector(predictor)
    program = _traced(whole, predictor.model.config.channels)
    about = description(predictor, whole)
    if format == "onnx":
        content = _as_onnx(program, about)
    else:
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={DESCRIPTION_FILE: json.dumps(about, indent=1)})
        content = buffer.getvalue()
    try:
        replace_file(path, content)
    except OSError as error:
        raise MistError(f"--out {path} can't be written ({error.strerror or error}): give another file") from error


def whole_detector(predictor: Predictor) -> WholeDetector:
    """The model as a module of tensors; raises ``MistError`` if models of its kind can't be exported."""
    whole = predictor.model.for_export()
    if whole is None:
        kind = predictor.model.config.kind
        raise MistError(f"models of kind {kind!r} can't be exported: use mist predict, or export another kind")
    return copy.deepcopy(whole).eval().requires_grad_(False).cpu()  # the model itself stays on its device


def description(predictor: Predictor, whole: WholeDetector) -> dict[str, str]:
    """What a file says about its model: names and values, the lists as JSON."""
    model = predictor.model
    return {
        "mistnn": package_version(),
        "kind": str(model.config.kind),
        "class_names": json.dumps(list(model.class_names), ensure_ascii=False),
        "channels": str(model.config.channels),
        "k": str(model.config.k),
        "threshold": repr(model.threshold),
        "intervals": json.dumps(list(model.intervals)),
        "counts": json.dumps(not predictor.finds_k),
        "smallest_side": str(whole.least),
    }


def compare_speed(predictor: Predictor, path: Path, image: Tensor, runs: int = 5) -> Speed:
    """Times a detector and its ONNX file in turn on one image, (1, channels, height, width).

    Both find as many objects as the model reports at most, with as many threads as PyTorch uses. The first run of each
    does not count.
    """
    session = open_session(path)
    k = predictor.model.limit(*image.shape[-2:])
    inputs = {"image": image.numpy(), "k": np.array(k)}
    times: dict[str, list[float]] = {"torch": [], "onnx": []}
    ways: dict[str, Callable[[], Any]] = {
        "torch": lambda: predictor.predict_batch(image, k),
        "onnx": lambda: session.run(None, inputs),
    }
    for _ in range(runs + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    return Speed(*(sorted(one[1:])[runs // 2] for one in times.values()))


def open_session(path: Path) -> Any:
    """ONNX Runtime for a file, on the CPU, with as many threads as PyTorch; ``MistError`` if it is not installed."""
    runtime = _needed("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def has_runtime() -> bool:
    """Whether ONNX Runtime is installed."""
    return importlib.util.find_spec("onnxruntime") is not None


def _traced(whole: WholeDetector, channels: int) -> torch.export.ExportedProgram:
    # Two sides that differ: equal ones could be taken for one variable.
    image, k = torch.rand(1, channels, whole.least + 29, whole.least + 62), torch.tensor(1)
    side = torch.export.Dim.DYNAMIC(min=whole.least, max=MOST_SIDE)
    try:
        with torch.no_grad(), _quiet():
            program = torch.export.export(whole, (image, k), dynamic_shapes=({2: side, 3: side}, None), strict=False)
    except Exception as error:  # a compiler can fail in any way, and the fix is the same
        raise _not_exported(error) from error
    program._example_inputs = None  # they would be stored as a pickle
    for graph in program.graph_module.modules():
        for node in graph.graph.nodes if isinstance(graph, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # paths of this computer
    return program


def _as_onnx(program: torch.export.ExportedProgram, about: dict[str, str]) -> bytes:
    for name in ("onnx", "onnxscript"):
        _needed(name)
    try:
        with _quiet():
            made = torch.onnx.export(
                program, dynamo=True, input_names=INPUTS, output_names=OUTPUTS, optimize=True, verbose=False
            )
    except Exception as error:  # as above
        raise _not_exported(error) from error
    assert made is not None
    proto = made.model_proto
    for graph in (proto.graph, *proto.functions):
        for node in graph.node:
            del node.metadata_props[:]  # paths of this computer
            node.doc_string = ""
    for name, value in about.items():
        proto.metadata_props.add(key=name, value=value)
    proto.producer_name, proto.producer_version = "mistnn", package_version()
    return proto.SerializeToString()


def _not_exported(error: Exception) -> MistError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    why = f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
    return MistError(
        f"torch {torch.__version__} can't export this model ({why}): exports are tested with torch {TESTED}"
    )


def _needed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MistError(f"an ONNX file needs the package {name}: pip install '{EXTRA}'") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress messages and the deprecations of the exporters."""
    usual = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(usual)
