"""Sphinx configuration: MyST pages, the reference from docstrings, tutorials run by the gallery."""

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "derand_fast"
author = "The derand_fast developers"
copyright = "2026, the derand_fast developers"
release = version_of("derand-fast")
version = release

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "sphinx-mathjax-offline",
]
default_role = "code"
exclude_patterns = ["_build", "gallery/*.md", "gallery/*.rst"]
html_theme = "furo"
html_title = f"derand_fast {release}"
html_static_path = ["_static"]
html_logo = html_favicon = "_static/logo.svg"
html_show_sourcelink = False

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
# The whole members of the classes that users hold are listed by the templates.
numpydoc_class_members_toctree = False

# Docstrings are tested with their modules, by the tests; here, the pages.
doctest_test_doctest_blocks = ""
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

doctest_global_setup = """
import networkx as nx
import numpy as np
"""


sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "tutorials",
    "filename_pattern": r"/plot_",
    "copyfile_regex": r".*\.rst",
    "download_all_examples": False,
    "image_scrapers": ("matplotlib", "named_figures"),
    "show_signature": False,
    "write_computation_times": False,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "min_reported_time": 1000,
}

# Docstrings are written to be read in a terminal: |x| is a norm there and fit_ a name, where
# reStructuredText sees a substitution and a link.
_LITERAL = re.compile(r"(``.*?``|`[^`]+`)")
_MARKUP = re.compile(r"(\||(?<=\w)_(?!\w))")


def _escape_formulas(app, what, name, obj, options, lines):
    """Escape what is not meant as markup; code, doctests and displayed formulas stay."""
    literal = False
    for number, line in enumerate(lines):
        if literal:
            literal = not line.strip() or line.startswith(" ")
        if not literal and not line.lstrip().startswith((">>>", "...")):
            parts = _LITERAL.split(line)
            parts[::2] = [_MARKUP.sub(r"\\\1", part) for part in parts[::2]]
            lines[number] = "".join(parts)
            literal = line.endswith("::")


def setup(app):
    """Escape before numpydoc (priority 500) reads the sections."""
    app.connect("autodoc-process-docstring", _escape_formulas, priority=400)
