"""Training: one loop, the protocol of the steps it runs, and checkpoints that resume bit for bit."""

from mistnn.training.config import TrainConfig
from mistnn.training.loop import FitResult, fit
from mistnn.training.protocol import Step
from mistnn.training.runfolder import prepare_run_folder

__all__ = ["FitResult", "Step", "TrainConfig", "fit", "prepare_run_folder"]
