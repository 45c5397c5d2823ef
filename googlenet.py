"""The command line of GoogLeNet for Keras: parses its arguments and makes one call per subcommand."""

import argparse
import contextlib
import dataclasses
import datetime
import functools
import importlib.metadata
import io
import json
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from inception_v1.extras import extra
from inception_v1.keras_home import keras_home
from training import startup_imports, startup_notes
from training.errors import CLUSTER_STATUS, USER_STATUS, ClusterError, Preempted, UserError
from training.presets import FINE_TUNE, preset, preset_for_weights
from training.recipe import POSITIVE, Range, Recipe, check_numbers, numeric_fields
from tuning.budget import Budget
from tuning.shared_settings import SharedSettings
from tuning.slim_settings import SlimSettings

FLAGS = tyro.constructors.ConstructorRegistry()
SHOWN = "ranges shown"  # a marker
Fields = tyro.conf.arg(name="")  # a nested dataclass whose fields are flags of their own
RunPath = tyro.conf.Positional[Path]
OF_LAYERS = ("caricature", "inversion", "factors", "count", "steps")  # fields of Explain for `LayerFigures`
SPLIT_ONLY = ("branches", "split", "permutations")  # arguments of `explain --branches`
IMAGES_ONLY = ("images", "methods", "target", *OF_LAYERS)  # those of `explain` without it
LAUNCHABLE = ("train", "tune")  # the subcommands that can run as one process of a cluster
DEFECT_STATUS = 70  # EX_SOFTWARE of sysexits.h
ATLAS = ("atlas", "source", "grid", "neighbors", "whiten")  # fields of Visualize for an atlas
CHANNELS_ALONE = (
    "channels",
    "per_branch",
    "transforms",
    "learning_rate",
    "tries",
    "sd",
    "examples",
)  # and those not for one
RENAMED = {"normalisation": "normalization"}  # values of --also that earlier releases spelled in another way


@dataclasses.dataclass
class Train:
    """Train a network, and write the model, its metrics and a report to a folder."""

    settings: Annotated[Recipe, Fields]
    recipe: str = "digits"
    """Recipe that the defaults below come from: digits, fashion, cifar, paper, quick, modern, fine-tune, or a .json
    file; none: fine-tune with --weights, else digits."""
    spec: Path | None = None
    """A spec.json (of a run, or of the best trial of a search) whose network replaces the recipe's; input and classes
    are those of the source."""
    out: Path | None = None
    """Folder of the run; none: runs/RECIPE-TIME."""
    overwrite: bool = False
    """Replace an earlier run in that folder."""
    strategy: Literal["default", "mirrored", "multiworker", "parameter-server", "tpu", "data-parallel"] | None = None
    """Devices that share a step; none: those of the cluster that TF_CONFIG or Slurm names, else one device."""
    cluster_timeout: Annotated[float, POSITIVE] = 300.0
    """Seconds within which all machines must have joined."""
    save_every: str | None = "10m"
    """Time (10m, 30s) or number of steps (500) between two states that are saved within an epoch; None: none there."""
    data_service: str | None = None
    """grpc://HOST:PORT of a tf.data service (googlenet data-service) that prepares the batches."""


@dataclasses.dataclass
class Tune:
    """Search the widths of the Inception branches under a budget, and write trials, the best network and a report."""

    settings: Annotated[Recipe, Fields]
    recipe: str = "digits"
    """Recipe that the defaults below come from: digits, fashion, cifar, paper, quick, modern, fine-tune, or a .json
    file; none: fine-tune with --weights, else digits."""
    space: str = "branches"
    """branches: a multiplier by branch type; stages: by stage and branch; blocks: all 54 widths."""
    also: tuple[Literal["learning_rate", "weight_decay", "aux_weight", "dropout", "normalization"], ...] = ()
    """Settings of the recipe to search as well."""
    tuner: str = "bayesian"
    """Tuner: random, hyperband, bayesian, grid or evolution."""
    trials: int | None = 20
    """Number of trials; None: as many as grid or hyperband want."""
    budget: Annotated[Budget, Fields] = dataclasses.field(default_factory=Budget)
    multipliers: tuple[float, float] = (0.5, 2.0)
    """Lowest and highest multiplier of the widths, around 1."""
    search_stem: bool = False
    """Search a multiplier of the widths before the first block as well."""
    shared_weights: bool = False
    """Train the widest network once, with narrower ones in each step, and score a trial as a slice of it: seconds."""
    shared: Annotated[SharedSettings, Fields] = dataclasses.field(default_factory=SharedSettings)
    proposal: Path | None = None
    """A spec.json, such as that of googlenet widths, whose widths the second trial has; the first has the paper's."""
    latency_table: Path | None = None
    """A table of googlenet latency, for --max-latency-ms and --pareto; none: with --max-latency-ms one is measured."""
    objective: str | None = None
    """Column of history.csv, or accuracy_per_mac; none: validation top-1, of the averaged weights if there are any."""
    pareto: bool = False
    """Search for the front of the objective and the cost: milliseconds with a latency table, else multiply-accumulates.
    With bayesian, evolution, random or grid."""
    patience: int | None = None
    """Epochs without a better objective after which a trial ends; none: never."""
    max_failures: int = 3
    """Failed trials in a row after which the search ends."""
    strategy: Literal["default", "mirrored", "tpu"] | None = None
    """Devices that share a step of each trial."""
    save_every: str | None = "10m"
    """Time (10m, 30s) or number of steps (500) between two states of a trial that are saved within an epoch; None: none
    there."""
    out: Path | None = None
    """Folder of the search, where the same command resumes; none: runs/tune-SPACE-TIME."""


