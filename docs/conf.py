"""Sphinx configuration."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

project = "mistnn"
author = "The mistnn authors"
copyright = "The mistnn authors"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
nitpicky = True

html_theme = "furo"
html_title = f"mistnn {release}"
