"""The demo with the heat-map network in bfloat16 and in float32: is as much classified correctly?

python -m benchmarks.precision [--seeds 3] [--steps 400] [--ledger results]
"""

import dataclasses
from collections.abc import Iterator
from typing import Literal, get_args

from benchmarks.ablation import Variant, main
from mistnn.experiments import lifted_parts
from mistnn.presets import find_preset
from mistnn.presets.mist.digits import EMBEDDED_THREE

STEPS = 400
METRICS = ("iou50", "classified", "both")
Precision = Literal["float32", "bfloat16"]


def variants() -> Iterator[Variant]:
    demo = find_preset("demo-paper").experiment
    for precision in get_args(Precision):
        step = dataclasses.replace(lifted_parts(demo)[1], precision=precision)
        experiment = dataclasses.replace(demo, data=EMBEDDED_THREE, step=step)
        yield Variant(f"precision-{precision}", f"the demo, heat-map network in {precision}", experiment)


if __name__ == "__main__":
    main("precision", __doc__, variants(), METRICS, STEPS)
