"""mistnn: find, count and classify the objects of an image without boxes.

The public interface, each name loaded when it is first used::

    import mistnn

    model = mistnn.fit(images, counts)
    print(model.predict(image).counts)

Importing the package loads nothing else, PyTorch included.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mistnn.api import Model, TrainedNetwork, evaluate, fit, from_pretrained, load, train
    from mistnn.errors import MistError
    from mistnn.inference import Prediction, Predictor
    from mistnn.records import Detections, Sample

__version__ = "0.2.0"

__all__ = [
    "Detections",
    "MistError",
    "Model",
    "Prediction",
    "Predictor",
    "Sample",
    "TrainedNetwork",
    "__version__",
    "evaluate",
    "fit",
    "from_pretrained",
    "load",
    "train",
]

_API = ("Model", "TrainedNetwork", "evaluate", "fit", "from_pretrained", "load", "train")
_HOME = {
    "Detections": "mistnn.records",
    "MistError": "mistnn.errors",
    "Prediction": "mistnn.inference",
    "Predictor": "mistnn.inference",
    "Sample": "mistnn.records",
    **dict.fromkeys(_API, "mistnn.api"),
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'mistnn' has no attribute {name!r}; it offers {', '.join(__all__)}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
