from __future__ import annotations

import dataclasses
import math
from typing import Literal

import pytest
import torch

from mistnn.errors import MistError
from mistnn.models.rivals import Zha18, Zha18Config, Zha18Step, Zha18StepConfig
from mistnn.models.rivals.step import Warp, phase, random_warp
from mistnn.ops.landmarks import Landmarks, concentration, landmarks_of, separation
from mistnn.ops.splines import control_grid
from mistnn.records import Batch

NARROW = (8, 16)
SMALL = Zha18Config(3, 1, NARROW, NARROW, NARROW, features=8, descriptor=4, heat_levels=2, box_size=8.0)


def scenes(batch: int = 4, side: int = 20) -> Batch:
    """Two blobs an image at places of its own."""
    random = torch.Generator().manual_seed(0)
    centres = torch.rand(batch, 2, 2, generator=random) * (side - 8) + 4
    x = torch.arange(side) + 0.5
    squared = (x - centres[..., :1]).square()[..., None, :] + (x - centres[..., 1:]).square()[..., :, None]
    return Batch(torch.exp(-squared / 8).sum(1, keepdim=True).clamp(max=1), None, None, None)


def test_a_landmark_is_the_mean_place_of_its_channel() -> None:
    scores = torch.full((1, 3, 10, 20), 0.0)
    scores[0, 2] = 60.0  # the background, but where the landmarks are
    scores[0, 0, 3, 5] = scores[0, 1, 2, 4] = scores[0, 1, 6, 14] = 120.0
    found = landmarks_of(scores)
    torch.testing.assert_close(found.maps.sum(1), torch.ones(1, 10, 20))
    torch.testing.assert_close(found.places, torch.tensor([[[5.5 / 20, 3.5 / 10], [9.5 / 20, 4.5 / 10]]]))
    torch.testing.assert_close(found.variances[0, 0], torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.variances[0, 1], torch.tensor([(5 / 20) ** 2, (2 / 10) ** 2]))


def test_constraints_by_hand() -> None:
    variances = torch.tensor([[[0.01, 0.03], [0.04, 0.04]]])
    first, second = ((0.1 + 0.03**0.5) / 2) ** 2, 0.04
    assert concentration(variances).item() == pytest.approx(2 * math.pi * math.e * (first + second))
    places = torch.tensor([[[0.2, 0.2], [0.2, 0.3], [0.9, 0.9]]])
    assert separation(places, 0.1).item() == pytest.approx(2 * math.exp(-0.5), abs=1e-4), "each pair counts twice"


def test_a_warp_moves_pixels_and_places_alike() -> None:
    """What the warped image shows at p was at g(p): a bright pixel's place tells."""
    control = control_grid(3, 3)
    linear = torch.tensor([[[0.0, -1.25], [1.25, 0.0]]])
    warp = Warp(linear, torch.tensor([[0.05, -0.02]]), control[None], control)
    image = torch.zeros(1, 1, 64, 64)
    image[..., 20:24, 30:34] = 1
    warped = warp.image(image)[0, 0]
    x = (torch.arange(64) + 0.5) / 64
    centre = torch.stack(((warped.sum(0) * x).sum(), (warped.sum(1) * x).sum())) / warped.sum()
    torch.testing.assert_close(warp(centre[None, None])[0, 0], torch.tensor([32 / 64, 22 / 64]), atol=5e-3, rtol=0)


def test_the_linear_part_comes_first() -> None:
    """Shifted by half the side, a place meets the control points of the other half."""
    control = control_grid(2, 2)
    targets = control.clone()[None]
    targets[0, 1] += torch.tensor([0.0, 0.4])  # the corner on the upper right
    warp = Warp(torch.eye(2)[None], torch.tensor([[1.0, 0.0]]), targets, control)
    torch.testing.assert_close(warp(torch.zeros(1, 1, 2)), torch.tensor([[[1.0, 0.4]]]), atol=1e-5, rtol=0)


def test_warps_have_the_stated_sizes() -> None:
    torch.manual_seed(0)
    warp = random_warp(Zha18StepConfig(), 4000, torch.zeros(1))
    zoom = torch.linalg.det(warp.linear).sqrt().log()
    angle = torch.rad2deg(torch.atan2(warp.linear[:, 1, 0], warp.linear[:, 0, 0]))
    assert zoom.std().item() == pytest.approx(math.log(1.25), rel=0.05) and abs(zoom.mean()) < 0.02
    assert angle.std().item() == pytest.approx(10, rel=0.05) and abs(angle.mean()) < 1
    assert 0.149 < warp.shift.abs().max() <= 0.15
    assert (warp.targets - warp.control).std().item() == pytest.approx(0.05, rel=0.02)
    assert warp.control[0].tolist() == pytest.approx([1 / 14, 1 / 14])


