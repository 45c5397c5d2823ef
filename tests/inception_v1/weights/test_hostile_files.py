"""Files that were made to do harm: each is refused in one clean error, before it costs memory or touches anything."""

import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest

from inception_v1.weights import formats
from inception_v1.weights.caffe_file import message
from inception_v1.weights.formats import read
from inception_v1.weights.torch_file import MAGIC, read_torch
from tests import fuzz_weights
from tests.fuzz_weights import tensor_pickle, torch_zip
from tests.helpers.processes import done


def refused(path, data, expected):
    """The file is refused with a message like `expected` (None: any), and without memory beyond its own size."""
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=expected) as error:
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 16 * len(data) + 2**24
    finally:
        tracemalloc.stop()
    assert str(path) in str(error.value)


class Call:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def test_the_hostile_pickles_below_differ_from_a_good_one_by_their_harm_alone():
    numbers = np.arange(4, dtype="float32")
    assert read_torch(torch_zip(tensor_pickle(), {"0": numbers.tobytes()}))["w"].tolist() == [0, 1, 2, 3]
    transposed = read_torch(torch_zip(tensor_pickle(size=(2, 2), stride=(1, 2)), {"0": numbers.tobytes()}))["w"]
    assert transposed.tolist() == [[0, 2], [1, 3]]
    half = (numbers.view("uint32") >> 16).astype("uint16").tobytes()
    assert read_torch(torch_zip(tensor_pickle(dtype="BFloat16Storage"), {"0": half}))["w"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Call(os.system, "touch {marker}"), "posix.system"),
        (Call(eval, "open('{marker}', 'w')"), "__builtin__.eval"),
        (Call(getattr, "x", "join"), "__builtin__.getattr"),
        (Call(subprocess.Popen, ["touch", "{marker}"]), "commands.Popen"),  # its name in the second protocol
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_calls_nothing_and_the_error_names_what_it_wanted(tmp_path, call, name, legacy):
    marker = tmp_path / "ran"
    call.arguments = tuple(a.format(marker=marker) if isinstance(a, str) else a for a in call.arguments)
    pickled = pickle.dumps({"w": call}, 2)
    data = pickle.dumps(MAGIC, 2) + pickle.dumps(1001, 2) + pickled if legacy else torch_zip(pickled)
    refused(tmp_path / "file", data, f"calls {re.escape(name)}")
    assert not marker.exists()


HUGE = 2**38
TORCH = {
    "storage larger than the file": (tensor_pickle(numel=HUGE, size=(HUGE,)), {}, "larger than its"),
    "tensor beyond its storage": (tensor_pickle(offset=1), {"0": bytes(16)}, "beyond its 4 numbers"),
    "strides beyond its storage": (tensor_pickle(size=(2, 2), stride=(3, 1)), {"0": bytes(16)}, "beyond its 4"),
    "one number a million times": (tensor_pickle(numel=1, size=(2**20,), stride=(0,)), {"0": bytes(4)}, "beyond its 1"),
    "negative offset": (tensor_pickle(offset=-1), {"0": bytes(16)}, "whole numbers"),
    "short storage": (tensor_pickle(), {"0": bytes(12)}, "12 bytes instead of 16"),
    "no storage": (tensor_pickle(), {}, "no item named"),
    "path as a key": (tensor_pickle(key="../../../etc/passwd"), {"0": bytes(16)}, "no item named"),
    "endless memo": (b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".", {}, None),
    "endless string": (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.", {}, None),
    "list": (pickle.dumps([1], 2), {}, "no dict of tensors"),
    "truncated": (tensor_pickle()[:-20], {"0": bytes(16)}, None),
}


@pytest.mark.parametrize("what", TORCH)
def test_torch_files_that_lie_about_sizes(tmp_path, what):
    pickled, storages, expected = TORCH[what]
    if what == "endless memo":  # an empty dict under a large number, which is no tensor but no harm either
        (tmp_path / "file").write_bytes(torch_zip(pickled))
        assert read(tmp_path / "file").arrays == {}
        return
    refused(tmp_path / "file", torch_zip(pickled, storages), expected)


def test_zip_bombs_are_refused_before_they_unpack(tmp_path, monkeypatch):
    bomb = torch_zip(tensor_pickle(numel=2**24, size=(2**24,)), {"0": bytes(2**26)}, zipfile.ZIP_DEFLATED)
    refused(tmp_path / "file", bomb, "larger than its")
    small = torch_zip(tensor_pickle(), {"0": bytes(16)}, zipfile.ZIP_DEFLATED)
    refused(tmp_path / "file", small, "compressed")
    monkeypatch.setattr(formats, "FILE_BYTES", 2**20)
    for name in ("model.weights.h5", "graph.pb"):
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("config.json", json.dumps({"registered_name": "inception_v1>GoogLeNet", "config": {}}))
            archive.writestr(name, bytes(2**24))
        refused(tmp_path / "file", data.getvalue(), "would unpack to 16777216 bytes")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        member = tarfile.TarInfo("inception_v1.ckpt")
        member.size = 2**24
        archive.addfile(member, io.BytesIO(bytes(2**24)))
    refused(tmp_path / "file", data.getvalue(), "would unpack to more")
    refused(tmp_path / "file", bytes(2**20 + 1), "has 1048577 bytes, more than")


@pytest.mark.parametrize("kind", ["parent", "absolute", "symlink", "device"])
def test_tar_archives_cannot_write_elsewhere(tmp_path, kind):
    name = {"parent": "../../evil.ckpt", "absolute": f"{tmp_path}/evil.ckpt"}.get(kind, "evil.ckpt")
    member = tarfile.TarInfo(name)
    member.type = {"symlink": tarfile.SYMTYPE, "device": tarfile.CHRTYPE}.get(kind, tarfile.REGTYPE)
    member.linkname = "/etc/passwd"
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        archive.addfile(member, io.BytesIO())
    refused(tmp_path / "file", data.getvalue(), "outside the destination|neither a file nor a folder|instead of one")
    assert not list(tmp_path.parent.rglob("evil.ckpt"))


def caffe(shape, numbers, blobs=1):
    net = message("NetParameter")()
    layer = net.layer.add(name="a")
    for _ in range(blobs):
        blob = layer.blobs.add()
        blob.shape.dim.extend(shape)
        blob.data.extend(numbers)
    return net.SerializeToString()


def onnx(**changes):
    import onnx
    from onnx import numpy_helper

    tensor = numpy_helper.from_array(np.ones(4, "float32"), "w")
    for name, value in changes.items():
        if name == "dims":
            tensor.dims[:] = value
        elif name == "location":
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=value)
    return onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor])).SerializeToString()


