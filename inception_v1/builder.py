"""`build_googlenet`: a network, and weights into it."""

import inspect
import os
from typing import Unpack

from inception_v1.model import GoogLeNet
from inception_v1.spec import SpecArguments, signature
from inception_v1.weights.loading import assign_weights, read_weights


def build_googlenet(
    variant: str | None = None, *, weights: str | os.PathLike[str] | None = None, **arguments: Unpack[SpecArguments]
) -> GoogLeNet:
    """Builds GoogLeNet (Inception v1) with its main and two auxiliary classifiers.

    Args:
        variant: the family: "paper" (= Caffe), "batchnorm", "plain" (no normalization), "torchvision", "slim",
            "onnx_zoo", "inception5h" or "cifar" (that of the pruning literature). None: the family of `weights`, or
            the paper's.
        input_shape: (height, width, channels) in pixels, always channels last. Height and width may be None where
            nothing after them is flattened: without the 5x5/3 auxiliary heads.
        classes: number of classes; None for the family's own (1000, slim 1001, inception5h 1008, cifar 10).
        aux: whether to build the auxiliary heads "aux1" (on block 4a) and "aux2" (on 4d).
        include_top: False leaves out every head; the output is then one tensor of features.
        pooling: of the features without a top: None (the feature maps), "avg" or "max" (one vector an image).
        stem: "imagenet" (halves the image three times before block 3a), "small" (once, for 28-64 px images) or
            "cifar" (not at all, for 32 px: one 3x3 convolution).
        widths: block name ("3a" ... "5b") to six channel counts in the order of `spec.Widths`. Blocks not named
            keep the family's. Explicit numbers are final: `width_multiplier` leaves them alone.
        stem_widths: channels of the stem's convolutions in their order: three of "imagenet" (7x7, 1x1, 3x3), two of
            "small", one of "cifar"; None for 64, 64 and 192 (64 and 192; 192) under the width multiplier.
        width_multiplier: scales every other convolution and the auxiliary dense layers, rounded to multiples of 8.
        reduction: False builds the naive module without 1x1 reductions and projections (Figure 2a).
        dropout: rate in [0, 1) before the main classifier, or a pair (main, auxiliary); None, also within the pair, for
            the family's. A single rate leaves that of the auxiliary classifiers.
        weights: a file in any format that `load_weights` reads, or published weights by name, downloaded once:
            "torchvision" or "imagenet" (the same), "caffe", "slim". None for random weights.
        classifier_activation: "softmax", or None for logits.
        lrn: (size, alpha, beta, k) of the response normalization (see `LocalResponseNormalization`); None: as in
            `weights` where it has them (inception5h), or the family's.
        pixels: pixel convention of the input, a key of `spec.PIXELS`; None: the family's. Kept with the
            model, which takes pixels already normalized.
        class_names: names of the classes in label order, kept with the model.
        name: of the model.

    Returns:
        A `GoogLeNet`, not compiled. With a top it returns a dict of the heads, each `(batch, classes)` in float32.

    Raises:
        UserError: a `ValueError`; an argument is out of range, the input is smaller than the body can take, or
            `weights` do not load (see `load_weights`).

    Source: Szegedy et al., "Going deeper with convolutions", arXiv 1409.4842, section 5 and Table 1.
    """
    if weights is None:
        return GoogLeNet(variant or "paper", **arguments)
    published = read_weights(weights)
    if arguments.get("lrn") is None:
        arguments["lrn"] = published.lrn
    model = GoogLeNet(variant or published.variant or "paper", **arguments)
    assign_weights(model, published)
    return model


def _signature() -> inspect.Signature:
    own = inspect.Signature.from_callable(build_googlenet).parameters
    return signature(own["variant"], own["weights"])


build_googlenet.__signature__ = _signature()  # type: ignore[attr-defined]  # `inspect` reads it, but typeshed's functions have none
