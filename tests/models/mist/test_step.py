from __future__ import annotations

import copy

import pytest
import torch

from mistnn.errors import MistError
from mistnn.interfaces import Step
from mistnn.models.mist import LiftedStep, LiftedStepConfig
from mistnn.models.mist.step import random_mirrors
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.ops.heatmap import ideal_heatmaps
from tests.models.mist.toys import (
    JOINT,
    NETWORKS,
    TOY,
    at_scale,
    double_problem,
    finite_differences,
    lifted,
    noise,
    shapes,
    toy,
    variant,
    weights_of,
)
from tests.reference import heatmap as reference
from tests.reference import losses as loss_reference
from tests.reference import sampling as sampling_reference


class Recording(LiftedStep):
    """Records the arguments of the three lines of Algorithm 1 in the order of their execution."""

    def __init__(self, model, config):
        super().__init__(model, config)
        self.calls = []

    def lift(self, batch, images, anchors):
        keypoints = super().lift(batch, images, anchors)
        self.calls.append(("lift", anchors.clone(), keypoints.clone()))
        return keypoints

    def train_task(self, batch, images, keypoints):
        self.calls.append(("task", keypoints.clone(), None))
        return super().train_task(batch, images, keypoints)

    def train_heatmap(self, heatmap, keypoints, task_loss, presence=None):
        self.calls.append(("heatmap", keypoints.clone(), task_loss.detach().clone()))
        return super().train_heatmap(heatmap, keypoints, task_loss, presence)


def rates_of(step):
    return {name: optimizer.param_groups[0]["lr"] for name, optimizer in step.optimizers.items()}


def gradient_vector(module):
    return torch.cat([part.grad.flatten() for part in module.parameters()])


def test_is_a_step():
    step = lifted(toy())
    assert isinstance(step, Step) and set(step.optimizers) == {"task", "heatmap"}
    inside = {
        id(part) for optimizer in step.optimizers.values() for g in optimizer.param_groups for part in g["params"]
    }
    assert inside == {id(part) for part in step.model.parameters()}


@pytest.mark.parametrize(("heatmap", "encoder"), NETWORKS)
def test_every_parameter_gets_a_gradient(heatmap, encoder):
    model = variant(heatmap, encoder)
    lifted(model)(noise(), 0)
    for name, weights in model.named_parameters():
        assert weights.grad is not None and weights.grad.isfinite().all(), name
        # A constant added to all scores does not change the softmax; the small network's bias has four phases.
        if name != "heatmap_network.score.bias":
            assert weights.grad.any(), name


def test_every_parameter_of_the_joint_objective_gets_a_gradient():
    model = toy(JOINT)
    lifted(model, reconstruction=0.5)(noise(), 0)
    for name, weights in model.named_parameters():
        assert weights.grad is not None and weights.grad.isfinite().all(), name
        assert weights.grad.any() or name == "heatmap_network.score.bias", name


@pytest.mark.parametrize("order", ["keypoints-first", "task-first"])
def test_suppression_and_top_k_are_in_the_loop(order):
    """In every iteration, the keypoints start at E_K of the current heat map."""
    step = Recording(toy(), LiftedStepConfig(order=order, heatmap_rate=0.05, heatmap_warmup=0))
    starts = []
    for iteration in range(4):
        batch = noise(seed=5)
        with torch.no_grad():
            heatmap = step.model.heatmap(batch.images)
        expected = [
            [(column + 0.5, row + 0.5, 1.0) for column, row in reference.top_k_pixels(image, TOY.k, TOY.nms_window)]
            for image in heatmap.tolist()
        ]
        step.calls.clear()
        step(batch, iteration)
        (anchors,) = (call[1] for call in step.calls if call[0] == "lift")
        assert [[tuple(point) for point in image] for image in anchors.tolist()] == expected
        starts.append(anchors)
    assert not torch.equal(starts[0], starts[-1])  # the weights moved, and the keypoints with them


def test_order_of_the_algorithm():
    released = Recording(toy(), LiftedStepConfig())
    released(noise(), 0)
    assert [call[0] for call in released.calls] == ["lift", "task", "heatmap"]
    _, anchors, moved = released.calls[0]
    assert not torch.equal(anchors, moved)
    assert torch.equal(released.calls[1][1], moved) and torch.equal(released.calls[2][1], moved)

    paper = Recording(toy(), LiftedStepConfig(order="task-first"))
    paper(noise(), 0)
    assert [call[0] for call in paper.calls] == ["task", "lift", "heatmap"]
    assert torch.equal(paper.calls[0][1], paper.calls[1][1])  # the task learns at E_K's keypoints
    assert torch.equal(paper.calls[2][1], paper.calls[1][2])  # the heat map learns the optimised ones
    assert not torch.equal(weights_of(paper.model), weights_of(released.model))


