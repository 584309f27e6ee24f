"""The papers' mathematics: pure functions of tensors. No modules, no files, no configuration."""

from mistnn.ops.landmarks import soft_argmax
from mistnn.ops.selection import Selection, hard_topk, perturbed_topk, soft_topk, straight_through_topk

__all__ = ["Selection", "hard_topk", "perturbed_topk", "soft_argmax", "soft_topk", "straight_through_topk"]
