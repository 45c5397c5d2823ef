"""Lucid's own feature visualization, run by TensorFlow through a module of TensorFlow 1's names.

`pip install --no-deps lucid==0.3.10 decorator cachetools more-itertools`, then `python -m tests.oracles.lucid` makes
`lucid.npz` anew. It holds what goes into each of Lucid's functions and what comes out; Lucid itself is unmaintained and
never installed by tests.
"""

import importlib
import sys
import types
from pathlib import Path

import numpy as np

FIXTURE = Path(__file__).with_suffix(".npz")
SCALES = [1 + (i - 5) / 50 for i in range(11)]
GRID = 6  # rows and columns of cells
STEPS = 20  # of the trajectory: the ReLU gradient is overridden in the first 17
VECTORS = np.random.default_rng(5).normal(0, 1, (4, 5, 8)).astype("float32")
IMAGE = np.random.default_rng(6).uniform(0, 1, (12, 10, 4)).astype("float32")


def case(name: str) -> dict[str, np.ndarray]:
    """The stored arrays of one function, by their last names."""
    with np.load(FIXTURE) as fixture:
        return {key.rpartition("/")[2]: fixture[key] for key in fixture.files if key.rpartition("/")[0] == name}


def objectives(module):
    """{name: objective} by Lucid's functions or by ours, on the layers "maps" (3, 6, 5, 8) and "logits" (3, 7) and the
    image (3, 12, 10, 4)."""
    boundary = module.penalize_boundary_complexity
    ours = boundary.__code__.co_varnames[0] == "width"
    place = ("row", "column") if ours else ("x", "y")
    at = dict(zip(place, (1, 4)))
    vector = VECTORS[0, 0]
    return {
        "neuron": module.neuron("maps", 3),
        "neuron at a place": module.neuron("maps", 3, **at),
        "neuron of a dense layer": module.neuron("logits", 2, batch=1),
        "channel": module.channel("maps", 3),
        "channel of an image": module.channel("maps", 3, batch=2),
        "direction": module.direction("maps", vector),
        "direction, cosine": module.direction("maps", vector, cossim_pow=2),
        "direction_neuron": module.direction_neuron("maps", vector),
        "direction_neuron, cosine": module.direction_neuron("maps", vector, cossim_pow=1, **at),
        "tensor_direction": module.tensor_direction("maps", VECTORS),
        "tensor_direction, cosine": module.tensor_direction("maps", VECTORS[:, :, :], cossim_pow=4, batch=0),
        "deepdream": module.deepdream("maps"),
        "total_variation": module.total_variation("input"),
        "L1": module.L1("input", 0.5),
        "L2": module.L2("maps"),
        "blur_input_each_step": module.blur_input_each_step(),
        "blur_alpha_each_step": module.blur_alpha_each_step(),
        "channel_interpolate": module.channel_interpolate("maps", 1, "maps", 6),
        "penalize_boundary_complexity": boundary(3) if ours else boundary((3, 12, 10, 4), w=3),
        "alignment": module.alignment("maps"),
        "alignment of images": module.alignment("input", 3),
        "diversity": module.diversity("maps"),
        "input_diff": module.input_diff(IMAGE),
        "dot_compare": module.dot_compare("maps", 2),
        "dot_compare, cosine": module.dot_compare("maps", 1, cossim_pow=2),
        "class_logit": module.class_logit("logits", 4),
        "class_logit by name": module.class_logit("logits", "f"),
        "arithmetic": 2 * module.channel("maps", 3) - module.deepdream("maps") * 0.1 + 1,
        "a string": module.as_objective("maps:5"),
    }


def layers() -> dict[str, np.ndarray]:
    """What `objectives` are functions of."""
    random = np.random.default_rng(7)
    shapes = {"maps": (3, 6, 5, 8), "logits": (3, 7)}
    found = {name: random.normal(0, 1, shape).astype("float32") for name, shape in shapes.items()}
    return found | {"input": random.uniform(0, 1, (3, 12, 10, 4)).astype("float32")}


