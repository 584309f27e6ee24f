"""What holds for every test: checked shapes, few threads, fixed seeds."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parents[1]
PLAIN = os.environ.get("MISTNN_PLAIN") == "1"
MNIST_FILE = "t10k-labels-idx1-ubyte.gz"

# The hook must stand before the first import of mistnn, and stays: submodules are imported late.
# It wants its checker by name. An int is good where a float is asked for, as it is for static checkers (PEP 484).
if not PLAIN:
    checker = ModuleType("mistnn_shape_checks")
    checker.check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # type: ignore[attr-defined]
    sys.modules[checker.__name__] = checker
    install_import_hook("mistnn", f"{checker.__name__}.check")

# Two cores are the reference machine. Under xdist each worker has one, and so have the commands that tests start.
THREADS = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
torch.set_num_threads(THREADS)
os.environ["OMP_NUM_THREADS"] = str(THREADS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the tests marked ``plain`` where the shape checks are on: they'd see the hook's error, not ours."""
    if PLAIN:
        return
    left_out = [item for item in items if item.get_closest_marker("plain") is not None]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.get_closest_marker("plain") is None]


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """The same numbers whatever ran before."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """A folder with the real MNIST files; the test is skipped, and says why, where there is none."""
    given = os.environ.get("MIST_DATA")
    roots = [Path(given)] if given else [ROOT.parent / "shared" / "data"]
    for root in roots:
        for folder in (root, root / "mnist", root / "MNIST" / "raw"):
            if (folder / MNIST_FILE).is_file():
                return root
    pytest.skip(f"needs the MNIST files, and {roots[0]} has none: set MIST_DATA to their folder")
