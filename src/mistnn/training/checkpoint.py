"""Checkpoints that resume to the same weights, bit for bit on CPU.

One file holds everything: ``checkpoint/state.safetensors``. Its tensors are

- ``model/NAME``: every parameter and every buffer, non-persistent ones included;
- ``optimizer/OPTIMIZER/PARAMETER/KEY``: the optimizers' tensors, under the model's name of the parameter;
- ``rng/cpu`` and ``rng/cuda``: the states of torch's global generators.

Its metadata are ``format``, ``digest`` (SHA-256 of the rest) and ``header``: JSON, see ``Header``. Nothing in it can
run code when it is read.

The file is written aside, flushed to the disk and then renamed, so a process that is killed at any moment leaves
either the previous checkpoint or the new one. Reading checks everything before it changes anything.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
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
from mistnn.training.protocol import Step
from mistnn.training.runfolder import write_atomically
from mistnn.weights.added import is_added
from mistnn.weights.strict import explain, strict_converter

FORMAT = 1
"""Version of the layout above; a reader takes its own only."""

Json = dict[str, Any]

MEND = "delete the run's folder and start again, or put back a copy of the file"


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        iteration: iterations done.
        seconds: time they took, over all parts of a run that was resumed.
        peak_memory_mib: most resident memory of any part; 0 where it is not known.
    """

    iteration: int = 0
    seconds: float = 0.0
    peak_memory_mib: float = 0.0


# Plain dictionaries, as JSON has them: "class" can't be the name of a dataclass's field.
OptimizerPart = TypedDict(
    "OptimizerPart",
    {"class": str, "groups": list[list[str]], "options": list[Json], "numbers": dict[str, Json]},
)


class Header(TypedDict):
    """What a checkpoint holds besides tensors: how far the run is (``Progress``), and how it was set up."""

    iteration: int
    seconds: float
    peak_memory_mib: float
    config: Json
    optimizers: dict[str, OptimizerPart]


def save_checkpoint(path: Path, step: Step, progress: Progress, config: Json) -> None:
    """Writes the state of a run; at any moment the file is either the old one or the new one, in full.

    Args:
        path: of the file.
        step: its model and optimizers are kept.
        progress: the iterations done.
        config: what the run was started with, JSON-able; see ``load_checkpoint``.

    Raises:
        MistError: if the file cannot be written.
        ValueError: if an optimizer keeps something other than numbers and tensors for the model's parameters.
    """
    tensors = {f"model/{name}": tensor for name, tensor in model_tensors(step.model).items()}
    optimizers: Json = {}
    for name, optimizer in step.optimizers.items():
        description, state = _describe_optimizer(name, optimizer, step.model)
        optimizers[name] = description
        tensors |= state
    tensors["rng/cpu"] = torch.get_rng_state()
    device = _cuda_device(step.model)
    if device is not None:
        tensors["rng/cuda"] = torch.cuda.get_rng_state(device)
    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    header = json.dumps({**asdict(progress), "config": config, "optimizers": optimizers})
    metadata = {"format": str(FORMAT), "digest": _digest(header, plain), "header": header}
    write_atomically(path, save(plain, metadata))


