"""Learning rates of the training steps."""

from __future__ import annotations

import pytest
import torch

from mistnn.errors import MistError
from mistnn.nn.schedule import cosine_share, set_rates


def test_the_rates_fall_along_half_a_cosine():
    assert [cosine_share(step, 0.2, 10) for step in (0, 5, 10, 99)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    assert cosine_share(7, 1.0, None) == 1.0 == cosine_share(7, 1.0, 0)


@pytest.mark.parametrize("length", [None, 0])
def test_a_fall_needs_a_length(length):
    with pytest.raises(MistError, match="step.decay=0.1 needs step.decay_steps"):
        cosine_share(0, 0.1, length)


def test_rates_of_optimizers_and_of_their_groups():
    weights = [torch.zeros(1, requires_grad=True) for _ in range(3)]
    one = torch.optim.SGD(weights[:1], lr=1.0)
    two = torch.optim.SGD([{"params": weights[1]}, {"params": weights[2]}], lr=1.0)
    set_rates({"one": one, "two": two}, {"one": 0.5, "two": [0.25, 0.125]})
    assert [group["lr"] for optimizer in (one, two) for group in optimizer.param_groups] == [0.5, 0.25, 0.125]
    set_rates({"two": two}, {"two": 0.75})
    assert [group["lr"] for group in two.param_groups] == [0.75, 0.75]
    with pytest.raises(ValueError, match="zip"):
        set_rates({"two": two}, {"two": [0.5]})
