"""The model card of an export: its network, inputs, outputs and measurements, as JSON and as Markdown."""

import datetime
import importlib.metadata
import json
from typing import Any

from rich.table import Table

from inception_v1 import cost
from training.export.export_model import ExportModel
from training.run_folder import METRICS, RunFolder

NAMES = ("model_card.json", "README.md")
PACKAGES = ("googlenet-keras", "tensorflow", "keras", "tf2onnx", "onnxruntime", "ai-edge-litert")


def begin_card(source: str, name: str, version: int, run: RunFolder | None, network: ExportModel) -> dict[str, Any]:
    """What is known of an export before it is written.

    Args:
        source: folder of the run, or the file, as the user named it.
        name: of the export.
        version: of it.
        run: where the network comes from one.
        network: what is exported.
    """
    spec, heads = network.model.spec, list(network.outputs.values())
    counts = cost(spec) if len(heads) > 1 else cost(spec).without_aux()
    return {
        "name": name,
        "version": version,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "made_with": {package: importlib.metadata.version(package) for package in PACKAGES},
        "source": source,
        "network": {
            "variant": spec.variant,
            "heads": heads,
            "parameters": network.net.count_params(),
            "multiply_accumulates": counts.macs,
            "spec": spec.to_dict() | {"class_names": None},
        },
        "classes": network.labels,
        "pixels": {
            "shape": list(network.shape),
            "colors": "RGB" if network.channels == 3 else "gray",
            "scale": "0-255",
            "convention": spec.pixels,
            "mean": network.mean.tolist(),
            "std": network.std.tolist(),
            "normalized": "(pixel - mean) / std",
            "preparation": "center square, resized bicubically with antialiasing, rounded",
        },
        "training": _training(run),
        "formats": {},
    }


def card_texts(card: dict[str, Any]) -> tuple[str, str]:
    """The contents of the files in `NAMES`."""
    parts = [_about(card), _pixels(card), _formats(card), _serving(card), _training_text(card), _measured(card)]
    return json.dumps(card, indent=2, ensure_ascii=False) + "\n", "\n\n".join(part for part in parts if part) + "\n"


def parity_table(card: dict[str, Any]) -> Table:
    """What was exported and how close it is, for the terminal."""
    shown = Table(title=f"{card['name']}, version {card['version']}")
    for title in ("form", "MB", "probabilities within", "same class", "top-1"):
        shown.add_column(title, justify="left" if title == "form" else "right", no_wrap=title == "form")
    accuracy = card.get("accuracy", {})
    for form, file in _files_of(card).items():
        parity = card["parity"][form]
        top1 = f"{accuracy[form]['top1']:.2%}" if form in accuracy else ""
        megabytes = f"{card['files'][file]['bytes'] / 1e6:.2f}"
        shown.add_row(form, megabytes, f"{parity['probabilities']:.1e}", f"{parity['same_class']:.0%}", top1)
    return shown


def formats_of(card: dict[str, Any]) -> list[str]:
    """Names of the files and signatures that an export holds, e.g. "onnx" or "litert/int8"."""
    return list(_files_of(card))


def _files_of(card: dict[str, Any]) -> dict[str, str]:
    """{format: path of its file}, as `formats_of` names them."""
    files: dict[str, str] = {}
    for kind, entry in card["formats"].items():
        if kind == "savedmodel":
            files |= {f"{kind}/{signature}": entry["file"] for signature in entry["signatures"]}
        elif kind == "litert":
            files |= {f"{kind}/{precision}": one["file"] for precision, one in entry.items()}
        else:
            files[kind] = entry["file"]
            files |= {f"{kind}/{precision}": one["file"] for precision, one in entry.get("precisions", {}).items()}
    return files


def _training(run: RunFolder | None) -> dict[str, Any] | None:
    """What the run measured, or None."""
    if run is None or not (run / METRICS).is_file():
        return None
    metrics = run.metrics()
    kept = ("command", "status", "epochs", "best_epoch", "splits", "images", "heads")
    return {key: metrics[key] for key in kept if key in metrics} | {"source": run.recipe().source}


