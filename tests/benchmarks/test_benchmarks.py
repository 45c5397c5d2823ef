"""What the benchmarks rest on: contestants that take turns, exponents, tables, and one run at the smallest size."""

import contextlib
import dataclasses
import functools
import importlib.util
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from benchmarks import (
    distillation,
    evaluation,
    exporting,
    gpu,
    growth,
    input_pipeline,
    large_data,
    latency,
    pages,
    quick,
    results,
    rounds,
    scaling,
    serving,
    startup,
)
from benchmarks.results import ResultTable
from benchmarks.steps import Step
from tests.helpers import ROOT, contestants


def test_contestants_take_turns_and_one_that_is_not_installed_is_none(tmp_path):
    log = tmp_path / "log"
    makers = {name: functools.partial(contestants.writer, log, name, 7) for name in "ab"}
    found = rounds.alternate(
        {**makers, "missing": contestants.is_missing, "device": contestants.on_device}, rounds=4, warmup=2
    )
    assert log.read_text() == "aabb" + "ab" + "ba" + "ab" + "ab"  # of three that are installed, another first each time
    assert list(found) == ["a", "b", "missing", "device"]
    assert found["missing"] is None
    assert [len(found[name]["rates"]) for name in ("a", "b", "device")] == [4, 4, 4]
    assert found["device"]["device"] == 77
    assert "device" not in found["a"]
    assert rounds.median({"rates": [1, 9, 2]}) == 2
    assert rounds.spread({"rates": [1, 9, 2]}) == "1.0-9.0"


def test_without_any_contestant_there_is_no_round():
    assert rounds.alternate({"missing": contestants.is_missing}, rounds=2) == {"missing": None}


def test_memory_is_that_of_the_contestant_alone():
    """Not of the process that started it, which `ru_maxrss` includes."""
    mine = bytearray(b"x") * 300_000_000
    found = rounds.alternate(
        {
            "small": functools.partial(contestants.memory_user, 1),
            "large": functools.partial(contestants.memory_user, 10**8),
        },
        1,
    )
    assert found["large"]["grown"] > 0.9e8 > found["small"]["grown"] >= 0
    assert found["small"]["memory"] < len(mine)


def test_memory_of_a_command_has_that_of_the_processes_it_starts():
    child = "import time; held = b'x' * 200_000_000; time.sleep(1)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    assert max(rounds.sample_memory([sys.executable, "-c", parent], exporting.tree_memory, 0.1)) > 200e6
    alone = [sys.executable, "-c", "import time; time.sleep(0.3)"]
    assert max(rounds.sample_memory(alone, exporting.tree_memory, 0.1)) < 100e6


def test_a_command_that_fails_has_no_memory():
    with pytest.raises(RuntimeError, match="status 3"):
        rounds.sample_memory([sys.executable, "-c", "raise SystemExit(3)"], rounds.memory_of, 0.1)


def test_a_contestant_that_dies_is_named():
    with pytest.raises(RuntimeError, match="'the weak one' has died"):
        rounds.alternate({"other": contestants.on_device, "the weak one": contestants.dies}, rounds=1)


def test_exponents_are_those_of_the_growth():
    work = [3.0, 10.0, 80.0]
    assert growth.exponent(work, [5 * x for x in work]) == pytest.approx(1.0)
    assert growth.exponent(work, [5 * x**2 for x in work]) == pytest.approx(2.0)
    points = [{"flops": x**2, "value": x, "seconds": [9e9, 4 * x**2, 0], "grown": x**3} for x in work]
    assert growth.exponents(points) == pytest.approx((1.0, 2.0, 3.0))


def test_growth_shows_the_two_largest_points_apart():
    points = [
        {"flops": x, "value": x, "seconds": [seconds], "grown": x, "memory": 2 * x}
        for x, seconds in ((1, 1), (2, 1), (4, 4))  # a fixed cost hides the square
    ]
    steps, fits = growth.tables({"about": results.about(), "rounds": 1, "axes": {"batch": points}})
    assert [row[0] for row in steps.rows] == ["batch 1", "batch 2", "batch 4"]
    assert fits.rows == [["batch", "1.00", "2.00", "1.00", "2.00", "1.00", "1.00"]]


def test_every_axis_grows_in_one_field_only():
    for axis, steps in growth.AXES.items():
        values = [getattr(step, axis) for step in steps]
        assert values == sorted(set(values))
        assert len({step._replace(**{axis: None}) for step in steps}) == 1


