"""Digits at whole pixels of a black canvas, among pieces of other digits.

Convention: x right, y down; a place is the top left corner of a frame, in whole pixels. Pieces are inserted (S003,
section 1.3): all pixels of a piece, black ones too, replace what was there, so a piece can hide part of the digit or of
an earlier piece. ``Overlap`` names the alternative, in which the brighter pixel counts and nothing is ever hidden.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from numpy.lib.stride_tricks import sliding_window_view

from mistnn.data.random_numbers import CounterRandom
from mistnn.errors import MistError

PIECE = 6  #: Side of a piece of clutter, in pixels of MNIST's frame of 28 (S003, sections 1.2 and 1.3).
DIGIT_SIDE = 28  #: Side of MNIST's frame, to which the paper's sizes in pixels refer.


Overlap = Literal["insert", "maximum"]
"""What a piece of clutter does to the pixels below it: "insert" replaces them, "maximum" keeps the brighter."""


class Clutter(NamedTuple):
    """The origin and the place of the clutter of some images."""

    rows: Int64[np.ndarray, "n pieces"]  #: (n, pieces), the digit in the source.
    cuts: Int64[np.ndarray, "n pieces 2"]  #: (n, pieces, 2), x and y of the piece in that digit's frame.
    places: Int64[np.ndarray, "n pieces 2"]  #: (n, pieces, 2), x and y of the piece on the canvas.


def piece_side(side: int) -> int:
    """Side of a piece of clutter for digits whose frame has the given side."""
    return max(1, round(PIECE * side / DIGIT_SIDE))


def check_room(canvas: int, side: int) -> None:
    """Raises ``MistError`` unless a canvas holds a digit's frame."""
    if canvas < side:
        raise MistError(f"data.canvas={canvas} is smaller than the frame of a digit, {side} px: give {side} or more")


def draw_places(
    random: CounterRandom, indices: Int64[np.ndarray, " n"], first: int, canvas: int, side: int
) -> Int64[np.ndarray, "n 2"]:
    """Places of a frame entirely on the canvas, all equally likely; uses two draws."""
    return random.integers(indices, first, 2, canvas - side + 1)


def draw_clutter(
    random: CounterRandom,
    indices: Int64[np.ndarray, " n"],
    own: Int64[np.ndarray, " n"] | None,
    first: int,
    pieces: int,
    canvas: int,
    side: int,
    digits: int,
) -> Clutter:
    """Pieces of other digits at random places, all equally likely; uses five draws per piece.

    Args:
        own: the digit of each image, from which no piece is cut; ``None`` if the pieces come from another source.
        first: the first draw to use.
        pieces: number per image.
        digits: number of digits in the source, two or more.
    """
    rows = random.integers(indices, first, pieces, digits - (own is not None))
    if own is not None:
        rows += rows >= own[:, None]
    piece, shape = piece_side(side), (len(indices), pieces, 2)
    cuts = random.integers(indices, first + pieces, 2 * pieces, side - piece + 1).reshape(shape)
    places = random.integers(indices, first + 3 * pieces, 2 * pieces, canvas - piece + 1).reshape(shape)
    return Clutter(rows, cuts, places)


def compose(
    digits: UInt8[np.ndarray, "all side side"],
    rows: Int64[np.ndarray, " n"],
    places: Int64[np.ndarray, "n 2"],
    canvas: int,
    clutter: Clutter | None,
    cut_from: UInt8[np.ndarray, "others side side"] | None = None,
    overlap: Overlap = "insert",
) -> Float32[np.ndarray, "n canvas canvas"]:
    """Composes images of digits at places, values in [0, 1].

    Args:
        rows: the digit of each image in ``digits``.
        clutter: the pieces; ``None`` for none.
        cut_from: the digits from which pieces are cut; ``digits`` if not given.
        overlap: what a piece does to the pixels below it.
    """
    images = np.zeros((len(rows), canvas, canvas), dtype=np.uint8)
    each, side = np.arange(len(rows)), digits.shape[-1]
    _windows(images, side)[each, places[:, 1], places[:, 0]] = digits[rows]
    if clutter is not None:
        piece = piece_side(side)
        cuttings, holes = _windows(digits if cut_from is None else cut_from, piece), _windows(images, piece)
        for number in range(clutter.rows.shape[1]):
            cut, place = clutter.cuts[:, number], clutter.places[:, number]
            ink = cuttings[clutter.rows[:, number], cut[:, 1], cut[:, 0]]
            there = each, place[:, 1], place[:, 0]
            holes[there] = ink if overlap == "insert" else np.maximum(holes[there], ink)
    return np.divide(images, np.float32(255), dtype=np.float32)


def _windows(images: UInt8[np.ndarray, "n rows columns"], side: int) -> UInt8[np.ndarray, "n y x side side"]:
    """All square windows of images, indexed by their top left corners, as views."""
    return sliding_window_view(images, (side, side), axis=(1, 2), writeable=images.flags.writeable)
