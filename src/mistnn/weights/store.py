"""The model folder: ``config.json`` beside ``model.safetensors``.

``config.json`` holds, and nothing else is allowed in it::

    {"format": 1, "mistnn": "<package version>", "kind": "mist",
     "model": {...},         the fields of the network's configuration class
     "experiment": {...},    whatever the training run wants to remember; never interpreted here
     "digest": "<sha256>",   of the tensors; null as long as the run has saved none
     "training": {...}}      what the training took (``TrainingRecord``); null or left out where that is not known

An unknown format, key or kind is an error, never a guess: an upgrade must not silently change an old model. A field
that a class gained after the folder was written is read as what was done then, see ``mistnn.weights.added``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cattrs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.files import write_through
from mistnn.weights.provenance import TrainingRecord, package_version
from mistnn.weights.shipped import resolve
from mistnn.weights.strict import explain, strict_converter, structure_whole

FORMAT = 1
"""Version of the folder's layout; raised when an old reader would misread a new folder."""

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
PART = ".part"
"""Suffix of a file that is still being written."""


class Kind(NamedTuple):
    """How a stored model of one kind is built again.

    Attributes:
        config: the dataclass that the "model" entry of the configuration is read into.
        build: makes the network from it.
    """

    config: type
    build: Callable[[Any], nn.Module]


@dataclass(frozen=True)
class StoredModel:
    """The content of ``config.json``.

    Attributes:
        format: version of the folder's layout.
        mistnn: version of the package that wrote it.
        kind: key into ``KINDS``.
        model: fields of the network's configuration class.
        experiment: what the training run remembers; opaque here.
        digest: sha256 of the tensors (``tensor_digest``), or ``None`` if the run has saved none yet.
        training: what the training took, or ``None`` where that is not known.
    """

    format: int
    mistnn: str
    kind: str
    model: dict[str, Any]
    experiment: dict[str, Any]
    digest: str | None
    training: TrainingRecord | None = None


def _mist() -> Kind:
    from mistnn.models.mist import Mist, MistConfig

    return Kind(MistConfig, Mist)


def _grid() -> Kind:
    from mistnn.models.rivals import Grid, GridConfig

    return Kind(GridConfig, Grid)


def _channelwise() -> Kind:
    from mistnn.models.rivals import Channelwise, ChannelwiseConfig

    return Kind(ChannelwiseConfig, Channelwise)


def _xie20() -> Kind:
    from mistnn.models.rivals import Xie20, Xie20Config

    return Kind(Xie20Config, Xie20)


def _zha18() -> Kind:
    from mistnn.models.rivals import Zha18, Zha18Config

    return Kind(Zha18Config, Zha18)


def _natural_mist() -> Kind:
    from mistnn.models.mist import NaturalMist, NaturalMistConfig

    return Kind(NaturalMistConfig, NaturalMist)


def _natural_xie20() -> Kind:
    from mistnn.models.rivals import NaturalXie20, NaturalXie20Config

    return Kind(NaturalXie20Config, NaturalXie20)


def _air() -> Kind:
    from mistnn.models.air import Air, AirConfig

    return Kind(AirConfig, Air)


def _conncomp() -> Kind:
    from mistnn.models.conncomp import ConnComp, ConnCompConfig

    return Kind(ConnCompConfig, ConnComp)


def _spair() -> Kind:
    from mistnn.models.spair import Spair, SpairConfig

    return Kind(SpairConfig, Spair)


def _stn() -> Kind:
    from mistnn.models.stn import StnClassifier, StnConfig

    return Kind(StnConfig, StnClassifier)


