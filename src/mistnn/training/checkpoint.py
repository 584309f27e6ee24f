"""Checkpoints from which a run resumes to the same weights, bit for bit on CPU.

A checkpoint is one file, ``checkpoint/state.safetensors``. Its tensors are

- ``model/NAME``: all parameters and buffers, including non-persistent ones;
- ``optimizer/OPTIMIZER/PARAMETER/KEY``: the optimizers' tensors, under the model's parameter names;
- ``rng/cpu`` and ``rng/cuda``: the states of torch's global generators.

Its metadata are ``format``, ``digest`` (SHA-256 of the rest) and ``header`` (JSON, see ``Header``). Reading it runs no
code.

The file is replaced atomically. Everything is checked on reading before anything is changed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import cattrs
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from mistnn.errors import MistError
from mistnn.interfaces import Step
from mistnn.training.runfolder import write_atomically
from mistnn.weights.strict import explain, strict_converter

FORMAT = 2
"""Version of the layout above; no other version is read. mistnn 0.1.0 wrote and reads format 1."""

Json = dict[str, Any]

FIX = "delete the run folder and start again, or restore the file from a copy"
SAME_CONFIG = "resume with the run's own configuration"


@dataclass(frozen=True)
class Progress:
    """The progress of a run: the number of iterations done, and what they took.

    Attributes:
        seconds: time they took, over all parts of a resumed run.
        peak_memory_mib: largest resident memory of any part; 0 if unknown.
    """

    iteration: int = 0
    seconds: float = 0.0
    peak_memory_mib: float = 0.0


# Plain dictionaries, because "class" can't be the name of a dataclass field.
OptimizerPart = TypedDict(
    "OptimizerPart", {"class": str, "groups": list[list[str]], "options": list[Json], "numbers": dict[str, Json]}
)


class Header(TypedDict):
    """The content of a checkpoint besides tensors: the progress of the run, its configuration and its optimizers."""

    iteration: int
    seconds: float
    peak_memory_mib: float
    config: Json
    optimizers: dict[str, OptimizerPart]


def save_checkpoint(path: Path, step: Step, progress: Progress, config: Json) -> None:
    """Writes the state of a run atomically; ``config`` is its configuration, JSON-able, see ``load_checkpoint``.

    Raises:
        MistError: if the file can't be written.
        ValueError: if an optimizer's state holds anything but numbers and tensors for the model's parameters.
    """
    tensors = {f"model/{name}": tensor for name, tensor in model_tensors(step.model).items()}
    optimizers: Json = {}
    for name, optimizer in step.optimizers.items():
        optimizers[name], state = _describe_optimizer(name, optimizer, step.model)
        tensors |= state
    tensors["rng/cpu"] = torch.get_rng_state()
    if (device := _cuda_device(step.model)) is not None:
        tensors["rng/cuda"] = torch.cuda.get_rng_state(device)
    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    header = json.dumps({**asdict(progress), "config": config, "optimizers": optimizers})
    metadata = {"format": str(FORMAT), "digest": _digest(header, plain), "header": header}
    write_atomically(path, save(plain, metadata))


def load_checkpoint(path: Path, step: Step, config: Json, free: tuple[str, ...] = ()) -> Progress:
    """Restores a run's state into a step that was built as at the start of the run.

    Everything is checked first: after an error the step and the random generators are unchanged.

    Args:
        config: of this run; must equal that of the checkpoint's run.
        free: dotted paths in ``config`` that may differ; ``*`` matches any beginning.

    Raises:
        MistError: if the file is missing, damaged or of another format, or if it belongs to another model, other
            optimizers or another configuration.
    """
    header, tensors = read_checkpoint(path)
    if difference := first_difference(header["config"], config, free):
        raise MistError(f"{path}: its run had another configuration: {difference}; resume with the same, or start anew")
    states = _below("model/", tensors)
    own = model_tensors(step.model)
    _check_same_tensors(path, states, own)
    loaded = dict(_optimizer_states(path, header["optimizers"], tensors, step))
    _check_random_state(path, tensors.get("rng/cpu"))

    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(states[name])
    for name, state in loaded.items():
        step.optimizers[name].load_state_dict(state)
    torch.set_rng_state(tensors["rng/cpu"])
    device = _cuda_device(step.model)
    if device is not None and "rng/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng/cuda"], device)
    return Progress(header["iteration"], header["seconds"], header["peak_memory_mib"])


def read_checkpoint(path: Path) -> tuple[Header, dict[str, Tensor]]:
    """Reads and verifies the header and the tensors of a file; raises if it is no sound checkpoint of this format."""
    if not path.is_file():
        raise MistError(f"{path}: no checkpoint here; check the run folder, or start without --resume")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            _check_format(path, metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise MistError(f"{path}: is cut or damaged ({' '.join(str(error).split())}); {FIX}") from error
    if _digest(metadata["header"], tensors) != metadata["digest"]:
        raise MistError(f"{path}: is damaged (its digest does not match its content); {FIX}")
    return _read_header(path, metadata["header"]), tensors


def _check_format(path: Path, metadata: Mapping[str, str]) -> None:
    version = metadata.get("format", "")
    if not {"format", "digest", "header"} <= metadata.keys() or not version.isdecimal():
        raise MistError(f"{path}: is a safetensors file but no mistnn checkpoint; give the run's own file")
    if version != str(FORMAT):
        newer = len(version) > 9 or int(version) > FORMAT  # Python refuses to convert thousands of digits
        which = "it was written by a newer mistnn: upgrade" if newer else "resume the run with mistnn 0.1.0"
        raise MistError(f"{path}: has checkpoint format {version[:20]}, this mistnn reads {FORMAT}; {which}")


def _read_header(path: Path, text: str) -> Header:
    """Checks the structure of the header: anyone can compute the digest, so it guarantees nothing."""
    try:
        header = strict_converter().structure(json.loads(text), Header)
        if header["iteration"] < 0 or not math.isfinite(header["seconds"]):
            raise ValueError(f"iteration {header['iteration']} after {header['seconds']} seconds")
        for name, part in header["optimizers"].items():
            if len(part["options"]) != len(part["groups"]):
                raise ValueError(f"{len(part['options'])} options for {len(part['groups'])} groups of {name!r}")
    except (ValueError, RecursionError, cattrs.BaseValidationError) as error:
        raise MistError(f"{path}: its header is not one that mistnn writes ({explain(error)}); {FIX}") from error
    return header


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name; ``state_dict`` omits the non-persistent buffers."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def first_difference(old: object, new: object, free: tuple[str, ...] = (), path: str = "") -> str | None:
    """The first difference between two JSON values at ``path``, or ``None``; for ``free`` see ``load_checkpoint``."""
    if any(path == name or (name.startswith("*") and path.endswith(name[1:])) for name in free):
        return None
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys(), key=str)
        inner = (first_difference(old.get(key), new.get(key), free, f"{path}.{key}".removeprefix(".")) for key in keys)
        return next(filter(None, inner), None)
    # Compared as JSON, so that a tuple equals the list it is written as.
    return None if json.dumps(old) == json.dumps(new) else f"{path} was {old!r} and is now {new!r}"


def _cuda_device(model: nn.Module) -> torch.device | None:
    return next((tensor.device for tensor in model_tensors(model).values() if tensor.is_cuda), None)


def _digest(header: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(header.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _group_names(name: str, optimizer: Optimizer, model: nn.Module) -> list[list[str]]:
    """The model's names of an optimizer's parameters, by group."""
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    groups = optimizer.param_groups
    if any(id(parameter) not in names for group in groups for parameter in group["params"]):
        raise ValueError(f"optimizer {name!r} holds a parameter that is not in step.model: a checkpoint would lose it")
    return [[names[id(parameter)] for parameter in group["params"]] for group in groups]


def _describe_optimizer(name: str, optimizer: Optimizer, model: nn.Module) -> tuple[OptimizerPart, dict[str, Tensor]]:
    """Splits an optimizer's state into a JSON part and tensors with their names in the checkpoint."""
    groups = _group_names(name, optimizer, model)
    state = optimizer.state_dict()
    flat = [parameter for group in groups for parameter in group]  # state_dict numbers the parameters in this order
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Json] = {}
    for index, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{name}/{flat[index]}/{key}"] = value
            elif value is None or isinstance(value, int | float):
                numbers.setdefault(flat[index], {})[key] = value
            else:
                kind = type(value).__name__
                raise ValueError(f"optimizer {name!r} keeps a {kind} as {key}: no checkpoint can hold it")
    options = [{key: value for key, value in group.items() if key != "params"} for group in state["param_groups"]]
    if key := next((key for group in options for key, value in group.items() if isinstance(value, Tensor)), None):
        raise ValueError(f"optimizer {name!r} has a tensor as {key}: give a number")
    return {"class": type(optimizer).__name__, "groups": groups, "options": options, "numbers": numbers}, tensors


