"""How a collapse of AIR shows in the scalars of a training."""

from __future__ import annotations

from collections.abc import Mapping

FEW = 0.1
"""Objects drawn an image below which none counts as drawn (our choice)."""

MOST = 0.95
"""Share of the steps made from which all count as made (our choice)."""

SAYS = 0.5
"""Nats of z_what an object below which all objects look alike (our choice)."""

RARE = -2.3
"""Prior log odds of one more object, .1 to 1, from which the prior wants few (our choice)."""


def collapse_note(values: Mapping[str, float]) -> str | None:
    """Whether a training of AIR has collapsed.

    Args:
        values: logged scalars: objects, how many are drawn an image; steps_made, the share of the steps; kl_what, in
            nats an image; of a model that infers the number also prior_log_odds.

    Returns:
        One line on the first of these that is so: nothing is drawn, an object is drawn at nearly every step though the
        prior wants few, or z_what is not used; otherwise nothing.
    """
    infers = "prior_log_odds" in values
    if infers and values["objects"] < FEW:
        return (
            f"no object is drawn any more ({values['objects']:.2f} an image): if images hold any, the model has "
            "collapsed. Try another seed, or let the prior want few objects later (a larger --step.annealing)"
        )
    if infers and values["prior_log_odds"] < RARE and values["steps_made"] > MOST:
        return (
            f"{values['steps_made']:.0%} of the steps draw an object though the prior wants few: the number of objects "
            "means nothing. Train longer, or try another seed"
        )
    if values["objects"] >= FEW and values["kl_what"] < SAYS * values["objects"]:
        return (
            f"all objects look alike: z_what says {values['kl_what'] / values['objects']:.2f} nats of each. Try "
            "another seed or a lower rate (--step.rate)"
        )
    return None
