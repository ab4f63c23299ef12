# Everything sets itself up: a bare Python >= 3.11 and a C compiler are enough.
#   make demo    the main job: a cache that learns its expiry, before your eyes
#   make test    build and pass the tests
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
SOURCES = pyproject.toml setup.py $(wildcard _ext/*) $(shell find adaptcache -name '*.py' -o -name '*.html' -o -name '*.pyi')

.PHONY: demo test test-slow bench bench-expiry bench-freshness bench-recovery bench-restart bench-robustness bench-ablation bench-overhead lint typing clean

# The package is built and installed as a user would; ADAPTCACHE_TESTS adds the tests' own extension.
$(VENV)/installed: $(SOURCES)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "adaptcache needs Python 3.11 or later; set PYTHON=")'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	ADAPTCACHE_TESTS=1 $(RUN) -m pip install --quiet '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(RUN) -P -m adaptcache demo --html adaptcache-demo.html

# Python salts the hashes of str, which the learner's draws depend on: a fixed salt makes a run repeat exactly.
# `make test PYTHONHASHSEED=random ADAPTCACHE_EXPLORE=1` looks for what no run has seen.
export PYTHONHASHSEED ?= 0

test: $(VENV)/installed
	$(RUN) -P -m pytest -n 2 -m "not slow"

test-slow: $(VENV)/installed
	$(RUN) -P -m pytest -n 2 -m slow

bench: $(VENV)/installed
	$(RUN) -m pip install --quiet 'libcachesim>=0.3.5,<0.4'
	$(RUN) -P -m pytest bench -q --benchmark-only --benchmark-quiet

bench-expiry: $(VENV)/installed
	$(RUN) -P bench/expiry.py

bench-freshness: $(VENV)/installed
	$(RUN) -P bench/freshness.py

bench-recovery: $(VENV)/installed
	$(RUN) -P bench/recovery.py

bench-restart: $(VENV)/installed
	$(RUN) -P bench/restart.py

bench-robustness: $(VENV)/installed
	$(RUN) -P bench/robustness.py

bench-ablation: $(VENV)/installed
	$(RUN) -P bench/ablation.py

bench-overhead: $(VENV)/installed
	$(RUN) -P bench/overhead.py

lint: $(VENV)/installed
	$(RUN) -m ruff check adaptcache tests bench

typing: $(VENV)/installed
	$(RUN) -m mypy adaptcache

clean:
	rm -rf $(VENV) build dist *.egg-info _ext/*.c adaptcache/*.so
