"""Keras' folder in a user's home."""

import os
from pathlib import Path


def keras_home() -> Path:
    """`KERAS_HOME`, or `.keras` in the home folder."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
