"""Slow, obvious loops for S and S^-1. Images are nested lists [channel][row][column], boxes (cx, cy, w, h)."""

from __future__ import annotations

import math


def _tent(distance):
    """Weight of a pixel whose centre is so far away, along one axis."""
    return max(0.0, 1.0 - abs(distance))


def read_image(plane, x, y):
    """Bilinear value at (x, y). One ring of pixels repeats the border, beyond it all is zero."""
    height, width = len(plane), len(plane[0])
    total = 0.0
    for row in range(math.floor(y - 0.5), math.floor(y - 0.5) + 2):
        for column in range(math.floor(x - 0.5), math.floor(x - 0.5) + 2):
            if -1 <= row <= height and -1 <= column <= width:
                value = plane[min(max(row, 0), height - 1)][min(max(column, 0), width - 1)]
                total += value * _tent(x - (column + 0.5)) * _tent(y - (row + 0.5))
    return total


def extract_patch(image, box, size):
    """S for one box: patch pixel (i, j) reads the image at its place in the box."""
    cx, cy, w, h = box
    return [
        [
            [
                read_image(plane, cx - w / 2 + (j + 0.5) / size * w, cy - h / 2 + (i + 0.5) / size * h)
                for j in range(size)
            ]
            for i in range(size)
        ]
        for plane in image
    ]


def read_patch(plane, x, y):
    """Bilinear value at (x, y) in patch pixels; zero outside the patch."""
    total = 0.0
    for i, line in enumerate(plane):
        for j, value in enumerate(line):
            total += value * _tent(x - (j + 0.5)) * _tent(y - (i + 0.5))
    return total


def place_patches(patches, boxes, height, width):
    """S^-1 summed over the patches of one image, for each canvas pixel and patch."""
    channels, size = len(patches[0]), len(patches[0][0])
    canvas = [[[0.0] * width for _ in range(height)] for _ in range(channels)]
    for patch, (cx, cy, w, h) in zip(patches, boxes, strict=True):
        for c in range(channels):
            for row in range(height):
                for column in range(width):
                    x = (column + 0.5 - (cx - w / 2)) / w * size
                    y = (row + 0.5 - (cy - h / 2)) / h * size
                    canvas[c][row][column] += read_patch(patch[c], x, y)
    return canvas