def test_a_table_as_markdown():
    shown = ResultTable("Title", ["form", "s"], [["a", "1"], ["b", "2"]])
    assert shown.markdown() == "Title\n\n| form | s |\n| --- | --- |\n| a | 1 |\n| b | 2 |"


def test_quick_reports_what_became_slower():
    found, known = {"a": 0.79, "b": 0.81, "c": 3.0}, {"a": 1.0, "b": 1.0, "d": 1.0}
    verdicts = {row[0]: row[-1] for row in quick.table(found, known).rows}
    assert verdicts == {"a": "worse", "b": "as before", "c": "new", "d": "not measured"}


def test_pages_show_what_is_stored(monkeypatch, tmp_path):
    seconds = {name: [1.0, 2.0, 4.0] for name in startup.PROGRAMS}
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(pages, "FOLDER", tmp_path)
    results.save("startup", {"about": results.about(), "rounds": 3, "seconds": seconds})
    page = tmp_path / "speed.md"
    page.write_text("a\n<!-- benchmark startup -->\nold\n<!-- end -->\nb\n<!-- benchmark gpu -->\n<!-- end -->\nc\n")
    for _ in range(2):  # a second call changes nothing
        pages.main()
        written = page.read_text()
        assert "| `googlenet --help` | 2.00 | 1.00-4.00 | 0.5 |\n" in written
        assert "old" not in written
        assert "<!-- benchmark gpu -->\n\nNot measured: `python -m benchmarks gpu`.\n\n<!-- end -->\nc\n" in written


def test_self_distillation_is_compared_with_the_labels_alone():
    """By seed; a step that takes longer has a relative time above 1."""
    labels, distilled = ([{"validation": 0.9, "top1": top1 + more} for top1 in (0.8, 0.9)] for more in (0, 0.01))
    shown = distillation.tables(
        {"about": results.about(), "recipe": "recipe digits", "rounds": 1}
        | {"runs": {distillation.LABELS: labels, "distill_heads 1": distilled}}
        | {"steps": {distillation.LABELS: {"rates": [300.0]}, "distill_heads 1": {"rates": [240.0]}}}
    )[0]
    assert shown.rows[0] == [distillation.LABELS, "90.00 ± 0.00", "85.00 ± 7.07", "", "300", ""]
    assert shown.rows[1][3:] == ["1.00 ± 0.00", "240", "1.250"]


def test_a_case_of_a_latency_table_keeps_its_own_machine(monkeypatch, tmp_path):
    """Measuring one case again leaves what is known about another as it was."""
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    check = {"measured": 0.002, "predicted": 0.003}
    first, second = list(latency.CASES)[:2]
    monkeypatch.setattr(latency, "measure", lambda case, networks, checks: made(networks, "new CPU"))

    def made(networks, cpu):
        return {"about": results.about() | {"cpu": cpu}, "networks": networks, "checks": [check]}

    results.save("latency", {"cases": {first: made(24, "old CPU")}})
    old, new = latency.main(["--case", second, "--networks", "8"])
    assert old.title.startswith("Sums of a table from 24 profiled networks; old CPU")
    assert new.title.startswith("Sums of a table from 8 profiled networks; new CPU")
    assert [[row[0] for row in table.rows] for table in (old, new)] == [[first], [second]]


