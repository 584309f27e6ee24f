"""Photographs with annotated objects: data sets built from PASCAL VOC and COCO, and the birds of CUB-200-2011."""
