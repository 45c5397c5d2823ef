"""Tensors out of a file of `torch.save`, without PyTorch and without executing anything in the file.

Both layouts are read: the zip archive of PyTorch 1.6 and later, and the older stream of pickles, in which
torchvision's own GoogLeNet is published. Source: `torch/serialization.py`, `torch/_utils.py`.
"""

import collections
import io
import math
import pickle
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C  # `torch.serialization.MAGIC_NUMBER` of the older layout
PROTOCOL = 1001
PICKLE_BYTES = 2**22  # of structure; torchvision's GoogLeNet takes 2**16

DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "<u1",
}


class Storage(NamedTuple):
    """A flat block of numbers that tensors are views of; its bytes may come later in the file."""

    key: str
    dtype: str
    numel: int

    @property
    def bytes(self) -> int:
        return self.numel * (2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize)


class Tensor(NamedTuple):
    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_torch(data: bytes) -> dict[str, np.ndarray]:
    """The tensors of a state dict.

    Args:
        data: the whole file. A state dict may also be stored under "state_dict" or "model", and its names may begin
            with the "module." of `DataParallel`.

    Returns:
        {name: array}; bfloat16 becomes float32.

    Raises:
        ValueError: the pickle calls anything but what rebuilds tensors (named), or the file holds less than it
            declares, or no state dict.
    """
    state, storages = _read_zip(data) if data[:2] == b"PK" else _read_legacy(data)
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ValueError("it holds no dict of tensors by name")
    tensors = {name.removeprefix("module."): value for name, value in state.items() if isinstance(value, Tensor)}
    return {name: _array(tensor, storages(tensor.storage)) for name, tensor in tensors.items()}


def _read_zip(data: bytes) -> tuple[Any, Callable[[Storage], bytes]]:
    archive = zipfile.ZipFile(io.BytesIO(data))
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"it holds {len(pickles)} files data.pkl instead of one")
    root = pickles[0].removesuffix("data.pkl")

    def member(name: str, size: int | None) -> bytes:
        info = archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(data):
            raise ValueError(f"{name!r} is compressed or larger than the file, which torch.save never does")
        if size is None and info.file_size > PICKLE_BYTES:
            raise ValueError(f"{name!r} has {info.file_size} bytes, more than {PICKLE_BYTES}")
        if size is not None and info.file_size != size:
            raise ValueError(f"{name!r} has {info.file_size} bytes instead of {size}")
        return archive.read(info)

    if f"{root}byteorder" in archive.namelist() and member(f"{root}byteorder", None) != b"little":
        raise ValueError("its numbers are not little-endian")
    unpickler = _Unpickler(io.BytesIO(member(f"{root}data.pkl", None)), len(data))
    return unpickler.load(), lambda storage: member(f"{root}data/{storage.key}", storage.bytes)


def _read_legacy(data: bytes) -> tuple[Any, Callable[[Storage], bytes]]:
    """Five pickles (magic number, protocol, system, state, keys), then of each key its length and its bytes."""
    position, parts = 0, []
    known: dict[str, Storage] = {}
    for _ in range(5):
        stream = io.BytesIO(data[position : position + PICKLE_BYTES])
        unpickler = _Unpickler(stream, len(data))
        parts.append(unpickler.load())
        known |= unpickler.storages
        position += stream.tell()
    magic, protocol, system, state, keys = parts
    if magic != MAGIC or protocol != PROTOCOL:
        raise ValueError("it begins like no file of torch.save")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("its numbers are not little-endian")
    blocks = {}
    for key in keys:
        storage = known[key]
        numel = int.from_bytes(data[position : position + 8], "little")
        start, position = position + 8, position + 8 + storage.bytes
        if numel != storage.numel or position > len(data):
            raise ValueError(f"storage {key!r} holds {numel} numbers instead of {storage.numel}, or ends too early")
        blocks[key] = data[start:position]
    return state, lambda storage: blocks[storage.key]


class _Unpickler(pickle._Unpickler):
    """Rebuilds tensors and calls nothing else.

    In Python, because the table of the C version grows to any index that the file names.

    Args:
        file: the pickle.
        limit: of all storages together, bytes.
    """

    def __init__(self, file: io.BytesIO, limit: int) -> None:
        super().__init__(file)
        self._room = limit
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *rest: _checked(Tensor(storage, offset, size, stride))
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, requires_grad, hooks: data
        raise ValueError(f"its pickle calls {module}.{name}, and nothing but what rebuilds tensors may be called")

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key, _, numel, *_ = pid
        if kind != "storage" or dtype not in DTYPES.values() or not isinstance(key, str) or not _natural(numel):
            raise ValueError(f"its pickle names the storage {pid!r:.100}")
        storage = Storage(key, dtype, numel)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"it describes storage {key!r} in two ways")
        if sum(known.bytes for known in self.storages.values()) > self._room:
            raise ValueError(f"its storages are larger than its {self._room} bytes")
        return storage


def _natural(number: Any) -> bool:
    return type(number) is int and 0 <= number < 2**40


def _checked(tensor: Tensor) -> Tensor:
    """Refuses views that reach beyond their storage, or that are larger."""
    storage, offset, size, stride = tensor
    shapes = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= 8
    if not isinstance(storage, Storage) or not shapes or not all(map(_natural, (offset, *size, *stride))):
        raise ValueError("its pickle describes a tensor by something else than whole numbers")
    count: int = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count > storage.numel or (count and last >= storage.numel):
        raise ValueError(f"a tensor of shape {size} reaches beyond its {storage.numel} numbers")
    return tensor


def _array(tensor: Tensor, data: bytes) -> np.ndarray:
    if tensor.storage.dtype == "bfloat16":  # the upper half of a float32
        flat = (np.frombuffer(data, "<u2").astype("uint32") << 16).view("float32")
    else:
        flat = np.frombuffer(data, tensor.storage.dtype)
    strides = [step * flat.itemsize for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.size, strides).copy()
