"""Clusters of real processes that run a line of Python each."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

import googlenet
from tests.helpers import ROOT
from training.distribution import launch as module
from training.distribution.launch import launch

PRELUDE = """
import json, os, signal, subprocess, sys, time
config = json.loads(os.environ.get("TF_CONFIG", "{}"))
kind, index = config["task"].values() if config else ("", 0)

def meet(count):  # waits until so many processes have called it
    open(os.path.join(os.environ["MEETING"], str(os.getpid())), "w").close()
    while len(os.listdir(os.environ["MEETING"])) < count:
        time.sleep(0.01)

"""
STUBBORN = "[signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]\n"
GRANDCHILD = "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])\n"
FOREVER = "print('up', os.getpid(), flush=True)\nmeet(99)\n"


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Nothing here needs Keras."""


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch, tmp_path_factory):
    monkeypatch.setattr(module, "FINAL_OUTPUT", 0.2)
    monkeypatch.setenv("MEETING", str(tmp_path_factory.mktemp("meeting")))


def script(code):
    return [sys.executable, "-S", "-c", PRELUDE + textwrap.dedent(code)]


def run(code, workers=1, **settings):
    """Exit status and lines of a cluster whose processes run `code`."""
    lines = []
    status = launch(script(code), workers, lines.append, **{"grace": 0.3, **settings})
    return status, lines


def lines_of(lines, name):
    """The lines of one process, without its name."""
    return [line.removeprefix(f"[{name}] ") for line in lines if line.startswith(f"[{name}] ")]


def left(groups):
    """Processes of these groups that still run after two seconds, which the system may need to end them."""
    deadline = time.monotonic() + 2
    while True:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getpgid(process.pid) in groups and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


def groups_in(lines):
    return {int(pid) for pid in re.findall(r"up (\d+)", "\n".join(lines))}


@pytest.mark.parametrize(("parameter_servers", "sizes"), [(0, {"worker": 3}), (2, {"chief": 1, "worker": 2, "ps": 2})])
def test_each_process_gets_the_cluster_and_its_own_task(parameter_servers, sizes):
    count = sum(sizes.values())
    code = f"print(os.environ['TF_CONFIG'], flush=True)\nmeet({count})"
    status, lines = run(code, sizes["worker"], parameter_servers=parameter_servers)
    configs = {line[1 : line.index("]")]: json.loads(line[line.index("]") + 2 :]) for line in lines}
    cluster = configs["worker 0"]["cluster"]
    addresses = [address for kind in cluster.values() for address in kind]
    assert status == 0
    assert {kind: len(addresses) for kind, addresses in cluster.items()} == sizes
    assert len(set(addresses)) == len(configs) == count
    assert all(re.fullmatch(r"127\.0\.0\.1:\d{4,5}", address) for address in addresses)
    for name, config in configs.items():
        assert config["cluster"] == cluster
        assert name == "{type} {index}".format(**config["task"]).replace("chief 0", "chief")


def test_jax_reads_keras_variables_and_no_others(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{}")
    show = "print({k: v for k, v in os.environ.items() if k.startswith(('KERAS_BACK', 'KERAS_DIST', 'TF_CONF'))})"
    status, lines = run(show, 2, environment="jax")
    found = [eval(lines_of(lines, f"worker {i}")[0]) for i in range(2)]
    assert status == 0
    address = found[0]["KERAS_DISTRIBUTION_JOB_ADDRESSES"]
    assert re.fullmatch(r"127\.0\.0\.1:\d+", address)
    for index, variables in enumerate(found):
        assert variables == {
            "KERAS_BACKEND": "jax",
            "KERAS_DISTRIBUTION_JOB_ADDRESSES": address,
            "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
            "KERAS_DISTRIBUTION_PROCESS_ID": str(index),
        }


def test_a_search_gets_keras_tuners_variables_and_restarts_a_lost_worker_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("TF_CONFIG", "{}")
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "stale")
    code = f"""
        own = {{k: v for k, v in os.environ.items() if k.startswith(('KERASTUNER_', 'TF_CONF'))}}
        print(own, flush=True)
        meet(3)
        if own["KERASTUNER_TUNER_ID"] == "worker0" and not os.path.exists({str(tmp_path / "died")!r}):
            open({str(tmp_path / "died")!r}, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        meet(4)  # the new one too
        time.sleep(0 if own["KERASTUNER_TUNER_ID"] == "chief" else 99)
    """
    status, lines = run(code, 2, environment="keras-tuner", restarts=1)
    assert status == 0, lines
    found = {name: [eval(line) for line in lines_of(lines, name)] for name in ("chief", "worker 0", "worker 1")}
    assert [len(each) for each in found.values()] == [1, 2, 1]
    port = found["chief"][0]["KERASTUNER_ORACLE_PORT"]
    for name, each in found.items():
        expected = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}
        assert each == [{**expected, "KERASTUNER_TUNER_ID": name.replace(" ", "")}] * len(each)


