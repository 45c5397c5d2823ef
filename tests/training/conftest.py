import pytest


@pytest.fixture(scope="module", autouse=True)
def _four_blocks(four_blocks):
    """Networks have four blocks in all tests of this folder, since none is about layers; `all_blocks` gives a test all
    nine."""
