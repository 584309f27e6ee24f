"""Slow, obvious loops for the equations of the paper, one image at a time."""

from __future__ import annotations


def heatmap_loss(heatmap, ideal):
    """Equation 7, the mean over pixels."""
    total, pixels = 0.0, 0
    for line, ideal_line in zip(heatmap, ideal, strict=True):
        for value, wanted in zip(line, ideal_line, strict=True):
            total += (wanted - value) ** 2
            pixels += 1
    return total / pixels


def reconstruction_loss(image, placed):
    """Equation 8. placed is a list of whole canvases, one a patch."""
    total = 0.0
    for c, plane in enumerate(image):
        for i, line in enumerate(plane):
            for j, value in enumerate(line):
                total += (value - sum(canvas[c][i][j] for canvas in placed)) ** 2
    return total


def class_proportion_loss(labels, probabilities, classes):
    """Equation 9, with the sum over the L instances written out. labels may be empty."""
    total = 0.0
    for c in range(classes):
        wanted = sum(1.0 for label in labels if label == c) / len(labels) if labels else 0.0
        found = sum(p[c] for p in probabilities) / len(probabilities)
        total += (wanted - found) ** 2
    return total


def presence_loss(present, probabilities):
    """Of one image: present is a list of booleans, one a known class; probabilities of each patch may have more."""
    total = 0.0
    for c, there in enumerate(present):
        if there:
            total += (1 - max(p[c] for p in probabilities)) ** 2
        else:
            total += sum(p[c] ** 2 for p in probabilities) / len(probabilities)
    return total


def lifting_penalty(keypoints, anchors):
    """The penalty of equation 6 without lambda."""
    return sum((x - a) ** 2 + (y - b) ** 2 for (x, y), (a, b) in zip(keypoints, anchors, strict=True))


def mass_offset(patch):
    """Centre of mass of the squared deviation from each channel's mean, as a fraction of the side, from the centre."""
    size = len(patch[0])
    mass = x = y = 0.0
    for plane in patch:
        mean = sum(sum(line) for line in plane) / size**2
        for i, line in enumerate(plane):
            for j, value in enumerate(line):
                weight = (value - mean) ** 2
                mass += weight
                x += weight * ((j + 0.5) / size - 0.5)
                y += weight * ((i + 0.5) / size - 0.5)
    return (x / mass, y / mass) if mass > 1e-12 else (0.0, 0.0)