def test_lines_stay_whole_and_in_order():
    code = """
        for i in range(300):
            for part in (f"{i} ", "x" * 500, "\\n"):
                (sys.stdout if i % 2 else sys.stderr).write(part)
                (sys.stdout if i % 2 else sys.stderr).flush()
    """
    status, lines = run(code, 3)
    assert status == 0
    assert len(lines) == 900
    for worker in range(3):
        assert lines_of(lines, f"worker {worker}") == [f"{i} {'x' * 500}" for i in range(300)]


def test_progress_invalid_bytes_and_an_unfinished_line():
    code = """
        assert not sys.stdin.read()
        sys.stdout.buffer.write(b"1 %\\r50 %\\r\\x1b[A\\x1b[2K\\x1b[1m100 %\\x1b[0m\\r\\n\\n\\xff\\xc3\\xa9\\nlast")
    """
    assert run(code) == (0, [f"[worker 0] {text}" for text in ("\x1b[1m100 %\x1b[0m", "", "\ufffdé", "last")])


def test_a_failure_ends_the_others_and_what_they_started():
    fail = "if index == 1: meet(3); print('final output'); sys.exit(3)\n"
    status, lines = run(fail + STUBBORN + GRANDCHILD + FOREVER, 3)
    assert status == 3
    assert lines_of(lines, "launch") == ["worker 1 ended with exit status 3"]
    assert lines_of(lines, "worker 1") == ["final output"]
    assert len(groups_in(lines)) == 2
    assert not left(groups_in(lines))


def test_the_others_may_print_what_they_saw(monkeypatch):
    monkeypatch.setattr(module, "FINAL_OUTPUT", 5)
    status, lines = run("meet(2); time.sleep(0.3 * index); print('lost'); sys.exit(4 + index)", 2)
    assert status == 4
    assert lines_of(lines, "worker 1") == ["lost"]


@pytest.mark.parametrize(
    ("code", "expected", "line"),
    [
        ("sys.exit(0)", 0, None),
        ("sys.exit(2)", 2, "worker 0 ended with exit status 2"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "worker 0 was killed by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGRTMIN + 1)", 128 + signal.SIGRTMIN + 1, "worker 0 was killed by signal 35"),
    ],
)
def test_exit_status(code, expected, line):
    status, lines = run(code, restarts=1 if expected == 2 else 0)  # nothing is tried again after a user's error
    assert status == expected
    assert lines_of(lines, "launch") == ([line] if line else [])


def test_a_clean_end_leaves_no_grandchild():
    status, lines = run(GRANDCHILD + "print('up', os.getpid())")
    assert status == 0
    assert len(groups_in(lines)) == 1
    assert not left(groups_in(lines))


def test_the_cluster_starts_again_on_other_ports(tmp_path):
    code = f"""
        if index == 1:
            print(config["cluster"]["worker"][index], flush=True)
            open({str(tmp_path / "starts")!r}, "a").write("x")
            sys.exit(os.path.getsize({str(tmp_path / "starts")!r}) < 3)
    """
    status, lines = run(code, 2, restarts=2)
    assert status == 0
    assert len(set(lines_of(lines, "worker 1"))) == 3
    failure = "worker 1 ended with exit status 1"
    again = [f"starting the cluster again, restart {i} of 2" for i in (1, 2)]
    assert lines_of(lines, "launch") == [failure, again[0], failure, again[1]]
    (tmp_path / "starts").unlink()
    status, lines = run(code, 2, restarts=1)
    assert status == 1
    assert lines_of(lines, "launch") == [failure, "starting the cluster again, restart 1 of 1", failure]