def test_equivariance_follows_the_warp() -> None:
    """A landmark network that sees the brightest place is equivariant: only then is the loss near 0."""

    class Brightest(Zha18):
        def landmarks(self, images: torch.Tensor) -> Landmarks:
            return landmarks_of(torch.cat((40 * images - 20, torch.zeros_like(images)), dim=1))

    torch.manual_seed(0)
    config = dataclasses.replace(SMALL, k=1)
    x = torch.arange(64) + 0.5
    blob = torch.exp(-((x - 24).square()[:, None] + (x - 38).square()) / 8).expand(8, 1, 64, 64)
    batch = Batch(blob.contiguous(), None, None, None)
    loss = Zha18Step(Brightest(config), Zha18StepConfig(decay_steps=90))(batch, 0)["equivariance"]
    assert loss < 3e-3
    backwards = random_warp(Zha18StepConfig(), 8, blob)
    found = Brightest(config).landmarks(blob).places
    wrong = backwards(found) - Brightest(config).landmarks(backwards.image(blob)).places
    assert wrong.square().sum((1, 2)).mean() > 0.02, "the other direction is far off"


@pytest.mark.parametrize(("scale", "share"), [("official", 0.0924), ("density", 0.9107)])
def test_a_landmarks_share_of_its_own_centre(scale: Literal["official", "density"], share: float) -> None:
    """By hand: at 80 x 80 px the official code has exp(0) / (2 pi / 8^4) / 6400^2 beside 1 / 6400."""
    drawn: list[torch.Tensor] = []

    class Draws(Zha18):
        def _draw(self, places: torch.Tensor, colours: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
            self.drawing_network.register_forward_pre_hook(lambda _, given: drawn.append(given[0]))
            return super()._draw(places, colours, images)

    torch.manual_seed(0)
    model = Draws(dataclasses.replace(SMALL, k=1, heat_scale=scale)).eval()
    place = torch.tensor([[[40.5 / 80, 20.5 / 80]]])
    with torch.no_grad():
        model._draw(place, torch.zeros(1, 2, 4), torch.zeros(1, 1, 80, 80))
    assert float(drawn[0][0, 0, 20, 40]) == pytest.approx(share, abs=2e-4)
    landmark, background = 1 / (2 * math.pi / 8**4) / 6400**2, 1 / 6400
    assert landmark / (landmark + background) == pytest.approx(0.0924, abs=1e-4)


def test_half_the_squared_error() -> None:
    torch.manual_seed(0)
    step, batch = Zha18Step(Zha18(SMALL), Zha18StepConfig(decay_steps=90, rate=1e-9)), scenes()
    logged = step(batch, 0)["reconstruction"]
    rebuilt = step.model(batch.images)[1].detach()
    assert float(logged) == pytest.approx(float((rebuilt - batch.images).square().sum((1, 2, 3)).mean() / 2), rel=1e-3)


def test_phases() -> None:
    assert [phase(at, 300) for at in (0, 99, 100, 199, 200, 299, 5000)] == [0, 0, 1, 1, 2, 2, 2]


def test_learns_to_redraw_and_every_weight_learns() -> None:
    torch.manual_seed(0)
    step, batch = Zha18Step(Zha18(SMALL), Zha18StepConfig(decay_steps=90)), scenes()
    first = step(batch, 0)
    for name, part in step.model.named_parameters():
        assert part.grad is not None and part.grad.isfinite().all() and part.grad.any(), name
    for iteration in range(1, 90):
        last = step(batch, iteration)
    assert last["reconstruction"] < 0.6 * first["reconstruction"]
    assert set(last) == {"task", "reconstruction", "concentration", "separation", "equivariance"}
    rate = step.optimizers["all"].param_groups[0]["lr"]
    assert rate == pytest.approx(1e-5), "a hundredth in the last third"


def test_constraints_alone_concentrate_and_spread_the_landmarks() -> None:
    torch.manual_seed(0)
    config = Zha18StepConfig(decay_steps=10_000, reconstruction=0.0, equivariance=0.0, rate=3e-3)
    step, batch = Zha18Step(Zha18(SMALL), config), scenes()
    first = step(batch, 0)
    for iteration in range(60):
        last = step(batch, iteration)
    assert last["concentration"] < 0.7 * first["concentration"]
    assert last["separation"] < 0.7 * first["separation"]


def test_explanation() -> None:
    torch.manual_seed(0)
    model, batch = Zha18(SMALL).eval(), scenes(side=18)
    found = model.explain(batch.images, 2)
    assert found.reconstruction is not None and found.reconstruction.shape == batch.images.shape
    places = model.landmarks(batch.images).places[0] * 18
    for box in found.detections[0].boxes:
        assert (places - box[:2]).abs().sum(-1).min() < 1e-4 and box[2:].tolist() == [8.0, 8.0]
    assert all((one.scores.diff() <= 0).all() for one in found.detections)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"k": 0}, "model.k=0"),
        ({"channels": 2}, "model.channels=2"),
        ({"widths": (8,)}, r"model.widths=\(8,\)"),
        ({"heat_width": 0.0}, "model.heat_width=0"),
    ],
)
def test_impossible_networks(change: dict[str, object], word: str) -> None:
    with pytest.raises(MistError, match=word):
        dataclasses.replace(SMALL, **change)


@pytest.mark.parametrize(
    ("change", "word"),
    [({"separation": -1.0}, "step.separation=-1"), ({"zoom": 0.5}, "step.zoom=0.5"), ({"rate": 0.0}, "step.rate=0")],
)
def test_impossible_steps(change: dict[str, object], word: str) -> None:
    with pytest.raises(MistError, match=word):
        dataclasses.replace(Zha18StepConfig(), **change)
