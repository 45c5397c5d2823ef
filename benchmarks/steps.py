"""One training step of GoogLeNet, by this package and by torchvision, as `rounds.alternate` takes it.

Both train all heads with the paper's loss weights by SGD with momentum 0.9, on one batch that stays in memory or on the
batches that `make_batches` gives.
"""

import importlib
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from benchmarks.rounds import OnDevice, Work, median, spread

Batches = Iterator[tuple[Any, Any]]  # endless, of (images, labels)
MakeBatches = Callable[[], Batches]  # called in the contestant's process
PARAMETERS = 13_004_888  # trainable, of torchvision's network with 1,000 classes and both heads


class Step(NamedTuple):
    """What is trained, and how.

    Attributes:
        batch: images.
        size: height and width, pixels.
        width: multiplier.
        classes: of the labels.
        variant: of this package.
        precision: "float32" or "bfloat16" (mixed).
        device: "cpu" or "cuda".
        repeats: steps in one call.
    """

    batch: int
    size: int = 224
    width: float = 1.0
    classes: int = 1000
    variant: str = "torchvision"
    precision: str = "float32"
    device: str = "cpu"
    repeats: int = 1


def package_step(step: Step, backend: str = "tensorflow", make_batches: MakeBatches | None = None) -> Work:
    """This package on a Keras backend; the step is the one that `fit` runs.

    `make_batches` and the device "cuda" are for JAX.
    """
    os.environ |= {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}
    # Contestants share the GPU, so none may take all of its memory.
    os.environ |= {"JAX_PLATFORMS": step.device, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    importlib.import_module(backend)
    import keras

    from inception_v1 import build_googlenet

    if step.precision != "float32":
        keras.config.set_dtype_policy(f"mixed_{step.precision}")
    keras.utils.set_random_seed(0)
    shape = (step.size, step.size, 3)
    model = build_googlenet(step.variant, input_shape=shape, classes=step.classes, width_multiplier=step.width)
    model.compile(keras.optimizers.SGD(0.001, momentum=0.9), metrics={})
    _check_parameters(step, sum(math.prod(variable.shape) for variable in model.trainable_variables))
    images, labels = (keras.ops.convert_to_tensor(array) for array in _one_batch(step, channels_last=True))
    model.create_training_variables(images, labels)
    model.make_train_function()
    if backend == "jax":
        return _on_jax(step, model, make_batches() if make_batches else itertools.repeat((images, labels)))
    return on_tensorflow(step, model, images, labels)


def on_tensorflow(step: Step, model: Any, images: Any, labels: Any) -> Work:
    """`step.repeats` steps of a compiled Keras model, whose `make_train_function` was called, on one batch."""
    import tensorflow as tf

    batches = iter(tf.data.Dataset.from_tensors((images, labels)).repeat())

    def work() -> int:
        for _ in range(step.repeats):
            logs = model.train_function(batches)
        return _count_images(step, float(logs["loss"]))

    return work


def _on_jax(step: Step, model: Any, batches: Batches) -> Work:
    import jax

    from inception_v1.keras_patches import jax_training_state

    state = jax_training_state(model)

    def work() -> int:
        nonlocal state
        for _ in range(step.repeats):
            logs, state = model.train_function(state, batches)
        return _count_images(step, float(logs["loss"]))

    return OnDevice(work, lambda: (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"))


def torchvision_step(step: Step, compiled: bool, make_batches: MakeBatches | None = None) -> Work:
    """torchvision's network in the memory format that is fastest for it, eager or by `torch.compile`."""
    import torch
    import torchvision

    batches = make_batches() if make_batches else None  # forks, so before CUDA starts
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True  # the fastest of the GPU's convolutions, as XLA chooses them
    device = torch.device(step.device)
    net = torchvision.models.googlenet(weights=None, num_classes=step.classes, aux_logits=True, init_weights=False)
    net = net.train().to(device, memory_format=torch.channels_last)
    _check_parameters(step, sum(parameter.numel() for parameter in net.parameters()))
    optimizer = torch.optim.SGD(net.parameters(), 0.001, momentum=0.9)
    entropy = torch.nn.CrossEntropyLoss()
    if batches is None:
        images, labels = (torch.from_numpy(array).to(device) for array in _one_batch(step, channels_last=False))
        batches = itertools.repeat((images.to(memory_format=torch.channels_last), labels))
    half = step.precision == "bfloat16"

    def loss_of(images, labels):
        with torch.autocast(step.device, torch.bfloat16, enabled=half):
            heads = net(images)
            weighted = zip((1.0, 0.3, 0.3), (heads.logits, heads.aux_logits1, heads.aux_logits2), strict=True)
            return sum(weight * entropy(logits, labels) for weight, logits in weighted)

    if compiled:
        loss_of = torch.compile(loss_of)

    def work() -> int:
        for images, labels in itertools.islice(batches, step.repeats):
            images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
            labels = labels.to(device, non_blocking=True)
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(images, labels)
            loss.backward()
            optimizer.step()
        return _count_images(step, loss.item())

    return OnDevice(work, torch.cuda.max_memory_allocated) if step.device == "cuda" else work


def matmul(
    device: str = "cpu", precision: str = "float32", size: int = 3072, repeats: int = 1, by: str = "torch"
) -> Work:
    """A matmul of two square matrices by PyTorch or, on a CPU, by TensorFlow; its items are multiply-accumulates."""
    a: Any
    b: Any
    if by == "tensorflow":
        os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}
        import tensorflow as tf

        a, b = (tf.random.normal((size, size), dtype=precision) for _ in range(2))
    else:
        import torch

        a, b = (torch.randn(size, size, device=device, dtype=getattr(torch, precision)) for _ in range(2))

    def work() -> int:
        for _ in range(repeats):
            product = a @ b
        float(product[0, 0])
        return repeats * size**3

    return work


def flops(step: Step) -> float:
    """Floating-point operations of the convolutions and matmuls of a training step, two for a multiply-accumulate."""
    from inception_v1 import Spec, cost

    spec = Spec(step.variant, input_shape=(step.size, step.size, 3), classes=step.classes, width_multiplier=step.width)
    counted = cost(spec)
    return 2.0 * step.batch * (3 * counted.macs - counted.rows[0].macs)  # the gradient of the image is not needed


def fastest_torch(forms: Mapping[str, Any]) -> float | None:
    """Median rate of the fastest of torchvision's forms, if any is installed."""
    return max((median(form) for name, form in forms.items() if "torchvision" in name and form), default=None)


def rate_cells(form: Mapping[str, Any], fastest: float | None, fraction: float | None, digits: int) -> list[str]:
    """Four cells of a table: a form's rate, its range, and its ratios to the fastest torch and to the matmul peak.

    Args:
        form: what `rounds.alternate` returns for it.
        fastest: rate of the fastest torch, or None.
        fraction: of the matmul peak at one image a second, or None.
        digits: after the point of a rate.
    """
    rate = median(form)
    return [
        f"{rate:.{digits}f}",
        spread(form, digits),
        f"{rate / fastest:.2f}" if fastest else "",
        f"{rate * fraction:.0%}" if fraction else "",
    ]


def _one_batch(step: Step, channels_last: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(step.batch, step.size, step.size, 3)).astype("float32")
    labels = rng.integers(0, step.classes, step.batch)
    return images if channels_last else np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels


def _check_parameters(step: Step, parameters: int) -> None:
    if step == Step(step.batch, precision=step.precision, device=step.device, repeats=step.repeats):
        assert parameters == PARAMETERS, f"another network, of {parameters} parameters"


def _count_images(step: Step, loss: float) -> int:
    """The images of a call, whose last loss must be finite."""
    assert math.isfinite(loss)
    return step.repeats * step.batch
