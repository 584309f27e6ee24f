"""Photographs with annotated objects: PASCAL VOC, COCO and CUB-200-2011."""
