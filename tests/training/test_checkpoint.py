"""Checkpoints: what is rejected, and that nothing is loaded partially."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.records import Batch
from mistnn.training import checkpoint
from mistnn.training.checkpoint import (
    FORMAT,
    Progress,
    first_difference,
    load_checkpoint,
    model_tensors,
    read_checkpoint,
    save_checkpoint,
)
from tests.training.toy import ToyStep, train

CONFIG = {"model": {"width": 3}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    train(tmp_path / "run", steps=3)
    return tmp_path / "run" / "checkpoint" / "state.safetensors"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    step = trained_step()
    save_checkpoint(tmp_path / "c" / "state.safetensors", step, Progress(2, 1.5), CONFIG)
    return tmp_path / "c" / "state.safetensors"


def trained_step(width: int = 3) -> ToyStep:
    step = ToyStep(width)
    for iteration in range(2):
        step(Batch(torch.rand(4, 1, 2, 2), torch.ones(4, 2, dtype=torch.int64)), iteration)
    return step


def everything(step: ToyStep) -> dict[str, Tensor]:
    """Everything that a checkpoint must restore."""
    tensors = {name: tensor.detach().clone() for name, tensor in model_tensors(step.model).items()}
    for name, optimizer in step.optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{key}": value.clone() for key, value in state.items()}
    return tensors | {"rng": torch.get_rng_state()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if a[name].dtype != b[name].dtype or not torch.equal(a[name], b[name])]
    assert different == []


def test_round_trip_restores_everything(tmp_path: Path) -> None:
    step = trained_step()
    expected = everything(step)
    save_checkpoint(tmp_path / "s", step, Progress(2, 1.5, 300.0), CONFIG)
    fresh = ToyStep()
    torch.rand(3)
    assert load_checkpoint(tmp_path / "s", fresh, CONFIG) == Progress(2, 1.5, 300.0)
    assert_same(everything(fresh), expected)
    assert fresh.optimizers["first"].param_groups[0]["betas"] == (0.9, 0.999)
    assert [group["lr"] for group in fresh.optimizers["second"].param_groups] == [0.01, 0.05]


def test_optimizer_state_keeps_the_memory_order_of_the_parameters(tmp_path: Path) -> None:
    class Convolution(ToyStep):
        def __init__(self) -> None:
            self.model = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)  # type: ignore[assignment]
            self.optimizers = {"all": torch.optim.Adam(self.model.parameters())}

    step = Convolution()
    step.model(torch.rand(1, 2, 4, 4)).sum().backward()
    step.optimizers["all"].step()
    save_checkpoint(tmp_path / "s", step, Progress(), CONFIG)
    fresh = Convolution()
    load_checkpoint(tmp_path / "s", fresh, CONFIG)
    average = fresh.optimizers["all"].state[fresh.model.weight]["exp_avg"]
    assert average.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(average, step.optimizers["all"].state[step.model.weight]["exp_avg"])


def rewrite(path: Path, change: Callable[[dict[str, Tensor], dict[str, str]], None]) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    change(tensors, metadata)
    save_file(tensors, path, metadata)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_cut_file_is_refused(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    refuses(saved, ToyStep(), "cut or damaged")


def test_a_flipped_bit_is_refused(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    data[-3] ^= 4
    saved.write_bytes(bytes(data))
    refuses(saved, ToyStep(), "digest")


def test_another_iteration_written_into_the_header_is_refused(saved: Path) -> None:
    def change(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        metadata["header"] = metadata["header"].replace('"iteration": 2', '"iteration": 3')

    rewrite(saved, change)
    refuses(saved, ToyStep(), "digest")


@pytest.mark.parametrize(
    ("version", "words"), [(FORMAT + 1, "newer mistnn: upgrade"), (1, "resume the run with mistnn 0.1.0")]
)
def test_another_format_is_refused(saved: Path, version: int, words: str) -> None:
    rewrite(saved, lambda tensors, metadata: metadata.update(format=str(version)))
    refuses(saved, ToyStep(), f"format {version}, this mistnn reads {FORMAT}; .*{words}")


def test_a_file_of_something_else_is_refused(saved: Path) -> None:
    save_file({"weight": torch.zeros(2)}, saved)
    refuses(saved, ToyStep(), "no mistnn checkpoint")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    refuses(tmp_path / "nothing.safetensors", ToyStep(), "no checkpoint here")


def forge(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the header and recomputes the digest, as anyone can."""

    def rewritten(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        header = json.loads(metadata["header"])
        changed = change(header)
        metadata["header"] = changed if isinstance(changed, str) else json.dumps(header)
        metadata["digest"] = checkpoint._digest(metadata["header"], tensors)

    rewrite(path, rewritten)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda header: '{"iteration": 2', "header is not one that mistnn writes"),
        (lambda header: "[" * 100_000, "header is not one"),
        (lambda header: "[1]", "header is not one"),
        (lambda header: "null", "header is not one"),
        (lambda header: header.pop("iteration"), "missing key 'iteration'"),
        (lambda header: header.pop("optimizers"), "missing key 'optimizers'"),
        (lambda header: header.pop("peak_memory_mib") and None, "missing key 'peak_memory_mib'"),
        (lambda header: header.update(extra=1), "unknown key 'extra'"),
        (lambda header: header.update(iteration="2"), "'2' is not a whole number at iteration"),
        (lambda header: header.update(iteration=-2), "iteration -2"),
        (lambda header: header.update(seconds=float("nan")), "nan seconds"),
        (lambda header: header.update(config=None), "header is not one"),
        (lambda header: header.update(optimizers=[]), "header is not one"),
        (lambda header: header["optimizers"].update(first=None), "header is not one"),
        (lambda header: header["optimizers"]["first"].pop("numbers"), "missing key 'numbers'"),
        (lambda header: header["optimizers"]["first"].update(groups=["x"]), "header is not one|differs"),
        (lambda header: header["optimizers"]["first"].update(numbers={"first.weight": 3}), "header is not one"),
        (lambda header: header["optimizers"]["second"]["options"].pop(), "1 options for 2 groups of 'second'"),
        (lambda header: header["optimizers"]["first"]["options"][0].update(lr="fast"), "'first' can't take lr='fast'"),
        (lambda header: header["optimizers"]["first"]["options"][0].update(betas=[0.9]), "can't take betas"),
        (lambda header: header["optimizers"]["first"]["options"][0].update(params=[7]), "can't take params"),
        (
            lambda header: header["optimizers"]["first"].update(numbers={"first.weight": {"step": "x"}}),
            "can't take step='x'",
        ),
    ],
)
def test_a_forged_header_is_refused(change: Callable[[dict[str, Any]], object], words: str, saved: Path) -> None:
    load_checkpoint(saved, ToyStep(), CONFIG)
    forge(saved, change)
    refuses(saved, ToyStep(), words)