KINDS: Mapping[str, Callable[[], Kind]] = {
    "mist": _mist,
    "grid": _grid,
    "channelwise": _channelwise,
    "xie20": _xie20,
    "zha18": _zha18,
    "air": _air,
    "conncomp": _conncomp,
    "spair": _spair,
    "natural-mist": _natural_mist,
    "natural-xie20": _natural_xie20,
    "stn": _stn,
}
"""Every kind of model this package can load. Behind a function, so that reading a configuration builds no network."""


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 of a set of named tensors.

    Convention: tensors in the order of their names; of each its name, type and shape, then its bytes. The names are
    part of it because two swapped tensors of one shape would otherwise go unnoticed.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_model(
    folder: Path | str,
    model: nn.Module,
    kind: str,
    model_config: dict[str, Any],
    experiment: dict[str, Any],
    storage: torch.dtype | None = None,
    training: TrainingRecord | None = None,
) -> None:
    """Writes a model folder, so that at every moment either the old or the new model can be read from it.

    A new folder is written aside and renamed. In a folder that exists (a run) both files are written aside, then
    renamed, weights first; ``load_model`` finishes a change that was cut off between the two.

    Args:
        folder: the model folder; other files in it stay.
        model: its ``state_dict`` is stored.
        kind: key into ``KINDS``.
        model_config: fields of the network's configuration class, as JSON takes them.
        experiment: anything JSON takes.
        storage: the type float tensors are stored in, ``torch.bfloat16`` halves the file; ``None`` keeps their own.
        training: what the training took, where that is known.

    Raises:
        MistError: if the folder can't be written to.
        TypeError: if JSON can't hold one of the values.
    """
    tensors = {}
    for name, tensor in model.state_dict().items():
        wanted = storage if storage is not None and tensor.is_floating_point() else tensor.dtype
        # A clone each: safetensors refuses two names on one memory, which tied weights are.
        tensors[name] = tensor.detach().to("cpu", wanted, copy=True).contiguous()
    stored = StoredModel(FORMAT, package_version(), kind, model_config, experiment, tensor_digest(tensors), training)
    config, weights = _config_bytes(stored), save(tensors)
    folder = Path(folder)
    with _writing(folder):
        if folder.exists():
            write_through(folder / (WEIGHTS_FILE + PART), weights)
            write_through(folder / (CONFIG_FILE + PART), config)
            os.replace(folder / (WEIGHTS_FILE + PART), folder / WEIGHTS_FILE)
            os.replace(folder / (CONFIG_FILE + PART), folder / CONFIG_FILE)
            return
        aside = folder.with_name(f".{folder.name}{PART}")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        write_through(aside / WEIGHTS_FILE, weights)
        write_through(aside / CONFIG_FILE, config)
        os.replace(aside, folder)


def read_config(folder: Path | str) -> StoredModel:
    """Reads the ``config.json`` of a model folder, or of a shipped model by its name.

    Raises:
        MistError: no such folder or name; not JSON; a missing or unknown key; another format.
    """
    return _read_stored(_config_paths(resolve(folder))[0])


def load_model(folder_or_name: Path | str, kinds: Mapping[str, Callable[[], Kind]] = KINDS) -> nn.Module:
    """Builds the network of a model folder, or of a shipped model, with its weights, in eval mode on the CPU.

    Weights stored in half precision are cast to the type the network computes in. The global random state is left
    as it was, though building a network draws from it.

    Args:
        folder_or_name: a run folder or one of ``shipped_names()``.
        kinds: what can be built.

    Raises:
        MistError: no such folder or name; a configuration or weights that can't be trusted, and why.
    """
    folder = resolve(folder_or_name)
    stored = _read_stored(_config_paths(folder)[0])
    if stored.kind not in kinds:
        raise MistError(
            f"{folder / CONFIG_FILE} holds a model of kind {stored.kind!r}, which this version can't build "
            f"(it knows {', '.join(sorted(kinds))}): load it with the mistnn version that wrote it ({stored.mistnn})"
        )
    tensors, stored = _read_tensors(folder, stored)
    kind = kinds[stored.kind]()
    try:
        config = structure_whole(stored.model, kind.config)
    except (cattrs.BaseValidationError, ValueError) as error:
        why = explain(error) if isinstance(error, cattrs.BaseValidationError) else str(error)
        raise MistError(
            f"{folder / CONFIG_FILE}: in 'model', {why}; written by mistnn {stored.mistnn}, read by "
            f"{package_version()}: mend the entry or use that version"
        ) from error
    with torch.random.fork_rng(devices=[]):
        try:
            model = kind.build(config)
        except ValueError as error:
            raise MistError(f"{folder / CONFIG_FILE}: 'model' describes no network: {error}") from error
    model.load_state_dict(_fitting(tensors, model.state_dict(), folder))
    return model.eval()


