# What a person types here. The work is done by .ci/bootstrap and .ci/run.
ARGS =

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench clean

help:
	@echo "make demo    watch a fleet form, talk, evict a device and go on   (ARGS=\"--members 50\")"
	@echo "make test    every gate: lint, types, built wheel, tests, coverage"
	@echo "make lint    the fast gates only: ruff, mypy, pyright"
	@echo "make bench   measure the core beside its floors and rivals        (ARGS=\"--case evict\")"
	@echo "make clean   remove .venv and everything else that was made here"
	@echo
	@echo "They need Python 3.11 or newer and put everything else into .venv. Root is needed only for Debian"
	@echo "packages that are missing: Python's venv module, and for the tests mosquitto, nats-server,"
	@echo "rabbitmq-server, postgresql, prometheus (for promtool) and softhsm2."

demo:
	@bash .ci/bootstrap demo
	@.venv/bin/brokerkm demo $(ARGS)

test:
	@bash .ci/run

lint:
	@bash .ci/run lint

bench:
	@bash .ci/bootstrap demo
	@.venv/bin/brokerkm bench core $(ARGS)

clean:
	rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.* build dist
	find brokerkm adapters tests -name __pycache__ -type d -prune -exec rm -rf {} +
