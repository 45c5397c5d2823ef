import pytest

from tuning.report import write


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Replaces the fixture of all tests: there is no network here to clear away, which takes 0.3 s a test."""


@pytest.fixture
def unrendered(monkeypatch):
    """Leaves out the rendering of the figures, which takes most of the time."""
    monkeypatch.setattr(write, "save", lambda figure, path: path.write_bytes(b"figure"))
