"""Prints how far our logits are from those of each original executor.

python -m tests.oracles
"""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

from rich.console import Console
from rich.table import Table

from tests.inception_v1.weights.test_parity import CASES, EVERY_SIZE, difference, oracle, ours, theirs, written


def main() -> None:
    table = Table("file", "executor", "size", "main", "aux1", "aux2", title="largest difference of logits")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case, size in EVERY_SIZE:
            x, expected = theirs(folder, case, size)
            module, write, _ = CASES[case]
            mine = ours(written(folder, module, tuple(write.items())), size, x, aux=len(expected) > 1)
            found = [
                f"{difference(mine[h], expected[h]):.1e}" if h in expected else "" for h in ("main", "aux1", "aux2")
            ]
            table.add_row(case, oracle(module).EXECUTOR, f"{size[0]}x{size[1]}", *found)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