LABELS = ["a", "b", "c", "d", "e", "f", "g"]


def _make() -> dict[str, np.ndarray]:
    """Runs Lucid."""
    _install_tensorflow_1()
    made: dict[str, np.ndarray] = {}
    for part in (_parameterizations, _colors, _transforms, _relu_gradient, _objectives, _trajectory, _atlas, _factors):
        made |= part()
    return {name: np.asarray(array) for name, array in made.items()}


def _install_tensorflow_1():
    """`import tensorflow` finds TensorFlow 1's names; `tf.contrib` has what Lucid asks of it."""
    import tensorflow

    from tests.oracles.slim import import_tf_slim

    v1, tf_slim = tensorflow.compat.v1, import_tf_slim()
    names = types.ModuleType("tensorflow")
    names.__dict__.update({name: getattr(v1, name) for name in dir(v1) if not name.startswith("__")})
    contrib = types.ModuleType("tensorflow.contrib")
    contrib.slim, contrib.image = tf_slim, types.SimpleNamespace(rotate=_rotate)
    names.contrib = contrib
    for name, module in {"tensorflow": names, "tensorflow.contrib": contrib}.items():
        sys.modules[name] = module
    future = types.ModuleType("future.standard_library")
    future.install_aliases = lambda: None
    sys.modules |= {"future": types.ModuleType("future"), "future.standard_library": future}
    for name, parts in UNUSED.items():  # they read models and files, and are only imported
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(dict.fromkeys(parts))
    importlib.import_module("lucid.modelzoo")


UNUSED = {
    "lucid.misc.io": ("show", "load", "save", "showing"),
    "lucid.misc.io.reading": ("read",),
    "lucid.misc.io.showing": (),
    "lucid.misc.io.sanitizing": ("sanitize",),
    "lucid.modelzoo.vision_models": (),
    "lucid.modelzoo.vision_base": ("SerializedModel",),
}


def _rotate(images, angle):
    """`tf.contrib.image.rotate`: TensorFlow 1.15, `image_ops.py`, `angles_to_projective_transforms`."""
    import tensorflow as tf

    height, width = (tf.cast(n, tf.float32) for n in tf.unstack(tf.shape(images)[1:3]))
    cosine, sine = tf.cos(angle), tf.sin(angle)
    left = ((width - 1) - (cosine * (width - 1) - sine * (height - 1))) / 2.0
    top = ((height - 1) - (sine * (width - 1) + cosine * (height - 1))) / 2.0
    transform = tf.stack([cosine, -sine, left, sine, cosine, top, 0.0, 0.0])[None]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transform,
        output_shape=tf.shape(images)[1:3],
        interpolation="NEAREST",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )


def _run(function, sd=0.5):
    """What `function` computes in a graph, and the values of the variables that it made."""
    import tensorflow as tf

    with tf.Graph().as_default(), tf.Session() as session:
        result = function()
        session.run(tf.global_variables_initializer())
        random = np.random.default_rng(0)
        for variable in tf.global_variables():  # Lucid's own are small: rounding would hide what differs
            session.run(variable.assign(random.normal(0, sd, variable.shape).astype("float32")))
        return session.run(result), session.run(tf.global_variables())


def _parameterizations():
    from lucid.optvis import param
    from lucid.optvis.param import spatial

    functions = {
        "fourier, even": lambda: param.fft_image((2, 16, 12, 3)),
        "fourier, odd": lambda: param.fft_image((1, 15, 17, 2)),
        "fourier, decay 1.5": lambda: param.fft_image((1, 10, 9, 1), decay_power=1.5),
        "pixels": lambda: spatial.pixel_image((2, 4, 5, 3)),
        "laplacian pyramid": lambda: spatial.laplacian_pyramid_image((2, 18, 16, 3)),
        "low resolution": lambda: param.lowres_tensor((2, 12, 11, 3), (1, 4, 3, 3)),
        "low resolution, offset": lambda: param.lowres_tensor((3, 12, 10, 3), (3, 4, 5, 3), offset=[False, True, 2, 0]),
        "cppn": lambda: param.cppn(9, batch=2),
        "image": lambda: param.image(16, 11, batch=2),
        "image of pixels": lambda: param.image(6, fft=False, decorrelate=False),
        "image with alpha": lambda: param.image(8, alpha=True),
        "gray image": lambda: param.image(8, channels=1),
    }
    made = {}
    for name, function in functions.items():
        images, variables = _run(function, 0.15 if name == "cppn" else 0.5)  # it is chaotic otherwise
        made[f"{name}/images"] = images
        made |= {f"{name}/{number:02d}": value for number, value in enumerate(variables)}
    return made


