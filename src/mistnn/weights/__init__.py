"""Model folders: a configuration beside safetensors, checked before use; and the models shipped with the package."""

from mistnn.weights.provenance import TrainingRecord, commit, hardware, on_machines, package_version, versions
from mistnn.weights.shipped import resolve, shipped_folder, shipped_names
from mistnn.weights.store import FORMAT, StoredModel, holds_model, load_model, read_config, save_model, tensor_digest
from mistnn.weights.strict import classes_of, explain, strict_converter, structure_whole

__all__ = [
    "FORMAT",
    "StoredModel",
    "TrainingRecord",
    "classes_of",
    "commit",
    "explain",
    "hardware",
    "holds_model",
    "load_model",
    "on_machines",
    "package_version",
    "read_config",
    "resolve",
    "save_model",
    "shipped_folder",
    "shipped_names",
    "strict_converter",
    "structure_whole",
    "tensor_digest",
    "versions",
]
