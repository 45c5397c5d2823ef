"""A search: its settings, its devices, and trials one after the other or on several workers."""

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from inception_v1.spec import Spec, check_choice
from training.distribution.choose import make_strategy
from training.distribution.strategy import Strategy
from training.errors import UserError
from training.recipe import Recipe
from training.run_images import choose_splits
from training.run_state import SAVE_EVERY, Interval
from training.task import RecipeTask, network_for, prepare_task, recipe_distillation
from tuning import oracles, pareto_oracles
from tuning.budget import Budget
from tuning.keras_tuner_patches import original_errors
from tuning.latency_table import LatencyTable
from tuning.oracles import InBudget
from tuning.report.write import write_search_report
from tuning.results import PER_MAC, Results, Standing
from tuning.search_folder import claimed, joined, keep_images, kept_splits, make_objective, make_space, read_search
from tuning.search_latency import LATENCY, find_table
from tuning.shared_settings import SharedSettings
from tuning.shared_trials import SharedTrialRunner, prefix, to_retrain, train_alone
from tuning.space import MULTIPLIERS, Space
from tuning.trials import AnyTask, DatasetTask, TrialOptions, TrialRunner

STRATEGIES = ("default", "mirrored", "tpu")  # those of one process


def search(
    folder: str | os.PathLike[str],
    space: str = "branches",
    *,
    recipe: Recipe,
    datasets: tuple[tf.data.Dataset, tf.data.Dataset] | None = None,
    network: Spec | None = None,
    tuner: str = "bayesian",
    trials: int | None = 20,
    budget: Budget | None = None,
    also: tuple[str, ...] = (),
    proposal: Spec | None = None,
    multipliers: tuple[float, float] = MULTIPLIERS,
    stem: bool = False,
    shared: SharedSettings | None = None,
    objective: str | None = None,
    pareto: bool = False,
    latency: str | os.PathLike[str] | LatencyTable | None = None,
    patience: int | None = None,
    max_failures: int = 3,
    strategy: str | None = None,
    save_every: str | None = SAVE_EVERY,
    show: Callable[[Standing], None] | None = None,
    progress: Callable[[int, int], keras.callbacks.Callback] | None = None,
) -> Results | None:
    """Searches a space for the networks that do best, trial after trial, each a run folder of its own.

    At the end, after Ctrl-C too, the folder gets what `write_search_report` writes: tables, the best network, a page.

    An interrupted search resumes when it is started again with the same arguments: what ended is kept, and the trial
    that was interrupted resumes after the last step whose state was saved. `trials` and `max_failures` may differ from
    before.

    With KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT set (Keras Tuner's variables), the process
    is the chief, which hands out the trials, or a worker, which runs them; all see the same folder.

    Args:
        folder: new, empty, or of this search.
        space: one of `space.SPACES`.
        recipe: how to train each trial, and where from. `recipe.deterministic` makes the scores repeatable.
        datasets: (training, validation) to use in place of the recipe's source: finite, batched (images float
            `(batch, height, width, channels)`, labels int `(batch,)`), already augmented and normalized.
        network: to start from; None for that of the recipe. Needed with `datasets`.
        tuner: one of `oracles.TUNERS`.
        trials: how many, failed ones included; None for all that `grid` or `hyperband` want.
        budget: that every network keeps.
        also: dimensions of the recipe to search as well, of `space.RECIPE`.
        proposal: a network whose widths the second trial has, as nearly as the space can; the first has those of
            `network`.
        multipliers: lowest and highest multiplier of the widths, around 1.
        stem: whether to search a multiplier of the widths before the first block as well.
        shared: trains the widest network of the space once, so that each of its steps trains narrower ones too, and
            scores a trial as a slice of it, with batch statistics measured anew: in seconds. Then the best, or with
            `pareto` networks spread over the front, are trained alone, as many as `shared` asks for. None to train each
            trial.
        objective: a column of the runs' history, or "accuracy_per_mac" (validation accuracy over the multiply-
            accumulates as a fraction of those of the network that the search starts from); None for the validation
            accuracy of the main head, of the average where the recipe keeps one.
        pareto: aim at the front of the objective and the cost instead of the objective alone, by a tuner of
            `pareto_oracles.TUNERS`. The cost is the latency where there is a table, else the multiply-accumulates.
        latency: a latency table of the network that the search starts from, or its file; None for that of the folder,
            and where the budget bounds the latency for one that is measured before the first trial.
        patience: epochs without a better objective after which a trial ends; None for never.
        max_failures: failed trials in a row that end the search.
        strategy: devices of each trial, one of `STRATEGIES`.
        save_every: as of `train`, for each trial.
        show: called after each trial.
        progress: makes a callback for each trial, from the number of epochs and of steps in each.

    Returns:
        All trials; None in a worker.

    Raises:
        UserError: arguments that do not fit, another search's folder, or `max_failures` failures.
        OSError: the folder cannot be written.
    """
    plan = _Plan(
        space=space,
        tuner=tuner,
        trials=trials,
        budget=budget or Budget(),
        also=tuple(also),
        patience=patience,
        max_failures=max_failures,
        recipe=recipe,
        network=network,
        proposal=proposal,
        multipliers=multipliers,
        stem=stem,
        shared=shared,
        pareto=pareto,
        latency=latency,
    )
    interval = Interval.parse(save_every)
    chief, worker = _role()
    if shared:
        _check_shared(plan, strategy, chief or worker)
    distribution = _distribution(strategy, datasets)
    home = Path(folder)
    samples, task = plan.prepare(datasets, distribution, home, reads=not chief)
    aim = make_objective(objective, samples)
    if shared and not (aim.name == PER_MAC or aim.name.startswith(prefix(samples))):
        raise UserError(
            f"Expected an objective of validation ({prefix(samples)}...) with shared weights; Received: {aim.name!r}."
        )
    about = plan.settings(aim.name, samples)
    with joined(home, about) if worker else claimed(home, about):
        if samples.latency and not worker:  # first: with its settings it says which search this is
            samples.latency.write(home / LATENCY)
        if isinstance(task, RecipeTask):
            keep_images(home, task)
        make_oracle = pareto_oracles.make_oracle if pareto else oracles.make_oracle
        oracle = make_oracle(tuner, samples, aim, trials, max_failures, _reporter(samples, show))
        options = TrialOptions(patience, interval, progress)
        runner = _runner(oracle, task, distribution, options, home, shared)
        if worker:
            with original_errors():
                runner.search()
            return None
        runner.save()
        try:
            if isinstance(runner, SharedTrialRunner):
                runner.train_widest()
            with original_errors():
                runner.search()
            oracle.check_failures(home)
            if shared and task:
                train_alone(home, to_retrain(read_search(home), shared), task, distribution, options)
        finally:
            found = read_search(home)
            write_search_report(home, found)
        return found


