"""Pictures: functions that take records and return a matplotlib ``Figure``; matplotlib loads when one is drawn."""

from mistnn.viz.animation import save_animation
from mistnn.viz.comparison import draw_comparison
from mistnn.viz.cost import CandidatePoint, CostPoint, draw_candidates, draw_cost
from mistnn.viz.counts import draw_counts, draw_histogram
from mistnn.viz.curves import Curve, draw_curves
from mistnn.viz.evolution import draw_evolution
from mistnn.viz.heatmaps import draw_heatmap, draw_heatmap_history, heatmap_peak
from mistnn.viz.objects import DrawnObjects, draw_objects
from mistnn.viz.parts import Explained, draw_parts, draw_syntheses
from mistnn.viz.patches import draw_patches, draw_reconstructions, residual
from mistnn.viz.scenes import class_label, draw_samples, draw_scenes, missed_truth
from mistnn.viz.style import DARK, LIGHT, Theme, figure_to_png, picture_to_png, save_figure
from mistnn.viz.transformers import Looked, draw_transformers

__all__ = [
    "DARK",
    "LIGHT",
    "CandidatePoint",
    "CostPoint",
    "Curve",
    "DrawnObjects",
    "Explained",
    "Looked",
    "Theme",
    "class_label",
    "draw_candidates",
    "draw_comparison",
    "draw_cost",
    "draw_counts",
    "draw_curves",
    "draw_evolution",
    "draw_heatmap",
    "draw_heatmap_history",
    "draw_histogram",
    "draw_objects",
    "draw_parts",
    "draw_patches",
    "draw_reconstructions",
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
