"""Tables on photographs: house numbers (S001), and Table 4 and the full VOC 2007 of MIST (CVPR 2021)."""

from __future__ import annotations

from mistnn.data.house_numbers.placed_numbers import NAME, holds_numbers
from mistnn.data.house_numbers.svhn import holds_svhn
from mistnn.reproduce.table import Row, Table

PRECISION = ("ap00", "ap50", "ap60", "ap70", "ap80", "ap90")  #: Columns of the paper.
GUESSED = ("iou50", "fixed_iou50", "fixed_ap00", "fixed_ap50")
"""Columns of ours: what was found, and what a guess reaches that sees no image."""
NONE = (None,) * len(GUESSED)
MIST_SVHN = (0.826, 0.765, 0.637, 0.427, 0.199, 0.042)
SUPERVISED_SVHN = (0.656, 0.628, 0.598, 0.519, 0.346, 0.110)

HOUSE_NUMBERS = Table(
    "svhn",
    "Table 4 of the earlier MIST version (S001): house numbers of two digits",
    (*PRECISION, *GUESSED),
    (
        Row("MIST", "SVHN", "mist-svhn", (*MIST_SVHN, *NONE), holds_data=holds_svhn),
        Row("Supervised", "SVHN", "supervised-svhn", (*SUPERVISED_SVHN, *NONE), holds_data=holds_svhn),
        Row("MIST", NAME, "mist-numbers", (None,) * 10, holds_data=holds_numbers),
        Row("MIST, dense (ours)", NAME, "mist-dense-numbers", (None,) * 10, holds_data=holds_numbers),
        Row("Supervised", NAME, "supervised-numbers", (None,) * 10, holds_data=holds_numbers),
    ),
    note=(
        "`ap00` scores the classes alone. The paper's numbers are of SVHN's own photographs; the re-assembled test "
        "crops are other images (docs/house-numbers.md), and numbers measured on them are not comparable with SVHN. "
        "`fixed_...` is a guess without the image: the same two boxes everywhere, with the mean positions and sizes "
        "of the training boxes, both of the most frequent class; `fixed_iou50` is the share of digits that it finds, "
        "whatever their class, for comparison with `iou50`."
    ),
    headline="ap50",
)

NOTE = (
    "A box is right if its centre lies in an object's box and the class agrees (`precision`, `recall`, `f1`; the "
    "paper's text calls the first accuracy, its table precision). `f1_iou50` requires an overlap above one half "
    "instead. K = 2 positions per image are classified, and those of the background are dropped. The photographs and "
    "the pretrained weights are not part of the project: the command needs copies of them. "
)
SMALL_NOTE = (
    "Rows of fewer photographs are of a part of the sources, with ResNet18 and 600 steps. All have learning rates "
    "that were chosen for MIST on validation images. Compare their numbers with each other, not with the paper's."
)
WHOLE = 9780
"""Photographs of the paper's PASCAL+COCO."""
WHOLE_VOC = 9963
"""Photographs of VOC 2007: 5,011 for training and validation, 4,952 for testing."""
PART, PART_VOC = 1221, 2607
"""Photographs of the parts."""
PASCAL_COCO, VOC = f"PASCAL+COCO ({PART:,} photographs)", f"VOC ({PART_VOC:,} photographs)"

NATURAL_TABLES = (
    Table(
        "table4",
        "Table 4: PASCAL+COCO (MIST, CVPR 2021)",
        ("precision", "recall", "f1"),
        (
            Row("MIST", "PASCAL+COCO", "mist-pascal-coco", (0.874, 0.555, 0.679), photographs=WHOLE),
            Row(
                "MIST, 32 x 32 samples a patch",
                "PASCAL+COCO",
                "mist-pascal-coco-32",
                (0.874, 0.555, 0.679),
                photographs=WHOLE,
            ),
            Row("Xie20", "PASCAL+COCO", "xie20-pascal-coco", (0.727, 0.510, 0.600), photographs=WHOLE),
            Row("MIST, ResNet18", PASCAL_COCO, "mist-pascal-coco-1221", (None,) * 3, photographs=PART),
            Row("Xie20, ResNet18", PASCAL_COCO, "xie20-pascal-coco-1221", (None,) * 3, photographs=PART),
        ),
        note=NOTE + SMALL_NOTE,
        photographs=True,
    ),
    Table(
        "voc07",
        "Supplement, section E: full VOC 2007 with four anchors (MIST, CVPR 2021)",
        ("f1", "f1_iou50"),
        (
            Row("MIST", "VOC 2007", "mist-voc07", (0.338, None), photographs=WHOLE_VOC),
            Row("Xie20", "VOC 2007", "xie20-voc07", (0.298, None), photographs=WHOLE_VOC),
            Row("MIST, ResNet18", VOC, "mist-voc-2607", (None, None), photographs=PART_VOC),
            Row("Xie20, ResNet18", VOC, "xie20-voc-2607", (None, None), photographs=PART_VOC),
        ),
        note=(
            "`f1` follows the rule of Table 4: centre in the box and class right; `f1_iou50` requires an overlap of "
            "0.5. The paper does not state which of the two its F1 is. K = 2 is our choice too: in an image with "
            "more objects, not all can be found. " + SMALL_NOTE
        ),
        photographs=True,
    ),
)