def _colors():
    from lucid.optvis.param.color import to_valid_rgb

    values = np.random.default_rng(1).normal(0, 1.5, (2, 3, 4, 3)).astype("float32")
    made = {"colors/values": values}
    for decorrelate in (False, True):
        for sigmoid in (False, True):
            result, _ = _run(lambda d=decorrelate, s=sigmoid: to_valid_rgb(_constant(values), d, s))
            made[f"colors/{decorrelate}-{sigmoid}"] = result
    return made


def _transforms():
    import tensorflow as tf
    from lucid.optvis import transform

    images = np.random.default_rng(2).uniform(0, 1, (2, 21, 30, 1)).astype("float32")
    made = {"transforms/images": images}
    functions = {
        "pad": transform.pad(3, mode="constant", constant_value=0.5),
        "pad, reflect": transform.pad(3),
        "jitter": transform.jitter(7, seed=4),
        "crop or pad": transform.crop_or_pad_to(15, 41),
    }
    functions |= {f"scale {scale:g}": transform.random_scale([scale]) for scale in SCALES}
    functions |= {f"rotate {degrees}": transform.random_rotate([degrees]) for degrees in range(-10, 11)}
    for name, function in functions.items():
        made[f"transforms/{name}"], _ = _run(lambda f=function: f(_constant(images)))
    crop = made["transforms/jitter"]
    places = [(y, x) for y in range(8) for x in range(8) if (images[:, y : y + 14, x : x + 23] == crop).all()]
    (made["transforms/jitter, draw"],) = places

    colors = np.random.default_rng(3).uniform(0, 1, (2, 9, 8, 4)).astype("float32")
    draws = np.random.default_rng(4).normal(0, 1, (2, 2, 3, 9, 5)).astype("float32")
    left = iter(draws)
    tf.random_normal = lambda shape, dtype: _constant(next(left))
    made |= {"alpha/images": colors, "alpha/draw": draws}
    made["alpha/result"], _ = _run(lambda: transform.collapse_alpha_random()(_constant(colors)))
    return made


def _relu_gradient():
    import tensorflow as tf
    from lucid.misc.gradient_override import gradient_override_map
    from lucid.misc.redirected_relu_grad import redirected_relu_grad

    random = np.random.default_rng(8)
    x = random.normal(0, 1, (4, 3, 2, 5)).astype("float32")
    x[1:3] = -np.abs(x[1:3])  # nothing gets through
    x[3, 0, 0] = 0
    upstream = random.normal(0, 1, x.shape).astype("float32")
    upstream[2] = np.abs(upstream[2])  # nothing is redirected either
    made = {"relu/x": x, "relu/upstream": upstream}
    for step in (0, 16, 17):
        with tf.Graph().as_default(), tf.Session() as session:
            current = tf.train.get_or_create_global_step()
            inputs = _constant(x)
            with gradient_override_map({"Relu": redirected_relu_grad}):
                y = tf.nn.relu(inputs)
            gradient = tf.gradients(y, inputs, _constant(upstream))[0]
            session.run(current.assign(step))
            made[f"relu/step {step}"] = session.run(gradient)
    return made


