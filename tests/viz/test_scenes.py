"""Boxes on images: number of each kind, position and label."""

from collections import Counter

import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mistnn.records import Detections, Sample
from mistnn.viz import draw_samples, draw_scenes, figure_to_png, missed_truth, save_figure
from mistnn.viz.style import MISSED, RIGHT, WRONG

NAMES = ("cat", "<b>", "$x")


def scene(size: int = 32):
    """Two right detections, one with the wrong class, one on no object; one object without detection."""
    truth = torch.tensor([[8.0, 8.0, 10.0, 10.0], [24.0, 8.0, 10.0, 10.0], [8.0, 24.0, 10.0, 10.0], [24, 24, 6, 6]])
    labels = torch.tensor([0, 1, 2, 0])
    found = truth[[0, 1, 2, 2]].clone()
    found[3] = torch.tensor([16.0, 16.0, 4.0, 4.0])
    detections = Detections(found, torch.tensor([0.9, 0.8, 0.7, 0.1]), torch.tensor([0, 1, 0, 2]))
    image = torch.rand(1, size, size, generator=torch.Generator().manual_seed(0))
    return image, detections, truth, labels, torch.tensor([True, True, False, False])


def marks(axes: Axes) -> Counter:
    return Counter(patch.get_gid() for patch in axes.patches)


def test_boxes_by_kind():
    image, detections, truth, labels, correct = scene()
    figure = draw_scenes([image], [detections], [truth], [labels], NAMES, 4, correct=[correct])
    assert isinstance(figure, Figure)
    (axes,) = figure.axes
    assert marks(axes) == {"right": 2, "wrong": 2, "missed": 2}
    for patch in axes.patches:
        mark = {"right": RIGHT, "wrong": WRONG, "missed": MISSED}[str(patch.get_gid())]
        red, green, blue, _ = patch.get_edgecolor()
        assert "#{:02x}{:02x}{:02x}".format(*(round(255 * value) for value in (red, green, blue))) == mark.color
    # Right and wrong must differ in more than colour.
    lines = {patch.get_gid(): patch.get_linestyle() for patch in axes.patches}
    assert lines["right"] in ("solid", "-")
    assert lines["wrong"] != lines["right"]
    assert lines["missed"] not in (lines["right"], lines["wrong"])


def test_box_is_drawn_in_place():
    image = scene()[0]
    one = Detections(torch.tensor([[10.0, 6.0, 8.0, 4.0]]), torch.tensor([1.0]))
    (axes,) = draw_scenes([image], [one]).axes
    (patch,) = axes.patches
    assert (patch.get_x(), patch.get_y(), patch.get_width(), patch.get_height()) == (6.0, 4.0, 8.0, 4.0)
    assert patch.get_gid() == "found"
    assert axes.get_xlim() == (0, 32)
    assert axes.get_ylim() == (32, 0)
    assert axes.images[0].get_extent() == [0, 32, 32, 0]
    assert not axes.texts


def test_labels_are_literal_and_named():
    image, detections, truth, labels, correct = scene()
    (axes,) = draw_scenes([image], [detections], [truth], [labels], NAMES, correct=[correct]).axes
    assert Counter(text.get_text() for text in axes.texts) == {"cat": 1, "<b>": 1, "✗ cat": 1, "✗ $x": 1}
    figure_to_png(axes.get_figure())  # a lone dollar sign must not be read as a formula


def test_single_picture_fills_the_figure():
    image, detections, *_ = scene()
    (axes,) = draw_scenes([image], [detections]).axes
    assert axes.get_position().bounds == pytest.approx((0, 0, 1, 1))


def test_grid_has_one_tile_an_image():
    image, detections, *_ = scene()
    figure = draw_scenes(image.expand(5, 1, 32, 32), [detections] * 5, columns=3, titles=list("abcde"))
    assert [axes.get_title() for axes in figure.axes] == list("abcde")
    corners = [(round(axes.get_position().x0, 3), round(axes.get_position().y0, 3)) for axes in figure.axes]
    assert len({x for x, _ in corners}) == 3
    assert len({y for _, y in corners}) == 2


def test_missed_counts_each_object_once():
    box = torch.tensor([[8.0, 8.0, 10.0, 10.0]])
    pair = Detections(box.expand(2, 4), torch.ones(2), torch.tensor([1, 1]))
    truth, labels = box.expand(3, 4), torch.tensor([1, 1, 2])
    assert missed_truth(pair, torch.tensor([True, False]), truth, labels).tolist() == [False, True, True]
    assert missed_truth(pair, torch.tensor([True, True]), truth, labels).tolist() == [False, False, True]
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    assert missed_truth(nothing, torch.zeros(0, dtype=torch.bool), truth, labels).all()


def test_lists_must_match_the_images():
    image, detections, truth, labels, correct = scene()
    with pytest.raises(ValueError, match="detections has 2 entries for 1 images"):
        draw_scenes([image], [detections, detections])
    with pytest.raises(ValueError, match="correct has 1 entries for 4 detections"):
        draw_scenes([image], [detections], [truth], [labels], correct=[correct[:1]])
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_scenes([], [])
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        draw_scenes([image], [detections], columns=0)


def test_png_and_pdf_are_written_and_repeat(tmp_path):
    image, detections, truth, labels, correct = scene()

    def draw() -> Figure:
        return draw_scenes([image], [detections], [truth], [labels], NAMES, correct=[correct])

    assert figure_to_png(draw()) == figure_to_png(draw())
    png, pdf = save_figure(draw(), tmp_path / "new" / "fig.5")
    assert (png.name, pdf.name) == ("fig.5.png", "fig.5.pdf")
    assert png.read_bytes() == figure_to_png(draw())
    assert pdf.read_bytes().startswith(b"%PDF")
    assert b"CreationDate" not in pdf.read_bytes()
    _, again = save_figure(draw(), tmp_path / "again")
    assert again.read_bytes() == pdf.read_bytes()
    moved = detections._replace(boxes=detections.boxes + 1)
    other = draw_scenes([image], [moved], [truth], [labels], NAMES, correct=[correct])
    assert figure_to_png(other) != png.read_bytes()


def test_samples_sheet_has_a_row_for_each_layout():
    image, _, truth, labels, _ = scene()
    full = Sample(image, boxes=truth, labels=labels)
    figure = draw_samples({"sparse": [full, full], "colour": [Sample(torch.rand(3, 20, 40))]}, NAMES)
    assert [marks(axes) for axes in figure.axes] == [{"truth": 4}, {"truth": 4}, {}]
    assert [axes.get_title() for axes in figure.axes] == ["sparse (32 x 32 px)", "", "colour (40 x 20 px)"]
    assert not any(axes.patches for axes in draw_samples({"sparse": [full]}, NAMES, boxes=False).axes)
    with pytest.raises(ValueError, match="empty"):
        draw_samples({"sparse": [full], "empty": []}, NAMES)
