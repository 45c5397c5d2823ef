"""Feature visualization beside lucent, Lucid's port to PyTorch: python -m benchmarks rendering

Both render the first channels of inception_4d of torchvision's network with random weights: one batch of images of 128
pixels, Lucid's Fourier parameterization, standard transforms and Adam. Lucent resizes what comes out of the transforms
to 224 pixels, or to a size that it is told: it is measured as it is, and with the 140 pixels that the network sees here
in the mean, since Lucid's shifts crop and lucent's do not. A round is some steps after the compiled ones; the rate is
images times steps per second. `pip install torch torchvision`, and `pip install --no-deps torch-lucent==0.1.8
kornia==0.4.1 future decorator`, since lucent asks for test tools too. About 2 minutes on 2 cores.
"""

import functools
from collections.abc import Sequence
from typing import Any

from benchmarks import results
from benchmarks.results import ResultTable
from benchmarks.rounds import Make, Work, alternate, median, spread

NAME = "rendering"
SIZE, BATCH, STEPS = 128, 16, 8
SEEN = SIZE + 2 * 12 - 8 - 4  # pixels that the network sees in the mean: padded, cropped, scaled, cropped
OURS, LUCENT, ENLARGED = "this package", "lucent, enlarged to 140", "lucent as it is, enlarged to 224"


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    return results.run(NAME, __doc__, arguments, 7, measure, tables)


def measure(rounds: int) -> dict[str, Any]:
    """Rates of the three forms."""
    makers: dict[str, Make] = {
        OURS: package_rendering,
        LUCENT: functools.partial(lucent_rendering, SEEN),
        ENLARGED: functools.partial(lucent_rendering, None),
    }
    return {"about": results.about(), "rounds": rounds, "forms": alternate(makers, rounds)}


def tables(result: dict[str, Any]) -> list[ResultTable]:
    forms = {name: form for name, form in result["forms"].items() if form}
    rows = []
    for name, form in result["forms"].items():
        if form is None:
            rows.append([name, "not installed", "", "", ""])
            continue
        ratio = median(forms[OURS]) / median(form)
        rows.append([name, f"{median(form):.1f}", spread(form), f"{ratio:.2f}", f"{form['memory'] / 2**30:.1f} GB"])
    about = results.machine(result["about"], "tensorflow", "keras", "torch", "torchvision")
    title = f"{BATCH} images of {SIZE} pixels at once, {STEPS} steps a round, {result['rounds']} rounds; {about}"
    return [ResultTable(title, ["form", "images/s", "range", "this package is faster by", "memory"], rows)]


def package_rendering() -> Work:
    import numpy as np

    from inception_v1 import build_googlenet
    from interpretability import objectives, parameterizations
    from interpretability.rendering import Renderer

    numbers = np.arange(BATCH)
    renderer = Renderer(
        build_googlenet("torchvision"),
        lambda numbers: objectives.channels("inception_4d", numbers),
        parameterizations.image(SIZE, batch=BATCH),
        example=numbers,
    )

    def work() -> int:
        renderer(numbers, steps=STEPS)
        return BATCH * STEPS

    return work


def lucent_rendering(enlarged: int | None) -> Work:
    import torch
    import torchvision
    from lucent.optvis import objectives, param, render

    network = torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=False).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    device = torch.device("cpu")
    network.to(device)
    objective = objectives.Objective.sum([objectives.channel("inception4d", n, batch=n) for n in range(BATCH)])

    def work() -> int:
        render.render_vis(
            network,
            objective,
            lambda: param.image(SIZE, batch=BATCH),
            thresholds=(STEPS,),
            progress=False,
            show_image=False,
            fixed_image_size=enlarged,
        )
        return BATCH * STEPS

    return work
