"""The browser of the tests."""

from __future__ import annotations

import importlib
import os
import shutil
from typing import Any

import pytest


def chromium() -> Any:
    """Playwright, and the path of a browser; skips with a reason where one is missing."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium is installed (Debian: apt install chromium; or name it in CHROMIUM)")
    try:
        return importlib.import_module("playwright.sync_api").sync_playwright, path
    except ImportError:
        pytest.skip("playwright is not installed (pip install playwright)")
