from __future__ import annotations

import dataclasses

import pytest
import torch

from mistnn.errors import MistError
from mistnn.models.mist import Mist, MistConfig, SupervisedStep, SupervisedStepConfig
from mistnn.models.rivals import (
    MODELS,
    STEPS,
    Channelwise,
    ChannelwiseConfig,
    Grid,
    GridConfig,
    NaturalXie20Config,
    RivalStep,
    RivalStepConfig,
    Xie20,
    Xie20Config,
    Zha18Config,
    Zha18StepConfig,
)
from mistnn.models.rivals.xie20 import ProposalNetwork
from mistnn.nn.backbones import BackboneConfig
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.ops import soft_argmax
from mistnn.ops.losses import class_proportion_loss
from mistnn.records import Batch

SMALL = EncoderConfig(network="small", width=8, code=16)
NARROW = HeatmapConfig(channels=4, blocks=1)
RANDOM = dataclasses.replace(NARROW, start="random")
GRID = GridConfig(cells=2, patch_size=8, encoder=SMALL, decoder=4)
CLASSIFYING = ChannelwiseConfig(("a", "b", "c"), k=2, box_size=8.0, patch_size=8, heatmap=RANDOM, encoder=SMALL)
RECONSTRUCTING = dataclasses.replace(CLASSIFYING, class_names=(), decoder=8)
XIE20 = Xie20Config(
    ("a", "b", "c"), k=2, stride=4, box_size=8.0, patch_size=8, heatmap=NARROW, encoder=SMALL, head_channels=8
)
POOLED = dataclasses.replace(XIE20, head="pooled")
FORMS = [(Grid, GRID), (Channelwise, CLASSIFYING), (Channelwise, RECONSTRUCTING), (Xie20, XIE20), (Xie20, POOLED)]
IDS = ["grid", "channelwise classes", "channelwise reconstruction", "xie20", "xie20 pooled"]


def images(batch: int = 3, side: int = 20) -> Batch:
    random = torch.Generator().manual_seed(0)
    counts = torch.tensor([[1, 1, 0], [0, 2, 0], [0, 1, 1]])[:batch]
    boxes = [torch.tensor([[5.0, 6.0, 8.0, 8.0], [14.0, 12.0, 8.0, 8.0]])] * batch
    labels = [torch.arange(3).repeat_interleave(row) for row in counts]
    return Batch(torch.rand(batch, 1, side, side, generator=random), counts, boxes, labels)


def build(kind, config):
    torch.manual_seed(2)  # narrow layers of ReLU can be born dead
    return kind(config)


@pytest.mark.parametrize(("kind", "config"), FORMS, ids=IDS)
def test_explanation(kind, config):
    model, batch = build(kind, config).eval(), images()
    found = model.explain(batch.images, 2)
    assert len(found.detections) == 3 and all(one.boxes.shape == (2, 4) for one in found.detections)
    assert (found.reconstruction is not None) == model.reconstructs
    if found.reconstruction is not None:
        assert found.reconstruction.shape == batch.images.shape
    for index, one in enumerate(found.detections):
        assert (one.labels is not None) == bool(model.class_names)
        assert (one.scores[:-1] >= one.scores[1:]).all() and one.scores.min() >= 0 and one.scores.max() <= 1
        alone = model.explain(batch.images[index : index + 1], 2).detections[0]  # independent of the rest of the batch
        torch.testing.assert_close(alone.boxes, one.boxes, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("kind", "config"), FORMS, ids=IDS)
def test_every_weight_learns_and_the_loss_falls(kind, config):
    step, batch = RivalStep(build(kind, config), RivalStepConfig(rate=3e-3, places_rate=3e-3)), images()
    before = {name: part.detach().clone() for name, part in step.model.named_parameters()}
    first = step(batch, 0)["task"]
    for name, part in step.model.named_parameters():
        assert part.grad is not None and part.grad.isfinite().all(), name
        # A constant added to all scores of a softmax or to both anchors' gains changes nothing.
        assert part.grad.any() or name == "heatmap_network.score.bias", name
        if name != "heatmap_network.score.bias":
            assert not torch.equal(part, before[name]), name
    for iteration in range(1, 40):
        last = step(batch, iteration)["task"]
    assert last < 0.98 * first


