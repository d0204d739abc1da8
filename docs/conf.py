"""Sphinx settings of the pyro_gan pages; build them with ``make docs``."""

from importlib import import_module
from importlib.metadata import version as installed_version

project = "pyro_gan"
author = "pyro_gan developers"
copyright = "pyro_gan developers, Apache-2.0"
version = release = installed_version("pyro-gan")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "myst_nb",
]
exclude_patterns = ["_build", "_templates", "**.ipynb_checkpoints"]
templates_path = ["_templates"]
default_role = "code"  # docstrings write `name`

# A reference to a name of ours must lead somewhere; other projects' and private names are not looked up, so that the
# pages build without a network.
nitpicky = True
# The second is a type variable, which has no entry of its own.
nitpick_ignore_regex = [(r".*", r"(?!pyro_gan\.).*|.*\._.*"), (r".*", r"pyro_gan\.evaluate\.metric\.Number")]

# Notebooks are shown as they were saved; `make tutorials` is what runs them.
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3

autosummary_generate = True
autosummary_ignore_module_all = True  # a package's page lists its modules; __all__ still rules what theirs show
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"pyro_gan {release}"
html_show_sphinx = False


def skip_twice_told(app, what, name, obj, skip, options):
    """Leave out a NamedTuple's field that the class has told of under `Attributes:`."""
    here = app.env.current_document
    if getattr(obj, "__doc__", None) is None or not obj.__doc__.startswith("Alias for field number"):
        return None
    owner = getattr(import_module(here.autodoc_module), here.autodoc_class, None)
    return True if "Attributes:" in (getattr(owner, "__doc__", None) or "") else None


def setup(app):
    app.connect("autodoc-skip-member", skip_twice_told)
