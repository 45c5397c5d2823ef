import dataclasses
import socket

import pytest

from training.data.service import check_reachable, run_service
from training.presets import PRESETS
from training.train import train


@pytest.fixture
def free_port():
    """A port where nothing listens."""
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    return port


def test_addresses_are_checked_before_anything_is_written(free_port, data_dir, tmp_path):
    recipe = dataclasses.replace(PRESETS["digits"], data_dir=data_dir)
    for address in ("localhost:5050", "grpc://localhost", "grpc://:5050", f"grpc://localhost:{free_port}"):
        with pytest.raises(ValueError, match="data service at grpc://HOST:PORT"):
            train(recipe, tmp_path / "run", data_service=address)
        with pytest.raises(ValueError, match="data service at grpc://HOST:PORT"), run_service(dispatcher=address):
            pass
    assert not (tmp_path / "run").exists()


def test_a_port_in_use_is_refused_and_a_running_service_is_reachable(free_port):
    with run_service(port=free_port) as address:
        assert address == f"grpc://localhost:{free_port}"
        check_reachable(address)
        with (
            pytest.raises(ValueError, match=f"free port; Received: port={free_port}"),
            run_service(port=free_port),
        ):
            pass
