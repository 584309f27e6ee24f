from __future__ import annotations

import json
from pathlib import Path

import pytest

from mistnn.data.photographs.published import read_coco
from mistnn.errors import MistError
from tests.data.published import make_coco, voc_xml


@pytest.mark.parametrize(
    ("name", "words"), [("000000000010.jpg", "describes .*10.jpg twice"), ("000000000010.png", "both be called")]
)
def test_coco_names_a_photograph_twice(tmp_path: Path, name: str, words: str) -> None:
    """Its crops would be written over each other."""
    coco = make_coco(tmp_path / "coco", 3)
    listing = coco / "annotations" / "instances_train2017.json"
    content = json.loads(listing.read_text())
    content["images"].append({**content["images"][0], "id": 12345, "file_name": name})
    (coco / "train2017" / name).touch()
    listing.write_text(json.dumps(content))
    with pytest.raises(MistError, match=words):
        read_coco(coco)


def test_voc_xml_is_voc() -> None:
    assert "<xmin>1</xmin><ymin>2</ymin><xmax>10</xmax>" in voc_xml("a", 20, 20, [("bird", 0, 1, 10, 5)])
