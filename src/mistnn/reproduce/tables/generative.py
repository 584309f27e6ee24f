"""Tables of the systems that find objects by drawing the image: AIR, SPAIR and their baselines."""

from __future__ import annotations

from mistnn.reproduce.table import Least, Row, Size, Table

AIR_RUNS = 5  #: Default number of seeds of the AIR table, which asks how many of them learn to count.

AIR = Table(
    "air",
    "AIR: counting no, one or two digits without labels (Eslami et al., NeurIPS 2016)",
    ("count_accuracy", "count_error", "ap", "rmse"),
    (Row("AIR with a relaxed z_pres", "50 x 50, 0 to 2 digits", "air-original", (0.98, None, None, None)),),
    note=(
        "The column of the paper holds what the authors of the widely used open implementation report of their own "
        "runs: a count accuracy of 98 % after about 25,000 iterations, in ten of ten. `count_accuracy` is the share "
        "of test images whose number of digits is right; training never uses the number of digits."
    ),
    least=Least("count_accuracy", 0.98),
)

_NONE = (None,) * 7  #: The paper shows curves without numbers.

_SYSTEMS = (("SPAIR", "spair"), ("AIR, count given", "air"), ("DAIR, count given", "dair"), ("ConnComp", "conncomp"))
_FULLER = (("1 to 5", 5), ("6 to 10", 10), ("11 to 15", 15))

SPAIR = Table(
    "spair",
    "SPAIR: objects by drawing the image (Crawford and Pineau, AAAI 2019)",
    ("ap", "ap50", "ap_ink", "ap50_ink", "count_error", "count_accuracy", "rmse"),
    (
        *(
            Row(system, f"48 x 48, {digits} digit{'s' if digits > 1 else ''}", f"{name}-{digits}", _NONE)
            for digits in (1, 5, 9)
            for system, name in _SYSTEMS
        ),
        *(
            Row(f"{name.upper()}, count given, priors as released", "48 x 48, 1 digit", f"{name}-1-released", _NONE)
            for name in ("air", "dair")
        ),
        Row("SPAIR, no look-back", "48 x 48, 5 digits", "spair-5-no-look-back", _NONE),
        *(
            Row("SPAIR, trained on 48 x 48", f"84 x 84, {digits} digits", f"spair-transfer-{most}", _NONE, curve=True)
            for digits, most in _FULLER
        ),
    ),
    note=(
        "SPAIR, AIR and DAIR are trained for the same number of steps and images; ConnComp learns nothing: a "
        "grid search for its threshold sees 10 batches of 32 images, in seconds. AIR and DAIR are given the number of "
        "digits, in testing too, so their count means nothing. The paper trains for up to 300,000 steps and shows "
        "curves without numbers. "
        "`ap` is the mean over overlaps above .1, .2 ... .9. The true box is a digit's frame of 14 x 14 pixels, of "
        "which the ink takes about half; `..._ink` uses the box around the ink. The errors on 84 x 84 with 1 to 20 "
        "digits are in the entries."
    ),
    least=Least("ap50_ink", 0.5, "SPAIR"),
    size=Size(loop=(8000, 32)),
    headline="ap50_ink",
)

GENERATIVE_TABLES = (AIR, SPAIR)
