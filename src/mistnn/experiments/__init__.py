"""Experiments: the floor where model, data, step and measures meet.

``mistnn.experiments.<paper>`` says how a paper's systems are checked, initialised, watched and measured.
"""

from mistnn.experiments.experiment import Experiment, Planned, Preset
from mistnn.experiments.mist import lifted_parts
from mistnn.experiments.run import build, check, describe, evaluate, evaluate_stored, read_log, restore, train
from mistnn.experiments.system import System, system_of
from mistnn.experiments.unknown_k import evaluate_unknown_k

__all__ = [
    "Experiment",
    "Planned",
    "Preset",
    "System",
    "build",
    "check",
    "describe",
    "evaluate",
    "evaluate_stored",
    "evaluate_unknown_k",
    "lifted_parts",
    "read_log",
    "restore",
    "system_of",
    "train",
]