def _objectives():
    import tensorflow as tf
    from lucid.misc.graph_analysis import property_inference
    from lucid.optvis import objectives as module
    from lucid.recipes.caricature import dot_compare

    module.dot_compare = dot_compare
    property_inference.infer_data_format = lambda tensor: "NHWC"
    made = {}
    for name, objective in objectives(module).items():
        with tf.Graph().as_default(), tf.Session() as session:
            tensors = {layer: _constant(values) for layer, values in layers().items()}
            value = objective(lambda layer, known=tensors: LABELS if layer == "labels" else known[layer])
            inputs = [tensors[layer] for layer in ("maps", "logits", "input")]
            gradients = [
                tf.zeros_like(x) if g is None else g for x, g in zip(inputs, tf.gradients(value, inputs), strict=True)
            ]
            total, *found = session.run([tf.reduce_sum(value), *gradients])
            made[f"objective {name}/value"] = total
            made |= {f"objective {name}/{key}": g for key, g in zip(("maps", "logits", "input"), found) if g.any()}
    return made


def _trajectory():
    """Images while a channel of a network of two convolutions is maximized."""
    import tensorflow as tf
    from lucid.optvis import param, render

    random = np.random.default_rng(9)
    kernels = [random.normal(0, 0.3, shape).astype("float32") for shape in ((3, 3, 3, 4), (3, 3, 4, 5))]
    biases = [np.float32([0.1, -0.2, 0, 0.1]), np.full(5, -1, "float32")]  # the last ReLU is dead at first

    class Network:
        labels = None

        def import_graph(self, image, **_):
            first = tf.nn.relu(tf.nn.conv2d(image * 4 - 2, kernels[0], 1, "SAME") + biases[0])
            last = tf.nn.relu(tf.nn.conv2d(first, kernels[1], 2, "SAME") + biases[1])
            return {"last": last}.__getitem__

    with tf.Graph().as_default(), tf.Session() as session:
        get = render.make_vis_T(Network(), "last:2", lambda: param.image(10, 8), None, [], True)
        tf.global_variables_initializer().run()
        (spectrum,) = tf.trainable_variables()
        made = {"trajectory/spectrum": session.run(spectrum)}
        losses, images = [], []
        for _ in range(STEPS):
            loss, _ = session.run([get("loss"), get("vis_op")])
            losses.append(loss)
            images.append(session.run(get("input"))[0])
    for i in range(2):
        made |= {f"trajectory/kernel{i}": kernels[i], f"trajectory/bias{i}": biases[i]}
    return made | {"trajectory/objective": losses, "trajectory/images": np.stack(images)[[0, 4, 16, 19]]}


def _atlas():
    """Layout, cells and whitening of activations."""
    from lucid.modelzoo.aligned_activations import layer_inverse_covariance
    from lucid.recipes.activation_atlas.layout import normalize_layout
    from lucid.recipes.activation_atlas.main import bin_laid_out_activations

    class Layer:
        activations = np.random.default_rng(10).gamma(1, 1, (400, 8)).astype("float32")

    layout = np.random.default_rng(11).standard_t(3, (400, 2)).astype("float32")  # with outliers
    normalized = normalize_layout(layout)
    means, coordinates, counts = bin_laid_out_activations(normalized, Layer.activations, GRID)
    cells = {"means": np.stack(means), "coordinates": np.stack(coordinates), "counts": counts}
    cells |= {"activations": Layer.activations, "layout": layout, "normalized": normalized}
    return {f"atlas/{name}": array for name, array in cells.items()} | {
        "atlas/whitening": layer_inverse_covariance(Layer())
    }


def _factors():
    """Non-negative factors of the activations of one image."""
    from lucid.misc.channel_reducer import ChannelReducer

    activations = np.random.default_rng(12).gamma(1, 1, (1, 5, 4, 7)).astype("float32")
    reducer = ChannelReducer(3, "NMF", random_state=0)
    maps = reducer.fit_transform(activations)
    return {"factors/activations": activations, "factors/maps": maps, "factors/directions": reducer.components}


def _constant(array):
    import tensorflow as tf

    return tf.constant(array)


if __name__ == "__main__":
    arrays = _make()
    np.savez_compressed(FIXTURE, **arrays)
    print(f"{FIXTURE}: {len(arrays)} arrays, {FIXTURE.stat().st_size:,} bytes")
