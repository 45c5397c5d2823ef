"""Every measurement: python -m benchmarks [NAME ...] [its own flags] | --quick [--save] | --docs

Without a name, all run but those that need a GPU, gigabytes of the disk, or hours; that takes 89 minutes on 2 cores.
Tables are printed, and numbers go to `benchmarks/results/NAME.json`.
`--quick` runs small measurements in under three minutes and compares their ratios with those stored (`--save` stores
them); `--docs` writes the stored tables into docs/results/.
"""

import contextlib
import sys

from rich.console import Console

from benchmarks import registry
from training import startup_notes


def main(arguments: list[str]) -> int:
    console = Console(width=150)
    if arguments in (["-h"], ["--help"]):
        known = f"NAME: {', '.join(registry.MODULES)}. By name alone: {', '.join(registry.ALONE)}."
        console.print(f"{(__doc__ or '').strip()}\n\n{known}", markup=False, highlight=False)
        return 0
    if arguments in (["--quick"], ["--quick", "--save"]):
        with startup_notes.hidden():
            from benchmarks import quick

        return quick.main(console, save=len(arguments) > 1)
    if arguments == ["--docs"]:
        with startup_notes.hidden():
            from benchmarks import pages

            return pages.main()
    names = []
    while arguments and not arguments[0].startswith("-"):
        names.append(arguments.pop(0))
    if unknown := [name for name in names if name not in registry.MODULES]:
        known = ", ".join(registry.MODULES)
        print(f"Expected names among {known}; Received: {', '.join(unknown)}.", file=sys.stderr)
        return 2
    if arguments and len(names) != 1:
        print(f"Expected one name before flags of its own; Received: {' '.join(names + arguments)}.", file=sys.stderr)
        return 2
    for name in names or [name for name in registry.MODULES if name not in registry.ALONE]:
        with startup_notes.hidden():
            benchmark = registry.load(name)
            with contextlib.suppress(ImportError):  # which Keras on JAX does without
                import tensorflow as tf

                tf.config.list_physical_devices()
        for table in benchmark.main(arguments):
            table.print(console)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
