"""Configuration of Sphinx for these pages: `make docs`, or `python -m sphinx docs build/docs`."""

import sys
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # wherever Sphinx is started

import leadline
from leadline.reports.charts.chart import DARK, LIGHT, Palette

project = "Leadline"
author = "The Leadline developers"
copyright = author
version = release = leadline.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "docs.extensions.charts",
    "docs.extensions.commands",
    "docs.extensions.docstrings",
    "docs.extensions.mathml",
]
nitpicky = True

# --- Markdown

myst_enable_extensions = ["dollarmath"]
myst_dmath_allow_space = False
myst_dmath_allow_digits = False
myst_heading_anchors = 3
highlight_language = "none"
smartquotes_action = "D"  # dashes; quotes in tables of keys are part of what is typed

# --- docstrings

autodoc_default_options = {"exclude-members": "model_config"}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autosummary_generate = False  # the tables link to what a page documents itself
napoleon_numpy_docstring = False
maximum_signature_line_length = 90
python_use_unqualified_type_names = True
add_module_names = False
default_role = "py:obj"  # docstrings write code between single backticks: a link where it names something
nitpick_ignore_regex = [
    ("py:obj", "(?s).*"),  # which most code does not
    ("py:class", ".*"),  # types in signatures, which mypy knows: of other libraries, or without a page of their own
]

# --- HTML


def _variables(palette: Palette) -> dict[str, str]:
    """Return the colours of a palette by the names that figures have for them."""
    names = {each.name: getattr(palette, each.name) for each in fields(palette) if each.name != "arms"}
    return names | {f"arm-{number}": colour for number, colour in enumerate(palette.arms, 1)}


html_theme = "furo"
html_title = "Leadline"
html_static_path = ["style"]
html_css_files = ["page.css"]
html_js_files = ["page.js"]
html_theme_options = {
    "light_css_variables": _variables(LIGHT),
    "dark_css_variables": _variables(DARK) | {"color-background-primary": DARK.ground},
}
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # would fetch pages, which browsers refuse to pages that are files
