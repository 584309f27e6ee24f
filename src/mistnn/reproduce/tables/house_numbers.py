"""House numbers: Table 4 of the earlier MIST version (S001)."""

from __future__ import annotations

from mistnn.data.house_numbers.placed_numbers import NAME, holds_numbers
from mistnn.data.house_numbers.svhn import holds_svhn
from mistnn.reproduce.table import Row, Table

PRECISION = ("ap00", "ap50", "ap60", "ap70", "ap80", "ap90")
"""Columns of the paper."""
GUESSED = ("iou50", "fixed_iou50", "fixed_ap00", "fixed_ap50")
"""Columns of ours: what was found, and what a guess reaches that sees no image."""
NONE: tuple[float | None, ...] = (None,) * len(GUESSED)

HOUSE_NUMBERS = Table(
    "svhn",
    "Table 4 of the earlier MIST version (S001): house numbers of two digits",
    (*PRECISION, *GUESSED),
    (
        Row("MIST", "SVHN", "mist-svhn", (0.826, 0.765, 0.637, 0.427, 0.199, 0.042, *NONE), holds_data=holds_svhn),
        Row(
            "Supervised",
            "SVHN",
            "supervised-svhn",
            (0.656, 0.628, 0.598, 0.519, 0.346, 0.110, *NONE),
            holds_data=holds_svhn,
        ),
        Row("MIST", NAME, "mist-numbers", (None,) * len(PRECISION) + NONE, holds_data=holds_numbers),
        Row("Supervised", NAME, "supervised-numbers", (None,) * len(PRECISION) + NONE, holds_data=holds_numbers),
    ),
    note=(
        "`ap00` scores the classes alone. The paper's numbers are of SVHN's own photographs; the re-assembled test "
        "crops are other images (docs/house-numbers.md), and numbers measured on them are not comparable with SVHN. "
        "`fixed_...` is a guess without the image: the same two boxes everywhere, with the mean positions and sizes "
        "of the training boxes, both of the most frequent class; `fixed_iou50` is the share of digits that it finds, "
        "whatever their class, for comparison with `iou50`."
    ),
    searched_by="both",
)
