"""Sphinx configuration."""

import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

project = "mistnn"
author = "The mistnn authors"
copyright = "The mistnn authors"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
nitpicky = True
# Types in signatures are names of other projects, or shapes.
nitpick_ignore_regex = [("py:.*", ".*")]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Convention", "Reference", "Metrics"]
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"mistnn {release}"


def setup(app: Any) -> None:
    """Leaves out the fields of named tuples, which the class's own ``Attributes`` describe."""
    app.connect("autodoc-skip-member", _skip)


def _skip(app: Any, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    return True if str(getattr(member, "__doc__", "")).startswith("Alias for field number") else None
