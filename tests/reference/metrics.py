"""Slow, obvious loops for the metrics. Images are plain lists: boxes (cx, cy, w, h), scores, labels."""

from __future__ import annotations

import math
from itertools import combinations, permutations


def iou(a, b):
    """Overlap of two boxes by their edges."""
    left, right = max(a[0] - a[2] / 2, b[0] - b[2] / 2), min(a[0] + a[2] / 2, b[0] + b[2] / 2)
    top, bottom = max(a[1] - a[3] / 2, b[1] - b[3] / 2), min(a[1] + a[3] / 2, b[1] + b[3] / 2)
    shared = max(0.0, right - left) * max(0.0, bottom - top)
    union = a[2] * a[3] + b[2] * b[3] - shared
    return shared / union if union > 0 else 0.0


def greedy_match(affinity, threshold, eligible=None):
    """Takes the best remaining pair until none is left. affinity[d][o]."""
    objects = len(affinity[0]) if affinity else 0
    pairs = []
    for d in range(len(affinity)):
        for o in range(objects):
            if affinity[d][o] > threshold and (eligible is None or eligible[d][o]):
                pairs.append((-affinity[d][o], d, o))
    match, used = [-1] * len(affinity), set()
    for _, d, o in sorted(pairs):
        if match[d] == -1 and o not in used:
            match[d] = o
            used.add(o)
    return match


def optimal_match_value(affinity, threshold, eligible=None):
    """(pairs, total affinity) of the best matching, by trying all of them."""
    detections, objects = len(affinity), len(affinity[0]) if affinity else 0
    size = min(detections, objects)
    for pairs in range(size, 0, -1):
        totals = []
        for chosen in combinations(range(detections), pairs):
            for targets in permutations(range(objects), pairs):
                if all(
                    affinity[d][o] > threshold and (eligible is None or eligible[d][o])
                    for d, o in zip(chosen, targets, strict=True)
                ):
                    totals.append(sum(affinity[d][o] for d, o in zip(chosen, targets, strict=True)))
        if totals:
            return pairs, max(totals)
    return 0, 0.0


def _table(found, true):
    return [[iou(a, b) for b in true] for a in found]


def iou50(images):
    """images: list of (boxes, scores, labels, true_boxes, true_labels)."""
    matched = objects = 0
    for boxes, _, _, true, _ in images:
        objects += len(true)
        matched += sum(o != -1 for o in greedy_match(_table(boxes, true), 0.5))
    return matched / objects if objects else math.nan


def both(images):
    matched = objects = 0
    for boxes, _, labels, true, true_labels in images:
        objects += len(true)
        same = [[a == b for b in true_labels] for a in labels]
        matched += sum(o != -1 for o in greedy_match(_table(boxes, true), 0.5, same))
    return matched / objects if objects else math.nan


def classified(images):
    """Removes each true label from the list of predicted labels."""
    right = objects = 0
    for _, _, labels, _, true_labels in images:
        left = list(labels)
        for label in true_labels:
            objects += 1
            if label in left:
                left.remove(label)
                right += 1
    return right / objects if objects else math.nan


def classified_paper(images):
    """As classified, but a class 0 object that is not found costs nothing."""
    missed = objects = 0
    for _, _, labels, _, true_labels in images:
        left = list(labels)
        for label in true_labels:
            objects += 1
            if label in left:
                left.remove(label)
            elif label != 0:
                missed += 1
    return 1 - missed / objects if objects else math.nan


def _verdicts(images, threshold, label):
    """(score, right) of each detection of one class, and the number of its objects. label None: classes ignored."""
    verdicts, objects = [], 0
    for boxes, scores, labels, true, true_labels in images:
        own = [d for d in range(len(boxes)) if label is None or labels[d] == label]
        targets = [o for o in range(len(true)) if label is None or true_labels[o] == label]
        objects += len(targets)
        taken = set()
        for d in sorted(own, key=lambda d: (-scores[d], d)):
            best, best_iou = None, -1.0
            for o in targets:
                overlap = iou(boxes[d], true[o])
                if o not in taken and overlap >= threshold and overlap > best_iou:
                    best, best_iou = o, overlap
            verdicts.append((scores[d], best is not None))
            if best is not None:
                taken.add(best)
    return verdicts, objects