@dataclasses.dataclass
class Slim:
    """Remove channels of a trained network until a budget holds, fine-tune the rest, and write it as a run folder."""

    run: RunPath
    """Folder of the trained run."""
    settings: Annotated[SlimSettings, Fields]
    out: Path | None = None
    """Folder of the slimmed run, where the same command resumes; none: RUN-slim."""
    overwrite: bool = False
    """Replace an earlier run in that folder."""
    strategy: Literal["default", "mirrored", "data-parallel"] | None = None
    """Devices that share a step."""
    save_every: str | None = "10m"
    """Time (10m, 30s) or number of steps (500) between two states that are saved within an epoch; None: none there."""


@dataclasses.dataclass
class Widths:
    """Propose widths of the branches from the correlations between a trained network's channels."""

    run: RunPath
    """Folder of the trained run."""
    keep_macs: Annotated[float | None, POSITIVE] = None
    """Budget of the proposed network, as a fraction of the multiply-accumulates of the run's; none: all of them."""
    max_macs: Annotated[float | None, POSITIVE] = None
    """The budget as a number of multiply-accumulates for one image, in place of keep_macs."""
    images: Annotated[int, Range(32, 10**6, below=False)] = 256
    """Training images that correlations are measured on."""
    threshold: Annotated[float, Range(0, 1, above=True)] = 0.7
    """Mean correlation above which channels form a cluster."""
    out: Path | None = None
    """New folder for spec.json, widths.csv and correlations.png; none: RUN-widths."""


@dataclasses.dataclass
class Latency:
    """Measure how long the operations of networks around one take on this machine, as a table for tune."""

    spec: RunPath
    """A spec.json: that of a run with the recipe that the search is to have."""
    out: Path = Path("latency.json")
    """The .json file to write."""
    batch: Annotated[int, Range(1, 4096, below=False)] = 1
    """Images in a call."""
    threads: Annotated[int | None, Range(1, 1024, below=False)] = None
    """Threads of onnxruntime; none: as many as it takes by itself."""
    networks: Annotated[int, Range(4, 1000, below=False)] = 24
    """Networks that are profiled."""
    checks: Annotated[int, Range(0, 1000, below=False)] = 20
    """Random networks that are timed as a whole, to tell how far off the table is."""


@dataclasses.dataclass
class Launch:
    """Run COMMAND (train or tune, with all its own flags) as a cluster on this machine: launch --workers 2 COMMAND."""

    workers: int
    """Number of processes that train, or that run the trials of tune beside a chief."""
    parameter_servers: int = 0
    """Number of processes that hold the variables, for asynchronous SGD with a chief. TensorFlow only."""
    restarts: int | None = None
    """Number of failures after which the cluster is restarted, or under parameter servers and in tune the worker alone;
    none: 0, in tune 3."""


@dataclasses.dataclass
class Evaluate:
    """Measure the best models of runs, alone and averaged, on their test split or another one."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of the runs; of several the first is measured alone, then all as an ensemble."""
    split: str | None = None
    """TFDS split, e.g. test or train[:500]."""
    crops: tuple[Literal[1, 10, 144], ...] = (1,)
    """Crops of each image to average over, as in the paper; several give a table."""
    predictions: Path | None = None
    """Write the probabilities of each image (last row of the table) to this .csv or .json file."""
    report: Path | None = None
    """Write confusion matrix, reliability diagram and numbers by class (last row of the table) to this folder."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclasses.dataclass
class Show:
    """Open the page of a run or a search in a browser, and print its path."""

    folder: RunPath
    """Folder of the run, finished or not, or of the search."""
    open: bool = True
    """Open the page; --no-open: print its path alone."""


@dataclasses.dataclass
class Compare:
    """Test whether two runs differ on the same test images, and draw their validation curves."""

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
    """Name the classes of images with a run's best model, a network in a .keras file, an export, or a server."""

    model: RunPath
    """Folder of the run or of the export, or the .keras file. Not with --server."""
    images: tyro.conf.Positional[tuple[str, ...]]
    """Image files (JPEG, PNG, GIF, BMP or WebP), and folders of them with their sub-folders."""
    server: str | None = None
    """grpc://HOST:PORT of TF Serving, instead of MODEL."""
    name: str = "googlenet"
    """Name of the model on the server."""
    top: int = 5
    """Number of classes to name for each image."""
    out: Path | None = None
    """Write the classes to this .csv or .json file instead of printing tables."""
    json: bool = False
    """Print JSON instead of tables."""


