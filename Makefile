# make sweep   the demo sweep, from speech to an exported model
# make test    the checks and all tests
# make quick   the checks and the tests that need no Ray, no server and no whole sweep
# make ui      the trials of `make sweep` in the MLflow UI
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed
LOCK := cluster/locks/dev.txt

# Python compiles a package where it is first imported, and every process of a sweep would do it again if it kept nothing.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: sweep test quick lint style ui clean

sweep: NAME := demo-$(shell date -u +%Y%m%d-%H%M%S)
sweep: $(STAMP)
	$(BIN)/python sweeps/run.py --config sweeps/configs/demo.yaml --set name=$(NAME)
	@echo
	$(BIN)/hausa-asr best-model --sweep $(NAME) --overwrite

test: style
	$(BIN)/python -m pytest  # mypy is among the tests

quick: lint
	$(BIN)/python -m pytest -m "not whole and not server and not slow and not long"

lint: style
	$(BIN)/mypy

style: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

ui: $(STAMP)
	$(BIN)/mlflow ui --host 127.0.0.1 --backend-store-uri sqlite:///$(CURDIR)/mlflow.db

INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e '.[demo,dev,lm,onnx,serve]'

# Set up once, and again only when the requirements change: with the versions that were tested, where they can be had;
# with LOCKED=1 with no others.
$(STAMP): pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) -c $(LOCK) || { echo "not all versions of $(LOCK) can be had here"; \
		test -z "$(LOCKED)" && echo "taking the newest" && $(INSTALL); }
	@touch $(STAMP)

clean:
	rm -rf .venv runs mlflow.db mlartifacts best-model