def average_precision(images, threshold, class_aware=True, points=None):
    """For each recall step, the best precision at that recall or above, over all cut-offs of the score."""
    classes = sorted({label for image in images for label in image[4]}) if class_aware else [None]
    values = []
    for label in classes:
        verdicts, objects = _verdicts(images, threshold, label)
        if not objects:
            continue
        curve = []
        for cut in sorted({score for score, _ in verdicts}, reverse=True):
            kept = [right for score, right in verdicts if score >= cut]
            curve.append((sum(kept) / objects, sum(kept) / len(kept)))
        if points is None:
            area, previous = 0.0, 0.0
            for recall, _ in curve:
                area += (recall - previous) * max(p for r, p in curve if r >= recall)
                previous = recall
        else:
            grid = [i * (1 / (points - 1)) for i in range(points - 1)] + [1.0]
            area = sum(max([p for r, p in curve if r >= g], default=0.0) for g in grid) / points
        values.append(area)
    return sum(values) / len(values) if values else math.nan


def centre_scores(images, background=None):
    hits = found = objects = 0
    for boxes, _, labels, true, true_labels in images:
        pairs = []
        for d, (x, y, _, _) in enumerate(boxes):
            for o, (cx, cy, w, h) in enumerate(true):
                distance = max(abs(x - cx) / (w / 2), abs(y - cy) / (h / 2))
                if distance <= 1 and labels[d] == true_labels[o] != background:
                    pairs.append((distance, d, o))
        used_d, used_o = set(), set()
        for _, d, o in sorted(pairs):
            if d not in used_d and o not in used_o:
                used_d.add(d)
                used_o.add(o)
                hits += 1
        found += sum(label != background for label in labels)
        objects += sum(label != background for label in true_labels)
    precision = hits / found if found else math.nan
    recall = hits / objects if objects else math.nan
    f1 = 2 * hits / (found + objects) if found + objects else math.nan
    return precision, recall, f1


def impulse_scores(images, radius=None):
    """(precision, recall, mean distance): the nearest pair left is taken until none is near enough."""
    distances, found, objects = [], 0, 0
    for boxes, _, _, true, _ in images:
        found += len(boxes)
        objects += len(true)
        pairs = []
        for d, (x, y, _, _) in enumerate(boxes):
            for o, (cx, cy, w, _) in enumerate(true):
                squared = (x - cx) ** 2 + (y - cy) ** 2
                if squared <= (w / 2 if radius is None else radius) ** 2:
                    pairs.append((squared, d, o))
        used_d, used_o = set(), set()
        for squared, d, o in sorted(pairs):
            if d not in used_d and o not in used_o:
                used_d.add(d)
                used_o.add(o)
                distances.append(math.sqrt(squared))
    hits = len(distances)
    return (
        hits / found if found else math.nan,
        hits / objects if objects else math.nan,
        sum(distances) / hits if hits else math.nan,
    )


def reconstruction_errors(made, images):
    """(rmse, black, mean image, r2) of lists of flat lists of pixels."""
    count, pixels = len(images), len(images[0])
    mean = [sum(image[p] for image in images) / count for p in range(pixels)]
    error = black = spread = 0.0
    for one, image in zip(made, images, strict=True):
        for p in range(pixels):
            error += (one[p] - image[p]) ** 2
            black += image[p] ** 2
            spread += (mean[p] - image[p]) ** 2
    size = count * pixels
    r2 = 1 - error / spread if spread else math.nan
    return math.sqrt(error / size), math.sqrt(black / size), math.sqrt(spread / size), r2
