"""Captum's attributions on torchvision's own `googlenet`, with the weights of `tests/oracles/torchvision.py`.

PyTorch and TensorFlow crash in one process, so the maps are stored: `python -m tests.oracles.captum`, with torch,
torchvision and `captum==0.9.0` installed, makes `captum.npz` anew.
"""

from pathlib import Path

import numpy as np

from tests.helpers.images import patch_images
from tests.oracles.torchvision import weights

FIXTURE = Path(__file__).with_suffix(".npz")
SIZE, STEPS = 63, 200
WINDOW, STRIDE = 9, 3  # of occlusion; windows of this stride end where an image of 63 pixels does


def image() -> np.ndarray:
    """uint8 `(1, SIZE, SIZE, 3)`."""
    return patch_images(1, SIZE, SIZE, 3, seed=5)


def _make() -> dict[str, np.ndarray]:
    """Runs Captum."""
    import torch
    from captum.attr import IntegratedGradients, LayerGradCam, Occlusion
    from torchvision.models import googlenet

    net = googlenet(weights=None, aux_logits=True, init_weights=False).eval()
    net.load_state_dict({name: torch.from_numpy(weights(name, tuple(t.shape))) for name, t in net.state_dict().items()})
    x = torch.from_numpy(image() / np.float32(127.5) - 1).permute(0, 3, 1, 2)  # the published weights' pixels
    black = torch.full_like(x, -1)

    def logits_of(head):
        if head == "main":
            return net
        taps = {}
        block = {"aux1": net.inception4a, "aux2": net.inception4d}[head]
        block.register_forward_hook(lambda _, __, out: taps.update(out=out))

        def run(batch):
            net(batch)
            return getattr(net, head)(taps["out"])

        return run

    made: dict[str, torch.Tensor] = {}
    for head, block in {"main": net.inception5b, "aux1": net.inception4a, "aux2": net.inception4d}.items():
        forward = logits_of(head)
        best = made[f"class_{head}"] = forward(x).argmax()
        found = LayerGradCam(forward, block).attribute(x, int(best), relu_attributions=True)
        made[f"gradcam_{head}"] = found[0, 0]
    best = int(made["class_main"])
    gradients = IntegratedGradients(net).attribute(x, black, best, n_steps=STEPS, method="riemann_middle")
    window, stride = (3, WINDOW, WINDOW), (3, STRIDE, STRIDE)
    hidden = Occlusion(net).attribute(x, window, stride, target=best, perturbations_per_eval=19)
    made |= {"integrated_gradients_main": gradients.sum(1)[0], "occlusion_main": hidden[0, 0]}
    return {name: tensor.detach().numpy() for name, tensor in made.items()}


if __name__ == "__main__":
    np.savez_compressed(FIXTURE, **_make())
