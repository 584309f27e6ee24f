"""The model folder: ``config.json`` beside ``model.safetensors``.

``config.json`` holds these entries and no others::

    {"format": 2, "mistnn": "<package version>",
     "model": {"kind": "mist", ...},   the configuration of the network
     "experiment": {...},              what the training run stores; not interpreted here
     "digest": "<sha256>",             of the tensors (``tensor_digest``); null until the run saves some
     "training": {...}}                what the training took (``TrainingRecord``); null or absent if unknown

An unknown format, key or kind is an error, never a guess: an upgrade must not silently change an old model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cattrs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.files import PART, locked, replace_files, sync_folder, write_through
from mistnn.interfaces import ModelConfig
from mistnn.weights.provenance import TrainingRecord, package_version
from mistnn.weights.shipped import resolve
from mistnn.weights.strict import classes_of, explain, strict_converter, structure_whole

FORMAT = 2
"""Version of the folder's layout; raised when an old reader would misread a new folder."""

READERS = {1: "0.1.0"}
"""Format -> the last version of mistnn that reads it."""

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class StoredModel:
    """The content of ``config.json``, see ``mistnn.weights.store``."""

    format: int
    mistnn: str
    model: dict[str, Any]
    experiment: dict[str, Any]
    digest: str | None
    training: TrainingRecord | None = None

    @property
    def kind(self) -> str:
        """The kind of the model; empty if the entry is missing."""
        return str(self.model.get("kind", ""))


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 of named tensors: sorted by name, of each its name, type and shape, then its bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_model(
    folder: Path | str,
    model: nn.Module,
    config: dict[str, Any],
    experiment: dict[str, Any],
    storage: torch.dtype | None = None,
    training: TrainingRecord | None = None,
) -> None:
    """Writes a model folder; other files in it stay. At every moment the old or the new model can be read from it.

    A new folder is written under another name and then renamed. In an existing folder (a run) both files are written
    under other names and then renamed, weights first. If the process dies between the two, readers find the
    configuration of the new weights under its other name, and the next save renames it.

    Args:
        model: its ``state_dict`` is stored.
        storage: the type in which float tensors are stored; ``torch.bfloat16`` halves the file. ``None`` keeps theirs.

    Raises:
        MistError: if the folder can't be written to.
        TypeError: if JSON can't hold one of the values.
    """
    tensors = {}
    for name, tensor in model.state_dict().items():
        wanted = storage if storage is not None and tensor.is_floating_point() else tensor.dtype
        # Clones, because safetensors refuses two names for the same memory, as tied weights have.
        tensors[name] = tensor.detach().to("cpu", wanted, copy=True).contiguous()
    stored = StoredModel(FORMAT, package_version(), config, experiment, tensor_digest(tensors), training)
    entries = strict_converter().unstructure(stored)
    text = json.dumps(entries, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    files = {WEIGHTS_FILE: save(tensors), CONFIG_FILE: text.encode("utf-8")}
    folder = Path(folder)
    try:
        if folder.exists():
            with locked(folder):
                _complete_save(folder)
                replace_files(folder, files)
            return
        aside = folder.with_name(f".{folder.name}.{os.getpid()}{PART}")
        aside.mkdir(parents=True)
        try:
            for name, content in files.items():
                write_through(aside / name, content)
            os.replace(aside, folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)  # already renamed on success
    except OSError as error:
        raise MistError(
            f"can't write to {folder} ({error.strerror or error}): free space or fix the permissions, or give another "
            "folder"
        ) from error


def read_config(folder: Path | str) -> StoredModel:
    """Reads the ``config.json`` of a model folder, or of a shipped model by its name.

    Raises:
        MistError: no such folder or name; not JSON; a missing or unknown key; another format.
    """
    return _of_the_weights(resolve(folder))


def holds_model(folder: Path | str, model: nn.Module) -> bool:
    """Whether a folder holds a whole model with the weights of this one."""
    try:
        _, stored = _read_tensors(Path(folder), read_config(folder))
    except MistError:
        return False
    return stored.digest == tensor_digest(model.state_dict())


def load_model(folder_or_name: Path | str, known: Mapping[str, type[ModelConfig]] | None = None) -> nn.Module:
    """Builds the network of a model folder, or of a shipped model, with its weights, in eval mode on the CPU.

    Weights stored in half precision are cast to the type in which the network computes. The global random state is
    left unchanged, although building a network draws from it.

    Args:
        known: configuration classes by kind; those of all papers if not given.

    Raises:
        MistError: if there is no such folder or name, or its configuration or weights can't be trusted.
    """
    folder = resolve(folder_or_name)
    stored = _of_the_weights(folder)
    known = classes_of(ModelConfig) if known is None else known
    if stored.kind not in known:
        raise MistError(
            f"{folder / CONFIG_FILE} holds a model of kind {stored.kind!r}, which this version can't build "
            f"(it knows {', '.join(sorted(known))}): load it with the mistnn version that wrote it ({stored.mistnn})"
        )
    tensors, stored = _read_tensors(folder, stored)
    try:
        config = structure_whole(stored.model, known[stored.kind])
    except (cattrs.BaseValidationError, ValueError, MistError) as error:
        raise MistError(
            f"{folder / CONFIG_FILE}: in 'model', {explain(error)}; written by mistnn {stored.mistnn}, read by "
            f"{package_version()}: fix the entry or use that version"
        ) from error
    with torch.random.fork_rng(devices=[]):
        try:
            model = config.build()
        except ValueError as error:
            raise MistError(f"{folder / CONFIG_FILE}: 'model' describes no network: {error}") from error
    model.load_state_dict(_fitting(tensors, model.state_dict(), folder))
    return model.eval()


def _config_paths(folder: Path) -> list[Path]:
    """The configuration, and the one that an interrupted save has not renamed yet; raises if there is neither."""
    paths = [path for path in (folder / CONFIG_FILE, folder / (CONFIG_FILE + PART)) if path.is_file()]
    if not paths:
        raise MistError(
            f"{folder} is not a model folder, since it has no {CONFIG_FILE}: give a folder that 'mist train' or "
            "'mist demo' wrote, or the name of a shipped model"
        )
    return paths


def _of_the_weights(folder: Path) -> StoredModel:
    """The configuration of the weights in a folder; after an interrupted save it still has its other name."""
    path, *others = _config_paths(folder)
    stored = _read_stored(path)
    if not others or not (folder / WEIGHTS_FILE).is_file():
        return stored
    with contextlib.suppress(MistError):  # they are reported by those who read the weights
        return _read_tensors(folder, stored)[1]
    return stored


def _complete_save(folder: Path) -> None:
    """Completes a save that was interrupted between its two renames, so that the next one can't lose its half."""
    part = folder / (CONFIG_FILE + PART)
    if part.is_file() and (folder / CONFIG_FILE).is_file():
        with contextlib.suppress(MistError):  # a damaged model is replaced by the new one
            stored = _read_stored(folder / CONFIG_FILE)
            if _read_tensors(folder, stored)[1].digest != stored.digest:
                os.replace(part, folder / CONFIG_FILE)


def _read_stored(path: Path) -> StoredModel:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = "is not valid JSON" if isinstance(error, json.JSONDecodeError) else "can't be read"
        raise MistError(f"{path} {what} ({error}): restore it from a copy") from error
    if not isinstance(raw, dict):
        raise MistError(f"{path} holds a JSON {type(raw).__name__}, not an object: restore it from a copy")
    # The format is checked before any other key, because another format may have other keys.
    found = raw.get("format")
    if isinstance(found, bool) or found != FORMAT:
        what = "has no format" if found is None else f"has format {found!r}"
        writer = raw.get("mistnn", "unknown")
        reader = READERS.get(found, writer) if isinstance(found, int) else writer
        raise MistError(
            f"{path} {what}, and this version ({package_version()}) reads format {FORMAT}: use mistnn {reader} to read "
            "it, or train the model again"
        )
    try:
        return strict_converter().structure(raw, StoredModel)
    except cattrs.BaseValidationError as error:
        raise MistError(f"{path}: {explain(error)}: fix the entry or restore the file from a copy") from error


def _read_tensors(folder: Path, stored: StoredModel, tries: int = 3) -> tuple[dict[str, Tensor], StoredModel]:
    """The weights and the configuration that has their digest.

    A run may be saving at this moment: if the two don't belong together, both are read again, ``tries`` times in all.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise MistError(
            f"{folder} has no {WEIGHTS_FILE}, because the run has not saved any weights yet: "
            f"continue it with 'mist train --resume {folder}'"
        )
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise MistError(
            f"{path} is truncated or not a safetensors file ({path.stat().st_size} bytes; {error}): "
            "restore it from a copy or train again"
        ) from error
    digest = tensor_digest(tensors)
    if stored.digest == digest:
        return tensors, stored
    for other in _config_paths(folder)[1:]:
        # A save was interrupted between its two renames: the configuration of the new weights has its other name yet.
        with contextlib.suppress(MistError):
            aside = _read_stored(other)
            if aside.digest == digest:
                return tensors, aside
    if tries > 1:
        return _read_tensors(folder, _read_stored(_config_paths(folder)[0]), tries - 1)
    raise MistError(
        f"{path} is not the file that {CONFIG_FILE} describes (sha256 {digest[:12]}, expected "
        f"{(stored.digest or 'none')[:12]}): restore both files from one copy or train again"
    )


def _fitting(tensors: dict[str, Tensor], wanted: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """The tensors in the network's types; raises if names, shapes or types differ."""
    path = folder / WEIGHTS_FILE
    fix = f"{CONFIG_FILE} and the weights don't belong together: restore both from one copy"
    for names, what in ((set(wanted) - set(tensors), "lacks"), (set(tensors) - set(wanted), "has unknown")):
        if names:
            shown = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            raise MistError(f"{path} {what} {len(names)} tensor(s) ({shown}): {fix}")
    fitting = {}
    for name, tensor in tensors.items():
        goal = wanted[name]
        if (found := tuple(tensor.shape)) != (asked := tuple(goal.shape)):
            raise MistError(f"{path}: tensor {name} has shape {found}, the configuration asks for {asked}: {fix}")
        half = tensor.dtype in (torch.bfloat16, torch.float16) and goal.is_floating_point()
        if tensor.dtype != goal.dtype and not half:
            raise MistError(f"{path}: tensor {name} is {tensor.dtype}, the network has {goal.dtype}: {fix}")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise MistError(f"{path}: tensor {name} holds NaN or infinity: restore the file from a good copy")
        fitting[name] = tensor.to(goal.dtype)
    return fitting
