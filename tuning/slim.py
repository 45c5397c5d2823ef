"""Slimming: a trained network without the channels that matter least, fine-tuned, as a run folder of its own."""

import dataclasses
import os
from typing import Any, NamedTuple

import numpy as np

from inception_v1 import GoogLeNet, Spec, cost
from inception_v1.atomic_files import check_folder, write_json
from inception_v1.dependencies import channels
from inception_v1.slimming import remove_channels
from inception_v1.spec import check_choice, read_spec
from training import run_folder as files
from training.data.sources import Splits
from training.distillation import Distillations, Teacher
from training.distribution.choose import make_strategy
from training.distribution.strategy import Strategy
from training.errors import UserError
from training.evaluation.metrics import score
from training.evaluation.predictor import predict
from training.recipe import Recipe
from training.run_folder import RunFolder
from training.run_images import load_splits
from training.run_state import SAVE_EVERY, Interval
from training.task import RecipeTask, prepare_task
from training.train import FitOptions, ShowProgress, check_aux_schedule, remove_states, run_task, set_seed
from training.transfer import estimate_statistics
from tuning import allocation
from tuning.allocation import Widths
from tuning.criteria import CRITERIA, best_channels, check_scales
from tuning.latency import onnx_latencies
from tuning.report.slimming import slimming_of, write_slimming_page
from tuning.sensitivity import MaskedNetwork, Track, sensitivity
from tuning.slim_settings import SLIMMING, SlimSettings
from tuning.training_examples import BATCH, Examples, training_examples

STRATEGIES = ("default", "mirrored", "data-parallel")  # those of one process
BUDGETS = tuple(n / 10 for n in range(9, 0, -1))  # fractions at which the accuracy before fine-tuning is measured


def slim(
    run: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    settings: SlimSettings,
    *,
    strategy: str | None = None,
    overwrite: bool = False,
    save_every: str | None = SAVE_EVERY,
    command: str = "",
    show: ShowProgress | None = None,
    track: Track = lambda items, count, title: items,
) -> dict[str, Any]:
    """Removes channels of a run's best network until a budget holds, and fine-tunes what is left.

    `folder` becomes an ordinary run on the splits of the source, whose `spec.json` has explicit widths, with
    `slimming.json`: the settings, the channels that stayed, the sensitivity of the branches, and both networks'
    accuracies, costs and latencies, which its page shows too. The auxiliary heads keep their own hidden layers. An
    interrupted call resumes as `train` does when it is made again with the same arguments. Nothing of `run` changes.

    Args:
        run: folder of a trained run.
        folder: new, empty, of an interrupted call, or (with `overwrite`) of any earlier run.
        settings: which channels go, and how the rest is trained.
        strategy: one of `STRATEGIES`; None for "default".
        overwrite: whether an earlier run there may be replaced.
        save_every: as of `train`.
        command: what the user typed; kept beside the numbers.
        show: as of `train`.
        track: shows progress over items, from them, their number and a title.

    Returns:
        What `slimming.json` holds.

    Raises:
        UserError: a run without weights, a budget that the network keeps already or cannot reach (the smallest is
            named), a criterion that the family does not have, too few images, or a folder in use: nothing is written.
            Or a loss that is not finite.
        OSError: the folder cannot be written.
        KeyboardInterrupt: as `train`.
    """
    source, target, interval = RunFolder(run), RunFolder(folder), Interval.parse(save_every)
    check_choice("strategy", strategy or "default", STRATEGIES)
    if source.path.resolve() == target.path.resolve():
        raise UserError(f"Expected a folder other than that of the run; Received: {str(target.path)!r} for both.")
    check_folder(target.path)
    model = source.model()
    _check(model.spec, settings)
    recipe, distribution = fine_tuning_recipe(source.recipe(), settings), make_strategy(strategy or "default")
    distribution.check(recipe)
    check_aux_schedule(recipe)
    about = {"source": str(source.path.resolve()), "settings": dataclasses.asdict(settings)}
    known = _is_known(target, about, overwrite)
    if known and target.metrics()["status"] == "finished" and "top1" not in slimming_of(target)["networks"]["slimmed"]:
        with target.locked():
            return _complete(target)  # it was interrupted behind the last epoch
    resumes = _resumes(target, recipe, known, overwrite, distribution)
    splits = load_splits(source)
    set_seed(recipe)
    examples = None if resumes else training_examples(splits, recipe, settings.images)
    with target.locked(), distribution.detect_failures():
        plan = make_plan(model, settings, examples, track) if examples else None
        task = _task(model, recipe, settings, splits, distribution, plan.network.spec if plan else target_spec(target))
        if plan:
            task = dataclasses.replace(task, pretrained=plan.network)
            before = _before(model, plan, task)
            task.create(target)
            write_json(target / SLIMMING, about | plan.describe() | before)
        options = FitOptions(interval=interval, show=show)
        run_task(task, distribution, target, resumes, options, {"command": command})
        return _complete(target)


