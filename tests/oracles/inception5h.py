"""The frozen graph of `inception5h.zip` with its published names and widths, run by TensorFlow."""

import numpy as np

from tests.oracles import random_array
from tests.oracles.caffe import BLOCKS

FAMILY, EXECUTOR, VARIANT, SCALE = "inception5h", "TensorFlow", "inception5h", 60.0
SPREAD = {"softmax2_w": 1 / 120, "softmax0_w": 1 / 125, "softmax1_w": 1 / 105}  # logits of deviation 1
LRN = {"depth_radius": 2, "bias": 1.0, "alpha": 2e-5, "beta": 0.75}
OTHER_LRN = {"depth_radius": 3, "bias": 2.0, "alpha": 1e-4, "beta": 0.5}
WIDTHS = BLOCKS | {"4a": (192, 96, 204, 16, 48, 64), "5a": (256, 160, 320, 48, 128, 128)}


def write(folder, lrn=LRN):
    """A GraphDef whose weights are constants, with the three heads' logits."""
    import tensorflow as tf

    v1 = tf.compat.v1

    def conv(x, name, size, channels, stride=1):
        kernel = random_array(f"{name}_w", (size, size, x.shape[-1], channels), channels_last=True)
        bias = random_array(f"{name}_b", (channels,))
        y = tf.nn.conv2d(x, tf.constant(kernel, name=f"{name}_w"), stride, "SAME", name=f"{name}_pre_relu/conv")
        y = tf.nn.bias_add(y, tf.constant(bias, name=f"{name}_b"), name=f"{name}_pre_relu")
        return tf.nn.relu(y, name=name)

    def dense(x, name, channels):
        kernel = random_array(f"{name}_w", (x.shape[-1], channels), channels_last=True) * SPREAD.get(f"{name}_w", 1)
        bias = random_array(f"{name}_b", (channels,))
        y = tf.matmul(x, tf.constant(kernel, name=f"{name}_w"), name=f"{name}_pre_activation/matmul")
        return tf.nn.bias_add(y, tf.constant(bias, name=f"{name}_b"), name=f"{name}_pre_activation")

    def pool(x, name, stride=2):
        return tf.nn.max_pool2d(x, 3, stride, "SAME", name=name)

    def head(x, number):
        x = conv(tf.nn.avg_pool2d(x, 5, 3, "VALID", name=f"head{number}_pool"), f"head{number}_bottleneck", 1, 128)
        x = tf.nn.relu(dense(tf.reshape(x, (-1, 4 * 4 * 128)), f"nn{number}", 1024))
        dense(x, f"softmax{number}", 1008)

    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, (None, None, None, 3), name="input")
        x = v1.nn.local_response_normalization(pool(conv(x, "conv2d0", 7, 64, 2), "maxpool0"), **lrn)
        x = v1.nn.local_response_normalization(conv(conv(x, "conv2d1", 1, 64), "conv2d2", 3, 192), **lrn)
        x = pool(x, "maxpool1")
        for block, (n1, r3, n3, r5, n5, proj) in WIDTHS.items():
            name = f"mixed{block}"
            ends = [
                conv(x, f"{name}_1x1", 1, n1),
                conv(conv(x, f"{name}_3x3_bottleneck", 1, r3), f"{name}_3x3", 3, n3),
                conv(conv(x, f"{name}_5x5_bottleneck", 1, r5), f"{name}_5x5", 5, n5),
                conv(pool(x, f"{name}_pool", 1), f"{name}_pool_reduce", 1, proj),
            ]
            x = tf.concat(ends, 3, name=name)
            if block in ("4a", "4d"):
                head(x, {"4a": 0, "4d": 1}[block])
            if block in ("3b", "4e"):
                x = pool(x, f"maxpool{int(block[0]) + 1}")
        dense(tf.reduce_mean(x, (1, 2), name="avgpool0"), "softmax2", 1008)  # at 224 the graph's 7x7 pool
    path = folder / f"tensorflow_inception_graph{'' if lrn == LRN else '-other'}.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def run(path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Logits by head."""
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    heads = {"main": "softmax2", "aux1": "softmax0", "aux2": "softmax1"}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        outputs = [f"{name}_pre_activation:0" for name in heads.values()]
        tensors = tf.import_graph_def(graph, return_elements=outputs, name="")
        return dict(zip(heads, session.run(tensors, {"input:0": images}), strict=True))
