"""The documentation site; `launch/docs.sh` builds it, and a warning is an error."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

import spaced_kd

sys.path.insert(0, str(Path(__file__).parent / "_site"))

import docstrings
import pages

project = "spaced_kd"
author = "The spaced_kd authors"
release = version = spaced_kd.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_site"]
# A quotation mark in these texts is typed as printed.
smartquotes = False

myst_heading_anchors = 4

# Docstrings write names in single backticks.
default_role = "code"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# Types of other packages have no page here.
nitpick_ignore_regex = [("py:.*", ".*")]

html_theme = "furo"
html_title = "spaced_kd"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = html_show_copyright = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#2f5f8f",
        "color-brand-content": "#2f5f8f",
    },
    "dark_css_variables": {
        "color-brand-primary": "#8fb8e0",
        "color-brand-content": "#8fb8e0",
    },
}


def setup(app: Sphinx) -> None:
    """Let pages and docstrings pass through our hands first."""

    def read(_: Sphinx, name: str, source: list[str]) -> None:
        source[0] = pages.for_site(source[0], name)

    def mend(_: Sphinx, what: str, _name, _object, _options, lines: list[str]) -> None:
        if what == "class":
            lines[:] = docstrings.as_list(lines)
        lines[:] = docstrings.endings(lines)

    app.connect("source-read", read)
    app.connect("autodoc-process-docstring", mend)