def fine_tuning_recipe(recipe: Recipe, settings: SlimSettings) -> Recipe:
    """The recipe by which a slimmed network is trained: the run's, shorter and with a lower learning rate."""
    epochs = settings.epochs or max(1, recipe.epochs // 2)
    return dataclasses.replace(
        recipe,
        epochs=epochs,
        learning_rate=recipe.learning_rate * settings.rate_factor,
        warmup_epochs=0.1 * epochs,  # the first losses are large, since much was just removed
        weights=None,  # it starts from the slimmed network
        freeze_until=None,
        unfreeze_epochs=None,
        teacher=None,  # the unslimmed network instead
        distill_heads=0.0,
    )


def _task(
    model: GoogLeNet, recipe: Recipe, settings: SlimSettings, splits: Splits, distribution: Strategy, spec: Spec
) -> RecipeTask:
    """Fine-tuning of a network with so many channels, with the unslimmed one as teacher where that is asked for."""
    return dataclasses.replace(
        prepare_task(recipe, None, distribution.replicas, spec, splits),
        spec=spec,
        keeps_classifiers=True,
        teacher=Distillations([Teacher(model, settings.teacher_weight, settings.temperature)])
        if settings.teacher
        else None,
    )


class Plan(NamedTuple):
    """Which channels stay.

    Attributes:
        network: without the others, not fine-tuned, its batch normalization with the statistics of the examples.
        kept: convolution to the indices that stay.
        losses: rise of the loss by branch at `allocation.LEVELS`.
        curve: rows of the multiply-accumulates, loss and top-1 under smaller and smaller budgets, before fine-tuning.
        examples: number of images that all this was measured on.
    """

    network: GoogLeNet
    kept: dict[str, np.ndarray]
    losses: dict[str, list[float]]
    curve: list[tuple[int, float, float]]
    examples: int

    def describe(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "images": self.examples,
            "levels": list(allocation.LEVELS),
            "sensitivity": self.losses,
            "curve": self.curve,
            "kept": {name: rows.tolist() for name, rows in self.kept.items()},
        }


def make_plan(model: GoogLeNet, settings: SlimSettings, examples: Examples, track: Track) -> Plan:
    """Ranks the channels of a network, measures its branches, and divides the budget.

    Args:
        model: the network; it stays as it is.
        settings: as of `slim`.
        examples: to measure on.
        track: likewise.

    Raises:
        UserError: as `slim`.
    """
    spec, multiple = model.spec, settings.multiple
    own = allocation.macs(spec, channels(spec))
    scores = CRITERIA[settings.criterion](model, examples)
    network = MaskedNetwork(model, scores, examples)
    losses = sensitivity(network, spec, multiple, track)

    def widths(budget: float) -> Widths:
        if settings.allocation == "uniform":
            return allocation.uniform(spec, budget, multiple)
        return allocation.by_sensitivity(spec, losses, budget, multiple)

    chosen = widths(_budget(spec, settings))
    smallest = allocation.smallest(spec, multiple)
    tried = [channels(spec), *(widths(own * keep) for keep in BUDGETS if own * keep >= smallest)]
    curve = [(int(allocation.macs(spec, each)), *network.measure(each)) for each in tried]
    kept = best_channels(scores, chosen)
    slimmed = remove_channels(model, kept)
    batches = np.array_split(examples.images, max(1, len(examples.labels) // BATCH))
    estimate_statistics(slimmed, batches)  # of inputs that lost channels
    return Plan(slimmed, kept, losses, curve, len(examples.labels))


def _budget(spec: Spec, settings: SlimSettings) -> float:
    if settings.max_macs is not None:
        return settings.max_macs
    assert settings.keep_macs is not None
    return settings.keep_macs * allocation.macs(spec, channels(spec))


def _check(spec: Spec, settings: SlimSettings) -> None:
    """Raises UserError for what a network cannot do, before its images are read."""
    if not spec.include_top:
        raise UserError("Expected a network with a main head; Received: one built with include_top=False.")
    if None in spec.input_shape:
        raise UserError(f"Expected a fixed height and width; Received: input_shape={spec.input_shape}.")
    if settings.criterion == "batch-norm":
        check_scales(spec)
    allocation.check_reachable(spec, _budget(spec, settings), settings.multiple)


def _is_known(target: RunFolder, about: dict[str, Any], overwrite: bool) -> bool:
    """Whether the folder holds a call with these arguments. Raises UserError where it holds one with others."""
    if overwrite or not (target / SLIMMING).is_file():
        return False
    before, own = _flat(slimming_of(target)), _flat(about)
    if differ := [f"{name} {before.get(name)!r}, not {own[name]!r}" for name in own if before.get(name) != own[name]]:
        raise UserError(
            f"Expected a new folder (or --overwrite); Received: {str(target.path)!r}, slimmed with other settings: "
            f"{', '.join(differ)}."
        )
    return True


def _resumes(target: RunFolder, recipe: Recipe, known: bool, overwrite: bool, distribution: Strategy) -> bool:
    """Whether the folder holds an interrupted call that can be resumed."""
    spec = target_spec(target) if known else Spec(recipe.variant, stem=recipe.stem, aux=False)
    resumes = target.check_usable(recipe, spec, overwrite, distribution.replicas)
    if resumes and not known:
        raise UserError(f"Expected a new folder (or --overwrite); Received: {str(target.path)!r}, which holds a run.")
    return resumes


def target_spec(target: RunFolder) -> Spec:
    """The network of a slimmed run."""
    return read_spec(target / files.SPEC)


def _flat(about: dict[str, Any]) -> dict[str, Any]:
    return {"source": about["source"], **about["settings"]}


def _before(model: GoogLeNet, plan: Plan, task: RecipeTask) -> dict[str, Any]:
    """Widths, costs and latencies of both networks, and their accuracy on the test split before any fine-tuning."""
    networks: dict[str, dict[str, Any]] = {}
    models = {"source": model, "slimmed": plan.network}
    for name, network in models.items():
        counted = cost(network.spec).without_aux()
        networks[name] = {"widths": channels(network.spec), "params": counted.params, "macs": counted.macs}
        networks[name]["before"] = score(predict(network, task.test.evaluation()))["main"]["top1"]
    networks["source"]["top1"] = networks["source"].pop("before")
    for name, seconds in (onnx_latencies(models) or {}).items():
        networks[name]["seconds"] = seconds
    return {"networks": networks}


def _complete(target: RunFolder) -> dict[str, Any]:
    """Adds the accuracy after fine-tuning to `slimming.json`, writes the page, and removes the states."""
    result = slimming_of(target)
    result["networks"]["slimmed"]["top1"] = target.metrics()["heads"]["main"]["top1"]
    write_json(target / SLIMMING, result)
    write_slimming_page(target)
    remove_states(target)
    return result
