import pytest


@pytest.fixture(scope="module", autouse=True)
def _few_blocks(few_blocks):
    """Networks have a few blocks in all tests of this folder, since none is about layers; `all_blocks` gives a test all
    nine."""