@pytest.mark.parametrize("reconstruction", [0.0, 0.5])
def test_single_pass_is_task_first_with_the_task_network_before_its_step(reconstruction):
    """Tau, the keypoints and the losses are those of separate passes at the anchors, in float64."""
    model, batch, anchors = double_problem()
    choices = {"inner_steps": 1, "reconstruction": reconstruction, "keypoint_step": 0.01}
    one = lifted(copy.deepcopy(model), order="single-pass", **choices)
    many = lifted(copy.deepcopy(model), order="task-first", **choices)
    expected = many.lift(batch, batch.images, anchors)  # before tau's step
    losses = many.train_task(batch, batch.images, anchors)
    found, keypoints = one.train_task_and_lift(batch, batch.images, anchors)
    torch.testing.assert_close(keypoints, expected)
    assert not torch.equal(keypoints, anchors)
    torch.testing.assert_close(found, losses)
    torch.testing.assert_close(weights_of(one.model), weights_of(many.model), atol=1e-9, rtol=0)


def test_single_pass_teaches_the_heat_map_the_moved_keypoints():
    step, batch = Recording(toy(), LiftedStepConfig(order="single-pass", inner_steps=1)), noise()
    before = copy.deepcopy(step.model)
    step(batch, 0)
    assert [call[0] for call in step.calls] == ["heatmap"]
    _, keypoints, task_loss = step.calls[0]
    with torch.no_grad():
        anchors = before.keypoints(before.heatmaps(batch.images)).keypoints
        expected = lifted(before).objective(batch, batch.images, anchors)["task"]
    torch.testing.assert_close(task_loss, expected)
    assert not torch.equal(keypoints, anchors)


def test_a_mirrored_step_is_the_plain_one_on_mirrored_images(monkeypatch):
    """With all images mirrored in both axes, the heat-map network sees them so, and learns mirrored keypoints."""
    coins = torch.ones(3, 2, dtype=torch.bool)
    monkeypatch.setattr("mistnn.models.mist.step.random_mirrors", lambda images: coins)
    batch, choices = noise(), {"inner_steps": 0}
    mirrored, plain = Recording(toy(), LiftedStepConfig(mirrored=True, **choices)), lifted(toy(), **choices)
    mirrored(batch, 0)
    with torch.no_grad():
        seen = plain.model.heatmaps(batch.images.flip(-1, -2)).flip(-1, -2)
        (anchors,) = (call[1] for call in mirrored.calls if call[0] == "lift")
    torch.testing.assert_close(anchors, plain.model.keypoints(seen).keypoints)


def test_mirrors_are_drawn_for_each_image_from_the_seed():
    images = torch.zeros(400, 1, 4, 4)
    torch.manual_seed(0)
    first = random_mirrors(images)
    torch.manual_seed(0)
    assert torch.equal(first, random_mirrors(images)) and first.dtype == torch.bool
    assert (first.float().mean(0) - 0.5).abs().max() < 0.1
    assert len(first.unique(dim=0)) == 4


def test_single_pass_has_one_inner_step():
    with pytest.raises(MistError, match="step.inner_steps=2.*must be 1"):
        LiftedStepConfig(order="single-pass")


@pytest.mark.parametrize("reconstruction", [0.0, 0.5])
def test_keypoint_gradient_is_that_of_the_task_loss(reconstruction):
    """One inner step moves each keypoint by the step size times the finite difference of its image's task loss."""
    model, batch, keypoints = double_problem()
    step = lifted(model, inner_steps=1, keypoint_step=0.5, reconstruction=reconstruction)
    moved = (keypoints - step.lift(batch, batch.images, keypoints)) / 0.5
    assert not moved[..., 2].any()  # a single scale stays what it is
    differences = finite_differences(step, batch, keypoints)[..., :2]
    assert differences.abs().min() > 1e-8
    torch.testing.assert_close(moved[..., :2], differences, atol=1e-7, rtol=1e-4)


def test_the_keypoint_step_leaves_the_weights_alone():
    model, batch, keypoints = double_problem()
    before = weights_of(model)
    lifted(model, inner_steps=3, reconstruction=0.5).lift(batch, batch.images, keypoints)
    assert all(part.grad is None for part in model.parameters())
    assert torch.equal(weights_of(model), before)


