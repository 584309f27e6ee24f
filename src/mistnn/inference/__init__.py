"""Using a trained model: on one image (``Predictor``), or on files and folders (``predict_folder``)."""

from mistnn.data.images import ImageFile, UnreadableImage, find_images, open_image, to_tensor
from mistnn.inference.folder import PredictSummary, Skipped, predict_folder
from mistnn.inference.prediction import Prediction
from mistnn.inference.predictor import Predictor

__all__ = [
    "ImageFile",
    "PredictSummary",
    "Prediction",
    "Predictor",
    "Skipped",
    "UnreadableImage",
    "find_images",
    "open_image",
    "predict_folder",
    "to_tensor",
]