@dataclasses.dataclass
class Visualize:
    """Render what each channel of some layers responds to most, or an atlas of a layer's activations, as images and a
    page."""

    model: RunPath
    """Folder of the run, or a .keras file."""
    layer: tuple[str, ...] = ("inception_4d",)
    """Layers: a block (inception_4d), a convolution (conv2_3x3, inception_4d_5x5), either with _pre_relu behind it, or
    a head's main_logits; Lucid's names (mixed4d) are taken too. all: the nine blocks."""
    channels: str | None = None
    """Channels of each layer, such as 0-63,70; none: all. The same command resumes, and renders none again."""
    per_branch: Annotated[int | None, POSITIVE] = None
    """Render so many channels from the beginning of each branch of a block instead."""
    out: Path | None = None
    """Folder for the images and index.html; none: visualizations/MODEL."""
    size: Annotated[int | None, POSITIVE] = None
    """Height and width of the images; none: the network's, at most 128."""
    steps: Annotated[int | None, POSITIVE] = None
    """Optimization steps of an image; none: 512, of an atlas 128."""
    batch: Annotated[int, POSITIVE] = 16
    """Images that are rendered at a time."""
    seed: int = 0
    """Seed of the first images and of their transforms."""
    transforms: Literal["standard", "none"] = "standard"
    """What an image must survive while it is rendered: small shifts, scaling and rotations, or nothing."""
    learning_rate: Annotated[float, POSITIVE] = 0.05
    """Learning rate of Adam."""
    tries: Annotated[int, POSITIVE] = 1
    """First images of each channel; the rendered image that activates it most is kept."""
    sd: Annotated[float, POSITIVE] = 0.01
    """Standard deviation of the first images' spectra; 1: first images of much contrast, which differ more."""
    examples: int | None = None
    """Images of the split that stand beside each rendered one; none: 6, of a .keras file 0."""
    split: str | None = None
    """TFDS split of the examples or of the atlas, e.g. train[:500]; none: the test split."""
    atlas: bool = False
    """Draw an activation atlas instead of the channels: activations of many images, laid out by UMAP and rendered."""
    source: str | None = None
    """Atlas: source of the images (digits, fashion_mnist, folder:PATH or a name of TensorFlow Datasets); none: the
    run's."""
    grid: Annotated[int, POSITIVE] = 10
    """Atlas: rows and columns."""
    neighbors: Annotated[int, POSITIVE] = 50
    """Atlas: activations that UMAP keeps near each one."""
    whiten: bool = True
    """Atlas: render what sets each cell apart; --no-whiten: its mean activation itself."""


@dataclasses.dataclass
class Explain:
    """Draw which pixels and branches the predictions for images come from, or with --branches which classes each branch
    serves."""

    model: RunPath
    """Folder of the run, or a .keras file."""
    images: tyro.conf.Positional[tuple[str, ...]]
    """Image files: JPEG, PNG, GIF, BMP or WebP. Not with --branches."""
    methods: Annotated[
        tuple[Literal["cam", "gradcam", "integrated_gradients", "guided_ig", "smoothgrad", "xrai", "occlusion"], ...]
        | None,
        tyro.conf.arg(aliases=("--method",)),
    ] = None
    """Methods, side by side; none: cam (of an auxiliary head gradcam) and integrated_gradients."""
    head: Literal["main", "aux1", "aux2"] = "main"
    """Head whose prediction is explained."""
    target: str | None = None
    """Name or number of a class to explain; none: the best of each image."""
    out: Path | None = None
    """Folder for the heat maps and index.html; none: explanations/MODEL."""
    seed: int = 0
    """Seed of all that is drawn: the noise of smoothgrad, first images, permutations, the random weights of --check."""
    caricature: tuple[str, ...] = ()
    """Layers whose caricature of each image to render: what they respond to in it, exaggerated."""
    inversion: tuple[str, ...] = ()
    """Layers to invert: images that have the activations of each image, and nothing else of it."""
    factors: tuple[str, ...] = ()
    """Layers whose activations to factorize into a few directions, shown over each image."""
    count: Annotated[int, POSITIVE] = 6
    """Factors of a layer."""
    steps: Annotated[int, POSITIVE] = 512
    """Optimization steps of caricatures, inversions and factors."""
    check: bool = False
    """Check the methods on these images: deletion and insertion, and correlation with maps of random weights. With
    --branches: show what random weights give there."""
    ablation: bool = False
    """Also show how far the logit falls when the output of a branch is set to zero, each branch's in turn. With
    --branches: measure contributions so, instead of by activation x gradient."""
    branches: bool = False
    """Explain a split of the run instead of images: what each branch contributes to each class, with p-values."""
    split: str | None = None
    """TFDS split of --branches, e.g. train[:500]; none: the run's test split."""
    permutations: Annotated[int, POSITIVE] = 999
    """Permutations of the labels for the p-values of --branches."""


@dataclasses.dataclass
class Export:
    """Turn a trained network into files for servers and devices, each verified against it."""

    model: RunPath
    """Folder of the run, or a .keras file."""
    to: str = "savedmodel"
    """Formats, separated by commas: savedmodel, onnx, litert and web, a page that runs the network in a browser."""
    out: Path | None = None
    """Folder in which each export is a numbered version; none: saved_models/MODEL."""
    keep_aux: bool = False
    """Keep the auxiliary heads as outputs."""
    float_only: bool = False
    """SavedModel: take float32 pixels only, for runtimes that cannot decode images."""
    top: int = 5
    """SavedModel: number of classes that it names, best first."""
    batching: int | None = None
    """SavedModel: largest batch that TF Serving may form from several requests; none: no batching."""
    nchw: bool = False
    """ONNX: take (N, channels, height, width)."""
    preprocessing: bool = False
    """ONNX and LiteRT: take pixels on the 0-255 scale instead of normalized ones."""
    precisions: tuple[Literal["float32", "float16", "dynamic", "int8"], ...] | None = None
    """LiteRT and ONNX: precisions to write, of ONNX beside float32; none: all of LiteRT that the network allows."""
    unverified: bool = False
    """Web: write the page without running it in Node.js, which otherwise must be installed."""
    classes: Path | None = None
    """File with one class name per line; none: the names of the run or file."""
    version: int | None = None
    """Number of the version; none: the next free one."""