def graph(dims, content=b"", values=(1.0,)):
    from tensorflow.core.framework.graph_pb2 import GraphDef

    made = GraphDef()
    tensor = made.node.add(name="w", op="Const").attr["value"].tensor
    tensor.dtype, tensor.tensor_content = 1, content
    tensor.float_val.extend(values)
    for size in dims:
        tensor.tensor_shape.dim.add(size=size)
    return made.SerializeToString()


PROTOBUF = {
    "caffe shape": (lambda: caffe((2**40, 2**20), [1.0]), "1 numbers for shape"),
    "caffe negative": (lambda: caffe((-1, -1), [1.0]), "1 numbers for shape"),
    "caffe blobs": (lambda: caffe((1,), [1.0], blobs=3), "3 blobs"),
    "onnx dims": (lambda: onnx(dims=(2**40,)), "4 numbers for shape"),
    "onnx negative": (lambda: onnx(dims=(-2, -2)), "4 numbers for shape"),
    "onnx external": (lambda: onnx(location="/etc/passwd"), "another file"),
    "graph dims": (lambda: graph((2**40,)), "1 numbers for shape"),
    "graph negative": (lambda: graph((-1, -1)), "1 numbers for shape"),
    "graph content": (lambda: graph((4,), content=bytes(15)), None),
    "garbage": (lambda: b"\x12\x07garbage\xff", "damaged"),
    "empty": (lambda: b"", "damaged"),
    "safetensors": (lambda: struct.pack("<Q", 40) + b'{"w":{"dtype":"F32","shape":[9],"data_o}', None),
}


@pytest.mark.parametrize("what", PROTOBUF)
def test_files_that_lie_about_shapes(tmp_path, what):
    made, expected = PROTOBUF[what]
    refused(tmp_path / "file", made(), expected)


WRAPPED = ("torch pickle", "keras config", "keras variables")  # what lies inside of another target


@pytest.mark.parametrize("target", [t for t in fuzz_weights.TARGETS if t not in WRAPPED])
def test_every_kind_of_file_is_refused_when_it_ends_early(tmp_path, target):
    made, _ = fuzz_weights.TARGETS[target]
    path = tmp_path / ("m.ckpt.index" if "index" in target else "file")
    data = made()
    for length in (len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=re.escape(str(path))):
            read(path)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"registered_name": "Lambda", "class_name": "Lambda", "config": {"function": "evil"}},
            "a Lambda, not a GoogLeNet",
        ),
        (
            {"registered_name": "inception_v1>GoogLeNet", "config": {"width_multiplier": 16.0}},
            "too few for its network",
        ),
        ({"registered_name": "inception_v1>GoogLeNet", "config": {"evil": 1}}, "evil"),
        ({"registered_name": "inception_v1>GoogLeNet", "config": {"variant": "evil"}}, "variant"),
        ({"registered_name": "inception_v1>GoogLeNet"}, "config"),
        ([], "list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_keras_archives_build_nothing_but_a_googlenet(tmp_path, config, expected):
    data = fuzz_weights.keras(config=json.dumps(config).encode())
    path = tmp_path / "file.keras"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=expected):
        read(path)


FUZZ = "import runpy; runpy.run_module('tests.fuzz_weights', run_name='__main__')"


def test_mutated_files_are_refused_or_read():
    """A few of each kind; `python -m tests.fuzz_weights` makes 10,000. In a process of its own: a parser may crash."""
    slow = ["keras config", "keras variables"]  # a network is built for each
    for examples, targets in (("75", [t for t in fuzz_weights.TARGETS if t not in slow]), ("8", slow)):
        output = done([sys.executable, "-c", FUZZ, "--examples", examples, "--targets", *targets])
        lines = [line for line in output.splitlines() if " files: " in line]
        assert len(lines) == len(targets)
        for line in lines:
            assert re.search(rf" {examples} files: +[1-9]\d* refused", line), line