def _runner(
    oracle: InBudget,
    task: AnyTask | None,
    distribution: Strategy,
    options: TrialOptions,
    home: Path,
    shared: SharedSettings | None,
) -> TrialRunner:
    """What runs the trials: each trained, or a slice of shared weights."""
    if shared and task:
        return SharedTrialRunner(oracle, task, distribution, options, home, shared)
    return TrialRunner(oracle, task, distribution, options, home)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """The arguments of a search."""

    space: str
    tuner: str
    trials: int | None
    budget: Budget
    also: tuple[str, ...]
    patience: int | None
    max_failures: int
    recipe: Recipe
    network: Spec | None
    proposal: Spec | None
    multipliers: tuple[float, float]
    stem: bool
    shared: SharedSettings | None
    pareto: bool
    latency: str | os.PathLike[str] | LatencyTable | None

    def __post_init__(self) -> None:
        check_choice("tuner", self.tuner, oracles.TUNERS)
        if self.pareto:
            pareto_oracles.check_settings(self.tuner, self.budget)
        for name in ("trials", "patience", "max_failures"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"Expected {name} to be 1 or more; Received: {name}={value}.")
        if self.trials is None and self.tuner not in ("grid", "hyperband"):
            raise UserError(f"Expected a number of trials with tuner {self.tuner!r}; Received: trials=None.")
        if self.recipe.weights:
            raise UserError("Expected a recipe without weights, which fit one network; Received: one with them.")

    def prepare(
        self,
        datasets: tuple[tf.data.Dataset, tf.data.Dataset] | None,
        distribution: Strategy,
        home: Path,
        reads: bool,
    ) -> tuple[Space, AnyTask | None]:
        """The space and what its trials train; no task for a process that only hands out trials."""
        if datasets is not None:
            start, steps = _fitting(self.network, datasets)
            space = self._space(start, home)
            teacher = recipe_distillation(self.recipe, start)
            return space, DatasetTask(self.recipe, start, steps, datasets, teacher=teacher)
        splits = kept_splits(home, self.recipe) or choose_splits(self.recipe)
        space = self._space(network_for(self.recipe, splits.train, self.network), home)
        return space, prepare_task(self.recipe, None, distribution.replicas, space.start, splits) if reads else None

    def _space(self, start: Spec, home: Path) -> Space:
        settings = self._space_settings()
        make_space(settings | {"max_latency_ms": None}, start, self.recipe)  # what is wrong ends before a measurement
        table = find_table(home, self.latency, start, self.budget, waits=_role()[1])
        return make_space(settings, start, self.recipe, table)

    def _space_settings(self) -> dict[str, Any]:
        own = {"space": self.space, "also": self.also, "tuner": self.tuner} | dataclasses.asdict(self.budget)
        if self.multipliers != MULTIPLIERS:
            own["multipliers"] = self.multipliers
        if self.stem:
            own["stem"] = True
        # None where they are not used, as in searches of earlier releases, which lack them.
        return own | {"proposal": self.proposal and self.proposal.block_widths(), "pareto": self.pareto or None}

    def settings(self, objective: str, space: Space) -> dict[str, Any]:
        """What distinguishes this search from others."""
        own = self._space_settings() | {"trials": self.trials, "objective": objective}
        own |= {"patience": self.patience, "max_failures": self.max_failures}
        own |= dataclasses.asdict(self.shared) if self.shared else {}
        about = {"settings": own, "recipe": dataclasses.asdict(self.recipe), "network": space.start.to_dict()}
        return json.loads(json.dumps(about))