@dataclasses.dataclass
class ImportWeights:
    """Turn published weights (Caffe, torchvision, TF-slim, ONNX, inception5h) into a self-contained .keras file."""

    file: tyro.conf.Positional[str]
    """The file, or the name of published weights: torchvision, caffe or slim."""
    out: tyro.conf.Positional[Path]
    """The .keras file to write."""
    pixels: Literal["caffe", "caffe_mean_103.939", "torch", "signed", "minus_117"] | None = None
    """Pixel convention; none: that of the published weights. torch: a torchvision network without transform_input."""
    classes: Path | None = None
    """File with one class name per line; none: the published names."""


@dataclasses.dataclass
class Augment:
    """Draw what training sees: images of a source, each beside draws of its augmentation."""

    source: tyro.conf.Positional[str]
    """digits, fashion_mnist, folder:PATH, or a name of TensorFlow Datasets."""
    recipe: str | None = None
    """Recipe of the augmentation: a preset or a .json file; none: the source's own recipe, or the paper's."""
    rows: int = 4
    """Number of images."""
    columns: int = 6
    """Number of draws of each image."""
    seed: int = 0
    """Seed of the draws."""
    out: Path = Path("augment.png")
    """The .png file to write."""


@dataclasses.dataclass
class DataService:
    """Prepare batches for training runs on other machines, until Ctrl-C."""

    host: str = "localhost"
    """Name under which the other machines reach this one."""
    port: int = 5050
    """Port to listen on; 0: any free one."""
    dispatcher: str | None = None
    """grpc://HOST:PORT of a service to join as a further worker; none: start a new one, with a worker."""


@dataclasses.dataclass
class Summary:
    """Print the paper's Table 1 for a network, or draw it."""

    variant: str = "paper"
    """Family: paper, batchnorm, plain, torchvision, slim, onnx_zoo, inception5h or cifar."""
    input_shape: tuple[int, int, int] = (224, 224, 3)
    """Height, width and channels."""
    classes: int | None = None
    """Number of classes; none: as in the family."""
    aux: bool = True
    """Include the auxiliary heads."""
    include_top: bool = True
    """Include the classifiers."""
    stem: Literal["imagenet", "small", "cifar"] = "imagenet"
    """Stem; small is for images of 28-64 px, cifar for 32 px."""
    width_multiplier: float = 1.0
    """Scales the filters of every convolution."""
    reduction: bool = True
    """Use 1x1 reductions; --no-reduction shows the naive module beside what they save."""
    spec: Path | None = None
    """A run's spec.json, instead of all of the above."""
    draw: Path | None = None
    """Write a drawing to this .svg, .png or .pdf file instead."""


