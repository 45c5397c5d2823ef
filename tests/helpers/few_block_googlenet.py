"""`googlenet` with networks of a few blocks, also in the processes that it launches."""

import sys

import googlenet
from tests.helpers.blocks import few_blocks

if __name__ == "__main__":
    googlenet.__file__ = __file__  # what `googlenet launch` starts
    with few_blocks():
        sys.exit(googlenet.main())
