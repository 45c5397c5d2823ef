"""The command line of GoogLeNet for Keras: parses, and makes one call per subcommand."""

import argparse
import dataclasses
import datetime
import functools
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from training.distribution.launch import CLUSTER_ERROR, ClusterError, Preempted
from training.recipe import Recipe, preset

Fields = tyro.conf.arg(name="")  # a nested dataclass whose fields are flags of their own
RunPath = tyro.conf.Positional[Path]
LAUNCHABLE = ("train", "tune")  # the subcommands that know what to do as one process of a cluster


@dataclasses.dataclass
class Train:
    """Train a network; leave the model, the numbers and a report in a folder."""

    settings: Annotated[Recipe, Fields]
    recipe: str = "digits"
    """Where the defaults below come from: digits, fashion, paper, quick, modern, or a .json file."""
    spec: Path | None = None
    """A spec.json (of a run, or a search's best) whose network replaces the recipe's; input and classes are the
    source's."""
    out: Path | None = None
    """Folder of the run; none: runs/RECIPE-TIME."""
    overwrite: bool = False
    """Replace an earlier run in that folder."""
    strategy: Literal["default", "mirrored", "multiworker", "parameter-server", "tpu", "data-parallel"] | None = None
    """Which devices share a step; none: those of the cluster that TF_CONFIG or Slurm names, else one device."""
    cluster_timeout: float = 300.0
    """Seconds in which all machines must have come."""
    data_service: str | None = None
    """grpc://HOST:PORT of a tf.data service (googlenet data-service) that prepares the batches."""


@dataclasses.dataclass
class Tune:
    """Search the widths of the Inception branches under a budget; leave trials, the best network and a report."""

    settings: Annotated[Recipe, Fields]
    recipe: str = "digits"
    """Where the defaults below come from: digits, fashion, paper, quick, modern, or a .json file."""
    space: str = "branches"
    """branches: a multiplier by branch type; stages: by stage and branch; blocks: all 54 widths."""
    also: tuple[Literal["learning_rate", "weight_decay", "aux_weight", "dropout", "normalisation"], ...] = ()
    """What else to search, of the recipe."""
    tuner: str = "bayesian"
    """random, hyperband, bayesian, grid or evolution."""
    trials: int | None = 20
    """Trials in all; None: as many as grid or hyperband want."""
    max_params: float | None = None
    """Most parameters of a network, at inference."""
    max_macs: float | None = None
    """Most multiply-accumulates for one image."""
    keep_macs: float | None = None
    """Multiply-accumulates within this share of the paper's widths', e.g. 0.05."""
    objective: str | None = None
    """A column of history.csv, or accuracy_per_mac; none: validation top-1, of the Polyak average if there is one."""
    patience: int | None = None
    """Epochs without a better objective that end a trial; none: never."""
    max_failures: int = 3
    """Failed trials in a row that end the search."""
    strategy: Literal["default", "mirrored", "tpu"] | None = None
    """Which devices share a step of each trial."""
    out: Path | None = None
    """Folder of the search; the same command goes on there. None: runs/tune-SPACE-TIME."""


@dataclasses.dataclass
class Launch:
    """Run COMMAND (train or tune, with all its own flags) as a cluster on this machine: launch --workers 2 COMMAND."""

    workers: int
    """Processes that train, or that run the trials of tune beside a chief."""
    parameter_servers: int = 0
    """Processes that hold the variables, for asynchronous SGD; there is a chief as well then. TensorFlow only."""
    restarts: int | None = None
    """How many failures are followed by a new start, of the cluster, or of a worker alone under parameter servers and
    in tune; none: 0, in tune 3."""


