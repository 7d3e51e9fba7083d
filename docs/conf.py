"""Sphinx builds the site: ``python -m sphinx -W --keep-going -n docs docs/_build``."""

import importlib.metadata
import os
import sys

import numpyro_llc

# Users write nllc.exact and nllc.zoo, and so does the reference; their files are in `known`.
sys.modules["numpyro_llc.exact"] = numpyro_llc.exact
sys.modules["numpyro_llc.zoo"] = numpyro_llc.zoo
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # of the notebooks

project = "numpyro_llc"
author = "the numpyro_llc developers"
release = importlib.metadata.version("numpyro_llc")

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinxcontrib.bibtex",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates"]

# Pages.
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"
copybutton_exclude = ".linenos, .gp, .go"

# Notebooks run at each build, and an error in one fails the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 1200  # of a cell: seconds on a machine that does other work
nb_merge_streams = True

# The reference, from docstrings. Types are in the docstrings, so signatures go without.
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

# No other project's inventory is read, so that the build needs no network.
nitpick_ignore_regex = [
    (r"py:obj", r".*"),  # numpydoc's links to attributes, which have no page of their own
    (r"py:.*", r"(arviz|jax|matplotlib|numpy|numpyro|pandas|scipy|xarray)\..*"),
]

html_theme = "pydata_sphinx_theme"
html_title = "numpyro_llc"
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "footer_start": [],
    "footer_end": ["sphinx-version"],
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {"changelog": [], "references": []}
html_copy_source = False
html_show_sourcelink = False
