"""Ways to save activation memory in a training step: python -m benchmarks rematerialization

What the backward pass reads stays in memory until then, unless it is recomputed. Four forms of the same step take
turns: Keras' own layers, which keep everything; `keras.remat` around each Inception block, which recomputes whole
blocks; this package's layers with their faster kernel gradients alone; and with rematerialization, as `fit` runs them.
float32, all heads, 224 px, batch 32. About 5 minutes on 2 cores.
"""

import functools
from collections.abc import Sequence
from typing import Any

from benchmarks import results, steps
from benchmarks.results import ResultTable
from benchmarks.rounds import Work, alternate, median, spread
from benchmarks.steps import Step

NAME = "rematerialization"
KERAS = "Keras' layers"
BLOCKS = "Keras' layers, keras.remat around each block"
KERNELS = "this package, kernel gradients alone"
OURS = "this package"


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    parser = results.parser(NAME, __doc__, rounds=7)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args(arguments)
    result = measure(options.batch, options.rounds)
    results.save(NAME, result)
    return tables(result)


def measure(batch: int, rounds: int, size: int = 224) -> dict[str, Any]:
    """Rates and memory of every form."""
    makers = {form: functools.partial(form_step, form, Step(batch, size)) for form in (OURS, KERNELS, BLOCKS, KERAS)}
    forms = alternate(makers, rounds, warmup=2)
    return {"about": results.about(), "rounds": rounds, "size": size, "batch": batch, "forms": forms}


def form_step(form: str, step: Step) -> Work:
    """The step of one form, in a process of its own."""
    import os

    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}
    from inception_v1 import tensorflow_layers

    if form in (KERAS, BLOCKS):
        tensorflow_layers._saves_activation_memory = lambda training: False
    if form == KERNELS:
        tensorflow_layers._with_recompute = lambda y, function, source: y
    if form == BLOCKS:
        _rematerialize_blocks()
    return steps.package_step(step)


def _rematerialize_blocks() -> None:
    """Wraps every Inception block that is built from now on in `keras.remat`."""
    import keras

    from inception_v1 import model
    from inception_v1.spec import Inception

    class Rematerialized(keras.layers.Layer):
        def __init__(self, block: keras.Model, **kwargs: Any):
            super().__init__(**kwargs)
            self.block = block

        def call(self, inputs: Any, training: bool | None = None) -> Any:
            if not training:
                return self.block(inputs, training=training)
            return keras.remat(lambda x: self.block(x, training=True))(inputs)

        def compute_output_shape(self, input_shape: Any) -> Any:
            return self.block.compute_output_shape(input_shape)

    build = model._apply

    def apply(spec: Any, layer: Any, x: Any, reads_images: bool = False) -> Any:
        if not isinstance(layer, Inception):
            return build(spec, layer, x, reads_images)
        inputs = keras.Input(x.shape[1:])
        return Rematerialized(keras.Model(inputs, build(spec, layer, inputs)), name=layer.name)(x)

    model._apply = apply


def tables(result: dict[str, Any]) -> list[ResultTable]:
    about = results.machine(result["about"], "tensorflow", "keras")
    forms = {name: form for name, form in result["forms"].items() if form}
    base = forms[KERAS]
    rows = [
        [
            name,
            f"{median(form):.2f}",
            spread(form, 2),
            f"{median(form) / median(base):.2f}",
            f"{form['grown'] / 1e9:.2f}",
            f"{form['grown'] / base['grown']:.2f}",
        ]
        for name, form in forms.items()
    ]
    heads = ["form", "images/s", "range", "of Keras' layers", "GB of a step", "of Keras' layers"]
    title = f"Training, {result['size']} px, batch {result['batch']}, float32, medians of {result['rounds']}; {about}"
    return [ResultTable(title, heads, rows)]
