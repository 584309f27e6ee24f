"""What the repository says of its own numbers is what its ledger holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from mistnn.reproduce.figures import discovery
from mistnn.reproduce.ledger import read_ledger
from mistnn.reproduce.results_page import results_page
from mistnn.weights import read_config, shipped_folder, shipped_names

ROOT = Path(__file__).parents[2]
LEDGER = ROOT / "results"


def test_the_page_of_results_is_made_from_the_ledger() -> None:
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert page == results_page(read_ledger(LEDGER)), "run `mist results`"


@pytest.mark.parametrize("name", shipped_names())
def test_a_card_has_the_numbers_of_its_entry(name: str) -> None:
    """Every model in the package is measured, and its card and the ledger agree."""
    # As the package's weights are read; a table may read those of earlier runs otherwise, and says so.
    measured = [entry for entry in read_ledger(LEDGER) if entry.name == name and entry.train_seed == 0]
    (entry,) = [entry for entry in measured if not entry.reading] or measured
    card = (shipped_folder() / name / "README.md").read_text(encoding="utf-8")
    told = ("iou50", "both") if "both" in entry.metrics else ("rmse", "rmse_black")
    for metric in told:
        assert f"{entry.metrics[metric]:.3f}" in card, metric
    record = read_config(name).training
    assert record is not None and record.steps == entry.steps and entry.images == 1000
    assert f"{entry.steps:,} steps of {entry.batch_size} images" in card


def test_figures_find_their_own_model() -> None:
    defaults = {discovery.HARD_MODEL, discovery.GABOR_MODEL}
    assert defaults <= set(shipped_names())
