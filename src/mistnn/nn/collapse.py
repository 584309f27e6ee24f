"""Signs of a collapse of a generative model in its logged scalars."""

from __future__ import annotations

FEW, MOST, INFORMATIVE = 0.1, 0.95, 0.5
"""Our limits: objects per image below which nothing counts as drawn; share of the places for an object above which all
count as taken; nats of z_what per object below which objects look alike."""


def collapse_of(
    objects: float, kl_what: float, taken: float, *, infers: bool, sparse: bool, words: str, fix: str
) -> str | None:
    """One line about the first problem found: no object, an object at nearly every place, or z_what not used.

    Args:
        objects: drawn per image.
        kl_what: nats per image.
        taken: share of the places for an object that hold one.
        infers: whether the model infers the number of objects.
        sparse: whether the prior favours few objects.
        words: what a place is and does, after "99% of the".
        fix: the option that lets the prior favour few objects later.
    """
    if infers and objects < FEW:
        return (
            f"no object is drawn any more ({objects:.2f} per image): unless the images are empty, the model has "
            f"collapsed. Try another seed, or let the prior favour few objects later ({fix})"
        )
    if sparse and taken > MOST:
        return (
            f"{taken:.0%} of the {words} an object although the prior favours few: the number of objects means "
            "nothing. Train longer, or try another seed"
        )
    if objects >= FEW and kl_what < INFORMATIVE * objects:
        return (
            f"all objects look alike: z_what holds {kl_what / objects:.2f} nats per object. Try another seed or a "
            "lower rate (--step.rate)"
        )
    return None
