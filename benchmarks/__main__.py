"""Every measurement: python -m benchmarks [NAME ...] [its own flags] | --quick [--save] | --readme

NAME is one or more of train, inference, input, startup, scaling, growth and gpu; none: all of them but gpu, half an
hour on 2 cores. Tables are printed, numbers go to `benchmarks/results/NAME.json`. `--quick` measures small ones in
under three minutes and compares their ratios with those stored (`--save` stores them); `--readme` writes the stored
tables into README.md.
"""

import importlib
import sys

from rich.console import Console

MODULES = {
    "train": "train",
    "inference": "inference",
    "input": "input_pipeline",
    "startup": "startup",
    "scaling": "scaling",
    "growth": "growth",
    "gpu": "gpu",
}


def main(arguments: list[str]) -> int:
    console = Console(width=150)
    if arguments in (["-h"], ["--help"]):
        console.print((__doc__ or "").strip(), markup=False, highlight=False)
        return 0
    if arguments in (["--quick"], ["--quick", "--save"]):
        return importlib.import_module("benchmarks.quick").main(console, save=len(arguments) > 1)
    if arguments == ["--readme"]:
        return importlib.import_module("benchmarks.readme").main()
    names = []
    while arguments and not arguments[0].startswith("-"):
        names.append(arguments.pop(0))
    if unknown := [name for name in names if name not in MODULES]:
        print(f"Expected names among {', '.join(MODULES)}; Received: {', '.join(unknown)}.", file=sys.stderr)
        return 2
    if arguments and len(names) != 1:
        print(f"Expected one name before flags of its own; Received: {' '.join(names + arguments)}.", file=sys.stderr)
        return 2
    for name in names or [name for name in MODULES if name != "gpu"]:
        for table in importlib.import_module(f"benchmarks.{MODULES[name]}").main(arguments):
            table.print(console)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
