"""Signs of a collapse of AIR in the logged scalars."""

from __future__ import annotations

from collections.abc import Mapping

FEW, MOST, INFORMATIVE, RARE = 0.1, 0.95, 0.5, -2.3
"""Our limits: objects per image below which nothing counts as drawn; share of the steps above which all count as
drawing an object; nats of z_what per object below which objects look alike; prior log odds of one more object (0.1 to
1) below which the prior favours few."""


def collapse_note(values: Mapping[str, float]) -> str | None:
    """Checks whether a training of AIR has collapsed.

    Args:
        values: logged scalars: objects drawn per image; steps_made, the share of the steps that draw one; kl_what, in
            nats per image; for a model that infers the number of objects also prior_log_odds.

    Returns:
        One line about the first problem found: nothing is drawn; nearly every step draws an object although the prior
        favours few; or z_what is not used. ``None`` if there is no problem.
    """
    infers = "prior_log_odds" in values
    if infers and values["objects"] < FEW:
        return (
            f"no object is drawn any more ({values['objects']:.2f} per image): unless the images are empty, the model "
            "has collapsed. Try another seed, or let the prior favour few objects later (a larger --step.annealing)"
        )
    if infers and values["prior_log_odds"] < RARE and values["steps_made"] > MOST:
        return (
            f"{values['steps_made']:.0%} of the steps draw an object although the prior favours few: the number of "
            "objects means nothing. Train longer, or try another seed"
        )
    if values["objects"] >= FEW and values["kl_what"] < INFORMATIVE * values["objects"]:
        return (
            f"all objects look alike: z_what holds {values['kl_what'] / values['objects']:.2f} nats per object. Try "
            "another seed or a lower rate (--step.rate)"
        )
    return None
