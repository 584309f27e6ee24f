"""Early stopping on photographs: the weights that count the validation images best are kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from mistnn.errors import MistError
from mistnn.experiments import Experiment, photo_states, train
from mistnn.experiments.photo_plan import plan_photos
from mistnn.experiments.photo_states import Judge, best_state, heads_of, keep_state, stored_states, validation_error
from mistnn.inference import Predictor
from mistnn.models.photos import PhotoMist, PhotoStep
from mistnn.presets import find_preset
from mistnn.training.runfolder import STATES
from tests.experiments.test_photos import draw


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = draw(tmp_path_factory.mktemp("photos"))
    planned = plan_photos(find_preset("my-photos").experiment.at(str(folder))).experiment
    loop = dataclasses.replace(planned.train, steps=4, save_every=1, evaluate_every=0, threads=1)
    return dataclasses.replace(planned, train=loop, step=planned.step.for_run(4))


def judged(experiment: Experiment) -> tuple[PhotoStep, list[Judge]]:
    """A step, and images of noise with two objects of each class."""
    torch.manual_seed(0)
    model: Any = experiment.model.build()
    features = torch.randn(3, sum(model.pyramid.packed), 4, 5)
    step: Any = experiment.step.build(model)
    return step, [Judge(one, torch.tensor([128, 160]), torch.tensor([2, 2])) for one in features]


def states_of(model: PhotoMist) -> dict[int, dict[str, torch.Tensor]]:
    """Densities that are higher and higher."""
    states = {}
    assert model.density_head.bias is not None
    for place, bias in enumerate((-2.0, 1.0, 4.0, 7.0)):
        with torch.no_grad():
            model.density_head.bias[0] = bias
        states[10 * (place + 1)] = heads_of(model)
    return states


def test_the_state_with_the_smallest_error_is_taken(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    step, judges = judged(experiment)
    states, errors = states_of(step.model), {}
    for steps, state in states.items():
        step.model.eval().load_state_dict(state, strict=False)
        errors[steps] = validation_error(step.model, judges)
    expected = min(errors, key=lambda steps: errors[steps])
    assert len(set(errors.values())) == 4 and expected != 40
    monkeypatch.setattr(photo_states, "LEAST_JUDGES", 3)
    assert best_state(step.model, states, judges) == expected
    assert all(torch.equal(value, states[expected][name]) for name, value in heads_of(step.model).items())
    monkeypatch.setattr(photo_states, "LEAST_JUDGES", 4)  # too few images: the last one stays
    assert best_state(step.model, states, judges) == 40


def test_states_are_stored(experiment: Experiment, tmp_path: Path) -> None:
    step, _ = judged(experiment)
    states = states_of(step.model)
    for steps, state in states.items():
        step.model.load_state_dict(state, strict=False)
        keep_state(step.model, tmp_path, steps)
    found = stored_states(tmp_path)
    assert found.keys() == states.keys() and not any(name.startswith("pyramid.") for name in found[10])
    assert all(torch.equal(value, states[10][name]) for name, value in found[10].items())
    assert stored_states(tmp_path / "elsewhere") == {}
    (tmp_path / STATES / "00000020.safetensors").write_bytes(b"broken")
    with pytest.raises(MistError, match=r"00000020\.safetensors: can't be read"):
        stored_states(tmp_path)


def test_a_run_keeps_its_best_weights(experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it is resumed after its end, when the last weights are saved first and chosen from again."""
    monkeypatch.setattr(photo_states, "LEAST_JUDGES", 3)
    chosen: list[int] = []

    def early(model: PhotoMist, states: Any, judges: list[Judge]) -> int:
        assert len(judges) == 3
        chosen.append(best_state(model, {steps: state for steps, state in states.items() if steps < 4}, judges))
        return chosen[-1]

    monkeypatch.setattr(photo_states, "best_state", early)
    notes: list[str] = []
    train(experiment, tmp_path, on_note=notes.append, progress=False)
    model: Any = Predictor.from_pretrained(tmp_path).model
    states = stored_states(tmp_path)
    assert list(states) == [1, 2, 3, 4] and model.config.chosen_at == chosen[0] < 4
    assert f"the weights after {chosen[0]} of 4 steps" in " ".join(notes)
    heads = {name: value for name, value in heads_of(model).items() if not name.startswith("extent")}
    assert all(torch.equal(value, states[chosen[0]][name]) for name, value in heads.items())
    assert not torch.equal(states[4]["mix.weight"], states[chosen[0]]["mix.weight"])
    written = (tmp_path / "model.safetensors").read_bytes()
    train(experiment, tmp_path, resume=True, progress=False)
    assert (tmp_path / "model.safetensors").read_bytes() == written and chosen[1:] == chosen[:1]
    train(experiment, tmp_path, force=True, progress=False)
    assert list(stored_states(tmp_path)) == [1, 2, 3, 4]


def test_states_of_another_network_are_refused(experiment: Experiment, tmp_path: Path) -> None:
    train(experiment, tmp_path, progress=False)
    model: Any = Predictor.from_pretrained(tmp_path).model
    other = dataclasses.replace(model.config, width=8).build()
    keep_state(other, tmp_path, 2)
    with pytest.raises(MistError, match="the weights of step 2 are of another network"):
        photo_states.choose_state(tmp_path, experiment)
