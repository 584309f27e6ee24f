"""Small systems for photographs, and photographs of coloured shapes."""

from __future__ import annotations

import torch
from torch import nn

from mistnn.models.mist import NaturalMist, NaturalMistConfig
from mistnn.models.rivals import NaturalXie20, NaturalXie20Config
from mistnn.nn.feature_patches import ReaderConfig
from mistnn.records import Batch

EDGE = 64
READER = ReaderConfig(anchors=((32.0, 32.0),), patch_size=4, width=8)
ANCHORS = ReaderConfig(anchors=((16.0, 16.0), (16.0, 48.0), (48.0, 16.0), (48.0, 48.0)), patch_size=4, width=8)
MIST = NaturalMistConfig(("a", "b", "c"), k=2, shorter_edge=EDGE, nms_window=3, reader=READER)
XIE20 = NaturalXie20Config(("a", "b", "c"), k=2, shorter_edge=EDGE, reader=READER)


def build(config: NaturalMistConfig | NaturalXie20Config) -> NaturalMist | NaturalXie20:
    """The system. Its random backbone gets the statistics of noise, without which its features are huge."""
    torch.manual_seed(0)
    model = NaturalMist(config) if isinstance(config, NaturalMistConfig) else NaturalXie20(config)
    norms = [module for module in model.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        model.backbone(torch.rand(4, 3, 128, 128))
    model.backbone.eval()
    return model


def photographs(many: int = 3, height: int = EDGE, width: int = 80) -> Batch:
    random = torch.Generator().manual_seed(1)
    counts = torch.tensor([[1, 0, 0], [0, 2, 0], [1, 0, 1]]).repeat(many, 1)[:many]
    return Batch(torch.rand(many, 3, height, width, generator=random), counts)