@pytest.fixture
def serve(monkeypatch):
    """Makes a server of which each request takes a second of a clock of its own, and has the next of some outcomes."""
    now = [0]

    def made(*outcomes):
        left = iter(outcomes)

        @contextlib.contextmanager
        def client(addresses):
            def send(encoded):
                now[0] += 1
                outcome = next(left, len(encoded))
                if isinstance(outcome, OSError):
                    raise outcome
                return outcome

            yield send

        monkeypatch.setattr(serving, "grpc_client", client)

    monkeypatch.setattr(serving, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(serving, "jpegs", lambda: [b""] * 3)
    return made


def test_requests_of_the_warm_up_do_not_count(serve, monkeypatch):
    serve()
    monkeypatch.setattr(serving, "WARM_UP", 2)
    found = serving.load(None, "gRPC", clients=1, images=2, seconds=3)
    waits = {"50": 1000.0, "99": 1000.0}
    assert found == {"images": 2, "rate": pytest.approx(2 * 2 / 3), "requests": 2, "ms": waits, "failed": {}}


@pytest.mark.parametrize(
    ("outcome", "reason"), [(OSError("refused"), "OSError('refused')"), (1, "images without a class")]
)
def test_a_client_without_classes_counts_as_failed_and_ends(serve, outcome, reason):
    serve(2, outcome)
    assert serving.load(None, "gRPC", clients=1, images=2, seconds=9)["failed"] == {reason: 1}


def test_evaluation_and_the_bare_forward_pass_see_the_same_images(tmp_path, monkeypatch):
    """Of which the bare one counts those of whole batches."""
    monkeypatch.setattr(input_pipeline, "IMAGES", 5)
    input_pipeline.write_folder(tmp_path, evaluation.COPIES)
    recipe = dataclasses.replace(
        evaluation.folder_recipe(tmp_path), image_size=32, stem="small", width_multiplier=0.1, batch_size=8
    )
    assert evaluation.evaluation(recipe)() == 5 * evaluation.COPIES
    assert evaluation.forward_pass(recipe)() == 2 * 8


def test_generated_images_have_imagenets_shape(tmp_path, monkeypatch):
    monkeypatch.setattr(large_data, "CLASSES", 20)
    large_data.generate(tmp_path, 40)
    files = sorted(tmp_path.rglob("*.jpg"))
    assert [len(list(tmp_path.glob(f"{split}/*/*.jpg"))) for split in ("train", "val", "test")] == [40, 20, 20]
    assert len({file.read_bytes() for file in files}) == len(files)
    assert 70e3 < np.mean([file.stat().st_size for file in files]) < 150e3
    sides = np.array([Image.open(file).size for file in files])
    assert 0.4 < (np.sort(sides) == (375, 500)).all(axis=1).mean() < 0.8


def test_memory_is_compared_once_it_has_settled():
    assert large_data.growth([1] * 4 + [2] * 4 + [2] * 4 + [3] * 4) == pytest.approx(0.5)


def test_the_pages_are_up_to_date_whatever_the_machine(monkeypatch):
    for module in [sys.modules[name] for name in sys.modules if name.startswith("benchmarks.")]:
        if hasattr(module, "CORES"):
            monkeypatch.setattr(module, "CORES", 77)
    shown = set()
    for page in pages.FOLDER.glob("*.md"):
        text = page.read_text("utf-8")
        assert pages.with_tables(text) == text, "python -m benchmarks --docs"
        shown |= {name for _, name, _ in pages.PLACE.findall(text)}
    assert shown >= {path.stem for path in results.FOLDER.glob("*.json")} - {"quick"}


def test_the_command_refuses_unknown_names():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "train", "speed"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Expected names among train, ")
    assert done.stderr.endswith("Received: speed.\n")


def test_without_a_gpu_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(gpu, "device_name", lambda: None)
    monkeypatch.setattr(gpu, "measure", lambda *_, **__: pytest.fail("began"))
    with pytest.raises(SystemExit, match="Expected a CUDA device"):
        gpu.main([])


def test_a_step_on_jax_beside_baselines_that_may_be_missing(monkeypatch):
    pytest.importorskip("jax")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # which take most of the time
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
    step = Step(2, 32, width=0.1)  # few shapes, so that XLA has less to compile
    result = gpu.measure(step, rounds=1, compiled=False, real_input=False)
    assert result["forms"][gpu.OURS]["rates"][0] > 0
    rows = {row[0]: row[1:] for row in gpu.tables(result)[0].rows}
    assert float(rows[gpu.OURS][0]) > 0
    if not importlib.util.find_spec("torch"):
        assert rows[gpu.EAGER][0] == rows[gpu.MATMUL][0] == "not installed"


def test_real_input_comes_in_batches_of_the_step(monkeypatch, tmp_path):
    import tensorflow as tf  # not in the processes of contestants

    noise = tf.random.stateless_uniform((4, 40, 50, 3), (0, 0), 0, 256, tf.int32)
    encoded = [tf.io.encode_jpeg(tf.cast(image, tf.uint8)).numpy() for image in noise]
    monkeypatch.setattr(input_pipeline, "jpegs", lambda: encoded)
    batches = gpu.pipeline(Step(5, 32), tmp_path / "images")
    for _ in range(2):
        images, labels = next(batches)
        assert images.shape == (5, 32, 32, 3)
        assert labels.shape == (5,)
        assert images.std() > 0


def test_scaling_without_jax_reports_that_in_its_row(monkeypatch):
    known = results.load("scaling")["runs"]
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.setattr(scaling, "start", lambda run: known["paper" if run is scaling.PAPER else run.name])
    rows = {row[0]: row[1:] for row in scaling.page_tables(scaling.measure())[0].rows}
    assert rows.pop("data-parallel") == ["not installed", *[""] * 6]
    assert all(cells[0] for cells in rows.values())
    assert rows.keys() == {"default", "mirrored", "multiworker", "parameter-server"}
