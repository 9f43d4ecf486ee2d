"""The site: `make docs` builds it, with every link, anchor and reference checked; it needs no network."""

import sys
from pathlib import Path

from initiator import __version__
from initiator.config.example import render
from initiator.errors import Code

sys.path.insert(0, str(Path(__file__).parent))
from log_events import table

project = "initiator"
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["examples"]  # programs, and the libraries that they bring
nitpicky = True
# named in signatures, and nothing to make or call
nitpick_ignore = [
    ("py:class", "initiator.core.wallet.WalletKeys"),
    ("py:class", "initiator.dev.stack.Stack"),
    ("py:class", "initiator.loopthread.LoopThread"),
]
# other libraries' names would need their inventories from the network; what is ours must resolve
nitpick_ignore_regex = [("py:.*", r"(?!initiator\.).*")]

myst_heading_anchors = 4
myst_enable_extensions = ["substitution"]
myst_substitutions = {
    "codes": " · ".join(f"[{code}](../runbook.md#{code.lower()})" for code in Code),
    "log_events": table(),
    "settings": f"```yaml\n{render()}```",
}

default_role = "code"  # docstrings write `name`
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = f"initiator {release}"
html_copy_source = False
html_show_copyright = False