@dataclasses.dataclass
class Evaluate:
    """Measure the best models of runs, alone and averaged, on their test split or another one."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of the runs; several: the first alone, then all as an ensemble."""
    split: str | None = None
    """TFDS split, e.g. test or train[:500]."""
    crops: tuple[Literal[1, 10, 144], ...] = (1,)
    """Views of each image to average over, as in the paper; several: a table."""
    predictions: Path | None = None
    """Write the probabilities of each image (last row of the table) to this .csv or .json file."""
    report: Path | None = None
    """Write confusion matrix, reliability diagram and numbers by class (last row of the table) to this folder."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclasses.dataclass
class Compare:
    """Tell whether two runs differ: the same test images, McNemar's test, both validation curves."""

    first: RunPath
    """Folder of a run."""
    second: RunPath
    """Folder of another of the same source."""
    split: str | None = None
    """TFDS split, e.g. test or train[:500]."""
    out: Path = Path("compare.png")
    """The .png file of the curves to write."""
    json: bool = False
    """Print JSON instead of tables."""


@dataclasses.dataclass
class Predict:
    """Name the classes of pictures with a run's best model, a network in a .keras file, an export, or a server."""

    model: RunPath
    """Folder of the run or of the export, or the .keras file. Not with --server."""
    images: tyro.conf.Positional[tuple[str, ...]]
    """Picture files: JPEG, PNG, GIF, BMP or WebP."""
    server: str | None = None
    """grpc://HOST:PORT of TF Serving, in place of MODEL."""
    name: str = "googlenet"
    """Name of the model on the server."""
    top: int = 5
    """Classes a picture."""
    json: bool = False
    """Print JSON instead of tables."""


@dataclasses.dataclass
class Export:
    """Turn a trained network into files for servers and devices, each compared with it before it is called done."""

    model: RunPath
    """Folder of the run, or a .keras file."""
    to: str = "savedmodel"
    """savedmodel, onnx and litert, between commas."""
    out: Path | None = None
    """Folder of the exports of this name, in which each is a numbered version; none: saved_models/MODEL."""
    keep_aux: bool = False
    """Keep the auxiliary heads as outputs."""
    float_only: bool = False
    """SavedModel: take float32 pixels alone, for runtimes that cannot decode pictures."""
    top: int = 5
    """SavedModel: classes that it names, best first."""
    batching: int | None = None
    """SavedModel: largest batch that TF Serving may put together from several requests; none: no such file."""
    nchw: bool = False
    """ONNX: take (N, channels, height, width)."""
    preprocessing: bool = False
    """ONNX and LiteRT: take pixels on the 0-255 scale, not normalised ones."""
    precisions: tuple[Literal["float32", "float16", "dynamic", "int8"], ...] | None = None
    """LiteRT: which; none: all that the network allows."""
    classes: Path | None = None
    """File with a class name a line; none: the names of the run or file."""
    version: int | None = None
    """Of the export; none: the next free one."""


@dataclasses.dataclass
class ImportWeights:
    """Turn published weights (Caffe, torchvision, TF-slim, ONNX, inception5h) into a .keras file that says all."""

    file: tyro.conf.Positional[str]
    """The file, or published weights by name: torchvision, caffe or slim."""
    out: tyro.conf.Positional[Path]
    """The .keras file to write."""
    pixels: Literal["caffe", "caffe_mean_103.939", "torch", "signed", "minus_117"] | None = None
    """Pixel convention; none: that of the published weights. torch: a torchvision network without transform_input."""
    classes: Path | None = None
    """File with a class name a line; none: the published names."""


@dataclasses.dataclass
class Augment:
    """Draw what training sees: pictures of a source, each beside draws of its augmentation."""

    source: tyro.conf.Positional[str]
    """digits, fashion_mnist, folder:PATH, or a name of TensorFlow Datasets."""
    recipe: str | None = None
    """Whose augmentation: a preset or a .json file; none: the source's own recipe, or the paper's."""
    rows: int = 4
    """Pictures."""
    columns: int = 6
    """Draws of each."""
    seed: int = 0
    """Of the draws."""
    out: Path = Path("augment.png")
    """The .png file to write."""


@dataclasses.dataclass
class DataService:
    """Prepare batches for training runs on other machines, until Ctrl-C."""

    host: str = "localhost"
    """Name under which the other machines reach this one."""
    port: int = 5050
    """Where to listen; 0: any free one."""
    dispatcher: str | None = None
    """grpc://HOST:PORT of a service to join as a further worker; none: start a new one, with a worker."""


