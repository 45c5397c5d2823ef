"""torchvision's own `googlenet` and real files of `torch.save`.

PyTorch and TensorFlow crash in one process, so the answers are stored: `python -m tests.oracles.torchvision`, with
torch and torchvision installed, makes `torchvision.npz` anew. It holds what `torch.save` wrote around the weights, and
the first logits of each head; the weights themselves are rebuilt from their names.
"""

import io
import zipfile
from pathlib import Path

import numpy as np

from tests.oracles import SIZES, images, random_array

FAMILY, EXECUTOR, VARIANT, SCALE = "torchvision", "torchvision", "torchvision", 1.0
SPREAD = {"fc.weight": 1 / 14, "aux1.fc2.weight": 1 / 4.5, "aux2.fc2.weight": 1 / 8.5}  # logits of deviation about 1
STORED = 50  # logits a head and image
FIXTURE = Path(__file__).with_suffix(".npz")


def weights(name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("num_batches_tracked"):
        return np.array(7, "int64")
    return random_array(name, shape) * np.float32(SPREAD.get(name, 1))


def write(folder: Path, legacy: bool = False) -> Path:
    """The `.pth` that `torch.save` made: the zip of today, or the stream of pickles that torchvision published."""
    fixture = np.load(FIXTURE)
    shapes = zip(fixture["names"], fixture["shapes"], strict=True)
    arrays = [weights(str(name), tuple(n for n in shape if n >= 0)) for name, shape in shapes]
    path = folder / f"googlenet{'-legacy' if legacy else ''}.pth"
    if legacy:
        blocks = [arrays[i].size.to_bytes(8, "little") + arrays[i].tobytes() for i in fixture["legacy_order"]]
        path.write_bytes(fixture["legacy"].tobytes() + b"".join(blocks))
        return path
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("googlenet/data.pkl", fixture["pickle"].tobytes())
        archive.writestr("googlenet/byteorder", "little")
        for i, array in enumerate(arrays):
            archive.writestr(f"googlenet/data/{i}", array.tobytes())
    return path


def run(path: Path, images: np.ndarray, transform_input: bool = False) -> dict[str, np.ndarray]:
    """The stored first logits by head."""
    fixture = np.load(FIXTURE)
    prefix = f"{'transform_' if transform_input else ''}{images.shape[1]}x{images.shape[2]}"
    return {head: fixture[f"{prefix}_{head}"] for head in ("main", "aux1", "aux2")}


def transformed(normalized: np.ndarray) -> np.ndarray:
    """What `transform_input` makes of pixels with ImageNet's mean and deviation: -1 to 1."""
    mean, std = np.array([0.485, 0.456, 0.406], "f4"), np.array([0.229, 0.224, 0.225], "f4")
    return ((normalized * std + mean) - np.float32(0.5)) / np.float32(0.5)


def _make() -> dict[str, np.ndarray]:
    """Runs torchvision."""
    import torch
    from torchvision.models import googlenet

    net = googlenet(weights=None, aux_logits=True, init_weights=False).eval()
    state = {name: torch.from_numpy(weights(name, tuple(t.shape))) for name, t in net.state_dict().items()}
    net.load_state_dict(state)
    state = net.state_dict()
    made = {"names": np.array(list(state))}
    made["shapes"] = np.array([list(t.shape) + [-1] * (4 - t.ndim) for t in state.values()])

    file = io.BytesIO()
    torch.save(state, file)
    archive = zipfile.ZipFile(file)
    pickled = next(name for name in archive.namelist() if name.endswith("data.pkl"))
    made["pickle"] = np.frombuffer(archive.read(pickled), "uint8")
    for i, tensor in enumerate(state.values()):
        assert archive.read(pickled.replace("data.pkl", f"data/{i}")) == tensor.numpy().tobytes()
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=False)
    data = file.getvalue()
    tail = sum(8 + t.numel() * t.element_size() for t in state.values())
    made["legacy"] = np.frombuffer(data[:-tail], "uint8")
    by_address = sorted((str(t.untyped_storage()._cdata), i) for i, t in enumerate(state.values()))
    made["legacy_order"] = np.array([i for _, i in by_address])
    blocks = [list(state.values())[i].numpy() for i in made["legacy_order"]]
    assert data[-tail:] == b"".join(b.size.to_bytes(8, "little") + b.tobytes() for b in blocks)

    taps = {}
    net.inception4a.register_forward_hook(lambda _, __, out: taps.update(aux1=out))
    net.inception4d.register_forward_hook(lambda _, __, out: taps.update(aux2=out))
    with torch.no_grad():
        for net.transform_input in (False, True):
            for size in SIZES:
                x = torch.from_numpy(images(*size, SCALE)).permute(0, 3, 1, 2)
                heads = {"main": net(x), "aux1": net.aux1(taps["aux1"]), "aux2": net.aux2(taps["aux2"])}
                for head, logits in heads.items():
                    prefix = f"{'transform_' if net.transform_input else ''}{size[0]}x{size[1]}"
                    made[f"{prefix}_{head}"] = logits[:, :STORED].numpy()
                    print(prefix, head, "deviation", float(logits.std()))
    return made


if __name__ == "__main__":
    np.savez_compressed(FIXTURE, **_make())
