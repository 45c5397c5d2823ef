"""Sphinx' settings: sphinx-build -W -n docs docs/_build/html (make docs)"""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from myst_nb.core import render
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "scripts")]
import web_page  # noqa: E402

os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # what examples call
os.environ["PYTHONPATH"] = str(ROOT)
os.environ |= {"TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
os.environ["TTY_COMPATIBLE"] = "0"  # kernels claim to be terminals with colors

project = "googlenet-keras"
author = "The googlenet-keras maintainers"
copyright = "the googlenet-keras maintainers, Apache-2.0"
release = importlib.metadata.version("googlenet-keras")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "_generated", "clusters", "scripts"]
html_theme = "furo"
html_title = f"GoogLeNet for Keras {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_generated/site"]  # the page of docs/scripts/web_page.py
templates_path: list[str] = []
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
autodoc_typehints = "none"  # the signatures have them in the source; docstrings say what they mean
autodoc_member_order = "bysource"
napoleon_attr_annotations = False  # likewise

nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_timeout = 900
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_output_stderr = "remove"  # what TensorFlow logs; errors end the build all the same

COMMANDS = ("train", "tune", "launch", "evaluate", "show", "compare", "predict", "export", "import-weights")
COMMANDS += ("visualize", "explain", "augment", "data-service", "summary")
MARKS = {
    "tested with": "*The tests run this with {}.*",
    "not run": "*The tests do not run this: {}.*",
    "run by": "",
}


def join_streams(outputs: list[Any]) -> list[Any]:
    """What a cell printed as one output: IPython passes on what a shell prints in pieces of 100 bytes.

    MyST-NB's own function ends each piece with a newline.
    """
    joined: list[Any] = []
    for output in outputs:
        if output["output_type"] == "stream" and joined and joined[-1].get("name") == output["name"]:
            joined[-1]["text"] += output["text"]
        else:
            joined.append(output)
    return joined


render.coalesce_streams = join_streams


def write_commands(app: Sphinx) -> None:
    """Writes the help of every command, as the parser prints it."""
    parts = []
    for name in COMMANDS:
        command = [sys.executable, str(ROOT / "googlenet.py"), name, "--help"]
        text = subprocess.run(
            command, env=os.environ | {"COLUMNS": "88"}, capture_output=True, text=True, check=True
        ).stdout
        parts.append(f"### googlenet {name}\n\n```text\n{text.rstrip()}\n```\n")
    folder = Path(app.srcdir, "_generated")
    folder.mkdir(exist_ok=True)
    (folder / "commands.md").write_text("\n".join(parts), "utf-8")


def check_web_page(app: Sphinx) -> None:
    """Sees to it that there is something at the place of the page that the site embeds."""
    if not (web_page.PAGE / "index.html").is_file():
        web_page.write_text_page()


def show_marks(app: Sphinx, document: str, source: list[str]) -> None:
    """Shows how the tests run a block: the comments above blocks, which Markdown hides."""

    def shown(match: re.Match[str]) -> str:
        text = match[2] if match[1] == "not run" else f"`{match[2]}`"
        return MARKS[match[1]].format(text)

    source[0] = re.sub(r"<!-- (tested with|not run|run by): (.*?) -->", shown, source[0])


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", write_commands)
    app.connect("builder-inited", check_web_page)
    app.connect("source-read", show_marks)
