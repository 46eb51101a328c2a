# The two commands are `make demo` and `make test`. Both first create .venv (once; see tools/bootstrap.py), from uv.lock.
# Another Python than the first suitable one: make PYTHON=python3.12 demo

BIN := .venv/bin

.PHONY: help environment demo test lint format

help:  ## Show this list.
	@sed -n 's/^\([a-z]*\):.*## /make \1 	/p' Makefile

environment:  ## Create .venv, unless it is there and complete.
	@PYTHON="$(PYTHON)" $(or $(PYTHON),python3) tools/bootstrap.py

demo: environment  ## Train on a small generated table, and compare with the best possible loss.
	@$(BIN)/python -m tools.demo

test: environment  ## Run all tests.
	$(BIN)/python -m pytest -q -n 2

lint: environment  ## Check style and types, as CI does.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: environment  ## Put the code into the project's format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
