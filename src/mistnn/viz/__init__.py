"""Figures: functions that take records and return a matplotlib ``Figure``. Matplotlib loads on first use."""

from mistnn.viz.cost import CandidatePoint, CostPoint, draw_candidates, draw_cost
from mistnn.viz.counts import draw_counts, draw_histogram
from mistnn.viz.curves import Curve, draw_curves
from mistnn.viz.explanations import DrawnObjects, Explained, draw_objects, draw_parts, draw_syntheses
from mistnn.viz.heatmaps import draw_evolution, draw_heatmap, heatmap_peak
from mistnn.viz.saving import figure_to_png, picture_to_png, save_animation, save_figure
from mistnn.viz.scenes import class_label, draw_comparison, draw_samples, draw_scenes, missed_truth, residual
from mistnn.viz.style import DARK, LIGHT, Theme
from mistnn.viz.transformers import TransformerExample, draw_transformers

__all__ = [
    "DARK",
    "LIGHT",
    "CandidatePoint",
    "CostPoint",
    "Curve",
    "DrawnObjects",
    "Explained",
    "Theme",
    "TransformerExample",
    "class_label",
    "draw_candidates",
    "draw_comparison",
    "draw_cost",
    "draw_counts",
    "draw_curves",
    "draw_evolution",
    "draw_heatmap",
    "draw_histogram",
    "draw_objects",
    "draw_parts",
    "draw_samples",
    "draw_scenes",
    "draw_syntheses",
    "draw_transformers",
    "figure_to_png",
    "heatmap_peak",
    "missed_truth",
    "picture_to_png",
    "residual",
    "save_animation",
    "save_figure",
]
