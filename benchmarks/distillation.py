"""What auxiliary heads that learn from the main one are worth: python -m benchmarks distillation

Each network of a quarter of the paper's width is trained twice from the same seed: from the labels alone, and with
`--distill-heads` as well. The table shows how much top-1 changes on the test split, and how much longer a step takes;
steps are those of `fit`, of one batch that stays in memory, and the networks take turns. The recipe `fashion` in full
takes about two hours a seed on 2 cores of a CPU without bfloat16. A benchmark that was interrupted resumes.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import results, rounds, trained_runs
from benchmarks.results import ResultTable
from benchmarks.steps import Step, on_tensorflow
from benchmarks.trained_runs import describe_seeds, difference, spread, train_or_read

if TYPE_CHECKING:
    from inception_v1.spec import Spec
    from training.recipe import Recipe

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

NAME = "distillation"
WIDTH = 0.25
LABELS = "labels alone"
STEPS = 8  # that are timed together
LEAST_GAIN = 0.3  # points of top-1 that are worth the trouble: about the difference between two seeds
MOST_TIME = 1.1  # of a step, in place of which the recipe could train longer


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    parser = results.parser(NAME, __doc__, rounds=15)
    trained_runs.add_flags(parser, NAME)
    parser.set_defaults(width_multiplier=WIDTH)
    parser.add_argument("--distill-heads", type=float, nargs="+", default=[1.0], help="Weights of the divergence.")
    return results.run_with_flags(NAME, parser, arguments, measure, tables)


def measure(options: Any) -> dict[str, Any]:
    """Accuracies for each seed, and images per second of steps, by how the network learns."""
    from inception_v1.spec import read_spec
    from training.run_folder import SPEC

    recipe = trained_runs.changed_recipe(options)
    learned = {LABELS: recipe}
    learned |= {f"distill_heads {w:g}": dataclasses.replace(recipe, distill_heads=w) for w in options.distill_heads}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in learned}
    for seed in options.seeds:  # every way before the next seed, so that an interrupted benchmark has pairs
        for name, own in learned.items():
            folder = options.out / f"{name.replace(' ', '_')}-{seed}"
            runs[name].append(train_or_read(folder, dataclasses.replace(own, seed=seed)))
            spec = read_spec(folder / SPEC)  # the same of all
    makers = {name: functools.partial(_step, own, spec) for name, own in learned.items()}
    return {
        "about": results.about(),
        "recipe": trained_runs.describe_runs(options, recipe),
        "rounds": options.rounds,
        "runs": runs,
        "steps": rounds.alternate(makers, options.rounds, warmup=2),
    }


def _step(recipe: "Recipe", spec: "Spec") -> rounds.Work:
    """Some steps of a network as `googlenet train` compiles it, in a process of its own."""
    import tensorflow as tf

    from training.precision import precision
    from training.task import recipe_distillation
    from training.train import compile_model, head_loss_weights, set_seed

    set_seed(recipe)
    tf.config.optimizer.set_experimental_options({"remapping": False})  # as in `fit`
    with precision(recipe.precision):
        model = compile_model(recipe, spec, 1, head_loss_weights(recipe, spec), recipe_distillation(recipe, spec))
    random = np.random.default_rng(0)
    shape = (recipe.batch_size, recipe.image_size, recipe.image_size, spec.input_shape[2])
    images = random.uniform(-1, 1, shape).astype("float32")
    labels = random.integers(0, spec.classes, recipe.batch_size)
    model.create_training_variables(images, labels)
    model.make_train_function()
    return on_tensorflow(Step(recipe.batch_size, recipe.image_size, repeats=STEPS), model, images, labels)


def tables(result: dict[str, Any]) -> list[ResultTable]:
    """Accuracy and the time of a step by how the network learns, beside that from the labels alone."""
    runs, steps = result["runs"], result["steps"]
    rows = []
    for name, own in runs.items():
        rate, first = (rounds.median(steps[each]) for each in (name, LABELS))
        compared = ["", ""] if name == LABELS else [difference(own, runs[LABELS]), f"{first / rate:.3f}"]
        rows.append([name, spread(own, "validation"), spread(own, "top1"), compared[0], f"{rate:.0f}", compared[1]])
    about = results.machine(result["about"], "tensorflow", "keras")
    title = (
        f"Self-distillation by {result['recipe']}; top-1 in %, {describe_seeds(len(runs[LABELS]))}, goal "
        f"at least {LEAST_GAIN:+.1f} points; images/s of steps, median of {result['rounds']} rounds, goal at most "
        f"{MOST_TIME} times the time; {about}"
    )
    heads = ["learns from", "validation", "test", "difference from labels alone, points", "images/s", "relative time"]
    return [ResultTable(title, heads, rows)]