@pytest.mark.parametrize(("kind", "config"), FORMS, ids=IDS)
def test_k_may_differ_between_images(kind, config):
    model, batch = build(kind, config).eval(), images()
    found = model.explain(batch.images, torch.tensor([2, 0, 1])).detections
    for image, one, count in zip(batch.images, found, (2, 0, 1), strict=True):
        alone = model.explain(image[None], max(count, 1)).detections[0]
        torch.testing.assert_close(one.boxes, alone.boxes[:count], atol=1e-4, rtol=1e-4)
    assert len(model.explain(batch.images).detections[0].boxes) == config.k
    for k in (torch.tensor([1, 1]), torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1, -1, 1])):
        with pytest.raises(ValueError, match="one whole number of 0 or more for each of 3 images"):
            model.explain(batch.images, k)


def test_every_kind_is_built_and_trained_by_its_configuration():
    for config in MODELS:
        assert config.kind in {kind for step in STEPS for kind in step.trains}
    for _, config in FORMS:
        step = RivalStepConfig(decay=0.1).for_run(10)
        step.check_model(config)
        assert isinstance(step.build(config.build()), RivalStep)
    with pytest.raises(MistError, match="'grid' can't be trained by a step of kind 'zha18'"):
        Zha18StepConfig().check_model(GRID)
    with pytest.raises(MistError, match="step.decay_steps"):
        Zha18StepConfig().build(Zha18Config(1, 1, (4, 8), (4, 8), (4, 8), features=4).build())


def test_a_portable_configuration_has_no_path():
    config = NaturalXie20Config(backbone=BackboneConfig(weights="/a/b/weights.pth"))
    assert config.portable().backbone.weights == "weights.pth"
    assert NaturalXie20Config().portable() == NaturalXie20Config()


def test_grid_cells_cover_the_image():
    model = build(Grid, GridConfig(cells=3, patch_size=8, encoder=SMALL, decoder=4))
    boxes = model.boxes(torch.zeros(1, 1, 30, 60))[0]
    assert boxes[0].tolist() == [10, 5, 20, 10] and boxes[5].tolist() == [50, 15, 20, 10]
    assert boxes.shape == (9, 4) and (boxes[:, 2] * boxes[:, 3]).sum() == 30 * 60


def test_a_perfect_auto_encoder_makes_the_grid_perfect():
    """Cells resampled one to one, decoded as they are: the image comes back, without seams."""

    class Same(torch.nn.Module):
        def forward(self, patches):
            from mistnn.nn.task import TaskOutput

            return TaskOutput(None, patches)

    model = build(Grid, GridConfig(cells=3, patch_size=8, encoder=SMALL, decoder=4))
    model.task_network = Same()
    batch = torch.rand(2, 1, 24, 24)
    torch.testing.assert_close(model(batch), batch, atol=1e-5, rtol=0)


def test_soft_argmax_is_the_mean_place():
    scores = torch.full((1, 2, 4, 6), -50.0)
    scores[0, 0, 1, 4] = 50.0
    scores[0, 1, 0, 0] = scores[0, 1, 3, 5] = 50.0
    torch.testing.assert_close(soft_argmax(scores), torch.tensor([[[4.5, 1.5], [3.0, 2.0]]]))


def test_channels_get_their_gradient_through_the_places():
    """No lifting here: the heat maps learn by the task's own gradient, which finite differences confirm."""
    model = build(Channelwise, CLASSIFYING).double()
    batch = images()
    batch = batch._replace(images=batch.images.double())
    bias = model.heatmap_network.entry.bias
    loss = model.losses(batch)["task"].sum()
    (gradient,) = torch.autograd.grad(loss, bias)
    with torch.no_grad():
        for index in range(len(bias)):
            values = []
            for sign in (1, -1):
                bias[index] += sign * 1e-5
                values.append(model.losses(batch)["task"].sum())
                bias[index] -= sign * 1e-5
            assert gradient[index].item() == pytest.approx((values[0] - values[1]).item() / 2e-5, abs=1e-6, rel=1e-3)