def test_a_random_state_that_torch_cannot_take_is_refused(saved: Path) -> None:
    def change(state: Tensor | None) -> None:
        def rewritten(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
            tensors.pop("rng/cpu")
            if state is not None:
                tensors["rng/cpu"] = state
            metadata["digest"] = checkpoint._digest(metadata["header"], tensors)

        rewrite(saved, rewritten)

    good = torch.get_rng_state()
    for state in (good[:-8].clone(), good.float(), torch.full_like(good, 255)):
        change(state)
        refuses(saved, ToyStep(), "random state")


def test_a_format_of_thousands_of_digits_is_refused(saved: Path) -> None:
    rewrite(saved, lambda tensors, metadata: metadata.update(format="9" * 5000))
    refuses(saved, ToyStep(), "newer mistnn")


def test_another_shape_is_refused(saved: Path) -> None:
    refuses(saved, ToyStep(width=5), r"first\.weight is \(3, 4\) float32 there and \(5, 4\) float32 here")


def test_another_name_is_refused(saved: Path) -> None:
    step = ToyStep()
    step.model.third = nn.Linear(1, 1)
    refuses(saved, step, r"third\.bias is missing in it")


def test_other_optimizers_are_refused(saved: Path) -> None:
    step = ToyStep()
    step.optimizers["extra"] = torch.optim.SGD([step.model.first.weight])
    refuses(saved, step, "holds the optimizers")
    step = ToyStep()
    step.optimizers["second"] = torch.optim.Adam(step.model.second.parameters())
    refuses(saved, step, "optimizer 'second' differs: class was 'SGD' and is now 'Adam'")


def test_another_configuration_is_refused_but_for_free_fields(saved: Path) -> None:
    step = ToyStep()
    with pytest.raises(MistError, match=r"model\.width was 3 and is now 4"):
        load_checkpoint(saved, step, {"model": {"width": 4}})
    load_checkpoint(saved, step, {"model": {"width": 4}}, free=("*model.width",))


def refuses(path: Path, step: ToyStep, words: str) -> None:
    """One line that names the file, and neither the step nor the generator changes."""
    before = everything(step)
    with pytest.raises(MistError, match=words) as error:
        load_checkpoint(path, step, CONFIG)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert_same(everything(step), before)


def test_first_difference() -> None:
    assert first_difference({"a": (1, 2)}, {"a": [1, 2]}) is None
    assert first_difference({"a": {"b": 1}}, {"a": {}}) == "a.b was 1 and is now None"
    assert first_difference({"a": {}}, {"a": {"scales": [1.0]}}) == "a.scales was None and is now [1.0]"
    assert first_difference({"x": {"train": {"steps": 1}}}, {"x": {"train": {"steps": 2}}}, ("*train.steps",)) is None


def test_a_parameter_outside_the_model_is_refused(tmp_path: Path) -> None:
    step = ToyStep()
    step.optimizers["lost"] = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    with pytest.raises(ValueError, match="'lost' holds a parameter that is not in step.model"):
        save_checkpoint(tmp_path / "s", step, Progress(), CONFIG)


def test_the_old_file_stays_where_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MistError, match="cannot be written"):
        save_checkpoint(tmp_path / "file" / "state", ToyStep(), Progress(), CONFIG)


def test_a_run_leaves_one_file(path: Path) -> None:
    assert [entry.name for entry in path.parent.iterdir()] == ["state.safetensors"]
    header, tensors = read_checkpoint(path)
    assert header["iteration"] == 3
    assert "model/seen" in tensors
    assert "optimizer/first/first.weight/exp_avg" in tensors