def load_checkpoint(path: Path, step: Step, config: Json, free: tuple[str, ...] = ()) -> Progress:
    """Puts a run's state back into a step that was built as for the run's start.

    Everything is checked first: on an error the step and the random generators are as they were.

    Args:
        path: of the file.
        step: takes the state.
        config: what this run is started with; must be what the checkpoint's run was started with.
        free: dotted paths in ``config`` that may differ; ``*`` stands for any beginning.

    Returns:
        How far the run was.

    Raises:
        MistError: if the file is missing, damaged or of another format, or if it belongs to another model, other
            optimizers or another configuration.
    """
    header, tensors = read_checkpoint(path)
    difference = first_difference(header["config"], config, free)
    if difference is not None:
        raise MistError(f"{path}: its run had another configuration: {difference}; resume with the same, or start anew")
    states = {name.removeprefix("model/"): tensor for name, tensor in tensors.items() if name.startswith("model/")}
    own = model_tensors(step.model)
    _check_same_tensors(path, states, own)
    loaded = _optimizer_states(path, header["optimizers"], tensors, step)
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
    """Reads and verifies a file: its header and its tensors.

    Raises:
        MistError: if the file is missing, cut, damaged, no checkpoint, or of another format.
    """
    if not path.is_file():
        raise MistError(f"{path}: no checkpoint here; check the run folder, or start without --resume")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            version = metadata.get("format", "")
            if not {"format", "digest", "header"} <= metadata.keys() or not version.isdecimal():
                raise MistError(f"{path}: is a safetensors file but no mistnn checkpoint; give the run's own file")
            if version != str(FORMAT):
                newer = len(version) > 9 or int(version) > FORMAT  # Python reads no number of thousands of digits
                which = "a newer mistnn: upgrade mistnn" if newer else "an older mistnn: use that one"
                raise MistError(f"{path}: has checkpoint format {version[:20]}, this mistnn reads {FORMAT}; {which}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise MistError(f"{path}: is cut or damaged ({' '.join(str(error).split())}); {MEND}") from error
    if _digest(metadata["header"], tensors) != metadata["digest"]:
        raise MistError(f"{path}: is damaged (its digest does not match its content); {MEND}")
    return _read_header(path, metadata["header"]), tensors


def _read_header(path: Path, text: str) -> Header:
    """The header in its form; the digest, which anybody can compute, doesn't vouch for it."""
    try:
        content = json.loads(text)
        if isinstance(content, dict):
            content.setdefault("peak_memory_mib", 0.0)  # checkpoints of 0.1.0 don't have it
        header = strict_converter().structure(content, Header)
        if header["iteration"] < 0 or not math.isfinite(header["seconds"]):
            raise ValueError(f"iteration {header['iteration']} after {header['seconds']} seconds")
        for name, part in header["optimizers"].items():
            if len(part["options"]) != len(part["groups"]):
                raise ValueError(f"{len(part['options'])} options for {len(part['groups'])} groups of {name!r}")
    except (ValueError, RecursionError, cattrs.BaseValidationError) as error:
        why = " ".join((explain(error) if isinstance(error, cattrs.BaseValidationError) else str(error)).split())
        raise MistError(f"{path}: its header is not one that mistnn writes ({why}); {MEND}") from error
    return header


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name; ``state_dict`` leaves out the non-persistent buffers."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def first_difference(old: object, new: object, free: tuple[str, ...] = (), path: str = "") -> str | None:
    """Says where two JSON values differ first, or ``None``. A field that the old one can't have yet is no difference.

    Args:
        old: one value.
        new: the other one.
        free: dotted paths that are not compared, ``*`` standing for any beginning.
        path: of these values in the whole.
    """
    if any(path == name or (name.startswith("*") and path.endswith(name[1:])) for name in free):
        return None
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys(), key=str):
            inner = f"{path}.{key}" if path else str(key)
            if key not in old and is_added(str(key), new[key]):
                continue
            found = first_difference(old.get(key), new.get(key), free, inner)
            if found is not None:
                return found
        return None
    # Through JSON, so that a tuple equals the list it is written as.
    return None if json.dumps(old) == json.dumps(new) else f"{path} was {old!r} and is now {new!r}"


def _cuda_device(model: nn.Module) -> torch.device | None:
    device = next((tensor.device for tensor in model_tensors(model).values()), torch.device("cpu"))
    return device if device.type == "cuda" else None


def _digest(header: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(header.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _group_names(name: str, optimizer: Optimizer, model: nn.Module) -> list[list[str]]:
    """The model's names of an optimizer's parameters, group by group."""
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    groups = optimizer.param_groups
    if any(id(parameter) not in names for group in groups for parameter in group["params"]):
        raise ValueError(f"optimizer {name!r} holds a parameter that is not in step.model: a checkpoint would lose it")
    return [[names[id(parameter)] for parameter in group["params"]] for group in groups]


def _describe_optimizer(name: str, optimizer: Optimizer, model: nn.Module) -> tuple[Json, dict[str, Tensor]]:
    """Splits an optimizer's state into a JSON part and tensors named for the checkpoint."""
    groups = _group_names(name, optimizer, model)
    state = optimizer.state_dict()
    flat = [parameter for group in groups for parameter in group]  # state_dict numbers the parameters in this order
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, int | float | bool | None]] = {}
    for index, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{name}/{flat[index]}/{key}"] = value
            elif value is None or isinstance(value, int | float):
                numbers.setdefault(flat[index], {})[key] = value
            else:
                raise ValueError(
                    f"optimizer {name!r} keeps a {type(value).__name__} as {key}: no checkpoint can hold it"
                )
    options = [{key: value for key, value in group.items() if key != "params"} for group in state["param_groups"]]
    for key, value in ((key, value) for group in options for key, value in group.items()):
        if isinstance(value, Tensor):
            raise ValueError(f"optimizer {name!r} has a tensor as {key}: give a number")
    return {"class": type(optimizer).__name__, "groups": groups, "options": options, "numbers": numbers}, tensors