def _optimizer_states(
    path: Path, descriptions: Mapping[str, OptimizerPart], tensors: Mapping[str, Tensor], step: Step
) -> Iterator[tuple[str, Json]]:
    """Checks the saved optimizers against the step's; yields the name and the new ``state_dict`` of each."""
    if descriptions.keys() != step.optimizers.keys():
        there, here = sorted(descriptions), sorted(step.optimizers)
        raise MistError(f"{path}: holds the optimizers {there}, this run has {here}; {SAME_CONFIG}")
    parameters = dict(step.model.named_parameters())
    for name, optimizer in step.optimizers.items():
        saved = descriptions[name]
        own = {"class": type(optimizer).__name__, "groups": _group_names(name, optimizer, step.model)}
        if difference := first_difference({key: saved[key] for key in own}, own):
            raise MistError(f"{path}: optimizer {name!r} differs: {difference}; {SAME_CONFIG}")
        current = optimizer.state_dict()["param_groups"]
        numbers = ((values, {}) for values in saved["numbers"].values())
        for options, like in (*zip(saved["options"], current, strict=True), *numbers):
            if wrong := next((key for key, value in options.items() if not _usable(value, like.get(key))), None):
                raise MistError(f"{path}: optimizer {name!r} can't take {wrong}={options[wrong]!r}; {FIX}")
        state: dict[int, Json] = {}
        for index, parameter in enumerate(parameter for group in saved["groups"] for parameter in group):
            kept = _below(f"optimizer/{name}/{parameter}/", tensors).items()
            laid_out = {key: _laid_out_as(parameters[parameter], value) for key, value in kept}
            if values := saved["numbers"].get(parameter, {}) | laid_out:
                state[index] = values
        groups = [  # lists become tuples again where JSON had converted them
            own | {key: tuple(value) if isinstance(own.get(key), tuple) else value for key, value in options.items()}
            for own, options in zip(current, saved["options"], strict=True)
        ]
        yield name, {"state": state, "param_groups": groups}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _usable(value: object, own: object) -> bool:
    """Whether an optimizer accepts a saved value in place of its own; ``own`` is ``None`` if it has none."""
    if isinstance(own, tuple):
        return isinstance(value, list) and len(value) == len(own) and all(map(_usable, value, own))
    if isinstance(own, bool) or own is None:  # torch may decide a switch that is None
        return value is None or isinstance(value, int | float)
    return isinstance(own, int | float) and isinstance(value, int | float)


def _check_random_state(path: Path, state: Tensor | None) -> None:
    """Checks that torch's generator accepts a state, before anything is changed."""
    try:
        if state is None or state.shape != torch.get_rng_state().shape:
            raise ValueError("another length")
        torch.Generator().set_state(state)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MistError(f"{path}: its random state is of another torch version; resume with that version") from error


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """A copy of a saved tensor in the memory layout of its parameter, as the optimizer would have created it."""
    if value.shape != parameter.shape:
        return value.clone()
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device, requires_grad=False).copy_(value)


def _check_same_tensors(path: Path, saved: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    for names, what in ((own.keys() - saved.keys(), "is missing in it"), (saved.keys() - own.keys(), "is in excess")):
        if names:
            which = f"{min(names)} {what} ({len(names)} in all)"
            raise MistError(f"{path}: is of another model: {which}; {SAME_CONFIG}")
    for name, tensor in own.items():
        if saved[name].shape != tensor.shape or saved[name].dtype != tensor.dtype:
            there, here = (f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in (saved[name], tensor))
            raise MistError(f"{path}: is of another model: {name} is {there} there and {here} here; {SAME_CONFIG}")