def _check_shared(plan: _Plan, strategy: str | None, several: bool) -> None:
    """Raises UserError for what shared weights cannot do."""
    expected, backend = "with shared weights", keras.backend.backend()
    if plan.tuner == "hyperband":
        raise UserError(f"Expected another tuner {expected}, whose trials have no epochs; Received: tuner='hyperband'.")
    if plan.also:
        raise UserError(f"Expected no settings of the recipe {expected}, which have one; Received: also={plan.also}.")
    if plan.recipe.teacher or plan.recipe.distill_heads:
        received = f"teacher={plan.recipe.teacher!r}, distill_heads={plan.recipe.distill_heads}"
        raise UserError(f"Expected no teacher and no distill_heads {expected}; Received: {received}.")
    if plan.patience is not None:
        raise UserError(f"Expected no patience {expected}, whose trials have no epochs; Received: {plan.patience}.")
    if several or strategy not in (None, "default"):
        received = f"strategy={strategy!r}{', several processes' if several else ''}"
        raise UserError(f"Expected one process and strategy 'default' {expected}; Received: {received}.")
    if backend != "tensorflow":
        raise UserError(f"Expected Keras' TensorFlow backend {expected}; Received: {backend!r}.")


def _role() -> tuple[bool, bool]:
    """Whether this process is the chief, or a worker, of several, according to Keras Tuner's variables."""
    if "KERASTUNER_ORACLE_IP" not in os.environ:
        return False, False
    chief = "chief" in os.environ.get("KERASTUNER_TUNER_ID", "")
    return chief, not chief


def _distribution(name: str | None, datasets: Any) -> Strategy:
    name = name or "default"
    check_choice("strategy", name, STRATEGIES)
    if datasets is not None and name != "default":
        raise UserError(f"Expected strategy 'default' with datasets of your own; Received: strategy={name!r}.")
    return make_strategy(name)


def _fitting(network: Spec | None, datasets: tuple[tf.data.Dataset, tf.data.Dataset]) -> tuple[Spec, int]:
    """The network itself and the number of training batches, once network and datasets fit each other."""
    if network is None:
        raise UserError("Expected a network (a Spec) with datasets; Received: network=None.")
    for ds in datasets:
        element = ds.element_spec
        shape = element[0].shape if isinstance(element, tuple) and len(element) == 2 else None
        if shape is None or not shape.is_compatible_with((None, *network.input_shape)):
            raise UserError(
                f"Expected datasets of (images, labels), each of the images {network.input_shape}; Received: {element}."
            )
    steps = int(datasets[0].cardinality())
    if steps == tf.data.INFINITE_CARDINALITY or int(datasets[1].cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise UserError("Expected finite datasets, one pass of which is an epoch; Received: an infinite one.")
    return network, steps if steps > 0 else int(datasets[0].reduce(0, lambda count, _: count + 1))


def _reporter(space: Space, show: Callable[[Standing], None] | None) -> Callable[[InBudget, Any], None] | None:
    """What an oracle calls when a trial ended."""
    if show is None:
        return None

    def report(oracle: InBudget, trial: Any) -> None:
        ended = len(oracle.end_order)
        each = (time.monotonic() - oracle.began) / max(ended - oracle.before, 1)
        left = None if oracle.max_trials is None else each * (oracle.max_trials - ended)
        best = [one for one in oracle.get_best_trials(1) if one.score is not None]
        values = space.exact(trial.hyperparameters.values)
        cost, seconds = space.cost(values), space.seconds(values)
        ratios = (cost[0] / space.reference[0], cost[1] / space.reference[1])
        first = next(iter(best), None)
        show(Standing(trial, oracle.objective.name, ended, oracle.max_trials, first, left, ratios, seconds))

    return report
