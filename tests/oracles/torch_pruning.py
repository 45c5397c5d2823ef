"""torchvision's `googlenet` with channels removed by Torch-Pruning (https://github.com/VainF/Torch-Pruning).

PyTorch and TensorFlow crash in one process, so the logits are stored: `python -m tests.oracles.torch_pruning`, with
torch, torchvision and torch-pruning installed, makes `torch_pruning.npz` anew. Weights, channels and images are rebuilt
from seeds.
"""

from pathlib import Path

import numpy as np

from inception_v1.dependencies import channels
from inception_v1.spec import Spec
from inception_v1.weights import name_mapping
from tests.oracles import images, torchvision

SIZE = (65, 64)
KEPT = 2 / 3  # of the channels of every convolution of the body
FIXTURE = Path(__file__).with_suffix(".npz")


def kept_channels(widths: dict[str, int]) -> dict[str, np.ndarray]:
    """The channels of each convolution that stay, drawn in the order of their (our) names."""
    random = np.random.default_rng(0)
    return {name: np.sort(random.choice(width, int(width * KEPT), replace=False)) for name, width in widths.items()}


def _make() -> dict[str, np.ndarray]:
    """Runs torchvision and Torch-Pruning."""
    import torch
    import torch_pruning
    from torchvision.models import googlenet

    net = googlenet(weights=None, aux_logits=True, init_weights=False, transform_input=False).eval()
    state = {name: torch.from_numpy(torchvision.weights(name, tuple(t.shape))) for name, t in net.state_dict().items()}
    net.load_state_dict(state)
    x = torch.from_numpy(images(*SIZE, torchvision.SCALE)).permute(0, 3, 1, 2)
    widths, entries = channels(Spec("torchvision")), name_mapping.torchvision(Spec("torchvision"))
    kept, modules = kept_channels(widths), dict(net.named_modules())

    def with_heads(net, x):  # of the network alone, so that its parts stay in evaluation
        net.training = True
        return list(net(x))

    for name, width in widths.items():
        theirs = entries[f"{name}/kernel"].name.removesuffix(".weight")
        graph = torch_pruning.DependencyGraph().build_dependency(net, x, forward_fn=with_heads)
        gone = sorted(set(range(width)) - set(kept[name].tolist()))
        group = graph.get_pruning_group(modules[theirs], torch_pruning.prune_conv_out_channels, idxs=gone)
        group.prune()
    net.eval()
    taps = {}
    net.inception4a.register_forward_hook(lambda _, __, out: taps.update(aux1=out))
    net.inception4d.register_forward_hook(lambda _, __, out: taps.update(aux2=out))
    with torch.no_grad():
        heads = {"main": net(x), "aux1": net.aux1(taps["aux1"]), "aux2": net.aux2(taps["aux2"])}
    for head, logits in heads.items():
        print(head, tuple(logits.shape), "deviation", float(logits.std()))
    return {head: logits[:, : torchvision.STORED].numpy() for head, logits in heads.items()}


if __name__ == "__main__":
    np.savez_compressed(FIXTURE, **_make())
