"""Searches without training: a formula that takes its place, and made-up trials and results for reports."""

import csv
import dataclasses
import math

import numpy as np
from rich.console import Console

from inception_v1 import Spec, cost
from inception_v1.atomic_files import write_json
from inception_v1.spec import Widths
from training import run_folder
from training.recipe import Recipe
from tuning import Budget
from tuning.results import COMPLETED, FAILED, Results, Trial

KEPT = Budget(keep_macs=0.05)
PAPER = Spec("batchnorm", input_shape=(32, 32, 1), classes=10, width_multiplier=0.5)


class ProcessKilled(BaseException):
    """Stands in for a kill of the process."""


class SimulatedTraining:
    """Takes the place of training: an accuracy that rises to what the multipliers give, best at 1.4, 0.7, 1.4, ...

    Attributes:
        calls: (folder, values, epochs that were done before, last epoch) of each call.
        errors: what the n-th call raises, from 1.
        reported: number of trials in each report that was written.
    """

    def __init__(self):
        self.calls, self.errors, self.reported = [], {}, []

    def train(self, runner, run, values, until):
        """Takes the arguments of `TrialRunner._train`."""
        history = run / run_folder.HISTORY
        done = len(history.read_text().splitlines()) - 1 if history.is_file() else 0
        self.calls.append((run.path, values, done, until))
        if len(self.calls) in self.errors:
            raise self.errors[len(self.calls)]
        run.create(runner._space.recipe_of(values), runner._space.network(values), list("0123456789"))
        distances = [(math.log(value) - 0.35 * (-1) ** place) ** 2 for place, value in enumerate(widths_of(values))]
        limit = 0.9 - sum(distances) / len(distances)
        rows = [
            {"epoch": e, "val_main_accuracy": limit * (1 - 0.5 ** (e + 1)), "loss": 0.2, "val_loss": 0.1}
            for e in range(until)
        ]
        with history.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        write_json(run / run_folder.METRICS, {"status": "finished", "epochs": until, "seconds": 1.0})


def widths_of(values):
    """The multipliers of a sample, without the dimensions of the recipe."""
    return [value for value in values.values() if not isinstance(value, str)]


def outcomes(results):
    """What decides a search, to compare two of them."""
    return [(trial.number, trial.status, trial.values, trial.score) for trial in results.trials]


def make_trial(number, score, values=None, status=None, macs=None, **fields):
    """A trial whose block 3a is `number` channels wider than the paper's."""
    widths = {"3a": Widths(*(channels + number for channels in PAPER.block_widths()["3a"]))}
    spec = PAPER if number == 0 else dataclasses.replace(PAPER, widths=widths)
    counted = cost(spec).without_aux()
    known = {
        "spec": spec,
        "recipe": Recipe(learning_rate=0.1 + number),
        "params": counted.params,
        "macs": counted.macs if macs is None else macs,
        "metrics": {} if score is None else {"epoch": 7.0, "val_main_accuracy": score},
        "epochs": 8,
        "seconds": 12.5,
        "message": "",
    }
    status = status or (FAILED if score is None else COMPLETED)
    return Trial(number, status, values or {"1x1": 1.0 + number}, score=score, **known | fields)


def make_results(*trials, direction="max", settings=None):
    return Results(settings or {"recipe": "digits"}, "val_main_accuracy", direction, trials)


def make_trials(count, dimensions, matters=(), noise=0.0, seed=0, **fields):
    """Completed trials whose score is the sum of the dimensions in `matters`."""
    rng = np.random.default_rng(seed)
    values = [{f"d{n}": float(v) for n, v in enumerate(row)} for row in rng.uniform(0.25, 1.5, (count, dimensions))]
    scores = [0.5 + 0.1 * sum(v[name] for name in matters) + noise * rng.normal() for v in values]
    return [make_trial(n, score, v, spec=PAPER, **fields) for n, (score, v) in enumerate(zip(scores, values))]


def rendered(renderable, width=110):
    """What a terminal of that width shows."""
    console = Console(record=True, width=width)
    console.print(renderable)
    return console.export_text()
