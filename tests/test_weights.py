import numpy as np
import pytest

from inception_v1 import build_googlenet, load_weights

SMALL = {"input_shape": (32, 32, 1), "classes": 3, "width_multiplier": 0.1}


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_saved_weights_load(tmp_path, suffix):
    model = build_googlenet(**SMALL)
    path = tmp_path / f"model{suffix}"
    (model.save if suffix == ".keras" else model.save_weights)(path)
    for other in (build_googlenet(**SMALL, weights=path), build_googlenet(**SMALL)):
        load_weights(other, path)
        for a, b in zip(model.get_weights(), other.get_weights()):
            np.testing.assert_array_equal(a, b)


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_bad_files_are_refused_and_leave_the_model_alone(tmp_path):
    model = build_googlenet(**SMALL)
    other = tmp_path / "other.weights.h5"
    build_googlenet(**{**SMALL, "classes": 4}).save_weights(other)
    broken = tmp_path / "broken.weights.h5"
    broken.write_bytes(other.read_bytes()[:1000])
    (tmp_path / "model.bin").write_bytes(b"x")
    before = model.get_weights()
    for path, message in (
        (tmp_path / "absent.keras", "does not exist"),
        (tmp_path / "model.bin", r"\.weights\.h5 or \.keras"),
        (other, "network like 'googlenet'.*other.weights.h5"),
        (broken, "network like 'googlenet'.*broken.weights.h5"),
    ):
        with pytest.raises(ValueError, match=message):
            load_weights(model, path)
    for a, b in zip(before, model.get_weights()):
        np.testing.assert_array_equal(a, b)
