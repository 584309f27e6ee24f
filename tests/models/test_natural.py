"""MIST and Xie20 on photographs: their networks, detections and training steps."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mistnn.errors import MistError
from mistnn.models.mist import NaturalStep, NaturalStepConfig
from mistnn.models.rivals import NaturalXie20, RivalStep, RivalStepConfig
from mistnn.nn.backbones import BackboneConfig
from mistnn.nn.feature_patches import PatchReader, Reading, objects_of, to_shorter_edge
from mistnn.ops.sampling import extract_patches
from mistnn.ops.selection import soft_topk
from tests.models.natural import ANCHORS, EDGE, MIST, READER, XIE20, build, photographs

SYSTEMS = {
    "mist": MIST,
    "mist released head": dataclasses.replace(MIST, head="released"),
    "mist anchors": dataclasses.replace(MIST, reader=ANCHORS),
    "xie20": XIE20,
    "xie20 anchors": dataclasses.replace(XIE20, reader=ANCHORS),
    "xie20 two cells": dataclasses.replace(XIE20, cells=2),
}


def step_of(model):
    if isinstance(model, NaturalXie20):
        return RivalStep(model, RivalStepConfig(1e-4, 1e-4))
    return NaturalStep(model, NaturalStepConfig())


@pytest.mark.parametrize("config", SYSTEMS.values(), ids=SYSTEMS)
def test_detections(config):
    model, batch = build(config).eval(), photographs()
    found = model.explain(batch.images, 2).detections
    assert len(found) == 3 and not model.reconstructs
    for one in found:
        assert len(one.boxes) <= 2
        assert ((one.labels >= 0) & (one.labels < 3)).all(), "no detection is background"
        assert (one.scores[:-1] >= one.scores[1:]).all() and ((one.scores >= 0) & (one.scores <= 1)).all()
        sides = torch.tensor(config.reader.anchors)
        assert ((one.boxes[:, 2:] >= sides.min()) & (one.boxes[:, 2:] <= sides.max())).all()


@pytest.mark.parametrize("config", SYSTEMS.values(), ids=SYSTEMS)
def test_an_image_does_not_depend_on_its_mates(config):
    model, images = build(config), photographs().images
    together, alone = model.explain(images, 2).detections[1], model.explain(images[1:2], 2).detections[0]
    torch.testing.assert_close(together.boxes, alone.boxes, atol=1e-2, rtol=0)
    torch.testing.assert_close(together.scores, alone.scores, atol=1e-4, rtol=0)


@pytest.mark.parametrize("config", [MIST, XIE20], ids=["mist", "xie20"])
def test_other_sizes_come_back_in_their_own_pixels(config):
    """The same photograph at twice the size: boxes of the same objects at twice the size."""
    model, images = build(config), photographs(1).images
    large = images.repeat_interleave(2, -1).repeat_interleave(2, -2)
    small = torch.nn.functional.interpolate(large, (EDGE, 80), mode="bilinear", antialias=True)
    here, there = (model.explain(image, 2).detections[0] for image in (small, large))
    assert len(here.boxes) == len(there.boxes)
    torch.testing.assert_close(there.boxes, 2 * here.boxes, atol=1e-2, rtol=0)
    assert model.most(2 * EDGE, 160) == model.most(EDGE, 80) == 20


def test_most_is_what_there_is():
    for config in (MIST, dataclasses.replace(XIE20, cells=2)):
        model = build(config)
        image = torch.rand(1, 3, EDGE + 1, 150)
        seen, _ = to_shorter_edge(image, EDGE)
        features = model.backbone(seen)
        places = model.scores(features) if isinstance(model, NaturalXie20) else model.maps(features).response.flatten(1)
        assert model.most(EDGE + 1, 150) == places.shape[1]


def test_keypoints_are_peaks_moved_by_their_offsets():
    model = build(MIST)
    maps = model.maps(model.backbone(photographs().images))
    assert not maps.offsets.any(), "initial offsets are the centres of the cells"
    maps = maps._replace(offsets=torch.stack((torch.full_like(maps.response, 0.25), maps.response * 0 - 7.0), dim=1))
    found = model.keypoints(maps)
    best = maps.response[0].argmax()
    column, row = best % maps.response.shape[2], best // maps.response.shape[2]
    assert found.points[0, 0].tolist() == [column + 0.75, row], "an offset stays within its cell"
    assert found.responses[0, 0] == maps.response.amax((1, 2))[0]


def test_forward():
    model = build(dataclasses.replace(MIST, reader=ANCHORS))
    output = model(photographs().images, 3)
    assert output.response.shape == (3, 4, 5) and output.offsets.shape == (3, 2, 4, 5)
    assert output.keypoints.shape == (3, 3, 2) and output.probabilities.shape == (3, 3, 4)
    torch.testing.assert_close(output.probabilities.sum(-1), torch.ones(3, 3))
    torch.testing.assert_close(output.boxes[..., :2], model.backbone.to_pixels(output.keypoints))


def test_reader_against_a_loop():
    """For each keypoint and anchor: cut, block, mean, dense; then the softmax over anchors."""
    torch.manual_seed(0)
    reader = PatchReader(6, 3, dataclasses.replace(ANCHORS, width=5)).double()
    features = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    points = torch.rand(2, 3, 2, dtype=torch.float64) * 5
    found = reader(features, points)
    for image in range(2):
        for place in range(3):
            x, y = points[image, place].tolist()
            codes = []
            for width, height in ANCHORS.anchors:
                box = torch.tensor([[[x, y, width / 16, height / 16]]], dtype=torch.float64)
                patch = extract_patches(features[image : image + 1], box, 4)[0]
                codes.append(reader.block(patch).mean((2, 3))[0])
            trust = torch.tensor([reader.confidence(code).item() for code in codes], dtype=torch.float64)
            trust = trust.exp() / trust.exp().sum()
            expected, size = torch.zeros(4, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
            for weight, code, anchor in zip(trust, codes, ANCHORS.anchors, strict=True):
                expected += weight * reader.classes(code).softmax(0)
                size += weight * torch.tensor(anchor, dtype=torch.float64)
            torch.testing.assert_close(found.probabilities[image, place], expected)
            torch.testing.assert_close(found.sizes[image, place], size)


def test_reader_is_differentiable_in_the_points():
    torch.manual_seed(0)
    reader = PatchReader(4, 2, dataclasses.replace(READER, width=3)).double()
    features = torch.randn(1, 4, 6, 6, dtype=torch.float64)
    points = torch.tensor([[[2.3, 3.1], [4.2, 1.7]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda at: reader(features, at).probabilities, (points,))


def test_background_is_dropped():
    probabilities = torch.tensor([[[0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.2, 0.8, 0.0]]])
    reading = Reading(probabilities, torch.full((1, 3, 2), 5.0))
    (found,) = objects_of(torch.arange(6.0).view(1, 3, 2), reading, torch.tensor([[1.0, 0.5, 0.9]]))
    assert found.labels.tolist() == [1, 0]
    assert found.boxes.tolist() == [[4, 5, 5, 5], [2, 3, 5, 5]]
    torch.testing.assert_close(found.scores, torch.tensor([0.72, 0.3]))


@pytest.mark.parametrize("tuned", [False, True], ids=["frozen", "tuned"])
@pytest.mark.parametrize("config", [SYSTEMS["mist anchors"], SYSTEMS["xie20 anchors"]], ids=["mist", "xie20"])
def test_a_step_trains_everything_but_a_frozen_backbone(config, tuned):
    model = build(dataclasses.replace(config, backbone=BackboneConfig(tuned=tuned)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step = step_of(model)
    model.train()
    values = step(photographs(), 0)
    assert all(torch.as_tensor(value).isfinite() for value in values.values())
    still = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    parameters = dict(model.named_parameters())
    frozen = {name for name in parameters if name.startswith("backbone.")} if not tuned else set()
    assert still & set(parameters) == frozen
    assert still >= {name for name in before if "running" in name}, "statistics stay those of the pretraining"
    trained = {id(part) for one in step.optimizers.values() for group in one.param_groups for part in group["params"]}
    assert trained == {id(part) for name, part in parameters.items() if name not in frozen}


@pytest.mark.parametrize("order", ["keypoints-first", "task-first"])
def test_step_order(order):
    step, calls = NaturalStep(build(MIST), NaturalStepConfig(order=order)), []
    lift, train_task, train_heatmap = step.lift, step.train_task, step.train_heatmap

    def lifted(batch, features, anchors):
        calls.append(("lift", anchors, moved := lift(batch, features, anchors)))
        return moved

    def trained(batch, features, keypoints):
        calls.append(("task", keypoints, None))
        return train_task(batch, features, keypoints)

    def taught(maps, keypoints, task_loss):
        calls.append(("heatmap", keypoints, None))
        return train_heatmap(maps, keypoints, task_loss)

    step.lift, step.train_task, step.train_heatmap = lifted, trained, taught
    assert set(step(photographs(), 0)) == {"task", "heatmap", "offset", "moved"}
    first = ["lift", "task"] if order == "keypoints-first" else ["task", "lift"]
    assert [name for name, _, _ in calls] == [*first, "heatmap"]
    seen = {name: (given, made) for name, given, made in calls}
    anchors, moved = seen["lift"]
    assert seen["task"][0] is (moved if order == "keypoints-first" else anchors) and seen["heatmap"][0] is moved


def test_lifting_descends_and_stays_inside():
    model, batch = build(MIST), photographs()
    step = NaturalStep(model, NaturalStepConfig(inner_steps=1, cell_step=1e-2, cell_reach=0))
    features = model.backbone(batch.images)
    features = features / features.abs().mean()  # random features are tiny
    anchors = torch.tensor([[[1.3, 1.2], [3.1, 2.7]]]).expand(3, -1, -1)
    before = step.objective(batch, features, anchors)
    after = step.objective(batch, features, step.lift(batch, features, anchors))
    assert (after <= before).all() and after.sum() < before.sum()
    wild = NaturalStep(model, NaturalStepConfig(inner_steps=3, cell_step=1e9, cell_reach=0))
    moved = wild.lift(batch, features, anchors)
    assert moved.min() >= 0 and (moved <= torch.tensor([5.0, 4.0])).all() and not moved.equal(anchors)
    near = NaturalStep(model, NaturalStepConfig(inner_steps=1, cell_step=1e9, cell_reach=0.5))
    assert (near.lift(batch, features, anchors) - anchors).norm(dim=-1).max() <= 0.5 + 1e-5
    assert all(part.grad is None for part in model.parameters()), "only the keypoints are differentiated"


def test_penalty_pulls_back():
    model, batch = build(MIST), photographs()
    features = model.backbone(batch.images)
    features, anchors = features / features.abs().mean(), torch.full((3, 2, 2), 2.2)
    free, held = (
        NaturalStep(model, NaturalStepConfig(cell_step=1.0, cell_reach=0, penalty=penalty)) for penalty in (0.0, 0.5)
    )
    far, near = (one.lift(batch, features, anchors) - anchors for one in (free, held))
    assert near.norm() < far.norm()


@pytest.mark.parametrize("weighted", [False, True])
def test_offsets_are_learnt_from_the_keypoints(weighted):
    """The head's gradient of one step, written out: l2 to the Gaussians and .1 x Huber at the keypoints' cells.

    As released, the Huber loss is averaged over x and y, and an image's weight exp(-c loss) is for its response alone.
    """
    model, batch = build(MIST), photographs()
    step = NaturalStep(model, NaturalStepConfig(confidence=2.0, weighted_offsets=weighted))
    losses = torch.tensor([0.0, 0.3, 0.9])
    weights = torch.exp(-2.0 * losses)
    maps = model.maps(model.backbone(batch.images))
    keypoints = torch.tensor([[[1.2, 1.9], [3.6, 2.5]]]).expand(3, -1, -1)
    expected = torch.zeros(())
    for image in range(3):
        for row in range(4):
            for column in range(5):
                ideal = sum(
                    torch.exp(torch.tensor(-0.5 * ((int(x) - column) ** 2 + (int(y) - row) ** 2) / (2.0 / 8)))
                    for x, y in keypoints[image].tolist()
                )
                expected = expected + weights[image] * (maps.response[image, row, column] - ideal) ** 2 / 20 / 3
        for x, y in keypoints[image].tolist():
            for channel, offset in ((0, x - int(x) - 0.5), (1, y - int(y) - 0.5)):
                difference = maps.offsets[image, channel, int(y), int(x)] - offset
                share = weights[image] if weighted else 1.0
                expected = expected + share * 0.1 * 0.5 * difference**2 / (2 * 2) / 3
    wanted = torch.autograd.grad(expected, model.head[0].weight, retain_graph=True)[0]
    step.train_heatmap(maps, keypoints, losses)
    torch.testing.assert_close(model.head[0].weight.grad, wanted, rtol=1e-3, atol=1e-6)


def test_equation_12():
    """The mask times the class probabilities of all positions, by loops."""
    model, batch = build(XIE20).double(), photographs()
    batch = batch._replace(images=batch.images.double())
    features = model.backbone(batch.images)
    mask = soft_topk(model.scores(features), 2, epsilon=0.1).mask
    probabilities = model.task_network(features, model.places(features)).probabilities
    found = model.losses(batch)["task"]
    for image, targets in enumerate(((0.5, 0, 0, 0.5), (0, 1, 0, 0), (0.5, 0, 0.5, 0))):
        total = 0.0
        for label, target in enumerate(targets):
            share = sum(mask[image, n] * probabilities[image, n, label] for n in range(20)) / 2
            total += (target - share) ** 2
        torch.testing.assert_close(found[image], total)


@pytest.mark.parametrize("config", [MIST, XIE20], ids=["mist", "xie20"])
def test_counts_are_needed(config):
    with pytest.raises(MistError, match="need class counts"):
        step_of(build(config))(photographs()._replace(counts=None), 0)


@pytest.mark.parametrize("config", [MIST, XIE20], ids=["mist", "xie20"])
@pytest.mark.parametrize(
    ("wrong", "word"),
    [({"class_names": ()}, "class_names"), ({"class_names": ("a", "a")}, "distinct"), ({"k": 0}, "k=0"),
     ({"shorter_edge": 8}, "shorter_edge=8")],
)  # fmt: skip
def test_impossible_networks(config, wrong, word):
    with pytest.raises(MistError, match=word):
        dataclasses.replace(config, **wrong)


def test_other_impossible_values():
    for base, wrong, word in (
        (MIST, {"nms_window": 4}, "must be odd"),
        (XIE20, {"cells": 5}, "from 1 to 4"),
        (XIE20, {"cells": 4, "k": 1}, "model.k=1 must be below 1"),
        (XIE20, {"epsilon": 0.0}, "epsilon"),
        (READER, {"anchors": ()}, "anchors"),
        (READER, {"anchors": ((1.0, 0.0),)}, "anchors"),
        (READER, {"patch_size": 0}, "patch_size=0"),
        (NaturalStepConfig(), {"cell_step": -1.0}, "cell_step"),
        (NaturalStepConfig(), {"penalty": 1.0}, "diverges"),
        (NaturalStepConfig(), {"task_rate": 0.0}, "task_rate"),
    ):
        with pytest.raises(MistError, match=word):
            dataclasses.replace(base, **wrong)


@pytest.mark.plain
def test_unknown_words():
    for base, wrong in (
        (MIST, {"head": "deep"}),
        (NaturalStepConfig(), {"order": "random"}),
        (NaturalStepConfig(), {"gaussian": "box"}),
    ):
        with pytest.raises(MistError, match=r"(head|order|gaussian)='\w+' must be \w+.* or \w+"):
            dataclasses.replace(base, **wrong)


def test_gaussian_of_both_readings():
    paper, released = (
        NaturalStep(
            build(dataclasses.replace(MIST, reader=dataclasses.replace(READER, anchors=((112.0, 112.0),)))), one
        )
        for one in (NaturalStepConfig(), NaturalStepConfig(gaussian="deviation"))
    )
    assert paper.variance == 7 / 8 and released.variance == (7 / 8) ** 2


def test_one_batch_is_learnt():
    """Squares of two colours, counted: the task loss falls well below its initial value."""
    torch.manual_seed(0)
    images = torch.zeros(4, 3, EDGE, EDGE)
    for index, colour in enumerate((0, 1, 0, 1)):
        images[index, colour, 16:48, 16:48] = 1
    counts = torch.tensor([[2, 0, 0], [0, 2, 0], [2, 0, 0], [0, 2, 0]])
    batch = photographs(4)._replace(images=images, counts=counts)
    step = NaturalStep(build(MIST), NaturalStepConfig(task_rate=3e-3, heatmap_rate=1e-3))
    values = [float(step(batch, turn)["task"]) for turn in range(15)]
    assert values[-1] < 0.3 * values[0], values
