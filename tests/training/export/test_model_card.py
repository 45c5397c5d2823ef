import json

from training.run_folder import RunFolder


def test_the_card_describes_the_export(exported):
    run, folder, card = exported
    assert json.loads((folder / "model_card.json").read_text("utf-8")) == card
    assert (card["name"], card["version"], card["source"]) == ("digits", 1, str(run))
    assert card["classes"] == (folder / "labels.txt").read_text().splitlines() == RunFolder(run).classes()
    assert card["network"]["multiply_accumulates"] == 322_272
    assert set(card["parity"]) == {
        "savedmodel/serving_default",
        "savedmodel/predict_images",
        "savedmodel/predict_images_uint8",
        "onnx",
        *(f"litert/{precision}" for precision in ("float32", "float16", "dynamic", "int8")),
    }
    for form, near in card["parity"].items():
        assert near["images"] == 40
        if form not in ("litert/float16", "litert/dynamic", "litert/int8"):
            assert near["probabilities"] < 1e-5, form
            assert near["logits"] < 1e-5, form
    text = (folder / "README.md").read_text("utf-8")
    assert "serving_default" in text
    assert "| litert/int8 |" in text
