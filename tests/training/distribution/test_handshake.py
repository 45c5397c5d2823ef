import contextlib
import http.server
import json
import signal
import socket
import threading
import time
from concurrent import futures

import grpc
import pytest
import tensorflow as tf

from tests.helpers import ROOT
from tests.helpers.processes import LIMIT, command, free_ports, processes
from training.distribution.cluster import await_all, find_server_problem
from training.distribution.handshake import Handshake
from training.errors import ClusterError


@contextlib.contextmanager
def http_service():
    with http.server.ThreadingHTTPServer(("localhost", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@contextlib.contextmanager
def grpc_service():
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield port
    server.stop(None).wait()


@contextlib.contextmanager
def closing_service():
    """A service that greets before it is asked, as SSH does, and closes."""
    with socket.create_server(("localhost", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection = server.accept()[0]
                    connection.sendall(b"SSH-2.0-server\r\n")
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def addresses(*ports):
    return {f"worker {i}": f"localhost:{port}" for i, port in enumerate(ports)}


def test_processes_of_a_cluster_meet_though_they_start_and_leave_at_different_times():
    tasks = addresses(*free_ports(3))

    def join(own, delay):
        time.sleep(delay)
        handshake = Handshake(tasks, own)
        with handshake.answering():
            return await_all({name: tasks[name] for name in tasks if name != own}, 20, handshake.find_problem)

    with futures.ThreadPoolExecutor(3) as pool:
        for left in pool.map(join, tasks, (0, 0.3, 0.6)):
            assert 0 < left < 20


@pytest.mark.parametrize("service", [http_service, grpc_service, closing_service])
def test_another_service_at_the_address_of_a_task_is_not_the_task(service):
    with service() as port:
        tasks = addresses(*free_ports(1), port)
        for find_problem in (Handshake(tasks, "worker 0").find_problem, find_server_problem):
            with pytest.raises(ClusterError) as error:
                await_all({"worker 1": tasks["worker 1"]}, 0.1, find_problem)
            assert str(error.value) == (
                f"Expected every machine within 0.1 s; missing: worker 1 at localhost:{port}, where something else "
                "answers."
            )


def test_a_process_of_another_cluster_or_as_another_task_is_not_the_task():
    tasks = addresses(*free_ports(3))
    others = {**tasks, "worker 2": "elsewhere:1"}
    swapped = {**tasks, "worker 1": tasks["worker 2"], "worker 2": tasks["worker 1"]}
    asking, stranger = Handshake(tasks, "worker 0"), Handshake(others, "worker 1")
    with asking.answering(), stranger.answering():
        problem = asking.find_problem("worker 1", tasks["worker 1"])
        assert problem == ", where worker 1 of another cluster answers"
        assert stranger.find_problem("worker 0", tasks["worker 0"]) == ", where worker 0 of another cluster answers"
    mistaken = Handshake(tasks, "worker 2")
    with mistaken.answering():
        assert asking.find_problem("worker 1", swapped["worker 1"]) == ", where worker 2 answers"


def test_a_server_of_tensorflow_is_the_task_that_it_serves():
    (port,) = free_ports(1)
    cluster = {"worker": ["localhost:1", f"localhost:{port}"]}
    server = tf.distribute.Server(cluster, job_name="worker", task_index=1, protocol="grpc")
    address = server.target.removeprefix("grpc://")
    assert find_server_problem("worker 1", address) is None
    assert find_server_problem("chief", address) == ", where worker 1 answers"
    assert find_server_problem("chief", f"localhost:{free_ports(1)[0]}") == ""


def start(port, timeout):
    """A process that waits for a second worker at a port, once it listens; and its handshake's tasks."""
    tasks = addresses(*free_ports(1), port)
    task = {"cluster": {"worker": list(tasks.values())}, "task": {"type": "worker", "index": 0}}
    argv = command(["train", "--no-aux", "--cluster-timeout", timeout, "--out", "/nonexistent"])
    return tasks, (argv, {"PYTHONPATH": str(ROOT), "TF_CONFIG": json.dumps(task)})


def wait_until_it_listens(address, process):
    host, port = address.split(":")
    for _ in range(10 * LIMIT):
        with contextlib.suppress(OSError):
            return socket.create_connection((host, int(port))).close()
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    raise TimeoutError(address)


def test_ctrl_c_while_it_begins_to_answer_leaves_no_thread_behind(monkeypatch):
    start_thread = threading.Thread.start

    def interrupted(thread):
        assert thread.daemon  # else a process that is interrupted even earlier waits for it at its exit
        start_thread(thread)
        raise KeyboardInterrupt

    handshake, before = Handshake(addresses(*free_ports(1)), "worker 0"), threading.active_count()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt), handshake.answering():
            pytest.fail("Ctrl-C was ignored")
    assert threading.active_count() == before
    assert handshake.socket.fileno() == -1


def test_signals_end_the_waiting_for_another_machine():
    with http_service() as port, contextlib.ExitStack() as stack:
        started = []
        for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)):
            tasks, argv = start(port, 60)
            started.append((tasks["worker 0"], number, status, *stack.enter_context(processes([argv]))))
        for address, number, status, process in started:
            wait_until_it_listens(address, process)
            process.send_signal(number)
            output = process.communicate(timeout=20)[0]
            assert process.returncode == status, output
            assert "Traceback" not in output


def test_the_wait_for_a_machine_that_is_lost_after_it_joined_is_bounded_and_ends_with_ctrl_c():
    """TensorFlow waits then, in C++."""
    with contextlib.ExitStack() as stack:
        started = []
        for timeout in (60, 1):
            tasks, argv = start(free_ports(1)[0], timeout)
            started.append((tasks, *stack.enter_context(processes([argv]))))
        for tasks, process in started:
            handshake = Handshake(tasks, "worker 1")
            with handshake.answering():
                wait_until_it_listens(tasks["worker 0"], process)
                await_all({"worker 0": tasks["worker 0"]}, 20, handshake.find_problem)
        (_, interrupted), (_, bounded) = started
        output = bounded.communicate(timeout=60)[0]
        assert bounded.returncode == 3, output
        assert "googlenet: error: lost worker 1 at localhost:" in output
        interrupted.send_signal(signal.SIGINT)
        assert interrupted.wait(20) == -signal.SIGINT
