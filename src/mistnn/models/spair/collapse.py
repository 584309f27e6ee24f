"""Signs of a collapse of SPAIR in the logged scalars."""

from __future__ import annotations

from collections.abc import Mapping

SPARSE, FEW, MOST, INFORMATIVE = 0.5, 0.1, 0.95, 0.5
"""Our limits: the s above which the prior favours few objects (below it, all cells may be on); objects per image below
which all cells count as off; share of cells on above which all count as on; nats of z_what per object below which
objects look alike."""


def collapse_note(values: Mapping[str, float]) -> str | None:
    """Checks whether a training of SPAIR has collapsed.

    Args:
        values: logged scalars: s; objects, the number of cells on per image; on, their share; kl_what, in nats per
            image.

    Returns:
        One line about the first problem found: no cell is on; nearly all are on although s is high; or z_what is not
        used. ``None`` if there is no problem.
    """
    if values["objects"] < FEW:
        return (
            f"no object is drawn any more ({values['objects']:.2f} per image): unless the images are empty, the model "
            "has collapsed. Try another seed, or let the prior favour few objects later (--step.schedule-scale 2)"
        )
    if values["s"] < SPARSE:
        return None
    if values["on"] > MOST:
        return (
            f"{values['on']:.0%} of the cells hold an object although the prior favours few: the number of objects "
            "means nothing. Train longer, or try another seed"
        )
    if values["kl_what"] < INFORMATIVE * values["objects"]:
        return (
            f"all objects look alike: z_what holds {values['kl_what'] / values['objects']:.2f} nats per object. Try "
            "another seed or a lower rate (--step.rate)"
        )
    return None