def test_the_move_does_not_change_with_the_batch():
    model, batch, keypoints = double_problem()
    step = lifted(model, reconstruction=0.5)
    whole = step.lift(batch, batch.images, keypoints)
    assert not torch.equal(whole, keypoints)
    for index in range(3):
        one = slice(index, index + 1)
        alone = batch._replace(images=batch.images[one], counts=batch.counts[one])
        torch.testing.assert_close(step.lift(alone, alone.images, keypoints[one]), whole[one])


def test_lifting_lowers_the_task_loss():
    model, batch, keypoints = double_problem()
    step = lifted(model, inner_steps=20, keypoint_step=0.5)
    lifted_keypoints = step.lift(batch, batch.images, keypoints)
    with torch.no_grad():
        before = step.objective(batch, batch.images, keypoints)["task"]
        after = step.objective(batch, batch.images, lifted_keypoints)["task"]
    assert (after < before).all()


def test_no_inner_step_keeps_the_anchors():
    model, batch, keypoints = double_problem()
    assert torch.equal(lifted(model, inner_steps=0).lift(batch, batch.images, keypoints), keypoints)


def test_penalty_pulls_towards_the_anchors():
    """Equation 6: the first step starts at the anchors, the second has the gradient 2 lambda (x - anchor)."""
    model, batch, anchors = double_problem()
    size, weight = 2.0, 0.01
    free = lifted(model, inner_steps=1, keypoint_step=size)
    first = free.lift(batch, batch.images, anchors)
    expected = free.lift(batch, batch.images, first) - size * 2 * weight * (first - anchors)
    found = lifted(model, inner_steps=2, keypoint_step=size, penalty=weight).lift(batch, batch.images, anchors)
    torch.testing.assert_close(found, expected)
    far = lifted(model, inner_steps=10, keypoint_step=size).lift(batch, batch.images, anchors)
    held = lifted(model, inner_steps=10, keypoint_step=size, penalty=0.1).lift(batch, batch.images, anchors)
    assert (held - anchors).norm() < (far - anchors).norm()


def test_reach_caps_the_move_and_keeps_its_direction():
    model, batch, anchors = double_problem()
    free = lifted(model, inner_steps=1, keypoint_step=0.01).lift(batch, batch.images, anchors) - anchors
    capped = lifted(model, inner_steps=1, keypoint_step=1e6, keypoint_reach=0.5).lift(batch, batch.images, anchors)
    move = capped - anchors
    torch.testing.assert_close(move.norm(dim=-1), torch.full((3, 2), 0.5, dtype=torch.float64))
    torch.testing.assert_close(move / 0.5, free / free.norm(dim=-1, keepdim=True))
    short = lifted(model, inner_steps=1, keypoint_step=0.01, keypoint_reach=5.0).lift(batch, batch.images, anchors)
    torch.testing.assert_close(short - anchors, free)


def test_keypoints_stay_in_the_image():
    model, batch, anchors = double_problem()
    found = lifted(model, keypoint_step=1e6).lift(batch, batch.images, anchors)
    assert found[..., :2].min() >= 0 and found[..., :2].max() <= 20


def test_each_loss_trains_its_own_network():
    step, batch = lifted(toy()), noise()
    heatmap = step.model.heatmaps(batch.images)
    keypoints = step.model.keypoints(heatmap).keypoints
    before = weights_of(step.model.heatmap_network)
    losses = step.train_task(batch, batch.images, keypoints)
    assert all(part.grad is None for part in step.model.heatmap_network.parameters())
    assert torch.equal(weights_of(step.model.heatmap_network), before)

    step.optimizers["task"].zero_grad(set_to_none=True)
    before = weights_of(step.model.task_network)
    step.train_heatmap(heatmap, keypoints, losses["task"])
    assert all(part.grad is None for part in step.model.task_network.parameters())
    assert torch.equal(weights_of(step.model.task_network), before)
    assert all(part.grad is not None for part in step.model.heatmap_network.parameters())


