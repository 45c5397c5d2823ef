import keras
import numpy as np
import pytest
from keras import ops

from inception_v1.layers import AdaptiveAveragePooling2D, LocalResponseNormalization
from tests.helpers.gradients import gradient_of

pytestmark = pytest.mark.every_backend


def lrn_reference(x, size, alpha, beta, k):
    """Float64 and its gradient for a loss of sum(y * weight) as a function of the weight."""
    x = x.astype("float64")
    channels = x.shape[-1]
    energy = np.stack(
        [np.square(x[..., max(0, c - size // 2) : c + size // 2 + 1]).sum(axis=-1) for c in range(channels)],
        axis=-1,
    )
    d = k + alpha / size * energy
    y = x * d**-beta

    def gradient(weight):
        inner = weight * x * d ** (-beta - 1)
        spread = np.stack(
            [inner[..., max(0, c - size // 2) : c + size // 2 + 1].sum(axis=-1) for c in range(channels)], axis=-1
        )
        return weight * d**-beta - 2 * alpha * beta / size * x * spread

    return y, gradient


@pytest.mark.parametrize("channels", [3, 64, 192])
@pytest.mark.parametrize(
    "arguments", [{}, {"size": 3, "alpha": 0.5, "beta": 0.6, "k": 2.0}, {"size": 7, "alpha": 2.0, "beta": 0.75}]
)
def test_lrn_equals_numpy_forward_and_gradient(channels, arguments):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 4, channels)).astype("float32") * 3
    weight = rng.normal(size=x.shape).astype("float32")
    layer = LocalResponseNormalization(**arguments)
    y, gradient = lrn_reference(x, layer.size, layer.alpha, layer.beta, layer.k)
    np.testing.assert_allclose(layer(x), y, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gradient_of(layer, x, weight), gradient(weight), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_lrn_is_finite_and_right_for_large_half_precision_input(dtype):
    layer = LocalResponseNormalization(dtype=f"mixed_{dtype}")
    x = ops.full((1, 2, 2, 8), 6e4, dtype=dtype)
    y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    expected, _ = lrn_reference(np.asarray(ops.cast(x, "float32")), 5, 1e-4, 0.75, 1.0)
    np.testing.assert_allclose(np.asarray(ops.cast(y, "float32")), expected, rtol=1e-2)


def test_lrn_config_and_errors():
    layer = LocalResponseNormalization(size=3, alpha=0.1, beta=0.5, k=2.0)
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert (again.size, again.alpha, again.beta, again.k) == (3, 0.1, 0.5, 2.0)
    for size in (0, 4, 2.5):
        with pytest.raises(ValueError, match="odd"):
            LocalResponseNormalization(size=size)
    with pytest.raises(ValueError, match="k > 0"):
        LocalResponseNormalization(k=0)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (4, 4), (7, 9), (14, 14), (15, 6)])
def test_adaptive_pool_equals_windows(height, width):
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype("float32")
    expected = np.empty((2, 4, 4, 3))
    for i in range(4):
        for j in range(4):
            rows = slice(i * height // 4, -(-(i + 1) * height // 4))
            columns = slice(j * width // 4, -(-(j + 1) * width // 4))
            expected[:, i, j] = x[:, rows, columns].mean(axis=(1, 2))
    np.testing.assert_allclose(AdaptiveAveragePooling2D(4)(x), expected, atol=1e-6)


def test_adaptive_pool_takes_any_size_in_one_model():
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, AdaptiveAveragePooling2D(4)(inputs))
    assert model.output_shape == (None, 4, 4, 2)
    for size in (5, 9):
        x = np.random.default_rng(0).normal(size=(1, size, size + 1, 2)).astype("float32")
        np.testing.assert_allclose(model.predict(x, verbose=0), AdaptiveAveragePooling2D(4)(x), atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX's arrays alone carry how they are divided")
def test_adaptive_pool_takes_images_divided_among_devices():
    import jax
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    x = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype("float32")
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Explicit,))
    divided = jax.device_put(x, NamedSharding(mesh, PartitionSpec("batch")))
    np.testing.assert_allclose(AdaptiveAveragePooling2D(4)(divided), AdaptiveAveragePooling2D(4)(x), atol=1e-6)
