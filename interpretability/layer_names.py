"""Names of layers: ours, and those by which Lucid and the Circuits papers know the same ones."""

import functools

from inception_v1.spec import Spec
from inception_v1.weights import name_mapping

# Of layers without weights, as they are called in the graph of inception5h.
_LUCID = {
    "maxpool0": "pool1",
    "localresponsenorm0": "pool1_norm1",
    "localresponsenorm1": "conv2_norm2",
    "maxpool1": "pool2",
    "maxpool4": "pool3",
    "maxpool10": "pool4",
}
PRE_RELU, PRE_ACTIVATION = "_pre_relu", "_pre_activation"


@functools.cache
def _from_lucid() -> dict[str, str]:
    entries = name_mapping.inception5h(Spec("inception5h"))
    own = {entry.name.removesuffix("_w"): path.partition("/")[0] for path, entry in entries.items()}
    logits = {f"{name}{PRE_ACTIVATION}": layer for name, layer in own.items() if name.startswith("softmax")}
    heads = {name: layer.removesuffix("_logits") for name, layer in own.items() if name.startswith("softmax")}
    blocks = {name.partition("_")[0]: layer[:12] for name, layer in own.items() if name.startswith("mixed")}
    return {**_LUCID, **own, **logits, **heads, **blocks}


def lucid_names() -> list[str]:
    """Lucid's names of layers."""
    return list(_from_lucid())


def own_name(name: str) -> str:
    """Our name of a layer that has one of Lucid's; any other as it is."""
    layer, suffix = (name.removesuffix(PRE_RELU), PRE_RELU) if name.endswith(PRE_RELU) else (name, "")
    known = _from_lucid()
    return f"{known[layer]}{suffix}" if layer in known else name
