import pytest


@pytest.fixture(scope="module", autouse=True)
def _shallow(shallow):
    """No test here is about the layers of a network."""