@dataclasses.dataclass
class Summary:
    """Print the paper's Table 1 for a network, or draw it."""

    variant: str = "paper"
    """paper, batchnorm, plain, torchvision, slim, onnx_zoo or inception5h."""
    input_shape: tuple[int, int, int] = (224, 224, 3)
    """Height, width and channels."""
    classes: int | None = None
    """None: as in the family."""
    aux: bool = True
    """With the auxiliary heads."""
    include_top: bool = True
    """With the classifiers."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """small: for 28-64 px images."""
    width_multiplier: float = 1.0
    """Scales every convolution."""
    reduction: bool = True
    """--no-reduction: the naive module, side by side with what the 1x1 reductions save."""
    spec: Path | None = None
    """A run's spec.json, instead of all of the above."""
    draw: Path | None = None
    """Write a drawing to this .svg, .png or .pdf file instead."""


Other = (
    Annotated[Launch, tyro.conf.subcommand("launch")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[ImportWeights, tyro.conf.subcommand("import-weights")]
    | Annotated[Augment, tyro.conf.subcommand("augment")]
    | Annotated[DataService, tyro.conf.subcommand("data-service")]
    | Annotated[Summary, tyro.conf.subcommand("summary")]
)


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Returns the exit status: 0; 1 after a failed write, 2 a user's error, 3 a cluster that lost a machine, 130 Ctrl-C,
    143 SIGTERM.

    That of `launch` is the status of the process that failed.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        command = _parse(argv)
        if not isinstance(command, Launch):  # whose processes come here in their turn
            _prepare_tensorflow()
        return _RUN[type(command)](command, argv) or 0
    except ValueError as error:
        print(f"googlenet: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"googlenet: error: {error.strerror or error}", file=sys.stderr)
        return 1
    except ClusterError as error:
        print(f"googlenet: error: {error}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(CLUSTER_ERROR)  # TensorFlow and JAX would wait for the lost machine, then abort
    except KeyboardInterrupt as interrupt:
        print(f"googlenet: interrupted{f': {interrupt}' if str(interrupt) else ''}", file=sys.stderr)
        return 143 if isinstance(interrupt, Preempted) else 130


def _parse(argv: list[str]):
    """The command that `argv` asks for; `launch` without the subcommand that it runs."""
    own = argv[: len(argv) - len(_launched(argv))]
    return tyro.cli(_with_preset(own), prog="googlenet", description=__doc__.split(":")[0], args=own)


def _launched(argv: list[str]) -> list[str]:
    """The subcommand that `launch` is to run, with its flags; empty for another command, or a call for help."""
    if argv[:1] != ["launch"]:
        return []
    if places := [i for i, token in enumerate(argv) if token in LAUNCHABLE]:
        return argv[places[0] :]
    if {"-h", "--help"} & set(argv):
        return []
    raise ValueError(
        f"Expected the flags of launch, then {' or '.join(LAUNCHABLE)} with its own; Received: {shlex.join(argv)}."
    )


def _with_preset(argv: list[str]):
    """The command type, with the fields of the named recipe as the defaults of `train`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", default="digits")
    named = parser.parse_known_args(argv)[0].recipe
    settings = preset(named)
    train = tyro.conf.subcommand("train", default=Train(settings, recipe=named))
    repeatable = dataclasses.replace(settings, deterministic=True)  # else the same seed finds other trials
    tune = tyro.conf.subcommand("tune", default=Tune(repeatable, recipe=named))
    return Annotated[Train, train] | Annotated[Tune, tune] | Other


def _prepare_tensorflow() -> None:
    """Imports TensorFlow with oneDNN's kernels on, and without the notes that it and CUDA write at start-up.

    Set TF_CPP_MIN_LOG_LEVEL to see them.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    stderr = os.dup(2)
    with open(os.devnull, "w") as devnull:  # some notes come before TensorFlow reads the level
        os.dup2(devnull.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
            tf.get_logger().setLevel("ERROR")  # such as what TFDS calls that is deprecated
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _folder(command: Train | Tune) -> Path:
    name = Path(command.recipe).stem if isinstance(command, Train) else f"tune-{command.space}"
    return command.out or Path("runs", f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}")


def _train(command: Train, argv: list[str]) -> None:
    from rich.console import Console

    if command.strategy == "data-parallel":
        os.environ.setdefault("KERAS_BACKEND", "jax")
    from inception_v1.spec import read_spec
    from training.report import figures as report
    from training.train import train

    console = Console()
    folder = _folder(command)
    metrics = train(
        command.settings,
        folder,
        spec=read_spec(command.spec) if command.spec else None,
        strategy=command.strategy,
        cluster_timeout=command.cluster_timeout,
        overwrite=command.overwrite,
        data_service=command.data_service,
        command=shlex.join(["googlenet", *argv]),
        show=lambda epochs, steps: report.ShowProgress(console, epochs, steps),
    )
    if not metrics:  # not the chief
        return
    console.print(report.score_table(metrics))
    console.print(f"run folder: {folder}", highlight=False, soft_wrap=True)


def _tune(command: Tune, argv: list[str]) -> None:
    from rich.console import Console

    from tuning import Budget, search
    from tuning.report import write as report

    console = Console()
    folder = _folder(command)
    results = search(
        folder,
        command.space,
        recipe=command.settings,
        tuner=command.tuner,
        trials=command.trials,
        budget=Budget(command.max_params, command.max_macs, command.keep_macs),
        also=command.also,
        objective=command.objective,
        patience=command.patience,
        max_failures=command.max_failures,
        strategy=command.strategy,
        show=lambda standing: console.print(report.line(standing), highlight=False, soft_wrap=True),
        progress=(lambda epochs, steps: report.Steps(console, epochs, steps)) if console.is_terminal else None,
    )
    if not results:  # a worker
        return
    console.print(report.table(results))
    console.print(f"report: {folder / report.REPORT / report.PAGE}", highlight=False, soft_wrap=True)


def _launch(command: Launch, argv: list[str]) -> int:
    from training.distribution.launch import launch

    inner = _launched(argv)
    parsed = _parse(inner)  # what is wrong with it is said once, before anything starts
    tunes = isinstance(parsed, Tune)
    if isinstance(parsed, Train | Tune) and parsed.out is None:  # else each process would name its own, after the time
        inner = [*inner, "--out", str(_folder(parsed))]
    if getattr(parsed, "overwrite", False) and command.restarts:
        raise ValueError("Expected --restarts without --overwrite, which would begin anew each time; Received: both.")
    if tunes and command.parameter_servers:
        raise ValueError("Expected no parameter servers in tune, whose trials run apart; Received: some.")
    restarts = (3 if tunes else 0) if command.restarts is None else command.restarts
    jax = os.environ.get("KERAS_BACKEND") == "jax" or getattr(parsed, "strategy", None) == "data-parallel"
    sys.stdout.reconfigure(errors="replace")
    return launch(
        [sys.executable, __file__, *inner],
        command.workers,
        functools.partial(print, flush=True),
        parameter_servers=command.parameter_servers,
        restarts=restarts,
        environment="keras-tuner" if tunes else "jax" if jax else "tensorflow",
    )


def _evaluate(command: Evaluate, argv: list[str]) -> None:
    from rich.console import Console

    from training.evaluation.evaluate import evaluations
    from training.report import figures as report

    if command.predictions:
        report.check_file(command.predictions, (".csv", ".json"))
    if command.report:
        report.check_folder(command.report)
    results = []
    for evaluation in evaluations(command.runs, command.split, command.crops, report.track):
        results.append(evaluation.result())
    if command.predictions:
        report.write_predictions(command.predictions, evaluation.predictions, evaluation.classes)
    if command.report:
        report.write_evaluation(command.report, evaluation.predictions, evaluation.classes)
    alone = len(results) == 1
    if command.json:
        print(json.dumps(results[0] if alone else results, indent=2))
    else:
        Console().print(report.score_table(results[0]) if alone else report.ensemble_table(results))


def _compare(command: Compare, argv: list[str]) -> None:
    from rich.console import Console

    from training.evaluation.evaluate import compare
    from training.report import figures as report

    report.check_file(command.out, (".png",))
    result = compare(command.first, command.second, command.split, report.track)
    histories = {str(run): report.read_history(run / "history.csv") for run in (command.first, command.second)}
    report.save(report.compared_curves(histories), command.out)
    if command.json:
        print(json.dumps(result, indent=2))
    else:
        console = Console()
        console.print(report.comparison_table(result), report.agreement_table(result))
        console.print(report.verdict(result), highlight=False)
        console.print(command.out, highlight=False, soft_wrap=True)


def _predict(command: Predict, argv: list[str]) -> None:
    if command.server:
        from training.serving_client import ask

        result = ask(command.server, (str(command.model), *command.images), command.top, command.name)
    else:
        from training.evaluation.evaluate import classify

        result = classify(command.model, command.images, command.top)
    if command.json:
        print(json.dumps(result, indent=2))
    else:
        from rich.console import Console

        from training.report.figures import class_table

        for picture, best in result.items():
            Console().print(class_table(picture, best))


def _export(command: Export, argv: list[str]) -> None:
    from rich.console import Console

    from training.export.export import export
    from training.export.model_card import table

    given = {field.name: getattr(command, field.name) for field in dataclasses.fields(command)}
    source, classes = given.pop("model"), given.pop("classes")
    out = given.pop("out") or Path("saved_models", source.absolute().name.removesuffix(".keras"))
    names = classes.read_text("utf-8").splitlines() if classes else None
    card = export(source, out, class_names=names, **given)
    Console().print(table(card))
    print(out / str(card["version"]))


def _import_weights(command: ImportWeights, argv: list[str]) -> None:
    from inception_v1 import import_weights
    from inception_v1.atomic_files import written_whole
    from training.report.figures import check_file

    check_file(command.out, (".keras",))
    names = command.classes.read_text("utf-8").splitlines() if command.classes else None
    model = import_weights(command.file, command.pixels, names)
    with written_whole(command.out) as part:
        model.save(part)
    spec = model.spec
    print(f"{command.out}: {spec.variant}, {spec.classes} classes, heads {', '.join(spec.heads)}, pixels {spec.pixels}")


def _augment(command: Augment, argv: list[str]) -> None:
    from training import recipe
    from training.report import figures as report

    settings = preset(command.recipe) if command.recipe else recipe.for_source(command.source)
    settings = dataclasses.replace(settings, source=command.source, seed=command.seed)
    report.save(report.augmentation(settings, command.rows, command.columns), command.out)
    print(command.out)


def _data_service(command: DataService, argv: list[str]) -> None:
    import threading

    from training.data.service import serving

    with serving(command.host, command.port, command.dispatcher) as address:
        print(f"googlenet train --data-service {address}", flush=True)
        threading.Event().wait()


def _summary(command: Summary, argv: list[str]) -> None:
    from inception_v1 import Spec, summary
    from inception_v1.spec import read_spec

    fields = {field.name for field in dataclasses.fields(Summary)} - {"spec", "draw"}
    spec = read_spec(command.spec) if command.spec else Spec(**{name: getattr(command, name) for name in fields})
    if command.draw is not None:
        summary.draw(spec, command.draw)
    else:
        from rich.console import Console

        Console(width=None if sys.stdout.isatty() else 200).print(summary.table(spec))


_RUN = {
    Train: _train,
    Tune: _tune,
    Launch: _launch,
    Evaluate: _evaluate,
    Compare: _compare,
    Predict: _predict,
    Export: _export,
    ImportWeights: _import_weights,
    Augment: _augment,
    DataService: _data_service,
    Summary: _summary,
}

if __name__ == "__main__":
    sys.exit(main())
