"""Every block of code in README.md and docs/ runs: those of a few pages here, all of them in `make docs`.

A comment above a block in the page's source changes that, and the site shows it:

    <!-- tested with: FLAGS -->           these flags are added to each `googlenet` command of the block
    <!-- tested with: A instead of B -->  in Python, A replaces B; several are separated by ";"
    <!-- run by: make docs -->            only there
    <!-- not run: REASON -->              neither here nor there; the command lines in it are parsed all the same
"""

import itertools
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser

import googlenet
from tests.helpers import ROOT
from tests.helpers.images import make_folder
from tests.helpers.runs import save_run

EVERY_BLOCK = "GOOGLENET_EVERY_BLOCK" in os.environ  # set by `make docs`
DOCS = ROOT / "docs"
QUICK = {ROOT / "README.md", DOCS / "explanation" / "network.md", DOCS / "reference" / "command_line.md"}
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in DOCS.rglob("*.md") if not page.relative_to(DOCS).parts[0].startswith("_")),
]
EXAMPLES = [page for page in PAGES if page.parent.name == "examples"]
MARK = re.compile(r"<!-- (tested with|run by|not run): (.*?) -->\n")


def marks(example):
    """The comments right above a block."""
    above = example.document.text[: example.start]
    found = re.search(rf"(?:{MARK.pattern})*$", above)[0]
    return dict(MARK.findall(found))


def commands(example):
    """The command lines of a shell block as lists of words, without variables before them."""
    lines = example.parsed.replace("\\\n", " ").splitlines()
    split = [shlex.split(line, comments=True) for line in lines]
    return [words for all_ in split if (words := [*itertools.dropwhile(re.compile(r"[A-Z_]+=").match, all_)])]


def parse(path):
    """The blocks of a page in their order."""
    parsers = [CodeBlockParser("python", run_python), CodeBlockParser("sh", run_shell)]
    return [*Sybil(parsers).parse(path).examples()]


def runs(example):
    found = marks(example)
    here = Path(example.path) in QUICK and "run by" not in found
    return "not run" not in found and (EVERY_BLOCK or here)


def run_python(example):
    source = example.parsed
    for change in filter(None, marks(example).get("tested with", "").split("; ")):
        new, _, old = change.partition(" instead of ")
        assert old in source, change
        source = source.replace(old, new)
    line = example.document.text[: example.start].count("\n") + 1
    exec(compile("\n" * line + source, example.path, "exec"), example.namespace)


def run_shell(example):
    more = shlex.split(marks(example).get("tested with", ""))
    for program, *arguments in commands(example):
        if program == "googlenet":
            run = search if arguments[0] == "tune" else status
            assert run([*arguments, *more]) == 0, f"{example.path}: googlenet {shlex.join(arguments)}"
        else:
            assert program == "python", f"{example.path}: {program} needs a mark"
            subprocess.run([sys.executable, *arguments], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)


def status(arguments):
    try:
        return googlenet.main(arguments)
    except SystemExit as end:
        return end.code


def search(arguments):
    """The status of a search, which turns determinism on for the rest of its process."""
    return subprocess.run([sys.executable, str(ROOT / "googlenet.py"), *arguments], check=False).returncode


@pytest.fixture(scope="module")
def template(tmp_path_factory, data_dir):
    """What the pages suppose to be there: images, runs, and files of weights."""
    import keras
    from PIL import Image
    from sklearn.datasets import load_digits

    from inception_v1 import build_googlenet

    root = tmp_path_factory.mktemp("pages")
    make_folder(root / "photos", count=20, suffixes=(".jpg",))
    for name in ("cat.jpg", "coat.jpg", "shoe.png"):
        Image.open(root / "photos" / "cat" / "1.jpg").save(root / name)
    Image.fromarray((load_digits().images[0] * 255 / 16).astype("uint8")).save(root / "digit.png")
    for name in ("demo", "other"):
        save_run(root / "runs" / name, data_dir, test_split="test[:60]")
        shutil.copy(root / "digit.png", root / "runs" / name)
    keras.utils.set_random_seed(0)
    build_googlenet("torchvision", width_multiplier=0.1, aux=False).save(root / "net.keras")
    if EVERY_BLOCK:
        save_published(root)
    return root


def save_published(root):
    """Files of seeded weights under the names of the published ones, and a converted one in Keras' cache."""
    from inception_v1 import import_weights
    from tests.oracles import caffe, inception5h, torchvision

    (root / "keras" / "models" / "googlenet").mkdir(parents=True)
    torchvision.write(root).rename(root / "googlenet-1378be20.pth")
    caffe.write(root).rename(root / "bvlc_googlenet.caffemodel")
    inception5h.write(root).rename(root / "tensorflow_inception_graph.pb")
    import_weights(root / "googlenet-1378be20.pth").save(root / "keras" / "models" / "googlenet" / "torchvision.keras")


@pytest.fixture
def place(template, tmp_path, monkeypatch, data_dir):
    """A folder to run a page in."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", data_dir)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if any(map(runs, parse(page)))], ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page, place):
    for example in filter(runs, parse(page)):
        example.evaluate()


def check_arguments(arguments):
    """Raises or exits where the command line does not take them."""
    if {"--help", "--version", "--tyro-print-completion"} & set(arguments):
        return
    words = [re.sub(r".*/recipe\.json$", "digits", word) for word in arguments]
    googlenet._parse(words)
    if words[0] == "launch":
        googlenet._parse(googlenet._launched(words))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_line_of_a_page_parses(page):
    """Also of blocks that nothing runs."""
    for example in parse(page):
        for program, *arguments in commands(example) if example.region.evaluator is run_shell else ():
            if program == "googlenet":
                check_arguments(arguments)


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.stem)
def test_the_cells_of_an_example_are_valid(page):
    """`make docs` executes them."""
    for cell in re.findall(r"^```{code-cell}\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        if not cell.startswith("%%bash"):
            compile(cell, page, "exec")
            continue
        variables = dict(re.findall(r'^(\w+)="(.*?)"$', cell, re.DOTALL | re.MULTILINE))
        script = string.Template(cell).safe_substitute(variables).replace("\\\n", " ")
        lines = re.findall(r"^googlenet ([^|\n]*)", script, re.MULTILINE)
        assert lines
        for line in lines:
            check_arguments(shlex.split(line))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_within_the_repository_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_readme_is_one_page():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 200


def test_every_page_is_in_the_site():
    index = (DOCS / "index.md").read_text("utf-8")
    listed = {line for toc in re.findall(r"```{toctree}(.*?)```", index, re.DOTALL) for line in toc.split()}
    pages = {str(page.relative_to(DOCS).with_suffix("")) for page in PAGES if page.is_relative_to(DOCS)}
    assert pages - {"index"} <= listed


def test_marks_are_read_from_right_above_a_block(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: a -->\ntext\n\n<!-- run by: b -->\n<!-- tested with: c -->\n```sh\ngooglenet\n```\n")
    (example,) = parse(page)
    assert marks(example) == {"run by": "b", "tested with": "c"}


def test_every_mark_stands_right_above_a_block():
    for page in PAGES:
        text = page.read_text("utf-8")
        assert len(re.findall(r"<!-- (?!benchmark|end)", text)) == sum(
            len(marks(example)) for example in parse(page)
        ), page
