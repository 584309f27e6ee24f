"""Training: the one loop over the steps of a ``Step``, and checkpoints from which it resumes bit for bit."""

from mistnn.interfaces import Step
from mistnn.training.batches import MapDataset
from mistnn.training.loop import FitResult, TrainConfig, fit
from mistnn.training.runfolder import prepare_run_folder

__all__ = ["FitResult", "MapDataset", "Step", "TrainConfig", "fit", "prepare_run_folder"]
