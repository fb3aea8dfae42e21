"""Sphinx: the guides in this folder and the public API, out of its docstrings, as one site."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

project = "LAN cluster simulator"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["pictures"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3  # `page.md#heading` is a link, as where the repository is browsed

# Docstrings write `name` for code, as Markdown does; alone, reStructuredText would set it in italics.
default_role = "code"
autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "exclude-members": "model_config, __init__",
}
autodoc_class_signature = "separated"  # nobody calls these constructors; fields are listed one by one
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
add_module_names = False

html_theme = "alabaster"  # Sphinx's own: no fonts, scripts or styles from elsewhere
html_theme_options = {"page_width": "1080px", "font_family": "sans-serif", "show_powered_by": False}
html_copy_source = False
