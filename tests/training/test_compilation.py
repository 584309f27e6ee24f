"""Compiled networks train to the same weights; where compilation fails, training goes on without it."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from mistnn.errors import MistWarning
from mistnn.experiments import build
from mistnn.presets import find_preset
from mistnn.training import TrainConfig, fit
from mistnn.training.batches import batches
from mistnn.training.compilation import compiled_networks
from tests.training.toy import DESCRIBE, ToyModel, Toys, ToyStep

# The shape checks can't be compiled.
pytestmark = pytest.mark.plain
CPU = torch.device("cpu")


def train(out: Path, compile: bool) -> ToyModel:
    step = ToyStep()
    config = TrainConfig(steps=6, batch_size=4, seed=5, device="cpu", threads=1, compile=compile)
    fit(step, Toys(), config, out, describe=DESCRIBE)
    return step.model


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_compiled_training_gives_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also bit for bit: dropout draws as if the step on trial had not been made, and its buffer counts no step more."""
    compiled: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, example: list[Any]) -> Any:
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    plain, ours = train(tmp_path / "plain", False), train(tmp_path / "compiled", True)
    assert len(compiled) == 2, "each layer once"
    assert same_weights(ours, plain)
    assert ours.seen == plain.seen == 6
    assert "forward" not in ours.first.__dict__


@pytest.mark.parametrize(("kind", "mode"), [("cpu", None), ("cuda", "reduce-overhead")])
def test_a_gpu_gets_cuda_graphs(kind: str, mode: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the device of the training: the model is moved there later."""
    modes: list[Any] = []

    def compile(function: Any, mode: Any) -> Any:
        modes.append(mode)
        return function

    monkeypatch.setattr(torch, "compile", compile)
    with compiled_networks(ToyStep(), True, 1, torch.device(kind)):
        assert modes == [mode, mode]


def test_what_can_not_be_compiled_is_trained_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(graph: torch.fx.GraphModule, example: list[Any]) -> Any:
        raise FileNotFoundError("no C++ compiler")

    plain = train(tmp_path / "plain", False)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    with pytest.warns(MistWarning, match=r"can't be compiled.*no C\+\+ compiler"):
        ours = train(tmp_path / "compiled", True)
    assert same_weights(ours, plain)


def test_an_error_of_the_step_itself_is_raised(tmp_path: Path) -> None:
    step = ToyStep()

    def broken(batch: object, iteration: int) -> dict[str, float]:
        raise ValueError("of the step")

    with (
        warnings.catch_warnings(),
        compiled_networks(_With(step, broken), True, 1, CPU) as compiled,
        pytest.raises(ValueError, match="of the step"),
    ):
        warnings.simplefilter("ignore", MistWarning)
        compiled(next(batches(Toys(), start=0, stop=1, batch_size=2, seed=0))[1], 0)


class _With:
    """A step with another function."""

    def __init__(self, step: ToyStep, function: Any) -> None:
        self.model, self.optimizers, self.function = step.model, step.optimizers, function

    def __call__(self, batch: Any, iteration: int) -> Any:
        return self.function(batch, iteration)


@pytest.mark.parametrize("name", ["demo", "demo-paper"])
def test_networks_of_mist_compile(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their graphs and gradients; the products of the compiler itself are made by the slow test."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    losses = [_losses(name, compile) for compile in (False, True)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.slow
def test_networks_of_mist_compile_to_machine_code() -> None:
    assert _losses("demo", True) == pytest.approx(_losses("demo", False), rel=1e-3)


def _losses(name: str, compile: bool) -> list[float]:
    """Of the first step, in which the heat map is not trained yet, and of the last two."""
    experiment = find_preset(name).experiment.with_seed_and_steps(0, 400)
    step = build(experiment)
    step.model.train()
    losses = []
    with warnings.catch_warnings(), compiled_networks(step, compile, 400, CPU) as compiled:
        warnings.simplefilter("error", MistWarning)
        drawn = batches(experiment.data.open("train"), start=0, stop=3, batch_size=4, seed=0)
        for (_, batch), iteration in zip(drawn, (0, 398, 399), strict=True):
            losses.append(float(compiled(batch, iteration)["task"]))
    return losses
