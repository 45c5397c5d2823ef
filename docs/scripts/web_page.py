"""Writes the page of a digits run for the site, into docs/_generated/site/digits: python docs/scripts/web_page.py

The run of `make demo` is taken where it is there, and else one is trained, once. Where onnxruntime-web or Node is
missing, the page says so.
"""

import json
import logging
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "_generated"
PAGE = FOLDER / "site" / "digits"
TEXT = "This site was built where onnxruntime-web (by npm) or Node.js is missing, which its page of a network needs."


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from training.errors import UserError

    try:
        _write_page()
    except UserError as error:
        logging.warning("The site gets no page of a network. %s", error)
        write_text_page()


def write_text_page() -> None:
    """A page that says why there is no other."""
    shutil.rmtree(PAGE, ignore_errors=True)
    PAGE.mkdir(parents=True)
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>No page</title><p>{TEXT}</p></html>\n"
    (PAGE / "index.html").write_text(page, "utf-8")


def _is_finished(run: Path) -> bool:
    metrics = run / "metrics.json"
    return metrics.is_file() and json.loads(metrics.read_text("utf-8"))["status"] == "finished"


def _write_page() -> None:
    from training.export.web import runtime

    runtime.check_ready(unverified=False)
    import googlenet
    from training.export.export import export

    run = next(filter(_is_finished, (ROOT / "runs" / "demo", FOLDER / "run")), None)
    if run is None:
        run = FOLDER / "run"
        assert googlenet.main(["train", "--out", str(run), "--overwrite"]) == 0
    shutil.rmtree(FOLDER / "digits", ignore_errors=True)
    export(run, FOLDER / "digits", to="web", keep_aux=True)
    shutil.rmtree(PAGE, ignore_errors=True)
    PAGE.parent.mkdir(exist_ok=True)
    shutil.move(FOLDER / "digits" / "1" / "web", PAGE)


if __name__ == "__main__":
    main()
