"""Slow, obvious loops for heat maps. A heat map is a nested list [row][column]."""

from __future__ import annotations

import math

import torch


def _around(height, width, row, column, window):
    """The pixels of a window, cut off at the border, in reading order."""
    reach = window // 2
    for i in range(max(0, row - reach), min(height, row + reach + 1)):
        for j in range(max(0, column - reach), min(width, column + reach + 1)):
            yield i, j


def local_spatial_softmax(scores, window, strength):
    """The exponential of a pixel over those of its window; a pixel beyond the border counts as the nearest inside."""
    height, width, reach = len(scores), len(scores[0]), window // 2
    result = [[0.0] * width for _ in range(height)]
    for row in range(height):
        for column in range(width):
            total = 0.0
            for i in range(row - reach, row + reach + 1):
                for j in range(column - reach, column + reach + 1):
                    other = scores[min(max(i, 0), height - 1)][min(max(j, 0), width - 1)]
                    total += math.exp(strength * (other - scores[row][column]))
            result[row][column] = 1 / total
    return result


def non_maximum_suppression(heatmap, window):
    """A pixel survives unless one in its window is larger, or equal and earlier in reading order."""
    height, width = len(heatmap), len(heatmap[0])
    result = [[True] * width for _ in range(height)]
    for row in range(height):
        for column in range(width):
            for i, j in _around(height, width, row, column, window):
                earlier = (i, j) < (row, column)
                larger = heatmap[i][j] > heatmap[row][column]
                if larger or (earlier and heatmap[i][j] == heatmap[row][column]):
                    result[row][column] = False
    return result


def top_k_responses(heatmap, k, window):
    """The values that E_K selects: surviving pixels in falling order, then suppressed pixels in falling order."""
    survives = non_maximum_suppression(heatmap, window)
    kept, rest = [], []
    for line, flags in zip(heatmap, survives, strict=True):
        for value, flag in zip(line, flags, strict=True):
            (kept if flag else rest).append(value)
    return (sorted(kept, reverse=True) + sorted(rest, reverse=True))[:k]


def top_k_pixels(heatmap, k, window):
    """The (column, row) of the pixels that E_K selects, for heat maps without ties."""
    survives = non_maximum_suppression(heatmap, window)
    ranked = sorted(
        (not survives[row][column], -heatmap[row][column], column, row)
        for row in range(len(heatmap))
        for column in range(len(heatmap[0]))
    )
    return [(column, row) for _, _, column, row in ranked[:k]]


def ideal_heatmap(points, height, width):
    """G: 1 at the pixel that contains a point; the nearest border pixel for a point outside."""
    result = [[0.0] * width for _ in range(height)]
    for x, y in points:
        result[min(max(math.floor(y), 0), height - 1)][min(max(math.floor(x), 0), width - 1)] = 1.0
    return result


def pool_scales(maps, epsilon=1e-6):
    """Each scale's map times its share of the pixel's sum; a list of (height, width) tensors in, one tensor out."""
    result = torch.zeros(len(maps), *maps[0].shape, dtype=maps[0].dtype)
    for row in range(maps[0].shape[0]):
        for column in range(maps[0].shape[1]):
            total = sum(float(one[row, column]) + epsilon for one in maps)
            for index, one in enumerate(maps):
                value = float(one[row, column])
                result[index, row, column] = value * value / total
    return result


def split_over_scales(scale, scales):
    """The weights of a scale on discrete ones: only its neighbours', whose centre of mass is the scale."""
    weights = [0.0] * len(scales)
    if scale <= scales[0]:
        weights[0] = 1.0
    elif scale >= scales[-1]:
        weights[-1] = 1.0
    else:
        for index in range(len(scales) - 1):
            if scales[index] <= scale <= scales[index + 1]:
                share = (scale - scales[index]) / (scales[index + 1] - scales[index])
                weights[index], weights[index + 1] = 1 - share, share
                break
    return weights
