"""Distorted digits: what was drawn, by moments; what was rendered, by a slow loop; the same one by one as together."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch

from mistnn.data import DistortedConfig, DistortedDigits, load_embedded
from mistnn.data.digits.cluttered import piece_side
from mistnn.data.digits.distorted import (
    CONTROL_NOISE,
    CORNER_NOISE,
    CUT_OFF,
    PIECES,
    ZOOMED_PIECES,
    ZOOMED_SIDE,
    Distortion,
    _readable,
)
from mistnn.data.random_numbers import CounterRandom
from mistnn.errors import MistError
from mistnn.records import collate

MANY = range(4000)
SIDE = 10  # of an embedded digit's frame
UNIT = SIDE / 28


def digits(distortion: Distortion, canvas: int = 15, length: int | None = None, **more: int) -> DistortedDigits:
    config = DistortedConfig(distortion, canvas, source="embedded", **more)
    return DistortedDigits(config, "train", length)


def near(values: np.ndarray, mean: float, deviation: float) -> None:
    """Mean and standard deviation as they should be, within four standard errors."""
    errors = 4 / math.sqrt(values.size)
    assert abs(values.mean() - mean) < errors * max(deviation, 1e-9)
    assert abs(values.std() - deviation) < errors * max(deviation, 1e-9)


def evenly(values: np.ndarray, low: float, high: float) -> None:
    assert low <= values.min() and values.max() <= high
    near(values, (low + high) / 2, (high - low) / math.sqrt(12))


def test_random_numbers_depend_on_seed_stream_and_index_alone() -> None:
    some, random = np.arange(50), CounterRandom(3, 1)
    table = random.uniform(some, 2, 6)
    assert np.array_equal(table[[7]], CounterRandom(3, 1).uniform(np.array([7]), 2, 6))
    assert np.array_equal(table[:, 4:], random.uniform(some, 6, 2))
    for other in (CounterRandom(4, 1), CounterRandom(3, 0)):
        assert not np.isin(table, other.uniform(some, 2, 6)).any()
    evenly(random.uniform(np.arange(5000), 0, 4), 0, 1)
    near(random.normal(np.arange(5000), 0, 4), 0, 1)
    whole = random.integers(np.arange(5000), 0, 4, 7)
    assert set(np.unique(whole)) == set(range(7)) and abs((whole == 0).mean() - 1 / 7) < 0.01
    big = random.normal(np.arange(20_000), 0, 8)
    assert abs((big**4).mean() - 3) < 0.15, "not normal"
    between = np.corrcoef(random.uniform(np.arange(5000), 0, 4).T)
    after = np.corrcoef(random.uniform(np.arange(5000), 0, 1)[:-1, 0], random.uniform(np.arange(5000), 0, 1)[1:, 0])
    assert np.abs(between - np.eye(4)).max() < 0.06 and abs(after[0, 1]) < 0.06


def test_moments_of_r_and_rts() -> None:
    turned = digits("r").drawn(MANY)
    assert turned.angles is not None and turned.scales is not None and turned.centres is not None
    evenly(turned.angles, -math.pi / 2, math.pi / 2)
    assert (turned.scales == 1).all() and (turned.centres == 7.5).all()
    moved = digits("rts").drawn(MANY)
    assert moved.angles is not None and moved.scales is not None and moved.centres is not None
    evenly(moved.angles, -math.pi / 4, math.pi / 4)
    evenly(moved.scales, 0.7, 1.2)
    room = 15 - moved.scales[:, None] * SIDE
    evenly((moved.centres - (15 - room) / 2) / room, 0, 1)
    table = np.stack((moved.angles, moved.scales, *(((moved.centres - 7.5) / room).T)))
    assert np.abs(np.corrcoef(table) - np.eye(4)).max() < 0.07


def test_moments_of_p_and_e() -> None:
    drawn = digits("p").drawn(MANY)
    assert drawn.corners is not None and drawn.scales is not None and drawn.angles is not None
    evenly(drawn.scales, 0.75, 1.0)
    assert not drawn.angles.any()
    frames = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (drawn.scales[:, None, None] * SIDE / 2)
    assert _readable(frames + drawn.corners).all()
    # Of all numbers those that make a readable shape; so the deviation falls a little short of the stated one.
    assert abs(drawn.corners.mean()) < 0.1 * UNIT * CORNER_NOISE
    assert 0.9 * CORNER_NOISE * UNIT < drawn.corners.std() < CORNER_NOISE * UNIT
    bent = digits("e").drawn(MANY)
    assert bent.controls is not None and bent.scales is not None and bent.controls.shape == (4000, 16, 2)
    evenly(bent.scales, 0.75, 1.0)
    near(bent.controls, 0, CONTROL_NOISE * UNIT)


def test_every_digit_of_p_can_be_seen() -> None:
    """None is squashed into a corner or lies beyond the horizon."""
    images = digits("p")
    drawn = images.drawn(MANY)
    assert drawn.scales is not None
    ink = images.render(drawn).sum(dim=(1, 2)).numpy()
    own = images.render(drawn._replace(corners=None)).sum(dim=(1, 2)).numpy()
    assert (ink > 0.1 * own).all() and (ink < 0.3 * own).mean() < 0.02


def test_moments_of_tc() -> None:
    drawn, side = digits("tc", 22).drawn(MANY), piece_side(SIDE)
    assert drawn.places is not None and drawn.clutter is not None and side == 2
    for places, most in (
        (drawn.places, 22 - SIDE),
        (drawn.clutter.places, 22 - side),
        (drawn.clutter.cuts, SIDE - side),
    ):
        assert places.min() == 0 and places.max() == most
        near(places.astype(float), most / 2, math.sqrt(((most + 1) ** 2 - 1) / 12))
    assert drawn.clutter.rows.shape == (4000, PIECES)
    assert (drawn.clutter.rows != drawn.rows[:, None]).all()
    assert drawn.clutter.rows.min() == 0 and drawn.clutter.rows.max() == len(load_embedded("train").labels) - 1


def test_inserted_clutter_hides_the_digit() -> None:
    """Against a slow loop: the pieces replace what was there, one after another; with "maximum" nothing is hidden."""
    made, side = digits("tc", 22), piece_side(SIDE)
    drawn, source = made.drawn(range(60)), load_embedded("train").images
    assert drawn.places is not None and drawn.clutter is not None
    brighter = DistortedDigits(DistortedConfig("tc", 22, clutter="maximum", source="embedded"), "train", None)
    inserted, kept, hidden = made.render(drawn).numpy() * 255, brighter.render(drawn).numpy() * 255, 0
    for image in range(60):
        bare = np.zeros((22, 22))
        x, y = drawn.places[image]
        bare[y : y + SIDE, x : x + SIDE] = source[drawn.rows[image]]
        replaced, brightest = bare.copy(), bare.copy()
        for piece in range(PIECES):
            (u, v), (a, b) = drawn.clutter.cuts[image, piece], drawn.clutter.places[image, piece]
            for row in range(side):
                for column in range(side):
                    ink = source[drawn.clutter.rows[image, piece], v + row, u + column]
                    replaced[b + row, a + column] = ink
                    brightest[b + row, a + column] = max(ink, brightest[b + row, a + column])
        assert np.allclose(inserted[image], replaced, atol=1e-3) and np.allclose(kept[image], brightest, atol=1e-3)
        assert (kept[image] >= bare - 1e-3).all()
        hidden += int((inserted[image] < bare - 1).sum())
    assert hidden > 60, "pieces hide ink of the digits"


def test_moments_of_z() -> None:
    """Windows of 1 to 3 frames' sides, all factors equally likely, which hold the frame but for 3 of 28 px."""
    made = digits("z", 20)
    drawn, whole = made.drawn(MANY), ZOOMED_SIDE * UNIT
    assert drawn.places is not None and drawn.windows is not None and drawn.cluttered is not None
    sides, middles = drawn.windows[:, 0], drawn.windows[:, 1:]
    evenly(np.log(sides), math.log(SIDE), math.log(whole))
    slack = (sides[:, None] - SIDE) / 2 + CUT_OFF * UNIT
    evenly((middles - drawn.places - SIDE / 2) / slack, -1, 1)
    assert abs(drawn.cluttered.mean() - 0.5) < 0.03 and drawn.clutter is not None
    assert drawn.clutter.rows.shape == (4000, ZOOMED_PIECES) and drawn.places.max() == whole - SIDE