def _about(card: dict[str, Any]) -> str:
    network, classes = card["network"], card["classes"]
    shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    made = ", ".join(f"{package} {version}" for package, version in card["made_with"].items())
    return (
        f"# {card['name']}, version {card['version']}\n\n"
        f"GoogLeNet (Inception v1), variant `{network['variant']}`, heads {', '.join(network['heads'])}: "
        f"{network['parameters']:,} parameters, {network['multiply_accumulates']:,} multiply-accumulates an image.\n"
        f"{len(classes)} classes (`labels.txt`): {shown}.\n"
        f"Exported from `{card['source']}`, {card['made']}, with {made}."
    )


def _pixels(card: dict[str, Any]) -> str:
    pixels = card["pixels"]
    height, width, channels = pixels["shape"]
    return (
        f"## Pixels\n\n{height}x{width}x{channels}, {pixels['colors']}, channels last. Preparation of an image: "
        f"{pixels['preparation']}. Normalized (`{pixels['convention']}`): `{pixels['normalized']}` of pixels on the "
        f"{pixels['scale']} scale, mean {pixels['mean']}, std {pixels['std']}."
    )


def _formats(card: dict[str, Any]) -> str:
    lines = ["## Files", ""]
    for file, known in card.get("files", {}).items():
        lines.append(f"- `{file}`: {known['bytes']:,} bytes, sha256 `{known['sha256']}`")
    for signature, ends in card["formats"].get("savedmodel", {}).get("signatures", {}).items():
        lines.append(f"- SavedModel signature `{signature}`: {_ends(ends)}")
    if onnx := card["formats"].get("onnx"):
        lines.append(f"- ONNX, opset {onnx['opset']}, {onnx['layout']}, `image` {onnx['pixels']}: {_ends(onnx)}")
        lines += [f"- ONNX {name}, `{one['file']}`: likewise" for name, one in onnx.get("precisions", {}).items()]
    if web := card["formats"].get("web"):
        lines.append(f"- Web page, `{web['page']}`, by {web['runtime']}: serve the folder `web/`, open it in a browser")
    for precision, entry in card["formats"].get("litert", {}).items():
        lines.append(f"- LiteRT {precision}, `{entry['file']}`: `image` float32, {entry['layout']}, {entry['pixels']}")
    lines += [f"- {form} was left out: {why}." for form, why in card.get("refused", {}).items()]
    return "\n".join(lines)


def _ends(ends: dict[str, Any]) -> str:
    sides = (
        ", ".join(f"`{name}` {dtype} ({', '.join(map(str, shape))})" for name, (dtype, shape) in ends[side].items())
        for side in ("inputs", "outputs")
    )
    return " -> ".join(sides)


def _serving(card: dict[str, Any]) -> str:
    signatures = card["formats"].get("savedmodel", {}).get("signatures", {})
    if "predict_images" not in signatures:
        return ""
    return (
        "## Serving\n\n"
        "`serving_default` takes JPEG, PNG, GIF, BMP or WebP images. Of each image it returns the best classes, "
        "their labels and scores, all probabilities, and a `status`: `ok`, `unreadable` or `too large` (more than "
        "8,192 x 8,192 pixels), or `not finite` of `predict_images`. An image that is not ok has class -1, empty "
        "labels and zeros; the others of its batch are not affected."
    )


def _training_text(card: dict[str, Any]) -> str:
    training = card["training"]
    if not training:
        return ""
    lines = [f"## Training\n\n`{training.get('command')}` on {training['source']}, {training['status']}."]
    for head, scores in training.get("heads", {}).items():
        lines.append(
            f"- {head}, {training['images']} test images: top-1 {scores['top1']:.2%}, loss {scores['loss']:.4f}"
        )
    return "\n".join(lines)


def _measured(card: dict[str, Any]) -> str:
    if "parity" not in card:
        return ""
    accuracy = card.get("accuracy", {})
    lines = [
        f"## Compared with the Keras model\n\nIn a fresh process, on images of {card['compared_on']}. "
        "Logits: difference over their size, where probabilities are not rounded to 8 bits.\n",
        "| form | images | probabilities within | logits within | same class | top-1 |",
        "|---|---|---|---|---|---|",
    ]
    if keras := accuracy.get("keras"):
        lines.append(f"| Keras | {keras['images']} | | | | {keras['top1']:.2%} |")
    for form, near in card["parity"].items():
        logits = "" if form.endswith("int8") and "litert" in form else f"{near['logits']:.1e}"
        top1 = f"{accuracy[form]['top1']:.2%}" if form in accuracy else ""
        cells = (form, near["images"], f"{near['probabilities']:.1e}", logits, f"{near['same_class']:.0%}", top1)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)
