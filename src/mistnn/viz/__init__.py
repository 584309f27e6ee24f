"""Pictures: functions that take records and return a matplotlib ``Figure``; matplotlib loads when one is drawn."""

from mistnn.viz.curves import Curve, draw_curves
from mistnn.viz.heatmaps import draw_heatmap, draw_heatmap_history, heatmap_peak
from mistnn.viz.patches import draw_patches, draw_reconstructions, residual
from mistnn.viz.scenes import class_label, draw_samples, draw_scenes, missed_truth
from mistnn.viz.style import DARK, LIGHT, Theme, figure_to_png, picture_to_png, save_figure

__all__ = [
    "DARK",
    "LIGHT",
    "Curve",
    "Theme",
    "class_label",
    "draw_curves",
    "draw_heatmap",
    "draw_heatmap_history",
    "draw_patches",
    "draw_reconstructions",
    "draw_samples",
    "draw_scenes",
    "figure_to_png",
    "heatmap_peak",
    "missed_truth",
    "picture_to_png",
    "residual",
    "save_figure",
]
