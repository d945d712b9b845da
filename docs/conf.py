"""Settings of Sphinx. ``pip install ".[docs]" && sphinx-build -W docs docs/_build`` builds the site."""

import runpy
import sys
from pathlib import Path

import latex2mathml.converter
from docutils import nodes

import rnncore

project = "rnncore"
author = "The rnncore developers"
copyright = author
version = release = rnncore.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_nb",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
nitpicky = False

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # tests/test_notebooks.py executes them; the site shows the outputs that are saved

autosummary_generate = True
# The bridges to these libraries are documented without them, and without what their modules inherit from them.
autodoc_mock_imports = ["torch", "onnx", "google", "safetensors"]
autodoc_typehints = "none"  # numpydoc describes the types
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "furo"
html_title = f"rnncore {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True
copybutton_remove_prompts = True


def draw_figures(app):
    """Draw every picture of the site; docs/figures/*.py each write theirs."""
    target = Path(app.srcdir) / "_figures"
    target.mkdir(exist_ok=True)
    sys.path.insert(0, str(app.srcdir))  # for docs/drawing.py
    for script in sorted((Path(app.srcdir) / "figures").glob("*.py")):
        runpy.run_path(str(script))["draw"](target)


def visit_math(self, node):
    self.body.append(latex2mathml.converter.convert(node.astext()))
    raise nodes.SkipNode


def visit_math_block(self, node):
    self.body.append(f'<div class="math">{latex2mathml.converter.convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app):
    # Browsers show MathML themselves: no script from elsewhere, and the site works offline.
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    app.connect("builder-inited", draw_figures)
