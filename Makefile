# Everything runs in .venv, made by the first target that needs it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint bench bench-sharing bench-prediction bench-federated bench-dp crypten soak clean

demo: $(STAMP)  ## train on a data owner's node, ask for the weights, approve, compare with plain torch
	$(BIN)/python examples/breast_cancer.py

test: $(STAMP)  ## the test suite, doctests and documentation snippets included
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

soak: $(STAMP)  ## minutes-long versions of the fault and fuzz tests
	SYFTLITE_FUZZ=1000000 $(BIN)/python -m pytest -m "slow or not slow" -n 2 --dist loadfile --timeout 3600

bench: $(STAMP)  ## ratios against peers, which get an environment of their own
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install -q -c constraints.txt -e . -r benchmarks/requirements-remote.txt
	.venv-bench/bin/python benchmarks/remote.py

bench-sharing: $(STAMP) crypten  ## secret sharing beside CrypTen; MP-SPDZ too where MP_SPDZ_HOME has it
	$(BIN)/python benchmarks/sharing.py --peers-python .venv-bench-sharing/bin/python

bench-prediction: $(STAMP) crypten  ## private prediction beside CrypTen
	$(BIN)/python benchmarks/prediction.py --peers-python .venv-bench-sharing/bin/python

crypten:  # the peer of both, in an environment of its own
	$(PYTHON) -m venv .venv-bench-sharing
	.venv-bench-sharing/bin/pip install -q -c constraints.txt -r benchmarks/requirements-sharing.txt
	.venv-bench-sharing/bin/pip install -q --no-deps crypten

bench-federated: $(STAMP)  ## federated learning beside Flower's simulation
	$(PYTHON) -m venv .venv-bench-federated
	.venv-bench-federated/bin/pip install -q -r benchmarks/requirements-federated.txt
	$(BIN)/python benchmarks/federated.py --peers-python .venv-bench-federated/bin/python

bench-dp: $(STAMP)  ## DP-SGD beside plain torch and Opacus
	$(PYTHON) -m venv .venv-bench-dp
	.venv-bench-dp/bin/pip install -q -c constraints.txt -e . -r benchmarks/requirements-dp.txt
	.venv-bench-dp/bin/python benchmarks/dp.py

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	$(BIN)/python -m compileall -q syftlite  # once: where Python is told to write no bytecode, each process would do it again, in 0.6 s
	touch $(STAMP)

clean:
	rm -rf $(VENV) .venv-bench .venv-bench-sharing .venv-bench-federated .venv-bench-dp build dist *.egg-info