Other = (
    Annotated[Launch, tyro.conf.subcommand("launch")]
    | Annotated[Slim, tyro.conf.subcommand("slim")]
    | Annotated[Widths, tyro.conf.subcommand("widths")]
    | Annotated[Latency, tyro.conf.subcommand("latency")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Show, tyro.conf.subcommand("show")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Visualize, tyro.conf.subcommand("visualize")]
    | Annotated[Explain, tyro.conf.subcommand("explain")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[ImportWeights, tyro.conf.subcommand("import-weights")]
    | Annotated[Augment, tyro.conf.subcommand("augment")]
    | Annotated[DataService, tyro.conf.subcommand("data-service")]
    | Annotated[Summary, tyro.conf.subcommand("summary")]
)


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Returns the exit status: 0; 1 after a failed write, or where some images could not be read, 2 for a user's error, 3
    for a cluster that lost a machine, 70 for a defect of this package, 130 after Ctrl-C, 141 where nobody reads the
    output, 143 after SIGTERM.

    That of `launch` is the status of the process that failed.
    """
    argv = _renamed(sys.argv[1:] if argv is None else argv)
    try:
        status = _run(argv)
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"googlenet: error: {error}", file=sys.stderr)
        return USER_STATUS
    except BrokenPipeError:
        return _close_output()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # rich's consoles end the program with status 1
            return _close_output()
        raise
    except OSError as error:
        print(f"googlenet: error: {error.strerror or error}", file=sys.stderr)
        return 1
    except ClusterError as error:
        print(f"googlenet: error: {error}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(CLUSTER_STATUS)  # TensorFlow and JAX would wait for the lost machine, then abort
    except KeyboardInterrupt as interrupt:
        print(f"googlenet: interrupted{f': {interrupt}' if str(interrupt) else ''}", file=sys.stderr)
        return 143 if isinstance(interrupt, Preempted) else 130
    except Exception:
        traceback.print_exc()
        print("googlenet: this is a defect of googlenet-keras; please report it with the lines above", file=sys.stderr)
        return DEFECT_STATUS


def _run(argv: list[str]) -> int:
    """Parses and runs one command; help is printed here too, so that a closed pipe is noticed."""
    if not argv:
        return _print_help()
    if argv == ["--version"]:
        _print_versions()
        return 0
    try:
        command = _parse(argv)
    except SystemExit:
        sys.stdout.flush()
        raise
    if getattr(command, "strategy", None) == "data-parallel":
        os.environ.setdefault("KERAS_BACKEND", "jax")
    if not isinstance(command, Launch):  # whose processes run this function themselves
        _prepare_tensorflow()
    with extra(_extra(command)):
        return _RUN[type(command)](command, argv) or 0


def _extra(command: Any) -> str:
    """The extra of this package that has what a command imports."""
    if isinstance(command, Export) or getattr(command, "server", None):
        return "export"
    if isinstance(command, Visualize | Explain):
        return "interpret"
    tunes = isinstance(command, Tune | Slim | Widths) or (isinstance(command, Show) and _is_of_tuning(command.folder))
    return "tune" if tunes else "train"


def _is_search(folder: Path) -> bool:
    from tuning.results import SEARCH

    return (folder / SEARCH).is_file()


def _is_slimmed(folder: Path) -> bool:
    from tuning.slim_settings import SLIMMING

    return (folder / SLIMMING).is_file()


def _is_of_tuning(folder: Path) -> bool:
    return _is_search(folder) or _is_slimmed(folder)


def _print_versions() -> None:
    """The versions of this package, TensorFlow, Keras and Keras' backend, of which none is imported."""
    versions = {}
    for name in ("googlenet-keras", "tensorflow", "keras", "jax", "torch"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    backend = _keras_backend()
    for name in ("googlenet-keras", "tensorflow", "keras"):
        print(name, versions[name])
    print("backend", backend, versions.get(backend, ""))


def _keras_backend() -> str:
    """The backend that Keras has or will have, without importing it."""
    stored = {}
    with contextlib.suppress(OSError, ValueError):  # Keras takes no notice of such a file either
        stored = json.loads((keras_home() / "keras.json").read_text("utf-8"))
    return os.environ.get("KERAS_BACKEND") or stored.get("backend", "tensorflow")


def _print_help() -> int:
    """What `googlenet` alone does: the help as an error."""
    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(SystemExit):
        _parse(["--help"])
    return USER_STATUS


def _close_output() -> int:
    """Keeps Python from complaining at its exit that nobody reads what it prints, as after `| head`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def _renamed(argv: list[str]) -> list[str]:
    """The command line with the values of `--also` as they are spelled now."""
    found, after_also = [], False
    for token in argv:
        after_also = token == "--also" or (after_also and not token.startswith("-"))
        if after_also and token in RENAMED:
            print(f"googlenet: warning: {token} is now spelled {RENAMED[token]}", file=sys.stderr)
            token = RENAMED[token]
        found.append(token)
    return found


def _parse(argv: list[str]) -> Any:
    """The command that `argv` asks for; `launch` without the subcommand that it runs."""
    own = argv[: len(argv) - len(_launched(argv))]
    description = f"{__doc__.split(':')[0]}. --version prints the versions."
    command: Any = tyro.cli(_with_preset(own), prog="googlenet", description=description, args=own, registry=FLAGS)
    check_numbers(command)
    return command


@FLAGS.struct_rule
def _show_ranges(info: tyro.constructors.StructTypeInfo) -> Any:
    """The flags that tyro makes of a dataclass, with the range of each number beside its default in the help."""
    if not dataclasses.is_dataclass(info.type) or SHOWN in info.markers:
        return None
    own = dataclasses.replace(info, markers=(*info.markers, SHOWN))  # which tyro's rule takes, and not this one again
    made = FLAGS.get_struct_spec(own)
    if not isinstance(made, tyro.constructors.StructConstructorSpec):
        return made
    known = numeric_fields(info.type)
    fields = [_with_range(field, known[field.name].range) if field.name in known else field for field in made.fields]
    return dataclasses.replace(made, fields=tuple(fields))


def _with_range(field: tyro.constructors.StructFieldSpec, allowed: Range) -> tyro.constructors.StructFieldSpec:
    hint = tyro.conf.arg(help_behavior_hint=lambda default: f"({allowed}; default: {default})")
    with_hint: Any = Annotated[field.type, hint]
    return dataclasses.replace(field, type=with_hint)


def _launched(argv: list[str]) -> list[str]:
    """The subcommand that `launch` is to run, with its flags; empty for another command, or a call for help."""
    if argv[:1] != ["launch"]:
        return []
    if places := [i for i, token in enumerate(argv) if token in LAUNCHABLE]:
        return argv[places[0] :]
    if {"-h", "--help"} & set(argv):
        return []
    raise UserError(
        f"Expected the flags of launch, then {' or '.join(LAUNCHABLE)} with its own; Received: {shlex.join(argv)}."
    )


def _with_preset(argv: list[str]) -> Any:
    """The command type, with the fields of the named recipe as the defaults of `train`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe")
    parser.add_argument("--weights")
    given = parser.parse_known_args(argv)[0]
    named = given.recipe or (FINE_TUNE if given.weights else "digits")
    settings = preset_for_weights(given.weights) if given.weights and not given.recipe else preset(named)
    train = tyro.conf.subcommand("train", default=Train(settings, recipe=named))
    repeatable = dataclasses.replace(settings, deterministic=True)  # else the same seed finds other trials
    tune = tyro.conf.subcommand("tune", default=Tune(repeatable, recipe=named))
    return Annotated[Train, train] | Annotated[Tune, tune] | Other


def _prepare_tensorflow() -> None:
    """Imports TensorFlow and Keras with oneDNN's kernels enabled, without the notes that TensorFlow and CUDA write at
    start-up, without packages that they do not need, and without a search for garbage among their modules.

    Set TF_CPP_MIN_LOG_LEVEL to 0 to see the notes.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    optional = {*startup_imports.OPTIONAL} - {_keras_backend()}
    with startup_notes.hidden(), startup_imports.without(optional), startup_imports.without_garbage_collection():
        import keras  # noqa: F401
        import tensorflow as tf

        tf.config.list_physical_devices()


def _folder(command: Train | Tune) -> Path:
    name = Path(command.recipe).stem if isinstance(command, Train) else f"tune-{command.space}"
    return command.out or Path("runs", f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}")


def _train(command: Train, argv: list[str]) -> None:
    from rich.console import Console

    from inception_v1.spec import read_spec
    from training.report.page import PAGE
    from training.report.progress import ShowProgress
    from training.report.tables import score_table
    from training.run_folder import REPORT
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
        save_every=command.save_every,
        data_service=command.data_service,
        command=shlex.join(["googlenet", *argv]),
        show=functools.partial(ShowProgress, console),
    )
    if not metrics:  # not the chief
        return
    console.print(score_table(metrics))
    console.print(f"run folder: {folder}", highlight=False, soft_wrap=True)
    console.print(f"report: {folder / REPORT / PAGE}", highlight=False, soft_wrap=True)


def _tune(command: Tune, argv: list[str]) -> None:
    from rich.console import Console

    from inception_v1.spec import read_spec
    from tuning import search
    from tuning.report import terminal, write

    if command.shared != SharedSettings() and not command.shared_weights:
        changed = [name for name, value in vars(command.shared).items() if value != getattr(SharedSettings(), name)]
        flag, value = f"--{changed[0].replace('_', '-')}", getattr(command.shared, changed[0])
        raise UserError(f"Expected --shared-weights with {flag}; Received: {flag} {value} alone.")
    console = Console()
    folder = _folder(command)
    results = search(
        folder,
        command.space,
        recipe=command.settings,
        tuner=command.tuner,
        trials=command.trials,
        budget=command.budget,
        also=command.also,
        multipliers=command.multipliers,
        stem=command.search_stem,
        shared=command.shared if command.shared_weights else None,
        proposal=read_spec(command.proposal) if command.proposal else None,
        objective=command.objective,
        pareto=command.pareto,
        latency=command.latency_table,
        patience=command.patience,
        max_failures=command.max_failures,
        strategy=command.strategy,
        save_every=command.save_every,
        show=lambda standing: console.print(terminal.trial_line(standing), highlight=False, soft_wrap=True),
        progress=functools.partial(terminal.ShowSteps, console) if console.is_terminal else None,
    )
    if not results:  # a worker
        return
    console.print(terminal.best_table(results))
    if results.alone:
        console.print(terminal.alone_table(results))
    console.print(f"report: {folder / write.REPORT / write.PAGE}", highlight=False, soft_wrap=True)


def _latency(command: Latency, argv: list[str]) -> None:
    from rich.console import Console

    from inception_v1.atomic_files import check_file
    from inception_v1.spec import read_spec
    from training.report.progress import track_count
    from tuning import measure_latency
    from tuning.report.terminal import latency_table

    arguments = {field.name: getattr(command, field.name) for field in dataclasses.fields(command)}
    spec, out = read_spec(arguments.pop("spec")), arguments.pop("out")
    check_file(out, (".json",))
    found = measure_latency(spec, **arguments, progress=track_count)
    found.write(out)
    Console().print(latency_table(found))
    print(out)


def _beside(run: Path, what: str) -> Path:
    """A folder beside that of a run."""
    whole = Path(os.path.abspath(run))
    return whole.with_name(f"{whole.name}-{what}")


def _slim(command: Slim, argv: list[str]) -> None:
    from rich.console import Console

    from training.report.page import PAGE
    from training.report.progress import ShowProgress, track_count
    from training.run_folder import REPORT
    from tuning import slim
    from tuning.report.terminal import slimming_table

    console = Console()
    folder = command.out or _beside(command.run, "slim")
    result = slim(
        command.run,
        folder,
        command.settings,
        strategy=command.strategy,
        overwrite=command.overwrite,
        save_every=command.save_every,
        command=shlex.join(["googlenet", *argv]),
        show=functools.partial(ShowProgress, console),
        track=track_count,
    )
    console.print(slimming_table(result))
    console.print(f"run folder: {folder}", highlight=False, soft_wrap=True)
    console.print(f"report: {folder / REPORT / PAGE}", highlight=False, soft_wrap=True)


def _widths(command: Widths, argv: list[str]) -> None:
    from rich.console import Console

    from inception_v1.spec import read_spec
    from training.run_folder import SPEC
    from tuning import correlated_widths
    from tuning.report.widths import check_new, widths_table, write_widths

    console = Console()
    folder = command.out or _beside(command.run, "widths")
    check_new(folder)
    found = correlated_widths(
        command.run,
        keep_macs=command.keep_macs,
        max_macs=command.max_macs,
        images=command.images,
        threshold=command.threshold,
    )
    before = read_spec(command.run / SPEC)
    write_widths(folder, found, before)
    console.print(widths_table(found, before))
    console.print(f"to train it: googlenet train --spec {folder / SPEC} ...", highlight=False, soft_wrap=True)


def _launch(command: Launch, argv: list[str]) -> int:
    from training.distribution.launch import launch

    inner = _launched(argv)
    parsed = _parse(inner)  # an error in it is reported once, before anything starts
    tunes = isinstance(parsed, Tune)
    if isinstance(parsed, Train | Tune) and parsed.out is None:  # else each process would choose its own, by the time
        inner = [*inner, "--out", str(_folder(parsed))]
    if getattr(parsed, "overwrite", False) and command.restarts:
        raise UserError("Expected --restarts without --overwrite, which would start over each time; Received: both.")
    if tunes and command.parameter_servers:
        raise UserError("Expected no parameter servers in tune, whose trials run apart; Received: some.")
    restarts = (3 if tunes else 0) if command.restarts is None else command.restarts
    jax = os.environ.get("KERAS_BACKEND") == "jax" or getattr(parsed, "strategy", None) == "data-parallel"
    if isinstance(sys.stdout, io.TextIOWrapper):
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

    from inception_v1.atomic_files import check_file, check_folder
    from training.evaluation.evaluate import evaluations
    from training.report.progress import track
    from training.report.run_report import write_evaluation, write_predictions
    from training.report.tables import ensemble_table, score_table

    if command.predictions:
        check_file(command.predictions, (".csv", ".json"))
    if command.report:
        check_folder(command.report)
    results = []
    for evaluation in evaluations(command.runs, command.split, command.crops, track):
        results.append(evaluation.result())
    if command.predictions:
        write_predictions(command.predictions, evaluation.predictions, evaluation.classes)
    if command.report:
        write_evaluation(command.report, evaluation.predictions, evaluation.classes)
    alone = len(results) == 1
    if command.json:
        print(json.dumps(results[0] if alone else results, indent=2))
    else:
        Console().print(score_table(results[0]) if alone else ensemble_table(results))


def _show(command: Show, argv: list[str]) -> None:
    import webbrowser

    if _is_search(command.folder):
        from tuning.search_folder import updated_search_page

        page = updated_search_page(command.folder)
    elif _is_slimmed(command.folder):
        from training.run_folder import RunFolder
        from tuning.report.slimming import write_slimming_page

        page = write_slimming_page(RunFolder(command.folder))
    else:
        from training.report.run_page import updated_run_page
        from training.run_folder import RunFolder

        page = updated_run_page(RunFolder(command.folder))
    print(page)
    if command.open:
        webbrowser.open(page.absolute().as_uri())


def _compare(command: Compare, argv: list[str]) -> None:
    from rich.console import Console

    from inception_v1.atomic_files import check_file
    from training.evaluation.compare import compare
    from training.report import figures, tables
    from training.report.progress import track
    from training.run_folder import HISTORY, read_history

    check_file(command.out, (".png",))
    result = compare(command.first, command.second, command.split, track)
    histories = {str(run): read_history(run / HISTORY) for run in (command.first, command.second)}
    figures.save(figures.compared_curves(histories), command.out)
    if command.json:
        print(json.dumps(result, indent=2))
    else:
        console = Console()
        console.print(tables.comparison_table(result), tables.agreement_table(result))
        console.print(tables.verdict(result), highlight=False)
        console.print(command.out, highlight=False, soft_wrap=True)


def _predict(command: Predict, argv: list[str]) -> int:
    from inception_v1.atomic_files import check_file
    from training.data.image_files import image_files
    from training.report.progress import track_count

    if command.out:
        check_file(command.out, (".csv", ".json"))
    files = image_files((str(command.model), *command.images) if command.server else command.images)
    if command.server:
        from training.serving_client import predict_remotely

        result = predict_remotely(command.server, files, command.top, command.name, track_count)
    else:
        from training.evaluation.classify import classify

        result = classify(command.model, files, command.top, track_count)
    if command.out:
        from training.report.image_classes import write_image_classes

        write_image_classes(command.out, result)
    if command.json:
        print(json.dumps(result, indent=2))
    elif command.out:
        print(command.out)
    else:
        from rich.console import Console

        from training.report.tables import class_table

        for image, best in result.items():
            Console().print(class_table(image, best))
    return 0 if len(result) == len(files) else 1


def _visualize(command: Visualize, argv: list[str]) -> None:
    from interpretability.channel_rendering import ChannelSettings
    from interpretability.progress import show_progress
    from interpretability.rendering import STEPS
    from interpretability.visualize import visualize

    if command.atlas:
        _draw_atlas(command)
        return
    arguments = _arguments_of(command, ATLAS[1:], "without --atlas")
    del arguments["atlas"]
    arguments["steps"] = command.steps or STEPS
    fields = [field.name for field in dataclasses.fields(ChannelSettings)]
    settings = ChannelSettings(**{name: arguments.pop(name) for name in fields})
    found = visualize(arguments.pop("model"), **arguments, settings=settings, progress=show_progress)
    if found.above:
        above, channels = found.above
        print(
            f"{above} of {channels} rendered images ({above / channels:.1%}) activate their channel more than every "
            "image of the split"
        )
    print(found.page)


def _draw_atlas(command: Visualize) -> None:
    from interpretability.atlas import STEPS, AtlasSettings
    from interpretability.atlas_files import write_atlas
    from interpretability.progress import show_progress

    _arguments_of(command, CHANNELS_ALONE, "with --atlas")
    if len(command.layer) != 1:
        raise UserError(f"Expected one layer with --atlas; Received: {', '.join(command.layer) or 'none'}.")
    settings = AtlasSettings(
        grid=command.grid,
        neighbors=command.neighbors,
        whiten=command.whiten,
        size=command.size,
        steps=command.steps or STEPS,
        seed=command.seed,
    )
    images = {"images": command.source, "split": command.split}
    print(
        write_atlas(
            command.model, command.layer[0], command.out, settings, command.batch, **images, progress=show_progress
        )
    )


def _explain(command: Explain, argv: list[str]) -> None:
    from interpretability.explain import explain
    from interpretability.layer_figures import LayerFigures
    from interpretability.progress import show_progress

    if command.branches:
        return _explain_split(command)
    arguments = _arguments_of(command, SPLIT_ONLY, "without --branches")
    if not (command.caricature or command.inversion or command.factors):
        _arguments_of(command, ("count", "steps"), "without --caricature, --inversion or --factors")
    drawn = {name: arguments.pop(name) for name in OF_LAYERS}
    arguments["layers"] = LayerFigures(**drawn, seed=command.seed)
    found = explain(arguments.pop("model"), arguments.pop("images"), **arguments, progress=show_progress)
    for method, check in found.checks.items():
        print(f"{method}: {', '.join(f'{name} {value:.3f}' for name, value in check._asdict().items())}")
    print(found.page)


def _explain_split(command: Explain) -> None:
    from interpretability.explain_split import explain_split
    from interpretability.progress import show_progress

    arguments = _arguments_of(command, IMAGES_ONLY, "with --branches")
    del arguments["branches"]
    found = explain_split(arguments.pop("model"), **arguments, progress=show_progress)
    print(*found.summary(), found.page, sep="\n")


def _arguments_of(command: Any, others: Sequence[str], where: str) -> dict[str, Any]:
    """The fields of a command but some. Raises UserError where one of these was given."""
    fields = {field.name: field.default for field in dataclasses.fields(command)}
    given = [name for name in others if getattr(command, name) not in ((), fields[name])]
    if given:
        flags = ", ".join(name if name == "images" else f"--{name}" for name in given)
        raise UserError(f"Expected no {flags} {where}; Received: {getattr(command, given[0])}.")
    return {name: getattr(command, name) for name in fields if name not in others}


def _export(command: Export, argv: list[str]) -> None:
    from rich.console import Console

    from inception_v1.spec import read_class_names
    from training.export.export import export
    from training.export.model_card import parity_table

    arguments = {field.name: getattr(command, field.name) for field in dataclasses.fields(command)}
    source, classes = arguments.pop("model"), arguments.pop("classes")
    out = arguments.pop("out") or Path("saved_models", source.absolute().name.removesuffix(".keras"))
    names = read_class_names(classes) if classes else None
    card = export(source, out, class_names=names, **arguments)
    Console().print(parity_table(card))
    if "web" in card["formats"]:
        page = out / str(card["version"]) / "web"
        server = shlex.join(["python", "-m", "http.server", "--bind", "localhost", "--directory", str(page)])
        print(f"{server}   # then open http://localhost:8000")
    print(out / str(card["version"]))


def _import_weights(command: ImportWeights, argv: list[str]) -> None:
    from inception_v1 import import_weights
    from inception_v1.atomic_files import atomic_file, check_file
    from inception_v1.spec import read_class_names

    check_file(command.out, (".keras",))
    names = read_class_names(command.classes) if command.classes else None
    model = import_weights(command.file, command.pixels, names)
    with atomic_file(command.out) as part:
        model.save(part)
    spec = model.spec
    print(f"{command.out}: {spec.variant}, {spec.classes} classes, heads {', '.join(spec.heads)}, pixels {spec.pixels}")


def _augment(command: Augment, argv: list[str]) -> None:
    from training.presets import preset_for_source
    from training.report import figures

    settings = preset(command.recipe) if command.recipe else preset_for_source(command.source)
    settings = dataclasses.replace(settings, source=command.source, seed=command.seed)
    figures.save(figures.augmentation(settings, command.rows, command.columns), command.out)
    print(command.out)


def _data_service(command: DataService, argv: list[str]) -> None:
    import threading

    from training.data.service import run_service

    with run_service(command.host, command.port, command.dispatcher) as address:
        print(f"googlenet train --data-service {address}", flush=True)
        threading.Event().wait()


def _summary(command: Summary, argv: list[str]) -> None:
    from inception_v1 import summary
    from inception_v1.spec import Spec, read_spec

    fields = {field.name for field in dataclasses.fields(Summary)} - {"spec", "draw"}
    spec = read_spec(command.spec) if command.spec else Spec(**{name: getattr(command, name) for name in fields})
    if command.draw is not None:
        summary.draw(spec, command.draw)
    else:
        from rich.console import Console

        Console(width=None if sys.stdout.isatty() else 200).print(summary.table(spec))


_RUN: dict[type, Callable[[Any, list[str]], int | None]] = {
    Train: _train,
    Tune: _tune,
    Slim: _slim,
    Widths: _widths,
    Latency: _latency,
    Launch: _launch,
    Evaluate: _evaluate,
    Show: _show,
    Compare: _compare,
    Predict: _predict,
    Visualize: _visualize,
    Explain: _explain,
    Export: _export,
    ImportWeights: _import_weights,
    Augment: _augment,
    DataService: _data_service,
    Summary: _summary,
}

if __name__ == "__main__":
    sys.exit(main())