def _config_paths(folder: Path) -> list[Path]:
    """The configuration, and one left aside by a save that was cut off; raises if there is neither."""
    paths = [path for path in (folder / CONFIG_FILE, folder / (CONFIG_FILE + PART)) if path.is_file()]
    if not paths:
        raise MistError(
            f"{folder} is no model folder: it has no {CONFIG_FILE}; give the folder that 'mist train' or "
            "'mist demo' wrote, or the name of a shipped model"
        )
    return paths


def _read_stored(path: Path) -> StoredModel:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise MistError(f"{path} can't be read ({error}): restore it from a copy") from error
    except json.JSONDecodeError as error:
        raise MistError(f"{path} is not valid JSON ({error}): restore it from a copy") from error
    if not isinstance(raw, dict):
        raise MistError(f"{path} holds a JSON {type(raw).__name__}, not an object: restore it from a copy")
    # The format is looked at before any other key: a newer one may have other keys, and that is not their fault.
    found = raw.get("format")
    if isinstance(found, bool) or found != FORMAT:
        what = "has no format" if found is None else f"has format {found!r}"
        writer = raw.get("mistnn", "unknown")
        raise MistError(
            f"{path} {what}, this version ({package_version()}) reads format {FORMAT}: "
            f"use the mistnn version that wrote it ({writer})"
        )
    try:
        return strict_converter().structure(raw, StoredModel)
    except cattrs.BaseValidationError as error:
        raise MistError(f"{path}: {explain(error)}: mend the entry or restore the file from a copy") from error


def _read_tensors(folder: Path, stored: StoredModel) -> tuple[dict[str, Tensor], StoredModel]:
    """The weights and the configuration whose digest they have."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise MistError(
            f"{folder} has no {WEIGHTS_FILE}: the run has saved no weights yet; "
            f"go on with 'mist train --resume {folder}'"
        )
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise MistError(
            f"{path} is cut off or is no safetensors file ({path.stat().st_size} bytes; {error}): "
            "restore it from a copy or train again"
        ) from error
    digest = tensor_digest(tensors)
    if stored.digest == digest:
        return tensors, stored
    for other in _config_paths(folder)[1:]:
        # A save was cut off between its two renames: the configuration that belongs to the new weights lies aside.
        with contextlib.suppress(MistError):
            aside = _read_stored(other)
            if aside.digest == digest:
                return tensors, aside
    raise MistError(
        f"{path} is not the file that {CONFIG_FILE} describes (sha256 {digest[:12]}, expected "
        f"{(stored.digest or 'none')[:12]}): restore both files from one copy or train again"
    )


def _fitting(tensors: dict[str, Tensor], wanted: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """The tensors in the types of the network; raises if names, shapes or types differ."""
    path = folder / WEIGHTS_FILE
    mend = f"{CONFIG_FILE} and the weights don't belong together: restore both from one copy"
    for names, what in ((set(wanted) - set(tensors), "lacks"), (set(tensors) - set(wanted), "has unknown")):
        if names:
            shown = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            raise MistError(f"{path} {what} {len(names)} tensor(s) ({shown}): {mend}")
    fitting = {}
    for name, tensor in tensors.items():
        goal = wanted[name]
        if tensor.shape != goal.shape:
            raise MistError(
                f"{path}: tensor {name} has shape {tuple(tensor.shape)}, the configuration asks for "
                f"{tuple(goal.shape)}: {mend}"
            )
        half = tensor.dtype in (torch.bfloat16, torch.float16) and goal.is_floating_point()
        if tensor.dtype != goal.dtype and not half:
            raise MistError(f"{path}: tensor {name} is {tensor.dtype}, the network has {goal.dtype}: {mend}")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise MistError(f"{path}: tensor {name} holds NaN or infinity: restore the file from a good copy")
        fitting[name] = tensor.to(goal.dtype)
    return fitting


def _config_bytes(stored: StoredModel) -> bytes:
    entries = strict_converter().unstructure(stored)
    return (json.dumps(entries, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MistError(
            f"can't write to {folder} ({error.strerror or error}): give a folder that can be written to"
        ) from error
