"""The cells of SPAIR one by one in reading order, and its objective term by term: plain loops from the equations."""

from __future__ import annotations

import math

import torch


def context_of(model, elements, row, column, rows, columns):
    """What the neighbours before a cell show, row by row; the edge element where there is none."""
    raw = model.cells.edge
    edge = torch.cat([raw[:4].sigmoid(), raw[4:-1], raw[-1:].sigmoid()])
    reach, found = model.config.look_back, []
    for r in range(row - reach, row + 1):
        for c in range(column - reach, column + reach + 1):
            if r == row and c >= column:
                break
            there = 0 <= r and 0 <= c < columns
            found.append(elements[r, c] if there else edge)
    return torch.cat(found) if found else raw.new_zeros(0)


def backbone(model, image):
    """The features of every cell of one image, by a network on exactly what that cell reads."""
    config = model.config
    reads = 1
    for stride in reversed(config.strides):
        reads = (reads - 1) * stride + 4
    rows, columns = image.shape[1] // config.cell, image.shape[2] // config.cell
    convolutions = [layer for layer in model.backbone.layers if isinstance(layer, torch.nn.Conv2d)]
    features = {}
    for row in range(rows):
        for column in range(columns):
            features[row, column] = _walk(convolutions, image, row * config.cell, column * config.cell, reads, config)
    return features


def _walk(convolutions, image, top, left, reads, config):
    """The cell's own crop, zeros beyond the image; after each layer, zeros beyond the image's part of the map."""
    seen = torch.nn.functional.pad(image, (0, reads, 0, reads))[:, top : top + reads, left : left + reads]
    height, width = image.shape[1:]
    for index, layer in enumerate(convolutions):
        seen = layer(seen[None])[0]
        if index < len(convolutions) - 1:
            seen = seen.relu()
        if index < len(config.strides):
            stride = config.strides[index]
            height, width, top, left = height // stride, width // stride, top // stride, left // stride
            for r in range(seen.shape[1]):
                for c in range(seen.shape[2]):
                    if top + r >= height or left + c >= width:
                        seen = seen.clone()
                        seen[:, r, c] = 0
    return seen[:, 0, 0]


def infer(model, image):
    """The latents of one image in eval mode: (box, what, depth, logit) of every cell in reading order."""
    cells, config = model.cells, model.config
    rows, columns = image.shape[1] // config.cell, image.shape[2] // config.cell
    features, elements, found = backbone(model, image), {}, []
    for row in range(rows):
        for column in range(columns):
            context = context_of(model, elements, row, column, rows, columns)
            seen = torch.cat([features[row, column], context])
            out = cells.box_network(seen)
            place, passed = out[:4].sigmoid(), out[8:]
            low, high = config.bounds
            x, y = low + (high - low) * place[0], low + (high - low) * place[1]
            box = torch.stack(
                [
                    (x + column) * config.cell,
                    (y + row) * config.cell,
                    place[2] * config.base_box,
                    place[3] * config.base_box,
                ]
            )
            shown = torch.stack([x, y, place[2], place[3]])
            what = cells.object_encoder(glimpse(image, box, config.object_size))[: config.attributes]
            out = cells.depth_network(torch.cat([seen, shown, what, passed]))
            depth, passed = out[:1], out[2:]
            logit = cells.presence_network(torch.cat([seen, shown, what, passed, depth])).clamp(-10, 10)
            elements[row, column] = torch.cat([shown, what, depth, (logit > 0).float()])
            found.append((box, what, depth, logit))
    return [torch.stack(part) for part in zip(*found, strict=True)]


def glimpse(image, box, size):
    """Bilinear samples at the middles of size x size parts of the box; all within the image."""
    channels, height, width = image.shape
    values = []
    for channel in range(channels):
        for i in range(size):
            for j in range(size):
                x = float(box[0] + ((j + 0.5) / size - 0.5) * box[2]) - 0.5
                y = float(box[1] + ((i + 0.5) / size - 0.5) * box[3]) - 0.5
                value = torch.zeros(())
                for r in (math.floor(y), math.floor(y) + 1):
                    for c in (math.floor(x), math.floor(x) + 1):
                        # One pixel beyond the edge repeats it; then there is nothing.
                        if -1 <= r <= height and -1 <= c <= width:
                            pixel = image[channel, min(max(r, 0), height - 1), min(max(c, 0), width - 1)]
                            value = value + (1 - abs(y - r)) * (1 - abs(x - c)) * pixel
                values.append(value)
    return torch.stack(values)


def normal_kl(mean, deviation, prior):
    """KL(N(mean, deviation^2) || N(prior)) of one number."""
    m, s = prior
    return math.log(s / deviation) + (deviation**2 + (mean - m) ** 2) / (2 * s**2) - 0.5
