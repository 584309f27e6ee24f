"""The annotations of other programs that are read, by their kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mistnn.data.folder.formats import Drawn, cell_counter, cvat, geojson, imagej_rois, labelme, napari, via, yolo
from mistnn.data.folder.label_studio import label_studio

READERS: Mapping[str, Callable[[Path, str, list[str]], Iterator[Drawn]]] = {
    "annotations of CVAT": cvat,
    "annotations of LabelMe": labelme,
    "annotations of VIA": via,
    "annotations of Label Studio": label_studio,
    "annotations of YOLO": yolo,
    "markers of Cell Counter": cell_counter,
    "ROIs of ImageJ": imagej_rois,
    "annotations as GeoJSON": geojson,
    "a layer of napari": napari,
}
"""The kinds of ``tool_of`` that are read."""
