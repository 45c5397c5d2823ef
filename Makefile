# make demo   builds .venv when needed, trains on real digits, evaluates, exports, classifies an image with the export,
#             and writes a web page of the network, where npm and Node are there
# make test   builds .venv when needed, then lints, checks types and runs the tests
# make docs   builds the site into docs/_build/html, runs its examples and every block of its pages
# make figures   makes the figures of README.md and docs/ anew
# make test-wheel   installs the wheel in new environments, without extras and with all of them, and uses it
# make test-versions   tests what depends on other libraries' versions with the lowest and the newest that setup.py allows
PYTHON ?= python3.11
BIN := .venv/bin
RUN ?= runs/demo
EXPORT ?= saved_models/demo
WEB_RUNTIME := training/export/web/onnxruntime/version.txt
VERSIONS ?= .venv/versions
VERSION_TESTS ?= tests/inception_v1/test_keras_patches.py tests/training/data/test_orientation.py \
	tests/training/export/test_onnx_file.py tests/training/export/test_litert.py \
	tests/training/export/test_savedmodel.py tests/tuning/test_oracles.py \
	tests/test_googlenet.py::test_train_evaluate_predict_round_trip

define SAVE_A_TEST_DIGIT
import sys
from training import startup_notes
with startup_notes.hidden():
    import tensorflow as tf
    from PIL import Image
    from training.data.builders import Digits
digit = next(iter(Digits().as_dataset(split="test")))
Image.fromarray(digit["image"].numpy()[..., 0]).save(sys.argv[1])
print("a test image of a", int(digit["label"]))
endef
export SAVE_A_TEST_DIGIT

.PHONY: demo test docs figures test-wheel test-versions
.DELETE_ON_ERROR:

.venv/installed: setup.py pyproject.toml
	@echo "== making .venv with $$($(PYTHON) --version)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "== installing the package and its test tools (a few minutes the first time)"
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

# onnxruntime-web, which web exports need, by npm: what needs it says so where this failed
$(WEB_RUNTIME): training/export/web/fetch.py | .venv/installed
	@echo "== fetching onnxruntime-web with npm"
	@$(BIN)/python -m training.export.web.fetch 2>&1 | tail -n 1
	@touch -c $@

demo: .venv/installed $(WEB_RUNTIME)
	@echo "== training GoogLeNet on scikit-learn's handwritten digits"
	$(BIN)/googlenet train --out $(RUN) --overwrite
	@echo "== evaluating"
	$(BIN)/googlenet evaluate $(RUN)
	@echo "== classifying one image"
	@$(BIN)/python -c "$$SAVE_A_TEST_DIGIT" $(RUN)/digit.png
	$(BIN)/googlenet predict $(RUN) $(RUN)/digit.png
	@echo "== exporting, and classifying it with the export alone"
	$(BIN)/googlenet export $(RUN) --to savedmodel,onnx,litert --out $(EXPORT)
	$(BIN)/googlenet predict $(EXPORT) $(RUN)/digit.png
	@echo "== writing a web page of the network"
	@$(BIN)/googlenet export $(RUN) --to web --keep-aux --out $(EXPORT)-web || \
		echo "== there is no web page: see the line above; all else is done"

test: .venv/installed $(WEB_RUNTIME)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[test,docs]'
	@touch $@

docs: .venv/installed-docs $(WEB_RUNTIME)
	$(BIN)/cffconvert --validate
	@echo "== writing the web page of a digits run, which the site embeds"
	$(BIN)/python docs/scripts/web_page.py
	$(BIN)/sphinx-build -q -W --keep-going -n docs docs/_build/html
	GOOGLENET_EVERY_BLOCK=1 $(BIN)/pytest tests/docs
	@echo "== open docs/_build/html/index.html"

figures: .venv/installed-docs
	$(BIN)/python docs/scripts/figures.py

test-wheel: .venv/installed
	$(BIN)/python -m tests.install_wheel

# A direct requirement at its lowest, those of others at what that allows; then everything at its newest.
test-versions: .venv/installed
	$(BIN)/python -m pip install --quiet 'uv>=0.9'
	@set -e; for resolution in lowest-direct highest; do \
		echo "== $$resolution: making an environment in $(VERSIONS)/$$resolution"; \
		$(BIN)/uv venv --quiet --clear --python $(PYTHON) $(VERSIONS)/$$resolution; \
		$(BIN)/uv pip install --quiet --python $(VERSIONS)/$$resolution/bin/python --resolution $$resolution \
			--editable '.[test]'; \
		$(BIN)/uv pip list --quiet --python $(VERSIONS)/$$resolution/bin/python | \
			grep -E '^(keras|tensorflow|numpy|onnx|tf2onnx|ai-edge-litert|jax|protobuf)'; \
		$(VERSIONS)/$$resolution/bin/python -m pytest $(VERSION_TESTS); \
	done
