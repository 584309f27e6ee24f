"""Photographs with annotated objects: data sets built from PASCAL VOC and COCO, and the birds of CUB-200-2011."""

from mistnn.data.photographs.built import NaturalConfig, NaturalImages, read_built
from mistnn.data.photographs.cub import CubConfig, CubImages, read_cub

__all__ = ["CubConfig", "CubImages", "NaturalConfig", "NaturalImages", "read_built", "read_cub"]