def _optimizer_states(
    path: Path, descriptions: Mapping[str, OptimizerPart], tensors: Mapping[str, Tensor], step: Step
) -> dict[str, dict[str, Any]]:
    """Checks the saved optimizers against the step's and returns what ``load_state_dict`` takes."""
    if descriptions.keys() != step.optimizers.keys():
        raise MistError(
            f"{path}: holds the optimizers {sorted(descriptions)}, this run has {sorted(step.optimizers)}; "
            "resume with the run's own configuration"
        )
    parameters = dict(step.model.named_parameters())
    loaded: dict[str, dict[str, Any]] = {}
    for name, optimizer in step.optimizers.items():
        saved = descriptions[name]
        own = {"class": type(optimizer).__name__, "groups": _group_names(name, optimizer, step.model)}
        difference = first_difference({key: saved[key] for key in own}, own)
        if difference is not None:
            raise MistError(
                f"{path}: optimizer {name!r} differs: {difference}; resume with the run's own configuration"
            )
        flat = [parameter for group in own["groups"] for parameter in group]
        state: dict[int, dict[str, Any]] = {index: dict(saved["numbers"].get(p, {})) for index, p in enumerate(flat)}
        for index, parameter in enumerate(flat):
            prefix = f"optimizer/{name}/{parameter}/"
            for key, value in tensors.items():
                if key.startswith(prefix):
                    state[index][key.removeprefix(prefix)] = _laid_out_as(parameters[parameter], value)
        current = optimizer.state_dict()["param_groups"]
        numbers = ((values, {}) for values in saved["numbers"].values())
        for options, like in (*zip(saved["options"], current, strict=True), *numbers):
            wrong = next((key for key, value in options.items() if not _usable(value, like.get(key))), None)
            if wrong is not None:
                raise MistError(f"{path}: optimizer {name!r} can't take {wrong}={options[wrong]!r}; {MEND}")
        groups = [_options(group, options) for group, options in zip(current, saved["options"], strict=True)]
        loaded[name] = {"state": {index: values for index, values in state.items() if values}, "param_groups": groups}
    return loaded


def _usable(value: object, own: object) -> bool:
    """Whether an optimizer can take a saved value in the place of its own, ``None`` where it has none."""
    if isinstance(own, tuple):
        return isinstance(value, list) and len(value) == len(own) and all(map(_usable, value, own))
    if isinstance(own, bool) or own is None:  # a switch may be left to torch, which is None
        return value is None or isinstance(value, int | float)
    return isinstance(own, int | float) and isinstance(value, int | float)


def _check_random_state(path: Path, state: Tensor | None) -> None:
    """Refuses what torch's generator can't take, before anything is changed."""
    try:
        if state is None or state.shape != torch.get_rng_state().shape:
            raise ValueError("another length")
        torch.Generator().set_state(state)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MistError(
            f"{path}: its random state is of another torch version; resume with that version of torch"
        ) from error


def _options(current: Json, saved: Json) -> Json:
    """A group's options as saved; JSON made lists of its tuples."""
    restored = {key: tuple(value) if isinstance(current.get(key), tuple) else value for key, value in saved.items()}
    return current | restored


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """A copy of a saved tensor in the memory order of its parameter, as the optimizer would have made it."""
    if value.shape != parameter.shape:
        return value.clone()
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device, requires_grad=False).copy_(value)


def _check_same_tensors(path: Path, saved: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    mend = "resume with the run's own configuration"
    for names, owner in ((own.keys() - saved.keys(), "is missing in it"), (saved.keys() - own.keys(), "is too much")):
        if names:
            raise MistError(f"{path}: is of another model: {sorted(names)[0]} {owner} ({len(names)} such); {mend}")
    for name, tensor in own.items():
        if saved[name].shape != tensor.shape or saved[name].dtype != tensor.dtype:
            there, here = (f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in (saved[name], tensor))
            raise MistError(f"{path}: is of another model: {name} is {there} there and {here} here; {mend}")