def test_a_parameter_servers_worker_starts_again_alone(tmp_path):
    code = f"""
        marker = os.path.join({str(tmp_path)!r}, f"{{kind}} {{index}}")
        first = not os.path.exists(marker)
        print("up", os.getpid(), config["cluster"][kind][index], flush=True)
        open(marker, "a").write("x")
        if kind == "worker" and index == 1:
            if first: os.kill(os.getpid(), signal.SIGKILL)
            open(os.path.join({str(tmp_path)!r}, "rejoined"), "w").close()
        while kind != "chief" or not os.path.exists(os.path.join({str(tmp_path)!r}, "rejoined")): time.sleep(0.02)
    """
    status, lines = run(code, 2, parameter_servers=1, restarts=1)
    assert status == 0
    assert lines_of(lines, "launch") == ["worker 1 was killed by SIGKILL; starting it again, restart 1 of 1"]
    one, other = lines_of(lines, "worker 1")
    assert one.split()[2] == other.split()[2]
    assert (tmp_path / "ps 0").read_text() == (tmp_path / "chief 0").read_text() == "x"
    assert not left(groups_in(lines))


@pytest.mark.parametrize("failing", ["chief", "ps 0"])
def test_a_chief_or_parameter_server_takes_all_with_it(failing):
    code = f"""
        time.sleep(0.1 if {failing.split()[0]!r} == kind else 99)
        sys.exit(5)
    """
    status, lines = run(code, 2, parameter_servers=1, restarts=1)
    assert status == 5
    failure = f"{failing} ended with exit status 5"
    assert lines_of(lines, "launch") == [failure, "starting the cluster again, restart 1 of 1", failure]


