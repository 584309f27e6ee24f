"""Using a trained model: on one image (``Predictor``) or on folders of them (``predict_folder``)."""

from mistnn.data.images import ImageFile, UnreadableImage, find_images, open_image, to_tensor
from mistnn.inference.folder import PredictSummary, Skipped, predict_folder
from mistnn.inference.predictor import Predictor
from mistnn.inference.tiles import Detector, tiled_score_map

__all__ = [
    "Detector",
    "ImageFile",
    "PredictSummary",
    "Predictor",
    "Skipped",
    "UnreadableImage",
    "find_images",
    "open_image",
    "predict_folder",
    "tiled_score_map",
    "to_tensor",
]
