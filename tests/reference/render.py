"""Algorithm 1 of the SPAIR supplement, pixel by pixel and object by object, on nested lists [channel][row][column]."""

from __future__ import annotations

import math


def importance(alpha, presence, depth, rule):
    """gamma of one map pixel."""
    near = 1 / (1 + math.exp(depth))
    if rule == "paper":
        return alpha * presence * near
    return max(alpha * presence * 4 * near, 0.01)


def contains(box, x, y, rows, columns, edge):
    """Line 1, for the centre of a pixel."""
    cx, cy, w, h = box
    if edge == "box":
        return cx - w / 2 <= x < cx + w / 2 and cy - h / 2 <= y < cy + h / 2
    return -1 < (x - cx + w / 2) / w * columns - 0.5 < columns and -1 < (y - cy + h / 2) / h * rows - 0.5 < rows


def interpolate(box, plane, x, y, edge, missing):
    """Line 3: the four neighbours in the object's frame; one beyond the map is the border's or ``missing``."""
    cx, cy, w, h = box
    rows, columns = len(plane), len(plane[0])
    u, v = (x - (cx - w / 2)) / w * columns - 0.5, (y - (cy - h / 2)) / h * rows - 0.5
    total = 0.0
    for i in (math.floor(v), math.floor(v) + 1):
        for j in (math.floor(u), math.floor(u) + 1):
            weight = (1 - abs(v - i)) * (1 - abs(u - j))
            if 0 <= i < rows and 0 <= j < columns:
                total += weight * plane[i][j]
            elif edge == "box":
                total += weight * plane[min(max(i, 0), rows - 1)][min(max(j, 0), columns - 1)]
            else:
                total += weight * missing
    return total


def render(objects, background, rule="paper", edge="box"):
    """Each object is (appearance, alpha, box, presence, depth); one image."""
    channels, height, width = len(background), len(background[0]), len(background[0][0])
    out = [[list(row) for row in plane] for plane in background]
    for y in range(height):
        for x in range(width):
            written = []
            for appearance, alpha, box, presence, depth in objects:
                at = (x + 0.5, y + 0.5)
                if box[2] <= 0 or box[3] <= 0 or not contains(box, *at, len(alpha), len(alpha[0]), edge):
                    continue
                seen = [[value * presence for value in row] for row in alpha]
                gamma = [[importance(value, presence, depth, rule) for value in row] for row in alpha]
                a, g = interpolate(box, seen, *at, edge, 0.0), interpolate(box, gamma, *at, edge, 0.0)
                colour = []
                for c in range(channels):
                    here = background[c][y][x]
                    colour.append(a * interpolate(box, appearance[c], *at, edge, here) + (1 - a) * here)
                written.append((g, colour))
            normaliser = sum(g for g, _ in written)
            for c in range(channels):
                if len(written) == 1:
                    out[c][y][x] = written[0][1][c]
                elif normaliser > 0:
                    out[c][y][x] = sum(g * colour[c] for g, colour in written) / normaliser
    return out
