import dataclasses
import socket

import pytest

from training.data.service import check_answers, serving
from training.recipe import PRESETS
from training.train import train


@pytest.fixture
def silent():
    """A port where nothing listens."""
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    return port


def test_addresses_are_checked_before_anything_is_done(silent, data_dir, tmp_path):
    recipe = dataclasses.replace(PRESETS["digits"], data_dir=data_dir)
    for address in ("localhost:5050", "grpc://localhost", "grpc://:5050", f"grpc://localhost:{silent}"):
        with pytest.raises(ValueError, match="data service at grpc://HOST:PORT"):
            train(recipe, tmp_path / "run", data_service=address)
        with pytest.raises(ValueError, match="data service at grpc://HOST:PORT"), serving(dispatcher=address):
            pass
    assert not (tmp_path / "run").exists()


def test_a_taken_port_is_refused_and_a_served_one_answers(silent):
    with serving(port=silent) as address:
        assert address == f"grpc://localhost:{silent}"
        check_answers(address)
        with pytest.raises(ValueError, match=f"free port; Received: port={silent}"), serving(port=silent):
            pass
