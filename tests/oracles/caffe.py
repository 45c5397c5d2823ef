"""Caffe's `bvlc_googlenet`, run by OpenCV below 5 from a prototxt."""

import numpy as np

from inception_v1.weights.caffe_file import message, write_caffe
from tests.oracles import random_array

FAMILY, EXECUTOR, VARIANT, SCALE = "Caffe", "OpenCV", "paper", 60.0
SPREAD = {"loss3/classifier": 1 / 122, "loss1/classifier": 1 / 125, "loss2/classifier": 1 / 96}  # logits of deviation 1

BLOCKS = {  # arXiv 1409.4842, Table 1
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class Net:
    """Layers in the order of `train_val.prototxt`, as text and as shapes of their blobs."""

    def __init__(self, height: int, width: int):
        self.text = [f'input: "data" input_shape {{ dim: 2 dim: 3 dim: {height} dim: {width} }}']
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.channels = {"data": 3}

    def add(self, name: str, kind: str, bottom, parameters: str, channels: int | None = None) -> str:
        bottoms = [bottom] if isinstance(bottom, str) else bottom
        listed = " ".join(f'bottom: "{b}"' for b in bottoms)
        self.text.append(f'layer {{ name: "{name}" type: "{kind}" {listed} top: "{name}" {parameters} }}')
        self.channels[name] = channels or sum(self.channels[b] for b in bottoms)
        return name

    def conv(self, name: str, bottom: str, out: int, kernel: int, stride: int = 1, pad: int = 0) -> str:
        self.shapes[name] = (out, self.channels[bottom], kernel, kernel)
        sizes = f"num_output: {out} kernel_size: {kernel} stride: {stride} pad: {pad}"
        self.add(name, "Convolution", bottom, f"convolution_param {{ {sizes} }}", out)
        return self.add(f"{name}/relu", "ReLU", name, "")

    def dense(self, name: str, bottom: str, inputs: int, out: int) -> str:
        self.shapes[name] = (out, inputs)
        return self.add(name, "InnerProduct", bottom, f"inner_product_param {{ num_output: {out} }}", out)

    def pool(self, name: str, bottom: str, kernel: int, stride: int, pad: int = 0, method: str = "MAX") -> str:
        sizes = f"kernel_size: {kernel} stride: {stride} pad: {pad}"
        return self.add(name, "Pooling", bottom, f"pooling_param {{ pool: {method} {sizes} }}")

    def lrn(self, name: str, bottom: str) -> str:
        return self.add(name, "LRN", bottom, "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")

    def block(self, block: str, bottom: str) -> str:
        name, (n1, r3, n3, r5, n5, proj) = f"inception_{block}", BLOCKS[block]
        ends = [
            self.conv(f"{name}/1x1", bottom, n1, 1),
            self.conv(f"{name}/3x3", self.conv(f"{name}/3x3_reduce", bottom, r3, 1), n3, 3, pad=1),
            self.conv(f"{name}/5x5", self.conv(f"{name}/5x5_reduce", bottom, r5, 1), n5, 5, pad=2),
            self.conv(f"{name}/pool_proj", self.pool(f"{name}/pool", bottom, 3, 1, 1), proj, 1),
        ]
        return self.add(f"{name}/output", "Concat", ends, "")

    def head(self, loss: str, bottom: str) -> None:
        x = self.pool(f"{loss}/ave_pool", bottom, 5, 3, method="AVE")
        x = self.conv(f"{loss}/conv", x, 128, 1)
        x = self.dense(f"{loss}/fc", x, 4 * 4 * 128, 1024)
        self.dense(f"{loss}/classifier", self.add(f"{loss}/relu_fc", "ReLU", x, ""), 1024, 1000)


def net(height: int, width: int) -> Net:
    n = Net(height, width)
    x = n.lrn("pool1/norm1", n.pool("pool1/3x3_s2", n.conv("conv1/7x7_s2", "data", 64, 7, 2, 3), 3, 2))
    x = n.conv("conv2/3x3", n.conv("conv2/3x3_reduce", x, 64, 1), 192, 3, pad=1)
    x = n.pool("pool2/3x3_s2", n.lrn("conv2/norm2", x), 3, 2)
    for block in BLOCKS:
        x = n.block(block, x)
        if block in ("3b", "4e"):
            x = n.pool(f"pool{int(block[0])}/3x3_s2", x, 3, 2)
        if block in ("4a", "4d"):
            n.head({"4a": "loss1", "4d": "loss2"}[block], x)
    x = n.add("pool5/7x7_s1", "Pooling", x, "pooling_param { pool: AVE global_pooling: true }")
    n.dense("loss3/classifier", x, 1024, 1000)
    return n


def write_old(name: str, layers: dict[str, tuple[str, list[np.ndarray]]]) -> bytes:
    """What `write_caffe` writes, in the wire format of 2014, which the published file has."""
    made = message("NetParameter")(name=name)
    for layer, (kind, blobs) in layers.items():
        added = made.layers.add(name=layer, type={"Convolution": 4, "InnerProduct": 14}[kind])
        for array in blobs:
            blob = added.blobs.add(data=array.ravel().tolist())
            blob.num, blob.channels, blob.height, blob.width = (1,) * (4 - array.ndim) + array.shape
    return made.SerializeToString()


def write(folder, old: bool = False):
    """A `.caffemodel` in one of the two wire formats."""
    layers = {}
    for name, shape in net(224, 224).shapes.items():
        kernel = random_array(f"{name}_w_0", shape) * SPREAD.get(name, 1)
        kind = "Convolution" if len(shape) == 4 else "InnerProduct"
        layers[name] = (kind, [kernel, random_array(f"{name}_b_0", shape[:1])])
    path = folder / ("old.caffemodel" if old else "new.caffemodel")
    path.write_bytes((write_old if old else write_caffe)("GoogleNet", layers))
    return path


def run(path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Logits by head."""
    import cv2

    prototxt = "\n".join(net(*images.shape[1:3]).text).encode()
    network = cv2.dnn.readNetFromCaffe(np.frombuffer(prototxt, "uint8"), np.frombuffer(path.read_bytes(), "uint8"))
    network.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    network.setInput(np.ascontiguousarray(images[..., ::-1].transpose(0, 3, 1, 2)))  # blue first
    heads = {"main": "loss3/classifier", "aux1": "loss1/classifier", "aux2": "loss2/classifier"}
    return dict(zip(heads, network.forward(list(heads.values())), strict=True))
