"""mistnn: find, count and read the objects of an image without boxes.

The public interface, each name loaded when it is first used::

    import mistnn

    predictor = mistnn.from_pretrained("mist-mnist-hard")

Importing the package loads nothing else, PyTorch included.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from mistnn.errors import MistError
    from mistnn.inference import Predictor
    from mistnn.records import Detections, Sample

__version__ = "0.1.0"

__all__ = ["Detections", "MistError", "Predictor", "Sample", "__version__", "from_pretrained"]

_HOME = {
    "Detections": "mistnn.records",
    "MistError": "mistnn.errors",
    "Predictor": "mistnn.inference",
    "Sample": "mistnn.records",
}


def from_pretrained(name_or_folder: str | Path) -> Predictor:
    """Loads a trained detector, ready to predict.

    Args:
        name_or_folder: the name of weights shipped with the package, or a run folder.

    Returns:
        The predictor, on the CPU and in eval mode.

    Raises:
        MistError: if there is no such model, or its files are damaged or of a format this version doesn't know.
    """
    from mistnn.inference import Predictor

    return Predictor.from_pretrained(name_or_folder)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'mistnn' has no attribute {name!r}; it offers {', '.join(__all__)}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
