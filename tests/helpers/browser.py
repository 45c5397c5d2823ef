"""Pages in headless Chromium, from servers of this machine that record what is asked of them."""

import contextlib
import functools
import http.server
import json
import shutil
import threading
from pathlib import Path

import pytest

from training.export.web import fetch, runtime

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# The policy of the page as a header of every file, also of the worker's, to which the page's own does not apply.
POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
POLICY += "img-src 'self' blob:; style-src 'self'"
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
FLAGS = ["--disable-gpu", "--disable-quic", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]

needs_runtime = pytest.mark.skipif(
    not fetch.is_fetched(), reason=f"{runtime.NAME} is not here: python -m {fetch.__name__} downloads it with npm"
)
needs_node = pytest.mark.skipif(runtime.node_version() is None, reason="Node.js 18 or later is not on the PATH")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not on the PATH")


@contextlib.contextmanager
def serve(folder, **headers):
    """The address of a server of a folder's files, which come with these headers."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def end_headers(self):
            for name, value in {"Content-Security-Policy": POLICY, **headers}.items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("localhost", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://localhost:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def chromium():
    """A browser of `playwright`, which closes at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page that is open, and what went on while it was.

    Attributes:
        page: of `playwright`.
        requests: addresses that the page and its workers asked for.
        errors: what the console reported, and exceptions.
    """

    def __init__(self, browser, address, **context):
        self.requests, self.errors = [], []
        self._context = browser.new_context(**context)
        self._context.on("request", lambda request: self.requests.append(request.url))
        self.page = self._context.new_page()
        self.page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address)

    def __enter__(self):
        self.page.locator("#main").wait_for(timeout=60_000)
        return self

    def __exit__(self, *error):
        self._context.close()

    def numbers(self):
        """What "Save the numbers" saves."""
        with self.page.expect_download() as download:
            self.page.click("#save")
        assert download.value.suggested_filename == "prediction.json"
        return json.loads(Path(download.value.path()).read_text("utf-8"))

    def give(self, name, content, kind="image/png"):
        """Chooses a file, and returns the message that is then shown: an error, or the best class."""
        before = self.message()
        self.page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": content})
        return self.next_message(before)

    def message(self):
        """What the page says at its top."""
        error = self.page.locator("#error")
        return (error if error.is_visible() else self.page.locator("#status")).text_content()

    def next_message(self, before):
        """The message that replaces one."""
        for _ in range(600):
            if (now := self.message()) != before:
                return now
            self.page.wait_for_timeout(50)
        raise AssertionError(f"the page still shows: {before}")
