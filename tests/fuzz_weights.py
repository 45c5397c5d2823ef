"""Every reader of weights on files that are mutated at random: nothing but a clean `ValueError` may come of it.

python -m tests.fuzz_weights --examples 10000
"""

import argparse
import collections
import contextlib
import functools
import io
import os
import pickle
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import numpy as np
from hypothesis import strategies as st

from inception_v1 import build_googlenet
from inception_v1.weights import formats
from inception_v1.weights.caffe_file import write_caffe
from inception_v1.weights.torch_file import MAGIC
from tests.oracles.caffe import write_old

ARRAYS = {"a/w": np.arange(12, dtype="float32").reshape(3, 4), "a/b": np.ones(3, "float32")}
SMALL = {"input_shape": (32, 32, 1), "classes": 2, "width_multiplier": 0.01, "include_top": False}


def onnx() -> bytes:
    from onnx import helper, numpy_helper

    pool = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 2, 2])
    tensors = [numpy_helper.from_array(array, name) for name, array in ARRAYS.items()]
    return helper.make_model(helper.make_graph([pool], "g", [], [], tensors)).SerializeToString()


def graph() -> bytes:
    import tensorflow as tf

    with tf.Graph().as_default() as made:
        for name, array in ARRAYS.items():
            tf.constant(array, name=name.replace("/", "_"))
        tf.compat.v1.nn.local_response_normalization(tf.zeros((1, 2, 2, 8)))
    return made.as_graph_def().SerializeToString()


def safetensors() -> bytes:
    from safetensors.numpy import save

    return save(ARRAYS)


def tensor_pickle(numel=4, size=(4,), stride=(1,), offset=0, key="0", dtype="FloatStorage", name="w"):
    """{name: tensor} in the operations that torch.save writes, with any numbers."""

    def literal(value):
        return pickle.dumps(value, 2)[2:-1]  # without PROTO and STOP

    storage = b"(" + literal("storage") + f"ctorch\n{dtype}\n".encode() + b"".join(map(literal, (key, "cpu", numel)))
    arguments = b"(" + storage + b"tQ" + b"".join(map(literal, (offset, size, stride, False, None))) + b"t"
    return b"\x80\x02}" + literal(name) + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


def torch_zip(pickled, storages=(), compression=zipfile.ZIP_STORED):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        archive.writestr("a/data.pkl", pickled, zipfile.ZIP_STORED)
        for key, content in dict(storages).items():
            archive.writestr(f"a/data/{key}", content)
    return data.getvalue()


def torch_legacy() -> bytes:
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickle.dumps(value, 2) for value in (MAGIC, 1001, system)] + [tensor_pickle(), pickle.dumps(["0"], 2)]
    return b"".join(parts) + (4).to_bytes(8, "little") + bytes(16)


def checkpoint(version: int) -> dict[str, bytes]:
    """The files of a TensorFlow checkpoint."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tempfile.TemporaryDirectory() as folder, tf.Graph().as_default(), v1.Session() as session:
        for name, array in ARRAYS.items():
            v1.get_variable(name, initializer=array, use_resource=False)
        session.run(v1.global_variables_initializer())
        v1.train.Saver(write_version=version).save(
            session, f"{folder}/m.ckpt", write_meta_graph=False, write_state=False
        )
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def slim_tar(file: bytes | None = None) -> bytes:
    data = io.BytesIO()
    content = checkpoint(1)["m.ckpt"] if file is None else file
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        member = tarfile.TarInfo("inception_v1.ckpt")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


@functools.cache
def keras_members() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        build_googlenet(**SMALL).save(f"{folder}/m.keras")
        with zipfile.ZipFile(f"{folder}/m.keras") as archive:
            return {name: archive.read(name) for name in archive.namelist()}


def keras(config: bytes | None = None, variables: bytes | None = None) -> bytes:
    members = keras_members()
    given = {"config.json": config, "model.weights.h5": variables}
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            changed = given.get(name)
            archive.writestr(name, content if changed is None else changed)
    return data.getvalue()


STORAGES = {"0": bytes(16)}

# A valid file of each kind (what is mutated), and how to wrap it up where a checksum would hide the mutation.
TARGETS = {
    "caffe": (lambda: write_caffe("net", {"a": ("Convolution", list(ARRAYS.values()))}), bytes),
    "caffe, 2014": (lambda: write_old("net", {"a": ("Convolution", list(ARRAYS.values()))}), bytes),
    "torch zip": (lambda: torch_zip(tensor_pickle(), STORAGES), bytes),
    "torch pickle": (tensor_pickle, lambda pickled: torch_zip(pickled, STORAGES)),
    "torch legacy": (torch_legacy, bytes),
    "safetensors": (safetensors, bytes),
    "onnx": (onnx, bytes),
    "graph": (graph, bytes),
    "slim V1": (lambda: checkpoint(1)["m.ckpt"], bytes),
    "slim V2 index": (lambda: checkpoint(2)["m.ckpt.index"], bytes),
    "slim tar.gz": (slim_tar, bytes),
    "keras": (keras, bytes),
    "keras config": (lambda: keras_members()["config.json"], lambda config: keras(config=config)),
    "keras variables": (lambda: keras_members()["model.weights.h5"], lambda data: keras(variables=data)),
}

EDITS = st.lists(
    st.tuples(
        st.sampled_from(("set", "delete", "insert", "repeat", "cut")),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=3,
)


def mutated(data: bytes, edits) -> bytes:
    changed = bytearray(data)
    for kind, where, value in edits:
        at = int(where * len(changed))
        match kind:
            case "set":
                changed[at : at + len(value)] = value
            case "delete":
                del changed[at : at + len(value)]
            case "insert":
                changed[at:at] = value
            case "repeat":
                changed[at:at] = changed[at : at + 16 * len(value)]
            case "cut":
                del changed[max(at, 1) :]
    return bytes(changed)


def fuzz(target: str, examples: int, folder: Path) -> collections.Counter:
    """How many mutated files were read and how many refused. Anything but a ValueError comes through."""
    base, wrapped = TARGETS[target]
    data, counts = base(), collections.Counter()
    beside = checkpoint(2) if target == "slim V2 index" else {}
    path = folder / ("m.ckpt.index" if beside else "weights")
    for name, content in beside.items():
        (folder / name).write_bytes(content)
    path.write_bytes(wrapped(data))
    assert formats.read(path)

    @hypothesis.settings(
        max_examples=examples, database=None, deadline=None, derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate],
    )  # fmt: skip
    @hypothesis.given(EDITS)
    def run(edits):
        path.write_bytes(wrapped(mutated(data, edits)))
        try:
            formats.read(path)
            counts["read"] += 1
        except ValueError:
            counts["refused"] += 1

    run()
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    arguments = parser.parse_args()
    for target in arguments.targets:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            counts = fuzz(target, arguments.examples, Path(folder))
        print(
            f"{target:15} {counts.total():6} files: {counts['refused']:6} refused, {counts['read']:6} read", flush=True
        )


if __name__ == "__main__":
    sys.exit(main())
