"""`googlenet` with networks of four blocks, also in the processes that it launches."""

import sys

import googlenet
from tests.helpers.blocks import four_blocks

if __name__ == "__main__":
    googlenet.__file__ = __file__  # what `googlenet launch` starts
    with four_blocks():
        sys.exit(googlenet.main())