def test_the_chiefs_end_is_everyones():
    end = "if kind == 'chief': meet(3); sys.exit()\n"
    status, lines = run(end + STUBBORN + FOREVER, parameter_servers=1)
    assert status == 0
    assert lines_of(lines, "launch") == []
    assert len(groups_in(lines)) == 2
    assert not left(groups_in(lines))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 0}, "workers to be 1 or more; Received: workers=0"),
        ({"parameter_servers": -1}, "parameter_servers to be 0 or more; Received: parameter_servers=-1"),
        ({"restarts": -1}, "restarts to be 0 or more; Received: restarts=-1"),
        (
            {"environment": "jax", "parameter_servers": 1},
            "parameter servers with TensorFlow only; Received: parameter_servers=1",
        ),
    ],
)
def test_bad_arguments_start_nothing(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(f"open({str(tmp_path / 'started')!r}, 'w')", **{"workers": 1, **settings})
    assert not list(tmp_path.iterdir())


def test_a_command_that_is_not_there():
    with pytest.raises(OSError, match="nonexistent"):
        launch(["/nonexistent"], 2, print)


def test_lines_that_cannot_be_shown_end_the_cluster():
    lines = []

    def show(line):
        lines.append(line)
        if "up" in line:
            raise BrokenPipeError("nobody reads")

    with pytest.raises(BrokenPipeError, match="nobody reads"):
        launch(script(FOREVER), 2, show, grace=0.3)
    assert not left(groups_in(lines))


def start(code, workers=2, grace=0.3, ignored=()):
    """A launcher of its own, with the process groups of its workers once all of them are up."""
    source = f"""
import functools, sys
from training.distribution import launch
launch.DRAIN = 0.3
sys.exit(launch.launch({script(code)!r}, {workers}, functools.partial(print, flush=True), grace={grace}))
"""

    def as_in_a_terminal():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    launcher = subprocess.Popen(
        [sys.executable, "-c", source], cwd=ROOT, text=True, stdout=subprocess.PIPE, preexec_fn=as_in_a_terminal
    )
    return launcher, groups_in([launcher.stdout.readline() for _ in range(workers)])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("stubborn", ["", STUBBORN], ids=["", "stubborn"])
def test_signals_leave_nothing_behind(number, stubborn):
    launcher, groups = start(stubborn + GRANDCHILD + FOREVER)
    assert len(groups) == 2
    launcher.send_signal(number)
    assert launcher.wait(20) == 128 + number
    assert not left(groups)


def test_processes_get_ctrl_c_as_such_and_hangup_as_sigterm():
    code = "[signal.signal(s, lambda n, _: print('got', n) or sys.exit()) for s in (1, 2, 15)]\n" + FOREVER
    for sent, got in ((signal.SIGINT, 2), (signal.SIGHUP, 15)):
        launcher, _ = start(code)
        launcher.send_signal(sent)
        assert sorted(launcher.stdout) == [f"[worker {i}] got {got}\n" for i in range(2)]
        assert launcher.wait(20) == 128 + sent


def test_a_second_ctrl_c_does_not_wait_for_the_grace():
    launcher, groups = start("signal.signal(2, lambda *_: print('no'))\n" + FOREVER, workers=1, grace=60)
    launcher.send_signal(signal.SIGINT)
    assert launcher.stdout.readline() == "[worker 0] no\n"
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(20) == 130
    assert not left(groups)


def test_a_terminal_that_stands_still_keeps_nothing_alive():
    launcher, groups = start("print('up', os.getpid(), flush=True)\nwhile True: print('x' * 1000)")
    time.sleep(0.5)  # until every buffer is full
    launcher.send_signal(signal.SIGTERM)
    launcher.wait(20)
    assert not left(groups)


def test_nohup_stays_in_force():
    launcher, groups = start(FOREVER, ignored=[signal.SIGHUP])
    launcher.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert launcher.poll() is None
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(20) == 143
    assert not left(groups)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG")
def test_processes_end_with_a_killed_launcher():
    launcher, groups = start(FOREVER)
    launcher.kill()
    launcher.wait(20)
    assert not left(groups)


@pytest.fixture
def launched(monkeypatch):
    """What the command line would have launched."""
    calls = []

    def record(command, workers, show, **settings):
        assert command[:2] == [sys.executable, googlenet.__file__]
        calls.append((command[2:], workers, settings))
        return 7

    monkeypatch.setattr(module, "launch", record)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr(googlenet, "_prepare_tensorflow", lambda: pytest.fail("the launcher needs no TensorFlow"))
    return calls


def test_the_command_line_splits_flags_from_flags(launched, monkeypatch):
    inner = ["train", "--epochs", "3", "--recipe", "fashion", "--out", "train"]
    assert googlenet.main(["launch", "--restarts", "1", "--workers", "3", "--parameter-servers", "2", *inner]) == 7
    settings = {"parameter_servers": 2, "restarts": 1, "environment": "tensorflow"}
    assert launched.pop() == (inner, 3, settings)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    googlenet.main(["launch", "--workers", "2", *inner])
    assert launched.pop()[2]["environment"] == "jax"


def test_workers_of_a_search_may_die_three_times(launched):
    googlenet.main(["launch", "--workers", "2", "tune", "--space", "stages"])
    command, _, settings = launched.pop()
    assert settings == {"parameter_servers": 0, "restarts": 3, "environment": "keras-tuner"}
    assert re.fullmatch(r"runs/tune-stages-\d{8}-\d{6}", command[-1])


def test_all_processes_work_in_one_folder(launched):
    googlenet.main(["launch", "--workers", "2", "train", "--recipe", "fashion"])
    command = launched.pop()[0]
    assert command[:4] == ["train", "--recipe", "fashion", "--out"]
    assert re.fullmatch(r"runs/fashion-\d{8}-\d{6}", command[4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("launch", "Expected the flags of launch, then train or tune with its own; Received: launch."),
        ("launch --workers 2 --parameter-servers 1 tune", "Expected no parameter servers in tune"),
        ("launch --workers 2", "Received: launch --workers 2."),
        ("launch --workers 2 trian --epochs 3", "Received: launch --workers 2 trian --epochs 3."),
        ("launch --workers 2 train --epochs 0", "Expected epochs to be an integer from 1 to below"),
        ("launch --workers 2 --restarts 1 train --overwrite", "Expected --restarts without --overwrite"),
    ],
)
def test_a_users_error_is_one_line_and_starts_nothing(arguments, message, launched, capsys):
    assert googlenet.main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("googlenet: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not launched


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("launch --workers 2 train --epocs 3", "--epocs"),
        ("launch --wrkers 2 train --epochs 3", "--wrkers"),
        ("launch --workers 2 evaluate train", "evaluate"),
        ("launch train", "--workers"),
    ],
)
def test_a_typo_is_reported_once_and_starts_nothing(arguments, message, launched, capsys):
    with pytest.raises(SystemExit) as end:
        googlenet.main(arguments.split())
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not launched


@pytest.mark.parametrize(
    ("arguments", "text"),
    [("launch --help", "COMMAND"), ("launch --workers 2 train --help", "--learning-rate"), ("--help", "launch")],
)
def test_help(arguments, text, launched, capsys):
    with pytest.raises(SystemExit) as end:
        googlenet.main(arguments.split())
    assert end.value.code == 0
    assert text in capsys.readouterr().out
    assert not launched


def test_the_launcher_imports_neither_keras_nor_tensorflow():
    heavy = "{'keras', 'tensorflow', 'numpy'}"
    code = f"import sys, googlenet, training.distribution.launch; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
