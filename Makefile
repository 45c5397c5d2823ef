# make demo   builds .venv when needed, trains on real digits, evaluates, and classifies one picture
# make test   builds .venv when needed, then lint, types and tests
PYTHON ?= python3.11
BIN := .venv/bin
RUN ?= runs/demo

.PHONY: demo test
.DELETE_ON_ERROR:

.venv/installed: setup.py pyproject.toml
	@echo "== making .venv with $$($(PYTHON) --version)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "== installing the package and its test tools (a few minutes the first time)"
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

demo: .venv/installed
	@echo "== training GoogLeNet on scikit-learn's handwritten digits"
	$(BIN)/googlenet train --out $(RUN) --overwrite
	@echo "== evaluating"
	$(BIN)/googlenet evaluate $(RUN)
	@echo "== classifying one picture"
	$(BIN)/python -m training.sources digits 'test[:1]' $(RUN)/picture.png
	$(BIN)/googlenet predict $(RUN) $(RUN)/picture.png

test: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest
