"""Model folders: configuration beside safetensors, checked before use; and the models shipped in the package."""

from mistnn.weights.provenance import TrainingRecord, commit, hardware, package_version, versions
from mistnn.weights.shipped import resolve, shipped_folder, shipped_names
from mistnn.weights.store import (
    FORMAT,
    KINDS,
    Kind,
    StoredModel,
    load_model,
    read_config,
    save_model,
    tensor_digest,
)
from mistnn.weights.strict import explain, strict_converter

__all__ = [
    "FORMAT",
    "KINDS",
    "Kind",
    "StoredModel",
    "TrainingRecord",
    "commit",
    "explain",
    "hardware",
    "load_model",
    "package_version",
    "read_config",
    "resolve",
    "save_model",
    "shipped_folder",
    "shipped_names",
    "strict_converter",
    "tensor_digest",
    "versions",
]
