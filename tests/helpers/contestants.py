"""Contestants of benchmarks, whose processes import this module: nothing heavy is imported here."""

import os

from benchmarks import rounds


def writer(file, name, items):
    """A contestant that writes to a file when it is called."""

    def work():
        with open(file, "a") as log:
            log.write(name)
        return items

    return work


def on_device():
    return rounds.OnDevice(lambda: 5, lambda: 77)


def memory_user(count):
    """A contestant that needs so many bytes in a call."""

    def work():
        return len(bytearray(b"x") * count)

    return work


def is_missing():
    import no_such_package  # noqa: F401


def dies():
    return lambda: os._exit(3)