def test_xie20_reads_every_place():
    model, batch = build(Xie20, XIE20), images()
    places = model.places(batch.images)
    assert places.shape == (3, 25, 4) and places[0, 6].tolist() == [6, 6, 8, 8]
    seen = []
    original = model.task_network.classify

    def classify(patches):
        seen.append(patches.shape[1])
        return original(patches)

    model.task_network.classify = classify
    model.losses(batch)
    assert seen == [25]


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_the_proposal_network_scores_the_square_of_each_place(stride):
    """Strided convolutions and a head like a region proposal network's; each score is centred on its square."""
    torch.manual_seed(0)
    network = ProposalNetwork(1, 3, stride).double()
    assert [layer.stride for layer in network.features if isinstance(layer, torch.nn.Conv2d)] == [(2, 2)] * (
        stride.bit_length() - 1
    )
    assert not any(isinstance(layer, torch.nn.AvgPool2d | torch.nn.MaxPool2d) for layer in network.modules())
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):  # a linear network whose kernels are symmetric
            layer.weight.data = layer.weight.data.abs() + layer.weight.data.abs().flip((-1, -2))
    image = torch.rand(1, 1, 9 * stride + 1, 9 * stride, dtype=torch.float64, requires_grad=True)
    scores = network(image)
    assert scores.shape == (1, 1, 9, 9)
    (seen,) = torch.autograd.grad(scores[0, 0, 4, 3], image)
    x, y = torch.arange(9 * stride) + 0.5, torch.arange(9 * stride + 1) + 0.5
    middle = (seen[0, 0].sum(0) @ x.double() / seen.sum(), seen[0, 0].sum(1) @ y.double() / seen.sum())
    assert [float(one.detach()) for one in middle] == pytest.approx([3.5 * stride, 4.5 * stride])
    alone, wide = network(image[..., : 8 * stride, :]), build(Xie20, dataclasses.replace(XIE20, stride=stride))
    assert alone.shape == (1, 1, 8, 9)
    batch = images(side=24).images
    assert wide.scores(batch).shape == (3, wide.most(24, 24)) == wide.places(batch).shape[:2]


def test_xie20_with_a_hard_mask_is_equation_9():
    """As epsilon vanishes, equation 12 reads the K best places only."""
    model, batch = build(Xie20, dataclasses.replace(XIE20, epsilon=1e-7)), images()
    with torch.no_grad():
        loss = model.losses(batch)["task"]
        found = model.scores(batch.images).topk(2, dim=1).indices
        boxes = model.places(batch.images).gather(1, found[..., None].expand(-1, -1, 4))
        from mistnn.ops.sampling import extract_patches

        probabilities = model.task_network.classify(extract_patches(batch.images, boxes, 8)).softmax(-1)
    torch.testing.assert_close(loss, class_proportion_loss(probabilities, batch.counts), atol=1e-4, rtol=1e-3)


def test_supervised_learns_places_and_classes():
    config = MistConfig(
        ("a", "b", "c"), k=2, box_size=8.0, patch_extent=8.0, patch_size=8, heatmap=NARROW, encoder=SMALL
    )
    torch.manual_seed(0)
    step = SupervisedStep(Mist(config), SupervisedStepConfig(task_rate=1e-2, heatmap_rate=1e-2))
    batch = images()
    first = step(batch, 0)
    assert set(first) == {"classification", "heatmap"}
    for iteration in range(1, 120):
        last = step(batch, iteration)
    assert last["classification"] < 0.5 * first["classification"] and last["heatmap"] < first["heatmap"]
    with pytest.raises(MistError, match="true boxes"):
        step(batch._replace(boxes=None), 0)
    with pytest.raises(MistError, match="class of each object"):
        step(batch._replace(labels=None), 0)
    assert batch.boxes is not None
    with pytest.raises(MistError, match="same number of objects"):
        step(batch._replace(boxes=[batch.boxes[0], batch.boxes[0], batch.boxes[0][:1]]), 0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GridConfig(cells=0), "cells=0"),
        (lambda: GridConfig(decoder=0), "nothing to learn"),
        (lambda: dataclasses.replace(CLASSIFYING, k=0), "k=0"),
        (lambda: dataclasses.replace(CLASSIFYING, heatmap=NARROW), "start random"),
        (lambda: dataclasses.replace(CLASSIFYING, class_names=()), "nothing to learn"),
        (lambda: dataclasses.replace(CLASSIFYING, patch_size=12), "patch_size=12"),
        (lambda: dataclasses.replace(XIE20, class_names=()), "class_names=\\(\\) must be .*at least one"),
        (lambda: dataclasses.replace(XIE20, epsilon=0.0), "epsilon=0.0"),
        (lambda: dataclasses.replace(XIE20, stride=0), "stride=0"),
        (lambda: dataclasses.replace(XIE20, stride=6), "stride=6 must be a power of two.*--model.head pooled"),
        (lambda: RivalStepConfig(rate=0.0), "rate=0.0"),
        (lambda: RivalStep(build(Grid, GRID), RivalStepConfig(decay=0.5)), "step.decay_steps"),
        (lambda: SupervisedStepConfig(task_rate=float("nan")), "task_rate"),
    ],
)
def test_mistakes_are_named(make, words):
    with pytest.raises(MistError, match=words):
        make()


def test_images_without_counts_are_named():
    for kind, config in ((Channelwise, CLASSIFYING), (Xie20, XIE20)):
        with pytest.raises(MistError, match="counts"):
            build(kind, config).losses(images()._replace(counts=None))