def test_a_window_of_z_is_what_lies_there() -> None:
    """A window of the whole image shows the digit at its place; one of the frame alone shows the digit."""
    config = DistortedConfig("z", round(ZOOMED_SIDE * UNIT), clutter="maximum", source="embedded")
    made = DistortedDigits(config, "train", None)
    drawn = made.drawn(range(40))
    assert drawn.windows is not None and drawn.places is not None and drawn.cluttered is not None
    drawn.windows[:] = (ZOOMED_SIDE * UNIT, ZOOMED_SIDE * UNIT / 2, ZOOMED_SIDE * UNIT / 2)
    whole = made.render(drawn).numpy()
    frames = load_embedded("train").images[drawn.rows] / 255
    for picture, frame, (x, y), cluttered in zip(whole, frames, drawn.places, drawn.cluttered, strict=True):
        inside = picture[y : y + SIDE, x : x + SIDE]
        outside = picture.sum() - inside.sum()
        assert (inside >= frame - 1e-5).all()
        assert cluttered or (np.allclose(inside, frame, atol=1e-5) and outside < 1e-3)
    near = digits("z", SIDE)
    drawn.windows[:, 0] = SIDE
    drawn.windows[:, 1:] = drawn.places + SIDE / 2
    shown = near.render(drawn).numpy()
    assert np.allclose(shown[~drawn.cluttered], frames[~drawn.cluttered], atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("distortion", get_args(Distortion))
def test_one_by_one_is_together(distortion: Distortion, channels: int) -> None:
    made = digits(distortion, digits=channels)
    wanted = [5, 0, 923_456_789_012, 5]
    together, apart = made.batch(wanted), collate([made[index] for index in wanted])
    torch.testing.assert_close(together.images, apart.images, atol=1e-5, rtol=0)
    assert together.counts is not None and apart.counts is not None and torch.equal(together.counts, apart.counts)
    assert together.images.shape == (4, channels, 15, 15) and together.counts.sum(1).tolist() == [channels] * 4
    assert together.images.min() >= 0 and together.images.max() <= 1 + 1e-6
    assert torch.equal(together.images[0], together.images[3]) and not torch.equal(
        together.images[0], together.images[1]
    )
    if distortion in ("t", "tc") and channels == 1:
        assert together.boxes is not None and apart.boxes is not None and together.labels is not None
        assert torch.equal(torch.stack(together.boxes), torch.stack(apart.boxes))
        x, y, width, height = together.boxes[0][0].tolist()
        row = made.drawn([5]).rows[0]
        ink = load_embedded("train").images[row] / 255
        inside = together.images[
            0, 0, int(y - height / 2) : int(y + height / 2), int(x - width / 2) : int(x + width / 2)
        ]
        assert (inside.numpy() >= ink.astype(np.float32) - 1e-6).all()
        assert together.labels[0].tolist() == [int(load_embedded("train").labels[row])]
    else:
        assert together.boxes is None and together.labels is None


def read_by_loops(ink: np.ndarray, canvas: int, back: list[list[tuple[float, float]]]) -> np.ndarray:
    """Each pixel reads its point (x, y) of the digit's frame, in pixels, between the four centres around it."""
    read, side = np.zeros((canvas, canvas)), ink.shape[0]
    for i in range(canvas):
        for j in range(canvas):
            x, y = back[i][j]
            for row in range(side):
                for column in range(side):
                    near_y, near_x = max(0, 1 - abs(row + 0.5 - y)), max(0, 1 - abs(column + 0.5 - x))
                    read[i, j] += ink[row, column] * near_y * near_x
    return read


@pytest.mark.parametrize("distortion", ["r", "rts", "p", "e"])
def test_rendering_by_loops(distortion: Distortion) -> None:
    canvas, made = 15, digits(distortion)
    drawn, images = made.drawn([3]), made.batch([3]).images[0, 0]
    assert drawn.scales is not None and drawn.angles is not None and drawn.centres is not None
    ink = load_embedded("train").images[drawn.rows[0]] / 255
    scale, angle, centre = drawn.scales[0], drawn.angles[0], drawn.centres[0]
    back = []
    if drawn.corners is not None:
        frame = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * SIDE / 2
        moved = frame * scale + drawn.corners[0] + centre
        forward = homography(frame + SIDE / 2, moved)
    for i in range(canvas):
        back.append([])
        for j in range(canvas):
            point = np.array((j + 0.5, i + 0.5))
            if drawn.corners is not None:
                x, y, w = np.linalg.inv(forward) @ (*point, 1.0)
                back[-1].append((x / w, y / w))
                continue
            if drawn.controls is not None:
                point = point + bend(point - canvas / 2, drawn.controls[0])
            away = point - centre
            # Turning the digit clockwise (x to y) is turning the point back, anticlockwise.
            x = (away[0] * math.cos(angle) + away[1] * math.sin(angle)) / scale + SIDE / 2
            y = (-away[0] * math.sin(angle) + away[1] * math.cos(angle)) / scale + SIDE / 2
            back[-1].append((x, y))
    torch.testing.assert_close(images, torch.from_numpy(read_by_loops(ink, canvas, back)).float(), atol=2e-4, rtol=0)


def homography(source: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The projective map of four points to four others: the direction that all eight equations leave free."""
    rows = []
    for (x, y), (u, v) in zip(source, goal, strict=True):
        rows.append((x, y, 1, 0, 0, 0, -u * x, -u * y, -u))
        rows.append((0, 0, 0, x, y, 1, -v * x, -v * y, -v))
    return np.linalg.svd(np.array(rows))[2][-1].reshape(3, 3)


def bend(point: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """What a thin plate spline adds to a point, from Bookstein's equations."""
    line = np.linspace(-SIDE / 2, SIDE / 2, 4)
    control = np.array([(x, y) for y in line for x in line])

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        squared = float(((a - b) ** 2).sum())
        return squared * math.log(squared) if squared else 0.0

    bent = np.array([[kernel(a, b) for b in control] for a in control])
    flat = np.concatenate((np.ones((16, 1)), control), axis=1)
    system = np.block([[bent, flat], [flat.T, np.zeros((3, 3))]])
    weights = np.linalg.solve(system, np.concatenate((moves, np.zeros((3, 2)))))
    return np.array([*(kernel(point, b) for b in control), 1, *point]) @ weights


def test_validation_and_test_have_each_digit_once() -> None:
    source = load_embedded("test")
    made = DistortedDigits(DistortedConfig("r", 15, source="embedded"), "test", len(source.labels))
    assert made.drawn(range(len(made))).rows.tolist() == list(range(300))
    both = DistortedDigits(DistortedConfig("r", 15, 2, "embedded"), "test", 300).drawn(range(300)).rows
    assert both[::2].tolist() == list(range(300)) and len(set(both[1::2].tolist())) > 150
    counts = made.batch([4, 9]).counts
    assert counts is not None and counts.argmax(1).tolist() == source.labels[[4, 9]].tolist()


def test_seeds_and_splits_share_nothing() -> None:
    one, other = digits("rts", seed=0).drawn(range(200)), digits("rts", seed=1).drawn(range(200))
    assert one.angles is not None and other.angles is not None and not np.isin(one.angles, other.angles).any()
    config = DistortedConfig("rts", 15, source="embedded")
    held = DistortedDigits(config, "validation", 200).drawn(range(200))
    assert held.angles is not None and not np.isin(one.angles, held.angles).any()


@pytest.mark.plain
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"distortion": "q"}, "distortion='q' must be r or rts"),
        ({"source": "svhn"}, "mnist or embedded"),
        ({"canvas": 0}, "canvas=0"),
        ({"digits": 3}, "digits=3 must be 1 or 2"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_configurations(given: dict[str, object], said: str) -> None:
    with pytest.raises(MistError, match=said):
        DistortedConfig(**given)  # pyright: ignore[reportArgumentType]


def test_bad_sizes_and_indices() -> None:
    with pytest.raises(MistError, match="canvas=11 is smaller than the frame of a digit, 12 px"):
        digits("rts", 11)
    digits("tc", 10)
    with pytest.raises(MistError, match="length 0"):
        digits("r", length=0)
    for wrong in (-1, 4):
        with pytest.raises(IndexError, match=f"image {wrong} is outside a data set of 4"):
            digits("r", length=4).batch([0, wrong])