@pytest.mark.parametrize("confidence", [0.0, 0.5, 3.0])
def test_confidence_weights_equation_7(confidence):
    """The heat map's gradient is that of the mean over images of exp(-c task loss) times equation 7."""
    model, batch = toy(), noise()
    keypoints, task_loss = at_scale(torch.rand(3, 2, 2) * 20), torch.tensor([0.0, 0.7, 2.0])
    heatmap = model.heatmaps(batch.images)
    ideal = ideal_heatmaps(keypoints, (1.0,), 20, 20)
    loss = sum(
        torch.exp(torch.tensor(-confidence * task_loss[index].item())) * (ideal[index] - heatmap[index]).square().mean()
        for index in range(3)
    )
    (loss / 3).backward()
    expected = gradient_vector(model.heatmap_network)
    model.zero_grad(set_to_none=True)
    logged = lifted(model, confidence=confidence).train_heatmap(model.heatmaps(batch.images), keypoints, task_loss)
    torch.testing.assert_close(gradient_vector(model.heatmap_network), expected, atol=1e-7, rtol=1e-4)
    plain = [
        loss_reference.heatmap_loss(h, i) for h, i in zip(heatmap[:, 0].tolist(), ideal[:, 0].tolist(), strict=True)
    ]
    assert logged.item() == pytest.approx(sum(plain) / 3, rel=1e-4)


def test_an_unexplained_image_does_not_teach():
    model, batch, keypoints = toy(), noise(2), at_scale(torch.rand(2, 2, 2) * 20)
    step = lifted(model, confidence=1e4)
    step.train_heatmap(model.heatmaps(batch.images), keypoints, torch.tensor([0.0, 1.0]))
    both = gradient_vector(model.heatmap_network)
    again = toy()
    lifted(again, confidence=1e4).train_heatmap(again.heatmaps(batch.images[:1]), keypoints[:1], torch.zeros(1))
    torch.testing.assert_close(both, gradient_vector(again.heatmap_network) / 2, atol=1e-7, rtol=1e-4)


def test_the_weight_is_of_the_loss_after_lifting():
    step = Recording(toy(), LiftedStepConfig())
    batch = noise()
    before = copy.deepcopy(step.model)
    step(batch, 0)
    _, keypoints, task_loss = step.calls[-1]
    with torch.no_grad():
        expected = lifted(before).objective(batch, batch.images, keypoints)["task"]
    torch.testing.assert_close(task_loss, expected)


def test_objective_is_equations_9_and_8():
    model, batch = toy(JOINT), noise()
    keypoints = at_scale(torch.rand(3, 2, 2) * 16 + 2)
    with torch.no_grad():
        terms = lifted(model, reconstruction=0.3).objective(batch, batch.images, keypoints)
        task = model.task_network(model.cut(batch.images, keypoints))
    for index in range(3):
        image, counts = batch.images[index], batch.counts[index].tolist()
        labels = [kind for kind, count in enumerate(counts) for _ in range(count)]
        classified = loss_reference.class_proportion_loss(labels, task.logits[index].softmax(-1).tolist(), 3)
        placed = [
            sampling_reference.place_patches([patch], [(x, y, 7.0 * scale, 7.0 * scale)], 20, 20)
            for patch, (x, y, scale) in zip(task.decoded[index].tolist(), keypoints[index].tolist(), strict=True)
        ]
        rebuilt = loss_reference.reconstruction_loss(image.tolist(), placed) / image.square().sum().item()
        assert terms["classification"][index].item() == pytest.approx(classified, rel=1e-4)
        assert terms["reconstruction"][index].item() == pytest.approx(rebuilt, rel=1e-4)
        assert terms["task"][index].item() == pytest.approx(classified + 0.3 * rebuilt, rel=1e-4)


def test_an_empty_image_has_a_finite_loss():
    step = lifted(toy(JOINT), reconstruction=1.0)
    batch = noise()._replace(images=torch.zeros(3, 1, 20, 20), counts=torch.zeros(3, 3, dtype=torch.int64))
    logged = step(batch, 0)
    assert all(value.isfinite() for value in logged.values())
    assert weights_of(step.model).isfinite().all()


@pytest.mark.parametrize(("batch", "k"), [(1, 1), (1, 2), (2, 1)])
def test_one_image_and_one_keypoint(batch, k):
    step = lifted(toy(JOINT, k=k), reconstruction=0.5)
    before = weights_of(step.model)
    logged = step(noise(batch), 0)
    assert all(value.isfinite() for value in logged.values())
    assert not torch.equal(weights_of(step.model), before)


def test_logged_names_are_the_same_in_each_iteration():
    step = lifted(toy(JOINT), reconstruction=0.5)
    logged = [step(noise(seed=seed), seed) for seed in range(2)]
    assert list(logged[0]) == list(logged[1])
    assert {"task", "classification", "reconstruction", "heatmap", "moved"} <= set(logged[0])
    assert all(value.dim() == 0 and not value.requires_grad for value in logged[0].values())


