"""How a collapse shows in the scalars of a training."""

from __future__ import annotations

from collections.abc import Mapping

PUSHED = 0.5
"""From this s on the prior wants few objects; before it, all cells may well be on (our choice)."""

FEW = 0.1
"""Objects an image below which all cells count as off (our choice)."""

MOST = 0.95
"""Share of the cells on from which all count as on (our choice)."""

SAYS = 0.5
"""Nats of z_what an object below which all objects look alike (our choice)."""


def collapse_note(values: Mapping[str, float]) -> str | None:
    """Whether a training of SPAIR has collapsed.

    Args:
        values: logged scalars: s; objects, the number of cells on in an image; on, their share; presence, the mean
            z_pres; kl_what, in nats an image.

    Returns:
        One line on the first of these that is so: no cell is on, nearly all are though s is high, or z_what is not
        used; otherwise nothing.
    """
    if values["objects"] < FEW:
        return (
            f"no object is drawn any more ({values['objects']:.2f} an image): if images hold any, the model has "
            "collapsed. Try another seed, or let the prior want few objects later (--step.schedule-scale 2)"
        )
    if values["s"] < PUSHED:
        return None
    if values["on"] > MOST:
        return (
            f"{values['on']:.0%} of the cells hold an object though the prior wants few: the number of objects means "
            "nothing. Train longer, or try another seed"
        )
    if values["kl_what"] < SAYS * values["objects"]:
        return (
            f"all objects look alike: z_what says {values['kl_what'] / values['objects']:.2f} nats of each. Try "
            "another seed or a lower rate (--step.rate)"
        )
    return None
