"""Which precisions of LiteRT and ONNX an export writes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from inception_v1.spec import Spec, check_choice
from training.errors import UserError
from training.export import litert, onnx_precisions


class Precisions(NamedTuple):
    """The precisions of an export.

    Attributes:
        litert: of LiteRT.
        onnx: of ONNX, beside float32.
        refused: {"litert/int8": why it cannot be} where nobody asked for it.
    """

    litert: tuple[str, ...] = ()
    onnx: tuple[str, ...] = ()
    refused: Mapping[str, str] = {}

    @property
    def calibrated(self) -> bool:
        """Whether one of them needs images of the training split."""
        return "int8" in self.litert + self.onnx

    @property
    def scored(self) -> bool:
        """Whether their accuracy is measured on the test split."""
        return bool(self.litert or self.onnx)


def choose_precisions(targets: Sequence[str], asked: Sequence[str] | None, spec: Spec, of_run: bool) -> Precisions:
    """The precisions of an export.

    Args:
        targets: of the export.
        asked: names; None for all of LiteRT that the network allows, and float32 of ONNX.
        spec: the network.
        of_run: whether it comes from a run, on whose training split ranges can be measured.

    Raises:
        UserError: a name that no target has, or int8 of a network that cannot be.
    """
    why = "its ranges are measured on a run's training split, and this is a file" if not of_run else None
    why_litert = litert.int8_refusal(spec) or why
    if asked is None:
        possible = tuple(name for name in litert.PRECISIONS if name != "int8" or why_litert is None)
        with_litert = "litert" in targets
        refused = {"litert/int8": why_litert} if with_litert and why_litert else {}
        return Precisions(possible if with_litert else (), (), refused)
    known = {"litert": litert.PRECISIONS, "onnx": onnx_precisions.PRECISIONS}
    names = dict.fromkeys(name for target in targets for name in known.get(target, ()))
    for name in asked:
        check_choice("precision", name, names)
    if not asked:
        raise UserError(f"Expected at least one precision of {', '.join(names)}; Received: none.")
    refusal = why_litert if "litert" in targets else why
    if "int8" in asked and refusal:
        raise UserError(f"Expected a network that can be int8; Received: {refusal}.")
    return Precisions(
        tuple(asked) if "litert" in targets else (),
        tuple(name for name in asked if name in known["onnx"][1:]) if "onnx" in targets else (),
    )