def test_seeds_reproduce():
    runs = []
    for seed in (0, 0, 1):
        step = lifted(toy(seed=seed))
        for iteration in range(3):
            step(noise(seed=iteration), iteration)
        runs.append(weights_of(step.model))
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_bfloat16():
    step = lifted(toy(), precision="bfloat16")
    before = weights_of(step.model.heatmap_network)
    logged = step(noise(), 0)
    assert all(value.isfinite() and value.dtype == torch.float32 for value in logged.values())
    after = weights_of(step.model.heatmap_network)
    assert after.dtype == torch.float32 and after.isfinite().all() and not torch.equal(before, after)


def test_rates_fall_along_a_cosine():
    step = lifted(toy(), task_rate=1e-3, heatmap_rate=2e-4, decay=0.1, decay_steps=100)
    for iteration, share in ((0, 1.0), (50, 0.55), (100, 0.1), (1000, 0.1)):
        step(noise(1), iteration)
        assert rates_of(step) == {"task": pytest.approx(1e-3 * share), "heatmap": pytest.approx(2e-4 * share)}


def test_the_heatmap_warms_up():
    step = lifted(toy(), task_rate=1e-3, heatmap_rate=2e-4, heatmap_warmup=4)
    for iteration, share in ((0, 0.25), (1, 0.5), (3, 1.0), (9, 1.0)):
        step(noise(1), iteration)
        assert rates_of(step) == {"task": pytest.approx(1e-3), "heatmap": pytest.approx(2e-4 * share)}


def learns(seed):
    """Whether 150 steps on one batch move the keypoints to the shapes and classify them."""
    batch = shapes()
    model = toy(
        JOINT,
        seed=seed,
        heatmap=HeatmapConfig(network="paper", channels=8, blocks=2),
        encoder=EncoderConfig(network="small", width=8, code=16),
        decoder=8,
    )
    rates = {"heatmap_warmup": 30, "task_rate": 3e-3, "heatmap_rate": 1e-3, "decay": 0.02, "decay_steps": 150}
    step = LiftedStep(model, LiftedStepConfig(reconstruction=2.0, **rates))
    first = last = step(batch, 0)
    for iteration in range(1, 150):
        last = step(batch, iteration)
    with torch.no_grad():
        found = step.model.detect(batch.images)
    hits = 0
    for one, boxes, labels in zip(found, batch.boxes, batch.labels, strict=True):
        for box, label in zip(boxes, labels, strict=True):
            near = (one.boxes[:, :2] - box[:2]).abs().amax(1) <= 2
            hits += bool((near & (one.labels == label)).any())
    lower = last["classification"] < 0.5 * first["classification"]
    return bool(lower and last["reconstruction"] < 0.7 * first["reconstruction"] and hits >= 6)  # of 8


def test_the_heatmap_starts_late_and_then_warms_up():
    step, rates = lifted(toy(), heatmap_start=2, heatmap_warmup=2), []
    before = weights_of(step.model.heatmap_network)
    for iteration in range(5):
        logged = step(noise(), iteration)
        assert logged["heatmap"].isfinite(), "measured from the first iteration"
        rates.append(rates_of(step)["heatmap"])
        assert torch.equal(weights_of(step.model.heatmap_network), before) == (iteration < 2)
    assert rates == pytest.approx([0.0, 0.0, 1e-4, 2e-4, 2e-4])


def test_one_batch_is_learnt():
    """From counts only. Such a small network settles on empty background for some seeds: one of three must learn."""
    assert any(learns(seed) for seed in (2, 1, 3))


def test_double_stays_double():
    """The lifted step is exact in the precision of its model."""
    model, batch = toy().double(), noise(dtype=torch.float64)
    assert model.heatmap(batch.images).dtype == torch.float64
    assert all(value.dtype == torch.float64 for value in lifted(model)(batch, 0).values())


def test_mistakes_are_named():
    with pytest.raises(MistError, match=r"step\.reconstruction=0\.5.*model\.decoder"):
        lifted(toy(), reconstruction=0.5)
    with pytest.raises(MistError, match="counts"):
        lifted(toy())(noise()._replace(counts=None), 0)


def test_nothing_to_learn_is_named():
    """Without classes and reconstruction, there is no task loss."""
    with pytest.raises(MistError, match="class_names|reconstruction"):
        lifted(toy(JOINT, class_names=()))


def test_a_decay_without_its_length_is_named():
    with pytest.raises(MistError, match="decay_steps"):
        lifted(toy(), decay=0.05)
