from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mistnn.metrics import count_errors
from tests.reference import metrics as reference


@given(st.integers(1, 4), st.integers(1, 5), st.data())
@settings(max_examples=50, deadline=None)
def test_reference(classes, images, data):
    table = st.lists(st.lists(st.integers(0, 3), min_size=classes, max_size=classes), min_size=images, max_size=images)
    predicted, true = data.draw(table), data.draw(table)
    found = count_errors(torch.tensor(predicted), torch.tensor(true))
    total, per_class, accuracy = reference.count_errors(predicted, true)
    assert found.total == pytest.approx(total) and found.accuracy == pytest.approx(accuracy)
    assert found.per_class.tolist() == pytest.approx(per_class)


def test_errors_of_classes_do_not_cancel_but_those_of_the_total_do():
    found = count_errors(torch.tensor([[2, 0], [1, 1]]), torch.tensor([[0, 2], [1, 3]]))
    assert found.total == 1.0 and found.accuracy == 0.5
    assert found.per_class.tolist() == [1.0, 2.0]


@pytest.mark.plain
def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        count_errors(torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least one image"):
        count_errors(torch.ones(0, 3, dtype=torch.int64), torch.ones(0, 3, dtype=torch.int64))
