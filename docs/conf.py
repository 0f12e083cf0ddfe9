"""The documentation site: the Markdown pages as they stand, and the reference from docstrings.

Sphinx reads the repository's root, so that links between README, docs and examples mean on the site
what they mean on a code host, and are checked; ``make docs`` fails at any warning.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import reference  # noqa: E402 (found by the line above)
from docutils import nodes  # noqa: E402
from sphinx import addnodes  # noqa: E402

from vq.version import VERSION  # noqa: E402

project = "Signbook"
copyright = "the authors of Signbook, Apache-2.0"
version = release = VERSION

extensions = [
    "myst_parser",  # Markdown
    "sphinx.ext.autodoc",  # docstrings
    "sphinx.ext.napoleon",  # their sections
    "sphinx.ext.viewcode",  # and the source behind each
]
source_suffix = {".md": "markdown"}
include_patterns = ["*.md", "docs/**.md", "examples/README.md", "tests/golden/README.md"]
exclude_patterns = [".*", "out", "build"]
templates_path = ["templates"]
root_doc = "README"

#: Pages by the headings of the sidebar; a page that is missing here fails the build.
PAGES = {
    "Use": [
        "usage",
        "recipes",
        "training",
        "assignments",
        "perturbation",
        "diffusion",
        "packed",
        "models-and-data",
        "exports",
    ],
    "Compensating quantisers": [
        "scalar-quantizers",
        "scalar-models",
        "compensated-codebooks",
        "scalars-and-codebooks",
    ],
    "Formats": ["spec-vqstream-1", "spec-vqstream-2", "spec-integer-graph", "stability"],
    "Hardware": ["accelerator", "registers", "hardware-checks", "memory"],
    "Measure": ["cycle-model", "workloads", "sweeps", "reports", "peers"],
    "Findings": ["results", "demo", "log", "/examples/README"],
    "The house": ["architecture", "/CONTRIBUTING", "/tests/golden/README", "/CHANGELOG"],
    "Reference": [f"api/{package}" for package in reference.PACKAGES],
}

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
add_module_names = False
napoleon_google_docstring = False
napoleon_custom_sections = [("Members", "params_style"), ("Buffers", "params_style")]
napoleon_use_rtype = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

# A reference to something of ours must lead somewhere; words in the type of a parameter are prose.
nitpicky = True
nitpick_ignore_regex = [("py:.*", rf"(?!({'|'.join(reference.PACKAGES)})\.).*")]

html_theme = "furo"
html_title = f"Signbook {VERSION}"
html_additional_pages = {"index": "index.html"}
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {"top_of_page_buttons": []}
html_copy_source = False
html_show_sphinx = False


def _with_navigation(app, docname, source):
    """Give the front page the sidebar, which a code host would show as text."""
    if docname == root_doc:
        for caption, pages in PAGES.items():
            names = "\n".join(p if p.startswith("/") else f"/docs/{p}" for p in pages)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{names}\n```\n"


def _without_aliases(app, what, name, member, skip, options):
    """Leave out the fields of named tuples: their class describes them."""
    return True if type(member).__name__ == "_tuplegetter" else None


def _by_python_scope(app, doctree):
    """Read words in types and errors as Python would in that module; the rest is prose."""
    for node in list(doctree.findall(addnodes.pending_xref)):
        if node.get("refdomain") == "py" and node.get("refspecific"):
            name = node["reftarget"]
            scopes = (node.get("py:module"), "vq.errors")
            home = next(filter(None, (reference.defined(f"{s}.{name}") for s in scopes)), None)
            if home:
                node["reftarget"], node["refspecific"] = home, False
            else:
                node.replace_self(nodes.emphasis(name, name))


def _to_its_home(app, env, node, contnode):
    """Lead a name to the module that defines it; what no page describes stays text."""
    for scope in (f"{node.get('py:module')}.", ""):
        home = reference.defined(scope + node["reftarget"]) if node["refdomain"] == "py" else None
        if home:
            domain, page = env.domains["py"], node["refdoc"]
            return (
                domain.resolve_xref(env, page, app.builder, "obj", home, node, contnode) or contnode
            )


def setup(app):
    """Write the pages of the reference before Sphinx looks for pages."""
    reference.write(HERE / "api")
    app.connect("source-read", _with_navigation)
    app.connect("autodoc-skip-member", _without_aliases)
    app.connect("doctree-read", _by_python_scope)
    app.connect("missing-reference", _to_its_home)
